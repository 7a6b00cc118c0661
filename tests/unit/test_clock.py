"""One time for all replicas: what is agreed on, whoever sets his clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alertrouter.store.clock import SLEW, TOLERANCE_MS, Agreement, agree
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND

DAY = 24 * HOUR
BEAT = 2 * SECOND
#: What was put down at the last beat.
KNOWN = Agreement(0, NIGHT)
THEN = NIGHT + BEAT


@pytest.mark.parametrize(
    ("redis_time", "mine", "now", "why"),
    [
        (THEN, THEN, THEN, "nobody set anything"),
        (THEN + 40, THEN, THEN + 40, "clocks that are steered differ by this much"),
        (THEN, None, THEN, "a new process takes what the others have"),
        (THEN + HOUR, THEN, THEN, "set forward: no timer is over for that"),
        (THEN + 30 * DAY, THEN, THEN, "by a month"),
        (THEN - HOUR, THEN, THEN, "set back: no timer waits for that"),
        (THEN - 30 * DAY, THEN, THEN, "by a month"),
        (
            THEN - HOUR,
            None,
            NIGHT,
            "set back before a process came that reckons nothing: never behind what was put down",
        ),
        (THEN + HOUR, None, THEN + HOUR, "nobody was there for an hour: that long everything has waited"),
        (NIGHT + 9 * SECOND, None, NIGHT + 9 * SECOND, "a restart within the life of a lease"),
        (THEN, THEN - HOUR, THEN, "stopped for an hour, while others went on"),
        (THEN + DAY, THEN - HOUR, THEN + DAY, "stopped, and set: those who were not stopped mend it"),
    ],
)
def test_what_time_it_is(redis_time: int, mine: int | None, now: int, why: str) -> None:
    found = agree(KNOWN, redis_time, mine)
    assert abs(found.at - now) <= BEAT // SLEW, why
    assert found.at == redis_time + found.ahead
    assert found.at >= KNOWN.at


def test_nothing_was_agreed_on_before() -> None:
    assert agree(Agreement(), NIGHT, None) == Agreement(0, NIGHT)
    assert Agreement.read("") == Agreement.read("rubbish") == Agreement()
    assert Agreement.read(str(Agreement(-5, NIGHT))) == Agreement(-5, NIGHT)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_it_comes_nearer_to_redis_clock_by_a_fiftieth(ahead: int) -> None:
    """And then stays with it."""
    known, redis_time = Agreement(ahead, NIGHT), NIGHT - ahead
    mine: int = NIGHT
    beats = 0
    while known.ahead:
        redis_time, mine = redis_time + BEAT, known.at + BEAT
        before, known = known, agree(known, redis_time, mine)
        assert abs(known.at - before.at - BEAT) <= BEAT // SLEW + 1
        beats += 1
    assert beats == pytest.approx(HOUR * SLEW / BEAT, rel=0.05)
    assert agree(known, redis_time + BEAT, known.at + BEAT) == Agreement(0, redis_time + BEAT)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # which replica beats
            st.sampled_from([0, 0, 0, SECOND // 2, MINUTE, -MINUTE, HOUR, -HOUR, DAY, -DAY]),  # how far Redis' is set
        ),
        max_size=60,
    )
)
def test_however_it_is_set_time_goes_on(beats: list[tuple[int, int]]) -> None:
    """Three replicas, whose beats come two seconds apart: for all of them time passes as on their own clocks."""
    known = Agreement(0, NIGHT)
    real = redis_time = NIGHT
    reckoned = [NIGHT] * 3  # what each took for the time at its last beat, and when that was
    at = [NIGHT] * 3
    drift = 0
    for who, jump in beats:
        real, redis_time = real + BEAT, redis_time + BEAT + jump
        new = agree(known, redis_time, reckoned[who] + real - at[who])
        assert new.at >= known.at, "it never goes back"
        drift += abs(jump) if abs(jump) <= TOLERANCE_MS else 0
        assert abs((new.at - NIGHT) - (real - NIGHT)) <= drift + (real - NIGHT) // SLEW + TOLERANCE_MS
        reckoned[who], at[who], known = new.at, real, new
