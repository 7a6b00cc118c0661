"""CloudEvents: structured, binary, batched."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from alertrouter.alert import Alert, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.limits import LIMITS
from alertrouter.sources import ParsedPayload
from alertrouter.sources.cloudevents import parse

PAYLOADS = Path(__file__).parent.parent / "payloads" / "cloudevents"
EVENT = {"specversion": "1.0", "type": "org.example.disk.firing", "source": "/fra1", "id": "1", "subject": "db-7"}
BINARY = {f"ce-{name}": value for name, value in EVENT.items()} | {"content-type": "application/json"}


def read(**members: Any) -> ParsedPayload:
    return parse(json.dumps(EVENT | members).encode(), {"content-type": "application/cloudevents+json"}, "cloudevents")


def read_one(**members: Any) -> Alert:
    payload = read(**members)
    assert payload.skipped == ()
    [alert] = payload.alerts
    return alert


def read_file(name: str) -> tuple[Alert, ...]:
    return parse((PAYLOADS / name).read_bytes(), {}, "cloudevents").alerts


def test_an_alert_opens_and_closes() -> None:
    [firing], [resolved] = read_file("structured_firing.json"), read_file("structured_resolved.json")
    assert firing.id == resolved.id == "cloudevents:/monitoring/fra1:org.example.disk:host/db-7"
    assert (firing.status, resolved.status) == (Status.FIRING, Status.RESOLVED)
    assert (firing.episode, firing.episode_at) == ("", 1_801_627_506_000)
    assert resolved.ended_at == 1_801_629_306_000
    assert firing.event.summary == "Disk of db-7 is 91 % full"
    assert firing.event.severity is Severity.WARNING
    assert (firing.event.source, firing.event.component) == ("host/db-7", "checkout")
    assert (firing.event.class_, firing.event.group) == ("org.example.disk.firing.v1", "/monitoring/fra1")
    assert firing.event.custom_details["ce_id"] == "7f3a-0001"
    assert [link.href for link in firing.links] == ["https://monitoring.example.org/db-7"]


def test_a_batch_is_read_event_by_event() -> None:
    disk, power, acknowledged = read_file("batch.json")
    assert disk.id == "cloudevents:/monitoring/fra1:org.example.disk:host/db-8"
    assert power.id == acknowledged.id == "cloudevents:/racks:%key:rack4/feed"
    assert (power.status, power.event.severity) == (Status.FIRING, Severity.CRITICAL)
    assert power.event.summary == "Rack 4 lost one feed"
    assert acknowledged.status is Status.ACKNOWLEDGED


def test_one_bad_event_of_a_batch_does_not_sink_the_others() -> None:
    body = json.dumps([EVENT, 7, EVENT | {"type": "user.created"}, EVENT | {"specversion": "0.3"}]).encode()
    payload = parse(body, {"content-type": "application/cloudevents-batch+json"}, "cloudevents")
    assert len(payload.alerts) == len(payload.ignored) == 1
    assert [skipped.position for skipped in payload.skipped] == [1, 3]
    assert parse(b"[]", {}, "cloudevents") == ParsedPayload()
    with pytest.raises(BadPayload) as refused:
        parse(b"[" + b"7," * LIMITS.alerts + b"7]", {}, "cloudevents")
    assert refused.value.status == 413


def test_binary_says_the_same_as_structured() -> None:
    data = {"summary": "full", "severity": "critical"}
    [binary] = parse(json.dumps(data).encode(), BINARY, "cloudevents").alerts
    structured = read_one(data=data, datacontenttype="application/json")
    assert binary == structured


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("text/plain", b"disk \xff full", "disk \\xff full"),
        ("application/vnd.example+json", b'"full"', "full"),
        ("", b'"full"', "full"),
    ],
)
def test_binary_data_of_other_types(content_type: str, body: bytes, data: str) -> None:
    [alert] = parse(body, BINARY | {"content-type": content_type}, "cloudevents").alerts
    assert alert.event.custom_details["data"] == data
    assert alert.event.summary == data


def test_binary_without_data() -> None:
    [alert] = parse(b"", BINARY, "cloudevents").alerts
    assert alert.event.summary == "org.example.disk.firing: db-7"


def test_header_values_are_percent_encoded_and_made_fit() -> None:
    [alert] = parse(b"", BINARY | {"ce-subject": "K%C3%B6ln%00\udcff"}, "cloudevents").alerts
    assert alert.event.source == "Köln\\x00\\xff"


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        ("a.firing", {}, Status.FIRING),
        ("a.Triggered", {}, Status.FIRING),
        ("a.alarm.v2", {}, Status.FIRING),
        ("firing", {}, Status.FIRING),
        ("a.resolved", {}, Status.RESOLVED),
        ("a.recovered", {}, Status.RESOLVED),
        ("a.acknowledged", {}, Status.ACKNOWLEDGED),
        ("a.changed", {"status": "firing"}, Status.FIRING),
        ("a.firing", {"status": "Resolved"}, Status.RESOLVED),
        ("a.firing", {"status": "null"}, Status.FIRING),
    ],
)
def test_type_or_data_say_what_happened(kind: str, data: dict[str, Any], status: Status) -> None:
    assert read_one(type=kind, data=data).status is status


@pytest.mark.parametrize("kind", ["com.github.pull_request.opened", "user.created", "a.started", "a.v2", "v2"])
def test_events_that_neither_open_nor_close(kind: str) -> None:
    payload = read(type=kind, data={"status": "$STATUS"})
    assert payload.alerts == ()
    assert "says whether an alert opens or closes" in payload.ignored[0]


@pytest.mark.parametrize(
    ("members", "identity"),
    [
        ({}, "/fra1:org.example.disk:db-7"),
        ({"id": "2", "time": "2027-02-03T04:05:06Z"}, "/fra1:org.example.disk:db-7"),
        ({"data": {"dedup_key": "k"}}, "/fra1:%key:k"),
        ({"data": {"dedup_key": 7}, "subject": None}, "/fra1:%key:7"),
        ({"data": {"dedup_key": "$KEY"}}, "/fra1:org.example.disk:db-7"),
        ({"type": "org.example.disk", "data": {"status": "ok"}}, "/fra1:org.example.disk:db-7"),
        ({"source": "urn:a", "type": "a:b.firing"}, "urn%3Aa:a%3Ab:db-7"),
        ({"type": "key.firing", "subject": "k"}, "/fra1:key:k"),
        ({"type": "event.firing", "subject": "1"}, "/fra1:event:1"),
        ({"type": "%key.firing", "subject": "k"}, "/fra1:%25key:k"),
        ({"subject": "null"}, "/fra1:%event:1"),
    ],
)
def test_identity(members: dict[str, Any], identity: str) -> None:
    assert read_one(**members).fingerprint == identity


def test_what_names_no_alert_pages_and_nothing_closes_it() -> None:
    assert read_one(subject="").notes == ("neither `subject` nor `dedup_key` names the alert, so nothing can close it",)
    [skipped] = read(subject="", type="a.resolved").skipped
    assert skipped.reason.startswith("nothing tells which alert this closes")


@pytest.mark.parametrize("name", ["specversion", "type", "source", "id"])
@pytest.mark.parametrize("value", [None, "", "null", "$X", {}])
def test_attributes_that_must_be_there(name: str, value: Any) -> None:
    payload = read(**{name: value})
    assert (payload.alerts, len(payload.skipped)) == ((), 1)


@pytest.mark.parametrize(
    ("sent", "severity", "notes"),
    [
        ("page", Severity.CRITICAL, 0),
        ("Warning", Severity.WARNING, 0),
        (None, Severity.ERROR, 0),
        ("null", Severity.ERROR, 0),
        ("purple", Severity.ERROR, 1),
    ],
)
def test_severities(sent: Any, severity: Severity, notes: int) -> None:
    alert = read_one(data={"severity": sent})
    assert (alert.event.severity, len(alert.notes)) == (severity, notes)


def test_data_in_base64() -> None:
    encoded = b64encode(b'{"summary": "full"}').decode()
    assert read_one(data_base64=encoded).event.summary == "full"
    for other in ("not base64!", b64encode(b"\x00\xff").decode()):
        alert = read_one(data_base64=other)
        assert alert.event.custom_details["data"] == other
        assert alert.notes == ("`data_base64` holds no JSON: left as it is",)


def test_entities_are_resolved_for_people_only() -> None:
    alert = read_one(data={"summary": "a &lt; b"})
    assert alert.event.summary == "a < b"
    assert alert.event.custom_details["summary"] == "a &lt; b"


@pytest.mark.parametrize("sent", ["2027-02-03T05:05:06+01:00", 1801627506, "1801627506000"])
def test_times(sent: Any) -> None:
    assert read_one(time=sent).event.timestamp == "2027-02-03T04:05:06Z"


@pytest.mark.parametrize("body", [b"{}", b"7", b'{"type": "a.firing", "id": "1"}', b"specversion=1.0&id=1"])
def test_other_shapes_are_refused(body: bytes) -> None:
    with pytest.raises(BadPayload):
        parse(body, {"content-type": "application/x-www-form-urlencoded"}, "cloudevents")
