"""What a parser makes of one webhook. Pure data, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from alertrouter.alert import Alert


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


#: parse(body, headers, source) for one sender; of the headers it takes what it needs, by lower-case name. `source` becomes `Alert.source`: the sender, and its name where it
#: has one ("alertmanager/team-a"). Total: any bytes give a ParsedPayload or raise BadPayload, never anything else.
Parser: TypeAlias = Callable[[bytes, Mapping[str, str], str], ParsedPayload]
