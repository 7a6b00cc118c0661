"""Many waiters, one round trip: what arrives while a call is under way goes together in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class Merge(Generic[In, Out]):
    """Merges concurrent `put`s into calls of `flush`: at most `most` items in each, `calls` under way at once.

    One script call for 64 waiting alerts costs an eighth of 64 single ones, and one fsync. `flush` gets the items
    in the order they were put and returns one result for each.
    """

    def __init__(self, flush: Callable[[Sequence[In]], Awaitable[Sequence[Out]]], *, most: int, calls: int) -> None:
        self._flush = flush
        self._most = most
        self._calls = calls
        self._waiting: deque[tuple[In, asyncio.Future[Out]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def put(self, items: Sequence[In]) -> list[Out]:
        """Flush `items` together with whatever else waits. Raises what `flush` raised for any of them."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        if self._waiting and len(self._running) < self._calls:
            task = asyncio.create_task(self._drain())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        results = await asyncio.gather(*futures, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    async def _drain(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            try:
                results = await self._flush([item for item, _ in batch])
            except BaseException as error:
                # handed to every waiter, which decides; nobody may wait for ever
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
