"""Datadog's webhook: our template, the default payload, other people's templates, forms, and every known pitfall."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from alertrouter.alert import Alert, Link, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources import PARSERS, ParsedPayload
from alertrouter.sources.body import REPLACED
from alertrouter.sources.datadog import parse

PAYLOADS = Path(__file__).parent.parent / "payloads" / "datadog"
GUIDE = Path(__file__).parent.parent.parent / "docs" / "senders" / "datadog.md"
FORM = "application/x-www-form-urlencoded"
MONITOR = "700100:31415926:c0ffee5a3a4d1e8fae2482df7b776281"

FROM_TITLE = (
    "the payload does not name the transition, its title does: use the payload template of docs/senders/datadog.md"
)
NOT_CLOSABLE = "the payload names no monitor, so its recovery cannot close this alert: use the payload template of docs/senders/datadog.md"


def parse_file(name: str) -> ParsedPayload:
    content_type = FORM if name.endswith(".form") else "application/json"
    return parse((PAYLOADS / name).read_bytes(), {"content-type": content_type}, "datadog")


def read_file(name: str) -> Alert:
    [alert] = parse_file(name).alerts
    return alert


def template(*, without: str = "", **changes: Any) -> dict[str, Any]:
    """Our template as received; `alert_x=...` changes `alert.x`, `org_x=...` changes `org.x`."""
    payload: dict[str, Any] = json.loads((PAYLOADS / "template_triggered.json").read_bytes())
    for name, value in changes.items():
        outer, _, inner = name.partition("_")
        if outer in ("alert", "org"):
            payload[outer][inner] = value
        else:
            payload[name] = value
    for name in without.split():
        outer, _, inner = name.partition(".")
        if inner:
            del payload[outer][inner]
        else:
            del payload[outer]
    return payload


def read_payload(payload: dict[str, Any]) -> ParsedPayload:
    return parse(json.dumps(payload).encode(), {}, "datadog")


def read(*, without: str = "", **changes: Any) -> Alert:
    [alert] = read_payload(template(without=without, **changes)).alerts
    return alert


# --- our template ----------------------------------------------------------------------------------------------------


def test_the_template_says_everything() -> None:
    payload = parse_file("template_triggered.json")
    [alert] = payload.alerts
    assert (payload.skipped, payload.ignored, payload.truncated, payload.notes) == ((), (), 0, ())
    assert alert.id == f"datadog:{MONITOR}"
    assert alert.status is Status.FIRING
    assert alert.episode == "6612345678900000001"
    assert alert.episode_at == 1_801_800_000_123
    assert alert.ended_at == 0
    assert alert.links == (
        Link("https://app.datadoghq.eu/event/event?id=6612345678901234567", "Datadog event"),
        Link("https://p.datadoghq.eu/snapshot/view/abc.png", "Snapshot"),
        Link("https://app.datadoghq.eu/monitors/31415926", "Monitor"),
    )
    assert alert.client == "Datadog"
    assert alert.client_url == "https://app.datadoghq.eu/event/event?id=6612345678901234567"
    assert alert.raw == json.loads((PAYLOADS / "template_triggered.json").read_bytes())
    assert alert.notes == ()

    event = alert.event
    assert event.summary == "Checkout latency is high"
    assert event.source == "web-4"
    assert event.severity is Severity.ERROR
    assert event.timestamp == "2027-02-05T04:00:00.123Z"
    assert event.component == "checkout"
    assert event.group == "host:web-4, env:prod"
    assert event.class_ == "query_alert_monitor"
    assert event.custom_details == {
        "monitor_id": "31415926",
        "transition": "Triggered",
        "event_type": "query_alert_monitor",
        "alert_type": "error",
        "priority": "P2",
        "scope": "host:web-4, env:prod",
        "hostname": "web-4",
        "metric": "trace.http.request.duration",
        "metric_namespace": "trace",
        "query": "avg(last_5m):p95:trace.http.request.duration{env:prod} by {host,env} > 2",
        "status_text": "p95 over env:prod,host:web-4 was > 2.0 on average during the last 5m",
        "text": "Checkout latency is high\n\n@webhook-alertrouter @slack-checkout\n\n"
        "p95 over env:prod,host:web-4 was > 2.0 on average during the last 5m.",
        "event_id": "6612345678901234567",
        "org_id": "700100",
        "org_name": "Example & Söhne",
        "cycle_key": "6612345678900000001",
        "aggreg_key": "c0ffee5a3a4d1e8fae2482df7b776281",
        "tags": [
            "env:prod",
            "host:web-4",
            "monitor",
            "service:checkout",
            "team:payments",
            "team:web",
            "url:http://web-4:8080",
            "scope:tagged",
        ],
        "env": "prod",
        "host": "web-4",
        "service": "checkout",
        "team": ["payments", "web"],
        "url": "http://web-4:8080",
    }


def test_the_guide_has_the_template() -> None:
    [text] = re.findall(r"```json\n(\{.*?\n\})\n```", GUIDE.read_text(), re.DOTALL)
    received = json.loads((PAYLOADS / "template_triggered.json").read_bytes())
    pasted = json.loads(text)
    assert shape(pasted) == shape(received)

    rendered = text
    for variable, value in variables(pasted, received).items():
        rendered = rendered.replace(f'"{variable}"', json.dumps(value))
    assert parse(rendered.encode(), {}, "datadog") == parse_file("template_triggered.json")


def test_the_template_itself_is_no_alert() -> None:
    [text] = re.findall(r"```json\n(\{.*?\n\})\n```", GUIDE.read_text(), re.DOTALL)
    with pytest.raises(BadPayload, match="wrong shape"):
        parse(text.encode(), {}, "datadog")


def shape(value: Any) -> Any:
    return {name: shape(inner) for name, inner in value.items()} if isinstance(value, dict) else None


def variables(pasted: Any, received: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pasted.items():
        found |= variables(value, received[name]) if isinstance(value, dict) else {value: received[name]}
    return {name: value for name, value in found.items() if name.startswith("$")}


# --- transitions and severity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transition", "status"),
    [
        ("Triggered", Status.FIRING),
        ("Re-Triggered", Status.FIRING),
        ("Renotify", Status.FIRING),
        ("Warn", Status.FIRING),
        ("Re-Warn", Status.FIRING),
        ("No Data", Status.FIRING),
        ("Re-No Data", Status.FIRING),
        ("Recovered", Status.RESOLVED),
        ("RE_TRIGGERED", Status.FIRING),
        (" re no-data ", Status.FIRING),
        ("recovered", Status.RESOLVED),
    ],
)
def test_transitions(transition: str, status: Status) -> None:
    alert = read(alert_transition=transition)
    assert alert.status is status
    assert alert.fingerprint == MONITOR
    assert alert.ended_at == (1_801_800_000_123 if status is Status.RESOLVED else 0)


@pytest.mark.parametrize(
    "transition", ["", "Null", "null", None, "None", "Muted", "resolve", "Recovered!", 7, False, {}]
)
def test_an_unknown_transition_neither_pages_nor_resolves(transition: Any) -> None:
    payload = read_payload(template(alert_transition=transition))
    assert (payload.alerts, payload.skipped) == ((), ())
    [reason] = payload.ignored
    assert reason.endswith("neither opens nor closes an alert")


@pytest.mark.parametrize(
    ("transition", "priority", "alert_type", "severity"),
    [
        ("Triggered", "P1", "error", Severity.CRITICAL),
        ("Triggered", "P2", "warning", Severity.ERROR),
        ("Triggered", "p3", "error", Severity.WARNING),
        ("Triggered", "P4", "error", Severity.INFO),
        ("Triggered", "P5", "error", Severity.INFO),
        ("Triggered", "", "error", Severity.ERROR),
        ("Triggered", "", "Warning", Severity.WARNING),
        ("Triggered", "", "info", Severity.INFO),
        ("Triggered", "", "", Severity.ERROR),
        ("Triggered", "P6", "pink", Severity.ERROR),
        ("Triggered", "normal", "warning", Severity.WARNING),
        ("Warn", "P1", "warning", Severity.WARNING),
        ("Re-Warn", "P1", "error", Severity.WARNING),
        ("Renotify", "P1", "warning", Severity.WARNING),
        ("Renotify", "P1", "error", Severity.CRITICAL),
        ("No Data", "P1", "error", Severity.CRITICAL),
        ("Re-No Data", "", "warning", Severity.WARNING),
        ("Recovered", "P1", "success", Severity.CRITICAL),
        ("Recovered", "", "success", Severity.INFO),
    ],
)
def test_severity(transition: str, priority: str, alert_type: str, severity: Severity) -> None:
    alert = read(title="Checkout is slow", alert_transition=transition, alert_priority=priority, alert_type=alert_type)
    assert alert.event.severity is severity
    assert alert.fingerprint == MONITOR


# --- identity and times ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "without", "fingerprint"),
    [
        ({}, "", MONITOR),
        ({"title": "x", "alert_title": "y", "text": "z", "id": "9"}, "", MONITOR),
        ({"alert_scope": "host:web-4,env:prod"}, "alert.aggreg_key", "700100:31415926:env:prod,host:web-4"),
        ({"alert_scope": " env:prod , host:web-4,"}, "alert.aggreg_key", "700100:31415926:env:prod,host:web-4"),
        ({"alert_scope": ""}, "alert.aggreg_key", "700100:31415926:web-4"),
        ({"alert_scope": "", "hostname": "null"}, "alert.aggreg_key", "700100:31415926:-"),
        ({}, "org", "-:31415926:c0ffee5a3a4d1e8fae2482df7b776281"),
        ({"org_id": 700100, "alert_id": 31415926}, "", MONITOR),
        ({"alert_id": 31415926.0}, "", MONITOR),
        ({"org_id": "a:b%", "alert_id": "1:2"}, "", "a%3Ab%25:1%3A2:c0ffee5a3a4d1e8fae2482df7b776281"),
        ({"alert_id": "-", "alert_aggreg_key": "event_id:7"}, "", "700100:-:event_id:7"),
        ({}, "alert.id", "700100:%aggreg_key:c0ffee5a3a4d1e8fae2482df7b776281"),
        ({}, "alert.id alert.aggreg_key", "700100:%cycle_key:6612345678900000001"),
        ({}, "alert.id alert.aggreg_key alert.cycle_key", "700100:%event_id:6612345678901234567"),
    ],
)
def test_fingerprint(changes: dict[str, Any], without: str, fingerprint: str) -> None:
    assert read(without=without, **changes).fingerprint == fingerprint


def test_two_groups_of_one_monitor_are_two_alerts() -> None:
    assert read(alert_aggreg_key="a").id != read(alert_aggreg_key="b").id
    assert read(org_id="a:b", alert_id="c").id != read(org_id="a", alert_id="b:c").id


def test_only_an_event_id_makes_an_alert_that_cannot_be_closed() -> None:
    assert read(without="alert.id alert.aggreg_key alert.cycle_key").notes == (NOT_CLOSABLE,)
    assert read(without="alert.id alert.aggreg_key").notes == ()


def test_nothing_to_tell_alerts_apart_is_refused() -> None:
    with pytest.raises(BadPayload, match="nothing tells this alert from others"):
        read(without="id alert.id alert.aggreg_key alert.cycle_key")


@pytest.mark.parametrize(
    ("date", "last_updated", "ms", "timestamp"),
    [
        ("1801800000123", "", 1_801_800_000_123, "2027-02-05T04:00:00.123Z"),
        (1801800000123, "", 1_801_800_000_123, "2027-02-05T04:00:00.123Z"),
        ("1801800000", "", 1_801_800_000_000, "2027-02-05T04:00:00Z"),
        (1801800000.5, "", 1_801_800_000_500, "2027-02-05T04:00:00.500Z"),
        ("", "1801800000000", 1_801_800_000_000, "2027-02-05T04:00:00Z"),
        ("$DATE", "1801800000000", 1_801_800_000_000, "2027-02-05T04:00:00Z"),
        ("yesterday", "", 0, ""),
        (-5, "", 0, ""),
        (10**300, "", 0, ""),
        (1e300, "", 0, ""),
        ([1], "", 0, ""),
    ],
)
def test_date(date: Any, last_updated: str, ms: int, timestamp: str) -> None:
    alert = read(date=date, last_updated=last_updated)
    assert (alert.episode_at, alert.event.timestamp) == (ms, timestamp)


# --- without our template --------------------------------------------------------------------------------------------


def test_the_default_payload_is_read_from_title_and_link() -> None:
    alert = read_file("default_triggered.json")
    assert alert.id == "datadog:700100:31415926:env:prod,host:web-4"
    assert alert.status is Status.FIRING
    assert (alert.episode, alert.episode_at) == ("", 1_801_800_000_000)
    assert alert.event.severity is Severity.CRITICAL
    assert alert.event.summary == "Checkout & payment are slow"
    assert alert.event.source == "web-4"
    assert alert.event.group == "host:web-4,env:prod"
    assert alert.event.custom_details["env"] == "prod"
    assert alert.event.custom_details["text"].startswith(
        "See also [another one](https://app.datadoghq.eu/monitors/999?"
    )
    assert alert.event.custom_details["text"].endswith("/edit?link_source=monitor_notif)]")
    assert "and 'this'." in alert.event.custom_details["text"]
    [link] = alert.links
    assert (link.href[:49], link.text) == ("https://app.datadoghq.eu/monitors/31415926?group=", "Monitor")
    assert alert.notes == (FROM_TITLE,)


def test_the_default_payload_recovers_the_same_alert() -> None:
    opened, closed = read_file("default_triggered.json"), read_file("default_recovered.json")
    assert closed.id == opened.id
    assert closed.status is Status.RESOLVED
    assert closed.ended_at == 1_801_803_600_000


@pytest.mark.parametrize(
    ("title", "status"),
    [
        ("[Triggered] x", Status.FIRING),
        ("[P1] [Re-Triggered on {a:b}] x", Status.FIRING),
        ("[No Data] x", Status.FIRING),
        ("[TEST] [P3] [Recovered on {issue.id:1-2}] [] x", Status.RESOLVED),
        ("[Triggered on {a:[x],b:{y}}] x", Status.FIRING),
    ],
)
def test_a_title_tells_the_transition(title: str, status: Status) -> None:
    alert = read(title=title, without="alert.transition")
    assert alert.status is status
    assert FROM_TITLE in alert.notes


def test_a_monitor_without_any_transition_is_refused_because_it_could_be_a_page() -> None:
    with pytest.raises(BadPayload, match="neither a field nor the title says whether the monitor fires or recovers"):
        read(title="Triggered x", alert_title="", without="alert.transition")


def test_a_message_that_is_no_monitors_is_ignored() -> None:
    payload = read_payload({"id": "1", "title": "Deployed 1.2.3", "body": "%%%\n@webhook-alertrouter\n%%%"})
    assert payload == ParsedPayload(ignored=("no notification of a monitor",))


def test_a_default_payload_without_a_monitor_pages_but_cannot_be_closed() -> None:
    [alert] = read_payload({"id": "81", "title": "[Triggered] [Synthetics] login", "org": {"id": "7"}}).alerts
    assert alert.fingerprint == "7:%event_id:81"
    assert alert.event.summary == "[Synthetics] login"
    assert alert.notes == (FROM_TITLE, NOT_CLOSABLE)


def test_a_nested_template() -> None:
    alert = read_file("custom_nested.json")
    assert alert.id == "datadog:700100:2661550:abc123def456"
    assert alert.status is Status.FIRING
    assert alert.event.severity is Severity.WARNING
    assert alert.event.summary == "Write latency of the database"
    assert alert.event.custom_details["metric"] == "aws.rds.write_latency"
    assert alert.event.custom_details["event_id"] == "8544000000000000001"
    assert alert.client_url == "https://app.datadoghq.com/event/event?id=8544000000000000001"
    assert alert.notes == ()


def test_a_flat_template() -> None:
    alert = read_file("custom_flat.json")
    assert alert.id == "datadog:-:309800:host:i-0a1b"
    assert alert.status is Status.RESOLVED
    assert alert.event.summary == "Memory is short..."
    assert alert.event.custom_details["security-group"] == ["sg-1", "sg-2"]
    assert alert.notes == ()


@pytest.mark.parametrize(
    "payload",
    [
        {"ALERT_TRANSITION": "Triggered", "ALERT_ID": "5", "AGGREG_KEY": "k"},
        {"alertTransition": "Triggered", "alertId": 5, "aggregKey": "k"},
        {"transition": "Triggered", "monitor_id": "5", "aggregation_key": "k"},
        {"monitor": {"id": 5}, "event": {"transition": "Triggered", "aggreg-key": "k"}},
        {"alert": {"status": "Triggered", "id": "5"}, "aggreg_key": "k"},
        {"alert_status": "Re-Triggered", "alert_id": "5", "event": {"aggregation key": "k"}},
    ],
)
def test_other_names_for_the_same(payload: dict[str, Any]) -> None:
    [alert] = read_payload(payload).alerts
    assert (alert.fingerprint, alert.status, alert.notes) == ("-:5:k", Status.FIRING, ())
    assert alert.event.summary
    assert alert.event.source == "datadog"


@pytest.mark.parametrize(
    ("detail", "names"),
    [
        ("event_id", "id event_id event.event_id event.id"),
        ("event_type", "event_type event.event_type event.type"),
        ("text", "text body text_only_msg event_msg message event.text event.body event.message alert.message"),
        ("org_id", "org.id org_id organization.id"),
        ("org_name", "org.name org_name organization.name"),
        ("monitor_id", "alert.id alert.alert_id alert_id monitor_id monitor.id alert.monitor_id"),
        ("alert_type", "alert.type alert.alert_type alert_type event.alert_type"),
        ("priority", "alert.priority alert.alert_priority alert_priority monitor.priority priority event.priority"),
        ("cycle_key", "alert.cycle_key alert.alert_cycle_key alert_cycle_key cycle_key event.cycle_key"),
        ("aggreg_key", "alert.aggreg_key event.aggreg_key aggreg_key aggregation_key event.aggregation_key"),
        ("scope", "alert.scope alert.alert_scope alert_scope scope"),
        ("status_text", "alert.status alert.alert_status alert_status status"),
        ("metric", "alert.metric alert.alert_metric alert_metric metric"),
        ("metric_namespace", "alert.metric_namespace alert.alert_metric_namespace metric_namespace"),
        ("query", "alert.query alert.alert_query alert_query query"),
        ("hostname", "hostname host event.hostname alert.hostname"),
        ("user", "user event.user"),
        ("username", "username event.username"),
        ("email", "email event.email"),
    ],
)
def test_every_name_of_a_variable(detail: str, names: str) -> None:
    for name in names.split():
        payload = with_member({"transition": "Warn", "monitor_id": "1", "id": "2", "title": "x"}, name, "P3")
        if detail == "monitor_id":
            payload.pop("monitor_id" if name != "monitor_id" else "id")
        if detail == "event_id" and name != "id":
            del payload["id"]
        [alert] = read_payload(payload).alerts
        assert alert.event.custom_details[detail] == "P3", name


@pytest.mark.parametrize(
    "name",
    ["title", "event_title", "event.title", "event.event_title", "alert.title", "alert.alert_title", "alert_title"],
)
def test_every_name_of_a_title(name: str) -> None:
    [alert] = read_payload(with_member({"id": "2"}, name, "[Warn] full")).alerts
    assert alert.event.summary == "full"


@pytest.mark.parametrize(
    "name",
    ["date", "event.date", "date_posix", "timestamp", "last_updated", "event.last_updated", "last_updated_posix"],
)
def test_every_name_of_a_date(name: str) -> None:
    [alert] = read_payload(with_member({"transition": "Warn", "id": "2"}, name, 1801800000)).alerts
    assert alert.episode_at == 1_801_800_000_000


@pytest.mark.parametrize("name", ["link", "event_url", "event.event_url", "event.link", "event.url", "url"])
def test_every_name_of_a_link(name: str) -> None:
    [alert] = read_payload(with_member({"transition": "Warn", "id": "2"}, name, "http://e")).alerts
    assert (alert.client_url, alert.links) == ("http://e", (Link("http://e", "Datadog event"),))


@pytest.mark.parametrize("name", ["tags", "event_tags", "event.tags", "event.event_tags", "alert.tags"])
def test_every_name_of_tags(name: str) -> None:
    [alert] = read_payload(with_member({"transition": "Warn", "id": "2"}, name, "a:b")).alerts
    assert alert.event.custom_details["tags"] == ["a:b"]


def with_member(payload: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    outer, _, inner = name.partition(".")
    return payload | {outer: {inner: value} if inner else value}


def test_class_is_the_metric_where_the_event_type_is_missing() -> None:
    assert read(without="event_type").event.class_ == "trace.http.request.duration"


def test_an_escaped_link_to_the_monitor() -> None:
    text = "[Monitor Status](https://app.datadoghq.eu/monitors/5?from_ts=1&amp;group=host%3Aa&amp;to_ts=2)"
    [alert] = read_payload({"title": "[Triggered] x", "text": text}).alerts
    assert alert.fingerprint == "-:5:host:a"
    assert alert.links == (Link("https://app.datadoghq.eu/monitors/5?from_ts=1&group=host%3Aa&to_ts=2", "Monitor"),)


def test_a_link_to_another_monitor_gives_no_group() -> None:
    text = "[Monitor Status](https://app.datadoghq.eu/monitors/6?group=host%3Aa)"
    [alert] = read_payload({"alert_id": 5, "transition": "Warn", "text": text}).alerts
    assert alert.fingerprint == "-:5:-"


def test_forms() -> None:
    alert = read_file("flat.form")
    assert alert.id == "datadog:-:31415926:env:prod,host:web-4"
    assert alert.episode == "77"
    assert alert.episode_at == 1_801_800_000_000
    assert alert.event.summary == "Köln is slow"
    assert alert.event.source == "web-4"
    assert alert.event.severity is Severity.WARNING
    assert alert.event.component == "checkout"


@pytest.mark.parametrize("style", ["alert.%s", "alert[%s]"])
def test_nested_forms_that_name_their_members(style: str) -> None:
    form = {style % "id": "5", style % "transition": "Recovered", style % "aggreg_key": "k", "org.id": "7"}
    [alert] = parse(urlencode(form).encode(), {"content-type": FORM}, "datadog").alerts
    assert (alert.fingerprint, alert.status) == ("7:5:k", Status.RESOLVED)


def test_json_that_claims_to_be_a_form() -> None:
    assert parse(json.dumps(template()).encode(), {"content-type": FORM}, "datadog") == parse_file(
        "template_triggered.json"
    )


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"{}", b'"x"', b"5", b'{"id": "1"}', b'{"alerts": [], "status": "firing", "version": "4"}']
)
def test_another_shape_is_refused(body: bytes) -> None:
    with pytest.raises(BadPayload, match="wrong shape: expected an object or form with a Datadog monitor's variables"):
        parse(body, {}, "datadog")


def test_the_source_is_the_endpoint() -> None:
    body = (PAYLOADS / "template_triggered.json").read_bytes()
    [alert] = PARSERS["datadog"](body, {}, "datadog/team-a").alerts
    assert alert.id == f"datadog/team-a:{MONITOR}"


# --- pitfalls --------------------------------------------------------------------------------------------------------


def test_everything_is_a_string_or_a_number() -> None:
    numbers = template(id=6612345678901234567, date=1801800000123, org_id=700100, alert_id=31415926)
    numbers["alert"]["cycle_key"] = 6612345678900000001
    [alert] = read_payload(numbers).alerts
    expected = read_file("template_triggered.json")
    assert (alert.id, alert.episode, alert.episode_at) == (expected.id, expected.episode, expected.episode_at)
    assert alert.event == expected.event  # 19 digits and all


@pytest.mark.parametrize("absent", ["", "null", "None", None, "$ALERT_SCOPES", "$X"])
@pytest.mark.parametrize("field", ["alert_aggreg_key", "alert_cycle_key", "alert_scope", "hostname", "org_name"])
def test_what_stands_for_absent(field: str, absent: Any) -> None:
    details = read(**{field: absent}).event.custom_details
    assert field.removeprefix("alert_") not in details
    assert "$" not in json.dumps(list(details.values()))


@pytest.mark.parametrize("name", ["$AGGREG_KEYS", "AGGREG_KEY", "$5", "ID"])
def test_a_variables_name_is_never_an_identity(name: str) -> None:
    assert read(alert_aggreg_key=name).fingerprint == "700100:31415926:env:prod,host:web-4"
    assert read(alert_id=name).fingerprint == "700100:%aggreg_key:c0ffee5a3a4d1e8fae2482df7b776281"
    assert read(alert_cycle_key=name).episode == ""
    assert read(org_id=name).fingerprint.startswith("-:31415926:")


def test_an_unknown_variable_for_the_transition_leaves_it_to_the_title() -> None:
    assert read(alert_transition="$ALERT_TRANSITIONS").notes == (FROM_TITLE,)


def test_prose_may_begin_with_a_dollar() -> None:
    assert read(alert_title="$AAPL feed is late").event.summary == "$AAPL feed is late"
    assert read(alert_title="$ALERT_TITLE").event.summary == "Checkout latency is high"


def test_json_in_quotes_is_refused_with_its_place() -> None:
    body = b'{"alert_id": "5", "logs": "{"columns": []}"}'
    with pytest.raises(BadPayload, match="not JSON: Expecting ',' delimiter at byte 29"):
        parse(body, {}, "datadog")


def test_raw_newlines_are_not_repaired() -> None:
    with pytest.raises(BadPayload, match="not JSON: Invalid control character"):
        parse(b'{"alert_id": "5", "text": "a\nb"}', {}, "datadog")


def test_multi_line_text_code_and_emoji_arrive_whole() -> None:
    text = "🔥 It\u2019s down\n```\nTraceback: x\n```\n\tend"
    assert read(text=text).event.custom_details["text"] == text


def test_html_entities_are_resolved_for_display_only() -> None:
    alert = read(alert_title="a &amp; b &#x27;c&#x27; &lt;d&gt;", text="&lt;x&gt;", alert_query="a &amp; b")
    assert alert.event.summary == "a & b 'c' <d>"
    assert alert.event.custom_details["text"] == "<x>"
    assert alert.event.custom_details["query"] == "a &amp; b"
    assert alert.raw["text"] == "&lt;x&gt;"


def test_an_endless_html_entity_is_left_alone() -> None:
    entity = f"&#{'9' * 5000};"
    assert read(text=entity).event.custom_details["text"] == entity


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("%%%\nbody\n%%%", "body"),
        ("  %%%  \r\nbody\n%%%\n", "body"),
        ("50%%% of disks", "50%%% of disks"),
    ],
)
def test_fences_are_taken_off(text: str, shown: str) -> None:
    assert read(text=text).event.custom_details["text"] == shown


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Disk full @webhook-alertrouter @pagerduty-Core @slack-ops", "Disk full"),
        ("Disk full @ops.team@example.org now", "Disk full now"),
        ("@all Disk full", "Disk full"),
        ("Many @http.status_code:500 for a@b", "Many @http.status_code:500 for a@b"),
        ("@allocations rise", "@allocations rise"),
        ("[P1] [Triggered on {host:a,env:b}] Disk full", "Disk full"),
        ("[P2] [Recovered on {issue.id:65-5b}] [] New issue", "New issue"),
        ("[Triggered] [Memory Alert] low", "[Memory Alert] low"),
        ("[Triggered] [Synthetics] [Triggered] x", "[Synthetics] [Triggered] x"),
        ("[Warn on {a:b}]", "p95 over x"),
        ("[Warn on {a:b} unclosed", "[Warn on {a:b} unclosed"),
        ("Preis über 5 €\n支付", "Preis über 5 € 支付"),
    ],
)
def test_titles_are_cleaned(title: str, shown: str) -> None:
    assert read(title="", alert_title=title, text="%%%\np95 over x\n%%%").event.summary == shown


def test_a_summary_is_never_empty() -> None:
    assert read(title="", alert_title="", text="").event.summary == "Datadog: Triggered"


def test_a_test_notification_is_marked() -> None:
    alert = read(title="[TEST] [P2] [Triggered on {host:a}] Disk full", alert_title="")
    assert alert.notes == ("a test notification of the monitor",)
    assert alert.event.summary == "Disk full"


def test_a_title_is_no_identity() -> None:
    titles = {"title": "[P1] [Triggered on {host:other}] other", "alert_title": "other"}
    assert read(**titles, without="alert.aggreg_key").id == read(without="alert.aggreg_key").id


@pytest.mark.parametrize(
    ("tags", "shown"),
    [
        ("a:1, b:2 ,c", {"a": "1", "b": "2"}),
        ("url:http://x:80", {"url": "http://x:80"}),
        ("a:1,a:2,a:1", {"a": ["1", "2"]}),
        ("a:", {"a": ""}),
        (":x,,:", {}),
        ("monitor_id:9,tags:x,query:y", {}),
        ("stadt:köln", {"stadt": "köln"}),
        (["a:1", "b:2,c:3", 4], {"a": "1", "b": "2", "c": "3"}),
        ({"a": "1"}, {}),
    ],
)
def test_tags(tags: Any, shown: dict[str, Any]) -> None:
    plain = read(tags="", alert_scope="").event.custom_details
    details = read(tags=tags, alert_scope="").event.custom_details
    assert {name: value for name, value in details.items() if plain.get(name) != value and name != "tags"} == shown
    assert details["monitor_id"] == "31415926"


def test_a_repeated_service_tag_gives_the_first_component() -> None:
    assert read(tags="service:a,service:b").event.component == "a"


def test_the_events_priority_is_not_the_alerts() -> None:
    alert = read(title="x", alert_priority="", priority="low", alert_type="warning")
    assert alert.event.severity is Severity.WARNING
    assert "priority" not in alert.event.custom_details
    assert read(title="[P1] x", alert_priority="", priority="normal").event.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("changes", "source"),
    [
        ({"hostname": "h1"}, "h1"),
        ({"hostname": "", "alert_scope": "env:prod,host:h2"}, "h2"),
        ({"hostname": "", "alert_scope": "env:prod,role:x"}, "env:prod"),
        ({"hostname": "", "alert_scope": "*"}, "datadog"),
        ({"hostname": "", "alert_scope": ""}, "datadog"),
    ],
)
def test_source(changes: dict[str, str], source: str) -> None:
    assert read(**changes).event.source == source


def test_links_that_are_none_are_left_out() -> None:
    alert = read(link="javascript:alert(1)", snapshot="null")
    assert (alert.links, alert.client_url) == ((), "")


def test_broken_text_is_marked() -> None:
    body = json.dumps(template(alert_title="X")).replace('"X"', '"\udcff"').encode("utf-8", "surrogateescape")
    payload = parse(body, {}, "datadog")
    assert payload.notes == payload.alerts[0].notes == (REPLACED,)
    assert payload.alerts[0].event.summary == "\\xff"


def in_latin_1(without: str, **changes: Any) -> Alert:
    body = json.dumps(template(without=without, **changes), ensure_ascii=False).encode("latin-1")
    [alert] = parse(body, {}, "datadog").alerts
    return alert


def test_scopes_in_another_encoding_stay_two() -> None:
    fired = in_latin_1("alert.aggreg_key", alert_scope="host:Zürich-1")
    closed = in_latin_1("alert.aggreg_key", alert_scope="host:Zärich-1", alert_transition="Recovered")
    assert fired.id != closed.id
    assert fired.id.endswith(r":host:Z\xfcrich-1")


def test_groups_of_a_link_in_another_encoding_stay_two() -> None:
    status = "[Monitor Status](https://app.datadoghq.com/monitors/31415926?group=host%3AZ{}rich-1)"
    groups = [
        in_latin_1("alert.aggreg_key alert.scope", text=status.format(letter)).event.group
        for letter in ("%FC", "%E4", "%C3%BC")
    ]
    assert groups == ["host%3AZ%FCrich-1", "host%3AZ%E4rich-1", "host:Zürich-1"]
