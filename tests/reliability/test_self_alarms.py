"""When something of ours or on the way to us fails, somebody hears of it within a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from alertrouter.store.keys import keys_of
from tests.conftest import program
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.rig.pagerduty import Fault, PagerDutyProcess
from tests.rig.second_channel import Receiver
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

LATEST_S = 60.0
INTERVAL_S, GRACE_S = 5, 1
HEARTBEAT = f"""
heartbeats:
  - name: prometheus
    when: event.custom_details.alertname == 'Watchdog'
    interval: {INTERVAL_S}s
    grace: {GRACE_S}s
    service: payment-service
"""
KEYS = keys_of("main")


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write_rules(tmp_path / "rules")


@pytest.fixture
async def pagerduty() -> AsyncIterator[PagerDutyProcess]:
    async with PagerDutyProcess() as pagerduty:
        yield pagerduty


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(program("redis-server"), tmp_path / "redis") as server:
        yield server


async def post(router: Router, name: str = "HighErrorRate", token: str = "") -> int:
    """Status of one webhook."""
    headers = {"X-Alertrouter-Token": token} if token else {}
    url = f"{router.url}/webhooks/alertmanager"
    body = alertmanager_body(alertmanager_alert(name))
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status


def opened(pagerduty: PagerDutyProcess, name: str) -> Callable[[], Awaitable[bool]]:
    """Whether our alarm of that name is open at PagerDuty."""

    async def is_open() -> bool:
        return f"alertrouter:{name}" in {alert.dedup_key for alert in await pagerduty.open_alerts()}

    return is_open


def closed(pagerduty: PagerDutyProcess, name: str) -> Callable[[], Awaitable[bool]]:
    is_open = opened(pagerduty, name)

    async def is_closed() -> bool:
        return not await is_open()

    return is_closed


async def took(condition: Callable[[], Awaitable[bool] | bool], within_s: float = LATEST_S + 30) -> float:
    """How many seconds it takes until the condition holds."""
    began = asyncio.get_running_loop().time()
    await until(condition, within_s)
    return round(asyncio.get_running_loop().time() - began, 1)


async def pages_of(pagerduty: PagerDutyProcess, name: str) -> int:
    """How often PagerDuty opened our alarm of that name."""
    log = await pagerduty.log()
    return sum(call.dedup_key == f"alertrouter:{name}" and call.result == "opened" for call in log)


async def test_a_sender_that_stops(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, redis: RedisServer, figure: Figure
) -> None:
    """Two replicas, of which only one hears it."""
    (rules / "alertrouter.yaml").write_text(HEARTBEAT)
    async with (
        Router(tmp_path / "one", rules, pagerduty.url, redis.url) as router,
        Router(tmp_path / "other", rules, pagerduty.url, redis.url),
    ):
        heard = 0.0
        for _ in range(4):
            assert await post(router, "Watchdog") == 202
            heard = asyncio.get_running_loop().time()
            with suppress(TimeoutError):  # nothing is to happen
                await until(opened(pagerduty, "heartbeat:prometheus"), INTERVAL_S / 2)
        assert await pages_of(pagerduty, "heartbeat:prometheus") == 0
        await until(opened(pagerduty, "heartbeat:prometheus"), LATEST_S)
        late = round(asyncio.get_running_loop().time() - heard - INTERVAL_S - GRACE_S, 1)
        assert await post(router, "Watchdog") == 202
        over = await took(closed(pagerduty, "heartbeat:prometheus"))
        pages = await pages_of(pagerduty, "heartbeat:prometheus")
    figure(
        "G31", "seconds until a silent heartbeat pages, past its interval and grace", "<= 60", late, late <= LATEST_S
    )
    assert late <= LATEST_S and over <= LATEST_S
    assert pages == 1


async def test_a_sender_that_is_refused(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, figure: Figure
) -> None:
    async with Router(tmp_path / "router", rules, pagerduty.url, ALERTROUTER_WEBHOOK_TOKENS="new") as router:
        assert await post(router, token="new") == 202  # anybody can be refused; it counts for who was heard
        assert [await post(router, token="old") for _ in range(3)] == [401] * 3
        late = await took(opened(pagerduty, "sender-refused:alertmanager"))
        assert await post(router, token="new") == 202
        over = await took(closed(pagerduty, "sender-refused:alertmanager"))
    figure("G31", "seconds until a refused sender pages", "<= 60", late, late <= LATEST_S)
    assert late <= LATEST_S and over <= LATEST_S


async def test_rules_that_cannot_be_loaded(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, figure: Figure
) -> None:
    async with Router(tmp_path / "router", rules, pagerduty.url) as router:
        good = (rules / "router.yaml").read_text()
        (rules / "router.yaml").write_text("catch_all: {route_to: nowhere}\n")
        late = await took(opened(pagerduty, "rules-refused"))
        await router.kill()
        (rules / "router.yaml").write_text(good)
        await router.start()
        over = await took(closed(pagerduty, "rules-refused"))
    figure("G31", "seconds until faulty rules page", "<= 60", late, late <= LATEST_S)
    assert late <= LATEST_S and over <= LATEST_S


async def test_redis_that_does_not_answer(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, redis: RedisServer, figure: Figure
) -> None:
    async with Router(tmp_path / "router", rules, pagerduty.url, redis.url) as router:
        assert await post(router) == 202
        redis.freeze()
        late = await took(opened(pagerduty, "redis-away"))
        redis.thaw()
        over = await took(closed(pagerduty, "redis-away"))
    figure("G31", "seconds until Redis that does not answer pages", "<= 60", late, late <= LATEST_S)
    assert late <= LATEST_S and over <= LATEST_S


async def test_a_queue_that_is_stuck(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, redis: RedisServer, figure: Figure
) -> None:
    """Somebody else's data lies where the worker looks, and not where alerts are accepted."""
    async with Router(tmp_path / "router", rules, pagerduty.url, redis.url) as router:
        assert await post(router) == 202
        await redis.command("SET", KEYS.dead, "not ours")
        late = await took(opened(pagerduty, "canary-lost"))
        assert await post(router, "AnotherOne") == 202
        await redis.command("DEL", KEYS.dead)
        over = await took(closed(pagerduty, "canary-lost"))
    figure("G31", "seconds until alerts that are not judged page", "<= 60", late, late <= LATEST_S)
    assert late <= LATEST_S and over <= LATEST_S


async def test_a_pagerduty_that_takes_nothing(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, redis: RedisServer, figure: Figure
) -> None:
    """Told past it, once by two replicas, when it has been away for as long as it may with a critical alert waiting."""
    may_be_away_s = 10
    async with Receiver("secret", time.time) as receiver:
        channel = {
            "ALERTROUTER_SECOND_CHANNEL_AFTER": f"{may_be_away_s}s",
            "ALERTROUTER_SECOND_CHANNEL_WEBHOOK_URL": receiver.url,
            "ALERTROUTER_SECOND_CHANNEL_WEBHOOK_SECRET": "secret",
        }
        async with (
            Router(tmp_path / "one", rules, pagerduty.url, redis.url, **channel) as router,
            Router(tmp_path / "other", rules, pagerduty.url, redis.url, **channel) as other,
        ):
            await pagerduty.fail(Fault("reset_before", times=0))
            assert await post(router) == 202
            assert await post(other, "AnotherOne") == 202
            late = await took(lambda: bool(receiver.received)) - may_be_away_s
            await pagerduty.heal()
            over = await took(lambda: len(receiver.received) > 1, 120)
    figure(
        "G31",
        "seconds until PagerDuty's outage is told past it, after the time it may be away",
        "<= 60",
        late,
        late <= LATEST_S,
    )
    assert late <= LATEST_S and over <= 2 * LATEST_S
    assert [message["state"] for message in receiver.received] == ["began", "over"]
    assert receiver.received[0]["waiting"] in (1, 2)
