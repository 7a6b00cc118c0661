"""Several replicas on one Redis: one that freezes and comes back, and a call limit that all of them share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from alertrouter.alarms import DIGEST
from tests.conftest import program
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.rig.killable import Killable
from tests.rig.ledger import dedup_key_of, fingerprint_of
from tests.rig.pagerduty import FakePagerDuty
from tests.rig.proxy import FaultProxy
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

PATH = "/webhooks/alertmanager"
REPAIR_AFTER_MS = 2000
WITH_REPAIRS = ("--repair-after-ms", str(REPAIR_AFTER_MS))
#: A lease lasts 15 s, and the leases of who is silent for 10 s fall.
FROZEN_S = 16.0

#: What a replica is about to do when it freezes, and how often PagerDuty then opens the alert. One that has looked at
#: its lease and only has to send cannot be called back: it opens the alert again, and a repair closes it.
FREEZING = {"leased": 1, "sending": 2, "answered": 1}


def webhook(alerts: Iterable[int], status: str = "firing") -> bytes:
    """One webhook with all these alerts."""
    return alertmanager_body(
        *({**alertmanager_alert(status=status, n=str(n)), "fingerprint": fingerprint_of(n)} for n in alerts)
    )


@pytest.mark.parametrize("point", FREEZING)
async def test_a_replica_that_was_frozen_finds_its_work_done(tmp_path: Path, point: str) -> None:
    """SIGSTOP with a send in flight, until another replica has paged and closed the alert; then SIGCONT."""
    rules = write_rules(tmp_path / "rules")
    async with (
        RedisServer(program("redis-server"), tmp_path / "redis") as redis,
        FakePagerDuty() as pagerduty,
        Killable(
            *(tmp_path / "frozen", rules, pagerduty.url, point, "--act", "stop", *WITH_REPAIRS),
            ALERTROUTER_REDIS_URL=redis.url,
        ) as frozen,
    ):
        posting = asyncio.create_task(frozen.post(PATH, webhook([1])))
        await until(lambda: frozen.is_frozen)
        froze = monotonic()
        async with Killable(
            *(tmp_path / "other", rules, pagerduty.url, "none", *WITH_REPAIRS), ALERTROUTER_REDIS_URL=redis.url
        ) as other:
            sends = pagerduty.totals()["received"]
            await until(lambda: pagerduty.totals()["received"] > sends, within_s=20)
            assert await other.post(PATH, webhook([1], "resolved")) == 202
            await until(lambda: not pagerduty.open_alerts())
            await until(lambda: monotonic() > froze + FROZEN_S, within_s=FROZEN_S)
            before = len(pagerduty.log)
            frozen.thaw()
            assert await posting == 202
            if point != "leased":  # it can still tell that its lease is over, and does nothing

                def is_repaired() -> bool:
                    calls = list(pagerduty.log)[before:]
                    return bool(calls) and calls[-1].action == "resolve"

                await until(is_repaired, within_s=REPAIR_AFTER_MS / 1000 + 10)
            assert await frozen.terminate() == 0
            assert await other.terminate() == 0
    calls = list(pagerduty.log)
    assert not pagerduty.open_alerts()
    assert sum(call.result == "opened" for call in calls) == FREEZING[point], calls
    assert {call.dedup_key for call in calls} == {dedup_key_of(1)}


@pytest.mark.takes_minutes
async def test_the_call_limit_holds_for_all_replicas(tmp_path: Path, figure: Figure, long: bool) -> None:
    """Three replicas, 110 calls a minute; PagerDuty refuses the 121st within any 60 s. One replica dies midway.

    At first calls are slow to arrive: PagerDuty counts the ones of the next minute closer to them than they were begun.
    """
    alerts, minutes = (6_600, 60) if long else (300, 3)
    rules = write_rules(tmp_path / "rules")
    limits = {"ALERTROUTER_PAGERDUTY_CALLS_PER_MINUTE": "110", "ALERTROUTER_MAX_IN_FLIGHT": "8"}
    async with (
        RedisServer(program("redis-server"), tmp_path / "redis") as redis,
        FakePagerDuty(calls_per_minute=120) as pagerduty,
        FaultProxy(pagerduty.url.removeprefix("http://")) as way,
        Router(tmp_path / "one", rules, f"http://{way.address}", redis.url, **limits) as one,
        Router(tmp_path / "two", rules, f"http://{way.address}", redis.url, **limits) as two,
        Router(tmp_path / "three", rules, f"http://{way.address}", redis.url, **limits) as three,
        aiohttp.ClientSession() as session,
    ):
        way.slow(0.3)
        for number, replica in enumerate([one, two, three]):
            content = webhook(range(number, alerts, 3))
            async with session.post(replica.url + PATH, data=content) as answer:
                assert answer.status == 202
        await until(lambda: pagerduty.totals()["received"] >= 50)
        await two.kill()
        await until(lambda: pagerduty.totals()["received"] >= 100)
        await way.heal()
        await until(
            lambda: sum(not alert.dedup_key.startswith(f"{DIGEST}:") for alert in pagerduty.open_alerts()) == alerts,
            within_s=minutes * 60,
        )
        for replica in (one, three):
            assert await replica.end() == 0
    most = busiest_minute(call.at for call in pagerduty.log)
    throttled = pagerduty.totals().get("throttled", 0)
    figure("G10", f"calls in any 60 s, three replicas, {alerts:,} alerts", "<= 120", most, most <= 120)
    figure("G10", "answers 429", "0", throttled, throttled == 0)
    assert most <= 120
    assert not throttled


def busiest_minute(times: Iterable[int]) -> int:
    """The largest number of `times` (ms) within 60 s of each other."""
    recent: deque[int] = deque()
    most = 0
    for at in sorted(times):
        recent.append(at)
        while recent[0] <= at - 60_000:
            recent.popleft()
        most = max(most, len(recent))
    return most
