"""alertrouter as a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from alertrouter.sandbox import Sandbox

ROUTING_KEY = "d" * 32


class Process:
    """`alertrouter serve` on a free port. `async with` waits until it listens and ends it with SIGTERM."""

    def __init__(self, folder: Path, rules: Path, sandbox: Sandbox | None, *options: str, **environ: str) -> None:
        self._options = options
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ALERTROUTER_")},
            "ALERTROUTER_LISTEN": "127.0.0.1:0",
            "ALERTROUTER_DATA_DIR": str(folder / "data"),
            "ALERTROUTER_RULES": str(rules),
            "ALERTROUTER_PAGERDUTY_CALLS_PER_MINUTE": "0",
            **environ,
        }
        if sandbox is not None:
            self._environ["ALERTROUTER_PAGERDUTY_EVENTS_URL"] = sandbox.url
            self._environ["ALERTROUTER_PAGERDUTY_ROUTING_KEY"] = ROUTING_KEY
        self.url = ""
        self.log: list[dict[str, Any]] = []
        self.output: list[str] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "alertrouter", "serve", *self._options),
            env=self._environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._listening = asyncio.Event()
        self._readers = [
            asyncio.create_task(self._read(self._process.stderr)),
            asyncio.create_task(self._read(self._process.stdout)),
        ]
        async with asyncio.timeout(30):
            while not self.url:
                ended = asyncio.create_task(self._process.wait())
                heard = asyncio.create_task(self._listening.wait())
                await asyncio.wait([ended, heard], return_when=asyncio.FIRST_COMPLETED)
                ended.cancel()
                heard.cancel()
                if self._process.returncode is not None:
                    await asyncio.gather(*self._readers)
                    raise AssertionError(f"ended with {self._process.returncode}: {self.output}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            await self.terminate()

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        async for line in stream:
            text = line.decode().rstrip("\n")
            self.output.append(text)
            if text.startswith("{"):
                entry = json.loads(text)
                self.log.append(entry)
                if entry["event"] == "listening":
                    self.url = entry["url"]
                    self._listening.set()

    async def has_put_down(self) -> bool:
        """Whether it is on record that PagerDuty took something: killed before that, it sends it once more."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/api/v1/history?kind=sent") as answer:
            return any(each["result"] == "delivered" for each in await answer.json())

    async def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        await self._ended()

    async def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return await self._ended()

    def signal(self, number: signal.Signals) -> None:
        """Send any other signal."""
        self._process.send_signal(number)

    async def _ended(self) -> int:
        async with asyncio.timeout(40):
            code = await self._process.wait()
            await asyncio.gather(*self._readers)
        return code

    async def post(self, path: str, body: bytes) -> int:
        """Status of one POST on a connection of its own."""
        async with aiohttp.ClientSession() as session, session.post(self.url + path, data=body) as response:
            await response.read()
            return response.status
