"""More fires than PagerDuty takes: what is urgent goes first, what waits costs next to nothing, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from types import MappingProxyType

import aiohttp
import msgspec
import pytest
from redis.asyncio import Redis

from alertrouter.alarms import OUR_OWN
from alertrouter.alert import Severity
from alertrouter.delivery.judging import ActiveRules
from alertrouter.delivery.worker import Worker
from alertrouter.destinations.pagerduty import Outcome, classify, wall_clock
from alertrouter.rules.evaluate import DEFAULT_DESTINATION
from alertrouter.sandbox.events_api import EventsApi
from alertrouter.store.connect import connect
from alertrouter.store.store import AlertStore
from tests.alerts import HOUR, MINUTE, SECOND, Clock, make_alert
from tests.conftest import program
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.reliability.model import ruleset
from tests.rig.ledger import dedup_key_of, fingerprint_of
from tests.rig.pagerduty import Call, Fault, PagerDutyProcess
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

LIMIT = 110
#: One alert in a hundred is critical; the others are dealt out over the rest.
SEVERITIES = (Severity.CRITICAL, *(Severity.INFO, Severity.WARNING, Severity.ERROR) * 33)


@dataclass
class Scaled:
    """The real store on a real server and the real worker, on a clock that runs as fast as they do.

    taken:  (when, action, dedup_key) of what PagerDuty took; it has its own limit, 120 in any 60 s.
    down:   it answers 503.
    """

    client: Redis
    clock: Clock = field(default_factory=Clock)
    taken: list[tuple[int, str, str]] = field(default_factory=list)
    digests: int = 0
    throttled: int = 0
    down: bool = False

    def __post_init__(self) -> None:
        self.api = EventsApi(calls_per_minute=120)
        self.store = AlertStore(self.client, history_length=0)
        active = ActiveRules(ruleset("normal"), MappingProxyType({DEFAULT_DESTINATION: "d" * 32}))
        self.worker = Worker(self.store, self, lambda: active, self.clock, calls_per_minute=LIMIT)

    async def send(self, body: bytes) -> Outcome:
        """PagerDuty, in this process."""
        now = self.clock()
        if self.down:
            return classify(503, {}, b"", now)
        call = self.api.enqueue(body, now)
        dedup_key = str(call.event["dedup_key"])
        self.throttled += call.status == 429
        if call.status == 202 and dedup_key.partition(":")[0] in OUR_OWN:
            self.digests += 1
        elif call.status == 202:
            self.taken.append((now, str(call.event["event_action"]), dedup_key))
        return classify(call.status, {}, msgspec.json.encode(call.answer), now)

    async def hear(self, *numbers: int, status: str = "firing") -> None:
        """Take alerts in, a hundred at a time."""
        for first in range(0, len(numbers), 100):
            some = numbers[first : first + 100]
            ended = self.clock() if status == "resolved" else 0
            await self.store.accept(
                [make_alert(fingerprint_of(n), status, severity=severity_of(n), ended=ended) for n in some],
                self.clock(),
            )

    async def live(self, ms: int) -> None:
        """Let time pass, a second at a step."""
        for _ in range(ms // SECOND):
            self.clock.advance(SECOND)
            await self.worker.run_until_idle()


def severity_of(number: int) -> Severity:
    return SEVERITIES[number % len(SEVERITIES)]


@asynccontextmanager
async def scaled(redis_url: str) -> AsyncIterator[Scaled]:
    client = connect(redis_url)
    await client.flushall()
    try:
        yield Scaled(client)
    finally:
        await client.aclose()


@asynccontextmanager
async def processes(
    folder: Path,
) -> AsyncIterator[tuple[RedisServer, PagerDutyProcess, Router, aiohttp.ClientSession]]:
    """The same in processes of their own, and somebody to post."""
    async with (
        RedisServer(program("redis-server"), folder / "redis") as redis,
        PagerDutyProcess(calls_per_minute=120) as pagerduty,
        Router(
            folder / "router",
            write_rules(folder / "rules"),
            pagerduty.url,
            redis.url,
            ALERTROUTER_PAGERDUTY_CALLS_PER_MINUTE=str(LIMIT),
        ) as router,
        aiohttp.ClientSession() as session,
    ):
        yield redis, pagerduty, router, session


def inversions(order: list[int]) -> int:
    """How many come after one that is less urgent."""
    worst, found = 0, 0
    for rank in order:
        found += rank < worst
        worst = max(worst, rank)
    return found


def numbers_of(taken: list[tuple[int, str, str]]) -> list[int]:
    known = {dedup_key_of(n): n for n in range(100_000)}
    return [known[dedup_key] for _, _, dedup_key in taken]


@pytest.mark.timeout(600)
async def test_an_hour_without_pagerduty(redis_url: str, figure: Figure) -> None:
    """5,000 alerts on one key, a tenth of them over meanwhile; then it is back, with its limit."""
    async with scaled(redis_url) as world:
        world.down = True
        await world.hear(*range(5000))
        await world.worker.run_until_idle()
        await world.live(30 * MINUTE)
        over = [n for n in range(5000) if n % 10 == 3]
        await world.hear(*over, status="resolved")
        await world.live(30 * MINUTE)
        assert not world.taken
        world.down = False
        back = world.clock()
        while len(world.taken) < 4500 and world.clock() < back + 2 * HOUR:
            await world.live(10 * SECOND)
        fires = {dedup_key_of(n) for n in range(5000) if n % 10 != 3}
        wrong = len(fires ^ {key for _, key in world.api.alerts if key.partition(":")[0] not in OUR_OWN})
        order = [list(Severity).index(severity_of(n)) for n in numbers_of(world.taken)]
        first_s = (world.taken[0][0] - back) / SECOND
        drained_ms = world.taken[-1][0] - back
        calls = len(world.taken) + world.digests
        least_ms = ((calls - 1) // LIMIT) * MINUTE
        took = f"{drained_ms / least_ms:.3f}"
        figure("G9", "alerts wrong, PagerDuty down 1 h, 5,000 alerts, time-scaled", "0", wrong, wrong == 0)
        figure("G9", "alerts sent before a more urgent one", "0", inversions(order), inversions(order) == 0)
        figure("G9", "drained, of the least that the limit allows", "1.05 at most", took, drained_ms <= 1.05 * least_ms)
        figure("G9", "first critical after recovery", "5 s at most", f"{first_s:.0f} s", first_s <= 5)
        assert wrong == 0
        assert inversions(order) == 0
        assert drained_ms <= 1.05 * least_ms
        assert first_s <= 5
        assert world.throttled == 0


@pytest.mark.timeout(3 * 3600)
@pytest.mark.usefixtures("only_long")
async def test_an_hour_without_pagerduty_in_real_time(tmp_path: Path, figure: Figure) -> None:
    """The same as the first of these, in processes of their own: it takes an hour, and what the limit asks for after it."""
    over = [n for n in range(5000) if n % 10 == 3]
    async with processes(tmp_path) as (_, pagerduty, router, session):
        await pagerduty.fail(Fault("status", times=0, status=503))
        await storm(session, router.url, range(5000))
        await asyncio.sleep(30 * 60)
        await storm(session, router.url, over, status="resolved")
        await asyncio.sleep(30 * 60)
        failed = await pagerduty.totals()
        await pagerduty.heal()
        back = wall_clock()
        await until(lambda: are_taken(pagerduty, 5000 - len(over)), within_s=2 * 3600)
        all_calls = [call for call in await pagerduty.log() if call.at >= back]
        log = [call for call in await calls(pagerduty) if call.at >= back]
        open_keys = {alert.dedup_key for alert in await pagerduty.open_alerts()}
        assert await router.end() == 0
    fires = {dedup_key_of(n) for n in set(range(5000)) - set(over)}
    wrong = len(fires ^ {key for key in open_keys if key.partition(":")[0] not in OUR_OWN})
    ranks = {severity.value: rank for rank, severity in enumerate(Severity)}
    last_of = {rank: max(call.at for call in log if ranks[call.severity] == rank) for rank in ranks.values()}
    # many are in flight at once: what arrives within a second may do so in any order
    late = sum(any(last_of[rank] > call.at + SECOND for rank in range(ranks[call.severity])) for call in log)
    first_s = (min(call.at for call in log if call.severity == "critical") - back) / SECOND
    drained_ms = log[-1].at - back
    least_ms = ((len(all_calls) - 1) // LIMIT) * MINUTE
    took = f"{drained_ms / MINUTE:.1f} min, {drained_ms / least_ms:.3f} of the least"
    what = "PagerDuty down 1 h in real time, 5,000 alerts"
    figure("G9", f"{what}: alerts wrong", "0", wrong, wrong == 0)
    figure("G9", f"{what}: sent before a more urgent one", "0", late, late == 0)
    figure("G9", f"{what}: drained in", "44 min at most", took, drained_ms <= 44 * MINUTE)
    figure("G9", f"{what}: first critical after recovery", "5 s at most", f"{first_s:.1f} s", first_s <= 5)
    figure("G9", f"{what}: calls while it was down", "", failed["received"], None)
    assert wrong == 0
    assert late == 0
    assert drained_ms <= 44 * MINUTE
    assert first_s <= 5


@pytest.mark.timeout(600)
async def test_five_thousand_alerts_behind_the_limit(redis_url: str, figure: Figure) -> None:
    """One per cent is critical: all of it goes first. Nothing else goes meanwhile, and what waits stays as large."""
    async with scaled(redis_url) as world:
        await world.hear(*range(5000))
        await world.worker.run_until_idle()
        await world.live(MINUTE)
        sizes, memory = [], []
        while len(world.taken) < 5000:
            await world.live(MINUTE)
            sizes.append((await world.store.backlog(world.clock()))["waiting"])
            memory.append((await world.store.memory())[0])
            assert world.clock() < make_alert().episode_at + 2 * HOUR
        order = [severity_of(n) is Severity.CRITICAL for n in numbers_of(world.taken)]
        late = inversions([0 if is_critical else 1 for is_critical in order])
        figure("storm", "of 5,000 alerts, criticals sent after another class", "0", late, late == 0)
        figure("storm", "digests sent meanwhile", "1 a minute", world.digests, world.digests <= len(sizes) + 2)
        assert late == 0
        assert sizes == sorted(sizes, reverse=True)
        per_alert = (max(memory) - memory[0]) / 5000
        figure(
            "storm",
            "memory of Redis gained per alert that was sent",
            "2 kB at most",
            f"{per_alert:.0f} B",
            per_alert < 2000,
        )
        assert per_alert < 2000, "what was told of it; waiting adds nothing"
        assert len({key for _, _, key in world.taken}) == 5000 == len(world.taken)
        assert world.throttled == 0


async def test_what_waits_costs_next_to_nothing(tmp_path: Path, figure: Figure) -> None:
    """The same in real time and in processes of its own, until the first minute's calls are spent and after."""
    async with processes(tmp_path) as (redis, pagerduty, router, session):
        await storm(session, router.url, range(5000))
        await until(lambda: has_taken(pagerduty, LIMIT), within_s=30)
        await until(lambda: is_waiting(redis, 5000 - LIMIT), within_s=30)
        before, began, memory = await commands(redis), monotonic(), resident_mb(router)
        await asyncio.sleep(20)  # what is measured is that nothing happens
        per_second = ((await commands(redis)) - before) / (monotonic() - began)
        grown_mb = resident_mb(router) - memory
        figure(
            "storm",
            "commands to Redis while 4,890 wait, inside scripts too",
            "< 50/s",
            f"{per_second:.0f}/s",
            per_second < 50,
        )
        figure("storm", "memory gained in 20 s of waiting", "1 MB at most", f"{grown_mb:.1f} MB", grown_mb <= 1)
        assert per_second < 50
        assert grown_mb <= 1


@pytest.mark.timeout(900)
async def test_a_storm_is_taken_in_whole(tmp_path: Path, figure: Figure, long: bool) -> None:
    """Distinct alerts in batches of a hundred, as fast as they are taken.

    The first calls are spent on what came first; from then on every critical goes before anything else.
    """
    size, p99_most, resident_most, redis_most = (100_000, 1.0, 500, 400) if long else (20_000, 0.5, 300, 400)
    async with processes(tmp_path) as (redis, pagerduty, router, session):
        began = monotonic()
        took = sorted(await storm(session, router.url, range(size)))
        seconds = monotonic() - began
        p99 = took[len(took) * 99 // 100]
        criticals = size // 100
        await until(lambda: are_critical(pagerduty, criticals), within_s=60 + 60 * criticals / 100)
        log = await calls(pagerduty)
        await until(lambda: is_waiting(redis, size - len(log)), within_s=60)
        sent = [call.severity for call in await calls(pagerduty)][LIMIT:]
        before = inversions([0 if severity == "critical" else 1 for severity in sent])
        resident, used = resident_mb(router), int((await info(redis))["used_memory"]) / 1e6
        assert await router.end() == 0
    what = f"storm of {size:,} alerts"
    figure("G11", f"{what}: accepted and not lost, in {seconds:.0f} s", f"{size:,}", size, seconds <= 60)
    figure("G11", f"{what}: accept p99", f"< {p99_most * 1000:.0f} ms", f"{p99 * 1000:.0f} ms", p99 < p99_most)
    figure(
        "G11", f"{what}: memory of alertrouter", f"< {resident_most} MB", f"{resident:.0f} MB", resident < resident_most
    )
    figure("G11", f"{what}: memory of Redis", f"< {redis_most} MB", f"{used:.0f} MB", used < redis_most)
    figure("G11", f"{what}: criticals sent after another class", "0", before, before == 0)
    assert before == 0
    assert resident < resident_most
    assert used < redis_most
    assert p99 < p99_most


# --- what is asked of the processes ----------------------------------------------------------------------------------


async def storm(
    session: aiohttp.ClientSession, url: str, numbers: Sequence[int], status: str = "firing"
) -> list[float]:
    """Post these alerts, a hundred in each body, four bodies at once. Returns how long each body took (s)."""
    took: list[float] = []
    firsts = iter(range(0, len(numbers), 100))

    async def post() -> None:
        for first in firsts:
            body = alertmanager_body(
                *(
                    {
                        **alertmanager_alert(status=status, n=str(n), severity=severity_of(n).value),
                        "fingerprint": fingerprint_of(n),
                    }
                    for n in numbers[first : first + 100]
                )
            )
            began = monotonic()
            async with session.post(f"{url}/webhooks/alertmanager", data=body) as answer:
                assert answer.status == 202, await answer.text()
            took.append(monotonic() - began)

    await asyncio.gather(*(post() for _ in range(4)))
    return took


async def calls(pagerduty: PagerDutyProcess) -> list[Call]:
    """What PagerDuty took, without what is of our own; nothing was refused for its limit."""
    log = list(await pagerduty.log())
    assert not any(call.result == "throttled" for call in log)
    return [call for call in log if call.dedup_key.partition(":")[0] not in OUR_OWN]


async def has_taken(pagerduty: PagerDutyProcess, number: int) -> bool:
    return (await pagerduty.totals())["received"] >= number


async def are_taken(pagerduty: PagerDutyProcess, number: int) -> bool:
    """Whether so many alerts are open, without what is of our own."""
    is_own = [alert.dedup_key.partition(":")[0] in OUR_OWN for alert in await pagerduty.open_alerts()]
    return is_own.count(False) >= number


async def are_critical(pagerduty: PagerDutyProcess, number: int) -> bool:
    return sum(call.severity == "critical" for call in await calls(pagerduty)) == number


async def is_waiting(redis: RedisServer, least: int) -> bool:
    """Whether all is judged, and what was not sent waits: nothing of it is lost."""
    async with connect(redis.url) as client:
        backlog = await AlertStore(client).backlog(wall_clock())
    return backlog["due"] <= 5 and backlog["waiting"] >= least - 5


async def info(redis: RedisServer) -> dict[str, int]:
    async with connect(redis.url) as client:
        found: dict[str, int] = await client.info()
    return found


async def commands(redis: RedisServer) -> int:
    """How many commands Redis has run, those that scripts call included."""
    return (await info(redis))["total_commands_processed"]


def resident_mb(router: Router) -> float:
    assert router._process is not None
    status = Path(f"/proc/{router._process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
