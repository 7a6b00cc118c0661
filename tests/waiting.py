"""Waiting for a condition, never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 10.0) -> None:
    """Return as soon as `condition` holds. TimeoutError if it does not in time."""
    async with asyncio.timeout(within_s):
        while True:  # another process, or Redis, changes what we look at
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.01)
