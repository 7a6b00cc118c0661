"""Instants, weekly schedules and time zones, as conditions write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

#: Seconds in each unit of a duration.
UNITS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}

_DAY_MS = UNITS["day"] * 1000
#: No zone sets its clocks twice within this time.
_STEP_MS = 3 * UNITS["hour"] * 1000
#: A weekly window may fall into an hour that is skipped, but not twice in a row.
_DAYS_AHEAD = 16

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadTime(ValueError):
    """A date, schedule, duration or zone that cannot be read; the text says what to write."""


@dataclass(frozen=True, slots=True, order=True)
class Instant:
    """A moment, in ms since the epoch. A type of its own, so that it compares with no number."""

    ms: int

    def __str__(self) -> str:
        return f"{(_EPOCH + timedelta(milliseconds=self.ms)):%Y-%m-%d %H:%M:%S} Etc/UTC"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A weekly window by wall clock. It starts on `days`; an end not after the start lies on the next day."""

    days: frozenset[int]  # 0 is Monday
    start: time
    end: time
    zone: tzinfo

    def holds(self, now: int) -> bool:
        """Whether the window is open at `now` (ms since the epoch). Whole seconds; the end is still inside."""
        wall = (_EPOCH + timedelta(milliseconds=now)).astimezone(self.zone)
        clock = wall.time().replace(microsecond=0)
        today = wall.weekday() in self.days
        if self.start < self.end:
            return today and self.start <= clock <= self.end
        yesterday = (wall.weekday() - 1) % 7 in self.days
        return (today and clock >= self.start) or (yesterday and clock <= self.end)

    def next_change(self, now: int) -> int:
        """The first ms after `now` at which `holds` gives another answer; 0 where that never happens."""
        today = now // _DAY_MS
        for day in range(today, today + _DAYS_AHEAD):
            for change in _changes_on(self, day):
                if change > now:
                    return change
        return 0


@lru_cache(maxsize=4096)
def _changes_on(schedule: Schedule, day: int) -> tuple[int, ...]:
    """Each ms of a day (counted from the epoch, in UTC) at which the schedule opens or closes."""
    start = day * _DAY_MS
    shifts = _shifts(schedule.zone, start)
    # By a clock on the wall it opens or closes at its start, after its end, and when the clock is set.
    edges = {shift for shift, _ in shifts}
    for offset in {offset for _, offset in shifts}:
        for second in (_second_of(schedule.start), _second_of(schedule.end) + 1):
            edges.add(start + (second * 1000 - offset) % _DAY_MS)
    return tuple(sorted(ms for ms in edges if schedule.holds(ms) is not schedule.holds(ms - 1)))


def _shifts(zone: tzinfo, start: int) -> list[tuple[int, int]]:
    """From when on, in the day from `start` on, the zone is how many ms ahead of UTC."""
    shifts = [(start, _offset(zone, start))]
    for end in range(start + _STEP_MS, start + _DAY_MS + 1, _STEP_MS):
        after = _offset(zone, end)
        if after == shifts[-1][1]:
            continue
        first, last = end - _STEP_MS, end  # the clock is set in (first, last]
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (first, middle) if _offset(zone, middle) == after else (middle, last)
        shifts.append((last, after))
    return shifts


def _offset(zone: tzinfo, ms: int) -> int:
    ahead = (_EPOCH + timedelta(milliseconds=ms)).astimezone(zone).utcoffset()
    return round((ahead or timedelta()) / timedelta(milliseconds=1))


def _second_of(clock: time) -> int:
    return (clock.hour * 60 + clock.minute) * 60 + clock.second


def read_schedule(text: str) -> Schedule:
    """`Mon,Wed 22:00:00 to 06:00:00 Europe/London`. Raises BadTime."""
    days, start, to, end, *zone = text.split()
    if to != "to" or len(zone) != 1:
        raise BadTime(
            f"a schedule ends in its time zone, with no blanks around commas: now in {days} 09:00:00 to 17:00:00 Etc/UTC"
        )
    names = days.split(",")
    for name in names:
        if name not in DAYS:
            raise BadTime(f"`{name}` is no day; days are {', '.join(DAYS)}")
    return Schedule(
        days=frozenset(DAYS.index(name) for name in names),
        start=_clock(start),
        end=_clock(end),
        zone=time_zone(zone[0]),
    )


def read_datetime(text: str) -> Instant:
    """`2026-01-01 00:00:00 Etc/UTC`. A wall time that occurs twice is the earlier one. Raises BadTime."""
    day, rest = text[:10], text[10:].split()
    if len(rest) != 2 or text[10] == "T":
        raise BadTime(f"a date is written with its time and time zone: {day} 00:00:00 Etc/UTC")
    clock, zone = _clock(rest[0]), time_zone(rest[1])
    try:
        wall = datetime.combine(date.fromisoformat(day), clock, zone)
    except ValueError as error:
        raise BadTime(f"`{day}` is no date: {error}") from None
    return Instant(round((wall - _EPOCH).total_seconds() * 1000))


def read_duration(text: str) -> int:
    """`1 hour 30 minutes`, in seconds. Raises BadTime."""
    seconds: dict[str, int] = {}
    for amount, word in re.findall(r"([0-9]+)\s*([A-Za-z]+)", text):
        unit = word.removesuffix("s")
        if unit not in UNITS:
            raise BadTime(
                f"`{word}` is no unit of time; units are day, hour, minute and second, as in `over 5 minutes`"
            )
        if unit in seconds:
            raise BadTime(f"`{unit}` is given twice")
        if int(amount) == 0:
            raise BadTime(f"`{amount} {word}` is no time at all; start at 1")
        seconds[unit] = int(amount) * UNITS[unit]
    return sum(seconds.values())


def time_zone(name: str) -> tzinfo:
    """The zone of that name in the tz database, in any casing. Raises BadTime."""
    known = _zone_names().get(name.casefold())
    if known is None:
        raise BadTime(f"`{name}` is no time zone; write a name of the tz database such as Etc/UTC or Europe/London")
    return ZoneInfo(known)


@lru_cache(maxsize=1)
def _zone_names() -> dict[str, str]:
    return {name.casefold(): name for name in available_timezones()}


def _clock(text: str) -> time:
    match = re.fullmatch(r"([0-9]{2}):([0-9]{2}):([0-9]{2})", text)
    if match is None:
        raise BadTime(f"`{text}` is no time of day; write it as 09:00:00")
    hour, minute, second = map(int, match.groups())
    try:
        return time(hour, minute, second)
    except ValueError:
        raise BadTime(f"`{text}` is no time of day; the day has 00:00:00 to 23:59:59") from None
