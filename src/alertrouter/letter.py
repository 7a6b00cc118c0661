"""A dead letter: what was given up, why, and what is needed to put it back. Pure data, no I/O.

All times are milliseconds since the epoch. No letter holds a routing key.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, cast

import msgspec

from alertrouter.alert import Alert

#: Larger parts are left out of a letter: 5,000 of them are to fit into 64 MiB as a rule.
LARGEST_ALERT = 32_768
LARGEST_EVENT = 32_768
#: A body that is larger is cut, and then cannot be parsed again. Alertmanager's groups of 40 alerts take some 60 kB.
LARGEST_BODY = 131_072

_NUMBER = re.compile(r"[0-9a-z]{1,11}", re.ASCII)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


#: In the place of what is too large to keep; such members are left out.
NOT_KEPT = msgspec.Raw(b"null")


class Kind(StrEnum):
    """What was given up."""

    REFUSED = "refused"  # a destination will never take the event
    POISONED = "poisoned"  # every worker that took the alert up ended
    UNREADABLE = "unreadable"  # the record cannot be read by this program
    BODY = "body"  # a sender's body that no alert could be made of


class Standing(StrEnum):
    """What has become since of that which a letter is about."""

    STANDS = "stands"  # nothing: redriving it tells what was never told
    RESOLVED = "resolved"  # the alert is over
    GONE = "gone"  # there is no record of it any more
    NEWER = "newer"  # newer news was heard, told or refused


class Letter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One dead letter.

    id:           of the alert's record; "" for a body.
    reason:       the destination's own words, or ours.
    before:       what it said to the event in the form before.
    version:      the heard version that was refused.
    first_heard:  of the record.
    status:       the HTTP status it was refused with, or that the sender got; 0 for none.
    attempts:     calls made for it, the last one included.
    event:        as it was refused, its routing key blanked out; NOT_KEPT where it is too large to keep.
    alert:        as it was heard; NOT_KEPT where it is too large to keep.
    body:         of a sender, as text, or in base64 where it is none; `size` in bytes before anything was cut.
    headers:      that came with it and are needed to read it, besides its Content-Type.
    """

    reason: str
    kind: str = Kind.REFUSED.value
    at: int = 0
    id: str = ""
    source: str = ""
    service: str = ""
    severity: str = ""
    summary: str = ""
    destination: str = ""
    action: str = ""
    dedup_key: str = ""
    version: int = 0
    first_heard: int = 0
    status: int = 0
    objection: str = ""
    before: str = ""
    attempts: int = 0
    event: msgspec.Raw = NOT_KEPT
    alert: msgspec.Raw = NOT_KEPT
    body: str = ""
    base64: bool = False
    content_type: str = ""
    size: int = 0
    headers: Mapping[str, str] = {}

    def original_body(self) -> bytes | None:
        """The body as it came, or None where it is not whole any more."""
        body = b64decode(self.body) if self.base64 else self.body.encode("utf-8", "surrogatepass")
        return body if len(body) == self.size else None

    def heard_alert(self) -> Alert | None:
        """The alert as it was heard, or None where that was not kept or cannot be read."""
        try:
            return msgspec.json.decode(self.alert, type=Alert)
        except (msgspec.MsgspecError, RecursionError):
            return None


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Letter).decode
_encode_alert = msgspec.json.Encoder().encode


def read(letter: bytes) -> Letter:
    """A letter as it is in Redis. One that cannot be read is its own reason: it is never passed over."""
    try:
        return _decode(letter)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Letter(reason=letter[:500].decode(errors="replace"), kind="", size=len(letter))


def kept_alert(alert: Alert) -> msgspec.Raw:
    """The alert as a letter keeps it: without the body it came in if that is too much, or not at all."""
    for each in (alert, msgspec.structs.replace(alert, raw={})):
        encoded = _encode_alert(each)
        if len(encoded) <= LARGEST_ALERT:
            return msgspec.Raw(encoded)
    return NOT_KEPT


def of_body(
    source: str,
    body: bytes,
    content_type: str,
    status: int,
    reason: str,
    now: int,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Letter:
    """The letter about a body of `source` that was answered with `status`. `headers`: those its parser reads as well."""
    kept = body[:LARGEST_BODY]
    text, is_base64 = _as_text(kept)
    return Letter(
        kind=Kind.BODY.value,
        at=now,
        source=source,
        status=status,
        reason=reason,
        summary=f"a body of {source} that cannot be understood",
        body=text,
        base64=is_base64,
        content_type=content_type[:200],
        size=len(body),
        headers=dict(headers),
    )


def _as_text(body: bytes) -> tuple[str, bool]:
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return b64encode(body).decode(), True


def name_of(number: int) -> str:
    """What people call the letter with that number: eight digits and letters."""
    name = ""
    while number:
        number, digit = divmod(number, 36)
        name = _DIGITS[digit] + name
    return name or "0"


def number_of(name: str) -> int | None:
    """The number behind such a name; None where it is none."""
    return int(name, 36) if _NUMBER.fullmatch(name) else None


@dataclass(frozen=True, slots=True)
class Found:
    """A letter in its place. about: the field of Redis' hash it is kept under."""

    number: int
    about: bytes
    letter: Letter
    standing: str

    def as_json(self, *, whole: bool) -> dict[str, Any]:
        """As plain data, named as in the API. What was refused is in it only if `whole`."""
        letter = self.letter
        shown = letter if whole else msgspec.structs.replace(letter, event=NOT_KEPT, alert=NOT_KEPT, body="")
        plain = cast(dict[str, Any], msgspec.json.decode(encode(shown)))
        always = {"kind": letter.kind, "id": letter.id, "source": letter.source, "service": letter.service}
        return {"letter": name_of(self.number), "standing": self.standing, **always, **plain}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are wanted; "" or 0 for all.

    source:  a sender with all its names, or one sender/name.
    reason:  a part of the reason, in any case of letters, or what was objected to: size, key, content.
    alert:   the alert's id, or its dedup_key.
    since:   written then or later (ms).
    """

    service: str = ""
    destination: str = ""
    source: str = ""
    reason: str = ""
    standing: str = ""
    alert: str = ""
    since: int = 0

    def takes(self, found: Found) -> bool:
        """Whether the letter is wanted."""
        letter = found.letter
        return (
            (not self.service or letter.service == self.service)
            and (not self.destination or letter.destination == self.destination)
            and (not self.source or letter.source == self.source or letter.source.startswith(f"{self.source}/"))
            and (not self.standing or found.standing == self.standing)
            and (not self.alert or self.alert in (letter.id, letter.dedup_key))
            and (
                not self.reason or self.reason.casefold() in letter.reason.casefold() or self.reason == letter.objection
            )
            and (not self.since or letter.at >= self.since)
        )


#: The filters that are texts, by the names they have everywhere.
TEXT_FILTERS = ("service", "destination", "source", "reason", "standing", "alert")


def filter_of(texts: Mapping[str, str], since: int) -> Filter:
    """The filter of a query or of options. Raises ValueError with what to write instead."""
    standing = texts.get("standing", "")
    if standing and standing not in set(Standing):
        raise ValueError(f"standing is one of {', '.join(Standing)}")
    return Filter(**{name: texts.get(name, "") for name in TEXT_FILTERS}, since=since)
