"""`alertrouter explain`, as a person or a script calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alertrouter.cli import main
from alertrouter.delivery.explained_text import escaped
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.rules.test_wrong_files import fill

RULES = str(Path(__file__).parents[2] / "rules")
KEY = "0123456789abcdef0123456789abcdef"
EVENT = {
    "routing_key": KEY,
    "event_action": "trigger",
    "dedup_key": "disk/db-1",
    "payload": {
        "summary": "Disk low",
        "source": "db-1",
        "severity": "warning",
        "custom_details": {"service": "search"},
    },
}


def run(*words: str, body: Any = "") -> Result:
    given = body if isinstance(body, str | bytes) else json.dumps(body)
    return CliRunner().invoke(main, words, input=given)


def explain(source: str, body: Any, *words: str, rules: str = RULES) -> Any:
    result = run("explain", "--source", source, "--rules", rules, "-o", "json", *words, "-", body=body)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_one_object_for_each_alert_says_what_would_happen() -> None:
    body = alertmanager_body(
        alertmanager_alert(severity="warning"),
        alertmanager_alert("DnsTimeouts", service="search", severity="warning"),
    )
    first, second = explain("alertmanager", body)
    assert (first["outcome"], first["service"], first["severity"], first["priority"]) == (
        "delivered",
        "payment-service",
        "critical",
        "P1",
    )
    assert first["matched"] == ["payments-critical", "payments"]
    assert first["dedup_key"].startswith("alertmanager:")
    assert first["event"]["event_action"] == "trigger"
    assert first["event"]["dedup_key"] == first["dedup_key"]
    assert first["event"]["routing_key"] == "[redacted]"
    assert first["event"]["payload"]["custom_details"]["team"] == "team-payments"
    assert first["trace"][0] == {
        "orchestration": "global",
        "set": "start",
        "rule": "staging-dns-noise",
        "matched": False,
        "why": "`event.summary matches part 'DNS timeout'` is false: it is \"HighErrorRate of payment\"",
        "warnings": [],
    }
    assert (second["outcome"], second["service"], second["severity"]) == ("delivered", "search-service", "warning")


NOISE = {
    **EVENT,
    "payload": {"summary": "DNS timeout", "source": "x", "severity": "error", "custom_details": {"env": "staging"}},
}


@pytest.mark.parametrize(
    ("at", "outcome"),
    [
        ("2027-03-31T23:59:59Z", "suppressed"),
        ("2027-03-31T23:59:59", "suppressed"),
        ("2027-04-01T00:30:00+01:00", "suppressed"),
        ("2027-04-01T00:00:00Z", "delivered"),
    ],
)
def test_judges_as_of_the_time_that_is_asked_for(at: str, outcome: str) -> None:
    (explained,) = explain("pagerduty", NOISE, "--at", at)
    assert explained["outcome"] == outcome
    assert (explained["event"] is None) is (outcome == "suppressed")
    assert explained["rule"] == ("staging-dns-noise" if outcome == "suppressed" else "")
    assert bool(explained["reason"]) is (outcome == "suppressed")


@pytest.mark.parametrize("action", ["trigger", "acknowledge", "resolve"])
def test_an_event_keeps_its_own_key_and_action(action: str) -> None:
    (explained,) = explain("pagerduty", {**EVENT, "event_action": action})
    assert explained["dedup_key"] == "disk/db-1"
    assert (explained["event"]["event_action"], explained["event"]["dedup_key"]) == (action, "disk/db-1")


def test_the_key_of_the_sender_is_nowhere_in_the_answer() -> None:
    for output in ("json", "text"):
        result = run("explain", "--source", "pagerduty", "--rules", RULES, "-o", output, "-", body=EVENT)
        assert KEY not in result.output


def test_the_text_says_first_what_happens_and_then_why() -> None:
    result = run("explain", "--source", "pagerduty", "--rules", RULES, "-", body=EVENT)
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    assert lines[:5] == [
        "Would go to pagerduty:default as warning P3, because rule search of the router gives it to search-service.",
        "disk/db-1: firing, warning",
        "Disk low",
        "service: search-service, team: team-discovery",
        "runbook: https://git.example.org/sre/alertrouter/blob/main/runbooks/search-service.md",
    ]
    assert (
        "no  payments                     `event.custom_details.service matches 'payment'` is false: it is \"search\""
        in result.stdout
    )
    assert "yes search " in result.stdout
    assert '"event_action": "trigger"' in result.stdout


def test_the_text_of_a_suppression_names_rule_and_reason() -> None:
    result = run("explain", "--source", "pagerduty", "--rules", RULES, "--at", "2027-03-31T00:00:00Z", "-", body=NOISE)
    assert result.stdout.startswith("Nobody would be told: rule staging-dns-noise suppresses it (the staging resolver")
    assert "  What PagerDuty was told before is still resolved.\n" in result.stdout
    assert "PagerDuty would get" not in result.stdout


def rules_that_do(directory: Path, then: str, **files: str) -> str:
    """A directory whose only global rule does this."""
    text = f"sets: {{start: [{{rule: r, owner: me, then: {then}}}]}}\n"
    fill(directory, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": text, **files})
    return str(directory)


def test_a_dropped_alert_says_who_dropped_it_and_until_when(tmp_path: Path) -> None:
    directory = rules_that_do(tmp_path, "{drop: true, reason: known, expires: 2999-12-31}")
    (explained,) = explain("pagerduty", EVENT, rules=directory)
    assert (explained["outcome"], explained["event"], explained["destinations"]) == ("dropped", None, [])
    assert (explained["rule"], explained["reason"]) == ("r", "known")
    assert explained["until"] == 32_503_680_000_000
    text = run("explain", "--source", "pagerduty", "--rules", directory, "-", body=EVENT).stdout
    assert text.startswith("Nobody would be told: rule r drops it (known).\n")
    assert "  the rules may say otherwise from 3000-01-01 00:00:00 UTC on\n" in text
    assert "service:" not in text


@pytest.mark.parametrize(
    ("action", "then", "outcome", "sent"),
    [
        ("trigger", "{suspend: 5m}", "suspended", "trigger"),
        ("resolve", "{suspend: 5m}", "delivered", "resolve"),
        ("trigger", "{suspend: 5m, event_action: resolve}", "delivered", "resolve"),
        ("resolve", "{event_action: trigger}", "delivered", "trigger"),
        ("resolve", "{suspend: 5m, event_action: trigger}", "suspended", "trigger"),
    ],
)
def test_a_rule_may_hold_a_trigger_back_or_turn_it_into_a_resolve(
    tmp_path: Path, action: str, then: str, outcome: str, sent: str
) -> None:
    (explained,) = explain("pagerduty", {**EVENT, "event_action": action}, rules=rules_that_do(tmp_path, then))
    assert (explained["outcome"], explained["event_action"]) == (outcome, sent)
    assert explained["event"]["event_action"] == sent


def test_the_text_of_a_suspended_alert_says_for_how_long(tmp_path: Path) -> None:
    directory = rules_that_do(tmp_path, "{suspend: 5m}")
    text = run("explain", "--source", "pagerduty", "--rules", directory, "-", body=EVENT).stdout
    assert text.startswith(
        "Would be held back for 5 min, then go to pagerduty:default as warning unless resolved by then, "
        "because no rule of the router wanted it.\n"
    )


def test_the_text_says_what_a_rule_made_of_the_action(tmp_path: Path) -> None:
    directory = rules_that_do(tmp_path, "{event_action: resolve}")
    text = run("explain", "--source", "pagerduty", "--rules", directory, "-", body=EVENT).stdout
    assert text.startswith("Would be resolved at pagerduty:default, because no rule of the router wanted it.\n")
    assert "  taken as a resolve, because a rule says so\n" in text


def test_what_the_events_api_cannot_carry_is_marked_as_ours(tmp_path: Path) -> None:
    then = "{escalation_policy: everyone, custom_fields: {impact: '{{event.source}}', tries: 3}}"
    (explained,) = explain("pagerduty", EVENT, rules=rules_that_do(tmp_path, then))
    assert (explained["escalation_policy"], explained["custom_fields"]) == ("everyone", {"impact": "db-1", "tries": 3})
    ours = explained["event"]["payload"]["custom_details"]["alertrouter"]
    assert (ours["escalation_policy"], ours["custom_fields"]) == ("everyone", {"impact": "db-1", "tries": 3})


def test_a_faulty_service_file_is_told_and_its_alerts_explained_all_the_same(tmp_path: Path) -> None:
    router = "catch_all: {route_to: shop}\n"
    directory = rules_that_do(tmp_path, "{}", **{"router.yaml": router, "services/shop.yaml": "tier: high\n"})
    result = run("explain", "--source", "pagerduty", "--rules", directory, "-", body=EVENT)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"quarantined: {tmp_path}/services/shop.yaml:1:7: ")
    assert result.stdout.startswith(
        "Would go to pagerduty:default as warning, "
        "because the file of shop is faulty and the catch-all takes its alerts.\n"
    )
    (explained,) = explain("pagerduty", EVENT, rules=directory)
    assert (explained["quarantined"], explained["service"], explained["outcome"]) == ("shop", "", "delivered")


def test_the_text_shows_what_makes_no_sense(tmp_path: Path) -> None:
    text = "sets: {start: [{rule: r, when: not event.custom_details.load > 5, then: {}}]}\n"
    fill(tmp_path, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": text})
    result = run("explain", "--source", "pagerduty", "--rules", str(tmp_path), "-", body=EVENT)
    assert "warning: `event.custom_details.load > 5` compares nothing with a number" in result.stdout


def test_alerts_that_are_none_are_told_beside_the_answer() -> None:
    result = run(
        "explain", "--source", "alertmanager", "--rules", RULES, "-o", "json", "-", body=alertmanager_body("junk")
    )
    assert json.loads(result.stdout) == []
    assert result.stderr.startswith("alert 1 of the body is skipped: ")


@pytest.mark.parametrize(
    ("words", "body", "code", "words_back"),
    [
        (("--source", "alertmanager", "--rules", RULES, "-"), "not json", 2, "not understood: not JSON"),
        (("--source", "alertmanager", "--rules", RULES, "-"), "", 2, "not understood: empty body"),
        (("--source", "pagerduty", "--rules", RULES, "-"), "{}", 2, "'event_action' must be"),
        (("--source", "nagios", "--rules", RULES, "-"), "{}", 2, "'nagios' is not one of"),
        (("--source", "pagerduty", "--rules", RULES, "nowhere.json"), "", 2, "No such file"),
        (("--source", "pagerduty", "--rules", RULES, "--at", "soon", "-"), "{}", 2, "'soon' is no date and time"),
        (("--source", "pagerduty", "--rules", "nowhere", "-"), EVENT, 1, "nowhere:1:1: cannot be read"),
        ((), "", 2, "name a BODY (- for standard input) and its --source, or an alert with --alert"),
        (("-",), "{}", 2, "Missing option '--source'"),
        (("--source", "pagerduty", "--url", "http://127.0.0.1:1", "-"), "{}", 2, "--url goes with --alert"),
        (("--alert", "x", "-"), "{}", 2, "leave out BODY"),
        (("--alert", "x", "--source", "pagerduty", "--rules", RULES), "", 2, "leave out --source, --rules"),
        (("--alert", " "), "", 2, "--alert needs the dedup_key"),
    ],
)
def test_explain_says_what_it_could_not_do(words: tuple[str, ...], body: Any, code: int, words_back: str) -> None:
    result = run("explain", *words, body=body)
    assert result.exit_code == code
    assert words_back in result.output


def test_what_else_is_told_and_run_and_the_shared_incident_are_shown(tmp_path: Path) -> None:
    then = (
        "{notify: 'slack:alerts', automation: {name: restart, job: restart-pod}, dedup_key: 'search {{event.source}}'}"
    )
    files = {
        "alertrouter.yaml": "destinations: {slack: {alerts: {}}}\n",
        "global.yaml": f"catch_all: {then}\n",
        "router.yaml": "catch_all: {route_to: unrouted}\n",
    }
    fill(tmp_path, files)
    (shown,) = explain("pagerduty", EVENT, rules=str(tmp_path))
    assert (shown["notify"], shown["automation"]) == (["slack:alerts"], ["restart"])
    assert shown["dedup_key"] == shown["event"]["dedup_key"] == "search db-1"
    text = run("explain", "--source", "pagerduty", "--rules", str(tmp_path), "-", body=EVENT).stdout
    assert "  told as well: slack:alerts\n  automation: restart\n" in text


def test_a_severity_that_rules_changed_is_told_with_what_was_heard(tmp_path: Path) -> None:
    directory = rules_that_do(tmp_path, "{severity: critical}")
    text = run("explain", "--source", "pagerduty", "--rules", directory, "-", body=EVENT).stdout
    assert text.startswith("Would go to pagerduty:default as critical (heard as warning), because ")


@pytest.mark.parametrize(("action", "word"), [("acknowledge", "acknowledged"), ("resolve", "resolved")])
def test_an_event_that_opens_nothing_is_told_as_what_it_is(action: str, word: str) -> None:
    body = {**EVENT, "event_action": action}
    text = run("explain", "--source", "pagerduty", "--rules", RULES, "-", body=body).stdout
    assert text.startswith(f"Would be {word} at pagerduty:default, because rule search of the router ")


def test_a_router_that_ends_in_a_service_says_so(tmp_path: Path) -> None:
    files = {
        "router.yaml": "catch_all: {route_to: shop}\n",
        "services/shop.yaml": "service: shop\nsets: {start: []}\ncatch_all: {}\n",
    }
    directory = rules_that_do(tmp_path, "{}", **files)
    text = run("explain", "--source", "pagerduty", "--rules", directory, "-", body=EVENT).stdout
    assert "because no rule of the router matched, and its catch-all names shop.\n" in text


@pytest.mark.parametrize("output", ["text", "json"])
def test_what_a_sender_wrote_cannot_move_the_cursor(output: str) -> None:
    hostile = "línea \x9b31m \u202egnp.exe \U0001f525 \u2028\x85\u2029"
    body = {**EVENT, "dedup_key": hostile, "payload": {**EVENT["payload"], "summary": "a\nb", "group": "\ud800"}}  # type: ignore[dict-item]
    result = run("explain", "--source", "pagerduty", "--rules", RULES, "-o", output, "-", body=body)
    assert result.exit_code == 0
    assert all(line.isprintable() for line in result.stdout.split("\n"))
    assert "línea \\u009b31m \\u202egnp.exe \U0001f525 \\u2028\\u0085\\u2029" in result.stdout
    if output == "json":
        assert json.loads(result.stdout)[0]["dedup_key"] == hostile


def test_escapes_are_those_of_json() -> None:
    text = "ü\x1b[2J\n\u202e\ud800\U000e0001€"
    assert escaped(text) == "ü\\u001b[2J\\n\\u202e\\ud800\\udb40\\udc01€"
    assert escaped(text, "latin-1").endswith("\\u20ac") and escaped(text, "latin-1").startswith("ü")
    assert json.loads(f'"{escaped(text, "ascii")}"') == text


def test_several_alerts_are_told_apart_by_an_empty_line() -> None:
    body = alertmanager_body(alertmanager_alert(), alertmanager_alert(n="2"))
    text = run("explain", "--source", "alertmanager", "--rules", RULES, "-", body=body).stdout
    assert text.count("Would go to pagerduty:default as critical P1") == 2
    assert "}\n\nWould go to" in text


def test_a_huge_alert_is_cut_in_the_text() -> None:
    details = {f"k{number}": "v" * 1000 for number in range(5000)}
    body = {**EVENT, "payload": {**EVENT["payload"], "custom_details": details}}  # type: ignore[dict-item]
    text = run("explain", "--source", "pagerduty", "--rules", RULES, "-", body=body).stdout
    assert len(text) < 50_000
    assert "more lines; -o json shows them\n" in text
