"""When to try again. Pure: the random number is an argument."""

from __future__ import annotations

#: Ceiling of the first delay; each further failed try doubles it.
FIRST_MS = 1_000
#: Ceiling of every delay. An hour of outage then costs about 120 tries per alert, and recovery shows within a minute.
LONGEST_MS = 60_000
#: Full jitter may draw nothing at all; this keeps a failing alert from becoming a busy loop.
SHORTEST_MS = 100
#: How far a `Retry-After` is believed. Beyond it, trying is cheaper than a page that waits on a proxy's mistake.
RETRY_AFTER_LIMIT_MS = 600_000

#: A `Retry-After: 0` is no leave to hammer at it.
SHORTEST_PAUSE_MS = 1_000


def pause_ms(retry_after_ms: int | None) -> int:
    """How long a throttled routing key is left alone, in ms: as long as it asks for, within a second and ten minutes."""
    return min(max(retry_after_ms or 0, SHORTEST_PAUSE_MS), RETRY_AFTER_LIMIT_MS)


def delay_ms(attempt: int, retry_after_ms: int | None, rnd: float) -> int:
    """How long to wait, in ms, before the next try.

    attempt:         how many tries have failed so far, from 1.
    retry_after_ms:  what the destination asked for; a floor, honoured up to ten minutes. None where it said nothing.
    rnd:             a random number in [0, 1).

    Exponential with full jitter (anywhere between nothing and the ceiling), so that alerts which failed together do
    not come back together: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    doublings = min(max(attempt, 1) - 1, LONGEST_MS.bit_length())
    ceiling = min(FIRST_MS << doublings, LONGEST_MS)
    floor = min(retry_after_ms or 0, RETRY_AFTER_LIMIT_MS)
    return max(int(ceiling * rnd), floor, SHORTEST_MS)
