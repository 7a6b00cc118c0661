"""alertrouter that ends at a named point of its work. The product has no hook: its seams are wrapped from outside.

    python -m tests.rig.killable POINT [--after N] [--times N] [--later] [--act kill|stop|raise] [--only DEDUP_KEY]
                                       [--repair-after-ms MS] serve [options of alertrouter serve]

The command line's own `main` runs. When POINT is passed for the N-th time (with --later: after SIGUSR1), the process
sends itself SIGKILL or SIGSTOP, or raises a RuntimeError there. `Killable` is that as a process of a test.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib import import_module
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import aiohttp
from redis.asyncio.connection import AbstractConnection

from alertrouter import record
from alertrouter.alert import Alert
from alertrouter.cli import main
from alertrouter.delivery import judging
from alertrouter.destinations.pagerduty import PagerDutyClient
from alertrouter.record import Record, State, Told
from alertrouter.store.store import AlertStore, Claim, Judged, Result, Settlement
from alertrouter.web import webhooks
from tests.process import ROUTING_KEY, Process
from tests.waiting import until

#: Every point, in the order an alert passes them.
POINTS = {
    "none": "never passed",
    "body": "a request came; its body is not read",
    "parsed": "its alerts are known; nothing is stored",
    "accept_sent": "the script that stores them is on its way; its answer is not read",
    "accept_answered": "one call of that script is answered; a large request needs another",
    "accepted": "all is stored; the 202 is not sent",
    "claimed": "records are leased to be judged",
    "evaluating": "one is about to be shown to the rules",
    "judging": "they are judged; nothing of it is put down",
    "judged_sent": "that is on its way; its answer is not read",
    "judged": "that is put down; nothing is leased to be sent",
    "claim_sends_sent": "leasing sends; its answer is not read",
    "leased": "sends are leased; none is begun",
    "sending": "a POST is about to begin",
    "in_flight": "a POST is under way; its answer is not read",
    "answered": "PagerDuty took the event; that is not put down",
    "settle_sent": "that is on its way; its answer is not read",
    "settled": "that is put down",
    "refusing": "PagerDuty refused the event; there is no dead letter yet",
    "refused": "there is a dead letter",
    "repairing": "a repair is leased; its POST is not begun",
    "repaired": "PagerDuty took the repair; that is not put down",
    "beating": "the worker is about to say that it lives",
    "voided": "at the start: the leases of the dead have fallen",
    "recalling": "at the start: what rules kept back is about to become due",
    "recall_answered": "at the start: one call of the script that does it is answered",
    "recalled": "at the start: all of it is due",
    "leaving": "at the end: the leases are about to be given up",
}
#: uvloop writes at the end of its round, and whoever is written to needs a moment to read.
_ON_ITS_WAY_S = 0.05
#: How each script begins.
_HEADER = re.compile(r"^-- (\w+): ", re.MULTILINE)


class _Fuse:
    """Counts how often the point is passed, and acts from the `after`-th time on, `times` times."""

    def __init__(self, point: str, after: int, times: int, act: str, *, armed: bool) -> None:
        self._point = point
        self._armed = armed
        self._first = after
        self._last = after + times - 1
        self._act = act
        self._passed = 0

    def arm(self, *_: object) -> None:
        self._armed = True
        print('{"event": "armed"}', flush=True)  # noqa: T201

    def pass_(self, point: str) -> None:
        if not self.is_for(point):
            return
        self._passed += 1
        if not self._first <= self._passed <= self._last:
            return
        if self._act == "raise":
            raise RuntimeError(f"raised on purpose at {point}")
        os.kill(os.getpid(), signal.SIGKILL if self._act == "kill" else signal.SIGSTOP)

    def is_for(self, point: str) -> bool:
        return self._armed and point == self._point


def _around(
    holder: Any,
    name: str,
    pass_: Callable[[str], None],
    *,
    before: Callable[..., Sequence[str]] = lambda *_: (),
    after: Callable[..., Sequence[str]] = lambda *_: (),
) -> None:
    """Wrap a coroutine function: `before` and `after` (which gets the result, too) name the points it passes."""
    original = getattr(holder, name)

    @functools.wraps(original)
    async def wrapped(*args: Any, **named: Any) -> Any:
        for point in before(*args):
            pass_(point)
        result = await original(*args, **named)
        for point in after(result, *args):
            pass_(point)
        return result

    setattr(holder, name, wrapped)


def _wrap_requests(fuse: _Fuse) -> None:
    _around(webhooks, "read_body", fuse.pass_, before=lambda *_: ["body"])


def _wrap_store(fuse: _Fuse) -> None:
    def claimed(result: tuple[list[Record], int], *_: object) -> list[str]:
        return ["claimed"] if result[0] else []

    def leased(result: tuple[list[Claim], int], *_: object) -> list[str]:
        return [*(["leased"] if result[0] else []), *(["repairing"] if any(map(_is_repair, result[0])) else [])]

    def ended(_: AlertStore, settlement: Settlement, now: int) -> list[str]:
        if settlement.result is Result.REFUSED:
            return ["refusing"]
        if settlement.result is Result.DELIVERED:
            return ["answered", *(["repaired"] if _is_repair(settlement.claim) else [])]
        return []

    def settled(_: bool, __: AlertStore, settlement: Settlement, now: int) -> list[str]:
        return {Result.DELIVERED: ["settled"], Result.REFUSED: ["refused"]}.get(settlement.result, [])

    def judged(_: None, __: AlertStore, batch: Sequence[Judged], now: int) -> list[str]:
        return ["judged"]

    _around(AlertStore, "accept", fuse.pass_, before=lambda *_: ["parsed"], after=lambda *_: ["accepted"])
    _around(AlertStore, "claim_due", fuse.pass_, after=claimed)
    _around(AlertStore, "judged", fuse.pass_, before=lambda *_: ["judging"], after=judged)
    _around(AlertStore, "claim_sends", fuse.pass_, after=leased)
    _around(AlertStore, "settle", fuse.pass_, before=ended, after=settled)
    _around(AlertStore, "beat", fuse.pass_, before=lambda *_: ["beating"])
    _around(AlertStore, "void_leases", fuse.pass_, after=lambda *_: ["voided"])
    _around(AlertStore, "recall", fuse.pass_, before=lambda *_: ["recalling"], after=lambda *_: ["recalled"])
    _around(AlertStore, "leave", fuse.pass_, before=lambda *_: ["leaving"])


def _is_repair(claim: Claim) -> bool:
    told: Told = claim.record.told_of(claim.destination)
    return told.unsure > 0 and told.state is not State.NOTHING and told.version >= claim.record.version


def _wrap_scripts(fuse: _Fuse) -> None:
    """`<script>_sent` and `<script>_answered`, on the connection itself.

    A script is known from when its text was sent: a call by its hash alone may meet a server that lacks it.
    """
    names: dict[str, str] = {}  # by hash
    asked: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # the script that a connection waits for
    connection: Any = AbstractConnection
    send, read = connection.send_command, connection.read_response

    async def send_command(self: Any, *args: Any, **named: Any) -> None:
        await send(self, *args, **named)
        if args[0] == "EVAL" and (header := _HEADER.search(args[1])):
            names[sha1(args[1].encode(), usedforsecurity=False).hexdigest()] = asked[self] = header[1]
        elif args[0] == "EVALSHA" and args[1] in names:
            asked[self] = names[args[1]]
        else:
            return
        if fuse.is_for(point := f"{asked[self]}_sent"):
            await asyncio.sleep(_ON_ITS_WAY_S)
            fuse.pass_(point)

    async def read_response(self: Any, *args: Any, **named: Any) -> Any:
        script = asked.pop(self, "")
        answer = await read(self, *args, **named)
        fuse.pass_(f"{script}_answered")
        return answer

    connection.send_command = send_command
    connection.read_response = read_response


def _wrap_destinations(fuse: _Fuse) -> None:
    _around(PagerDutyClient, "send", fuse.pass_, before=lambda *_: ["sending"])
    response: Any = aiohttp.ClientResponse
    start = response.start

    async def start_reading(self: Any, connection: Any) -> Any:
        if fuse.is_for("in_flight"):
            await asyncio.sleep(_ON_ITS_WAY_S)
            fuse.pass_("in_flight")
        return await start(self, connection)

    response.start = start_reading


def _wrap_rules(fuse: _Fuse, only: str) -> None:
    rules: Any = judging
    evaluate = rules.evaluate

    def evaluated(alert: Alert, *args: Any, **named: Any) -> Any:
        if only in ("", alert.dedup_key):
            fuse.pass_("evaluating")
        return evaluate(alert, *args, **named)

    rules.evaluate = evaluated


def _repair_after(ms: int) -> None:
    """Let repairs come that soon, whoever knows the number: 90 s are too long to wait for in a test."""
    import_module("alertrouter.app")  # which loads them all
    module: Any
    for name, module in list(sys.modules.items()):
        if name.startswith("alertrouter.") and hasattr(module, "REPAIR_AFTER_MS"):
            module.REPAIR_AFTER_MS = ms


class Killable(Process):
    """`alertrouter serve` that ends at a point. `async with` waits until it listens, or has already ended."""

    def __init__(
        self, folder: Path, rules: Path, pagerduty_url: str, point: str, *options: str, **environ: str
    ) -> None:
        """`options` are those of this module; `environ` are settings of alertrouter."""
        addressed = {"PAGERDUTY_EVENTS_URL": pagerduty_url, "PAGERDUTY_ROUTING_KEY": ROUTING_KEY}
        super().__init__(
            folder, rules, None, **{f"ALERTROUTER_{name}": value for name, value in addressed.items()}, **environ
        )
        self._command = (sys.executable, "-m", "tests.rig.killable", point, *options, "serve")

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self._listening = asyncio.Event()
        self._readers = [
            asyncio.create_task(self._read(self._process.stderr)),
            asyncio.create_task(self._read(self._process.stdout)),
        ]
        listening, ended = asyncio.create_task(self._listening.wait()), asyncio.create_task(self._process.wait())
        async with asyncio.timeout(30):
            await asyncio.wait([listening, ended], return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        ended.cancel()
        if self._process.returncode is not None:
            await self.died()
        return self

    async def arm(self) -> None:
        """Let a point given with --later count from now on."""
        self.signal(signal.SIGUSR1)
        await until(lambda: any(entry["event"] == "armed" for entry in self.log))

    @property
    def is_frozen(self) -> bool:
        """True while it has stopped itself. Linux only."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    async def died(self, within_s: float = 20.0) -> None:
        """Wait until it has killed itself."""
        async with asyncio.timeout(within_s):
            code = await self._process.wait()
            await asyncio.gather(*self._readers)
        assert code == -signal.SIGKILL, f"ended with {code}: {self.output[-20:]}"


def _start() -> None:
    words = argparse.ArgumentParser(prog="python -m tests.rig.killable")
    words.add_argument("point", choices=POINTS)
    words.add_argument("--after", type=int, default=1, help="act when it is passed for this time")
    words.add_argument("--times", type=int, default=1, help="and so many times")
    words.add_argument("--later", action="store_true", help="count from SIGUSR1 on")
    words.add_argument("--act", choices=["kill", "stop", "raise"], default="kill")
    words.add_argument("--only", default="", help="`evaluating` counts only for this dedup_key")
    words.add_argument("--repair-after-ms", type=int, default=record.REPAIR_AFTER_MS)
    at = sys.argv.index("serve")
    asked = words.parse_args(sys.argv[1:at])
    fuse = _Fuse(asked.point, asked.after, asked.times, asked.act, armed=not asked.later)
    signal.signal(signal.SIGUSR1, fuse.arm)
    _wrap_requests(fuse)
    _wrap_store(fuse)
    _wrap_scripts(fuse)
    _wrap_destinations(fuse)
    _wrap_rules(fuse, asked.only)
    _repair_after(asked.repair_after_ms)
    main(sys.argv[at:])


if __name__ == "__main__":
    _start()
