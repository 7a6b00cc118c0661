"""Two Alertmanagers that form a pair send everything twice, and again where an answer is lost: one page per episode."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from tests.conftest import program
from tests.reliability.conftest import Figure
from tests.rig.alertmanager import TOKEN, alertmanager
from tests.rig.pagerduty import PagerDutyProcess
from tests.rig.proxy import FaultProxy
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

#: As many alerts in one group of Alertmanager.
IN_GROUP = 50


def instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def tell(ports: list[int], count: int, began: float, ended: float) -> None:
    """One Prometheus tells both Alertmanagers of all alerts."""
    alerts = [
        {
            "labels": {
                "alertname": f"Group{number // IN_GROUP}",
                "service": "payment",
                "severity": "critical",
                "n": str(number),
            },
            "startsAt": instant(began),
            "endsAt": instant(ended),
        }
        for number in range(count)
    ]
    async with aiohttp.ClientSession() as session:
        for port in ports:
            async with session.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=alerts) as answer:
                assert answer.status == 200, await answer.text()


async def test_one_page_per_episode(tmp_path: Path, figure: Figure, long: bool) -> None:
    episodes = 20_000 if long else 1_000
    async with (
        RedisServer(program("redis-server"), tmp_path / "redis") as redis,
        PagerDutyProcess() as pagerduty,
        Router(
            tmp_path / "router",
            write_rules(tmp_path / "rules"),
            pagerduty.url,
            redis.url,
            ALERTROUTER_WEBHOOK_TOKENS=TOKEN,
        ) as router,
        FaultProxy(router.url.removeprefix("http://")) as proxy,
        alertmanager(tmp_path, f"http://{proxy.address}", "am0") as one,
        alertmanager(tmp_path, f"http://{proxy.address}", "am1") as other,
    ):

        async def opened() -> int:
            return (await pagerduty.totals()).get("opened", 0)

        async def left_open() -> int:
            return (await pagerduty.totals())["open"]

        async def has_opened_all() -> bool:
            return await opened() >= episodes

        async def has_closed_all() -> bool:
            return await left_open() == 0

        async def has_eaten(number: int) -> bool:
            return proxy.answers_eaten >= number

        began = time.time()
        for ended in (began + 3600, 0.0):
            eaten = proxy.answers_eaten
            proxy.eat_answers()  # what was accepted is sent again
            await tell([one, other], episodes, began, ended or time.time())
            await until(lambda eaten=eaten: has_eaten(eaten + episodes // IN_GROUP), 60)  # type: ignore[misc]
            await proxy.heal()
            await until(has_closed_all if not ended else has_opened_all, 300)
        await until(lambda: _is_quiet(router), 60)
        pages = Counter(call.dedup_key for call in await pagerduty.log() if call.result == "opened")
        left = await left_open()
    extra = sum(pages.values()) - episodes
    figure("G28", f"pages beyond one, {episodes:,} episodes from a pair of Alertmanagers", "0", extra, extra == 0)
    assert len(pages) == episodes
    assert extra == 0
    assert left == 0


async def _is_quiet(router: Router) -> bool:
    queues = await router.backlog()
    return bool(queues) and not queues["due"] + queues["waiting"] + queues["leased"]
