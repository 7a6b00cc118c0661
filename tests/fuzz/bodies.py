"""Bodies of webhooks, broken in every way, and what each parser promises all the same.

The recorded bodies of tests/payloads are what is broken. A new sender needs no line here: its folder, named as in
PARSERS, is enough. NAME.headers beside a body holds its headers, `Name: value` a line.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from zlib import crc32

import msgspec
from jsonschema import Draft202012Validator

from alertrouter.alert import Alert, Status
from alertrouter.destinations.pagerduty import BODY_LIMIT, EventAction, Rung, build_event, encode_event
from alertrouter.enrich import enrich
from alertrouter.errors import BadPayload
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Ruleset
from alertrouter.sources import PARSERS, ParsedPayload, Parser, pagerduty
from tests.alerts import NIGHT
from tests.custom_senders import ACME, custom
from tests.fuzz.inputs import Input, Target
from tests.fuzz.mutations import FRAGMENTS, VALUES, Mutator, Parts, take_apart

TESTS = Path(__file__).parents[1]
PAYLOADS = TESTS / "payloads"
KEY = "k" * 32
#: The name of an alert whose client names none.
MADE = "made"

_TYPES = {".json": "application/json", ".form": "application/x-www-form-urlencoded", ".txt": "text/plain"}
_ODD_TYPES = (
    *("", "text/plain; charset=UTF-8", "application/json; charset=utf-16", "application/cloudevents+json", "a" * 5000),
    *(
        "application/cloudevents-batch+json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "/",
    ),
)

#: Of one in so many events the schema is asked; the others are read by `_Event`, which says the same a hundred times faster.
_SCHEMA_ONE_IN = 200


@dataclass(frozen=True, slots=True)
class Recorded:
    """A body as a sender posted it."""

    sender: str
    headers: Mapping[str, str]
    parts: Parts


#: Every parser, by the sender; beside those of PARSERS one that alertrouter.yaml describes, and that of PagerDuty's own
#: endpoint, which has another form. Their bodies are below.
READERS: Mapping[str, Parser] = {
    **PARSERS,
    **custom("custom/acme", ACME),
    "pagerduty": lambda body, _, source: pagerduty.parse(body, source, lambda: MADE),
}
_EVENTS = (
    {
        "routing_key": KEY,
        "event_action": "trigger",
        "dedup_key": "disk/db-1",
        "payload": {
            "summary": "Disk full on db-1",
            "source": "db-1",
            "severity": "critical",
            "timestamp": "2027-01-10T03:00:00.123Z",
            "component": "postgres",
            "group": "prod",
            "class": "disk",
            "custom_details": {"free": "0 B", "mounts": ["/var", "/tmp"], "load": 1.5},
        },
        "links": [{"href": "https://graphs.example.org/db-1", "text": "Graph"}],
        "images": [{"src": "https://graphs.example.org/db-1.png"}],
        "client": "monitor",
        "client_url": "https://monitor.example.org",
    },
    {"routing_key": KEY, "event_action": "acknowledge", "dedup_key": "disk/db-1", "payload": None},
    {"routing_key": KEY, "event_action": "resolve", "dedup_key": "disk/db-1"},
)
_PROBLEMS = {
    "host": {"id": 7, "name": "db-1"},
    "labels": {"env": "prod"},
    "event": {
        "problems": [
            {
                "id": 31,
                "state": "Problem",
                "level": 5,
                "title": "Disk full",
                "part": "postgres",
                "team": "storage",
                "kind": "disk",
                "occurrence": "31-1",
                "since": 1801800000,
                "reason": "0 B left",
                "tags": [{"tag": "mount", "value": "/var"}],
                "url": "https://acme.example.org/31",
            },
            {"id": "32", "state": "OK", "name": "Load", "until": "2027-01-10T03:00:00Z", "tags": {"a": "b"}},
        ]
    },
}


@cache
def recorded() -> tuple[Recorded, ...]:
    """Every recorded body of every parser."""
    found = [_read(path) for path in sorted(PAYLOADS.glob("*/*")) if path.suffix in _TYPES]
    missing = set(PARSERS) - {each.sender for each in found}
    assert not missing, f"no recorded body of {missing} in {PAYLOADS}"
    json_type = {"content-type": _TYPES[".json"]}
    written = [*(("pagerduty", event) for event in _EVENTS), ("custom/acme", _PROBLEMS)]
    others = (Recorded(sender, json_type, take_apart(json.dumps(body).encode())) for sender, body in written)
    return (*(each for each in found if each.sender in PARSERS), *others)


def _read(path: Path) -> Recorded:
    headers = {"content-type": _TYPES[path.suffix]}
    beside = path.with_suffix(".headers")
    if beside.exists():
        pairs = (line.partition(":") for line in beside.read_text().splitlines() if line.strip())
        headers |= {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Recorded(path.parent.name, headers, take_apart(path.read_bytes()))


@cache
def _mutator() -> Mutator:
    return Mutator([each.parts for each in recorded()])


def make(chance: random.Random) -> Input:
    """A mutation of a recorded body, for its own parser; one in twenty for another one."""
    bodies = recorded()
    seed = bodies[int(chance.random() * len(bodies))]
    sender = seed.sender if chance.random() < 0.95 else chance.choice(list(READERS))
    headers = seed.headers if chance.random() < 0.9 else _with_odd_headers(chance, seed.headers)
    return Input(sender, _mutator().mutate(chance, seed.parts), headers)


def _with_odd_headers(chance: random.Random, headers: Mapping[str, str]) -> dict[str, str]:
    """One header gone or something else. What HTTP does not let through is not tried: the server refuses it."""
    odd = dict(headers)
    name = chance.choice(list(odd))
    draw = chance.random()
    if draw < 0.2:
        del odd[name]
    elif draw < 0.6 or name == "content-type":
        odd[name] = chance.choice(_ODD_TYPES)
    else:
        text = chance.choice((*VALUES, *FRAGMENTS)).decode("utf-8", "surrogateescape")
        odd[name] = "".join(char for char in text if char >= " " and char != "\x7f").strip()
    return odd


# --- what is promised ------------------------------------------------------------------------------------------------

_Text = Annotated[str, msgspec.Meta(pattern=r"\S")]
_AFTER_SCHEME = r"://[0-9A-Za-z_\[][^/?#\s]*([/?#]([0-9A-Za-z._~:/?#@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?$"
_Address = Annotated[str, msgspec.Meta(pattern="^https?" + _AFTER_SCHEME)]
_SecureAddress = Annotated[str, msgspec.Meta(pattern="^https" + _AFTER_SCHEME)]
_Time = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
    ),
]


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    summary: Annotated[str, msgspec.Meta(pattern=r"\S", max_length=1024)]
    source: _Text
    severity: Literal["critical", "error", "warning", "info"]
    custom_details: dict[str, Any]
    timestamp: _Time | msgspec.UnsetType = msgspec.UNSET
    component: _Text | msgspec.UnsetType = msgspec.UNSET
    group: _Text | msgspec.UnsetType = msgspec.UNSET
    class_: _Text | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="class")


class _Link(msgspec.Struct, forbid_unknown_fields=True):
    href: _Address
    text: _Text | msgspec.UnsetType = msgspec.UNSET


class _Image(msgspec.Struct, forbid_unknown_fields=True):
    src: _SecureAddress
    href: _Address | msgspec.UnsetType = msgspec.UNSET
    alt: str | msgspec.UnsetType = msgspec.UNSET


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    """A trigger as tests/schema/pd-events-v2.schema.json wants it."""

    routing_key: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z]{32}$")]
    event_action: Literal["trigger"]
    dedup_key: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    payload: _Payload
    client: Annotated[str, msgspec.Meta(min_length=1)] | msgspec.UnsetType = msgspec.UNSET
    client_url: _Address | msgspec.UnsetType = msgspec.UNSET
    links: Annotated[list[_Link], msgspec.Meta(min_length=1)] | msgspec.UnsetType = msgspec.UNSET
    images: Annotated[list[_Image], msgspec.Meta(min_length=1)] | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode
_decode_alert = msgspec.json.Decoder(Alert).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_SCHEMA = Draft202012Validator(json.loads((TESTS / "schema" / "pd-events-v2.schema.json").read_text()))


@cache
def _rules() -> Ruleset:
    """The rules that the repository ships: regexes, templates and routes that senders' texts get into."""
    return load_rules(TESTS.parent / "rules")


def parse(given: Input, source: str = "") -> ParsedPayload | BadPayload:
    """What the parser makes of it, as posted by `source`; whatever else it raises is a crash."""
    try:
        return READERS[given.what](given.data, given.headers, source or given.what)
    except BadPayload as refusal:
        return refusal


def check(given: Input) -> None:
    """Parse, and hold the alerts against everything that is done with them until PagerDuty has them."""
    outcome = parse(given)
    again = parse(given)
    assert type(again) is type(outcome) and str(again) == str(outcome), "read twice, and not alike"
    _check(given, outcome, tuple(Rung))


def glance(given: Input) -> None:
    """As `check`, with each body read once, and only what PagerDuty gets at the first try."""
    _check(given, parse(given), (Rung.WHOLE,))


def _check(given: Input, outcome: ParsedPayload | BadPayload, rungs: Sequence[Rung]) -> None:
    if isinstance(outcome, BadPayload):
        assert outcome.status in (400, 413, 415), outcome.status
        assert 0 < len(outcome.reason) < 250 and outcome.reason.isprintable(), outcome.reason
        return
    reasons = (*outcome.ignored, *outcome.notes, *(each.reason for each in outcome.skipped))
    assert all(0 < len(reason) < 250 for reason in reasons), reasons
    _encode(reasons)
    for alert in outcome.alerts:
        _check_alert(given.what, alert, rungs)


def _check_alert(sender: str, alert: Alert, rungs: Sequence[Rung]) -> None:
    assert alert.id.startswith(f"{sender}:") and alert.dedup_key.strip() and len(alert.dedup_key) <= 255
    # a client of PagerDuty's endpoint names the alert itself: with a blank, if it likes
    assert alert.fingerprint.strip() or (alert.fingerprint and sender == "pagerduty")
    assert alert.event.summary.strip() and alert.event.source.strip()
    assert 0 <= alert.episode_at < 2**53 and 0 <= alert.ended_at < 2**53
    assert not alert.ended_at or alert.status is Status.RESOLVED
    encoded = _encode(alert)
    stored = _decode_alert(encoded)
    assert stored.id == alert.id and stored.event.summary == alert.event.summary
    assert _encode(stored) == encoded, "the record does not keep it as it was heard"
    _check_events(stored, rungs)


def _check_events(alert: Alert, rungs: Sequence[Rung]) -> None:
    rules = _rules()
    decision = evaluate(alert, rules, NIGHT)
    shown = enrich(alert, decision, rules)
    for rung in rungs:
        event = build_event(EventAction.TRIGGER, KEY, alert.dedup_key, shown, rung, alert.notes)
        body = encode_event(event)
        assert len(body) <= BODY_LIMIT, len(body)
        assert _decode_event(body).dedup_key == alert.dedup_key
        if crc32(body) % _SCHEMA_ONE_IN == 0:
            _SCHEMA.validate(json.loads(body))
    assert len(_encode(build_event(EventAction.RESOLVE, KEY, alert.dedup_key, None))) < 2_000


BODIES = Target("bodies", make, check, glance)
