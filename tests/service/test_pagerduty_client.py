"""The PagerDuty client against the sandbox, and against servers that break off, stall, babble and lie."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from alertrouter.alert import CommonEvent, Link, Severity
from alertrouter.destinations.pagerduty import (
    Delivered,
    EventAction,
    Objection,
    PagerDutyClient,
    Refused,
    TryAgain,
    build_event,
    encode_event,
)
from alertrouter.enrich import Enriched
from alertrouter.errors import SettingsInvalid
from alertrouter.sandbox import Result, Sandbox

KEY = "0123456789abcdefghijABCDEFGHIJKL"
ANSWERED = b'{"status":"success","message":"Event processed","dedup_key":"datadog:42"}'

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def event(action: EventAction = EventAction.TRIGGER, **changed: Any) -> bytes:
    shown = CommonEvent("Disk full on db-1", "db-1", Severity.CRITICAL, custom_details={"env": "prod"})
    enriched = Enriched(shown, (Link("https://runbooks.example.org/disk", "Runbook"),), "alertrouter", "")
    return encode_event(build_event(action, KEY, "datadog:42", enriched) | changed)


@asynccontextmanager
async def client_to(url: str, **settings: Any) -> AsyncIterator[PagerDutyClient]:
    client = PagerDutyClient(url, **settings)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """A server whose every connection is handled by `serve`, until it returns. Yields its address without scheme."""
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.CancelledError, ConnectionError, EOFError):
            pass
        finally:
            writer.transport.abort()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Head and body of one request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.splitlines() if line.lower().startswith("content-length:"))
    return head, await reader.readexactly(int(length.split(":")[1]))


def answering(answer: bytes, then: str = "stall") -> Serve:
    """Reads one request, writes `answer`, and then stalls, closes, or resets the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()
        if then == "stall":
            await asyncio.Event().wait()
        elif then == "close":
            writer.close()
            await writer.wait_closed()
        else:
            linger = struct.pack("ii", 1, 0)  # closing sends a reset
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    return serve


async def reset_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def stall(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


# --- PagerDuty as it should be ---------------------------------------------------------------------------------------


async def test_trigger_acknowledge_and_resolve_reach_pagerduty() -> None:
    async with Sandbox() as sandbox, client_to(sandbox.url) as client:
        for action in (EventAction.TRIGGER, EventAction.ACKNOWLEDGE, EventAction.RESOLVE):
            assert await client.send(event(action)) == Delivered("datadog:42")
        results = [(call.event["event_action"], call.result, call.routing_key) for call in sandbox.events]
    assert results == [
        ("trigger", Result.OPENED, KEY),
        ("acknowledge", Result.ACKNOWLEDGED, KEY),
        ("resolve", Result.RESOLVED, KEY),
    ]


async def test_what_is_sent_and_over_how_many_connections() -> None:
    requests: list[tuple[str, bytes]] = []
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            requests.append(await read_request(reader))
            head = f"HTTP/1.1 202 Accepted\r\nSet-Cookie: a=b\r\nContent-Length: {len(ANSWERED)}\r\n\r\n"
            writer.write(head.encode() + ANSWERED)

    async with server(serve) as address, client_to(f"http://{address}") as client:
        for _ in range(20):
            assert await client.send(event()) == Delivered("datadog:42")
    assert connections == 1
    assert {body for _, body in requests} == {event()}
    (head,) = {head.lower() for head, _ in requests}  # all alike: the cookie is not sent back
    request_line, *headers = head.strip().splitlines()
    assert request_line == "post /v2/enqueue http/1.1"
    assert sorted(line.partition(":")[0] for line in headers) == [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
    ]
    assert "content-type: application/json" in headers


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Sandbox() as sandbox, client_to(sandbox.url) as client:
        assert await client.send(event()) == Delivered("datadog:42")


async def test_a_refusal_comes_with_the_reason() -> None:
    async with Sandbox() as sandbox, client_to(sandbox.url) as client:
        outcome = await client.send(event(routing_key="tooshort!"))
    assert outcome == Refused(
        400,
        "Event object is invalid: Length of 'routing_key' is incorrect (should be 32 characters); "
        "'routing_key' cannot contain non-alphanumeric characters.",
        Objection.KEY,
    )


async def test_an_alert_of_any_size_is_taken() -> None:
    shown = CommonEvent(
        "Disk full on db-1", "db-1", Severity.CRITICAL, custom_details={"env": "prod", "log": "x" * 9_000_000}
    )
    body = encode_event(build_event(EventAction.TRIGGER, KEY, "datadog:42", Enriched(shown, (), "", "")))
    async with Sandbox() as sandbox, client_to(sandbox.url) as client:
        assert await client.send(body) == Delivered("datadog:42")
        (call,) = sandbox.events
    assert call.event["payload"]["custom_details"]["env"] == "prod"
    assert call.size > 500_000


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"status": 500, "body": {"message": "broken"}}, TryAgain("HTTP 500: broken", None, ambiguous=False)),
        ({"status": 503, "body": "", "retry_after": 7}, TryAgain("HTTP 503", 7_000, ambiguous=False)),
        (
            {"status": 503, "body": "", "retry_after": "Fri, 02 Jan 2026 03:04:15 GMT"},
            TryAgain("HTTP 503", 10_000, ambiguous=False),
        ),
        ({"status": 429, "body": ""}, TryAgain("HTTP 429", 30_000, ambiguous=False, throttled=True)),
        ({"status": 429, "body": "", "retry_after": 5}, TryAgain("HTTP 429", 5_000, ambiguous=False, throttled=True)),
        ({"status": 408, "body": ""}, TryAgain("HTTP 408", None, ambiguous=False)),
        ({"status": 504, "body": "<h1>late</h1>"}, TryAgain("HTTP 504: <h1>late</h1>", None, ambiguous=True)),
        ({"status": 200, "body": "<h1>hello</h1>"}, TryAgain("HTTP 200: <h1>hello</h1>", None, ambiguous=True)),
        ({"status": 403, "body": "Invalid routing key"}, Refused(403, "Invalid routing key", Objection.KEY)),
        ({"status": 202, "body": "<h1>garbage</h1>"}, Delivered("")),
    ],
)
async def test_the_status_decides(fault: dict[str, Any], outcome: object) -> None:
    async with Sandbox() as sandbox, client_to(sandbox.url, clock=lambda: 1_767_323_045_000) as client:
        sandbox.fail(**fault)
        assert await client.send(event()) == outcome
        assert await client.send(event()) == Delivered("datadog:42"), "the next call is not affected"


async def test_a_redirect_is_not_followed() -> None:
    async with Sandbox() as other:
        for status in (301, 302, 303, 307, 308):
            answer = f"HTTP/1.1 {status} Moved\r\nLocation: {other.url}/v2/enqueue\r\nContent-Length: 0\r\n\r\n"
            async with server(answering(answer.encode())) as address, client_to(f"http://{address}") as client:
                assert await client.send(event()) == TryAgain(f"HTTP {status}", None, ambiguous=False)
        assert other.calls == []


async def test_plain_http_beyond_loopback_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(SettingsInvalid, match="plain http"):
        PagerDutyClient("http://events.pagerduty.com")


# --- no connection: PagerDuty cannot have heard it -------------------------------------------------------------------


def assert_unsent(outcome: object) -> None:
    assert isinstance(outcome, TryAgain)
    assert outcome.reason.startswith("no connection: ")
    assert outcome.retry_after_ms is None
    assert not outcome.ambiguous


async def test_a_refused_connection_is_not_ambiguous() -> None:
    async with server(stall) as address:
        pass
    async with client_to(f"http://{address}") as client:
        assert_unsent(await client.send(event()))


async def test_a_name_that_does_not_resolve_is_not_ambiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with client_to("https://events.pagerduty.com") as client:
        assert_unsent(await client.send(event()))


async def test_a_server_that_does_not_speak_tls_is_not_ambiguous() -> None:
    async with Sandbox() as sandbox, client_to(sandbox.url.replace("http:", "https:")) as client:
        assert_unsent(await client.send(event()))
        assert sandbox.calls == []


async def test_a_handshake_that_never_ends_is_not_ambiguous() -> None:
    async with server(stall) as address, client_to(f"https://{address}", connect_s=0.1, total_s=5) as client:
        assert_unsent(await client.send(event()))


async def test_waiting_for_a_free_connection_is_not_ambiguous() -> None:
    patience = {"connections": 1, "connect_s": 0.1, "total_s": 0.4}
    async with server(stall) as address, client_to(f"http://{address}", **patience) as client:
        sending, waiting = await asyncio.gather(client.send(event()), client.send(event()))
    assert_unsent(waiting)
    assert sending == TryAgain("no answer: TimeoutError", None, ambiguous=True)


# --- no answer: PagerDuty may have heard it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "serve",
    [
        reset_at_once,
        stall,
        answering(b""),
        answering(b"", "close"),
        answering(b"", "reset"),
        answering(b"HTTP/1.1 20"),
        answering(b"HTTP/1.1 20", "close"),
        answering(b"HTTP/1.1 20", "reset"),
        answering(b"HTTP/1.1 202 Accepted\r\nContent-Le", "close"),
        answering(b"HTTP/1.1 202 Accepted\r\nContent-Length: many\r\n\r\n", "close"),
        answering(b"HTTP/1.1 202 Accepted\r\n" + b"X: y\r\n" * 100_000),
        answering(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        answering(b"SSH-2.0-OpenSSH_9.2\r\n", "close"),
        answering(b'220 smtp {"routing_key":"' + KEY.encode() + b'"}\r\n', "close"),
        answering(b"\x00" * 100_000, "close"),
    ],
    ids=[
        "reset at once",
        "never reads",
        "never answers",
        "closes",
        "resets",
        "stalls in status",
        "closes in status",
        "resets in status",
        "closes in headers",
        "bad length",
        "endless headers",
        "continue for ever",
        "ssh",
        "echoes the key",
        "zeros",
    ],
)
async def test_a_connection_that_ends_without_a_status_is_ambiguous(serve: Serve) -> None:
    async with server(serve) as address, client_to(f"http://{address}", connect_s=0.2, total_s=0.5) as client:
        outcome = await client.send(event())
    assert isinstance(outcome, TryAgain)
    assert outcome.reason.startswith("no answer: ")
    assert outcome.ambiguous
    assert KEY not in repr(outcome)


async def test_a_timed_out_event_may_still_be_taken() -> None:
    async with Sandbox() as sandbox, client_to(sandbox.url, connect_s=0.1, total_s=0.2) as client:
        sandbox.fail(202, delay_ms=400)
        outcome = await client.send(event())
        assert outcome == TryAgain("no answer: TimeoutError", None, ambiguous=True)
        assert sandbox.calls == []
        await sandbox.wait_for(lambda events: [call.result for call in events] == [Result.OPENED])


async def test_the_total_is_not_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself, aiohttp rounds time-outs over five seconds up to whole ones: past what a lease leaves."""
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    waits: list[float] = []

    def noting(when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        waits.append(when - loop.time())
        return call_at(when, *args, **options)

    monkeypatch.setattr(loop, "call_at", noting)
    async with Sandbox() as sandbox, client_to(sandbox.url, connect_s=3.3, total_s=10.5) as client:
        await client.send(event())
    assert any(10.4 < wait <= 10.5 for wait in waits)
    assert not any(10.5 < wait < 12 for wait in waits)


async def test_a_connection_closed_while_idle_costs_a_try_at_most() -> None:
    answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    async with server(answering(answer, "close")) as address, client_to(f"http://{address}") as client:
        outcomes = [await client.send(event()) for _ in range(10)]
    assert outcomes[0] == Delivered("")
    assert all(
        outcome == Delivered("") or (isinstance(outcome, TryAgain) and outcome.ambiguous) for outcome in outcomes
    )


# --- a status, and then trouble: the status counts -------------------------------------------------------------------


@pytest.mark.parametrize("then", ["stall", "close", "reset"])
@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (202, Delivered("")),
        (400, Refused(400, '{"message":"Ev', Objection.CONTENT)),
        (503, TryAgain('HTTP 503: {"message":"Ev', None, ambiguous=False)),
    ],
)
async def test_a_broken_answer_body_changes_nothing(status: int, outcome: object, then: str) -> None:
    answer = f'HTTP/1.1 {status} Status\r\nContent-Length: 500\r\n\r\n{{"message":"Ev'.encode()
    serve = answering(answer, then)
    async with server(serve) as address, client_to(f"http://{address}", connect_s=0.2, total_s=0.3) as client:
        sent = await client.send(event())
    if then == "reset" and sent != outcome:  # a reset may overtake the bytes sent before it
        assert isinstance(sent, TryAgain | Refused | Delivered)
        assert "Ev" not in repr(sent)
    else:
        assert sent == outcome


async def test_an_answer_that_drips_is_cut_off_by_the_total() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(drip) as address, client_to(f"http://{address}", connect_s=0.1, total_s=0.3) as client:
        async with asyncio.timeout(3):
            assert await client.send(event()) == Delivered("")


@pytest.mark.parametrize("status", [202, 400])
async def test_an_endless_answer_is_not_read_to_its_end(status: int) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(f"HTTP/1.1 {status} Status\r\nContent-Length: 10000000000\r\n\r\n".encode())
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with server(pour) as address, client_to(f"http://{address}", total_s=60) as client, asyncio.timeout(10):
        outcome = await client.send(event())
    assert outcome == (Delivered("") if status == 202 else Refused(400, "x" * 499 + "…", Objection.CONTENT))


async def test_a_compressed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(b"A" * 50_000_000)
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    async with server(answering(head.encode() + bomb)) as address, client_to(f"http://{address}") as client:
        outcome = await client.send(event())
    assert isinstance(outcome, Refused)
    assert "AAAA" not in outcome.reason


# --- the client itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["cancel", "close"])
async def test_what_is_under_way_can_be_ended(end: str) -> None:
    heard = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        heard.set()
        await asyncio.Event().wait()

    async with server(listen) as address, client_to(f"http://{address}") as client:
        sending = asyncio.create_task(client.send(event()))
        await heard.wait()
        if end == "cancel":
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        else:
            await client.close()
            outcome = await sending
            assert isinstance(outcome, TryAgain)
            assert outcome.ambiguous


async def test_many_at_once() -> None:
    async with Sandbox() as sandbox, client_to(sandbox.url, connections=32) as client:
        limit = asyncio.Semaphore(32)

        async def send(number: int) -> object:
            async with limit:
                return await client.send(event(dedup_key=f"datadog:{number}"))

        outcomes = await asyncio.gather(*map(send, range(500)))
        assert outcomes == [Delivered(f"datadog:{number}") for number in range(500)]
        assert {call.event["dedup_key"] for call in sandbox.events} == {f"datadog:{number}" for number in range(500)}


async def test_the_routing_key_shows_nowhere() -> None:
    async with Sandbox() as sandbox, client_to(sandbox.url) as client:
        for status in (200, 302, 400, 404, 429, 500, 502):
            sandbox.fail(status, body={"message": f"bad {KEY}", "errors": [KEY]})
            outcome = await client.send(event())
            assert KEY not in repr(outcome)
            assert "bad [routing key]" in repr(outcome)
        assert KEY not in repr(client)
        assert KEY not in repr(vars(client))
