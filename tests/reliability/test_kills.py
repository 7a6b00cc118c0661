"""SIGKILL at random moments under load: of alertrouter, and of the Redis behind it. The oracle says what became of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import program
from tests.reliability.conftest import Figure
from tests.rig.ledger import read_ledger
from tests.rig.load import Load, Plan
from tests.rig.oracle import Verdict, judge
from tests.rig.pagerduty import PagerDutyProcess
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

#: What alertrouter has in flight at once, and so what one kill can make it repeat.
IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class Size:
    """How much: alerts to be acknowledged, kills, identities, and alerts a second at most (0: as many as it takes)."""

    alerts: int
    kills: int
    identities: int
    rate: float
    within_s: float


async def run(size: Size, kill: Callable[[], object], load: Load, chance: random.Random) -> None:
    """Kill at random points of the load, spread over all of it, and wait until all of it is acknowledged."""
    part = size.alerts / size.kills
    for number in range(size.kills):
        mark = int((number + chance.random() * 0.9) * part)
        await until(lambda mark=mark: load.accepted >= mark, size.within_s)  # type: ignore[misc]
        killed = kill()
        assert asyncio.iscoroutine(killed)
        await killed
    await load.finished(size.within_s)


async def drained(router: Router, within_s: float) -> None:
    """Wait until nothing is due, waits or is in flight. What is scheduled for later are repairs."""

    async def idle() -> bool:
        queues = await router.backlog()
        return bool(queues) and not queues["due"] + queues["waiting"] + queues["leased"]

    await until(idle, within_s)


async def verdict_of(ledger: Path, pagerduty: PagerDutyProcess, *, past_redis: bool) -> Verdict:
    """The oracle's word. PagerDuty's log is kept beside the ledger, for whoever wants to know why."""
    log = await pagerduty.log()
    ledger.with_name("pagerduty.log").write_bytes(log.encode())
    open_alerts = await pagerduty.open_alerts()
    return judge(read_ledger(ledger), log, open_alerts, grace_ms=120_000, past_redis=past_redis)


def show(figure: Figure, verdict: Verdict, lost: str, what: str, kills: int) -> None:
    """Put the verdict into the table."""
    figure(lost, f"accepted alerts lost, {what}", "0", verdict.lost, verdict.lost == 0)
    figure("G3", f"alerts wrong at the end, {what}", "0", verdict.wrong, verdict.wrong == 0)
    # without Redis nobody knows of a resolve that still waits there: what came back then adds to its open page
    merged = verdict.merged == 0 if lost == "G1" else None
    figure("G3", f"refires that did not page again, {what}", "0", verdict.merged, merged)
    order = verdict.out_of_order + verdict.unexplained
    figure("G3", f"sends out of order or unexplained, {what}", "0", order, order == 0)
    figure("G5", f"false pages, {what}", "0", verdict.false_pages, verdict.false_pages == 0)
    most = kills * IN_FLIGHT
    figure("G6", f"extra identical sends, {what}", f"<= {most:,}", verdict.duplicate, verdict.duplicate <= most)


def check(verdict: Verdict, size: Size) -> None:
    """What must hold whatever was killed."""
    assert verdict.accepted >= size.alerts
    bad = {kind: getattr(verdict, kind) for kind in ("lost", "wrong", "false_pages", "out_of_order", "unexplained")}
    assert not any(bad.values()), str(verdict)
    assert verdict.duplicate <= size.kills * IN_FLIGHT, str(verdict)
    assert verdict.paged > verdict.episodes / 10, f"hardly anything was delivered: {verdict}"


async def test_sigkill_of_alertrouter(tmp_path: Path, figure: Figure, long: bool) -> None:
    """Its embedded Redis dies with it; the data stay, and it is started again at once."""
    size = Size(1_000_000, 200, 40_000, 0, 3 * 3600) if long else Size(50_000, 20, 5_000, 1_500, 240)
    chance = random.Random(1)
    rules = write_rules(tmp_path / "rules")
    addresses, ledger = tmp_path / "addresses", tmp_path / "ledger"
    plan = Plan(size.alerts, size.identities, batch=20, rate=size.rate, services="search,payment,other")
    async with PagerDutyProcess() as pagerduty, Router(tmp_path / "router", rules, pagerduty.url) as router:
        addresses.write_text(router.url)

        async def kill() -> None:
            await router.kill()
            await router.start()
            addresses.write_text(router.url)

        async with Load(plan, addresses, ledger) as load:
            await run(size, kill, load, chance)
        await drained(router, size.within_s)
        verdict = await verdict_of(ledger, pagerduty, past_redis=False)
    show(figure, verdict, "G1", f"{size.kills} SIGKILLs of alertrouter in {size.alerts:,}", size.kills)
    check(verdict, size)
    assert verdict.merged == 0, str(verdict)


async def test_sigkill_of_redis(tmp_path: Path, figure: Figure, long: bool) -> None:
    """It comes back on its own data. Until then alerts are refused, or go straight to PagerDuty."""
    size = Size(500_000, 100, 20_000, 0, 2 * 3600) if long else Size(20_000, 10, 3_000, 1_000, 180)
    chance = random.Random(2)
    rules = write_rules(tmp_path / "rules")
    addresses, ledger = tmp_path / "addresses", tmp_path / "ledger"
    plan = Plan(size.alerts, size.identities, batch=10, rate=size.rate, services="search,payment,other")
    async with (
        RedisServer(program("redis-server"), tmp_path / "redis") as redis,
        PagerDutyProcess() as pagerduty,
        Router(tmp_path / "router", rules, pagerduty.url, redis.url) as router,
    ):
        addresses.write_text(router.url)

        async def kill() -> None:
            await redis.kill()
            await asyncio.sleep(chance.uniform(0, 1))  # the outage, not a wait for anything
            await redis.start()

        async with Load(plan, addresses, ledger) as load:
            await run(size, kill, load, chance)
            longest_ms = load.progress.longest_ms
        await drained(router, size.within_s)
        verdict = await verdict_of(ledger, pagerduty, past_redis=True)
    show(figure, verdict, "G2", f"{size.kills} kill -9 of redis-server in {size.alerts:,}", size.kills)
    figure("G16", "longest answer to a webhook while Redis dies, ms", "< 8,000", longest_ms, longest_ms < 8_000)
    check(verdict, size)
    assert longest_ms < 8_000
