"""PagerDuty's Events API for reliability runs: the sandbox's semantics, a script of faults, a log that forgets nothing.

`python -m tests.rig.pagerduty` runs it as a process and prints its two addresses as one line of JSON: `events` is the
base address for alertrouter, `admin` takes the fault script and answers questions, so that a fault on the way to the
one does not touch the other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from alertrouter.destinations.pagerduty import wall_clock
from alertrouter.sandbox.events_api import ACTIONS, ALERTS_KEPT, SEVERITIES, EventsApi, Result, read
from tests.rig.proxy import reset

REPOSITORY = Path(__file__).parents[2]

Kind = Literal["status", "delay", "drip", "reset_before", "reset_after", "swallow", "late"]

#: What was done with a call. Those of `Result`, and two that only a fault makes: `swallowed` was answered with 202 and
#: not processed, `lost` was neither.
RESULTS = (*(result.value for result in Result), "swallowed", "lost")
_FAULTS = ("", "status", "delay", "drip", "reset_before", "reset_after", "swallow", "late")
_ACTIONS = ("", *ACTIONS)
_SEVERITIES = ("", *SEVERITIES)


class Fault(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How calls fail.

    kind:         status        answered with `status`, not processed
                  delay         processed, answered `delay_ms` later
                  drip          processed, the answer comes one byte every `delay_ms`
                  reset_before  the connection is reset, nothing is processed
                  reset_after   processed, then the connection is reset
                  swallow       answered with 202, nothing is processed
                  late          no answer; processed `delay_ms` later, then the connection is reset
    times:        how many calls fail; 0 for every one until healed.
    one_in:       of the calls that are meant, only each n-th fails.
    routing_key:  only calls with this key are meant; "" for any.
    retry_after:  seconds, for `status`.
    """

    kind: Kind
    status: int = 500
    delay_ms: int = 0
    times: int = 1
    one_in: int = 1
    routing_key: str = ""
    retry_after: int | None = None


class Call(NamedTuple):
    """One call as the log holds it.

    number:    in the order of arrival. The log is in the order of processing.
    at:        when it was processed or refused, in ms since the epoch.
    key:       index of the routing key in `Log.keys`.
    severity:  of a trigger, else "".
    fault:     what was done to it, else "".
    """

    number: int
    at: int
    key: int
    dedup_key: str
    action: str
    result: str
    severity: str
    fault: str

    @property
    def taken(self) -> bool:
        """True if it was processed or, as far as the client can know, will be."""
        return self.result in _TAKEN


_TAKEN = frozenset({"opened", "updated", "acknowledged", "resolved", "dropped", "swallowed"})


class OpenAlert(NamedTuple):
    """An alert that is open at the end."""

    key: int
    dedup_key: str
    severity: str


@dataclass(slots=True)
class Log:
    """Every call, in columns: about 25 bytes each, so that a million of them are cheap to keep and to ask for."""

    keys: list[str] = field(default_factory=list)
    dedup_keys: list[str] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("I"))
    times: array[int] = field(default_factory=lambda: array("q"))
    key_of: array[int] = field(default_factory=lambda: array("H"))
    dedup_key_of: array[int] = field(default_factory=lambda: array("I"))
    words: array[int] = field(default_factory=lambda: array("H"))
    _key_index: dict[str, int] = field(default_factory=dict)
    _dedup_key_index: dict[str, int] = field(default_factory=dict)

    def append(self, number: int, at: int, event: Mapping[str, Any], result: str, fault: str) -> None:
        """Put down one call; `event` is its body, empty where it was no JSON object."""
        payload = event.get("payload")
        severity = payload.get("severity") if isinstance(payload, dict) else ""
        self.numbers.append(number)
        self.times.append(at)
        self.key_of.append(_index(str(event.get("routing_key", "")), self.keys, self._key_index))
        self.dedup_key_of.append(_index(str(event.get("dedup_key", "")), self.dedup_keys, self._dedup_key_index))
        action = event.get("event_action")
        self.words.append(
            (_ACTIONS.index(action) if action in ACTIONS else 0)
            + 10 * RESULTS.index(result)
            + 200 * (_SEVERITIES.index(severity) if severity in SEVERITIES else 0)
            + 1000 * _FAULTS.index(fault)
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Call]:
        dedup_keys = self.dedup_keys
        for number, at, key, dedup_key, word in zip(
            self.numbers, self.times, self.key_of, self.dedup_key_of, self.words, strict=True
        ):
            action, result, severity, fault = _words(word)
            yield Call(number, at, key, dedup_keys[dedup_key], action, result, severity, fault)

    def encode(self) -> bytes:
        """The log in one message."""
        columns = [self.numbers, self.times, self.key_of, self.dedup_key_of, self.words]
        return msgspec.msgpack.encode([self.keys, self.dedup_keys, *(column.tobytes() for column in columns)])

    @classmethod
    def decode(cls, message: bytes) -> Log:
        """The log that `encode` made."""
        keys, dedup_keys, *columns = msgspec.msgpack.decode(message)
        log = cls(keys, dedup_keys)
        for column, data in zip(
            (log.numbers, log.times, log.key_of, log.dedup_key_of, log.words), columns, strict=True
        ):
            column.frombytes(data)
        return log


def _index(text: str, texts: list[str], index: dict[str, int]) -> int:
    at = index.get(text)
    if at is None:
        at = index[text] = len(texts)
        texts.append(text)
    return at


def _words(word: int) -> tuple[str, str, str, str]:
    return _ACTIONS[word % 10], RESULTS[word // 10 % 20], _SEVERITIES[word // 200 % 5], _FAULTS[word // 1000]


class FakePagerDuty:
    """`async with FakePagerDuty() as pagerduty:` listens for events at `url` and for its script at `admin_url`.

    calls_per_minute:  the limit per routing key over a sliding minute, answered with 429; 0 means none.
    """

    def __init__(self, calls_per_minute: int = 0) -> None:
        self.log = Log()
        self._api = EventsApi(calls_per_minute)
        self._faults: list[_Active] = []
        self._received = 0
        self._ends: Counter[str] = Counter()
        events = web.Application(client_max_size=4 * 1024 * 1024)
        events.add_routes(
            [web.post("/v2/enqueue", self._enqueue), web.post("/v2/change/enqueue", self._enqueue_change)]
        )
        admin = web.Application()
        admin.add_routes(
            [
                web.post("/faults", self._add_faults),
                web.delete("/faults", self._clear_faults),
                web.get("/totals", self._totals),
                web.get("/log", self._log),
                web.get("/open", self._open),
            ]
        )
        self._events = web.AppRunner(events, access_log=None, shutdown_timeout=0.2)
        self._admin = web.AppRunner(admin, access_log=None, shutdown_timeout=0.2)

    async def __aenter__(self) -> Self:
        for runner in (self._events, self._admin):
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner in (self._events, self._admin):
            await runner.cleanup()

    @property
    def url(self) -> str:
        """The base address for alertrouter."""
        return f"http://127.0.0.1:{self._events.addresses[0][1]}"

    @property
    def admin_url(self) -> str:
        """The address for the script and for questions."""
        return f"http://127.0.0.1:{self._admin.addresses[0][1]}"

    def fail(self, *faults: Fault) -> None:
        """Add to the script; of the faults that are meant for a call the oldest takes it."""
        self._faults += map(_Active, faults)

    def heal(self) -> None:
        """Forget the script. What is held already stays held."""
        self._faults.clear()

    def open_alerts(self) -> list[OpenAlert]:
        """What is open now."""
        if len(self._api.alerts) >= ALERTS_KEPT:
            raise AssertionError(f"the sandbox forgets open alerts beyond {ALERTS_KEPT}: use fewer identities")
        keys = {key: index for index, key in enumerate(self.log.keys)}
        return [
            OpenAlert(keys[alert.routing_key], alert.dedup_key, alert.severity) for alert in self._api.alerts.values()
        ]

    def totals(self) -> dict[str, int]:
        """How many calls arrived, how many ended how, and how many alerts are open."""
        return {"received": self._received, "logged": len(self.log), "open": len(self._api.alerts), **self._ends}

    async def _enqueue(self, request: web.Request) -> web.StreamResponse:
        self._received += 1
        number = self._received
        body = await request.read()
        fault = self._next_fault(body) if self._faults else None
        if fault is None:
            return self._process(number, body)
        return await self._fail(request, number, body, fault)

    async def _enqueue_change(self, request: web.Request) -> web.Response:
        """Not among the calls, and no fault is meant for it."""
        call = self._api.change(await request.read(), wall_clock())
        self._ends[call.result.value] += 1
        return web.Response(body=msgspec.json.encode(call.answer), status=call.status, content_type="application/json")

    def _process(self, number: int, body: bytes, fault: str = "") -> web.Response:
        call = self._api.enqueue(body, wall_clock())
        self._put(number, call.received_at, call.event, call.result.value, fault)
        return web.Response(body=msgspec.json.encode(call.answer), status=call.status, content_type="application/json")

    def _put(self, number: int, at: int, event: Mapping[str, Any], result: str, fault: str) -> None:
        self.log.append(number, at, event, result, fault)
        self._ends[result] += 1

    async def _fail(self, request: web.Request, number: int, body: bytes, fault: Fault) -> web.StreamResponse:
        kind = fault.kind
        if kind in ("status", "reset_before", "swallow"):
            result = {"status": "failed", "reset_before": "lost", "swallow": "swallowed"}[kind]
            event = read(body)
            self._put(number, wall_clock(), event or {}, result, kind)
            status = 202 if kind == "swallow" else fault.status
            words = {"status": "success" if status == 202 else "error", "message": f"told to do so: {kind}"}
            response = web.json_response({**words, "dedup_key": (event or {}).get("dedup_key", "")}, status=status)
            if fault.retry_after is not None:
                response.headers["Retry-After"] = str(fault.retry_after)
        else:
            if kind == "late":
                await asyncio.sleep(fault.delay_ms / 1000)
            response = self._process(number, body, kind)
            if kind == "delay":
                await asyncio.sleep(fault.delay_ms / 1000)
            elif kind == "drip":
                return await _drip(request, response, fault.delay_ms)
        if kind in ("reset_before", "reset_after", "late") and request.transport is not None:
            reset(request.transport)
        return response

    def _next_fault(self, body: bytes) -> Fault | None:
        routing_key = str((read(body) or {}).get("routing_key", ""))
        for active in self._faults:
            if active.fault.routing_key in ("", routing_key):
                active.meant += 1
                if active.meant % active.fault.one_in:
                    continue
                active.hits += 1
                if active.hits == active.fault.times:
                    self._faults.remove(active)
                return active.fault
        return None

    async def _add_faults(self, request: web.Request) -> web.Response:
        try:
            self.fail(*msgspec.json.decode(await request.read(), type=list[Fault]))
        except msgspec.DecodeError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.Response(status=204)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self.heal()
        return web.Response(status=204)

    async def _totals(self, _: web.Request) -> web.Response:
        return web.json_response(self.totals())

    async def _log(self, _: web.Request) -> web.Response:
        return web.Response(body=self.log.encode())

    async def _open(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.msgpack.encode(self.open_alerts()))


@dataclass(slots=True)
class _Active:
    """A fault of the script, how many calls it was meant for, and how many it took."""

    fault: Fault
    meant: int = 0
    hits: int = 0


async def _drip(request: web.Request, answer: web.Response, gap_ms: int) -> web.StreamResponse:
    body = answer.body
    assert isinstance(body, bytes)
    dripping = web.StreamResponse(status=answer.status, headers={"Content-Length": str(len(body))})
    await dripping.prepare(request)
    for at in range(len(body)):
        try:
            await dripping.write(body[at : at + 1])
        except ConnectionError:  # the client has had enough
            break
        await asyncio.sleep(gap_ms / 1000)
    return dripping


class PagerDutyProcess:
    """The fake as a process of its own: `async with PagerDutyProcess() as pagerduty:`. Asked over its admin address."""

    def __init__(self, calls_per_minute: int = 0) -> None:
        self._calls_per_minute = calls_per_minute
        self.url = self.admin_url = ""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.rig.pagerduty", "--until-eof"),
            *("--calls-per-minute", str(self._calls_per_minute)),
            stdin=asyncio.subprocess.PIPE,  # closed when we die, which ends it
            stdout=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            addresses = json.loads(await self._process.stdout.readline())
        self.url, self.admin_url = addresses["events"], addresses["admin"]
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        if self._process.returncode is None:
            self._process.terminate()
        await self._process.wait()

    async def fail(self, *faults: Fault) -> None:
        """Add to the script of faults."""
        await self._ask("POST", "/faults", msgspec.json.encode(faults))

    async def heal(self) -> None:
        """Forget the script of faults."""
        await self._ask("DELETE", "/faults")

    async def totals(self) -> dict[str, int]:
        """Counters, cheap to ask for: `received`, `logged`, `open`, and one for each result."""
        totals: dict[str, int] = json.loads(await self._ask("GET", "/totals"))
        return totals

    async def log(self) -> Log:
        """Every call since the start."""
        return Log.decode(await self._ask("GET", "/log"))

    async def open_alerts(self) -> list[OpenAlert]:
        """What is open now."""
        return msgspec.msgpack.decode(await self._ask("GET", "/open"), type=list[OpenAlert])

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        async with self._session.request(method, self.admin_url + path, data=body) as response:
            answer = await response.read()
            assert response.status < 300, answer.decode()
            return answer


async def _main(calls_per_minute: int, until_eof: bool) -> None:
    async with FakePagerDuty(calls_per_minute) as pagerduty:
        print(json.dumps({"events": pagerduty.url, "admin": pagerduty.admin_url}), flush=True)  # noqa: T201
        if until_eof:
            await asyncio.to_thread(sys.stdin.buffer.read)
        else:
            await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="PagerDuty's Events API, with faults on order. Loopback only.")
    parser.add_argument("--calls-per-minute", type=int, default=0, help="limit per routing key; 0 (default): none")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    uvloop.run(_main(options.calls_per_minute, options.until_eof))
