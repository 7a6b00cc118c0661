"""What is too long or too many in an alert is cut with a mark; what it is, and what is news of it, stays."""

from __future__ import annotations

import json
from codecs import BOM_UTF16_LE
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alertrouter.alert import Alert, CommonEvent, Link, Severity, Status
from alertrouter.limits import LIMITS
from alertrouter.sources import PARSERS, alertmanager, datadog
from alertrouter.sources.bounds import CUT_MARK, fit

LONG = "x" * 100_000


def body_of(*alerts: Any) -> bytes:
    return json.dumps({"alerts": list(alerts)}).encode()


def read_one(labels: dict[str, str], annotations: dict[str, str] | None = None, **members: Any) -> Alert:
    body = body_of({"status": "firing", "labels": labels, "annotations": annotations or {}, **members})
    [alert] = PARSERS["alertmanager"](body, {}, "alertmanager").alerts
    return alert


def longest(value: Any) -> int:
    """Length of the longest text anywhere in it."""
    match value:
        case str():
            return len(value)
        case dict():
            return max(map(longest, (*value, *value.values())), default=0)
        case list() | tuple():
            return max(map(longest, value), default=0)
        case _:
            return 0


ALERTS = {
    "long value": {"labels": {"alertname": "a", "query": LONG}},
    "long name": {"labels": {"alertname": "a", LONG: "1"}},
    "long alertname": {"labels": {"alertname": LONG, "service": LONG}},
    "long annotation": {"labels": {"alertname": "a"}, "annotations": {"summary": LONG, "description": LONG}},
    "long link": {"labels": {"alertname": "a"}, "generatorURL": "http://" + LONG},
    "long fingerprint": {"labels": {"alertname": "a"}, "fingerprint": LONG},
    "long severity": {"labels": {"alertname": "a", "severity": LONG}},
    "many labels": {"labels": {"alertname": "a", **{f"l{n}": "1" for n in range(1000)}}},
    "many annotations": {"labels": {"alertname": "a"}, "annotations": {f"a{n}": "1" for n in range(1000)}},
    "quotes": {"labels": {"alertname": "a", "query": '"' * 10_000}},
    "backslashes": {"labels": {"alertname": "a", "query": "\\" * 10_000}},
    "both": {"labels": {"alertname": "a", "query": '\\"' * 10_000}},
    "beyond ASCII": {"labels": {"alertname": "a", "query": "ü" * 10_000}},
    "something else": {"labels": {"alertname": "a"}, "extra": {"deep": [[LONG]]}},
}


@pytest.mark.parametrize("sent", ALERTS.values(), ids=ALERTS.keys())
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_whatever_is_long_is_cut_and_nothing_else_changes(sent: dict[str, Any], encoding: str) -> None:
    text = json.dumps(
        {"alerts": [{"status": "firing", "startsAt": "2027-02-05T04:00:00Z", **sent}]}, ensure_ascii=False
    )
    body = text.encode() if encoding == "utf-8" else BOM_UTF16_LE + text.encode("utf-16-le")
    [whole] = alertmanager.parse(body, {}, "alertmanager").alerts
    [cut] = PARSERS["alertmanager"](body, {}, "alertmanager").alerts
    assert longest(msgspec.to_builtins(cut)) <= LIMITS.text
    assert max(map(len, cut.event.custom_details)) <= LIMITS.name
    assert len(cut.event.custom_details) <= 2 * LIMITS.labels
    assert len(msgspec.json.encode(cut.event)) < 20 * LIMITS.text
    assert len(cut.notes) > len([note for note in whole.notes if "labels" not in note]), "the responder is told"
    for same in ("id", "status", "episode", "episode_at", "ended_at"):
        assert getattr(cut, same) == getattr(whole, same), same
    assert cut.event.severity is whole.event.severity


def test_what_is_cut_shows_it() -> None:
    alert = read_one({"alertname": "a", "query": LONG})
    query = alert.event.custom_details["query"]
    assert len(query) == LIMITS.text and query.startswith("xxx") and query.endswith(CUT_MARK)


def test_what_just_fits_is_left_alone() -> None:
    alert = read_one({"alertname": "a", "x" * LIMITS.name: "y" * LIMITS.text})
    assert alert.event.custom_details == {"alertname": "a", "x" * LIMITS.name: "y" * LIMITS.text}
    assert alert.notes == ()


def test_two_alerts_that_differ_only_beyond_the_bounds_stay_two() -> None:
    assert read_one({"a": LONG + "1"}).id != read_one({"a": LONG + "2"}).id
    labels = {f"l{n:04}": "1" for n in range(1000)}
    assert read_one(labels).id != read_one({**labels, "l0999": "2"}).id
    assert read_one({"a": "1"}, fingerprint=LONG + "1").id != read_one({"a": "1"}, fingerprint=LONG + "2").id


def test_episodes_that_differ_only_beyond_the_bounds_stay_two() -> None:
    def episode(end: str) -> str:
        fields = {"monitor_id": "1", "transition": "Triggered", "event_title": "t", "cycle_key": LONG + end}
        [alert] = PARSERS["datadog"](json.dumps(fields).encode(), {}, "datadog").alerts
        return alert.episode

    assert len(episode("1")) < LIMITS.key
    assert episode("1") == episode("1") != episode("2")


def test_severity_and_what_rules_route_by_are_shown_however_many_labels_there_are() -> None:
    labels = {**{f"a{n}": "1" for n in range(500)}, "severity": "critical", "service": "payment", "team": "shop"}
    alert = read_one(labels)
    assert alert.event.severity is Severity.CRITICAL
    shown = alert.event.custom_details
    assert len(shown) == LIMITS.labels
    assert (shown["severity"], shown["service"], shown["team"]) == ("critical", "payment", "shop")
    assert "of 503 labels and 0 annotations 64 each are shown" in alert.notes


def test_a_form_is_bounded_too() -> None:
    body = f"monitor_id=1&transition=Triggered&event_title=t&text={LONG}".encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    [whole] = datadog.parse(body, headers, "datadog").alerts
    [cut] = PARSERS["datadog"](body, headers, "datadog").alerts
    assert longest(msgspec.to_builtins(whole)) > LIMITS.text >= longest(msgspec.to_builtins(cut))
    assert cut.id == whole.id


def test_what_many_alerts_share_is_cut_once_and_stays_shared() -> None:
    body = json.dumps(
        {
            "alerts": [{"labels": {"a": str(n)}} for n in range(2)],
            "groupLabels": {"short": ["1"], "long": [LONG]},
            "commonLabels": {"a": ["1"]},
        }
    )
    [whole, _] = alertmanager.parse(body.encode(), {}, "alertmanager").alerts
    one, two = PARSERS["alertmanager"](body.encode(), {}, "alertmanager").alerts
    assert one.raw["groupLabels"] == {"short": ["1"], "long": [LONG[: LIMITS.text - len(CUT_MARK)] + CUT_MARK]}
    assert one.raw["groupLabels"] is two.raw["groupLabels"]
    assert one.raw["commonLabels"] is two.raw["commonLabels"]
    assert one.raw["alerts"] == whole.raw["alerts"] != two.raw["alerts"]


def test_what_is_not_cut_is_not_copied() -> None:
    event = CommonEvent("text", "source", Severity.ERROR, custom_details={"some": [{"a": ["b"]}], "long": [LONG]})
    cut = fit(Alert("a/b", "1", Status.FIRING, event))
    assert cut.event.custom_details["some"] is event.custom_details["some"]


@pytest.mark.parametrize("size", [1_000, 2_000])
def test_what_codes_made_long_is_cut_too(size: int) -> None:
    body = body_of({"labels": {"alertname": "a", "query": "X"}}).replace(b"X", b"\xff" * size)
    [alert] = PARSERS["alertmanager"](body, {}, "alertmanager").alerts
    assert alert.event.custom_details["query"].startswith(r"\xff\xff")
    assert len(alert.event.custom_details["query"]) == min(4 * size, LIMITS.text)


texts = st.one_of(st.text(max_size=20), st.integers(0, 9000).map(lambda n: "y" * n))
values: st.SearchStrategy[Any] = st.recursive(
    texts | st.none() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=6), texts.filter(bool), texts, texts)
def test_any_alert_is_bounded_and_a_bounded_one_stays(
    details: dict[str, Any], fingerprint: str, episode: str, text: str
) -> None:
    event = CommonEvent(text, text, Severity.ERROR, text, text, text, text, details)
    links = (Link("http://" + text, text),)
    alert = Alert(
        "a/b", fingerprint, Status.FIRING, event, episode, links=links, client=text, client_url=text, raw=details
    )
    cut = fit(alert)
    assert cut.id == alert.id
    assert longest(msgspec.to_builtins(cut)) <= LIMITS.text
    assert fit(cut) == cut
    assert (cut is alert) == (not cut.notes)


@given(st.lists(st.integers(0, 3), max_size=60), st.sampled_from([LIMITS.text - 1, LIMITS.text, LIMITS.text + 1]))
def test_the_quick_look_misses_no_long_text(kinds: list[int], length: int) -> None:
    """Texts around the bound, made of what JSON escapes, between others."""
    pieces = ['\\"' * (length // 2) + "x" * (length % 2), "\\" * length, '"' * length, "y" * length]
    value = ["z", *(pieces[kind] for kind in kinds), "z"]
    body = json.dumps({"alerts": [{"labels": {"alertname": "a"}, "extra": value}]}).encode()
    [alert] = PARSERS["alertmanager"](body, {}, "alertmanager").alerts
    assert longest(msgspec.to_builtins(alert)) <= LIMITS.text
