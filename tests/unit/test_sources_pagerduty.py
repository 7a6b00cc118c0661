"""Events API v2 bodies: what PagerDuty would take becomes an alert, what it would refuse is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alertrouter.alert import Alert, CommonEvent, Image, Link, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources.pagerduty import parse
from tests.unit.test_condition_properties import JSON

KEY = "0123456789abcdef0123456789abcdef"
PAYLOAD = {"summary": "Disk low", "source": "db-1", "severity": "warning"}


def event(**members: Any) -> dict[str, Any]:
    return {"routing_key": KEY, "event_action": "trigger", "dedup_key": "disk/db-1", "payload": PAYLOAD, **members}


def read(body: Any) -> Alert:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    (alert,) = parse(content, "pagerduty", new_key=lambda: "made-up").alerts
    return alert


def test_a_key_in_another_encoding_is_not_too_long() -> None:
    one, same, other = (
        read(json.dumps(event(dedup_key="X")).encode().replace(b"X", letter * 100))
        for letter in (b"\xfc", b"\xfc", b"\xe4")
    )
    assert one.enqueued is not None and same.enqueued is not None and other.enqueued is not None
    assert one.enqueued.dedup_key == same.enqueued.dedup_key != other.enqueued.dedup_key
    assert len(one.enqueued.dedup_key) <= 255


def test_a_trigger_in_full() -> None:
    payload = {
        **PAYLOAD,
        "timestamp": "2027-01-10T03:00:00Z",
        "component": "postgres",
        "group": "prod",
        "class": "disk",
        "custom_details": {"free": 3, "host": {"name": "db-1"}},
    }
    sent = event(
        payload=payload,
        links=[{"href": "https://wiki.example.org/disk", "text": "Runbook"}, {"text": "no address"}, "junk"],
        client="Monit",
        client_url="https://monit.example.org",
        extra={"kept": True},
    )
    alert = read(sent)
    assert (alert.source, alert.fingerprint, alert.status) == ("pagerduty", "disk/db-1", Status.FIRING)
    assert alert.event == CommonEvent(
        summary="Disk low",
        source="db-1",
        severity=Severity.WARNING,
        timestamp="2027-01-10T03:00:00Z",
        component="postgres",
        group="prod",
        class_="disk",
        custom_details={"free": 3, "host": {"name": "db-1"}},
    )
    assert alert.links == (Link("https://wiki.example.org/disk", "Runbook"),)
    assert (alert.client, alert.client_url) == ("Monit", "https://monit.example.org")
    assert alert.raw == {**sent, "routing_key": "default"}


def test_the_routing_key_does_not_get_into_the_alert() -> None:
    assert KEY not in repr(read(event()))


@pytest.mark.parametrize(("action", "status"), [("acknowledge", Status.ACKNOWLEDGED), ("resolve", Status.RESOLVED)])
def test_an_acknowledge_or_resolve_needs_no_payload(action: str, status: Status) -> None:
    alert = read({"event_action": action, "dedup_key": "disk/db-1"})
    assert (alert.fingerprint, alert.status, alert.event.summary) == ("disk/db-1", status, "alert disk/db-1")


def test_a_resolve_is_taken_however_poor_its_payload() -> None:
    alert = read(event(event_action="resolve", payload={"summary": " ", "severity": ["info"]}))
    assert (alert.status, alert.event.summary) == (Status.RESOLVED, "alert disk/db-1")
    assert alert.event.severity is Severity.ERROR


@pytest.mark.parametrize("nothing", [None, [], "", 0])
def test_optional_members_may_be_null_or_empty(nothing: Any) -> None:
    """As Kapacitor sends them."""
    empty = dict.fromkeys(("timestamp", "component", "group", "class"), "" if nothing == "" else None)
    alert = read(event(images=nothing, links=nothing, client=None, client_url="", payload={**PAYLOAD, **empty}))
    assert alert.enqueued is not None
    assert (alert.links, alert.enqueued.images, alert.event.component) == ((), (), "")


def test_images_are_kept() -> None:
    sent = [{"src": "https://graphs.example.org/1.png", "href": "javascript:x", "alt": "free"}, {"alt": "none"}, 7]
    enqueued = read(event(images=sent)).enqueued
    assert enqueued is not None
    assert enqueued.images == (Image("https://graphs.example.org/1.png", "", "free"),)


def content(**members: Any) -> str:
    enqueued = read(event(**members)).enqueued
    assert enqueued is not None
    return enqueued.content


def test_another_text_is_another_content() -> None:
    same = content()
    for unchanged in (
        {"client_url": "http://am-b.example.org:9093"},
        {"payload": dict(reversed(PAYLOAD.items()))},
        {"payload": {**PAYLOAD, "timestamp": "2027-01-10T03:00:00Z"}},
        {"links": [{"href": "http://am-b.example.org:9093"}]},
    ):
        assert content(**unchanged) == same, unchanged
    for changed in ({"summary": "Disk full"}, {"custom_details": {"free": 1}}, {"component": "postgres"}):
        assert content(payload={**PAYLOAD, **changed}) != same, changed
    assert content(event_action="resolve") == content(event_action="acknowledge") == ""


@pytest.mark.parametrize("source", ["pagerduty", "pagerduty/zabbix"])
def test_an_integration_is_a_part_of_the_identity_and_not_of_the_key(source: str) -> None:
    (alert,) = parse(json.dumps(event()).encode(), source, new_key=str).alerts
    assert (alert.id, alert.dedup_key) == (f"{source}:disk/db-1", "disk/db-1")
    assert alert.raw["routing_key"] == (source.partition("/")[2] or "default")


def test_a_trigger_without_a_key_gets_one_of_its_own() -> None:
    assert read({"event_action": "trigger", "payload": PAYLOAD}).fingerprint == "made-up"


def test_details_that_are_no_object_are_kept_under_a_name() -> None:
    alert = read(event(payload={**PAYLOAD, "custom_details": ["a", 1]}))
    assert alert.event.custom_details == {"custom_details": ["a", 1]}
    assert alert.notes == ("custom_details is no object: kept under a member of that name",)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([], "wrong shape: expected an Events API v2 event, an object with `event_action` and `payload`"),
        ({}, "not an Events API v2 event: 'event_action' must be trigger, acknowledge or resolve"),
        (
            event(event_action="Trigger"),
            "not an Events API v2 event: 'event_action' must be trigger, acknowledge or resolve",
        ),
        (event(dedup_key=5), "not an Events API v2 event: 'dedup_key' must be a string"),
        (event(dedup_key="x" * 256), "not an Events API v2 event: 'dedup_key' is longer than 255 characters"),
        (
            {"event_action": "resolve"},
            "not an Events API v2 event: 'dedup_key' is missing: it names the alert to resolve",
        ),
        (event(payload="x"), "not an Events API v2 event: 'payload' must be an object"),
        (
            event(payload={"summary": " "}),
            "not an Events API v2 event: 'payload.summary' is missing or blank; 'payload.source' is missing or blank; "
            "'payload.severity' must be one of critical, error, warning, info",
        ),
        (
            event(payload={**PAYLOAD, "severity": ["info"]}),
            "not an Events API v2 event: 'payload.severity' must be one of critical, error, warning, info",
        ),
    ],
)
def test_refuses_what_pagerduty_would_refuse(sent: Any, reason: str) -> None:
    with pytest.raises(BadPayload) as raised:
        read(sent)
    assert raised.value.reason == reason


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "event_action": st.sampled_from(["trigger", "resolve"]) | JSON,
            "dedup_key": st.text() | JSON,
            "payload": st.fixed_dictionaries({}, optional=dict.fromkeys((*PAYLOAD, "custom_details", "class"), JSON))
            | st.just(PAYLOAD)
            | JSON,
            "links": JSON,
            "client_url": JSON,
        },
    )
)
def test_any_json_becomes_an_alert_or_is_refused(sent: dict[str, Any]) -> None:
    try:
        alert = read(json.dumps(sent).encode())
    except BadPayload as bad:
        assert bad.status == 400  # noqa: PT017  # both ends are fine, nothing else is
    else:
        assert alert.fingerprint
        assert alert.event.summary
