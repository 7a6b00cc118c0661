"""Bounds on what one alert may hold, whichever sender it came from.

What is over them is cut, with a mark and a note, never refused: rather a shortened page than none. News and identity stay
as they are, because a parser has read status, severity and fingerprint from the whole text by then.
"""

from __future__ import annotations

import dataclasses
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Mapping
from hashlib import sha256
from itertools import islice
from operator import is_
from typing import Any, TypeAlias

from msgspec.structs import replace

from alertrouter.alert import Alert
from alertrouter.limits import LIMITS
from alertrouter.sources.body import REPLACED
from alertrouter.sources.payload import ParsedPayload, Parser

#: Ends every text that was cut.
CUT_MARK = "… [cut by alertrouter]"
#: Labels and annotations are side by side in the details.
DETAILS = 2 * LIMITS.labels
#: Of lists and objects inside a detail, and of `raw_event`.
_MEMBERS = 1_000
_BACKSLASH = ord("\\")
#: What became of a list or object, by its id; beside it the list or object, for else its id might become another's.
_Seen: TypeAlias = dict[int, tuple[Any, Any]]
_NOTE = (
    f"cut by alertrouter: texts over {LIMITS.text:,} characters, names over {LIMITS.name}, more than {DETAILS} details, "
    f"or more than {_MEMBERS:,} members of one of them"
)


def bounded(parse: Parser) -> Parser:
    """The parser, its alerts within bounds."""

    def parse_within_bounds(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
        return within_bounds(parse(body, headers, source), body)

    return parse_within_bounds


def within_bounds(payload: ParsedPayload, body: bytes) -> ParsedPayload:
    """The payload of `body` with each of its alerts within bounds."""
    may_be_long = _may_hold_long_text(body) or any(REPLACED in alert.notes for alert in payload.alerts)
    if not may_be_long and not any(map(_has_many_or_long_names, payload.alerts)):
        return payload
    seen: _Seen = {}
    return dataclasses.replace(payload, alerts=tuple([_fit_alert(alert, seen) for alert in payload.alerts]))


def fit(alert: Alert) -> Alert:
    """The alert with what is too long or too many cut, and a note that says so. Its id and its news stay the same."""
    return _fit_alert(alert, {})


def fit_value(value: Any) -> Any:
    """A detail as it is in an alert within bounds."""
    return _fit(value, {})


def hashed(text: str) -> str:
    """What stands for a text that only tells alerts or episodes apart, where it is too long."""
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def _fit_alert(alert: Alert, seen: _Seen) -> Alert:
    event = alert.event
    fitted = replace(
        alert,
        fingerprint=alert.id.removeprefix(f"{alert.source}:"),  # hashed there where it is too long to be an id
        episode=alert.episode if len(alert.episode) <= LIMITS.key else hashed(alert.episode),
        event=replace(
            event,
            summary=_cut(event.summary),
            source=_cut(event.source),
            timestamp=_cut(event.timestamp),
            component=_cut(event.component),
            group=_cut(event.group),
            class_=_cut(event.class_),
            custom_details={
                _cut(name, LIMITS.name): _fit(value, seen)
                for name, value in islice(event.custom_details.items(), DETAILS)
            },
        ),
        links=tuple(replace(link, text=_cut(link.text)) for link in alert.links if len(link.href) <= LIMITS.text),
        client=_cut(alert.client),
        client_url=alert.client_url if len(alert.client_url) <= LIMITS.text else "",
        raw=_fit(dict(alert.raw), seen),
    )
    return alert if fitted == alert else replace(fitted, notes=(*alert.notes, _NOTE))


def few(labels: dict[str, str], first: Iterable[str]) -> dict[str, str]:
    """At most so many of the labels as are shown: those named `first` before the others, each in its order."""
    if len(labels) <= LIMITS.labels:
        return labels
    kept = {name: labels[name] for name in first if name in labels}
    return dict(islice((kept | labels).items(), LIMITS.labels))


def _may_hold_long_text(body: bytes) -> bool:
    """False only where no text in the body is over the bound: a text has no unescaped quotes, and no more characters
    than bytes, unless codes replaced some. So it leaps from quote to quote; looking at each text of each alert takes as
    long as parsing them.
    """
    if body.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return True
    quote = -1
    while len(body) - quote - 1 > LIMITS.text:
        found = body.rfind(b'"', quote + 1, quote + LIMITS.text + 2)
        while found > 0 and body[found - 1] == _BACKSLASH:
            found = body.rfind(b'"', quote + 1, found)
        if found < 0:
            return True
        quote = found
    return False


def _has_many_or_long_names(alert: Alert) -> bool:
    details = alert.event.custom_details
    return len(details) > DETAILS or max(map(len, details), default=0) > LIMITS.name


def _fit(value: Any, seen: _Seen) -> Any:
    """The value within bounds: itself, where nothing of it is cut. What many alerts share is cut once, and stays shared."""
    if isinstance(value, str):
        return _cut(value)
    if not isinstance(value, dict | list):
        return value
    if id(value) not in seen:
        seen[id(value)] = (value, _fit_object(value, seen) if isinstance(value, dict) else _fit_list(value, seen))
    return seen[id(value)][1]


def _fit_object(value: dict[str, Any], seen: _Seen) -> dict[str, Any]:
    fitted = {_cut(name): _fit(member, seen) for name, member in islice(value.items(), _MEMBERS)}
    is_same = len(fitted) == len(value) and all(map(is_, fitted, value))
    return value if is_same and all(map(is_, fitted.values(), value.values())) else fitted


def _fit_list(value: list[Any], seen: _Seen) -> list[Any]:
    fitted = [_fit(item, seen) for item in value[:_MEMBERS]]
    return value if len(fitted) == len(value) and all(map(is_, fitted, value)) else fitted


def _cut(text: str, limit: int = LIMITS.text) -> str:
    return text if len(text) <= limit else text[: limit - len(CUT_MARK)] + CUT_MARK
