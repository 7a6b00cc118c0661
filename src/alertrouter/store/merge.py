"""Many waiters, one round trip: what arrives while a call is under way goes together in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

#: Under load, how long a call waits for company: a round trip costs as much as dozens of items in it.
_GATHER_S = 0.002

In = TypeVar("In")
Out = TypeVar("Out")


class _Ticket(Generic[Out]):
    """The results of one `put`, as they come in."""

    __slots__ = ("done", "missing", "results")

    def __init__(self, size: int) -> None:
        self.results: list[Out | None] = [None] * size
        self.missing = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fill(self, position: int, result: Out) -> None:
        self.results[position] = result
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Merge(Generic[In, Out]):
    """Merges concurrent `put`s into calls of `flush`, one at a time, with at most `most` items in each.

    One script call for 64 waiting alerts costs an eighth of 64 single ones, and one fsync. `flush` gets the items
    in the order they were put and returns one result for each.
    """

    def __init__(self, flush: Callable[[Sequence[In]], Awaitable[Sequence[Out]]], *, most: int) -> None:
        self._flush = flush
        self._most = most
        self._waiting: deque[tuple[In, _Ticket[Out], int]] = deque()
        self._draining: asyncio.Task[None] | None = None

    async def put(self, items: Sequence[In]) -> list[Out]:
        """Flush `items` together with whatever else waits. Raises what `flush` raised for any of them."""
        if not items:
            return []
        ticket: _Ticket[Out] = _Ticket(len(items))
        self._waiting.extend((item, ticket, position) for position, item in enumerate(items))
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        await ticket.done
        return ticket.results  # type: ignore[return-value]  # all are filled once it is done

    async def _drain(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            try:
                results = await self._flush([item for item, _, _ in batch])
            except BaseException as error:
                # handed to everyone who waits, who decide: whoever came later would only wait for the same
                for _, ticket, _ in (*batch, *self._waiting):
                    ticket.fail(error)
                self._waiting.clear()
                if not isinstance(error, Exception):
                    raise
            else:
                for (_, ticket, position), result in zip(batch, results, strict=True):
                    ticket.fill(position, result)
            if 0 < len(self._waiting) < self._most:
                await asyncio.sleep(_GATHER_S)
