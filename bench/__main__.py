"""python -m bench: how fast alerts are accepted and forwarded, each beside its yardstick in the same run."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvloop
from rich.console import Console
from rich.table import Table

from bench.load import Load, drive, request
from bench.rules import measure_rules

REPOSITORY = Path(__file__).parents[1]
PATH = "/webhooks/alertmanager"
CONNECTIONS = 64
SINGLE, BATCHES, BATCH = 20_000, 600, 50
FORWARDED = 5_000
QUIET, QUIET_GAP_S = 300, 0.02


def alert(number: int) -> dict[str, object]:
    """An alert of the usual size: 12 labels, 3 annotations, 1.5 kB."""
    labels = {f"label_{n}": f"value-{n}-of-some-length" for n in range(8)}
    return {
        "status": "firing",
        "labels": {"alertname": "Bench", "service": "search", "severity": "warning", "n": str(number), **labels},
        "annotations": {
            "summary": f"alert number {number}",
            "description": "x" * 300,
            "runbook_url": "https://r.example.org",
        },
        "startsAt": "2027-01-10T03:00:00.123Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.example.org/graph?g0.expr=up%3D%3D0",
        "fingerprint": f"{number:016x}",
    }


def payload(numbers: range) -> bytes:
    """The body of one webhook with those alerts."""
    return json.dumps({"version": "4", "status": "firing", "alerts": [alert(n) for n in numbers]}).encode()


def body(numbers: range) -> bytes:
    """One webhook with those alerts, as it is sent."""
    return request(PATH, payload(numbers))


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def process(*arguments: str, port: int, **environ: str) -> AsyncIterator[None]:
    """A Python process that listens on `port`."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env={**os.environ, **environ}, stderr=asyncio.subprocess.DEVNULL, cwd=REPOSITORY
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield
    finally:
        running.terminate()
        await running.wait()


@asynccontextmanager
async def router(calls_per_minute: int, sandbox_port: int) -> AsyncIterator[int]:
    """A fresh alertrouter with the shipped rules and an embedded Redis that fsyncs every write."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        async with process(
            *("-m", "alertrouter", "serve"),
            port=port,
            ALERTROUTER_LISTEN=f"127.0.0.1:{port}",
            ALERTROUTER_DATA_DIR=data,
            ALERTROUTER_RULES="rules",
            ALERTROUTER_LOG_LEVEL="warning",
            ALERTROUTER_PAGERDUTY_EVENTS_URL=f"http://127.0.0.1:{sandbox_port}",
            ALERTROUTER_PAGERDUTY_ROUTING_KEY="0" * 32,
            ALERTROUTER_PAGERDUTY_CALLS_PER_MINUTE=str(calls_per_minute),
        ):
            yield port


async def delivered(sandbox_port: int) -> int:
    """How many alerts the sandbox has opened."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{sandbox_port}/totals") as response,
    ):
        return int((await response.json()).get("opened", 0))


async def until_delivered(sandbox_port: int, count: int) -> None:
    """Return once the sandbox has opened that many alerts."""
    while await delivered(sandbox_port) < count:  # noqa: ASYNC110 - another process counts them
        await asyncio.sleep(0.001)


def check(load: Load) -> Load:
    """Only answers of 202 count as accepted."""
    if set(load.statuses) != {202}:
        raise SystemExit(f"not every alert was accepted: {load.statuses}")
    return load


async def main() -> None:
    """Measure and print."""
    table = Table(
        "what", "alerts/s", "of the empty handler", "p50 ms", "p99 ms", title="alertrouter, two processes on loopback"
    )
    single = [body(range(n, n + 1)) for n in range(SINGLE)]
    batches = [body(range(n * BATCH, (n + 1) * BATCH)) for n in range(BATCHES)]

    def row(name: str, load: Load, per_request: int = 1, of: Load | None = None) -> None:
        ratio = f"{load.rate / of.rate:.2f}" if of else ""
        table.add_row(
            name, f"{load.rate * per_request:,.0f}", ratio, f"{load.percentile(50):.1f}", f"{load.percentile(99):.1f}"
        )

    sandbox_port = free_port()
    async with process("-m", "alertrouter", "sandbox", "--listen", f"127.0.0.1:{sandbox_port}", port=sandbox_port):
        port = free_port()
        async with process("-m", "bench.empty", str(port), port=port):
            empty = check(await drive(port, single, CONNECTIONS))
            empty_batches = check(await drive(port, batches, CONNECTIONS))
        row("empty aiohttp handler, 1 alert per webhook", empty)
        async with router(110, sandbox_port) as port:
            row("accepted, new, 1 per webhook", check(await drive(port, single, CONNECTIONS)), of=empty)
            row("accepted, duplicates, 1 per webhook", check(await drive(port, single, CONNECTIONS)), of=empty)
        row(f"empty aiohttp handler, {BATCH} per webhook", empty_batches, BATCH)
        async with router(110, sandbox_port) as port:
            accepted = check(await drive(port, batches, CONNECTIONS))
            row(f"accepted, new, {BATCH} per webhook", accepted, BATCH, of=empty_batches)
        async with router(0, sandbox_port) as port:
            before = await delivered(sandbox_port)
            loop = asyncio.get_running_loop()
            began = loop.time()
            check(await drive(port, [body(range(n, n + 1)) for n in range(10**6, 10**6 + FORWARDED)], CONNECTIONS))
            await until_delivered(sandbox_port, before + FORWARDED)
            table.add_row("from webhook to sandbox", f"{FORWARDED / (loop.time() - began):,.0f}", "", "", "")
        async with router(0, sandbox_port) as port:
            quiet = Load(seconds=1)
            for number in range(2 * 10**6, 2 * 10**6 + QUIET):
                before, began = await delivered(sandbox_port), loop.time()
                check(await drive(port, [body(range(number, number + 1))], 1))
                await until_delivered(sandbox_port, before + 1)
                quiet.latencies.append(loop.time() - began)
                await asyncio.sleep(QUIET_GAP_S)
            table.add_row(
                "one alert, idle, webhook to sandbox",
                "",
                "",
                f"{quiet.percentile(50):.1f}",
                f"{quiet.percentile(99):.1f}",
            )
    console = Console(width=110)
    console.print(table)
    console.print(measure_rules(payload(range(1))))


uvloop.run(main())
