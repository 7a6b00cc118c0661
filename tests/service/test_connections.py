"""Slow and many connections of a running service: they end, and others do not notice."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from alertrouter.limits import Limits
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from alertrouter.web.connections import group_of
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.process import ROUTING_KEY
from tests.service.conftest import Client, serving, write_rules
from tests.waiting import until

PATH = "/webhooks/alertmanager"
HEAD = b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
SHORT = {"header_timeout": 2000, "body_timeout": 2000, "answer_timeout": 2000}
#: The time-out, a second until somebody looks, and room for a busy machine.
SOON_S = 6.0

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(url: str, address: str = "127.0.0.1") -> AsyncIterator[Wire]:
    """A connection from that address."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(address, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def ended(reader: asyncio.StreamReader, within_s: float = SOON_S) -> bytes:
    """What came until the other side ended it; TimeoutError if it does not."""
    heard = b""
    async with asyncio.timeout(within_s):
        with suppress(ConnectionError):
            while chunk := await reader.read(65536):
                heard += chunk
    return heard


@pytest.fixture
async def hasty(settings: Settings) -> AsyncIterator[Client]:
    """A service that waits two seconds for everything."""
    async with serving(settings.model_copy(update=SHORT)) as client:
        yield client


SLOW = {
    "nothing": b"",
    "half a line": b"POST /webh",
    "half a head": b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nX-",
    "half a body": HEAD % 100 + b'{"alerts"',
    "no body": HEAD % 100,
    "half a chunk": b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nab",
}


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW.keys())
async def test_who_does_not_finish_is_cut_off_without_an_answer(hasty: Client, sent: bytes) -> None:
    """A real sender repeats a lost connection; it would not repeat a 408."""
    async with connected(hasty.service.url) as (reader, writer):
        writer.write(sent)
        assert await ended(reader) == b""
    _, metrics = await hasty.get("/metrics")
    assert 'alertrouter_connections_cut_total{what="' in metrics
    assert (await hasty.post(PATH, alertmanager_body(alertmanager_alert())))[0] == 202


@pytest.mark.parametrize("sent", [b"POST / HTTP/1.1\r\nX-A: ", HEAD % 1000], ids=["head", "body"])
async def test_a_byte_now_and_then_wins_no_time(hasty: Client, sent: bytes) -> None:
    async with connected(hasty.service.url) as (reader, writer):
        writer.write(sent)

        async def drip() -> None:
            with suppress(ConnectionError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        assert await ended(reader) == b""
        dripping.cancel()


async def test_slow_headers_win_no_time_for_the_body(settings: Settings) -> None:
    settings = settings.model_copy(update={"header_timeout": 60_000, "body_timeout": 3_000})
    async with serving(settings) as client, connected(client.service.url) as (reader, writer):
        now = asyncio.get_running_loop().time
        began = now()
        writer.write(HEAD[:-2] % 100)
        await until(lambda: now() > began + 1.5)
        writer.write(b"\r\n")
        assert await ended(reader) == b""
        assert now() < began + 3.5, "three seconds for all of it"


async def test_a_second_request_has_no_more_time_for_its_head(hasty: Client) -> None:
    async with connected(hasty.service.url) as (reader, writer):
        writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /-/hea")
        assert b"HTTP/1.1" not in await ended(reader)


async def test_an_idle_connection_ends_but_not_before_its_time(settings: Settings) -> None:
    settings = settings.model_copy(update={**SHORT, "keepalive_timeout": 3_000})
    async with serving(settings) as client, connected(client.service.url) as (reader, writer):
        began = asyncio.get_running_loop().time()
        writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await ended(reader, 10)).startswith(b"HTTP/1.1 200")
        assert asyncio.get_running_loop().time() - began >= 3.0


async def test_connection_close_is_heeded(client: Client) -> None:
    async with connected(client.service.url) as (reader, writer):
        writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await ended(reader)
        assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower()


async def test_who_is_refused_is_to_send_no_more(settings: Settings) -> None:
    settings = settings.model_copy(update={"max_body_bytes": 2048})
    async with serving(settings) as client, connected(client.service.url) as (reader, writer):
        writer.write(HEAD % 4096 + b"x" * 4096)
        answer = await ended(reader)
        assert answer.startswith(b"HTTP/1.1 413") and b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    ("path", "expectation", "status"),
    [("/webhooks/nobody", "100-continue", b"404"), ("/webhooks/alertmanager", "a miracle", b"417")],
)
async def test_who_is_not_told_to_send_its_body_begins_anew(
    client: Client, path: str, expectation: str, status: bytes
) -> None:
    """Or else what it sends next would be taken for the body."""
    async with connected(client.service.url) as (reader, writer):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nExpect: {expectation}\r\nContent-Length: 500\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(SOON_S):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status) and b"connection: close" in answer.lower()


async def test_who_does_not_read_the_answer_is_cut_off(hasty: Client) -> None:
    """Pipelined requests for metrics, of which nothing is read."""
    requests = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 5000

    async def cut_off() -> bool:
        return 'alertrouter_connections_cut_total{what="answer"}' in (await hasty.get("/metrics"))[1]

    assert not await cut_off()
    async with connected(hasty.service.url) as (_, writer):
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        writer.write(requests)
        await until(cut_off, 20)

        async def is_gone() -> bool:  # and not only about to be, once it reads: what is left is the one that asks
            return "alertrouter_connections 1.0" in (await hasty.get("/metrics"))[1]

        await until(is_gone, 10)


async def health(url: str, address: str = "127.0.0.1") -> bytes:
    """The first line of an answer on a connection of its own."""
    async with connected(url, address) as (reader, writer):
        writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return (await ended(reader)).partition(b"\r\n")[0]


async def test_there_are_only_so_many_connections_from_one_address(settings: Settings) -> None:
    async with (
        serving(settings.model_copy(update={"max_connections_per_address": 5})) as client,
        AsyncExitStack() as ours,
    ):
        url = client.service.url
        _, first = await ours.enter_async_context(connected(url))
        for _ in range(4):
            await ours.enter_async_context(connected(url))
        assert (await health(url)).startswith(b"HTTP/1.1 503")
        assert (await health(url, "127.0.0.2")).startswith(b"HTTP/1.1 200")
        first.close()

        async def is_let_in() -> bool:
            return (await health(url)).startswith(b"HTTP/1.1 200")

        await until(is_let_in, 10)


async def test_when_full_who_has_few_connections_still_gets_in(settings: Settings) -> None:
    """One address takes the 20 that there are for all, and another still gets in."""
    async with serving(settings.model_copy(update={"max_connections": 20})) as client, AsyncExitStack() as ours:
        url = client.service.url
        for _ in range(20):
            await ours.enter_async_context(connected(url))
        assert (await health(url)).startswith(b"HTTP/1.1 503")
        assert (await health(url, "127.0.0.2")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("peername", "group"),
    [
        (("192.0.2.7", 4711), "192.0.2.7"),
        (("::ffff:192.0.2.7", 4711, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 4711, 0, 0), "2001:db8:1:2::"),
        (("2001:db8:1:2:ffff::1", 4711, 0, 0), "2001:db8:1:2::"),
        (("fe80::1%eth0", 4711, 0, 2), "fe80::"),
        ("/run/socket", ""),
        (None, ""),
    ],
)
def test_addresses_are_grouped_by_who_can_have_them(peername: object, group: str) -> None:
    assert group_of(peername) == group


BROKEN = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "two lengths": HEAD[:-2] % 3 + b"Content-Length: 4\r\n\r\nabc",
    "length and chunks": HEAD[:-2] % 3 + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n Secret: token-4711\r\n\r\n",
    "bad chunk": b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
    "huge header": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"token-4711" * 2000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: token-4711\r\n" * 500 + b"\r\n",
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN.keys())
async def test_what_is_no_request_is_refused_and_not_logged(
    client: Client, capfd: pytest.CaptureFixture[str], sent: bytes
) -> None:
    async with connected(client.service.url) as (reader, writer):
        writer.write(sent)
        answer = await ended(reader)
    assert answer.partition(b" ")[2].startswith(b"400 ") and b"token-4711" not in answer
    logged = capfd.readouterr()
    assert "Traceback" not in logged.err and "token-4711" not in logged.err + logged.out
    assert (await client.post(PATH, alertmanager_body(alertmanager_alert())))[0] == 202


async def test_out_of_open_files_it_survives_and_goes_on(tmp_path: Path) -> None:
    """64 open files, and four hundred connections that want to stay."""
    async with Sandbox() as sandbox:
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ALERTROUTER_")},
            "ALERTROUTER_LISTEN": "127.0.0.1:0",
            "ALERTROUTER_DATA_DIR": str(tmp_path / "data"),
            "ALERTROUTER_RULES": str(write_rules(tmp_path / "rules")),
            "ALERTROUTER_PAGERDUTY_EVENTS_URL": sandbox.url,
            "ALERTROUTER_PAGERDUTY_ROUTING_KEY": ROUTING_KEY,
        }
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'ulimit -n 64; exec "$0" -m alertrouter serve', sys.executable),
            env=environ,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        log = []
        async with asyncio.timeout(60):
            async for line in process.stderr:
                log.append(json.loads(line))
                if log[-1]["event"] == "listening":
                    break
        assert any("open files" in entry["event"] for entry in log), log
        url = log[-1]["url"]
        host, _, port = url.removeprefix("http://").partition(":")
        body = alertmanager_body(alertmanager_alert())

        async def is_taken() -> bool:
            with suppress(ConnectionError):
                async with connected(url, "127.0.0.2") as (reader, writer):
                    writer.write(HEAD[:-2] % len(body) + b"Connection: close\r\n\r\n" + body)
                    return (await ended(reader)).startswith(b"HTTP/1.1 202")
            return False

        with ExitStack() as ours:
            for _ in range(400):
                with suppress(ConnectionError):
                    ours.enter_context(socket.create_connection((host, int(port)), 10))
            await until(is_taken, 30)
        await sandbox.wait_for(lambda events: len(events) >= 1)
        process.terminate()
        await process.stderr.read()
        assert await process.wait() == 0


async def test_without_the_compiled_parser_it_does_not_start(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alertrouter", "serve", "--sandbox", "--listen", "127.0.0.1:0"),
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("ALERTROUTER_")},
            "AIOHTTP_NO_EXTENSIONS": "1",
            "ALERTROUTER_DATA_DIR": str(tmp_path / "data"),
            "ALERTROUTER_RULES": str(write_rules(tmp_path / "rules")),
        },
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert b"unset AIOHTTP_NO_EXTENSIONS" in stderr


def test_the_limits_are_the_ones_that_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "network.md").read_text()
    limits = Limits()
    for shown in (
        f"{limits.body_bytes // 1024 // 1024} MiB",
        f"{limits.alerts:,} alerts",
        f"{limits.depth} levels",
        f"{limits.containers:,}",
        f"{limits.labels} labels",
        f"{limits.name} characters",
        f"{limits.text:,} characters",
        f"{limits.head_s:.0f} s",
        f"{limits.body_s:.0f} s",
        f"{limits.idle_s:.0f} s",
        f"{limits.connections:,}",
        f"{limits.connections_per_address:,}",
    ):
        assert shown in text, shown
