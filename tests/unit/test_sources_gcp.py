"""Google Cloud Monitoring's incidents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alertrouter.alert import Alert, Link, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources import ParsedPayload
from alertrouter.sources.gcp import parse

PAYLOADS = Path(__file__).parent.parent / "payloads" / "gcp"
INCIDENT = {"incident_id": "0.a", "state": "open", "started_at": 1801627500, "summary": "slow"}


def read(version: Any = "1.2", **members: Any) -> ParsedPayload:
    return parse(json.dumps({"incident": INCIDENT | members, "version": version}).encode(), {}, "gcp")


def read_one(**members: Any) -> Alert:
    [alert] = read(**members).alerts
    return alert


def read_file(name: str) -> Alert:
    [alert] = parse((PAYLOADS / name).read_bytes(), {}, "gcp").alerts
    return alert


def test_an_incident_opens_and_closes() -> None:
    opened, closed = read_file("open_v1_2.json"), read_file("closed_v1_2.json")
    assert opened.id == closed.id == "gcp:0.o1nx7c2d"
    assert (opened.status, closed.status) == (Status.FIRING, Status.RESOLVED)
    assert (opened.episode, opened.episode_at, opened.ended_at) == ("0.o1nx7c2d", 1_801_627_500_000, 0)
    assert (closed.episode, closed.ended_at) == ("0.o1nx7c2d", 1_801_629_300_000)
    assert opened.event.summary == "Latency of orders & carts is above 2 s."
    assert opened.event.severity is Severity.CRITICAL
    assert (opened.event.source, opened.event.group) == ("orders", "shop-prod")
    assert opened.event.component == "cloud_run_revision"
    assert opened.event.class_ == "run.googleapis.com/request_latencies"
    details = opened.event.custom_details
    assert (details["service"], details["team"], details["env"]) == ("checkout", "shop", "prod")
    assert (details["location"], details["response_code_class"]) == ("europe-west3", "2xx")
    assert details["documentation"] == "Look at the database first."
    assert details["documentation_subject"] == "Orders are slow"
    assert opened.links[1] == Link("https://wiki.example.org/orders", "Runbook")


def test_the_older_shape_with_its_times_as_text() -> None:
    alert = read_file("open_v1_1.json")
    assert alert.id == "gcp:e3b0c44298fc1c149afbf4c8996fb924"
    assert alert.episode_at == 1_801_627_500_000
    assert alert.event.summary == "Disks: Disk is full"
    assert alert.event.severity is Severity.ERROR
    assert (alert.event.source, alert.event.class_) == ("db-1", "Disk is full")


@pytest.mark.parametrize(
    ("sent", "ms"),
    [
        (1801627500, 1_801_627_500_000),
        (1801627500000, 1_801_627_500_000),
        ("1801627500", 1_801_627_500_000),
        ("1801627500123", 1_801_627_500_123),
        ("2027-02-03T04:05:00Z", 1_801_627_500_000),
        (0, 0),
        (None, 0),
        ("null", 0),
        ("$STARTED_AT", 0),
        ("yesterday", 0),
        (-5, 0),
    ],
)
def test_times_in_seconds_and_milliseconds(sent: Any, ms: int) -> None:
    assert read_one(started_at=sent).episode_at == ms


@pytest.mark.parametrize(
    ("sent", "severity"),
    [
        ("Critical", Severity.CRITICAL),
        ("ERROR", Severity.ERROR),
        ("Warning", Severity.WARNING),
        ("No severity", Severity.ERROR),
        (None, Severity.ERROR),
        (3, Severity.ERROR),
    ],
)
def test_severities(sent: Any, severity: Severity) -> None:
    assert read_one(severity=sent).event.severity is severity


@pytest.mark.parametrize("state", ["OPEN", "Open", "open"])
def test_the_case_of_a_state_says_nothing(state: str) -> None:
    assert read_one(state=state).status is Status.FIRING


@pytest.mark.parametrize("state", ["acknowledged", "", None, "null", "$STATE", 1])
def test_states_that_neither_open_nor_close(state: Any) -> None:
    payload = read(state=state)
    assert payload.alerts == ()
    assert "neither opens nor closes" in payload.ignored[0]


def test_the_test_button_pages_nobody() -> None:
    payload = read(version="test", state="OPEN", documentation="a text here", started_at=0)
    assert (payload.alerts, payload.ignored) == ((), ("a test of the notification channel",))


@pytest.mark.parametrize("identity", [None, "", "null", "${incident.id}", {}, True])
def test_without_an_id_nothing_tells_incidents_apart(identity: Any) -> None:
    with pytest.raises(BadPayload, match="nothing tells this alert from others"):
        read(incident_id=identity)


def test_a_number_is_an_id_too() -> None:
    assert read_one(incident_id=77).fingerprint == "77"


def test_documentation_may_be_a_text() -> None:
    assert read_one(documentation="see the wiki").event.custom_details["documentation"] == "see the wiki"


def test_no_label_takes_the_place_of_what_is_known() -> None:
    details = read_one(policy_user_labels={"severity": "mine", "policy_name": "mine"}, policy_name="Latency")
    assert details.event.custom_details["policy_name"] == "Latency"
    assert details.event.custom_details["severity"] == "mine"


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"incident": {}}', b'{"incident": "x"}', b"7"])
def test_other_shapes_are_refused(body: bytes) -> None:
    with pytest.raises(BadPayload, match="wrong shape"):
        parse(body, {}, "gcp")


def test_a_form_is_refused_as_one() -> None:
    with pytest.raises(BadPayload, match="a form"):
        parse(b"incident=1", {"content-type": "application/x-www-form-urlencoded"}, "gcp")
