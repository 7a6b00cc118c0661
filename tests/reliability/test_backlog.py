"""A restart on top of a long backlog: it serves at once, because nothing looks through all of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from alertrouter.store.connect import connect
from alertrouter.store.store import AlertStore
from tests.alerts import make_alert
from tests.conftest import program
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.rig.pagerduty import Fault, PagerDutyProcess
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

BACKLOG = 300_000
AT_ONCE = 2_560
SERVING_S = 5.0
#: On a machine that takes longer to start it at all, the backlog may add this much.
SLOWER_S = 2.0


async def test_a_restart_on_a_long_backlog(tmp_path: Path, figure: Figure) -> None:
    """PagerDuty takes nothing meanwhile, so that all of the backlog is still there."""
    rules = write_rules(tmp_path / "rules")
    async with (
        RedisServer(program("redis-server"), tmp_path / "redis", "--appendfsync", "no") as redis,
        PagerDutyProcess() as pagerduty,
    ):
        await pagerduty.fail(Fault("status", times=0, status=503))
        bound = {"ALERTROUTER_MAX_PENDING": str(2 * BACKLOG)}  # past its bound it is right not to take more
        router = Router(tmp_path / "router", rules, pagerduty.url, redis.url, **bound)
        empty_took = await serving(router)
        await router.kill()
        client = connect(redis.url)
        store = AlertStore(client, history_length=0)
        now = await store.time()
        for first in range(0, BACKLOG, AT_ONCE):
            await store.accept([make_alert(str(number)) for number in range(first, min(first + AT_ONCE, BACKLOG))], now)
        await client.aclose()
        try:
            took = await serving(router)
            backlog = sum((await router.backlog()).values())
        finally:
            await router.kill()
    in_time = took <= max(SERVING_S, empty_took + SLOWER_S)
    figure("G32", f"seconds until it serves, started on {BACKLOG:,} alerts to judge", "<= 5", took, in_time)
    figure("G32", "seconds until it serves, started on nothing", "", empty_took, None)
    assert in_time
    assert backlog >= BACKLOG


async def serving(router: Router) -> float:
    """Start it, and count the seconds until it takes an alert."""
    began = asyncio.get_running_loop().time()
    if not router.is_running:
        await router.start()
    body = alertmanager_body(alertmanager_alert())

    async def takes() -> bool:
        if await router.get("/-/ready") != 200:
            return False
        url = f"{router.url}/webhooks/alertmanager"
        async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
            return answer.status == 202

    await until(takes, 60)
    return round(asyncio.get_running_loop().time() - began, 1)
