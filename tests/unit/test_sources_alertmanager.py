"""Alertmanager's webhook, from version 3 to 0.34, and what imitators make of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from alertrouter.alert import Alert, Link, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.limits import LIMITS
from alertrouter.sources import PARSERS, ParsedPayload, Skipped
from alertrouter.sources import alertmanager as sender
from alertrouter.sources.alertmanager import fingerprint_of, parse
from alertrouter.sources.body import REPLACED

PAYLOADS = Path(__file__).parent.parent / "payloads" / "alertmanager"
GUIDE = Path(__file__).parent.parent.parent / "docs" / "senders" / "alertmanager.md"

LABELS = {"alertname": "DiskFull", "instance": "db-1", "severity": "warning"}
STARTED = "2027-02-05T04:00:00Z"
STARTED_MS = 1_801_800_000_000


def alert_body(**members: Any) -> dict[str, Any]:
    return {"status": "firing", "labels": LABELS, "annotations": {}, "startsAt": STARTED} | members


def read(*alerts: Any, **members: Any) -> ParsedPayload:
    body = {"version": "4", "status": "firing", "alerts": list(alerts)} | members
    return parse(json.dumps(body).encode(), {}, "alertmanager")


def read_one(**members: Any) -> Alert:
    [alert] = read(alert_body(**members)).alerts
    return alert


def read_file(name: str) -> ParsedPayload:
    return parse((PAYLOADS / name).read_bytes(), {}, "alertmanager")


def test_a_group_is_read_alert_by_alert() -> None:
    payload = read_file("group_one_resolved.json")
    resolved, firing = payload.alerts
    assert (payload.skipped, payload.ignored, payload.truncated, payload.notes) == ((), (), 0, ())

    assert resolved.id == "alertmanager:0cd9eb5a1f4f8e10"
    assert resolved.status is Status.RESOLVED
    assert resolved.episode == "2027-02-03T04:05:06.789Z"
    assert resolved.episode_at == 1_801_627_506_789
    assert resolved.ended_at == 1_801_629_306_500

    assert firing.id == "alertmanager:5e0b1d9c77aa4102"
    assert firing.status is Status.FIRING
    assert firing.episode == "2027-02-03T04:10:06.123456789Z"
    assert firing.episode_at == 1_801_627_806_123
    assert firing.ended_at == 0
    assert firing.links == (
        Link("http://prometheus.example.org:9090/graph?g0.expr=free+%3C+5&g0.tab=1", "Source"),
        Link("https://runbooks.example.org/disk-full", "Runbook"),
    )
    assert (firing.client, firing.client_url) == ("Alertmanager", "http://alertmanager.example.org:9093")
    assert firing.notes == ()

    event = firing.event
    assert event.summary == "Disk of db-08 is full"
    assert event.source == "db-08.example.org:9100"
    assert event.severity is Severity.WARNING
    assert event.timestamp == firing.episode
    assert event.component == "node"
    assert event.group == "eu-1"
    assert event.class_ == "DiskFull"
    assert event.custom_details == {
        "summary": "Disk of db-08 is full",
        "runbook_url": "https://runbooks.example.org/disk-full",
        "alertname": "DiskFull",
        "cluster": "eu-1",
        "instance": "db-08.example.org:9100",
        "job": "node",
        "severity": "warning",
    }


def test_raw_is_the_body_narrowed_to_the_alert() -> None:
    body = json.loads((PAYLOADS / "group_one_resolved.json").read_bytes())
    for position, alert in enumerate(read_file("group_one_resolved.json").alerts):
        assert alert.raw == body | {"alerts": [body["alerts"][position]]}


def test_version_3() -> None:
    [alert] = read_file("version_3.json").alerts
    assert alert.fingerprint == fingerprint_of(alert.raw["alerts"][0]["labels"])
    assert alert.status is Status.RESOLVED
    assert alert.episode == alert.event.timestamp == "2016-08-01T10:27:08.008Z"
    assert alert.ended_at - alert.episode_at == 600_000
    assert alert.event.summary == "edge-3 does not answer."
    assert alert.event.custom_details["description"] == "edge-3 does not answer.\nSecond line."


def test_an_imitator_leaves_much_out() -> None:
    first, second = read_file("imitator_leaves_much_out.json").alerts
    assert first.status is second.status is Status.FIRING
    assert first.fingerprint == fingerprint_of({"alertname": "QueueDeep", "queue": "q1", "depth": "1200"})
    assert first.event.custom_details["depth"] == "1200"
    assert first.episode == "2027-02-03T09:05:06.1234567Z"
    assert first.event.severity is Severity.ERROR
    assert (second.episode, second.episode_at, second.event.timestamp) == ("", 0, "")
    assert second.event.summary == "QueueDeep"
    assert second.event.source == "alertmanager"
    assert second.links == ()
    assert first.notes == second.notes == ()


def test_version_0_34_and_truncation() -> None:
    payload = read_file("version_0_34_truncated.json")
    assert payload.truncated == 7
    [alert] = payload.alerts
    assert alert.event.severity is Severity.WARNING
    assert alert.raw["notification_reason"] == "some alerts resolved"
    assert alert.raw["routeLabels"] == {"team": "storage"}


def test_non_ascii_text_is_kept() -> None:
    [alert] = read_file("non_ascii.json").alerts
    assert alert.event.summary == "Überlast in Köln 🔥 — 支付服务 не отвечает"
    assert alert.event.class_ == "Überlast"
    assert alert.event.custom_details["服务"] == "支付"
    assert alert.event.custom_details["host.name"] == "köln-ü-1"
    assert alert.event.custom_details["leer"] == ""
    assert alert.client_url == ""
    assert alert.notes == ()


@pytest.mark.parametrize(
    ("labels", "fingerprint"),
    [  # as a real Alertmanager 0.25 computes them
        ({"foo": "bar"}, "3fff2c2d7595e046"),
        ({"alertname": "Watchdog", "severity": "none"}, "448881ef475b9b26"),
        ({"severity": "none", "alertname": "Watchdog"}, "448881ef475b9b26"),
        ({}, "cbf29ce484222325"),
    ],
)
def test_the_computed_fingerprint_is_alertmanagers(labels: dict[str, str], fingerprint: str) -> None:
    assert fingerprint_of(labels) == fingerprint


def test_labels_that_read_alike_in_a_row_differ() -> None:
    assert fingerprint_of({"a": "bc"}) != fingerprint_of({"ab": "c"})
    assert fingerprint_of({"a": "b", "c": "d"}) != fingerprint_of({"a": "bcd"})


@pytest.mark.parametrize(
    ("sent", "used"),
    [
        ("7be148814d8a8bd4", "7be148814d8a8bd4"),
        ("does not match the labels", "does not match the labels"),
        (42, "42"),
        ("", fingerprint_of(LABELS)),
        ("  ", fingerprint_of(LABELS)),
        (None, fingerprint_of(LABELS)),
        (True, fingerprint_of(LABELS)),
        (["x"], fingerprint_of(LABELS)),
    ],
)
def test_fingerprint_as_sent_or_computed(sent: Any, used: str) -> None:
    assert read_one(fingerprint=sent).fingerprint == used


def test_the_source_is_the_endpoint() -> None:
    body = json.dumps({"alerts": [alert_body(fingerprint="f1")]}).encode()
    [alert] = PARSERS["alertmanager"](body, {}, "alertmanager/team-a").alerts
    assert alert.id == "alertmanager/team-a:f1"


UNKNOWN_STATUS = "neither the alert nor its group has a status we know: taken as firing"


@pytest.mark.parametrize(
    ("own", "shared", "status", "is_known"),
    [
        ("firing", "resolved", Status.FIRING, True),
        ("resolved", "firing", Status.RESOLVED, True),
        (" Resolved ", "firing", Status.RESOLVED, True),
        (None, "resolved", Status.RESOLVED, True),
        ("", "resolved", Status.RESOLVED, True),
        (None, None, Status.FIRING, False),
        ("ok", "resolved", Status.FIRING, False),
        (0, "resolved", Status.FIRING, False),
        ({"a": []}, "resolved", Status.FIRING, False),
        (None, ["resolved"], Status.FIRING, False),
    ],
)
def test_status(own: Any, shared: Any, status: Status, is_known: bool) -> None:
    [alert] = read(alert_body(status=own), status=shared).alerts
    assert alert.status is status
    assert alert.notes == (() if is_known else (UNKNOWN_STATUS,))


@pytest.mark.parametrize(
    ("starts_at", "episode", "ms", "is_understood"),
    [
        (STARTED, STARTED, STARTED_MS, True),
        ("2027-02-05T11:00:00.000+07:00", STARTED, STARTED_MS, True),
        (None, "", 0, True),
        ("", "", 0, True),
        ("0001-01-01T00:00:00Z", "", 0, True),
        ("0001-01-01T00:00:00+00:00", "", 0, True),
        ("2027-02-05T04:00:00", "", 0, False),
        ("now", "", 0, False),
        (1_801_800_000, "", 0, False),
        (10**400, "", 0, False),
        ([], "", 0, False),
    ],
)
def test_episode(starts_at: Any, episode: str, ms: int, is_understood: bool) -> None:
    alert = read_one(startsAt=starts_at)
    assert (alert.episode, alert.episode_at, alert.event.timestamp) == (episode, ms, episode)
    assert [note.partition(":")[0] for note in alert.notes] == ([] if is_understood else ["startsAt"])


@pytest.mark.parametrize(
    ("status", "ends_at", "ms"),
    [
        ("resolved", "2027-02-05T04:00:01Z", STARTED_MS + 1000),
        ("resolved", "0001-01-01T00:00:00Z", 0),
        ("resolved", "soon", 0),
        ("resolved", 5, 0),
        ("resolved", None, 0),
        ("firing", "2027-02-05T04:00:01Z", 0),
    ],
)
def test_ended_at(status: str, ends_at: Any, ms: int) -> None:
    alert = read_one(status=status, endsAt=ends_at)
    assert (alert.ended_at, alert.notes) == (ms, ())


@pytest.mark.parametrize(
    ("label", "severity", "is_known"),
    [
        ("critical", Severity.CRITICAL, True),
        (" CRITICAL\n", Severity.CRITICAL, True),
        ("Page", Severity.CRITICAL, True),
        ("P1", Severity.CRITICAL, True),
        ("high", Severity.ERROR, True),
        ("Warning", Severity.WARNING, True),
        ("none", Severity.INFO, True),
        ("", Severity.ERROR, True),
        (None, Severity.ERROR, True),
        ("kritisch", Severity.ERROR, False),
        (3, Severity.ERROR, False),
    ],
)
def test_severity(label: Any, severity: Severity, is_known: bool) -> None:
    alert = read_one(labels=LABELS | {"severity": label})
    assert alert.event.severity is severity
    assert [note.partition(" ")[0] for note in alert.notes] == ([] if is_known else ["severity"])


def test_the_guide_has_the_severity_table() -> None:
    documented = {
        word.strip(): Severity(severity)
        for words, severity in re.findall(
            r"^\| ([a-z0-9, ]+) \| (critical|error|warning|info) \|$", GUIDE.read_text(), re.MULTILINE
        )
        for word in words.split(",")
    }
    assert documented == sender.SEVERITIES


@pytest.mark.parametrize(
    ("annotations", "labels", "summary"),
    [
        ({"summary": "S", "title": "T"}, LABELS, "S"),
        ({"summary": " \n ", "title": "T", "message": "M"}, LABELS, "T"),
        ({"summary": "two\nlines"}, LABELS, "two lines"),
        ({"message": "M\nmore", "description": "D"}, LABELS, "M"),
        ({"description": "\n D \nmore"}, LABELS, "D"),
        ({}, LABELS, "DiskFull: instance=db-1"),
        ({}, {"alertname": "Watchdog"}, "Watchdog"),
        ({}, {"b": "2", "a": "1", "d": "4", "c": "3"}, "a=1, b=2, c=3"),
        ({"summary": ""}, {"foo": ""}, "foo="),
        ({}, {}, "alert f1"),
        ({"summary": 5}, LABELS, "5"),
    ],
)
def test_summary(annotations: dict[str, Any], labels: dict[str, str], summary: str) -> None:
    assert read_one(annotations=annotations, labels=labels, fingerprint="f1").event.summary == summary


@pytest.mark.parametrize(
    ("labels", "source", "component", "group"),
    [
        ({"job": "j", "host": "h", "instance": "i"}, "i", "j", ""),
        ({"job": "j", "pod": "p", "namespace": "n", "cluster": "c"}, "p", "j", "c"),
        ({"cluster": "c", "service": "s", "job": "j"}, "s", "s", "c"),
        ({"instance": "", "host": " ", "job": "j", "group": "g", "cluster": "c"}, "j", "j", "g"),
        ({"component": "c", "service": "s", "device": "d", "namespace": "n"}, "d", "c", "n"),
        ({"node": "n", "device": "d"}, "n", "", ""),
        ({"hostname": "h", "node": "n"}, "h", "", ""),
        ({"foo": "bar"}, "alertmanager", "", ""),
    ],
)
def test_source_component_and_group(labels: dict[str, str], source: str, component: str, group: str) -> None:
    event = read_one(labels=labels).event
    assert (event.source, event.component, event.group) == (source, component, group)


@pytest.mark.parametrize(
    ("annotations", "labels", "details"),
    [
        ({"a": "1"}, {"b": "2"}, {"a": "1", "b": "2"}),
        ({"severity": "x"}, {"severity": "page"}, {"severity": "page", "annotation_severity": "x"}),
        ({"a": "1"}, {"a": "2", "annotation_a": "3"}, {"a": "2", "annotation_a": "3", "annotation_annotation_a": "1"}),
        (
            {"empty": "", "null": None, "number": 1.5},
            {"flag": True, "list": [1, "ü"], "none": {}},
            {"empty": "", "null": "", "number": "1.5", "flag": "true", "list": '[1,"ü"]', "none": "{}"},
        ),
    ],
)
def test_details(annotations: dict[str, Any], labels: dict[str, Any], details: dict[str, str]) -> None:
    assert read_one(annotations=annotations, labels=labels).event.custom_details == details


@pytest.mark.parametrize(
    ("generator_url", "annotations", "expected"),
    [
        ("http://p/graph", {}, [("http://p/graph", "Source")]),
        ("", {"runbook_url": "https://r"}, [("https://r", "Runbook")]),
        (
            None,
            {"dashboard_url": "https://d", "dashboardURL": "https://e"},
            [("https://d", "Dashboard"), ("https://e", "Dashboard")],
        ),
        ("javascript:alert(1)", {"runbook_url": "runbooks/disk.md"}, []),
        (["http://p"], {"runbook_url": ["https://r"]}, []),
    ],
)
def test_links(generator_url: Any, annotations: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    alert = read_one(generatorURL=generator_url, annotations=annotations)
    assert [(link.href, link.text) for link in alert.links] == expected


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (None, "expected an object, got 'None'"),
        ("firing", "expected an object, got 'firing'"),
        ([1] * 1000, f"expected an object, got '{str([1] * 1000)[:79]}…'"),
        (alert_body(labels="x"), "labels: expected an object, got 'x'"),
        (alert_body(labels=[]), "labels: expected an object, got '[]'"),
        (alert_body(labels={}), "neither a fingerprint nor labels: nothing tells this alert from others"),
        ({}, "neither a fingerprint nor labels: nothing tells this alert from others"),
    ],
)
def test_one_bad_alert_does_not_sink_the_others(entry: Any, reason: str) -> None:
    payload = read(alert_body(fingerprint="f0"), entry, alert_body(fingerprint="f2"))
    assert [alert.fingerprint for alert in payload.alerts] == ["f0", "f2"]
    assert payload.skipped == (Skipped(1, reason),)


def test_broken_annotations_do_not_cost_the_alert() -> None:
    alert = read_one(annotations=["x"])
    assert alert.event.summary == "DiskFull: instance=db-1"
    assert alert.notes == ("annotations: expected an object, got \"['x']\"",)


@pytest.mark.parametrize(
    ("sent", "counted"),
    [(0, 0), (3, 3), (-1, 0), (None, 0), ("3", 0), (True, 0), (2.5, 0), (10**30, 0), ([], 0)],
)
def test_truncated(sent: Any, counted: int) -> None:
    assert read(truncatedAlerts=sent).truncated == counted


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b'"firing"', b"{}", b'{"alerts": null}', b'{"alerts": {}}', b'{"text": "a custom payload"}'],
)
def test_another_shape_is_refused(body: bytes) -> None:
    with pytest.raises(BadPayload, match="wrong shape: expected Alertmanager's own webhook body") as refused:
        parse(body, {}, "alertmanager")
    assert refused.value.status == 400


def test_an_empty_list_is_fine() -> None:
    assert read() == ParsedPayload()


def test_broken_text_marks_every_alert() -> None:
    body = json.dumps({"alerts": [alert_body(), alert_body(labels={"a": "X"})]}).replace("X", "\udc80")
    payload = parse(body.encode("utf-8", "surrogateescape"), {}, "alertmanager")
    assert payload.notes == (REPLACED,)
    assert [alert.notes for alert in payload.alerts] == [(REPLACED,), (REPLACED,)]
    assert payload.alerts[1].event.custom_details == {"a": "\\x80"}


def test_too_many_alerts_are_refused() -> None:
    body = b'{"alerts": [' + b"1," * LIMITS.alerts + b"1]}"
    with pytest.raises(BadPayload, match="more than 10,000 alerts in one body") as refused:
        parse(body, {}, "alertmanager")
    assert refused.value.status == 413


def test_what_many_alerts_share_is_not_copied_without_end() -> None:
    entry = {"labels": {"n": "x" * 10}}
    few = read(entry, groupLabels={"a": "x" * 200_000}).alerts
    many = read(*[entry] * 400, groupLabels={"a": "x" * 200_000}).alerts
    assert few[0].raw["groupLabels"]
    assert many[0].raw == {"alerts": [entry]}
    assert many[0].notes == ("the body has so many alerts that what they share was left out of raw_event",)
