"""What every parser promises: any body gives alerts that can be encoded and sent, or one short reason why not."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from alertrouter.alert import Alert, Severity, Status
from alertrouter.destinations.pagerduty import EventAction, build_event
from alertrouter.enrich import Enriched
from alertrouter.errors import BadPayload
from alertrouter.sources import PARSERS, ParsedPayload, find_parser
from tests.custom_senders import ACME, PLAIN, custom

TESTS = Path(__file__).parent.parent
PAYLOADS = sorted((TESTS / "payloads").glob("*/*.json"))
SCHEMA = Draft202012Validator(json.loads((TESTS / "schema" / "pd-events-v2.schema.json").read_text()))
TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z)?", re.ASCII)
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every member and every item, as what holds it and its key."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    for key, item in inner:
        yield value, key
        yield from places(item)


def names(paths: Iterable[Path]) -> set[str]:
    return {key for path in paths for _, key in places(json.loads(path.read_bytes())) if isinstance(key, str)}


#: Text with everything JSON can say and encoders refuse: lone surrogates, NUL, escapes, right-to-left orders.
texts = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    [
        "",
        "null",
        "$ID",
        "firing",
        "resolved",
        "Recovered",
        "critical",
        "2027-02-05T04:00:00Z",
        "\x00",
        "\ud800",
        "\x1b[2J",
    ]
)
numbers = st.integers() | st.floats() | st.sampled_from([10**30, -(10**400), 1e300, float("nan"), True])
values = st.recursive(
    st.none() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)
#: The names that senders use, with values they never send.
members = st.dictionaries(st.sampled_from(sorted(names(PAYLOADS))), values, max_size=8)
alert_lists = st.lists(values | members, max_size=4).map(lambda alerts: {"alerts": alerts, "status": "firing"})
CUSTOM = {**custom("custom/acme", ACME), **custom("custom/plain", PLAIN)}
sources = st.sampled_from(sorted([*PARSERS, *CUSTOM]))


#: What tests.custom_senders.ACME reads of one problem, with a word that it knows now and then.
problems = st.dictionaries(
    st.sampled_from(["id", "state", "level", "title", "part", "occurrence", "since", "until", "reason", "tags", "url"]),
    values
    | st.sampled_from([1, "ok", "Comment", 1801800000, "p1", [{"tag": "a", "value": 1}], "https://a.example.org"]),
)


def as_json(value: Any, *, ascii_only: bool = True) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def check(source: str, body: bytes, content_type: str = JSON, **headers: str) -> ParsedPayload | BadPayload:
    """Parse, and hold the result against all that is promised of it."""
    outcome = parse(source, body, content_type, headers)
    if isinstance(outcome, BadPayload):
        assert 0 < len(outcome.reason) < 250
        assert outcome.reason.isprintable()
        assert outcome.status in (400, 413)
    else:
        check_payload(source, outcome)
    assert str(parse(source, body, content_type, headers)) == str(outcome)
    return outcome


def parse(
    source: str, body: bytes, content_type: str, headers: Mapping[str, str] = MappingProxyType({})
) -> ParsedPayload | BadPayload:
    try:
        return find_parser(source, CUSTOM)(body, {"content-type": content_type, **headers}, source)
    except BadPayload as refusal:
        return refusal


def check_payload(source: str, payload: ParsedPayload) -> None:
    for reason in (*payload.ignored, *(skipped.reason for skipped in payload.skipped)):
        assert 0 < len(reason) < 250
        msgspec.json.encode(reason)
    positions = [skipped.position for skipped in payload.skipped]
    assert positions == sorted(set(positions))
    assert payload.truncated >= 0
    for alert in payload.alerts:
        check_alert(source, alert)


def check_alert(source: str, alert: Alert) -> None:
    assert msgspec.json.decode(msgspec.json.encode(alert))["fingerprint"] == alert.fingerprint
    assert alert.id.startswith(f"{source}:")
    assert alert.fingerprint.strip()
    assert isinstance(alert.status, Status)
    assert isinstance(alert.event.severity, Severity)
    assert alert.event.summary.strip()
    assert alert.event.source.strip()
    assert TIMESTAMP.fullmatch(alert.event.timestamp)
    assert type(alert.episode_at) is type(alert.ended_at) is int
    assert 0 <= alert.episode_at < 2**53
    assert 0 <= alert.ended_at < 2**53
    assert not alert.ended_at or alert.status is Status.RESOLVED
    assert all(link.href.startswith(("http://", "https://")) for link in alert.links)
    shown = Enriched(alert.event, alert.links, alert.client, alert.client_url)
    SCHEMA.validate(build_event(EventAction.TRIGGER, "k" * 32, alert.dedup_key, shown))


@settings(max_examples=300)
@given(st.lists(problems, max_size=4), values)
def test_any_problem_of_a_custom_sender(found: list[Any], host: Any) -> None:
    check("custom/acme", as_json({"event": {"problems": found}, "host": {"id": host, "name": host}, "labels": host}))


@given(sources, st.binary(max_size=200), st.sampled_from([JSON, FORM, "", "text/plain"]))
def test_any_bytes(source: str, body: bytes, content_type: str) -> None:
    check(source, body, content_type)


header_names = st.sampled_from(
    [
        *(f"ce-{name}" for name in ("specversion", "id", "source", "type", "subject", "time", "\udcff")),
        "sentry-hook-resource",
        "x-amz-sns-message-id",
        "x-amz-sns-topic-arn",
    ]
)
header_values = texts | st.sampled_from(["1.0", "a.firing", "%00%ff", "issue", "arn:aws:sns:eu-west-1:1:t"])


@given(sources, st.binary(max_size=50) | values.map(as_json), st.dictionaries(header_names, header_values), st.text())
@example("cloudevents", b"", {f"ce-{name}": "1.firing" for name in ("specversion", "id", "source", "type")}, "")
def test_any_headers(source: str, body: bytes, headers: dict[str, str], content_type: str) -> None:
    check(source, body, content_type, **headers)


@settings(max_examples=400)
@given(sources, values | members | alert_lists, st.booleans())
@example("alertmanager", {"alerts": [{"labels": {"a": "\ud800"}, "startsAt": float("inf")}]}, False)
def test_any_json(source: str, value: Any, ascii_only: bool) -> None:
    check(source, as_json(value, ascii_only=ascii_only))


@given(st.dictionaries(st.sampled_from(["alert_id", "transition", "title", "tags", "date", "alert[id]"]), texts))
def test_any_form(fields: dict[str, str]) -> None:
    check("datadog", urlencode(fields, errors="surrogatepass").encode(), FORM)


@settings(max_examples=400)
@given(st.sampled_from(PAYLOADS), st.data())
def test_real_payloads_with_one_value_changed(path: Path, data: st.DataObject) -> None:
    payload = json.loads(path.read_bytes())
    holder, key = data.draw(st.sampled_from(list(places(payload))))
    if data.draw(st.booleans()):
        holder[key] = data.draw(values)
    else:
        del holder[key]
    for source in PARSERS:
        check(source, as_json(payload))


@settings(max_examples=200)
@given(st.sampled_from(PAYLOADS), st.randoms(use_true_random=False))
def test_real_payloads_with_bytes_changed(path: Path, chance: random.Random) -> None:
    body = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 5)):
        body[chance.randrange(len(body))] = chance.randrange(256)
    check(path.parent.name, bytes(body))
    check(path.parent.name, bytes(body[: chance.randrange(len(body))]))


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_real_payloads_are_understood(path: Path) -> None:
    payload = check(path.parent.name, path.read_bytes())
    assert isinstance(payload, ParsedPayload)
    assert payload.alerts
    assert not payload.skipped


@pytest.mark.parametrize(
    "body",
    [
        b'{"alerts":' + b"[" * 100_000,
        b'{"alerts":[{"labels":' + b'{"a":' * 60 + b"1" + b"}" * 60 + b"}]}",
        b'{"alerts":[' + b'{"labels":{"a":"b"}},' * 50_000 + b"{}]}",
        b'{"title":"[' + b" on" * 200_000 + b'","alert_id":1,"transition":"Warn"}',
        b'{"title":"' + b"[P1] " * 200_000 + b'","alert_id":1,"transition":"Warn"}',
        b'{"title":"' + b"[x on {" * 200_000 + b'","alert_id":1,"transition":"Warn"}',
        b'{"title":"x' + b" @a" * 200_000 + b'","alert_id":1,"transition":"Warn"}',
        b'{"title":"x @' + b"a" * 1_000_000 + b'","alert_id":1,"transition":"Warn"}',
        b'{"text":"' + b"[Monitor Status](http://a/monitors/1" * 30_000 + b'","title":"[Warn]"}',
        b'{"text":"[Monitor Status](http://x' + b"/monitors/1" * 100_000 + b'","title":"[Warn]"}',
        b'{"text":"[Monitor Status](http://x' + b"/monitors/" * 100_000 + b')","title":"[Warn]"}',
        b'{"text":"' + b"%%%\\n \\t" * 200_000 + b'","alert_id":1,"transition":"Warn"}',
        b'{"tags":"' + b"a:1,b:2,:" * 100_000 + b'","alert_id":1,"transition":"Warn"}',
        b'{"tags":"' + b",".join(b"a:%06d" % n for n in range(100_000)) + b'","alert_id":1,"transition":"Warn"}',
        b'{"x":"' + b"\\u0000" * 200_000 + b'"}',
        b'{"x":' + b"9" * 1_000_000 + b"}",
    ],
    ids=range(16),
)
@pytest.mark.timeout(20)  # these take a second at most; a pattern that looks back and forth would take hours
def test_hostile_bodies_cost_no_more_than_their_size(body: bytes) -> None:
    for source in PARSERS:
        outcome = parse(source, body, JSON)
        assert isinstance(outcome, BadPayload) or len(outcome.alerts) + len(outcome.ignored) > 0


MANY_PROBLEMS = {"problems": [{"id": n, "state": 1} for n in range(10_000)]}


@pytest.mark.parametrize(
    "shared",
    [
        {"labels": [{"name": f"a{n}", "value": [1]} for n in range(3_000)]},
        {"labels": [[1]] * 3_000, "ballast": "x" * 5_000},
        {"labels": " " * 5_000_000},
        {"host": {"id": 1, "name": "&amp; " * 50_000}},
        {"host": {"id": "$1" * 500_000}},
    ],
    ids=range(5),
)
@pytest.mark.timeout(
    20
)  # these take two seconds at most; what is read or cut for each alert anew takes a minute and more
def test_what_the_alerts_of_a_body_share_costs_no_more_than_its_size(shared: Mapping[str, Any]) -> None:
    outcome = parse("custom/acme", as_json({"event": MANY_PROBLEMS, "host": {"id": 1}, **shared}), JSON)
    assert isinstance(outcome, ParsedPayload)
    assert len(outcome.alerts) == 10_000
