"""Redis that is away, slow, full, empty, read-only, failing over or split in two: nothing answered with 202 is lost.

Runs that say so are without the direct path, which would hide a Redis that lost something.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from alertrouter.store.keys import keys_of
from tests.conftest import program
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.rig.ledger import dedup_key_of, fingerprint_of, read_ledger
from tests.rig.load import Load, Plan
from tests.rig.oracle import Verdict, judge
from tests.rig.pagerduty import Fault, PagerDutyProcess
from tests.rig.proxy import FaultProxy
from tests.rig.redis_servers import SLOW_TO_LOAD, Cluster, SentinelSet
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

#: Datadog waits 15 s and Alertmanager 10 s for an answer.
LONGEST_ANSWER_MS = 8_000
#: No direct path: 202 means that Redis has it.
REDIS_ONLY = {"ALERTROUTER_FAIL_OPEN": "false"}
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


def body(*numbers: int, status: str = "firing") -> bytes:
    """One webhook with these alerts."""
    return alertmanager_body(
        *({**alertmanager_alert(status=status, n=str(n)), "fingerprint": fingerprint_of(n)} for n in numbers)
    )


async def post(router: Router, content: bytes) -> tuple[int, float]:
    """Status of one webhook, and how many seconds the answer took."""
    began = asyncio.get_running_loop().time()
    url = f"{router.url}/webhooks/alertmanager"
    async with aiohttp.ClientSession() as session, session.post(url, data=content) as answer:
        await answer.read()
    return answer.status, asyncio.get_running_loop().time() - began


async def readiness(router: Router) -> dict[str, Any]:
    """The answer of /-/ready."""
    async with aiohttp.ClientSession() as session, session.get(f"{router.url}/-/ready") as answer:
        said: dict[str, Any] = await answer.json()
        return said


async def warns(router: Router, words: str) -> bool:
    """Whether one of the warnings on /-/ready has these words."""
    return any(words in warning for warning in (await readiness(router))["warnings"])


async def is_open(pagerduty: PagerDutyProcess, *dedup_keys: str) -> bool:
    """Whether all of them are open at PagerDuty."""
    return set(dedup_keys) <= {alert.dedup_key for alert in await pagerduty.open_alerts()}


async def drained(router: Router, within_s: float = 60) -> None:
    """Wait until nothing is due, waits or is in flight."""

    async def idle() -> bool:
        queues = await router.backlog()
        return bool(queues) and not queues["due"] + queues["waiting"] + queues["leased"]

    await until(idle, within_s)


@asynccontextmanager
async def under_load(
    router: Router,
    folder: Path,
    pagerduty: PagerDutyProcess,
    plan: Plan,
    verdicts: list[Verdict],
    *,
    past_redis: bool = False,
) -> AsyncIterator[Load]:
    """A load while the block runs. Then it ends, everything is delivered, and the verdict is put into `verdicts`."""
    addresses, ledger = folder / "addresses", folder / "ledger"
    addresses.write_text(router.url)
    async with Load(plan, addresses, ledger) as load:
        await until(lambda: load.accepted > 0, 30)
        yield load
        load.stop()
        await load.finished(90)
    await drained(router)
    log, open_alerts = await pagerduty.log(), await pagerduty.open_alerts()
    verdicts.append(judge(read_ledger(ledger), log, open_alerts, grace_ms=120_000, past_redis=past_redis))


def nothing_lost(verdict: Verdict) -> None:
    """What must hold whatever Redis did."""
    assert (verdict.lost, verdict.wrong, verdict.out_of_order) == (0, 0, 0), verdict
    assert verdict.paged > 0, verdict


async def test_away_at_the_start(tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess) -> None:
    redis = RedisServer(program("redis-server"), tmp_path / "redis")
    async with Router(tmp_path / "router", rules, pagerduty.url, redis.url) as router:
        said = await readiness(router)
        assert any("Redis" in text for text in [*said["missing"], *said["warnings"]])
        async with redis:

            async def well() -> bool:
                said = await readiness(router)
                return not said["missing"] and not said["warnings"]

            await until(well, 20)
            assert (await post(router, body(1)))[0] == 202
            await until(lambda: is_open(pagerduty, dedup_key_of(1)))
            assert await redis.command("EXISTS", KEYS.alert + dedup_key_of(1)) == 1


async def test_slow_eaten_and_broken_answers(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, redis: RedisServer, figure: Figure
) -> None:
    verdicts: list[Verdict] = []
    plan = Plan(0, 400, batch=5, rate=100, connections=16, services="search,payment")
    async with (
        FaultProxy(f"127.0.0.1:{redis.port}", seed=3) as proxy,
        Router(tmp_path / "router", rules, pagerduty.url, f"redis://{proxy.address}") as router,
    ):
        async with under_load(router, tmp_path, pagerduty, plan, verdicts, past_redis=True) as load:
            faults: list[Callable[[], None]] = [
                lambda: proxy.slow(5),
                proxy.eat_answers,
                proxy.blackhole,
                proxy.refuse,
                lambda: proxy.cut(900),
            ]
            for begin in faults:
                before = load.accepted
                await until(lambda before=before: load.accepted > before, 30)  # type: ignore[misc]
                begin()
                await asyncio.sleep(3)  # the outage, not a wait for anything
                await proxy.heal()
            longest_ms = load.progress.longest_ms
        assert proxy.answers_eaten > 0
        assert router.is_running
    [verdict] = verdicts
    what = "Redis slow, eating answers, silent, gone"
    figure("G16", f"longest answer to a webhook, ms, {what}", "< 8,000", longest_ms, longest_ms < LONGEST_ANSWER_MS)
    figure("G3", f"alerts lost or wrong, {what}", "0", verdict.lost + verdict.wrong, not verdict.lost + verdict.wrong)
    nothing_lost(verdict)
    assert longest_ms < LONGEST_ANSWER_MS


async def test_full(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, redis: RedisServer, figure: Figure
) -> None:
    """What is accepted drains though nothing fits any more; what does not fit is refused whole."""
    accepted, refused = range(300), range(1000, 1500)
    async with Router(tmp_path / "router", rules, pagerduty.url, redis.url, **REDIS_ONLY) as router:
        await pagerduty.fail(Fault("status", status=500, times=0))
        assert (await post(router, body(*accepted)))[0] == 202
        await until(lambda: _has_sent(pagerduty), 20)
        assert await redis.command("CONFIG", "SET", "maxmemory", "1mb") is not None
        assert (await post(router, body(*refused)))[0] == 503
        keys = [KEYS.alert + dedup_key_of(n) for n in refused]
        half_written = await redis.command("EXISTS", *keys)
        await pagerduty.heal()
        await until(lambda: is_open(pagerduty, *map(dedup_key_of, accepted)), 90)
        await drained(router)
        queues = await router.backlog()
        left = queues["due"] + queues["waiting"] + queues["leased"]
        assert await redis.command("CONFIG", "SET", "maxmemory", "0") is not None
        status, _ = await post(router, body(*refused))
        await until(lambda: is_open(pagerduty, *map(dedup_key_of, refused)), 30)
    figure("G27", "alerts left in the queues of a full Redis", "0", left, left == 0)
    figure("G27", "status of a webhook when there is room again", "202", status, status == 202)
    assert half_written == 0
    assert (left, status) == (0, 202)


async def _has_sent(pagerduty: PagerDutyProcess) -> bool:
    return (await pagerduty.totals())["received"] > 0


async def test_a_wrong_eviction_policy_is_shown(tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess) -> None:
    options = ("--maxmemory-policy", "allkeys-lru", "--appendfsync", "everysec")
    async with (
        RedisServer(program("redis-server"), tmp_path / "redis", *options) as redis,
        Router(tmp_path / "router", rules, pagerduty.url, redis.url) as router,
    ):
        await until(lambda: warns(router, "put `maxmemory-policy noeviction` in redis.conf"), 10)
        assert await warns(router, "put `appendfsync always` in redis.conf")
        assert (await readiness(router))["status"] == "ready"


async def test_the_embedded_one_gives_no_cause_for_warnings(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess
) -> None:
    async with Router(tmp_path / "router", rules, pagerduty.url) as router:
        assert (await post(router, body(1)))[0] == 202
        await until(lambda: is_open(pagerduty, dedup_key_of(1)))
        assert (await readiness(router))["warnings"] == []


async def test_flushall(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, redis: RedisServer, figure: Figure
) -> None:
    """The alarm reaches PagerDuty; resolves of what is forgotten are passed on; what still fires pages."""
    async with (
        Router(tmp_path / "router", rules, pagerduty.url, redis.url) as router,
        Router(tmp_path / "replica", rules, pagerduty.url, redis.url),
    ):
        assert (await post(router, body(1, 2)))[0] == 202
        await until(lambda: is_open(pagerduty, dedup_key_of(1), dedup_key_of(2)))
        await until(lambda: _exists(redis, KEYS.epoch))
        began = asyncio.get_running_loop().time()
        assert await redis.command("FLUSHALL") is not None
        await until(lambda: is_open(pagerduty, "alertrouter:state-lost"), 60)
        took = asyncio.get_running_loop().time() - began
        assert await warns(router, "Redis lost its state")
        assert (await post(router, body(1, status="resolved")))[0] == 202
        assert (await post(router, body(3)))[0] == 202
        await until(lambda: is_open(pagerduty, dedup_key_of(2), dedup_key_of(3)))
        await until(lambda: _is_closed(pagerduty, dedup_key_of(1)))
        pages = [call for call in await pagerduty.log() if call.dedup_key == "alertrouter:state-lost"]
    figure("G31", "seconds until Redis' loss of state pages", "<= 60", round(took, 1), took <= 60)
    assert [call.result for call in pages] == ["opened"]


async def _exists(redis: RedisServer, key: str) -> bool:
    return await redis.command("EXISTS", key) == 1


async def _is_closed(pagerduty: PagerDutyProcess, dedup_key: str) -> bool:
    return not await is_open(pagerduty, dedup_key)


async def test_read_only_loading_and_flushed_scripts(tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess) -> None:
    verdicts: list[Verdict] = []
    plan = Plan(0, 500, batch=5, rate=200, services="search,payment")
    async with (
        RedisServer(program("redis-server"), tmp_path / "redis", *SLOW_TO_LOAD) as redis,
        Router(tmp_path / "router", rules, pagerduty.url, redis.url) as router,
    ):
        async with under_load(router, tmp_path, pagerduty, plan, verdicts) as load:
            flushing = asyncio.create_task(_flush_scripts(redis))
            await _goes_on(load, 200)
            assert await redis.command("REPLICAOF", "127.0.0.1", "1") is not None
            await asyncio.sleep(1)  # the outage, not a wait for anything
            assert await redis.command("REPLICAOF", "NO", "ONE") is not None
            await _goes_on(load, 200)
            flushing.cancel()
            assert await _restart_slowly(redis) > 2
            await _goes_on(load, 200)
        await until(lambda: _has_no_warnings(router), 30)
    [verdict] = verdicts
    nothing_lost(verdict)
    assert "ReadOnlyError" in router.log.read_text()


async def _goes_on(load: Load, alerts: int) -> None:
    before = load.accepted
    await until(lambda: load.accepted >= before + alerts, 30)


async def _has_no_warnings(router: Router) -> bool:
    return not (await readiness(router))["warnings"]


async def _flush_scripts(redis: RedisServer) -> None:
    while True:
        await redis.command("SCRIPT", "FLUSH")
        await asyncio.sleep(0.1)


async def _restart_slowly(redis: RedisServer) -> float:
    """End it and start it again on data that take it seconds to load; returns how many it answered with LOADING."""
    assert await redis.command("DEBUG", "POPULATE", "3000", "filler") is not None
    assert await redis.command("BGREWRITEAOF") is not None

    async def is_rewritten() -> bool:
        info = await redis.command("INFO", "persistence")
        return isinstance(info, dict) and not info["aof_rewrite_in_progress"]

    await until(is_rewritten, 30)
    await redis.end()
    began = asyncio.get_running_loop().time()
    await redis.start()
    return asyncio.get_running_loop().time() - began


async def test_sentinel_splits_off_the_old_master(
    tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, figure: Figure, long: bool
) -> None:
    """The old master still takes what we write, and nobody else hears of it: what only it has is not accepted.

    Kill -9 of a master on one machine loses nothing, because what it sent to its replicas still arrives there. In every
    other round PagerDuty answers 500 during the split, so that what the old master alone knows is not sent in time; in
    the others it answers, so that what the old master alone knows it has sent would stay open.
    """
    rounds = 5 if long else 2
    verdicts: list[Verdict] = []
    accepted: list[int] = []
    gaps: list[float] = []
    plan = Plan(0, 2000, batch=10, rate=200, services="search,payment")
    settings = {**REDIS_ONLY, "ALERTROUTER_REDIS_WAIT_REPLICAS": "1"}
    async with (
        SentinelSet(program("redis-server"), tmp_path / "redis", replicas=2) as sentinels,
        Router(tmp_path / "router", rules, pagerduty.url, sentinels.url, **settings) as router,
        under_load(router, tmp_path, pagerduty, plan, verdicts) as load,
    ):
        split_off = None
        for number in range(rounds):
            await _goes_on(load, 500)
            if split_off is not None:
                await sentinels.heal(split_off)
            if number % 2:
                await pagerduty.fail(Fault("status", status=500, times=0))
            split_off = await sentinels.master()
            await sentinels.cut_off(split_off)
            gaps.append(await _through_the_split(router, sentinels, split_off, accepted))
            await pagerduty.heal()
            await _goes_on(load, 500)
        longest_ms = load.progress.longest_ms
    [verdict] = verdicts
    gap = max(gaps)
    opened = {alert.dedup_key for alert in await pagerduty.open_alerts()}
    lost = verdict.lost + sum(dedup_key_of(number) not in opened for number in accepted)
    figure("G7", f"accepted alerts lost, {rounds} splits with failover", "0", lost, lost == 0)
    figure("G7", "alerts wrong at the end", "0", verdict.wrong, verdict.wrong == 0)
    figure("G7", "seconds until alerts are accepted again", "<= 10", round(gap, 1), gap <= 10)
    figure(
        "G16", "longest answer to a webhook at a failover, ms", "< 8,000", longest_ms, longest_ms < LONGEST_ANSWER_MS
    )
    nothing_lost(verdict)
    assert len(accepted) >= rounds
    assert lost == 0
    assert gap <= 10
    assert longest_ms < LONGEST_ANSWER_MS


async def _through_the_split(router: Router, sentinels: SentinelSet, old: RedisServer, accepted: list[int]) -> float:
    """Post one alert after the other, each another one, until one is accepted though `old` is master no more.

    Adds those that were accepted. Returns the longest time without any.
    """
    loop = asyncio.get_running_loop()
    longest, at = 0.0, loop.time()
    async with asyncio.timeout(60):
        while True:
            replaced = await sentinels.master() is not old
            number = 10**6 + len(accepted)
            if (await post(router, body(number)))[0] == 202:
                accepted.append(number)
                longest, at = max(longest, loop.time() - at), loop.time()
                if replaced:
                    return longest


async def test_cluster(tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess) -> None:
    verdicts: list[Verdict] = []
    plan = Plan(0, 500, batch=10, rate=500, services="search,payment")
    async with (
        Cluster(program("redis-server"), tmp_path / "redis") as cluster,
        Router(tmp_path / "router", rules, pagerduty.url, cluster.url, **REDIS_ONLY) as router,
        Router(tmp_path / "replica", rules, pagerduty.url, cluster.url, **REDIS_ONLY),
    ):
        async with under_load(router, tmp_path, pagerduty, plan, verdicts) as load:
            await _goes_on(load, 1000)
        holds = [await node.command("DBSIZE") for node in cluster.nodes]
        assert (await readiness(router))["warnings"] == []
    [verdict] = verdicts
    nothing_lost(verdict)
    assert sorted(map(bool, holds)) == [False, False, True]


async def test_foreign_data(tmp_path: Path, rules: Path, pagerduty: PagerDutyProcess, redis: RedisServer) -> None:
    """What is not ours under our prefix holds up what needs that key, and nothing is lost by it."""
    async with Router(tmp_path / "router", rules, pagerduty.url, redis.url, **REDIS_ONLY) as router:
        assert await redis.command("SET", KEYS.alert + dedup_key_of(1), "not ours") is not None
        assert (await post(router, body(1, 2)))[0] == 503
        assert (await post(router, body(3)))[0] == 202
        await until(lambda: is_open(pagerduty, dedup_key_of(2), dedup_key_of(3)))
        await _with_foreign(redis, KEYS.due, router, [4], accepted=False)
        await _with_foreign(redis, KEYS.fence, router, [5], accepted=True)
        await until(lambda: is_open(pagerduty, *map(dedup_key_of, (2, 3, 4, 5))), 30)
    assert "WRONGTYPE" in router.log.read_text()


async def _with_foreign(
    redis: RedisServer, key: str, router: Router, numbers: Sequence[int], *, accepted: bool
) -> None:
    """Post while `key` holds what is not ours, then once more when it does not."""
    # between two of our scripts, whatever they keep there just now
    assert await redis.command("EVAL", "redis.call('DEL', KEYS[1]) return redis.call('LPUSH', KEYS[1], 'x')", "1", key)
    assert (await post(router, body(*numbers)))[0] == (202 if accepted else 503)
    await redis.command("DEL", key)

    async def accepts() -> bool:
        return (await post(router, body(*numbers)))[0] == 202

    await until(accepts)  # by now it may have given Redis up, and looks every second whether it is back
