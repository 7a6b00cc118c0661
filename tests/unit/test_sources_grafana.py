"""Grafana's contact point, its dashboards' alerts of before, and its Test buttons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alertrouter.alert import Alert, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources import ParsedPayload
from alertrouter.sources.grafana import parse

PAYLOADS = Path(__file__).parent.parent / "payloads" / "grafana"
LEGACY = {"ruleId": 41, "ruleName": "CPU", "orgId": 2, "state": "alerting", "evalMatches": [], "tags": {}}


def read(body: Any) -> ParsedPayload:
    return parse(json.dumps(body).encode(), {}, "grafana")


def read_file(name: str) -> ParsedPayload:
    return parse((PAYLOADS / name).read_bytes(), {}, "grafana")


def read_legacy(**members: Any) -> Alert:
    [alert] = read(LEGACY | members).alerts
    return alert


def test_a_group_is_read_alert_by_alert() -> None:
    firing, resolved = read_file("unified_one_resolved.json").alerts
    assert (firing.id, firing.status) == ("grafana:31c0de99a7f0e442", Status.FIRING)
    assert (firing.episode, firing.episode_at) == ("2027-02-03T04:05:00Z", 1_801_627_500_000)
    assert firing.event.summary == "Queue orders holds 5,200 messages"
    assert firing.event.severity is Severity.CRITICAL
    assert (firing.event.source, firing.event.component) == ("checkout", "checkout")
    assert firing.event.custom_details["values"] == {"A": 5200, "C": 1}
    assert firing.event.custom_details["rule_uid"] == "q7"
    assert [link.text for link in firing.links] == ["Source", "Runbook", "Dashboard", "Panel", "Silence"]
    assert (firing.client, firing.client_url) == ("Grafana", "https://grafana.example.org/")
    assert firing.raw["orgId"] == 3
    assert (resolved.id, resolved.status) == ("grafana:9a0b3c4d5e6f7081", Status.RESOLVED)
    assert resolved.ended_at == 1_801_627_470_000
    assert "values" not in resolved.event.custom_details


def test_the_status_is_the_alerts_own_and_the_state_of_the_whole_says_nothing() -> None:
    body = json.loads((PAYLOADS / "unified_one_resolved.json").read_bytes()) | {"status": "resolved", "state": "ok"}
    assert [alert.status for alert in read(body).alerts] == [Status.FIRING, Status.RESOLVED]


def test_a_rule_that_cannot_be_evaluated_is_shown_by_its_name() -> None:
    [alert] = read_file("unified_no_data.json").alerts
    assert alert.event.summary == "DatasourceNoData of Queue too long"
    assert alert.event.severity is Severity.ERROR
    body = json.loads((PAYLOADS / "unified_no_data.json").read_bytes())
    body["alerts"][0]["annotations"] = {"summary": "Queue orders is long"}
    [alert] = read(body).alerts
    assert alert.event.summary == "DatasourceNoData of Queue too long: Queue orders is long"


@pytest.mark.parametrize(
    "body",
    [
        {"alerts": [{"labels": {"alertname": "TestAlert", "instance": "Grafana"}, "status": "firing"}], "orgId": 1},
        {
            **LEGACY,
            "ruleName": "Test notification",
            "message": "Someone is testing the alert notification within Grafana.",
        },
        {"text": "This is a test"},
    ],
    ids=["contact point", "channel", "only a text"],
)
def test_a_test_button_pages_nobody(body: Any) -> None:
    payload = read(body)
    assert payload.alerts == ()
    [reason] = payload.ignored
    assert "a test of the" in reason


def test_an_alert_that_somebody_named_like_the_test_is_none() -> None:
    [alert] = read({"alerts": [{"labels": {"alertname": "TestAlert", "instance": "db-1"}}], "orgId": 1}).alerts
    assert alert.status is Status.FIRING


def test_an_alert_of_a_dashboard() -> None:
    [firing] = read_file("legacy_alerting.json").alerts
    [resolved] = read_file("legacy_ok.json").alerts
    assert firing.id == resolved.id == "grafana:legacy:2:41"
    assert (firing.status, resolved.status) == (Status.FIRING, Status.RESOLVED)
    assert firing.event.summary == "CPU of web: CPU is busy & hot"
    assert firing.event.custom_details["message"] == "CPU is busy &amp; hot"
    assert firing.event.severity is Severity.WARNING
    assert (firing.event.source, firing.event.component, firing.event.class_) == ("web-3:9100", "web", "cpu")
    assert [link.text for link in firing.links] == ["Rule", "Image"]
    assert (firing.episode, firing.episode_at) == ("", 0)


@pytest.mark.parametrize("state", ["alerting", "Alerting", "no_data"])
def test_states_that_open(state: str) -> None:
    assert read_legacy(state=state).status is Status.FIRING


@pytest.mark.parametrize("state", ["pending", "paused", "unknown", "$STATE", "null", "", None, 7])
def test_states_that_neither_open_nor_close(state: Any) -> None:
    payload = read(LEGACY | {"state": state})
    assert payload.alerts == ()
    assert "neither opens nor closes" in payload.ignored[0]


@pytest.mark.parametrize(
    ("org", "rule", "identity"),
    [(2, 41, "2:41"), ("2", "41", "2:41"), (None, 41, "-:41"), ("null", 41.0, "-:41"), ("$ORG", 41, "-:41")],
)
def test_organisation_and_rule_tell_alerts_apart(org: Any, rule: Any, identity: str) -> None:
    assert read_legacy(orgId=org, ruleId=rule).fingerprint == f"legacy:{identity}"


@pytest.mark.parametrize("rule", [None, "", "null", "$RULE_ID", True, []])
def test_without_a_rule_nothing_tells_alerts_apart(rule: Any) -> None:
    with pytest.raises(BadPayload, match="nothing tells this alert from others"):
        read(LEGACY | {"ruleId": rule})


def test_an_unknown_severity_is_an_error_and_said_to_be() -> None:
    alert = read_legacy(tags={"severity": "purple"})
    assert alert.event.severity is Severity.ERROR
    assert alert.notes == ("severity 'purple' is not known: taken as error",)


@pytest.mark.parametrize("body", [{}, [], "text", {"text": 7}, {"text": "x", "state": "alerting"}, {"alerts": {}}])
def test_other_shapes_are_refused(body: Any) -> None:
    with pytest.raises(BadPayload, match="wrong shape"):
        read(body)


def test_a_form_is_refused_as_one() -> None:
    with pytest.raises(BadPayload, match="a form"):
        parse(b"ruleId=1&state=alerting", {"content-type": "application/x-www-form-urlencoded"}, "grafana")
