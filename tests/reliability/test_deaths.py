"""Processes that die at a named point of their work: nothing accepted is lost, and what was opened gets closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.payloads import alertmanager_alert, alertmanager_body
from tests.rig.killable import POINTS, Killable
from tests.rig.ledger import dedup_key_of, fingerprint_of
from tests.rig.pagerduty import FakePagerDuty, Fault
from tests.service.conftest import write_rules
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

    def check(self, *, repairs: int = 0) -> None:
        """Every alert opened once and closed once, and what was in flight at a death was sent once more at most.

        `repairs` is how often every send was to be repeated by the way.
        """
        taken = [call for call in self.pagerduty.log if call.taken]
        results = Counter((call.dedup_key, call.result) for call in taken)
        keys = [dedup_key_of(n) for n in range(self.size)]
        assert {key: (results[key, "opened"], results[key, "resolved"]) for key in keys} == dict.fromkeys(keys, (1, 1))
        again = Counter((call.dedup_key, call.action) for call in taken)
        again.subtract((key, action) for key in keys for action in ("trigger", "resolve"))
        assert max(again.values()) <= self._deaths + 2 * repairs
        assert sum(again.values()) <= self._deaths * IN_FLIGHT + repairs * self.size


@pytest.fixture(params=SIZES)
def life(request: pytest.FixtureRequest, tmp_path: Path, rules: Path, pagerduty: FakePagerDuty) -> Life:
    return Life(tmp_path, rules, pagerduty, request.param)


def test_every_point_is_tried() -> None:
    tried = [*ON_THE_WAY, *AT_A_REFUSAL, *AT_A_REPAIR, *AT_THE_START]
    assert {*tried, "none", "beating", "leaving"} == POINTS.keys()


@pytest.mark.parametrize("point", ON_THE_WAY)
async def test_death_on_the_way(life: Life, point: str) -> None:
    slow = Fault("delay", delay_ms=1000, times=0)
    await life.die(point, fault=slow if point == "in_flight" else None)
    life.pagerduty.heal()
    await life.go_on()
    life.check()


@pytest.mark.parametrize("point", AT_A_REFUSAL)
async def test_death_while_an_event_becomes_a_dead_letter(life: Life, point: str) -> None:
    """Whatever was put down of it, it becomes one after the restart; at the next start it is tried again."""
    await life.die(point, fault=REFUSAL)
    await until_dead_letters(life)
    life.pagerduty.heal()
    await life.go_on()
    life.check()


@pytest.mark.parametrize("point", AT_THE_START)
async def test_death_at_the_start(life: Life, point: str) -> None:
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
    life.check()


async def until_dead_letters(life: Life) -> None:
    """Run until all alerts are dead letters, and die."""
    async with life.process() as process:
        await life.send(process)

        async def all_are_put_down() -> bool:
            return await dead_letters(process) >= life.size

        await until(all_are_put_down, within_s=20)
        await process.kill()


@pytest.mark.parametrize("point", AT_A_REPAIR)
async def test_death_during_a_repair(life: Life, point: str) -> None:
    """As many answers as there are alerts are lost: PagerDuty is told again, and once more when nothing old can come."""
    await life.die(point, *WITH_REPAIRS, fault=Fault("reset_after", times=life.size))

    def all_are_repaired() -> bool:
        calls = list(life.pagerduty.log)
        last = {call.dedup_key: call.at for call in calls}
        return all(last[call.dedup_key] >= call.at + REPAIR_AFTER_MS for call in calls if call.fault)

    async with life.process("none", *WITH_REPAIRS) as process:
        await life.send(process)
        await until(all_are_repaired, within_s=20)
    await life.go_on()
    life.check(repairs=2)
