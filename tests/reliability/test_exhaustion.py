"""Whoever holds connections open, or makes up names without end, harms nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import pytest

from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.rig.pagerduty import PagerDutyProcess
from tests.rig.servers import Router, write_rules
from tests.rig.slowloris import Slowloris
from tests.waiting import until

CLOSED_WITHIN_S = 30.0
P99_MS = 100.0
SERIES = 2_000
SCRAPE_MS = 100.0
#: Requests a second of the sender that means well.
RATE = 40
BATCH = 500
_ALONE_S = 4


@pytest.fixture
async def pagerduty() -> AsyncIterator[PagerDutyProcess]:
    async with PagerDutyProcess() as pagerduty:
        yield pagerduty


async def posting(url: str, other: asyncio.Task[Any]) -> list[float]:
    """Post one new alert after the other while `other` goes on, by turns on a kept and a new connection; the ms of each."""
    took: list[float] = []

    async def post(session: aiohttp.ClientSession) -> None:
        body = alertmanager_body(alertmanager_alert(n=str(perf_counter())))
        began = perf_counter()
        async with session.post(f"{url}/webhooks/alertmanager", data=body) as answer:
            assert answer.status == 202
            await answer.read()
        took.append((perf_counter() - began) * 1000)

    kept = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    new = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0), force_close=True)
    async with aiohttp.ClientSession(connector=kept) as first, aiohttp.ClientSession(connector=new) as second:
        while not other.done():
            pause = asyncio.create_task(asyncio.sleep(1 / RATE))
            await post(second if len(took) % 2 else first)
            await pause
    return took


def p99_of(took: list[float]) -> float:
    return round(sorted(took)[len(took) * 99 // 100], 1)


async def test_sockets_that_send_a_byte_a_second(
    tmp_path: Path, pagerduty: PagerDutyProcess, figure: Figure, *, long: bool
) -> None:
    """They come from many addresses, and a sender that means well from another. Time-outs are those of production."""
    sockets, addresses = (10_000, 25) if long else (2_000, 10)
    async with Router(tmp_path / "router", write_rules(tmp_path / "rules"), pagerduty.url) as router:
        before = asyncio.create_task(asyncio.sleep(_ALONE_S))
        alone = p99_of(await posting(router.url, before))
        attack = asyncio.create_task(Slowloris(int(router.url.rpartition(":")[2]), sockets, addresses, 90).run())
        took = await posting(router.url, attack)
        seen = await attack
    p99 = p99_of(took)
    figure("G23", f"sockets at 1 byte/s, of {sockets:,}, still open at the end", "0", seen.opened - seen.closed, None)
    closed_in_time = seen.closed == sockets and seen.longest_s <= CLOSED_WITHIN_S
    figure("G23", "seconds until the last of them was closed", "<= 30", seen.longest_s, closed_in_time)
    figure("G23", f"ms that 99 % of {len(took):,} real webhooks took beside them", "< 100", p99, p99 < P99_MS)
    figure("G23", "the same without them", "", alone, None)
    assert seen.closed == sockets
    assert seen.refused == 0 or long, "there is room for all of them"
    assert seen.longest_s <= CLOSED_WITHIN_S
    assert p99 < P99_MS


async def test_names_without_end(tmp_path: Path, pagerduty: PagerDutyProcess, figure: Figure, *, long: bool) -> None:
    """Every alert, sender, service and path is another one, and metrics do not grow by it."""
    alerts = 100_000 if long else 5_000
    call_limit = {"ALERTROUTER_PAGERDUTY_CALLS_PER_MINUTE": "110"}
    async with (
        Router(tmp_path / "router", write_rules(tmp_path / "rules"), pagerduty.url, **call_limit) as router,
        aiohttp.ClientSession() as session,
    ):
        for first in range(0, alerts, BATCH):
            numbers = [str(number) for number in range(first, first + BATCH)]
            body = alertmanager_body(*(alertmanager_alert(f"a{n}", service=f"s{n}", n=n) for n in numbers))
            async with session.post(f"{router.url}/webhooks/alertmanager/team-{first}", data=body) as answer:
                assert answer.status == 202
            for path in (f"webhooks/made-up-{first}", f"webhooks/datadog/{first}", f"made-up-{first}"):
                async with session.post(f"{router.url}/{path}", data=b"{") as answer:
                    assert answer.status in (400, 404)

        async def is_judged() -> bool:
            return (await router.backlog())["due"] == 0

        await until(is_judged, 600)
        took, text = [], ""
        for _ in range(20):
            began = perf_counter()
            async with session.get(f"{router.url}/metrics") as answer:
                text = await answer.text()
            took.append((perf_counter() - began) * 1000)
    series = sum(not line.startswith("#") for line in text.splitlines())
    slowest = round(max(took), 1)
    figure("G24", f"series of /metrics after {alerts:,} different alerts", "<= 2,000", series, series <= SERIES)
    figure("G24", "ms of the slowest of 20 scrapes then", "< 100", slowest, slowest < SCRAPE_MS)
    assert series <= SERIES
    assert slowest < SCRAPE_MS
