"""Azure Monitor's common alert schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alertrouter.alert import Alert, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources import ParsedPayload
from alertrouter.sources.azure import parse

PAYLOADS = Path(__file__).parent.parent / "payloads" / "azure"
ESSENTIALS = {"alertId": "/a/1", "alertRule": "cpu", "severity": "Sev2", "monitorCondition": "Fired"}


def read(data: Any = None, **members: Any) -> ParsedPayload:
    body = {"schemaId": "azureMonitorCommonAlertSchema", "data": {"essentials": ESSENTIALS | members, **(data or {})}}
    return parse(json.dumps(body).encode(), {}, "azure")


def read_one(**members: Any) -> Alert:
    [alert] = read(**members).alerts
    return alert


def read_file(name: str) -> Alert:
    [alert] = parse((PAYLOADS / name).read_bytes(), {}, "azure").alerts
    return alert


def test_an_alert_fires_and_is_resolved() -> None:
    fired, resolved = read_file("metric_fired.json"), read_file("metric_resolved.json")
    assert fired.id == resolved.id
    assert fired.fingerprint.endswith("/alerts/0d5c1f8e-1111-4222-8333-444455556666")
    assert (fired.status, resolved.status) == (Status.FIRING, Status.RESOLVED)
    assert fired.episode == resolved.episode == "2027-02-03T04:05:06.7891234Z"
    assert (fired.episode_at, fired.ended_at) == (1_801_627_506_789, 0)
    assert resolved.ended_at == 1_801_628_400_000
    assert fired.event.summary == "orders cpu: CPU of orders is above 90 %"
    assert fired.event.severity is Severity.ERROR
    assert (fired.event.source, fired.event.group) == ("orders-1", "shop")
    assert (fired.event.component, fired.event.class_) == ("Platform", "Metric")
    details = fired.event.custom_details
    assert (details["service"], details["env"]) == ("checkout", "prod")
    assert details["alert_context"]["condition"]["allOf"][0]["metricValue"] == 97.25
    assert fired.notes == ()


def test_an_alert_of_the_activity_log_names_its_target() -> None:
    alert = read_file("activity_log.json")
    assert (alert.event.source, alert.event.summary) == ("orders-2", "vm deleted: orders-2")
    assert alert.event.severity is Severity.INFO


@pytest.mark.parametrize(
    ("sent", "severity"),
    [
        ("Sev0", Severity.CRITICAL),
        ("Sev1", Severity.ERROR),
        ("sev2", Severity.WARNING),
        ("Sev3", Severity.INFO),
        ("Sev4", Severity.INFO),
        ("Sev9", Severity.ERROR),
        (None, Severity.ERROR),
        (0, Severity.ERROR),
    ],
)
def test_severities(sent: Any, severity: Severity) -> None:
    assert read_one(severity=sent).event.severity is severity


@pytest.mark.parametrize("condition", ["Acknowledged", "", None, "null", "$CONDITION", 1])
def test_conditions_that_neither_open_nor_close(condition: Any) -> None:
    payload = read(monitorCondition=condition)
    assert payload.alerts == ()
    assert "neither opens nor closes" in payload.ignored[0]


@pytest.mark.parametrize("identity", [None, "", "null", "$ID", [], False])
def test_without_an_id_nothing_tells_alerts_apart(identity: Any) -> None:
    with pytest.raises(BadPayload, match="nothing tells this alert from others"):
        read(alertId=identity)


def test_a_test_of_an_action_group_pages_and_says_what_it_is() -> None:
    alert = read_one(
        alertId="/subscriptions/11111111-1111-1111-1111-111111111111/providers/Microsoft.AlertsManagement/alerts/1"
    )
    assert alert.status is Status.FIRING
    assert alert.notes == ("a test of the action group",)


def test_entities_are_resolved_for_people_only() -> None:
    alert = read_one(description="a &lt; b")
    assert alert.event.summary == "cpu: a < b"
    assert alert.event.custom_details["description"] == "a &lt; b"


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"data": {"essentials": {}}}', b'{"schemaId": "AzureMonitorMetricAlert", "data": {}}']
)
def test_other_schemas_are_refused(body: bytes) -> None:
    with pytest.raises(BadPayload, match="common alert schema"):
        parse(body, {}, "azure")


def test_a_form_is_refused_as_one() -> None:
    with pytest.raises(BadPayload, match="a form"):
        parse(b"data=1", {"content-type": "application/x-www-form-urlencoded"}, "azure")
