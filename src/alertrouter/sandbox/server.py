"""The stand-in as a server on loopback, for people (`make run`), tests and benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from alertrouter.destinations.pagerduty import wall_clock
from alertrouter.errors import SettingsInvalid
from alertrouter.loopback import is_loopback
from alertrouter.sandbox.events_api import Call, EventsApi, Result, alias, read
from alertrouter.sandbox.page import CONTENT_SECURITY_POLICY, render


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """How the next calls fail.

    status:       the HTTP status they get. 202 means that they are taken after all, only late.
    times:        how many calls fail.
    routing_key:  only calls with this key fail; None means any call.
    delay_ms:     how long an answer takes.
    body:         what the answer says: text, or JSON; None means words like PagerDuty's.
    retry_after:  the `Retry-After` header: seconds, or an HTTP date.
    """

    status: int = 500
    times: int = 1
    routing_key: str | None = None
    delay_ms: int = 0
    body: str | dict[str, Any] | None = None
    retry_after: str | int | None = None

    def __post_init__(self) -> None:
        if not (200 <= self.status <= 599 and self.times >= 1 and self.delay_ms >= 0):
            raise ValueError("status is 200 to 599, times is at least 1, delay_ms is not negative")


class Sandbox:
    """`async with Sandbox() as sandbox:` runs it; send events to `sandbox.url`, look at `sandbox.events`.

    port:              0 picks a free one.
    calls_per_minute:  the limit per routing key over a sliding minute, answered with 429; 0 means none.
    clock:             ms since the epoch, for that limit and the times shown.

    SettingsInvalid for a host beyond loopback: it shows what it received to anyone who asks.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        calls_per_minute: int = 0,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        if not is_loopback(host):
            raise SettingsInvalid(f"the sandbox listens on loopback only, not on {host}; use 127.0.0.1")
        self._host = host
        self._port = port
        self._clock = clock
        self._api = EventsApi(calls_per_minute)
        self._faults: list[Fault] = []
        self._news = asyncio.Event()
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.add_routes(
            [
                web.post("/v2/enqueue", self._enqueue),
                web.post("/v2/change/enqueue", self._enqueue_change),
                web.get("/", self._page),
                web.get("/events", self._list_events),
                web.delete("/events", self._clear_events),
                web.get("/alerts", self._list_alerts),
                web.get("/totals", self._list_totals),
                web.post("/fail", self._add_fault),
                web.delete("/fail", self._clear_faults),
                web.get("/-/healthy", self._healthy),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. OSError where the port is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The base address, to be used as PagerDuty's events address."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def calls(self) -> list[Call]:
        """The latest calls in the order they were answered, those that were not accepted included."""
        return list(self._api.calls)

    @property
    def events(self) -> list[Call]:
        """The latest calls that were accepted with 202, in order: what PagerDuty knows of."""
        return [call for call in self._api.calls if call.status == 202]

    @property
    def changes(self) -> list[Mapping[str, Any]]:
        """The change events that were accepted, in order."""
        return list(self._api.changes)

    def fail(
        self,
        status: int = 500,
        times: int = 1,
        *,
        routing_key: str | None = None,
        delay_ms: int = 0,
        body: str | dict[str, Any] | None = None,
        retry_after: str | int | None = None,
    ) -> None:
        """Make the next calls fail, after those that earlier faults are waiting for. See `Fault`."""
        self._faults.append(Fault(status, times, routing_key, delay_ms, body, retry_after))

    @property
    def faults(self) -> int:
        """How many faults still wait for a call."""
        return len(self._faults)

    def heal(self) -> None:
        """Forget every fault that still waits for a call."""
        self._faults.clear()

    async def wait_for(self, condition: Callable[[list[Call]], bool], timeout_s: float = 5.0) -> list[Call]:
        """The accepted events, as soon as `condition` holds for them. TimeoutError, with what came, if it never does."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition(events := self.events):
                    self._news.clear()
                    await self._news.wait()
                return events
        except TimeoutError:
            came = [
                f"{call.event.get('event_action')} {call.event.get('dedup_key')}: {call.result}" for call in self.calls
            ]
            raise TimeoutError(f"not within {timeout_s} s; what came: {came}") from None

    async def _enqueue(self, request: web.Request) -> web.Response:
        body = await request.read()
        fault = self._next_fault(body)
        if fault and fault.delay_ms:
            await asyncio.sleep(fault.delay_ms / 1000)
        if fault is None or fault.status == 202:
            call = self._api.enqueue(body, self._clock())
        else:
            answer = {"status": "error", "message": f"The sandbox was told to answer {fault.status}"}
            event = read(body) or {}
            call = self._api.record(Call(self._clock(), Result.FAILED, fault.status, event, answer, "", len(body)))
        self._news.set()
        return _answer(call, fault)

    async def _enqueue_change(self, request: web.Request) -> web.Response:
        body = await request.read()
        fault = self._next_fault(body)
        if fault is None or fault.status == 202:
            call = self._api.change(body, self._clock())
        else:
            answer = {"status": "error", "message": f"The sandbox was told to answer {fault.status}"}
            call = Call(self._clock(), Result.FAILED, fault.status, read(body) or {}, answer, "", len(body))
        self._news.set()
        return _answer(call, fault)

    def _next_fault(self, body: bytes) -> Fault | None:
        """The first fault that is meant for this call, counted down."""
        if not self._faults:
            return None
        routing_key = (read(body) or {}).get("routing_key")
        fault = next((fault for fault in self._faults if fault.routing_key in (None, routing_key)), None)
        if fault is not None:
            fault.times -= 1
            if fault.times == 0:
                self._faults.remove(fault)
        return fault

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(
            text=render(self._api.calls, len(self._api.alerts)),
            content_type="text/html",
            headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff"},
        )

    async def _list_events(self, request: web.Request) -> web.Response:
        """`?dedup_key=` of one alert only, `?all=1` with calls that were not accepted, `?full=1` with whole keys."""
        calls = self.calls if request.query.get("all") == "1" else self.events
        if (dedup_key := request.query.get("dedup_key")) is not None:
            calls = [call for call in calls if call.event.get("dedup_key") == dedup_key]
        in_full = request.query.get("full") == "1"
        return _json([_shown(call, in_full) for call in calls])

    async def _clear_events(self, _: web.Request) -> web.Response:
        self._api.forget_calls()
        return web.Response(status=204)

    async def _list_alerts(self, _: web.Request) -> web.Response:
        alerts = self._api.alerts.values()
        return _json([{**asdict(alert), "routing_key": alias(alert.routing_key)} for alert in alerts])

    async def _list_totals(self, _: web.Request) -> web.Response:
        """How many calls came to each end since the start, or since the events were cleared."""
        return _json(self._api.totals)

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            self._faults.append(msgspec.json.decode(await request.read(), type=Fault))
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        return web.Response(status=204)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self.heal()
        return web.Response(status=204)

    async def _healthy(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})


def _answer(call: Call, fault: Fault | None) -> web.Response:
    if fault is None:
        return _json(call.answer, call.status)
    if isinstance(fault.body, str):
        response = web.Response(text=fault.body, status=call.status, content_type="text/html")
    else:
        response = _json(call.answer if fault.body is None else fault.body, call.status)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    return response


def _shown(call: Call, in_full: bool) -> dict[str, Any]:
    event = call.event if in_full or not call.event else {**call.event, "routing_key": call.key_alias}
    return {"received_at": call.received_at, "result": call.result, "status": call.status, "event": event}


def _json(data: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")
