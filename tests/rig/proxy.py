"""A TCP proxy with faults to switch on and off, to stand before Redis, PagerDuty or alertrouter."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, cast

Direction = Literal["both", "requests", "answers"]

_CHUNK = 65_536
#: SO_LINGER on, 0 s: closing sends a reset and throws away what was not sent.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(transport: asyncio.BaseTransport) -> None:
    """End a connection with a TCP reset. One that is closed already is left alone."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return
    # uvloop's sockets take no options, a second descriptor of the same socket does
    with socket.socket(fileno=os.dup(sock.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    cast(asyncio.WriteTransport, transport).abort()


class FaultProxy:
    """`async with FaultProxy("127.0.0.1:6379") as proxy:` listens on `proxy.port` and passes everything on.

    target:       "host:port", or the path of a unix socket.
    latency_s,
    jitter_s:     each chunk is held this long, plus up to `jitter_s`, drawn with `seed`.
    cut_after:    bytes that a connection's answers may have before it is reset; None for any number. Counted from when
                  it is set.
    answers_eaten, connections:  how often that happened.
    """

    def __init__(self, target: str, *, seed: int = 0) -> None:
        self._target = target
        self._chance = random.Random(seed)
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._flows: dict[str, asyncio.Event] = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        self._resetting = False
        self._eating = False
        self.port = 0
        self.latency_s = self.jitter_s = 0.0
        self.cut_after: int | None = None
        self.answers_eaten = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        await self.heal()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_listening()
        links = list(self._links)
        for link in links:
            link.end(hard=True)
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        return f"127.0.0.1:{self.port}"

    async def heal(self) -> None:
        """No faults from now on; what was held in a blackhole is passed on."""
        self.latency_s = self.jitter_s = 0.0
        self.cut_after = None
        self._resetting = self._eating = False
        for flow in self._flows.values():
            flow.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
            self.port = self._server.sockets[0].getsockname()[1]

    def slow(self, latency_s: float, jitter_s: float = 0.0) -> None:
        """Hold each chunk, in both directions."""
        self.latency_s, self.jitter_s = latency_s, jitter_s

    def blackhole(self, direction: Direction = "both") -> None:
        """Connections stand and open, but no byte passes. What was sent into it arrives when it is healed."""
        for name, flow in self._flows.items():
            if direction in (name, "both"):
                flow.clear()

    def cut(self, after: int) -> None:
        """Reset each connection once its answers have had `after` more bytes."""
        self.cut_after = after
        for link in self._links:
            link.answered = 0

    def eat_answers(self) -> None:
        """Requests pass; the answer is swallowed and the connection closed."""
        self._eating = True

    def reset_now(self) -> None:
        """Reset every connection there is; new ones are served."""
        for link in list(self._links):
            link.end(hard=True)

    def reset_all(self) -> None:
        """Reset every connection there is and every new one."""
        self._resetting = True
        self.reset_now()

    def refuse(self) -> None:
        """Nobody listens any more, and standing connections are reset."""
        self._stop_listening()
        self.reset_now()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._resetting:
            reset(writer.transport)
            return
        task = asyncio.current_task()
        assert task is not None
        link = _Link(task, writer)
        self._links.add(link)
        try:
            upstream_reader, upstream = await self._connect()
        except (OSError, asyncio.CancelledError):  # swallowed: asyncio 3.11 logs a cancelled handler as an error
            self._links.discard(link)
            reset(writer.transport)
            return
        link.upstream = upstream
        await link.pump(
            self._pass(reader, upstream, "requests", lambda size: size),
            self._pass(upstream_reader, writer, "answers", lambda size: self._may_answer(link, size)),
        )
        self._links.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if "/" in self._target:
            return await asyncio.open_unix_connection(self._target)
        host, _, port = self._target.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: str, allowed: Callable[[int], int]
    ) -> bool:
        """Pass chunks on until one side ends. True if the connection is to end with a reset."""
        while data := await reader.read(_CHUNK):
            await self._flows[flow].wait()
            if self.latency_s or self.jitter_s:
                await asyncio.sleep(self.latency_s + self._chance.uniform(0, self.jitter_s))
                await self._flows[flow].wait()
            passing = allowed(len(data))
            if passing:
                writer.write(data[:passing])
                await writer.drain()
            if passing < len(data):
                return True
        return False

    def _may_answer(self, link: _Link, size: int) -> int:
        """How many of the next `size` bytes of an answer pass."""
        if self._eating:
            self.answers_eaten += 1
            return 0
        link.answered += size
        if self.cut_after is None:
            return size
        return max(0, size - max(0, link.answered - self.cut_after))


class _Link:
    """One connection through the proxy and the two pumps that serve it."""

    def __init__(self, task: asyncio.Task[Any], writer: asyncio.StreamWriter) -> None:
        self.task = task
        self.answered = 0
        self.upstream: asyncio.StreamWriter | None = None
        self._writer = writer
        self._hard = False
        self._ending = False

    def end(self, *, hard: bool) -> None:
        """End both sides; `hard` with a reset."""
        self._hard = self._hard or hard
        if not self._ending:  # to cancel again would break off the closing itself
            self._ending = True
            self.task.cancel()

    async def pump(self, *directions: Coroutine[Any, Any, bool]) -> None:
        """Run both directions until one ends, then close both sides."""
        pumps = [asyncio.ensure_future(direction) for direction in directions]
        with suppress(asyncio.CancelledError):  # asyncio 3.11 logs a cancelled handler as an error
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        self._ending = True
        for pump in pumps:
            pump.cancel()
        ends = await asyncio.gather(*pumps, return_exceptions=True)
        hard = self._hard or any(end is True or isinstance(end, OSError) for end in ends)
        for writer in (self._writer, self.upstream):
            if writer is None:
                continue
            if hard:
                reset(writer.transport)
            else:
                writer.close()
