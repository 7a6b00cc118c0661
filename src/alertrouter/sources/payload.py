"""What a parser makes of one webhook. Pure data, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from alertrouter.alert import Alert
from alertrouter.sources.body import header


@dataclass(frozen=True, slots=True)
class Skipped:
    """One entry of a batch that no alert could be made of. `position` counts from 0."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class ParsedPayload:
    """The alerts of one payload, in its order, and what became of the rest of it.

    skipped:    entries too broken to be alerts. All skipped and none kept: the sender should hear a 400.
    ignored:    why well-formed messages are no alerts and must not page: a test message, an unknown transition.
    truncated:  how many alerts the sender says it cut off before sending.
    notes:      what had to be replaced to read the body; each alert carries these notes too.
    """

    alerts: tuple[Alert, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    ignored: tuple[str, ...] = ()
    truncated: int = 0
    notes: tuple[str, ...] = ()


#: What parsers read besides the Content-Type, by the beginnings of the names.
_READ_HEADERS = ("ce-", "sentry-hook-resource", "x-amz-sns-")
_MOST_HEADERS = 50
_LONGEST_HEADER = 1000


def read_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without which a body cannot be parsed again, by lower-case name; fit to be kept, and bounded."""
    names = [name for name in headers if name.lower().startswith(_READ_HEADERS)][:_MOST_HEADERS]
    return {name.lower(): header(headers, name)[:_LONGEST_HEADER] for name in names}


#: parse(body, headers, source) for one sender; of the headers it takes what it needs, by lower-case name. `source` becomes `Alert.source`: the sender, and its name where it
#: has one ("alertmanager/team-a"). Total: any bytes give a ParsedPayload or raise BadPayload, never anything else.
Parser: TypeAlias = Callable[[bytes, Mapping[str, str], str], ParsedPayload]
