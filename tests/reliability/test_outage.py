"""Redis is away for a minute. Alerts fire and resolve meanwhile; two real Alertmanagers send them."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from alertrouter.sandbox import Sandbox
from tests.conftest import program
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.rig.alertmanager import TOKEN, alertmanager
from tests.rig.proxy import FaultProxy
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

#: Prometheus repeats an alert and then says that it is over; Alertmanager hears of each from both of a pair.
LIVES_S = 6.0


def instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def post_alert(session: aiohttp.ClientSession, ports: list[int], number: int, severity: str) -> None:
    """One alert to both Alertmanagers, over by itself after a few seconds."""
    now = time.time()
    body = [
        {
            "labels": {"alertname": "Short", "service": "payment", "severity": severity, "n": str(number)},
            "annotations": {"summary": f"short alert {number}"},
            "startsAt": instant(now),
            "endsAt": instant(now + LIVES_S),
        }
    ]
    for port in ports:
        async with session.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=body) as answer:
            assert answer.status == 200, await answer.text()


def numbers(calls: list[Any], result: str) -> dict[str, float]:
    """When each alert, by its number, first came to that result."""
    found: dict[str, float] = {}
    for call in calls:
        is_ours = str(call.event["dedup_key"]).startswith("alertrouter:")  # the alarm that Redis is away
        if call.result == result and result == "opened" and not is_ours:
            found.setdefault(call.event["payload"]["custom_details"]["n"], call.received_at / 1000)
    return found


@pytest.mark.parametrize("redis", ["killed", "frozen"])
async def test_every_critical_gets_through_without_redis(
    tmp_path: Path, figure: Figure, long: bool, redis: str
) -> None:
    outage_s = (600.0 if long else 60.0) if redis == "killed" else 15.0
    per_second = 10
    posted: dict[str, tuple[float, str]] = {}
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox())
        store = await stack.enter_async_context(RedisServer(program("redis-server"), tmp_path / "redis"))
        router = await stack.enter_async_context(
            Router(
                tmp_path / "router",
                write_rules(tmp_path / "rules"),
                sandbox.url,
                store.url,
                ALERTROUTER_WEBHOOK_TOKENS=TOKEN,
            )
        )
        ports = [
            await stack.enter_async_context(alertmanager(tmp_path, router.url, name, group_by="['...']"))
            for name in ("am0", "am1")
        ]
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def post(number: int) -> None:
            severity = "warning" if number % 10 == 9 else "critical"
            posted[str(number)] = (time.time(), severity)
            await post_alert(session, ports, number, severity)

        await post(0)
        await sandbox.wait_for(lambda events: len(events) >= 1, timeout_s=20)
        if redis == "killed":
            await store.kill()
        else:
            store.freeze()
        began = time.monotonic()
        while time.monotonic() < began + outage_s:
            await post(len(posted))
            if len(posted) == per_second:
                assert await router.get("/-/ready") == 200, "ready, because pages get through"
            await asyncio.sleep(max(0.0, began + len(posted) / per_second - time.monotonic()))
        if redis == "killed":
            await store.start()
        else:
            store.thaw()

        criticals = {number for number, (_, severity) in posted.items() if severity == "critical"}
        await until(lambda: criticals <= set(numbers(sandbox.calls, "opened")), within_s=30)
        opened = numbers(sandbox.calls, "opened")
        await until(lambda: not sandbox._api.alerts, within_s=60)

        async def caught_up() -> bool:
            backlog = await router.backlog()
            return backlog != {} and not backlog["due"] + backlog["waiting"] + backlog["leased"]

        await until(caught_up, within_s=30)
        late = {number: opened[number] - posted[number][0] for number in criticals}
        slowest = max(late.values())
    left_open = len(sandbox._api.alerts)
    what = f"Redis {redis} for {outage_s:.0f} s, two Alertmanagers, {len(criticals)} short criticals"
    figure("G8", f"{what}: slowest page", "10 s at most", f"{slowest:.1f} s", slowest <= 10)
    figure("G8", f"{what}: left open", "0", left_open, left_open == 0)
    assert slowest <= 10
    assert left_open == 0


@pytest.mark.parametrize("redis_fault", ["blackhole", "refuse", "eat_answers"])
async def test_the_sender_is_answered_while_both_ends_fail(tmp_path: Path, figure: Figure, redis_fault: str) -> None:
    """PagerDuty takes the bytes and never answers, Redis is gone as well: nothing is accepted, nobody waits for ever."""
    answers: list[tuple[float, int]] = []
    async with (
        Sandbox() as sandbox,
        FaultProxy(sandbox.url.removeprefix("http://")) as to_pagerduty,
        RedisServer(program("redis-server"), tmp_path / "redis") as store,
        FaultProxy(f"127.0.0.1:{store.port}") as to_redis,
        Router(
            tmp_path / "router",
            write_rules(tmp_path / "rules"),
            f"http://{to_pagerduty.address}",
            f"redis://{to_redis.address}/0",
        ) as router,
        aiohttp.ClientSession() as session,
    ):

        async def post(number: int) -> None:
            body = alertmanager_body(*(alertmanager_alert(n=f"{number}-{n}") for n in range(20)))
            began = time.monotonic()
            async with session.post(f"{router.url}/webhooks/alertmanager", data=body) as answer:
                answers.append((time.monotonic() - began, answer.status))

        await post(0)
        to_pagerduty.blackhole("answers")
        getattr(to_redis, redis_fault)()
        await asyncio.gather(*(post(number) for number in range(1, 9)))
        await asyncio.gather(*(post(number) for number in range(9, 17)))
        assert [status for _, status in answers] == [202, *[503] * 16]

        await to_pagerduty.heal()
        await to_redis.heal()
        await post(1)
        assert answers[-1][1] == 202
    longest = max(seconds for seconds, _ in answers)
    figure(
        "G16", f"longest answer, PagerDuty silent, Redis: {redis_fault}", "8 s at most", f"{longest:.1f} s", longest < 8
    )
    assert longest < 8
