"""Processes that die at a named point of their work: nothing accepted is lost, and what was opened gets closed."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import aiohttp
import pytest

from alertrouter.sandbox import Sandbox
from alertrouter.store.store import FAILURES_IN_A_ROW, MOST_TAKEOVERS
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.rig.killable import POINTS, Killable
from tests.rig.ledger import dedup_key_of, fingerprint_of, read_ledger
from tests.rig.load import Load, Plan
from tests.rig.oracle import judge
from tests.rig.pagerduty import FakePagerDuty, Fault
from tests.rig.servers import Router, write_rules
from tests.waiting import until

PATH = "/webhooks/alertmanager"
SIZES = (1, 500)
#: What may be in flight at once, by default, and so be sent again after a death.
IN_FLIGHT = 64
REPAIR_AFTER_MS = 2000
REFUSAL = Fault("status", status=400, times=0)
WITH_REPAIRS = ("--repair-after-ms", str(REPAIR_AFTER_MS))

ON_THE_WAY = [
    *("body", "parsed", "accept_sent", "accept_answered", "accepted", "claimed", "evaluating", "judging"),
    *("judged_sent", "judged", "claim_sends_sent", "leased", "sending", "in_flight", "answered"),
    *("settle_sent", "settled"),
]
AT_A_REFUSAL = ["refusing", "refused"]
AT_A_REPAIR = ["repairing", "repaired"]
AT_THE_START = ["voided", "recalling", "recall_answered", "recalled"]
TRIED = [*ON_THE_WAY, *AT_A_REFUSAL, *AT_A_REPAIR, *AT_THE_START]


def webhook(resolved: range, firing: range) -> bytes:
    """One webhook with all these alerts."""
    numbered = [*((n, "resolved") for n in resolved), *((n, "firing") for n in firing)]
    return alertmanager_body(
        *({**alertmanager_alert(status=status, n=str(n)), "fingerprint": fingerprint_of(n)} for n, status in numbered)
    )


async def is_accepted(process: Killable, content: bytes) -> bool:
    """Post, and say whether the sender may forget it. A connection that breaks is none to trust."""
    try:
        return await process.post(PATH, content) == 202
    except aiohttp.ClientError:
        return False


async def dead_letters(process: Killable) -> int:
    """How many there are."""
    async with aiohttp.ClientSession() as session, session.get(process.url + "/metrics") as response:
        lines = (await response.text()).splitlines()
    [line] = [line for line in lines if line.startswith("alertrouter_queue") and "dead_letters" in line]
    return int(float(line.split()[-1]))


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write_rules(tmp_path / "rules")


@pytest.fixture
async def pagerduty() -> AsyncIterator[FakePagerDuty]:
    async with FakePagerDuty() as pagerduty:
        yield pagerduty


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


class Life:
    """A service that dies over one webhook and comes back with what it had on disk, before one PagerDuty.

    Of `size` alerts in the webhook half are firing for the first time; the others were opened before and resolve.
    """

    def __init__(self, folder: Path, rules: Path, pagerduty: FakePagerDuty, size: int) -> None:
        self._folder = folder
        self._rules = rules
        self._opened_before = False
        self._owed = True  # the sender has no 202 for the webhook
        self._deaths = 0
        self.pagerduty = pagerduty
        self.size = size
        self.resolving, self.firing = range(size // 2), range(size // 2, size)

    def process(self, point: str = "none", *options: str) -> Killable:
        return Killable(self._folder, self._rules, self.pagerduty.url, point, *options)

    async def prepare(self, process: Killable) -> None:
        """Open what is to resolve."""
        if self.resolving and not self._opened_before:
            assert await process.post(PATH, webhook(range(0), self.resolving)) == 202
            await self.until_open(self.resolving)
        self._opened_before = True

    async def send(self, process: Killable) -> None:
        """What the sender does until it is told 202."""
        if self._owed:
            self._owed = not await is_accepted(process, webhook(self.resolving, self.firing))

    async def die(self, point: str, *options: str, fault: Fault | None = None) -> None:
        """Die at `point` over the webhook. What `fault` does it does from then on."""
        self._deaths += 1
        async with self.process(point, "--later", *options) as process:
            await self.prepare(process)
            if fault is not None:
                self.pagerduty.fail(fault)
            await process.arm()
            await self.send(process)
            await process.died()

    async def die_at_the_start(self, point: str) -> None:
        """Die at `point` before anything can be posted."""
        self._deaths += 1
        async with self.process(point) as process:
            await process.died()

    async def until_open(self, alerts: range) -> None:
        """Wait until these are open, and nothing else is."""
        keys = {dedup_key_of(n) for n in alerts}
        await until(lambda: {alert.dedup_key for alert in self.pagerduty.open_alerts()} == keys, within_s=20)

    async def go_on(self) -> None:
        """Come back: what fires is open and nothing else is, until it resolves."""
        async with self.process() as process:
            await self.send(process)
            assert not self._owed
            await self.until_open(self.firing)
            assert await process.post(PATH, webhook(self.firing, range(0))) == 202
            await self.until_open(range(0))
            assert await process.terminate() == 0

    def check(self, figure: Figure, *, repairs: int = 0) -> None:
        """Every alert opened once and closed once, and what was in flight at a death was sent once more at most.

        `repairs` is how often every send was to be repeated by the way.
        """
        taken = [call for call in self.pagerduty.log if call.taken]
        results = Counter((call.dedup_key, call.result) for call in taken)
        keys = [dedup_key_of(n) for n in range(self.size)]
        wrong = [key for key in keys if (results[key, "opened"], results[key, "resolved"]) != (1, 1)]
        figure("G4", f"lost or wrong, {len(TRIED)} kill points, {self.size} alerts", "0", len(wrong), not wrong)
        assert not wrong
        again = Counter((call.dedup_key, call.action) for call in taken)
        again.subtract((key, action) for key in keys for action in ("trigger", "resolve"))
        # one extra send per death, and only of what was in flight
        too_often = sum(max(times - self._deaths - 2 * repairs, 0) for times in again.values())
        too_many = max(sum(again.values()) - self._deaths * IN_FLIGHT - repairs * self.size, 0)
        figure(
            "G6",
            f"needless sends, {len(TRIED)} kill points, {self.size} alerts",
            "0",
            too_often + too_many,
            not (too_often + too_many),
        )
        assert not too_often
        assert not too_many


@pytest.fixture(params=SIZES)
def life(request: pytest.FixtureRequest, tmp_path: Path, rules: Path, pagerduty: FakePagerDuty) -> Life:
    return Life(tmp_path, rules, pagerduty, request.param)


def test_every_point_is_tried() -> None:
    assert {*TRIED, "none", "beating", "leaving"} == POINTS.keys()


@pytest.mark.parametrize("point", ON_THE_WAY)
async def test_death_on_the_way(life: Life, point: str, figure: Figure) -> None:
    slow = Fault("delay", delay_ms=1000, times=0)
    await life.die(point, fault=slow if point == "in_flight" else None)
    life.pagerduty.heal()
    await life.go_on()
    life.check(figure)


@pytest.mark.parametrize("point", AT_A_REFUSAL)
async def test_death_while_an_event_becomes_a_dead_letter(life: Life, point: str, figure: Figure) -> None:
    """Whatever was put down of it, it becomes one after the restart; at the next start it is tried again."""
    await life.die(point, fault=REFUSAL)
    await until_dead_letters(life)
    life.pagerduty.heal()
    await life.go_on()
    life.check(figure)


@pytest.mark.parametrize("point", AT_THE_START)
async def test_death_at_the_start(life: Life, point: str, figure: Figure) -> None:
    if point == "voided":
        await life.die("leased")
    else:
        async with life.process() as process:
            await life.prepare(process)
            life.pagerduty.fail(REFUSAL)
        await until_dead_letters(life)
        life.pagerduty.heal()
    await life.die_at_the_start(point)
    await life.go_on()
    life.check(figure)


async def until_dead_letters(life: Life) -> None:
    """Run until all alerts are dead letters, and die."""
    async with life.process() as process:
        await life.send(process)

        async def all_are_put_down() -> bool:
            return await dead_letters(process) >= life.size

        await until(all_are_put_down, within_s=20)
        await process.kill()


@pytest.mark.parametrize("point", AT_A_REPAIR)
async def test_death_during_a_repair(life: Life, point: str, figure: Figure) -> None:
    """Answers are lost, as many as may be before a key is only tried: PagerDuty is told again, and once more later."""
    lost = min(life.size, FAILURES_IN_A_ROW)
    await life.die(point, *WITH_REPAIRS, fault=Fault("reset_after", times=lost))

    def all_are_repaired() -> bool:
        calls = list(life.pagerduty.log)
        last = {call.dedup_key: call.at for call in calls}
        return all(last[call.dedup_key] >= call.at + REPAIR_AFTER_MS for call in calls if call.fault)

    async with life.process("none", *WITH_REPAIRS) as process:
        await life.send(process)
        await until(all_are_repaired, within_s=20)
    await life.go_on()
    life.check(figure, repairs=2)


RAISING = ["judging", "leased", "sending", "answered", "beating"]


async def test_a_worker_that_raises(tmp_path: Path, rules: Path, pagerduty: FakePagerDuty) -> None:
    """At each of its steps: it says so and goes on, and what it held is delivered when its lease ends."""
    await asyncio.gather(
        *(_goes_on(tmp_path / point, rules, pagerduty, point, number) for number, point in enumerate(RAISING))
    )


async def _goes_on(folder: Path, rules: Path, pagerduty: FakePagerDuty, point: str, number: int) -> None:
    alert, key = range(number, number + 1), dedup_key_of(number)

    def is_open() -> bool:
        return any(alert.dedup_key == key for alert in pagerduty.open_alerts())

    async with Killable(folder, rules, pagerduty.url, point, "--act", "raise") as process:
        assert await process.post(PATH, webhook(range(0), alert)) == 202
        await until(is_open, within_s=40)
        await until(
            lambda: any("raised on purpose" in str(entry) for entry in process.log if entry["level"] == "error")
        )
        assert await process.post(PATH, webhook(alert, range(0))) == 202
        await until(lambda: not is_open(), within_s=40)
        assert await process.terminate() == 0


async def test_an_alert_that_kills_its_worker(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    """It is told in a minimal form after some deaths; all others are told as ever, and the process stays up."""
    size = 40
    poison = dedup_key_of(7)
    content = webhook(range(0), range(size))
    owed = True
    deaths = 0

    def told() -> dict[str, str]:
        return {call.event["dedup_key"]: call.title for call in sandbox.events}

    while True:
        async with Killable(tmp_path, rules, sandbox.url, "evaluating", "--only", poison) as process:
            if owed:
                owed = not await is_accepted(process, content)
            died = asyncio.create_task(process.died(within_s=30))
            all_told = asyncio.create_task(until(lambda: len(told()) == size, within_s=30))
            await asyncio.wait([died, all_told], return_when=asyncio.FIRST_COMPLETED)
            all_told.cancel()
            if died.done():
                deaths += 1
                assert deaths <= 2 * MOST_TAKEOVERS, f"it goes on dying; told are {len(told())}"
                continue
            died.cancel()
            assert await process.post(PATH, webhook(range(size), range(0))) == 202
            await sandbox.wait_for(lambda events: sum(call.result == "resolved" for call in events) == size, 20)
            assert await dead_letters(process) == 1, "somebody is to see why"
            assert await process.terminate() == 0
            break
    in_full = {key for key, summary in told().items() if summary.startswith("HighErrorRate")}
    assert in_full == {dedup_key_of(n) for n in range(size)} - {poison}


async def test_sigterm_under_load(tmp_path: Path, rules: Path, pagerduty: FakePagerDuty, figure: Figure) -> None:
    """500 requests a second, and PagerDuty takes its time: what was accepted is delivered by the next process."""
    addresses, ledger = tmp_path / "addresses", tmp_path / "ledger"
    plan = Plan(0, identities=2000, batch=1, rate=500, connections=16)
    async with Router(tmp_path / "router", rules, pagerduty.url) as router, aiohttp.ClientSession() as session:
        addresses.write_text(router.url)
        async with Load(plan, addresses, ledger) as load:
            await until(lambda: load.accepted >= 1500, within_s=30)
            async with session.get(router.url + "/-/ready") as answer:  # this connection stays
                assert answer.status == 200
            pagerduty.fail(Fault("delay", delay_ms=2000, times=0))
            seen = pagerduty.totals()["received"]
            await until(lambda: pagerduty.totals()["received"] > seen)
            began = monotonic()
            ending = asyncio.create_task(router.end(signal.SIGTERM))

            async def says_no(method: str, path: str) -> bool:
                async with session.request(method, router.url + path, data=webhook(range(0), range(1))) as answer:
                    return answer.status == 503

            await until(lambda: says_no("GET", "/-/ready"))
            asked = monotonic()
            assert await says_no("POST", PATH), "what comes now is to come again"
            answered_s = monotonic() - asked
            assert not ending.done()
            code = await ending
            took_s = monotonic() - began
            pagerduty.heal()
            accepted = load.accepted
            await router.start()
            addresses.write_text(router.url)
            await until(lambda: load.accepted >= accepted + 500, within_s=30)
            load.stop()
            await load.finished(within_s=30)

        async def is_idle() -> bool:
            queues = await router.backlog()
            return bool(queues) and not queues["due"] + queues["waiting"] + queues["leased"]

        await until(is_idle, within_s=60)
    verdict = judge(read_ledger(ledger), pagerduty.log, pagerduty.open_alerts())
    figure(
        "G17",
        "exit code and seconds of a SIGTERM under 500 requests/s",
        "0, < 25",
        f"{code}, {took_s:.1f}",
        took_s < 25,
    )
    figure("G17", "accepted alerts lost or wrong", "0", verdict.lost + verdict.wrong, verdict.lost + verdict.wrong == 0)
    assert (code, verdict.lost, verdict.wrong, verdict.false_pages) == (0, 0, 0, 0), str(verdict)
    assert took_s < 25
    assert answered_s < 1


@pytest.mark.parametrize("how", ["killed while it drains", "killed when it has drained"])
async def test_sigkill_after_sigterm(tmp_path: Path, rules: Path, pagerduty: FakePagerDuty, how: str) -> None:
    """The grace was too short: as good as any other death."""
    life = Life(tmp_path, rules, pagerduty, 1)
    slow = Fault("delay", delay_ms=5000 if how == "killed while it drains" else 500, times=0)
    pagerduty.fail(slow)
    async with life.process("leaving") as process:
        await life.send(process)
        await until(lambda: pagerduty.totals()["received"] == 1)
        process.signal(signal.SIGTERM)
        await until(lambda: any(entry["event"] == "draining" for entry in process.log))
        if how == "killed while it drains":
            await process.kill()
        else:
            await process.died()
    pagerduty.heal()
    await life.go_on()
