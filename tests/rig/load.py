"""A sender as Alertmanager is one: posts alerts, repeats whatever was not acknowledged, and writes down what was.

`python -m tests.rig.load` runs it as a process; it prints its progress as lines of JSON, the last with `done` true.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
import uvloop

from alertrouter.alert import Severity, Status
from alertrouter.destinations.pagerduty import wall_clock
from tests.rig.ledger import Heard, Ledger, fingerprint_of

REPOSITORY = Path(__file__).parents[2]

_POST_TIMEOUT_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_REPORT_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send.

    alerts:      how many to have acknowledged; 0 for as many as there is time for.
    identities:  how many alerts there are; each fires, repeats, changes its severity and resolves, over and over.
    batch:       alerts per webhook.
    rate:        alerts per second at most; 0 for no limit.
    critical, error, warning, info:  how often each severity is drawn, as weights.
    repeats, changes:                one in so many times a firing alert is repeated, or changes its severity; 0 never.
    services:    comma-separated `service` labels, dealt out over the identities.
    """

    alerts: int
    identities: int = 1000
    batch: int = 10
    connections: int = 8
    rate: float = 0.0
    seed: int = 0
    critical: int = 2
    error: int = 2
    warning: int = 3
    info: int = 3
    repeats: int = 8
    changes: int = 8
    services: str = "search"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is.

    accepted:    alerts acknowledged and on disk.
    statuses:    answers by status.
    broken:      posts that ended without an answer.
    longest_ms:  the longest that an answer took.
    oldest_ms:   how long the oldest post under way has been waiting for its answer.
    """

    accepted: int
    statuses: dict[str, int]
    broken: int
    longest_ms: int
    oldest_ms: int
    done: bool


class Load:
    """The sender as a process of its own.

    addresses:  a file with one base address of alertrouter per line, read at the start and after every error.
    ledger:     the file that gets the acknowledged alerts.
    """

    def __init__(self, plan: Plan, addresses: Path, ledger: Path) -> None:
        self._plan = plan
        self._addresses = addresses
        self._ledger = ledger
        self.progress = Progress(0, {}, 0, 0, 0, done=False)

    async def __aenter__(self) -> Self:
        options = [f"--{name}={value}" for name, value in asdict(self._plan).items()]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.rig.load", "--until-eof", *options),
            *(f"--addresses={self._addresses}", f"--ledger={self._ledger}"),
            stdin=asyncio.subprocess.PIPE,  # closed when we die, which ends it
            stdout=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._reading.done():  # to signal what has ended by itself makes asyncio lose its exit code
            self._process.kill()
        await self._process.wait()
        await self._reading

    @property
    def accepted(self) -> int:
        """How many alerts were acknowledged so far."""
        return self.progress.accepted

    def stop(self) -> None:
        """Begin nothing new; what was posted is still repeated until it is acknowledged."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def finished(self, within_s: float) -> Progress:
        """Wait until everything that was posted is acknowledged. AssertionError if that takes too long."""
        await asyncio.wait([self._reading], timeout=within_s)
        assert self.progress.done, f"not everything was acknowledged: {self.progress}"
        return self.progress

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.progress = Progress(**json.loads(line))


@dataclass(slots=True)
class _Identity:
    """One alert's life as its sender knows it."""

    number: int
    service: str
    status: Status = Status.RESOLVED
    severity: Severity = Severity.INFO
    episode: int = 0
    ended: int = 0


class _Sender:
    def __init__(self, plan: Plan, addresses: Path, ledger: Ledger) -> None:
        self._plan = plan
        self._file = addresses
        self._addresses: list[str] = []
        self._ledger = ledger
        self._chance = random.Random(plan.seed)
        services = plan.services.split(",")
        self._ready = deque(_Identity(n, services[n % len(services)]) for n in range(plan.identities))
        self._chance.shuffle(self._ready)
        self._made_ready = asyncio.Condition()
        self._begun = 0
        self._turn = 0
        self._stopping = False
        self._statuses: Counter[str] = Counter()
        self._broken = 0
        self._longest_ms = 0
        self._under_way: list[int] = []
        self._read_addresses()

    def stop(self) -> None:
        self._stopping = True

    def progress(self, done: bool) -> Progress:
        oldest_ms = wall_clock() - min(self._under_way) if self._under_way else 0
        return Progress(self._ledger.accepted, dict(self._statuses), self._broken, self._longest_ms, oldest_ms, done)

    async def run(self) -> None:
        """Send until the plan is fulfilled or `stop`, and everything posted is acknowledged."""
        self._began = asyncio.get_running_loop().time()
        connector = aiohttp.TCPConnector(limit=self._plan.connections)
        timeout = aiohttp.ClientTimeout(total=_POST_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(self._send(session) for _ in range(self._plan.connections)))

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while batch := await self._take():
            posted = wall_clock()
            alerts = [self._next(identity, posted) for identity in batch]
            await self._post(session, _body(zip(batch, alerts, strict=True)))
            acked = wall_clock()
            await self._ledger.put([alert._replace(acked=acked) for alert in alerts])
            async with self._made_ready:
                self._ready.extend(batch)
                self._made_ready.notify_all()

    async def _take(self) -> list[_Identity]:
        """The next identities to have news; none when enough was sent."""
        plan = self._plan
        size = plan.batch if plan.alerts == 0 else min(plan.batch, plan.alerts - self._begun)
        if size <= 0 or self._stopping:
            return []
        begun, self._begun = self._begun, self._begun + size
        if plan.rate:
            await asyncio.sleep(self._began + begun / plan.rate - asyncio.get_running_loop().time())
        async with self._made_ready:
            await self._made_ready.wait_for(lambda: len(self._ready) >= size)
            return [self._ready.popleft() for _ in range(size)]

    def _next(self, identity: _Identity, now: int) -> Heard:
        """The next that happens to an alert."""
        plan, chance = self._plan, self._chance
        if identity.status is Status.RESOLVED:
            identity.status = Status.FIRING
            identity.episode = max(identity.ended + 1, now)
            identity.severity = self._severity()
        elif plan.changes and chance.randrange(plan.changes) == 0:
            identity.severity = self._severity()
        elif not (plan.repeats and chance.randrange(plan.repeats) == 0):
            identity.status = Status.RESOLVED
            identity.ended = max(identity.episode + 1, now)
        return Heard(identity.number, identity.status, identity.episode, identity.severity, now, 0)

    def _severity(self) -> Severity:
        weights = [getattr(self._plan, severity.value) for severity in Severity]
        return self._chance.choices(list(Severity), weights)[0]

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> None:
        """Post one body until it is acknowledged."""
        pause_s = _FIRST_PAUSE_S
        while True:
            self._turn += 1
            address = self._addresses[self._turn % len(self._addresses)]
            began = wall_clock()
            self._under_way.append(began)
            try:
                async with session.post(f"{address}/webhooks/alertmanager", data=body, headers=_HEADERS) as answer:
                    await answer.read()
                status = answer.status
            except (aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
                self._broken += 1
            else:
                self._statuses[str(status)] += 1
                if status == 202:
                    self._longest_ms = max(self._longest_ms, wall_clock() - began)
                    return
            finally:
                self._under_way.remove(began)
            self._longest_ms = max(self._longest_ms, wall_clock() - began)
            self._read_addresses()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _read_addresses(self) -> None:
        """A file that is being written, or empty, changes nothing."""
        self._addresses = self._file.read_text().split() or self._addresses


_HEADERS = {"Content-Type": "application/json"}


def _body(news: Any) -> bytes:
    """Alertmanager's webhook, version 4."""
    return msgspec.json.encode(
        {
            "version": "4",
            "receiver": "alertrouter",
            "status": "firing",
            "truncatedAlerts": 0,
            "alerts": [_alert(identity, heard) for identity, heard in news],
        }
    )


def _alert(identity: _Identity, heard: Heard) -> dict[str, Any]:
    return {
        "status": heard.status.value,
        "labels": {
            "alertname": f"Load{identity.number}",
            "service": identity.service,
            "severity": heard.severity.value,
            "instance": f"host-{identity.number}",
        },
        "annotations": {"summary": f"alert {identity.number} of the load"},
        "startsAt": _instant(heard.episode),
        "endsAt": _instant(identity.ended) if heard.status is Status.RESOLVED else "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.example.org/graph",
        "fingerprint": fingerprint_of(identity.number),
    }


def _instant(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _main(plan: Plan, addresses: Path, ledger_file: Path, until_eof: bool) -> None:
    ledger = Ledger(ledger_file)
    sender = _Sender(plan, addresses, ledger)
    if until_eof:
        _at_end_of_input(asyncio.get_running_loop(), sender.stop)
    sending = asyncio.create_task(sender.run())
    while not sending.done():
        await asyncio.wait([sending], timeout=_REPORT_EVERY_S)
        _print(sender.progress(done=False))
    await sending
    _print(sender.progress(done=True))
    ledger.close()


def _at_end_of_input(loop: asyncio.AbstractEventLoop, then: Callable[[], None]) -> None:
    """Call `then` when standard input ends. In a thread that nobody waits for."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # without the lock of sys.stdin, which would hold up our end
            pass
        with suppress(RuntimeError):  # the loop is closed: we are done
            loop.call_soon_threadsafe(then)

    threading.Thread(target=wait, daemon=True).start()


def _print(progress: Progress) -> None:
    print(json.dumps(asdict(progress)), flush=True)  # noqa: T201


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Post alerts to alertrouter and write down what it acknowledged.")
    parser.add_argument("--addresses", type=Path, required=True, help="file with base addresses, one a line")
    parser.add_argument("--ledger", type=Path, required=True, help="file for the acknowledged alerts")
    parser.add_argument("--until-eof", action="store_true", help="begin nothing new once standard input ends")
    for option in fields(Plan):
        parser.add_argument(f"--{option.name}", type={"int": int, "float": float, "str": str}[str(option.type)])
    return parser.parse_args(arguments)


if __name__ == "__main__":
    given = vars(_options())
    addresses, ledger_path, until_eof = given.pop("addresses"), given.pop("ledger"), given.pop("until_eof")
    plan = Plan(**{"alerts": 0, **{name: value for name, value in given.items() if value is not None}})
    uvloop.run(_main(plan, addresses, ledger_path, until_eof))
