"""Sentry's issues, the alert rules about them, and metric alerts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alertrouter.alert import Alert, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources import ParsedPayload
from alertrouter.sources.sentry import parse

PAYLOADS = Path(__file__).parent.parent / "payloads" / "sentry"


def read(action: Any, resource: str = "", **data: Any) -> ParsedPayload:
    headers = {"sentry-hook-resource": resource} if resource else {}
    return parse(json.dumps({"action": action, "data": data}).encode(), headers, "sentry")


def read_file(name: str) -> Alert:
    [alert] = parse((PAYLOADS / name).read_bytes(), {}, "sentry").alerts
    return alert


def test_an_alert_rule_and_the_issue_behind_it_are_one_alert() -> None:
    rule, created, resolved = map(read_file, ("event_alert.json", "issue_created.json", "issue_resolved.json"))
    assert rule.id == created.id == resolved.id == "sentry:issue:88001234"
    assert [each.status for each in (rule, created, resolved)] == [Status.FIRING, Status.FIRING, Status.RESOLVED]
    assert rule.event.summary == created.event.summary == "KeyError: 'basket'"
    assert rule.event.severity is created.event.severity is Severity.CRITICAL
    assert (rule.event.source, rule.event.component) == ("orders-1", "orders.views in checkout")
    assert (rule.event.custom_details["service"], rule.event.custom_details["environment"]) == ("checkout", "prod")
    assert rule.event.custom_details["rule"] == "New errors in production"
    assert rule.event.timestamp == "2027-02-03T04:05:06.789Z"
    assert (created.event.source, created.event.custom_details["short_id"]) == ("orders", "ORDERS-4K")
    assert [link.text for link in (*rule.links, *created.links)] == ["Event", "Issue"]


def test_a_metric_alert_warns_and_is_resolved() -> None:
    warning, resolved = read_file("metric_alert_warning.json"), read_file("metric_alert_resolved.json")
    assert warning.id == resolved.id == "sentry:metric:6:31"
    assert (warning.status, resolved.status) == (Status.FIRING, Status.RESOLVED)
    assert warning.event.severity is Severity.WARNING
    assert warning.event.summary == "Slow checkout: p95 is 2,100 ms in the last 10 minutes"
    assert warning.episode == resolved.episode == "2027-02-03T04:00:00Z"
    assert resolved.ended_at == 1_801_629_000_000
    assert (warning.event.source, warning.event.custom_details["environment"]) == ("orders", "prod")


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("created", Status.FIRING),
        ("unresolved", Status.FIRING),
        ("resolved", Status.RESOLVED),
        ("archived", Status.RESOLVED),
        ("ignored", Status.RESOLVED),
    ],
)
def test_what_happens_to_an_issue(action: str, status: Status) -> None:
    [alert] = read(action, "issue", issue={"id": "1"}).alerts
    assert alert.status is status


@pytest.mark.parametrize(("action", "severity"), [("critical", Severity.CRITICAL), ("warning", Severity.WARNING)])
def test_how_bad_a_metric_alert_is(action: str, severity: Severity) -> None:
    [alert] = read(action, metric_alert={"id": 4}).alerts
    assert (alert.event.severity, alert.fingerprint) == (severity, "metric:-:4")


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        ("fatal", Severity.CRITICAL),
        ("error", Severity.ERROR),
        ("warning", Severity.WARNING),
        ("info", Severity.INFO),
        ("debug", Severity.INFO),
        ("purple", Severity.ERROR),
        (None, Severity.ERROR),
    ],
)
def test_levels(level: Any, severity: Severity) -> None:
    [alert] = read("triggered", event={"issue_id": 1, "level": level}).alerts
    assert alert.event.severity is severity


@pytest.mark.parametrize("action", ["assigned", "", None, "null", "$ACTION", 7])
def test_actions_that_neither_open_nor_close(action: Any) -> None:
    payload = read(action, "issue", issue={"id": "1"})
    assert payload.alerts == ()
    assert "neither opens nor closes" in payload.ignored[0]


@pytest.mark.parametrize("resource", ["installation", "comment", "error", "seer"])
def test_other_resources_are_no_alerts(resource: str) -> None:
    payload = read("created", resource, comment={"id": 1})
    assert (payload.alerts, payload.ignored) == ((), (f"the resource '{resource}' is no alert",))


@pytest.mark.parametrize("identity", [None, "", "null", "$ID", [], True])
def test_without_an_id_nothing_tells_alerts_apart(identity: Any) -> None:
    bodies: tuple[tuple[str, dict[str, Any]], ...] = (
        ("triggered", {"event": {"issue_id": identity}}),
        ("created", {"issue": {"id": identity}}),
        ("critical", {"metric_alert": {"id": identity}}),
    )
    for action, data in bodies:
        with pytest.raises(BadPayload, match="nothing tells this alert from others"):
            read(action, **data)


def test_ids_may_be_numbers_that_fit_no_double() -> None:
    [alert] = parse(b'{"action":"created","data":{"issue":{"id":9223372036854775807}}}', {}, "sentry").alerts
    assert alert.fingerprint == "issue:9223372036854775807"


def test_a_header_that_is_no_text_can_be_shown() -> None:
    assert read("x", "iss\udce4ue", issue={}).ignored == ("the resource 'iss\\\\xe4ue' is no alert",)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"action": "created"}', b'{"action": "created", "data": {}}', b"7"])
def test_other_shapes_are_refused(body: bytes) -> None:
    with pytest.raises(BadPayload, match="wrong shape"):
        parse(body, {}, "sentry")


def test_a_form_is_refused_as_one() -> None:
    with pytest.raises(BadPayload, match="a form"):
        parse(b"data=1", {"content-type": "application/x-www-form-urlencoded"}, "sentry")
