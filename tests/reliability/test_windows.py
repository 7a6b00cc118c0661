"""Windows and suspends end when they say: what still fires then pages, whatever the zone does to its clocks."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from alertrouter.rules.condition import Condition, compile_condition
from alertrouter.rules.moment import Moment
from alertrouter.rules.times import DAYS
from tests.reliability.conftest import Figure

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = 2020, 2036
_HOUR = 3600 * 1000


def transitions(zone: ZoneInfo) -> list[int]:
    """When the zone's clocks are set in these years, in ms since the epoch, to the second."""
    found = []
    at = datetime(_FIRST, 1, 1, tzinfo=UTC)
    offset = at.astimezone(zone).utcoffset()
    while at.year < _LAST:
        later = at + timedelta(days=7)
        if later.astimezone(zone).utcoffset() != offset:
            low, high = at, later
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) / 2
                low, high = (middle, high) if middle.astimezone(zone).utcoffset() == offset else (low, middle)
            found.append(round((high - _EPOCH).total_seconds()) * 1000)
            offset = later.astimezone(zone).utcoffset()
        at = later
    return found


def first_otherwise(condition: Condition, holds: bool, now: int, last: int) -> int:
    """The first time it answers otherwise, looked at on each minute and a second after: an end is still inside."""
    for minute in range(now // 60_000 * 60_000, last, 60_000):
        for later in (minute, minute + 1000):
            if later > now and condition.holds({}, Moment(later)) != holds:
                return later
    return 0


def test_a_window_ends_when_it_says_at_every_transition_of_every_zone(figure: Figure, long: bool) -> None:
    """`until`, at which what a window kept back is judged again, against looking at the window twice a minute.

    Each window ends within the three hours before or after the transition. Quick: three transitions of each zone.
    """
    chance = random.Random(20)
    worst = checked = 0
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        moments = transitions(zone)
        for transition in moments if long else chance.sample(moments, min(3, len(moments))):
            end = _EPOCH + timedelta(milliseconds=transition + chance.randint(-3 * 60, 3 * 60) * 60_000)
            wall = end.astimezone(zone)
            start = (wall.replace(tzinfo=None) - timedelta(hours=4)).time()
            days = ",".join(DAYS)
            condition = compile_condition(f"now in {days} {start:%H:%M:%S} to {wall:%H:%M:%S} {name}")
            now = transition - 7 * _HOUR
            while now < transition + 7 * _HOUR:
                moment = Moment(now)
                holds = condition.holds({}, moment)
                change = first_otherwise(condition, holds, now, transition + 8 * _HOUR)
                if not change:
                    break
                worst = max(worst, moment.until - change)
                assert change - 60_000 < moment.until <= change, f"{condition.text} at {now}"
                assert condition.holds({}, Moment(moment.until)) != holds
                assert condition.holds({}, Moment(moment.until - 1)) == holds
                checked += 1
                now = moment.until
    late = max(worst, 0) / 1000
    figure(
        "G20",
        f"s after its end that a window is judged again, {checked:,} ends at zone transitions",
        "<= 60",
        late,
        late <= 60,
    )
