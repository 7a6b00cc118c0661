"""What each check finds, and what it leaves alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from alertrouter.rules.check import FINDERS, check, pages
from alertrouter.rules.finding import Finding, Gravity, RulesDirectory
from alertrouter.rules.load import read_rules
from tests.rules.test_wrong_files import FINE, WRONG, fill

NOW = round(datetime(2027, 1, 15, tzinfo=UTC).timestamp() * 1000)
SUPPRESS = {"suppress": True, "reason": "noise, OPS-1", "expires": "2027-03-31"}


def findings(tmp_path: Path, files: dict[str, str], **more: Any) -> list[Finding]:
    fill(tmp_path, {**FINE, **files})
    reading = read_rules(tmp_path)
    assert reading.ruleset is not None, [str(problem) for problem in reading.problems]
    return check(RulesDirectory(reading.ruleset, reading.documents, NOW, **more))


def rules(*rules: dict[str, Any], **top: Any) -> str:
    """A file with these rules in its set `start`, named r0, r1, ... if they have no name."""
    named = [{"rule": f"r{index}", "owner": "team-a", "then": {}, **rule} for index, rule in enumerate(rules)]
    return yaml.safe_dump({"sets": {"start": named}, **top}, sort_keys=False)


def found(tmp_path: Path, check_id: str, *global_rules: dict[str, Any]) -> list[Finding]:
    return [each for each in findings(tmp_path, {"global.yaml": rules(*global_rules)}) if each.check == check_id]


def found_in_condition(tmp_path: Path, check_id: str, when: str) -> list[str]:
    """The texts that the findings of one condition point at, up to the next blank."""
    text = f"sets:\n  start:\n    - rule: one\n      when: {when}\n      then: {{}}\n"
    return [
        text.splitlines()[each.line - 1][each.column - 1 :].split()[0]
        for each in findings(tmp_path, {"global.yaml": text})
        if each.check == check_id
    ]


ONE_AFTER_THE_OTHER = [
    # earlier, later, whether the later one is never reached
    (None, "event.severity == 'info'", True),
    (None, None, True),
    ("event.severity == 'info'", None, False),
    ("event.severity == 'info'", "event.severity == 'info'", True),
    ("event.severity == 'info'", "(event.severity   ==  'info')", True),
    ("event.severity == 'info'", "event.severity == 'warning'", False),
    ("event.severity == 'info'", "event.severity == 'info' and event.class exists", True),
    ("event.severity == 'info' and event.class exists", "event.severity == 'info'", False),
    ("event.class exists and event.severity == 'info'", "event.severity == 'info' and event.class exists", True),
    ("event.severity == 'info' or event.class exists", "event.class exists", True),
    ("event.severity == 'info'", "event.class exists or event.severity == 'info'", False),
    (["event.severity == 'info'", "event.class exists"], "event.class exists or event.severity == 'info'", True),
    (["event.severity == 'info'", "event.class exists"], ["event.class exists", "event.group exists"], False),
    ("not event.severity == 'info'", "not event.severity == 'info' and event.class exists", True),
    ("not event.severity == 'info'", "not event.severity == 'warning'", False),
    (
        "not (event.class exists and event.group exists)",
        "not event.class exists",
        True,
    ),
    ("not event.class exists", "not (event.class exists and event.group exists)", False),
    ("event.custom_details.n > 80", "event.custom_details.n > 90", True),
    ("event.custom_details.n > 90", "event.custom_details.n > 80", False),
    ("event.custom_details.n > 80", "event.custom_details.m > 90", False),
    ("event.custom_details.n >= 80", "event.custom_details.n > 80", True),
    ("event.custom_details.n > 80", "event.custom_details.n >= 80", False),
    ("event.custom_details.n < 8", "event.custom_details.n <= 7.5", True),
    ("event.custom_details.n < 8", "event.custom_details.n <= 8", False),
    ("event.custom_details.n < 8", "event.custom_details.n > 9", False),
    ("event.custom_details.n > 8", "event.custom_details.n == 9", True),
    ("event.custom_details.n > 9", "event.custom_details.n == 9", False),
    ("event.custom_details.n == 1", "event.custom_details.n == true", False),
    ("event.custom_details.n matches 1", "event.custom_details.n matches 1.0", False),
    ("event.summary matches part 'disk'", "event.summary matches part 'Disk full'", True),
    ("event.summary matches part 'disk full'", "event.summary matches part 'disk'", False),
    ("event.summary matches part exactly 'disk'", "event.summary matches part 'disk full'", False),
    ("event.summary matches part exactly 'disk'", "event.summary matches part exactly 'disk full'", True),
    ("event.summary matches part 'disk'", "event.source matches part 'disk full'", False),
    ("event.class matches 'Disk'", "event.class == 'disk'", True),
    ("event.class == 'disk'", "event.class matches 'disk'", False),
    ("event.class matches part 'disk'", "event.class == 'disk'", True),
    ("event.class matches 'disk'", "event.class matches part 'disk'", False),
    ("event.class matches regex 'a'", "event.class matches regex 'a' and event.group exists", True),
    ("event.class matches regex 'a'", "event.class matches regex exactly 'a'", False),
    ("event.class exists", "event.class == 'disk'", True),
    ("event.class exists", "not event.class == 'disk'", False),
    ("now in Mon 09:00:00 to 10:00:00 Etc/UTC", "now in Mon 09:00:00 to 10:00:00 Etc/UTC", True),
    ("now in Mon 09:00:00 to 10:00:00 Etc/UTC", "now in Mon 09:00:00 to 10:00:00 Asia/Tokyo", False),
]


def with_condition(when: str | list[str] | None) -> dict[str, Any]:
    return {} if when is None else {"when": when}


@pytest.mark.parametrize(("earlier", "later", "hidden"), ONE_AFTER_THE_OTHER)
def test_a_rule_is_unreachable_behind_a_broader_one(tmp_path: Path, earlier: Any, later: Any, hidden: bool) -> None:
    names = [
        each.message for each in found(tmp_path, "unreachable-rule", with_condition(earlier), with_condition(later))
    ]
    assert [name.split()[0] for name in names] == (["`r1`"] if hidden else [])


def test_an_unreachable_rule_is_told_by_place_and_by_what_hides_it(tmp_path: Path) -> None:
    (finding,) = found(
        tmp_path,
        "unreachable-rule",
        {"when": "event.class exists"},
        {"when": "event.group exists"},
        {"when": ["event.group == 'a'", "event.class == 'b'"]},
    )
    file = f"{tmp_path}/global.yaml"
    assert str(finding) == (
        f"{file}:11:11: error(unreachable-rule): `r2` is never reached: all that it would match is taken by "
        f"`r1` at {file}:7:11 and `r0` at {file}:3:11; move it above, or remove it"
    )


def test_what_ends_or_is_disabled_hides_nothing(tmp_path: Path) -> None:
    everything = {"when": "event.severity == 'info'"}
    for earlier in ({**everything, "then": SUPPRESS}, {**everything, "disabled": True}, {"disabled": True}):
        assert found(tmp_path, "unreachable-rule", earlier, everything) == []
    assert found(tmp_path, "unreachable-rule", everything, {**everything, "disabled": True}) == []


def test_a_look_up_hides_nothing(tmp_path: Path) -> None:
    look_up = {"source": "event.custom_details.service", "regex": ".+", "lookup_by": "service_name"}
    text = rules(
        {"then": {"dynamic_route_to": look_up}},
        {"when": "event.class exists", "then": {"route_to": "shop"}},
        catch_all={"route_to": "unrouted"},
    )
    assert [each.check for each in findings(tmp_path, {"router.yaml": text})] == []


def test_sets_hide_nothing_from_each_other(tmp_path: Path) -> None:
    text = yaml.safe_dump(
        {
            "sets": {
                "start": [{"rule": "a", "when": "event.class exists", "then": {"route_to": "next"}}],
                "next": [{"rule": "b", "when": "event.class exists", "then": {}}],
            }
        },
        sort_keys=False,
    )
    assert findings(tmp_path, {"global.yaml": text}) == []


def test_thousands_of_rules_are_compared_in_seconds(tmp_path: Path) -> None:
    many = [{"when": f"event.custom_details.service matches 'service-{index}'"} for index in range(3_000)]
    (finding,) = found(tmp_path, "unreachable-rule", *many, {"when": "event.custom_details.service == 'Service-7'"})
    assert "`r7` at" in finding.message


@pytest.mark.parametrize(("expires", "is_found"), [("2027-01-14", True), ("2027-01-15", False)])
def test_expired(tmp_path: Path, expires: str, is_found: bool) -> None:
    rule = {"when": "event.class == 'x'", "then": {**SUPPRESS, "expires": expires}}
    assert bool(found(tmp_path, "expired", rule)) is is_found
    assert found(tmp_path, "expired", {**rule, "disabled": True}) == []


@pytest.mark.parametrize(("expires", "is_found"), [("2028-01-17", True), ("2028-01-15", False), ("2027-01-01", False)])
def test_endless(tmp_path: Path, expires: str, is_found: bool) -> None:
    rule = {"when": "event.class == 'x'", "then": {**SUPPRESS, "expires": expires}}
    assert bool(found(tmp_path, "endless-suppression", rule)) is is_found


BROAD = [
    # condition, whether it is broad for everybody, and for one service
    (None, True, True),
    ("event.severity == 'info'", True, False),
    ("not event.severity == 'critical'", True, False),
    ("event.summary exists", True, True),
    ("event.summary matches regex '.*'", True, True),
    ("event.class exists", False, False),
    ("event.severity == 'info' and event.custom_details.env == 'staging'", False, False),
    ("event.severity == 'info' or event.custom_details.env == 'staging'", True, False),
    ("now in Sun 01:00:00 to 02:00:00 Etc/UTC", True, False),
    ("event.summary matches part 'DNS'", False, False),
    (["event.summary matches part 'DNS'", "event.source exists"], True, True),
]


@pytest.mark.parametrize(("when", "in_global", "in_service"), BROAD)
def test_a_broad_suppression(tmp_path: Path, when: Any, in_global: bool, in_service: bool) -> None:
    text = rules({**with_condition(when), "then": SUPPRESS})
    for file, is_found in {"global.yaml": in_global, "services/shop.yaml": in_service}.items():
        (tmp_path / "global.yaml").unlink(missing_ok=True)
        checks = [each.check for each in findings(tmp_path, {file: text})]
        assert ("broad-suppression" in checks) is is_found, file


def test_a_suppressing_catch_all_is_broad(tmp_path: Path) -> None:
    text = yaml.safe_dump({"catch_all": {"owner": "team-shop", **SUPPRESS}})
    (finding,) = findings(tmp_path, {"services/shop.yaml": text})
    assert (finding.check, finding.severity) == ("broad-suppression", Gravity.WARNING)
    assert finding.message == "this takes every alert of this service that no rule wants"


@pytest.mark.parametrize(
    ("when", "places"),
    [
        ("not event.custom_details.n > 5", ["not"]),
        ("not event.custom_details.n <= 5", ["not"]),
        ("event.class exists and not event.custom_details.n > 5", ["not"]),
        ("event.custom_details.n exists and not event.custom_details.n > 5", []),
        ("not event.custom_details.n > 5 and event.custom_details.n exists", []),
        ("event.custom_details.n > 1 and not event.custom_details.n > 5", []),
        ("not (event.custom_details.n exists and event.custom_details.n > 5)", []),
        ("not (event.custom_details.n > 5 or event.class == 'a')", ["not"]),
        ("event.custom_details.n exists or not event.custom_details.n > 5", ["not"]),
        ("event.custom_details.n exists and (event.class == 'a' or not event.custom_details.n > 5)", []),
        ("not event.custom_details.n == 5", []),
        ("not now > 2027-01-01 00:00:00 Etc/UTC", []),
    ],
)
def test_an_unguarded_not(tmp_path: Path, when: str, places: list[str]) -> None:
    assert found_in_condition(tmp_path, "unguarded-not", when) == places


def test_an_unguarded_not_is_told_with_the_remedy(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, "unguarded-not", {"when": "not event.custom_details['n m'] > 5"})
    assert finding.text == (
        "`not` also holds for every alert without `event.custom_details['n m']`; "
        "write `event.custom_details['n m'] exists and not ...`, or `<=` instead of `not` and `>`"
    )


@pytest.mark.parametrize(
    ("when", "places"),
    [
        ("event.summary matches 'DNS timeout'", ["'DNS"]),
        ("event.class exists and event.summary matches exactly 'DNS timeout'", ["'DNS"]),
        ("event.summary matches part 'DNS timeout'", []),
        ("event.summary matches 'Heartbeat'", []),
        ("event.custom_details.team matches 'site reliability'", []),
        ("event.custom_details.pod matches 'payment-*'", ["'payment-*'"]),
        ("event.custom_details.pod matches '*-canary'", ["'*-canary'"]),
        ("event.custom_details.pod matches 'pay.*'", ["'pay.*'"]),
        ("event.custom_details.pod matches part 'pay.*t'", ["'pay.*t'"]),
        ("event.custom_details.p matches '^P(1|2)$'", ["'^P(1|2)$'"]),
        ("event.custom_details.p matches regex '^P(1|2)$'", []),
        ("event.custom_details.cron matches '0 * * * *'", []),
        ("event.summary matches part '*** CRITICAL'", []),
        ("event.summary matches event.custom_details.title", []),
    ],
)
def test_matches_without_wildcard(tmp_path: Path, when: str, places: list[str]) -> None:
    assert found_in_condition(tmp_path, "matches-without-wildcard", when) == places


@pytest.mark.parametrize(
    ("when", "places"),
    [
        ("event.service == 'payment'", ["event.service"]),
        ("event.class exists and event.labels.env == 'a'", ["event.labels.env"]),
        ("event['class'] exists and event.custom_details.anything == 'a'", []),
        ("raw_event.anything == 'a'", []),
        ("event matches part 'OOMKilled'", []),
    ],
)
def test_a_field_that_no_event_has(tmp_path: Path, when: str, places: list[str]) -> None:
    assert found_in_condition(tmp_path, "unknown-field", when) == places


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("event.service", "write `event.custom_details.service` for what the sender calls so"),
        ("event['alert-name']", "write `event.custom_details['alert-name']` for what the sender calls so"),
        ("event.sumary", "did you mean `event.summary`?"),
        ("event[0]", "write a name: summary, source, severity, timestamp, class, component, group, custom_details"),
    ],
)
def test_the_field_that_was_meant_is_named(tmp_path: Path, path: str, remedy: str) -> None:
    (finding,) = found(tmp_path, "unknown-field", {"when": f"{path} exists"})
    assert (finding.remedy, finding.severity) == (remedy, Gravity.ERROR)


@pytest.mark.parametrize(
    ("when", "places"),
    [
        ("now in Mon 09:00:00 to 10:00:00 Etc/UTC", []),
        ("now in Sun 02:15:00 to 02:45:00 America/New_York", []),
        ("now in Mon 09:00:00 to 10:00:00 Etc/UTC and now in Tue 09:00:00 to 10:00:00 Etc/UTC", ["now"]),
        ("now in Mon 09:00:00 to 10:00:00 Etc/UTC and now in Mon 10:00:00 to 11:00:00 Etc/UTC", []),
        ("now in Mon 09:00:00 to 10:00:00 Etc/UTC and now in Mon 09:00:00 to 10:00:00 Europe/London", []),
        ("now in Mon 09:00:00 to 10:00:00 Etc/UTC and now in Mon 09:00:00 to 10:00:00 Asia/Tokyo", ["now"]),
        ("now in Mon 09:00:00 to 10:00:00 Etc/UTC and not now in Mon 08:00:00 to 11:00:00 Etc/UTC", ["now"]),
        ("now > 2027-01-01 00:00:00 Etc/UTC and now < 2027-01-02 00:00:00 Etc/UTC", ["now"]),
        ("now > 2027-02-01 00:00:00 Etc/UTC and now < 2027-02-02 00:00:00 Etc/UTC", []),
        ("now > 2027-02-02 00:00:00 Etc/UTC and now < 2027-02-01 00:00:00 Etc/UTC", ["now"]),
        ("now in Mon 09:00:00 to 10:00:00 Etc/UTC and now > 2040-01-01 00:00:00 Etc/UTC", []),
        (
            "now in Mon 09:00:00 to 10:00:00 Etc/UTC and now > 2040-01-03 00:00:00 Etc/UTC"
            " and now < 2040-01-08 00:00:00 Etc/UTC",
            ["now"],
        ),
        ("event.class exists and now < 2027-01-02 00:00:00 Etc/UTC", ["now"]),
        ("event.class exists or now < 2027-01-02 00:00:00 Etc/UTC", ["now"]),
        ("not now < 2027-01-02 00:00:00 Etc/UTC", []),
        ("event.timestamp exists", []),
    ],
)
def test_a_schedule_that_never_opens(tmp_path: Path, when: str, places: list[str]) -> None:
    assert found_in_condition(tmp_path, "schedule-never-opens", when) == places


KEY = "R0abcdefghijklmnopqrstuvwxyz0123"
SECRETS = {
    "alertrouter.yaml": [
        ({"destinations": {"slack": {"a": {"token": "anything at all"}}}}, True),
        ({"destinations": {"slack": {"a": {"token": {"env": "SLACK_BOT_TOKEN"}}}}}, False),
        ({"destinations": {"slack": {"a": {"url": "https://hooks.slack.com/services/T0/B0/abcdefghijkl"}}}}, True),
        ({"destinations": {"email": {"a": {"smtp": "smtp://user:pass@mail.example.org"}}}}, True),
        ({"destinations": {"webhook": {"a": {"api_key": {"file": "/run/secrets/key"}}}}}, False),
    ],
    "services/shop.yaml": [
        ({"routing_key": {"env": KEY}}, True),
        ({"routing_key": {"env": "PDKEYPAYMENTINEUROPEWESTREGION12"}}, False),
        ({"routing_key": {"file": f"/run/secrets/{'a' * 32}"}}, False),
        ({"links": [{"href": "https://grafana.example.org/d/x?token=abcdefghijklmnop"}]}, True),
        ({"links": [{"href": "https://www.notion.so/Runbook-0123456789abcdef0123456789abcdef"}]}, False),
        ({"links": [{"href": f"https://events.pagerduty.com/integration/{KEY}/enqueue"}]}, True),
        ({"links": [{"href": "https://x:@example.org/"}]}, False),
    ],
    "global.yaml": [
        ({"catch_all": {"annotate": "use xoxb-1234567890-abcdef"}}, True),
        ({"catch_all": {"annotate": f"curl -H 'Authorization: Bearer {KEY}' https://example.org"}}, True),
        ({"catch_all": {"annotate": "password: correct-horse-battery"}}, True),
        ({"catch_all": {"annotate": "The token is in vault, ask team-a."}}, False),
        ({"catch_all": {"annotate": "Fixed in 0123456789abcdef0123456789abcdef01234567"}}, False),
        ({"catch_all": {"enrich": {"details": {"key": "AKIAABCDEFGHIJKLMNOP"}}}}, True),
        ({"catch_all": {"enrich": {"details": {"sort_key": "name"}}}}, False),
    ],
}


@pytest.mark.parametrize(
    ("file", "content", "is_found"),
    [(file, content, is_found) for file, cases in SECRETS.items() for content, is_found in cases],
)
def test_secrets_are_found_and_never_repeated(
    tmp_path: Path, file: str, content: dict[str, Any], is_found: bool
) -> None:
    secrets = [each for each in findings(tmp_path, {file: yaml.safe_dump(content)}) if each.check == "secret"]
    assert [Path(each.file).name for each in secrets] == ([Path(file).name] if is_found else [])
    assert {each.text for each in secrets} <= {
        "this looks like a secret; name where it is found, `{env: ...}` or `{file: ...}`, and replace it"
    }


@pytest.mark.parametrize(("tested", "untested"), [(None, []), (frozenset(), ["r0", "r1"]), (frozenset({"r0"}), ["r1"])])
def test_rules_without_a_test(tmp_path: Path, tested: frozenset[str] | None, untested: list[str]) -> None:
    text = rules({"when": "event.class exists"}, {"when": "event.group exists"}, {"disabled": True})
    found = findings(tmp_path, {"global.yaml": text}, tested=tested)
    assert [each.message.split("`")[1] for each in found] == untested
    assert {each.check for each in found} <= {"rule-without-test"}


def test_a_runbook_that_is_not_there(tmp_path: Path) -> None:
    text = "team: team-shop\nrunbook: runbooks/shop.md\n"
    assert findings(tmp_path, {"services/shop.yaml": text}) == []
    (finding,) = findings(tmp_path, {"services/shop.yaml": text}, runbooks_missing=frozenset({"runbooks/shop.md"}))
    assert (finding.check, finding.line, finding.column) == ("runbook", 2, 10)
    assert finding.message == "there is no file runbooks/shop.md"


def test_rules_that_no_index_serves_are_noted_on_demand(tmp_path: Path) -> None:
    text = rules({"when": "event.class == 'x'"}, {"when": "not event.class == 'y'"})
    fill(tmp_path, {**FINE, "global.yaml": text})
    reading = read_rules(tmp_path)
    assert reading.ruleset is not None
    directory = RulesDirectory(reading.ruleset, reading.documents, NOW)
    assert check(directory) == []
    (note,) = check(directory, with_cost=True)
    assert (note.check, note.severity, note.line) == ("cost", Gravity.NOTE, 7)
    assert note.message.startswith("`r1` is tried for every alert: ")


WHAT_THE_LOADER_REFUSES = {
    "bad-regex": "global-condition-pattern",
    "bare-suppression": "global-suppress-without-anything",
    "duplicate-rule": "global-name-twice",
    "misplaced-action": "router-severity",
    "missing-catch-all": "router-no-catch-all",
    "set-circle": "global-circle",
    "syntax": "global-not-yaml",
    "unknown-destination": "config-unknown-destination",
    "unknown-key": "global-unknown-key",
    "unknown-priority": "global-unknown-priority",
    "unknown-service": "router-unknown-service",
    "unknown-set": "global-unknown-set",
    "runbook": "service-runbook-outside",
}


@pytest.mark.parametrize(("check_id", "wrong"), WHAT_THE_LOADER_REFUSES.items())
def test_what_the_loader_refuses_has_an_id(tmp_path: Path, check_id: str, wrong: str) -> None:
    place = {"config": "alertrouter.yaml", "service": "services/shop.yaml"}.get(
        wrong.split("-")[0], f"{wrong.split('-')[0]}.yaml"
    )
    fill(tmp_path, {**FINE, place: (WRONG / f"{wrong}.yaml").read_text()})
    assert {problem.check for problem in read_rules(tmp_path).problems} == {check_id}


@pytest.mark.parametrize("name", ["globl.yaml", "services/shop.yml"])
def test_a_stray_file_has_an_id(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {**FINE, name: "{}"})
    assert [problem.check for problem in read_rules(tmp_path).problems] == ["stray-file"]


def test_every_check_has_a_page_and_every_page_a_check() -> None:
    assert FINDERS.keys() | WHAT_THE_LOADER_REFUSES.keys() | {"stray-file", "cost"} == pages().keys()
    for check_id, page in pages().items():
        assert len(page.splitlines()) > 2, check_id
