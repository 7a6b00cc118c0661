"""Two machines whose clocks differ by minutes, on one Redis whose own clock is set."""

from __future__ import annotations

import pytest

from alertrouter.store.clock import RedisClock
from alertrouter.store.store import AlertStore
from tests.alerts import HOUR, MINUTE, SECOND, make_alert
from tests.store.conftest import MakeStore

DAY = 24 * HOUR


class Machine:
    """One machine: its own idea of the time of day, and a monotonic clock that began at some other time."""

    def __init__(self, store: AlertStore, wall: int, up_for: int) -> None:
        self.store = store
        self.wall, self.up_for = wall, up_for
        self.redis_set_by = 0
        self.clock = RedisClock(lambda: self.up_for, lambda: self.wall)
        measured = store.time

        async def time() -> int:  # Redis' clock as somebody set it, and as much later as the machines are
            return self.began + self.passed + self.redis_set_by

        self.measured, self.began, self.passed = measured, 0, 0
        store.time = time  # type: ignore[method-assign]

    async def beat(self) -> bool:
        was_set = await self.clock.keep(self.store)
        await self.store.beat(self.clock())
        return was_set

    def pass_time(self, ms: int) -> None:
        self.up_for += ms
        self.wall += ms
        self.passed += ms


@pytest.fixture
async def machines(make_store: MakeStore) -> tuple[Machine, Machine]:
    """Five minutes fast and up for a month; four minutes slow and just started. Both have agreed."""
    now = await make_store().time()
    fast = Machine(make_store(owner="fast"), now + 5 * MINUTE, 30 * DAY)
    slow = Machine(make_store(owner="slow"), now - 4 * MINUTE, 3 * SECOND)
    for machine in (fast, slow):
        machine.began = now
        assert not await machine.beat()
    return fast, slow


def pass_time(machines: tuple[Machine, Machine], ms: int) -> None:
    for machine in machines:
        machine.pass_time(ms)


def set_redis(machines: tuple[Machine, Machine], by: int) -> None:
    for machine in machines:
        machine.redis_set_by += by


async def test_they_have_the_same_time_which_is_redis(machines: tuple[Machine, Machine]) -> None:
    fast, slow = machines
    assert fast.clock() == slow.clock() == await fast.store.time()
    assert (fast.clock.skew, slow.clock.skew) == (5 * MINUTE, -4 * MINUTE)
    assert abs(await fast.measured() - fast.clock()) < MINUTE, "Redis is really asked"


async def test_neither_takes_the_other_for_dead(machines: tuple[Machine, Machine]) -> None:
    """What the fast one has leased is not the slow one's, and the other way round, until it has not beaten for 10 s."""
    fast, slow = machines
    await slow.store.accept([make_alert("a")], slow.clock())
    await fast.store.accept([make_alert("b")], fast.clock())
    assert len((await slow.store.claim_due(slow.clock(), 1))[0]) == 1
    assert len((await fast.store.claim_due(fast.clock(), 1))[0]) == 1
    for _ in range(4):
        pass_time(machines, 2 * SECOND)
        await fast.beat()
        await slow.beat()
        assert (await fast.store.claim_due(fast.clock(), 10))[0] == []
        assert (await slow.store.claim_due(slow.clock(), 10))[0] == []
    for _ in range(5):
        pass_time(machines, 2 * SECOND)
        await slow.beat()
    assert len((await slow.store.claim_due(slow.clock(), 10))[0]) >= 1, "the fast one is gone"


@pytest.mark.parametrize("by", [-HOUR, -DAY, HOUR, DAY, 30 * DAY])
async def test_redis_clock_is_set_and_nothing_that_waits_notices(machines: tuple[Machine, Machine], by: int) -> None:
    fast, slow = machines
    await fast.store.accept([make_alert()], fast.clock())
    [record], _ = await fast.store.claim_due(fast.clock(), 10)
    before = fast.clock()
    set_redis(machines, by)
    pass_time(machines, 2 * SECOND)
    assert await fast.beat()
    assert await slow.beat(), "and judges windows again as well"
    assert fast.clock() == slow.clock() == pytest.approx(before + 2 * SECOND, abs=100)
    assert fast.clock() - fast.clock.ahead == pytest.approx(await fast.store.time()), "the time of day is what was set"
    assert (await slow.store.claim_due(slow.clock(), 10))[0] == [], "leases of the living stand"
    # the record comes back when its lease is over, neither before nor an hour later
    for _ in range(7):
        pass_time(machines, 2 * SECOND)
        await fast.beat()
        await slow.beat()
    [again], _ = await fast.store.claim_due(fast.clock(), 10)
    assert again.id == record.id


async def test_set_back_while_nobody_was_there(machines: tuple[Machine, Machine]) -> None:
    """A process that starts then finds what waits in the future, and does not wait for Redis' clock to come there."""
    fast, slow = machines
    set_redis(machines, -HOUR)
    newcomer = Machine(slow.store, slow.wall, SECOND)
    newcomer.began, newcomer.redis_set_by = slow.began, -HOUR
    await newcomer.beat()
    assert newcomer.clock() >= fast.clock()


async def test_what_is_agreed_on_is_lost_with_the_data_and_comes_back(
    machines: tuple[Machine, Machine], make_store: MakeStore
) -> None:
    fast, slow = machines
    set_redis(machines, HOUR)
    await fast.beat()
    await slow.beat()
    before = fast.clock()
    await fast.store._client.flushall()
    await slow.beat()
    await fast.beat()
    assert fast.clock() == slow.clock() == pytest.approx(before, abs=100)


async def test_an_answer_that_took_long_says_nothing(machines: tuple[Machine, Machine]) -> None:
    fast, _ = machines
    before, asked = fast.clock(), fast.store.time

    async def slowly() -> int:
        fast.pass_time(SECOND)
        return await asked() + HOUR

    fast.store.time = slowly  # type: ignore[method-assign]
    assert not await fast.beat()
    assert fast.clock() == before + SECOND
