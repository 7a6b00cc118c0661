"""The entries of the history, as they are in Redis' stream and as they are in files and answers. Pure.

One line of a file is one entry as JSON, told apart by `kind`. Times are ms since the epoch. `entry` is where the entry
stands in the stream, "<ms by Redis' clock>-<number>"; "" where it came from none. No entry holds a routing key: the
destination is its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from alertrouter.record import Outcome


class Happened(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="kind", kw_only=True):
    """What all entries have. at: when it happened.  id: of the alert's record."""

    at: int
    id: str
    entry: str = ""


class Heard(Happened, frozen=True, gc=False, omit_defaults=True, tag="heard"):
    """News of an alert, or a stale resolve. `alert` is all of it, as JSON; `news` why it was no duplicate."""

    alert: msgspec.Raw
    news: str = ""
    version: int = 0
    outcome: str = ""
    reason: str = ""


class Duplicate(Happened, frozen=True, gc=False, omit_defaults=True, tag="duplicate"):
    """The alert was heard again, unchanged."""

    status: str


class Ended(Happened, frozen=True, gc=False, omit_defaults=True, tag="ended"):
    """What the rules made of an alert, where that is not what they made of it before."""

    outcome: str
    version: int = 0
    rule: str = ""
    reason: str = ""
    service: str = ""


class Sent(Happened, frozen=True, gc=False, omit_defaults=True, tag="sent"):
    """One call to a destination and what came back, in `result` and in the destination's own words in `reason`.

    state:     what the destination believes since, where it took the event.
    outcome:   how the alert ended by this, where it did.
    rerouted:  sent by the fallback's key, because the destination's own was refused.
    """

    destination: str
    result: str
    version: int = 0
    state: str = ""
    outcome: str = ""
    rule: str = ""
    reason: str = ""
    service: str = ""
    rerouted: bool = False


class Differed(Happened, frozen=True, gc=False, omit_defaults=True, tag="shadow"):
    """Where the shadow rules decided otherwise: per field what the live rules say and what the shadow rules say."""

    differences: dict[str, tuple[str, str]]
    version: int = 0
    service: str = ""
    rule: str = ""
    shadow_rule: str = ""
    shadow_version: str = ""


class LetterMoved(Happened, frozen=True, gc=False, omit_defaults=True, tag="letter"):
    """What became of a dead letter: `result` is redriven, dropped, or spilled (moved to a file)."""

    result: str
    destination: str = ""
    version: int = 0
    reason: str = ""


class SilenceAdded(Happened, frozen=True, gc=False, omit_defaults=True, tag="silence_added"):
    """Somebody on call put a silence into force: who, why, to when, and for what. `id` is silence:<its id>."""

    owner: str
    reason: str
    ends_at: int
    when: str = ""
    of_alert: str = ""


class SilenceEnded(Happened, frozen=True, gc=False, omit_defaults=True, tag="silence_ended"):
    """A silence is over: `by` ended it, or nobody did and its time was over."""

    owner: str
    by: str = ""
    when: str = ""
    of_alert: str = ""


Entry = Heard | Duplicate | Ended | Sent | Differed | LetterMoved | SilenceAdded | SilenceEnded

#: The values of `kind`.
KINDS = ("heard", "duplicate", "ended", "sent", "shadow", "letter", "silence_added", "silence_ended")
#: The shape of each kind but the duplicates', by the fields of the stream.
_SHAPES: Mapping[str, type[Heard | Ended | Sent | Differed | LetterMoved | SilenceAdded | SilenceEnded]] = {
    "heard": Heard,
    "ended": Ended,
    "sent": Sent,
    "shadow": Differed,
    "letter": LetterMoved,
    "silence_added": SilenceAdded,
    "silence_ended": SilenceEnded,
}
#: Fields of the stream that hold JSON.
_NESTED = frozenset({"alert", "differences"})

encode = msgspec.json.encode


def entries_of(entry: str, fields: Mapping[str, str]) -> Iterator[Entry]:
    """What one entry of the stream says; nothing where it cannot be read: a later version may have written it."""
    kind = fields.get("kind", "")
    try:
        if kind == "duplicate":
            for word in msgspec.json.decode(fields["heard"], type=list[str]):
                status, _, id_ = word.partition(" ")
                yield Duplicate(at=int(fields["at"]), id=id_, status=status, entry=entry)
        elif shape := _SHAPES.get(kind):
            values: dict[str, Any] = {name: value for name, value in fields.items() if name not in _NESTED}
            for name in _NESTED & fields.keys():
                values[name] = (
                    msgspec.Raw(fields[name].encode()) if name == "alert" else msgspec.json.decode(fields[name])
                )
            yield msgspec.convert(values | {"entry": entry}, shape, strict=False)
    except (KeyError, ValueError, RecursionError, msgspec.MsgspecError):
        return


def kind_of(entry: Happened) -> str:
    """The entry's `kind`."""
    return str(entry.__struct_config__.tag)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are wanted; "" or 0 for all. `ends_only`: those that say how an alert ended.

    since, until:     by when it happened (ms); `until` is no part of it.
    service, outcome: only what was judged has them.
    source:           a sender with all its names, or one sender/name.
    alert:            the alert's id; silences of that alert go with it.
    """

    since: int = 0
    until: int = 0
    service: str = ""
    source: str = ""
    outcome: str = ""
    alert: str = ""
    kinds: frozenset[str] = frozenset()
    ends_only: bool = False

    def takes(self, entry: Happened) -> bool:
        """Whether the entry is wanted."""
        outcome = getattr(entry, "outcome", "")
        return (
            (not self.since or entry.at >= self.since)
            and (not self.until or entry.at < self.until)
            and (not self.service or getattr(entry, "service", "") == self.service)
            and (not self.outcome or outcome == self.outcome)
            and (not self.alert or self.alert in (entry.id, getattr(entry, "of_alert", "")))
            and (not self.source or entry.id.startswith((f"{self.source}:", f"{self.source}/")))
            and (not self.kinds or kind_of(entry) in self.kinds)
            and (not self.ends_only or outcome not in ("", Outcome.PENDING))
        )
