"""When a failed send is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alertrouter.delivery.backoff import delay_ms, pause_ms

JUST_UNDER_ONE = 1 - 2**-53


@pytest.mark.parametrize(
    ("attempt", "ceiling"),
    [(1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000), (6, 32_000), (7, 60_000), (8, 60_000), (10**9, 60_000)],
)
def test_the_ceiling_doubles_up_to_a_minute(attempt: int, ceiling: int) -> None:
    assert delay_ms(attempt, None, 0.5) == ceiling // 2
    assert delay_ms(attempt, None, JUST_UNDER_ONE) == ceiling - 1


def test_even_no_jitter_at_all_is_no_busy_loop() -> None:
    assert delay_ms(1, None, 0.0) == 100
    assert delay_ms(1, 0, 0.0) == 100


@pytest.mark.parametrize(
    ("retry_after_ms", "expected"),
    [(500, 1_000), (30_000, 30_000), (600_000, 600_000), (600_001, 600_000), (10**12, 600_000)],
)
def test_retry_after_is_a_floor_up_to_ten_minutes(retry_after_ms: int, expected: int) -> None:
    assert delay_ms(2, retry_after_ms, 0.5) == expected


@given(st.integers(1, 10**6), st.none() | st.integers(0, 10**12), st.floats(0, 1, exclude_max=True))
def test_no_delay_leaves_its_bounds(attempt: int, retry_after_ms: int | None, rnd: float) -> None:
    delay = delay_ms(attempt, retry_after_ms, rnd)
    assert 100 <= delay <= 600_000
    assert delay >= min(retry_after_ms or 0, 600_000)


@pytest.mark.parametrize(
    ("asked", "pause"),
    [(None, 1_000), (0, 1_000), (999, 1_000), (30_000, 30_000), (600_000, 600_000), (10**9, 600_000)],
)
def test_a_throttled_key_is_left_alone_within_bounds(asked: int | None, pause: int) -> None:
    assert pause_ms(asked) == pause
