"""alertrouter and Redis as processes of their own that are killed, frozen and started again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.waiting import until

ROUTING_KEY = "d" * 32
SEARCH_KEY = "5" * 32

#: Rules with two services, the second with a routing key of its own.
RULES = {
    "router.yaml": """
sets:
  start:
    - rule: payments
      when: event.custom_details.service matches 'payment'
      then: {route_to: payment-service}
    - rule: search
      when: event.custom_details.service matches 'search'
      then: {route_to: search-service}
catch_all: {route_to: unrouted}
""",
    "services/payment-service.yaml": "service: payment-service\nsets: {start: []}\ncatch_all: {}\n",
    "services/search-service.yaml": (
        "service: search-service\nrouting_key: {env: PD_KEY_SEARCH}\nsets: {start: []}\ncatch_all: {}\n"
    ),
}


def write_rules(folder: Path) -> Path:
    """Put `RULES` into `folder`."""
    for name, text in RULES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Server:
    """A process that is started again and again, its output in one file."""

    def __init__(self, log: Path, environ: Mapping[str, str]) -> None:
        self.log = log
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None

    async def _run(self, *command: str) -> None:
        assert not self.is_running
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=self._environ, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def is_running(self) -> bool:
        """True from the start to the end of the process, also while it is frozen."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal that ends it; returns the exit code."""
        assert self._process is not None
        if self.is_running:
            self._process.send_signal(number)
        async with asyncio.timeout(60):
            return await self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP."""
        assert self._process is not None and self.is_running
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT; harmless when it is not frozen, or gone."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGCONT)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_running:
            await self.kill()


_QUEUE = re.compile(r'alertrouter_queue_\w+\{queue="(\w+)"\} (\S+)')


class Router(_Server):
    """`alertrouter serve`, on another port each time it is started.

    pagerduty_url:  the base address it sends to.
    redis_url:      "" for the embedded one, with its data in `folder`.
    environ:        further ALERTROUTER_ settings.
    """

    def __init__(self, folder: Path, rules: Path, pagerduty_url: str, redis_url: str = "", **environ: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "ALERTROUTER_DATA_DIR": str(folder / "data"),
            "ALERTROUTER_RULES": str(rules),
            "ALERTROUTER_LOG_LEVEL": "warning",
            "ALERTROUTER_PAGERDUTY_EVENTS_URL": pagerduty_url,
            "ALERTROUTER_PAGERDUTY_ROUTING_KEY": ROUTING_KEY,
            "ALERTROUTER_PAGERDUTY_CALLS_PER_MINUTE": "0",
            "PD_KEY_SEARCH": SEARCH_KEY,
            **({"ALERTROUTER_REDIS_URL": redis_url} if redis_url else {}),
            **environ,
        }
        ours = {name: value for name, value in os.environ.items() if not name.startswith("ALERTROUTER_")}
        super().__init__(folder / "alertrouter.log", {**ours, **settings})
        self.url = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self, within_s: float = 60.0) -> None:
        """Start it, and wait until it answers. AssertionError with its log if it ends instead."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._environ = {**self._environ, "ALERTROUTER_LISTEN": f"127.0.0.1:{port}"}
        await self._run(sys.executable, "-m", "alertrouter", "serve")
        await until(self._answers, within_s)

    async def _answers(self) -> bool:
        assert self.is_running, f"alertrouter ended: {self.log.read_text()[-2000:]}"
        return await self.get("/-/healthy") == 200

    async def get(self, path: str) -> int:
        """Status of one GET; 0 where there is no answer."""
        timeout = aiohttp.ClientTimeout(total=5)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self.url + path) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, OSError):
            return 0

    async def backlog(self) -> dict[str, float]:
        """The queues' sizes from its metrics by name: due, scheduled, waiting, ...; empty where there is no answer."""
        timeout = aiohttp.ClientTimeout(total=5)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(self.url + "/metrics") as answer:
                lines = (await answer.text()).splitlines()
        except (aiohttp.ClientError, OSError):
            return {}
        found = (_QUEUE.fullmatch(line) for line in lines)
        return {match[1]: float(match[2]) for match in found if match}


class RedisServer(_Server):
    """Debian's redis-server on a fixed port of loopback, set up as docs/redis.md says.

    program:  its path.
    """

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder / "redis.log", dict(os.environ))
        self._program = program
        self._folder = folder
        self._options = options
        self.port = free_port()

    @property
    def url(self) -> str:
        """Its address for redis-py."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def start(self) -> None:
        """Start it on its data, and wait until it has loaded them."""
        await self._run(
            self._program,
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder), "--save", ""),
            *("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"),
            *("--hash-max-listpack-value", "4096"),
            *self._options,
        )
        await until(self._answers, 60)

    async def _answers(self) -> bool:
        assert self.is_running, f"redis-server ended: {self.log.read_text()[-2000:]}"
        return await self.command("PING") is not None

    async def command(self, *words: str) -> object:
        """One command on a connection of its own; None where Redis does not take it."""
        client = Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=1)
        try:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            return None
        finally:
            await client.aclose()
