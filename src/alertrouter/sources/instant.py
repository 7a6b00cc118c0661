"""Senders' times, read. What cannot be read, and what lies before 1970 (Go's zero time is year 1), is unknown."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple


class Instant(NamedTuple):
    """One moment. `text` is RFC 3339 in UTC, the same for every spelling of the moment; `ms` counts from the epoch."""

    text: str
    ms: int


UNKNOWN = Instant("", 0)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LAST_MS = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _MILLISECOND

_CANONICAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.(\d+))?)?(?:Z|[+-]\d\d(?::?\d\d)?)", re.ASCII)
#: Longer than any time with nanoseconds and zone.
_LENGTH_LIMIT = 64

_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,9})?", re.ASCII)


def read_rfc3339(text: str) -> Instant:
    """A date and time with its zone. The canonical text keeps nanoseconds; `ms` is cut, not rounded."""
    return _read_rfc3339(text) if len(text) <= _LENGTH_LIMIT else UNKNOWN


@lru_cache(maxsize=4096)  # copies, repeats and the members of a group carry the same times
def _read_rfc3339(text: str) -> Instant:
    is_canonical = _CANONICAL.fullmatch(text)
    match = is_canonical or _RFC3339.fullmatch(text)
    if match is None:
        return UNKNOWN
    try:
        moment = datetime.fromisoformat(text)
        ms = (moment - _EPOCH) // _MILLISECOND
        if not 0 < ms <= _LAST_MS:
            return UNKNOWN
        if is_canonical:
            return Instant(text, ms)
        seconds = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return UNKNOWN
    fraction = (match[1] or "")[:9].rstrip("0")
    return Instant(f"{seconds}.{fraction}Z" if fraction else f"{seconds}Z", ms)


def read_epoch(text: str) -> Instant:
    """A count of milliseconds or seconds since 1970: below 10^11 (the year 5138 in seconds) it means seconds."""
    if _NUMBER.fullmatch(text) is None:
        return UNKNOWN
    number = float(text)
    ms = number if number >= 1e11 else number * 1000
    if not 1 <= ms <= _LAST_MS:
        return UNKNOWN
    whole = int(ms)
    seconds = (_EPOCH + timedelta(milliseconds=whole)).strftime("%Y-%m-%dT%H:%M:%S")
    return Instant(f"{seconds}.{whole % 1000:03}Z" if whole % 1000 else f"{seconds}Z", whole)
