"""Redis' time without asking Redis: replicas agree on what "now" is, and a jump of our wall clock moves nothing."""

from __future__ import annotations

import time

from alertrouter.store.store import AlertStore


class RedisClock:
    """The monotonic clock plus the offset to Redis' TIME, in ms since the epoch.

    skew_ms: how far this machine's wall clock was from Redis' when it was last measured.
    """

    def __init__(self) -> None:
        self.skew_ms = 0
        self._offset = time.time_ns() // 1_000_000 - _monotonic_ms()

    def __call__(self) -> int:
        return _monotonic_ms() + self._offset

    async def measure(self, store: AlertStore) -> int:
        """Measure the offset anew; returns how far this machine's wall clock is from Redis', in ms."""
        before = _monotonic_ms()
        redis_time = await store.time()
        after = _monotonic_ms()
        self._offset = redis_time - (before + after) // 2
        self.skew_ms = time.time_ns() // 1_000_000 - self()
        return self.skew_ms


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
