"""Merge: one call for all that wait, in order, and an answer for everyone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from alertrouter.store.merge import Merge


class Flush:
    """Doubles numbers, and only when told to; refuses a batch with a negative one."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        await self.gate.wait()
        if min(batch) < 0:
            raise ConnectionError("no")
        return [2 * item for item in batch]


async def test_what_arrives_during_a_call_goes_together_in_the_next() -> None:
    flush = Flush()
    merge = Merge(flush, most=100)
    first = asyncio.create_task(merge.put([1, 2]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(merge.put([n])) for n in (3, 4, 5)]
    await asyncio.sleep(0)
    flush.gate.set()
    assert await first == [2, 4]
    assert [await task for task in later] == [[6], [8], [10]]
    assert flush.batches == [[1, 2], [3, 4, 5]]


async def test_a_large_put_is_split_and_answered_whole() -> None:
    flush = Flush()
    flush.gate.set()
    assert await Merge(flush, most=4).put(range(10)) == list(range(0, 20, 2))
    assert max(map(len, flush.batches)) == 4


async def test_nothing_is_put_at_once() -> None:
    assert await Merge(Flush(), most=1).put([]) == []


async def test_a_failure_is_everybodys_who_waits_and_nobodys_who_comes_later() -> None:
    """Each batch of a hung Redis takes its whole time-out: those behind it would be answered far too late."""
    flush = Flush()
    flush.gate.set()
    merge = Merge(flush, most=2)
    outcomes = await asyncio.gather(*(merge.put([n]) for n in (1, -1, 3, 4, 5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionError] * 5
    assert len(flush.batches) == 1
    assert await merge.put([6]) == [12]


async def test_a_waiter_that_goes_away_does_not_harm_the_others() -> None:
    flush = Flush()
    merge = Merge(flush, most=100)
    gone, stays = asyncio.create_task(merge.put([1])), asyncio.create_task(merge.put([2]))
    await asyncio.sleep(0)
    gone.cancel()
    flush.gate.set()
    assert await stays == [4]
    with pytest.raises(asyncio.CancelledError):
        await gone
