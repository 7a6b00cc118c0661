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
from typing import Any

from msgspec.structs import replace

from alertrouter.alert import Alert
from alertrouter.limits import LIMITS
from alertrouter.sources.payload import ParsedPayload, Parser

#: Ends every text that was cut.
CUT_MARK = "… [cut by alertrouter]"
#: Labels and annotations are side by side in the details.
_DETAILS = 2 * LIMITS.labels
#: Of lists and objects inside a detail, and of `raw_event`.
_MEMBERS = 1_000
_BACKSLASH = ord("\\")
_NOTE = (
    f"cut by alertrouter: texts over {LIMITS.text:,} characters, names over {LIMITS.name}, more than {_DETAILS} details, "
    f"or more than {_MEMBERS:,} members of one of them"
)


def bounded(parse: Parser) -> Parser:
    """The parser, its alerts within bounds."""

    def parse_within_bounds(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
        return within_bounds(parse(body, headers, source), body)

    return parse_within_bounds


def within_bounds(payload: ParsedPayload, body: bytes) -> ParsedPayload:
    """The payload of `body` with each of its alerts within bounds."""
    may_be_long = _may_hold_long_text(body)
    if not may_be_long and not any(map(_has_many_or_long_names, payload.alerts)):
        return payload
    return dataclasses.replace(payload, alerts=tuple(map(fit, payload.alerts)))


def fit(alert: Alert) -> Alert:
    """The alert with what is too long or too many cut, and a note that says so. Its id and its news stay the same."""
    event = alert.event
    fitted = replace(
        alert,
        fingerprint=alert.id.removeprefix(f"{alert.source}:"),  # hashed there where it is too long to be an id
        episode=alert.episode if len(alert.episode) <= LIMITS.key else _hashed(alert.episode),
        event=replace(
            event,
            summary=_cut(event.summary),
            source=_cut(event.source),
            timestamp=_cut(event.timestamp),
            component=_cut(event.component),
            group=_cut(event.group),
            class_=_cut(event.class_),
            custom_details={
                _cut(name, LIMITS.name): _fit(value) for name, value in islice(event.custom_details.items(), _DETAILS)
            },
        ),
        links=tuple(replace(link, text=_cut(link.text)) for link in alert.links if len(link.href) <= LIMITS.text),
        client=_cut(alert.client),
        client_url=alert.client_url if len(alert.client_url) <= LIMITS.text else "",
        raw=_fit(dict(alert.raw)),
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
    than bytes. So it leaps from quote to quote; looking at each text of each alert takes as long as parsing them.
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
    return len(details) > _DETAILS or max(map(len, details), default=0) > LIMITS.name


def _fit(value: Any) -> Any:
    match value:
        case str():
            return _cut(value)
        case dict():
            return {_cut(name): _fit(member) for name, member in islice(value.items(), _MEMBERS)}
        case list():
            return [_fit(item) for item in value[:_MEMBERS]]
        case _:
            return value


def _cut(text: str, limit: int = LIMITS.text) -> str:
    return text if len(text) <= limit else text[: limit - len(CUT_MARK)] + CUT_MARK


def _hashed(text: str) -> str:
    return f"sha256:{sha256(text.encode()).hexdigest()}"
