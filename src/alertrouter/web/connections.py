"""Who may be connected, how many at once, and for how long.

aiohttp bounds the size of a head and the time between two requests. What it has no setting for is here: time for a head,
a body and the reading of an answer, and the number of connections. A look at all of them, again and again, costs less
than a timer for each request, and is exact enough for what is cut off after ten seconds.

Whoever is cut off gets no answer: a sender repeats a lost connection, but not a 408.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import structlog
from aiohttp import http_parser, web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from alertrouter import telemetry
from alertrouter.errors import SettingsInvalid
from alertrouter.limits import Limits
from alertrouter.web.body import is_awaited

_LOOK_EVERY_S = 0.25
#: Rather so much too early than too late, when the loop is busy.
_EARLY_S = 1.0
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 33\r\n"
    b'Connection: close\r\n\r\n{"error": "too many connections"}'
)
#: What nobody is to send more of on this connection: a body that is not wanted, or a guess at a token.
_ENDED_BY = frozenset((401, 413))
#: Open files that Redis and what is asked of the disk need, beside PagerDuty's connections.
_OWN_FILES = 32

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = structlog.get_logger()


class Connection(web.RequestHandler):
    """One connection, which knows since when it waits for its client."""

    __slots__ = ("_body", "_bounds", "_head_since", "_request_since", "_stuck_since", "address")

    def __init__(self, connections: Connections, bounds: Limits, **options: Any) -> None:
        super().__init__(connections, **options)
        self._bounds = bounds
        self.address = ""
        self._head_since = 0.0
        self._body: StreamReader = EMPTY_PAYLOAD
        self._request_since = 0.0
        self._stuck_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or say that there are too many."""
        assert isinstance(self._manager, Connections)
        address = group_of(transport.get_extra_info("peername"))
        if not self._manager.admits(address):
            telemetry.CONNECTIONS_CUT.labels("too_many").inc()
            self._force_close = True
            cast(asyncio.Transport, transport).write(_BUSY)  # uvloop's is one in all but name
            transport.close()
            return
        self.address = address
        self._head_since = self._loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take what came, and see what of a request is still missing."""
        heads = self._request_count
        in_body = not self._body.is_eof()
        super().data_received(data)
        if self._request_count != heads:
            if self._messages:  # handled by a task, so not yet
                self._body = self._messages[-1][1]
                self._request_since = self._head_since or self._loop.time()
            self._head_since = 0.0
        elif data and not in_body and not self._head_since:
            self._head_since = self._loop.time()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._stuck_since = self._loop.time()

    def resume_writing(self) -> None:
        """It has read most of it."""
        super().resume_writing()
        self._stuck_since = 0.0

    def overdue(self, transport: asyncio.Transport, now: float) -> str:
        """What its client takes too long for at `now` (loop time): head, body or answer; "" for nothing."""
        bounds = self._bounds
        if transport.is_closing() and not self._stuck_since:
            self._stuck_since = now  # closed, and the client has not read all of the answer
        soon = now + _EARLY_S
        if self._stuck_since and soon - self._stuck_since > bounds.answer_s:
            return "answer"
        if self._head_since and soon - self._head_since > bounds.head_s:
            return "head"
        if not self._body.is_eof() and soon - self._request_since > bounds.body_s:
            return "body"
        return ""

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """As aiohttp answers it; but what a client did wrong is no error of ours, and its bytes are in no log."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client is gone
        if status != 400:
            return super().handle_error(request, status, exc, message)
        _log.debug("not HTTP", address=self.address, what=type(exc).__name__)
        answer = web.json_response({"error": f"not HTTP as we know it: {type(exc).__name__}"}, status=400)
        answer.force_close()
        return answer


class Connections(web.Server):
    """All connections of the listener."""

    def __init__(self, handler: Any, bounds: Limits, **options: Any) -> None:
        super().__init__(handler, **options)
        self._bounds = bounds
        self._at: Counter[str] = Counter()
        self._count = 0

    def __call__(self) -> Connection:
        return Connection(self, self._bounds, loop=self._loop, **self._kwargs)

    def admits(self, address: str) -> bool:
        """Whether there is room for one more from there. The last of it is for those who have few."""
        bounds = self._bounds
        already = self._at[address]
        room = bounds.connections + (bounds.spare if already < bounds.few else 0)
        return already < bounds.connections_per_address and self._count < room

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count it."""
        super().connection_made(handler, transport)
        assert isinstance(handler, Connection)
        self._at[handler.address] += 1
        self._count += 1
        telemetry.CONNECTIONS.set(self._count)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Count it no more."""
        assert isinstance(handler, Connection)
        if handler in self._connections:
            self._count -= 1
            self._at[handler.address] -= 1
            if not self._at[handler.address]:
                del self._at[handler.address]
            telemetry.CONNECTIONS.set(self._count)
        super().connection_lost(handler, exc)

    async def watch(self) -> None:
        """Look again and again who is too slow."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self.look(loop.time())

    def look(self, now: float) -> None:
        """Cut off who is too slow at `now` (loop time)."""
        cut: Counter[str] = Counter()
        for handler, transport in list(self._connections.items()):
            if isinstance(handler, Connection) and (what := handler.overdue(transport, now)):
                transport.abort()  # close would wait for what is not being read
                cut[what] += 1
        for what, count in cut.items():
            telemetry.CONNECTIONS_CUT.labels(what).inc(count)
        if cut:
            _log.info("slow connections cut off", what=dict(cut))


class Listener(web.AppRunner):
    """An application behind bounded connections."""

    __slots__ = ("_bounds",)

    def __init__(self, application: web.Application, bounds: Limits, **options: Any) -> None:
        super().__init__(
            application, access_log=None, auto_decompress=False, keepalive_timeout=bounds.idle_s, **options
        )
        self._bounds = bounds
        application.on_response_prepare.append(_end_connection)

    @property
    def connections(self) -> Connections:
        """All that are open. Only after `setup`."""
        assert isinstance(self.server, Connections)
        return self.server

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        answer = _with_known_expectations(made.request_handler)
        return Connections(answer, self._bounds, request_factory=made.request_factory, **self._kwargs)


def _with_known_expectations(answer: Handler) -> Handler:
    """As aiohttp meets an `Expect`, https://www.rfc-editor.org/rfc/rfc9110#field.expect; it fails at one that is no text."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "100-continue").lower() != "100-continue":
            refusal = web.json_response({"error": "no expectation is met but 100-continue"}, status=417)
            refusal.force_close()
            return refusal
        return await answer(request)

    return handle


async def _end_connection(request: web.Request, response: web.StreamResponse) -> None:
    if response.status in _ENDED_BY or is_awaited(request):
        response.force_close()
        response.headers["Connection"] = "close"


def group_of(peername: Any) -> str:
    """The address that connections are counted by: IPv4's own, the /64 of IPv6, which one machine has all of."""
    host = str(peername[0]) if isinstance(peername, tuple) else ""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))


def within_open_files(bounds: Limits, calls: int) -> Limits:
    """As many connections as open files allow, with room left for Redis and `calls` to PagerDuty at once.

    The soft limit is raised to the hard one first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return bounds
    left = max(hard - _open_files(), 2)
    room = left - min(calls + _OWN_FILES, left // 2)
    spare = min(bounds.spare, room // 8)
    if bounds.connections + spare <= room:
        return replace(bounds, spare=spare)
    _log.warning(
        "fewer connections than ALERTROUTER_MAX_CONNECTIONS: raise the limit of open files (ulimit -n)",
        open_files=hard,
        connections=room - spare,
    )
    return replace(bounds, connections=room - spare, spare=spare)


def _open_files() -> int:
    for folder in (Path("/proc/self/fd"), Path("/dev/fd")):
        try:
            return sum(1 for _ in folder.iterdir())
        except OSError:
            continue
    return 0


def check_parser() -> None:
    """Raise SettingsInvalid without aiohttp's compiled parser: most of its advisories are about the other one.

    https://github.com/aio-libs/aiohttp/security/advisories
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise SettingsInvalid(
            f"aiohttp {aiohttp.__version__} runs without its compiled HTTP parser, and the other one is not fit for the "
            "network: unset AIOHTTP_NO_EXTENSIONS, and install aiohttp from a wheel (pip install --only-binary :all: "
            "--force-reinstall aiohttp)"
        )
