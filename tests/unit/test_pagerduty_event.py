"""The event we make of an alert, its size, and what PagerDuty's answers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from alertrouter.alert import CommonEvent, Link, Severity
from alertrouter.destinations.fitting import CUT_MARK, fit
from alertrouter.destinations.pagerduty import (
    BODY_LIMIT,
    US_EVENTS_URL,
    Delivered,
    EventAction,
    Objection,
    Refused,
    Rung,
    TryAgain,
    build_event,
    classify,
    encode_event,
    enqueue_url,
    web_url,
)
from alertrouter.enrich import Enriched
from alertrouter.errors import SettingsInvalid

KEY = "0123456789abcdefghijABCDEFGHIJKL"
NOW = 1_767_323_045_000  # 2026-01-02T03:04:05Z
SCHEMA = Draft202012Validator(
    json.loads((Path(__file__).parent.parent / "schema" / "pd-events-v2.schema.json").read_text())
)

DISK_FULL = CommonEvent(
    summary="Disk full on db-1",
    source="db-1",
    severity=Severity.CRITICAL,
    timestamp="2026-01-02T03:04:05.678Z",
    component="postgres",
    group="eu-1",
    class_="DiskFull",
    custom_details={"env": "prod", "free_bytes": 0},
)


def trigger(event: CommonEvent = DISK_FULL, **shown: Any) -> dict[str, Any]:
    enriched = Enriched(event, **({"links": (), "client": "", "client_url": ""} | shown))
    return build_event(EventAction.TRIGGER, KEY, "alertmanager:7be148814d8a8bd4", enriched)


def with_details(details: Mapping[Any, Any]) -> dict[str, Any]:
    return trigger(replace(DISK_FULL, custom_details=details))


# --- the event -------------------------------------------------------------------------------------------------------


def test_a_trigger_carries_the_whole_alert() -> None:
    event = trigger(
        links=(Link("https://runbooks.example.org/disk", "Runbook"), Link("http://prometheus:9090/graph?g0.expr=up")),
        client="alertrouter",
        client_url="https://alertrouter.example.org/alerts/1",
    )
    assert event == {
        "routing_key": KEY,
        "event_action": "trigger",
        "dedup_key": "alertmanager:7be148814d8a8bd4",
        "payload": {
            "summary": "Disk full on db-1",
            "source": "db-1",
            "severity": "critical",
            "timestamp": "2026-01-02T03:04:05.678Z",
            "component": "postgres",
            "group": "eu-1",
            "class": "DiskFull",
            "custom_details": {"env": "prod", "free_bytes": 0},
        },
        "links": [
            {"href": "https://runbooks.example.org/disk", "text": "Runbook"},
            {"href": "http://prometheus:9090/graph?g0.expr=up"},
        ],
        "client": "alertrouter",
        "client_url": "https://alertrouter.example.org/alerts/1",
    }
    SCHEMA.validate(event)


@pytest.mark.parametrize("action", [EventAction.ACKNOWLEDGE, EventAction.RESOLVE])
@pytest.mark.parametrize("enriched", [None, Enriched(DISK_FULL, (Link("https://example.org"),), "alertrouter", "")])
def test_an_acknowledge_or_resolve_only_names_the_alert(action: EventAction, enriched: Enriched | None) -> None:
    event = build_event(action, KEY, "datadog:42", enriched)
    assert event == {"routing_key": KEY, "event_action": action.value, "dedup_key": "datadog:42"}
    SCHEMA.validate(event)


def test_a_trigger_without_an_alert_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="needs the alert"):
        build_event(EventAction.TRIGGER, KEY, "datadog:42", None)


@pytest.mark.parametrize(
    ("given_summary", "sent"),
    [
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1023 + "…"),
        ("😀" * 1024, "😀" * 1024),  # by code point: 4,096 bytes, 2,048 UTF-16 units
        ("😀" * 1025, "😀" * 1023 + "…"),
        ("", "Alert alertmanager:7be148814d8a8bd4"),
        (" \n\t\u00a0", "Alert alertmanager:7be148814d8a8bd4"),
        ("half \ud83d smile", "half \ufffd smile"),
        ("whole \ud83d\ude00 smile", "whole 😀 smile"),
    ],
)
def test_the_summary_is_never_blank_nor_too_long_nor_unsendable(given_summary: str, sent: str) -> None:
    assert trigger(replace(DISK_FULL, summary=given_summary))["payload"]["summary"] == sent


def test_what_the_sender_left_empty_is_left_out() -> None:
    event = trigger(CommonEvent(summary="Down", source=" ", severity=Severity.INFO))
    assert event["payload"] == {"summary": "Down", "source": "unknown", "severity": "info", "custom_details": {}}
    assert event.keys() == {"routing_key", "event_action", "dedup_key", "payload"}


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.123456789+02:00", "2026-01-02T03:04:05.123456789+02:00"),
        ("2026-01-02T03:04:05.500+0200", "2026-01-02T01:04:05.500000+00:00"),
        ("2026-01-02 03:04:05Z", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02T03:04:05", None),  # no zone: PagerDuty's own time of receipt is better than a guess
        ("0001-01-01T00:00:00Z", None),  # Go's zero time
        ("1970-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-14:00 ", None),
        ("2026-02-30T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        ("\uff12\uff10\uff12\uff16-01-02T03:04:05Z", None),
    ],
)
def test_a_timestamp_is_sent_only_if_it_is_an_instant(written: str, sent: str | None) -> None:
    event = trigger(replace(DISK_FULL, timestamp=written))
    assert event["payload"].get("timestamp") == sent
    SCHEMA.validate(event)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://wiki.example.org/a?b=c&d=%20#e", "https://wiki.example.org/a?b=c&d=%20#e"),
        ("  HTTPS://wiki.example.org  ", "https://wiki.example.org"),
        ("http://[::1]:9093/#/alerts", "http://[::1]:9093/#/alerts"),
        ("http://my_pod-0:9090", "http://my_pod-0:9090"),
        ("https://wiki.example.org/My Page", "https://wiki.example.org/My%20Page"),
        ("https://wiki.example.org/Störung?q=[100%]", "https://wiki.example.org/St%C3%B6rung?q=%5B100%25%5D"),
        ("https://wiki.example.org/a#b#c", "https://wiki.example.org/a#b%23c"),
        ("https://störung.example.org/", "https://xn--strung-xxa.example.org/"),
        ("https://x.example.org/\ud800", "https://x.example.org/%EF%BF%BD"),
        ("https://x.example.org/" + "a" * 4_074, "https://x.example.org/" + "a" * 4_074),
        ("https://x.example.org/" + "a" * 4_075, ""),
        ("javascript:alert(1)", ""),
        ("javascript://example.org/%0Aalert(1)", ""),
        ("data:text/html,hello", ""),
        ("ftp://example.org/", ""),
        ("//example.org/", ""),
        ("example.org", ""),
        ("https://", ""),
        ("https:///path", ""),
        ("https://exa mple.org/", ""),
        ('https://example.org"><script>', ""),
        ("https://user:secret@example.org/", ""),
        ("http://[::1", ""),
        ("https://" + "ü" * 300 + ".org", ""),
        ("{{ runbook_url }}", ""),
        ("", ""),
    ],
)
def test_only_what_a_browser_can_follow_is_a_link(written: str, sent: str) -> None:
    assert web_url(written) == sent
    event = trigger(links=(Link(written, "text"),), client_url=written)
    assert event.get("links") == ([{"href": sent, "text": "text"}] if sent else None)
    assert event.get("client_url") == (sent or None)
    SCHEMA.validate(event)


def test_details_become_json_whatever_they_hold() -> None:
    deep: Any = "bottom"
    for _ in range(5_000):
        deep = [deep]
    event = with_details(
        MappingProxyType(
            {
                "frozen": MappingProxyType({"a": (1, 2)}),
                "numbers": [float("nan"), float("inf"), -0.5, 2**64, True, None],
                "huge": 10**5_000,
                "when": datetime(2026, 1, 2, tzinfo=UTC),
                "half": "\udc00",
                "half \ud800 key": 1,
                7: "number as key",
                "deep": deep,
            }
        )
    )
    sent = msgspec.json.decode(encode_event(event))["payload"]["custom_details"]
    assert sent["frozen"] == {"a": [1, 2]}
    assert sent["numbers"] == ["nan", "inf", -0.5, 2**64, True, None]
    assert sent["huge"] == hex(10**5_000)
    assert sent["when"] == "2026-01-02 00:00:00+00:00"
    assert sent["half"] == "\ufffd"
    assert sent["half \ufffd key"] == 1
    assert sent["7"] == "number as key"
    assert "nested deeper than 20 levels" in json.dumps(sent["deep"])
    SCHEMA.validate(event)


hostile_text = st.text(st.characters(codec=None), max_size=60) | st.sampled_from(
    ["", " ", "x" * 2_000, "\ud800", "😀" * 1_100]
)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile_text, inner, max_size=4),
    max_leaves=12,
)
urls = hostile_text | st.builds("https://{}".format, hostile_text) | st.builds("http://h/{}".format, hostile_text)
common_events = st.builds(
    CommonEvent,
    summary=hostile_text,
    source=hostile_text,
    severity=st.sampled_from(Severity),
    timestamp=hostile_text | st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    component=hostile_text,
    group=hostile_text,
    class_=hostile_text,
    custom_details=st.dictionaries(hostile_text, json_like, max_size=6),
)
shown_alerts = st.builds(
    Enriched,
    event=common_events,
    links=st.lists(st.builds(Link, href=urls, text=hostile_text), max_size=5).map(tuple),
    client=hostile_text,
    client_url=urls,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EventAction), hostile_text.filter(bool).map(lambda text: text[:255]), shown_alerts)
def test_every_event_is_one_that_pagerduty_takes(action: EventAction, dedup_key: str, enriched: Enriched) -> None:
    event = build_event(action, KEY, dedup_key, enriched)
    SCHEMA.validate(event)
    body = encode_event(event)
    assert len(body) <= BODY_LIMIT
    assert json.loads(body) == event


# --- less of it ------------------------------------------------------------------------------------------------------

FULL = Enriched(
    replace(
        DISK_FULL,
        summary="Disk full on db-1 \U0001f525",
        custom_details={
            "env": "prod",
            "service": "the sender's word",
            "alertrouter": {
                "service": "payments",
                "team": "team-payments",
                "runbook": "r",
                "rules": ["a"],
                "notes": [],
            },
        },
    ),
    (Link("https://runbooks.example.org/disk", "Runbook"),),
    "alertrouter",
    "https://alertrouter.example.org/alerts/1",
)


def on_rung(rung: Rung, enriched: Enriched = FULL, *notes: str) -> dict[str, Any]:
    event = build_event(EventAction.TRIGGER, KEY, "alertmanager:7be148814d8a8bd4", enriched, rung, notes)
    SCHEMA.validate(event)
    return event


def test_a_bare_event_shows_only_what_is_ours_beside_the_headline() -> None:
    whole, bare = on_rung(Rung.WHOLE), on_rung(Rung.BARE, FULL, "PagerDuty said: no")
    assert bare["payload"].pop("custom_details") == {
        "alertrouter": {"service": "payments", "team": "team-payments", "runbook": "r"},
        "alertrouter_delivery": ["PagerDuty said: no"],
    }
    del whole["payload"]["custom_details"], whole["links"]
    assert bare == whole


def test_a_minimal_event_is_what_pagerduty_demands_in_plain_ascii() -> None:
    assert on_rung(Rung.MINIMAL, FULL, "said elsewhere") == {
        "routing_key": KEY,
        "event_action": "trigger",
        "dedup_key": "alertmanager:7be148814d8a8bd4",
        "payload": {
            "summary": "Disk full on db-1 [shortened by alertrouter]",
            "source": "db-1",
            "severity": "critical",
            "custom_details": {},
        },
    }


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("Störung\tan\x00 der\nKüche", "Storung an der Kuche"),
        ("磁盘已满", "Alert alertmanager:7be148814d8a8bd4"),
        ("", "Alert alertmanager:7be148814d8a8bd4"),
        ("x" * 2_000, "x" * 228),
        ("\ud83d smile", "smile"),
    ],
)
def test_a_minimal_summary_is_never_blank_nor_strange(written: str, sent: str) -> None:
    event = on_rung(Rung.MINIMAL, Enriched(replace(DISK_FULL, summary=written, source="\u2028"), (), "", ""))
    assert event["payload"]["summary"] == sent + " [shortened by alertrouter]"
    assert event["payload"]["source"] == "unknown"


@settings(max_examples=200, deadline=None)
@given(shown_alerts, st.lists(hostile_text, max_size=3))
def test_no_two_rungs_send_the_same_bytes(enriched: Enriched, notes: list[str]) -> None:
    """PagerDuty has refused the bytes of one; and each is something it takes."""
    rungs = [on_rung(rung, enriched, *(["note", *notes] if rung else [])) for rung in Rung]
    bodies = [encode_event(event) for event in rungs]
    assert len(set(bodies)) == len(bodies)
    assert len(bodies[1]) < 40_000
    assert len(bodies[2]) < 1_000
    assert bodies[2].isascii()


# --- its size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("char", ["x", "ü", "😀", '"', "\x00"])
def test_only_a_body_over_the_limit_is_touched(char: str) -> None:
    width = len(msgspec.json.encode(char)) - 2
    beside = len(encode_event(with_details({"env": "prod", "log": "", "pad": ""})))
    log, pad = divmod(BODY_LIMIT - beside, width)

    fitting = with_details({"env": "prod", "log": char * log, "pad": "." * pad})
    body = encode_event(fitting)
    assert len(body) == BODY_LIMIT
    assert json.loads(body) == fitting

    too_large = with_details({"env": "prod", "log": char * log, "pad": "." * (pad + 1)})
    body = encode_event(too_large)
    assert BODY_LIMIT - 4_000 < len(body) <= BODY_LIMIT
    details = json.loads(body)["payload"]["custom_details"]
    assert details["env"] == "prod"
    assert details["pad"] == "." * (pad + 1)
    assert details["log"].endswith(CUT_MARK)
    assert details["log"].startswith(char * 1_000)
    assert details["alertrouter_trimmed"] == ["log"]


def test_the_largest_details_go_first_and_small_ones_stay() -> None:
    small = {f"label_{n}": "v" * n for n in range(100)}
    details = {
        "stack": "s" * 600_000,
        **small,
        "labels": {"team": "payments", "dump": "d" * 600_000},
        "rows": ["r" * 90] * 9_000,
    }
    sent = json.loads(encode_event(with_details(details)))["payload"]["custom_details"]
    assert {name: sent[name] for name in small} == small
    assert sent["labels"]["team"] == "payments"
    assert sent["alertrouter_trimmed"] == ["stack", "labels", "rows"]
    assert all(len(sent[name]) > 1_000 for name in ("stack", "rows")), "each large one keeps a fair share"
    assert len(sent["labels"]["dump"]) > 100_000
    assert list(sent) == [*details, "alertrouter_trimmed"], "the order stays"


def test_of_many_small_details_as_many_as_fit_are_kept_whole() -> None:
    details = {f"label_{n:04}": "v" * 150 for n in range(5_000)}
    body = encode_event(with_details(details))
    sent = json.loads(body)["payload"]["custom_details"]
    named = sent.pop("alertrouter_trimmed")
    cut = [name for name in sent if sent[name] != details[name]]
    assert len(cut) <= 1, "the one that met the end of the room"
    assert named
    assert not set(named) & (set(sent) - set(cut))
    assert len(body) > BODY_LIMIT - 4_000


@pytest.mark.parametrize(
    "details",
    [
        {"😀" * 300_000: "the key alone is too large"},
        {f"key_{n}": n for n in range(100_000)},
        {f"key_{n}": "v" * 300 for n in range(10_000)},
        {"list": [[["x" * 100] * 100] * 100]},
        {"alertrouter_trimmed": "x" * 600_000},
        {"\x00" * 100 + str(n): "\x00" * 50_000 for n in range(100)},
    ],
    ids=["huge key", "many numbers", "many texts", "nested lists", "our own name", "escapes"],
)
def test_whatever_is_too_large_fits_afterwards(details: dict[str, Any]) -> None:
    body = encode_event(with_details(details))
    assert len(body) <= BODY_LIMIT
    assert body == encode_event(with_details(details)), "the same alert always gives the same body"
    event = json.loads(body)
    assert event["payload"]["custom_details"]["alertrouter_trimmed"]
    SCHEMA.validate(event)


def test_the_largest_event_beside_the_details_still_fits() -> None:
    control = "\x01" * 5_000  # six bytes each when encoded
    event = build_event(
        EventAction.TRIGGER,
        KEY,
        control[:255],
        Enriched(
            CommonEvent(
                control, control, Severity.INFO, "", control, control, control, {"env": "prod", "log": control * 100}
            ),
            tuple(Link(f"https://x.example.org/{n}/" + "ü" * 600, control) for n in range(1_000)),
            control,
            "https://x.example.org/" + "a" * 4_000,
        ),
    )
    body = encode_event(event)
    assert len(body) <= BODY_LIMIT
    assert len(body) - len(msgspec.json.encode(event["payload"]["custom_details"])) < 200_000
    assert json.loads(body)["payload"]["custom_details"]["env"] == "prod"
    SCHEMA.validate(json.loads(body))


@settings(deadline=None)
@given(json_like, st.integers(-10, 400))
def test_a_fitted_value_fits(value: Any, budget: int) -> None:
    event = with_details({"value": value})
    plain = event["payload"]["custom_details"]["value"]
    fitted = fit(plain, budget)
    if len(msgspec.json.encode(plain)) <= budget:
        assert fitted == plain
    elif fitted is not None:
        assert len(msgspec.json.encode(fitted)) <= budget
        assert type(fitted) is type(plain)


# --- the answers -----------------------------------------------------------------------------------------------------

OTHERS_2XX = [200, 201, 203, 204, 206, 299]
REDIRECTS = [300, 301, 302, 303, 304, 307, 308]
OTHER_4XX = [400, 401, 403, 404, 405, 410, 413, 414, 415, 418, 422, 499]
OTHER_5XX = [501, 502, 504, 505, 520, 524, 599]


@pytest.mark.parametrize(
    ("body", "dedup_key"),
    [
        (b'{"status":"success","message":"Event processed","dedup_key":"a:1"}', "a:1"),
        (b'{"status":"success"}', ""),
        (b'{"dedup_key": 5}', ""),
        (b"<html>thanks</html>", ""),
        (b"\xff\xfe", ""),
        (b"", ""),
    ],
)
def test_a_202_delivers_whatever_it_says(body: bytes, dedup_key: str) -> None:
    assert classify(202, {}, body, NOW) == Delivered(dedup_key)


def test_only_a_202_delivers() -> None:
    body = b'{"status":"success","message":"Event processed","dedup_key":"a:1"}'
    delivering = [status for status in range(100, 1_000) if isinstance(classify(status, {}, body, NOW), Delivered)]
    assert delivering == [202]


@pytest.mark.parametrize("status", OTHER_4XX)
def test_a_4xx_is_final(status: int) -> None:
    objection = {401: Objection.KEY, 403: Objection.KEY, 404: Objection.KEY, 413: Objection.SIZE}
    expected = Refused(status, "no", objection.get(status, Objection.CONTENT))
    assert classify(status, {"Retry-After": "5"}, b"no", NOW) == expected


@pytest.mark.parametrize(
    ("body", "objection"),
    [
        ({"errors": ["Length of 'routing_key' is incorrect (should be 32 characters)"]}, Objection.KEY),
        ({"errors": ["'routing_key' cannot contain non-alphanumeric characters."]}, Objection.KEY),
        ({"errors": ["'payload.summary' is too long", "'routing_key' is missing or blank"]}, Objection.KEY),
        ({"message": "Invalid Routing Key"}, Objection.KEY),
        ("Invalid routing key", Objection.KEY),
        ({"errors": ["unknown integration key"]}, Objection.KEY),
        ({"errors": ["Event size exceeds 512 KB"]}, Objection.SIZE),
        ({"message": "Request entity too large"}, Objection.SIZE),
        ({"errors": ["'payload.summary' is too long (maximum is 1024 characters)"]}, Objection.SIZE),
        ({"errors": ["'payload.severity' is invalid"]}, Objection.CONTENT),
        ({"message": "Event object is invalid"}, Objection.CONTENT),
        ({"message": "JSON parse error"}, Objection.CONTENT),
        ('bad event: {"routing_key":"0123","event_action":"trigger"}', Objection.CONTENT),  # only an echo
        ("<html>resized</html>", Objection.CONTENT),
        ("", Objection.CONTENT),
    ],
)
def test_a_400_says_what_it_is_about(body: object, objection: Objection) -> None:
    answer = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    outcome = classify(400, {}, answer, NOW)
    assert isinstance(outcome, Refused)
    assert outcome.objection is objection


@pytest.mark.parametrize(
    ("status", "ambiguous"),
    [
        *((status, True) for status in OTHERS_2XX),
        *((status, False) for status in REDIRECTS),
        (408, False),
        (500, False),
        (503, False),
        *((status, True) for status in OTHER_5XX),
        (101, True),
        (600, True),
    ],
)
def test_everything_else_is_tried_again(status: int, ambiguous: bool) -> None:
    assert classify(status, {}, b"", NOW) == TryAgain(f"HTTP {status}", None, ambiguous)


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (429, None, 30_000),
        (429, "5", 5_000),
        (429, "nonsense", 30_000),
        (503, None, None),
        (503, "0", 0),
        (503, "120", 120_000),
        (503, "600", 600_000),
        (503, "601", 600_000),
        (503, "0000000000000000007", 7_000),
        (503, "9" * 5_000, 600_000),
        (503, "-5", None),
        (503, "1.5", None),
        (503, "٣", None),
        (503, "Fri, 02 Jan 2026 03:05:05 GMT", 60_000),
        (503, "Friday, 02-Jan-26 03:05:05 GMT", 60_000),
        (503, "Fri Jan  2 03:05:05 2026", 60_000),
        (503, "Fri, 02 Jan 2026 03:04:00 GMT", 0),
        (503, "Fri, 02 Jan 2099 03:04:00 GMT", 600_000),
        (503, "Fri, 99 Jan 2026 03:04:00 GMT", None),
        (503, "Fri, 02 Jan 2026 03:04:00 +9999999999", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(
    status: int, retry_after: str | None, expected: int | None
) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    outcome = classify(status, headers, b"", NOW)
    assert isinstance(outcome, TryAgain)
    assert outcome.retry_after_ms == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            b'{"status":"invalid event","message":"Event object is invalid","errors":["\'payload.source\' is missing or '
            b'blank","Length of \'routing_key\' is incorrect (should be 32 characters)"]}',
            "Event object is invalid: 'payload.source' is missing or blank; "
            "Length of 'routing_key' is incorrect (should be 32 characters)",
        ),
        (b'{"message":"Event object is invalid"}', "Event object is invalid"),
        (b'{"errors":["only this"]}', "only this"),
        (b'{"message":null}', '{"message":null}'),
        (b'{"error":{"message":"another shape"}}', '{"error":{"message":"another shape"}}'),
        (b"Invalid routing key", "Invalid routing key"),
        (b"<html>\r\n  <b>403</b>\x1b[31m</html>", "<html> <b>403</b> [31m</html>"),
        (b"\xff\x00", "\ufffd"),
        (b"[" * 60_000, "[" * 499 + "…"),
        (b"", "HTTP 400 without a reason"),
        ("é".encode() * 500, "é" * 500),
        ("é".encode() * 501, "é" * 499 + "…"),
    ],
)
def test_a_refusal_keeps_pagerdutys_own_words(body: bytes, reason: str) -> None:
    outcome = classify(400, {}, body, NOW)
    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.reason) == (400, reason)


@pytest.mark.parametrize("status", [200, 302, 400, 404, 429, 500, 502])
@pytest.mark.parametrize("lead", ["", "x" * 480, "x" * 3_990])
def test_an_echoed_routing_key_is_never_repeated(status: int, lead: str) -> None:
    body = f'{lead}{{"routing_key":"{KEY}"}}'.encode()
    shown = repr(classify(status, {}, body, NOW, secret=KEY))
    assert KEY[:8] not in shown


@settings(max_examples=300)
@given(st.integers(100, 999), st.text(), st.binary())
def test_no_answer_is_too_strange(status: int, retry_after: str, body: bytes) -> None:
    outcome = classify(status, {"Retry-After": retry_after}, body, NOW)
    if isinstance(outcome, Refused):
        assert 0 < len(outcome.reason) <= 500
        assert outcome.reason.isprintable()
    elif isinstance(outcome, TryAgain):
        assert outcome.reason.isprintable()
        assert outcome.retry_after_ms is None or 0 <= outcome.retry_after_ms <= 600_000


# --- where it goes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "url"),
    [
        (US_EVENTS_URL, "https://events.pagerduty.com/v2/enqueue"),
        ("https://events.eu.pagerduty.com/", "https://events.eu.pagerduty.com/v2/enqueue"),
        ("http://127.0.0.1:9088", "http://127.0.0.1:9088/v2/enqueue"),
        ("http://127.1.2.3:1", "http://127.1.2.3:1/v2/enqueue"),
        ("http://localhost:9088", "http://localhost:9088/v2/enqueue"),
        ("http://[::1]:9088", "http://[::1]:9088/v2/enqueue"),
    ],
)
def test_events_go_to_the_base_address(base: str, url: str) -> None:
    assert str(enqueue_url(base)) == url


@pytest.mark.parametrize(
    ("base", "advice"),
    [
        ("http://events.pagerduty.com", "set it to https://events.pagerduty.com"),
        ("http://127.0.0.1.example.org", "plain http"),
        ("http://10.0.0.1:9088", "plain http"),
        ("http://localhost.example.org", "plain http"),
        ("https://events.pagerduty.com/v2/enqueue", "set it to https://events.pagerduty.com"),
        ("https://events.pagerduty.com?key=1", "set it to https://events.pagerduty.com"),
        ("https://user:hunter2@events.pagerduty.com", "set it to https://events.pagerduty.com"),
        ("ftp://events.pagerduty.com", "not an http"),
        ("events.pagerduty.com", "not an http"),
        ("https://", "not a"),
        ("https://[::1", "not a URL"),
        ("", "not an http"),
    ],
)
def test_an_address_that_could_leak_the_key_is_refused(base: str, advice: str) -> None:
    with pytest.raises(SettingsInvalid, match=advice) as refused:
        enqueue_url(base)
    assert "ALERTROUTER_PAGERDUTY_EVENTS_URL" in str(refused.value)
    assert "hunter2" not in str(refused.value)
