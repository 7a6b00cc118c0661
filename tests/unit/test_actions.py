"""What rules say of other destinations, of automation, and of the incident that alerts share."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alertrouter.alert import DEDUP_KEY_LIMIT
from alertrouter.enrich import enrich
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Automation, Decision, KeyReference, Ruleset
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import fill

CONFIG = "destinations: {slack: {alerts: {channel: '#alerts'}, shop: {channel: '#shop'}}}\n"
RESTART = "name: restart, url: 'https://runner.example.org/restart'"


def load(directory: Path, everywhere: str, shop: str = "{}") -> Ruleset:
    """Rules of which every alert meets one in global.yaml and then one in the file of its service."""
    files = {"global.yaml": f"catch_all: {everywhere}\n", "services/shop.yaml": f"catch_all: {shop}\n"}
    fill(directory, {"alertrouter.yaml": CONFIG, "router.yaml": "catch_all: {route_to: shop}\n", **files})
    return load_rules(directory)


def decide(directory: Path, everywhere: str, shop: str = "{}", **alert: Any) -> Decision:
    return evaluate(make_alert(**alert), load(directory, everywhere, shop), NIGHT, trace=True)


def test_without_such_a_rule_there_is_none_of_it(tmp_path: Path) -> None:
    decision = decide(tmp_path, "{}")
    assert (decision.notify, decision.automation, decision.dedup_key) == ((), (), "")


@pytest.mark.parametrize(
    ("everywhere", "shop", "told"),
    [
        ("{notify: pagerduty}", "{}", ("pagerduty",)),
        ("{notify: ['slack:shop', 'slack:alerts']}", "{}", ("slack:shop", "slack:alerts")),
        ("{notify: 'slack:alerts'}", "{notify: ['slack:shop', 'slack:alerts']}", ("slack:alerts", "slack:shop")),
    ],
)
def test_destinations_to_be_told_add_up_each_once(
    tmp_path: Path, everywhere: str, shop: str, told: tuple[str, ...]
) -> None:
    decision = decide(tmp_path, everywhere, shop)
    assert decision.notify == told
    assert decision.destinations == ("pagerduty:default",)


def test_the_responder_sees_what_else_is_told_and_run(tmp_path: Path) -> None:
    ruleset = load(tmp_path, f"{{notify: 'slack:shop', automation: {{{RESTART}}}}}")
    decision = evaluate(make_alert(), ruleset, NIGHT)
    ours = enrich(make_alert(), decision, ruleset).event.custom_details["alertrouter"]
    assert (ours["notify"], ours["automation"]) == (["slack:shop"], ["restart"])


def test_an_automation_is_as_it_was_written(tmp_path: Path) -> None:
    written = """{automation: {
      name: restart, url: 'https://runner.example.org/restart', auto_send: true, trigger_types: [alert_suspended],
      parameters: {pod: 'pod {{event.custom_details.pod}}', tries: 3, '{{event.source}}': '{{event.group}}'},
      headers: {X-Team: payments, Authorization: {env: RUNNER_AUTHORIZATION}, X-Token: {file: /run/secrets/runner}}}}"""
    decision = decide(tmp_path, written, pod="{{event.source}}")
    expected = Automation(
        name="restart",
        url="https://runner.example.org/restart",
        auto_send=True,
        trigger_type="alert_suspended",
        parameters={"pod": "pod {{event.source}}", "tries": 3, "{{event.source}}": ""},
        headers={
            "X-Team": "payments",
            "Authorization": KeyReference(env="RUNNER_AUTHORIZATION"),
            "X-Token": KeyReference(file="/run/secrets/runner"),
        },
    )
    assert decision.automation == (expected,)
    assert decision.trace[0].warnings == ("`event.group` is not there",)


def test_an_automation_that_says_little_is_offered_for_a_triggered_alert(tmp_path: Path) -> None:
    decision = decide(tmp_path, "{automation: {name: restart, job: restart-pod}}")
    assert decision.automation == (Automation("restart", job="restart-pod", trigger_type="alert_triggered"),)
    assert decision.automation[0].auto_send is False


def test_of_one_name_the_last_one_is_run(tmp_path: Path) -> None:
    same = decide(tmp_path, f"{{automation: {{{RESTART}}}}}", "{automation: {name: restart, job: restart-pod}}")
    assert [(each.name, each.url, each.job) for each in same.automation] == [("restart", "", "restart-pod")]
    other = decide(tmp_path, f"{{automation: {{{RESTART}}}}}", "{automation: {name: drain, job: drain-node}}")
    assert [each.name for each in other.automation] == ["restart", "drain"]


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("checkout", "checkout"),
        ("db {{event.custom_details.cluster}}", "db ä-1"),
        ("{{event.custom_details.cluster}}{{event.custom_details.cluster}}", "ä-1ä-1"),
    ],
)
def test_a_dedup_key_names_the_incident_that_alerts_share(tmp_path: Path, written: str, key: str) -> None:
    assert decide(tmp_path, f"{{dedup_key: '{written}'}}", cluster="ä-1").dedup_key == key


def test_the_last_dedup_key_counts(tmp_path: Path) -> None:
    assert decide(tmp_path, "{dedup_key: all}", "{dedup_key: shop}").dedup_key == "shop"


@pytest.mark.parametrize("cluster", ["", "  \n", None])
def test_with_an_empty_one_the_alert_keeps_its_own_and_the_trace_says_so(tmp_path: Path, cluster: str | None) -> None:
    details = {} if cluster is None else {"cluster": cluster}
    decision = decide(tmp_path, "{dedup_key: '{{event.custom_details.cluster}}'}", **details)
    assert decision.dedup_key == ""
    assert decision.trace[0].warnings[-1] == "the dedup_key is empty: the alert keeps its own"


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_one_that_is_too_long_is_hashed_and_still_tells_what_it_is_of(tmp_path: Path, letter: str) -> None:
    fits, too_long = letter * DEDUP_KEY_LIMIT, letter * (DEDUP_KEY_LIMIT + 1)
    written = "{dedup_key: '{{event.summary}}'}"
    assert decide(tmp_path, written, summary=fits).dedup_key == fits
    key = decide(tmp_path, written, summary=too_long).dedup_key
    assert key == f"{letter * 100}:sha256:{sha256(too_long.encode()).hexdigest()}"
    assert key != decide(tmp_path, written, summary=too_long + letter).dedup_key


@given(summary=st.text(st.characters(codec=None)) | st.text(min_size=250, max_size=260))
def test_a_key_can_always_be_sent(tmp_path_factory: pytest.TempPathFactory, summary: str) -> None:
    directory = tmp_path_factory.getbasetemp() / "keys"
    ruleset = load_rules(directory) if directory.exists() else load(directory, "{dedup_key: '{{event.summary}}'}")
    key = evaluate(make_alert(summary=summary), ruleset, NIGHT).dedup_key
    assert len(key.encode().decode()) <= DEDUP_KEY_LIMIT
    assert bool(key) is bool(summary.strip())
