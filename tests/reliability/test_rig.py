"""The rig itself: a rig that sees nothing proves nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import aiohttp
import msgspec
import pytest

from alertrouter.alert import Severity, Status
from alertrouter.destinations.pagerduty import Delivered, PagerDutyClient, Refused, TryAgain
from tests.reliability.table import Row, render, shown
from tests.rig.ledger import Heard, Ledger, line_of, read_ledger
from tests.rig.load import Load, Plan
from tests.rig.oracle import Verdict, judge
from tests.rig.pagerduty import Call, FakePagerDuty, Fault, Log, OpenAlert, PagerDutyProcess
from tests.rig.proxy import FaultProxy
from tests.waiting import until

KEY = "d" * 32
FIRE, RESOLVE = Status.FIRING, Status.RESOLVED
NIGHT = 1_799_550_000_000
SECOND = 1000


def event(action: str = "trigger", dedup_key: str = "a", key: str = KEY, severity: str = "error") -> bytes:
    return msgspec.json.encode(
        {
            "routing_key": key,
            "event_action": action,
            "dedup_key": dedup_key,
            "payload": {"summary": "s", "source": "s", "severity": severity},
        }
    )


# --- the oracle ------------------------------------------------------------------------------------------------------


def heard(at_s: float, status: Status, severity: str = "error", episode_s: float = 0, took_s: float = 0.1) -> Heard:
    """An alert of identity 7, posted and acknowledged so many seconds after NIGHT."""
    at = NIGHT + int(at_s * SECOND)
    return Heard(7, status, int(episode_s * SECOND), Severity(severity), at, at + int(took_s * SECOND))


def call(at_s: float, action: str, result: str, severity: str = "", fault: str = "", key: str | None = None) -> Call:
    at = NIGHT + int(at_s * SECOND)
    severity = severity or ("error" if action == "trigger" else "")
    return Call(at, at, 0, heard(0, FIRE).dedup_key if key is None else key, action, result, severity, fault)


OPEN = [OpenAlert(0, heard(0, FIRE).dedup_key, "error")]
PAIR = [heard(0, FIRE), heard(10, RESOLVE)]
LONG_PAIR = [heard(0, FIRE), heard(100, RESOLVE)]
REFIRE = [*PAIR, heard(20, FIRE, episode_s=20)]
TRIGGERED = call(1, "trigger", "opened")
CLOSED = call(11, "resolve", "resolved")

HISTORIES: dict[str, tuple[list[Heard], list[Call], list[OpenAlert], Verdict]] = {
    "one page": ([heard(0, FIRE)], [TRIGGERED], OPEN, Verdict(paged=1)),
    "a pair": (PAIR, [TRIGGERED, CLOSED], [], Verdict(paged=1)),
    "a repetition is no news": ([heard(0, FIRE), heard(1, FIRE)], [TRIGGERED], OPEN, Verdict(paged=1)),
    "a page that never came": ([heard(0, FIRE)], [], [], Verdict(lost=1, wrong=1)),
    "a page that was refused": ([heard(0, FIRE)], [call(1, "trigger", "refused")], [], Verdict(lost=1, wrong=1)),
    "over before delivery": (PAIR, [], [], Verdict(resolved_before_delivery=1)),
    "over long after it began, and never told": (LONG_PAIR, [], [], Verdict(lost=1)),
    "a resolve that never came": (PAIR, [TRIGGERED], OPEN, Verdict(paged=1, wrong=1)),
    "the last episode lost": (REFIRE, [TRIGGERED, CLOSED], [], Verdict(paged=1, lost=1, wrong=1)),
    "the last episode lost, the first left open": (REFIRE, [TRIGGERED], OPEN, Verdict(paged=1, lost=1)),
    "what came back only added to the first page": (
        REFIRE, [TRIGGERED, call(21, "trigger", "updated")], OPEN, Verdict(paged=1, merged=1)),
    "the first episode coalesced": (
        REFIRE, [call(21, "trigger", "opened")], OPEN, Verdict(paged=1, resolved_before_delivery=1)),
    "two episodes": (REFIRE, [TRIGGERED, CLOSED, call(21, "trigger", "opened")], OPEN, Verdict(paged=2)),
    "the resolve owed, sent after the next firing": (
        REFIRE, [TRIGGERED, call(21, "resolve", "resolved"), call(22, "trigger", "opened")], OPEN, Verdict(paged=2)),
    "overtaken in flight": (
        PAIR, [call(11, "trigger", "opened"), call(11.5, "resolve", "resolved")], [], Verdict(paged=1)),
    "overtaken in flight by the resolve and the next firing": (
        [heard(0, FIRE), heard(10, RESOLVE), heard(10.2, FIRE, episode_s=10)],
        [call(11, "trigger", "opened"), call(11.5, "resolve", "resolved"), call(12, "trigger", "opened")],
        OPEN, Verdict(paged=2)),
    "a page after the resolve": (
        PAIR, [call(15, "trigger", "opened"), call(16, "resolve", "resolved")], [],
        Verdict(resolved_before_delivery=1, false_pages=1)),
    "a page before anything fired": (
        [heard(20, FIRE)], [TRIGGERED, call(21, "trigger", "updated")], OPEN,
        Verdict(merged=1, false_pages=1, out_of_order=1)),
    "a trigger after its resolve": (
        PAIR, [TRIGGERED, CLOSED, call(15, "trigger", "opened")], OPEN,
        Verdict(paged=1, wrong=1, false_pages=1, out_of_order=1)),
    "closed while it fires, and paged again": (
        [heard(0, FIRE)], [TRIGGERED, call(5, "resolve", "resolved"), call(6, "trigger", "opened")], OPEN,
        Verdict(paged=1, false_pages=1, out_of_order=1)),
    "sent twice": ([heard(0, FIRE)], [TRIGGERED, call(3, "trigger", "updated")], OPEN, Verdict(paged=1, duplicate=1)),
    "resolved twice": (
        PAIR, [TRIGGERED, CLOSED, call(12, "resolve", "dropped")], [], Verdict(paged=1, duplicate=1)),
    "repaired": ([heard(0, FIRE)], [TRIGGERED, call(91, "trigger", "updated")], OPEN, Verdict(paged=1, repaired=1)),
    "a severity told": (
        [heard(0, FIRE), heard(5, FIRE, "critical")], [TRIGGERED, call(6, "trigger", "updated", "critical")], OPEN,
        Verdict(paged=1)),
    "a severity not told": ([heard(0, FIRE), heard(5, FIRE, "critical")], [TRIGGERED], OPEN, Verdict(paged=1, wrong=1)),
    "an older severity last": (
        [heard(0, FIRE), heard(5, FIRE, "critical")],
        [TRIGGERED, call(6, "trigger", "updated", "critical"), call(7, "trigger", "updated", "error")], OPEN,
        Verdict(paged=1, wrong=1, out_of_order=1)),
    "swallowed by PagerDuty": ([heard(0, FIRE)], [call(1, "trigger", "swallowed")], [], Verdict(paged=1)),
    "processed late by PagerDuty, and repaired": (
        PAIR,
        [TRIGGERED, CLOSED, call(20, "trigger", "opened", fault="late"), call(101, "resolve", "resolved")],
        [], Verdict(paged=1, repaired=1)),
    "processed late by PagerDuty, and not repaired": (
        PAIR, [TRIGGERED, CLOSED, call(20, "trigger", "opened", fault="late")], OPEN, Verdict(paged=1, wrong=1)),
    "an alert nobody sent": (
        PAIR, [TRIGGERED, CLOSED, call(3, "trigger", "opened", key="foreign:1")], [],
        Verdict(paged=1, false_pages=1, unexplained=1)),
    "an alarm about alertrouter itself": (
        PAIR, [TRIGGERED, CLOSED, call(3, "trigger", "opened", key="alertrouter:redis")], [], Verdict(paged=1)),
}  # fmt: skip


@pytest.mark.parametrize(("ledger", "calls", "at_end", "expected"), HISTORIES.values(), ids=HISTORIES.keys())
def test_the_oracle(ledger: list[Heard], calls: list[Call], at_end: list[OpenAlert], expected: Verdict) -> None:
    verdict = judge(ledger, calls, at_end)
    episodes = len({alert.episode for alert in ledger})
    assert replace(verdict, examples={}) == replace(expected, accepted=len(ledger), episodes=episodes), verdict


def test_the_oracle_calls_late_what_took_longer_than_allowed() -> None:
    assert judge([heard(0, FIRE)], [call(4, "trigger", "opened")], OPEN, late_ms=3_000).late == 1
    assert judge([heard(0, FIRE)], [call(3, "trigger", "opened")], OPEN, late_ms=3_000).late == 0


def test_the_oracle_lets_a_resolve_come_after_the_trigger_that_went_past_redis() -> None:
    overtook = call(21, "trigger", "updated")
    calls = [TRIGGERED, overtook, call(25, "resolve", "resolved"), call(26, "trigger", "opened")]
    ledger = [*REFIRE, heard(24, FIRE, "info", 20)]
    told = [*calls[:3], call(26, "trigger", "opened", "info")]
    assert judge(ledger, told, OPEN, past_redis=True).out_of_order == 0
    closed_for_nothing = [*told, call(30, "resolve", "resolved")]
    assert judge(ledger, closed_for_nothing, [], past_redis=True).out_of_order == 1


def test_the_oracle_lets_a_page_be_opened_once_more_after_a_resolve_that_waited_in_redis() -> None:
    told = [call(21, "trigger", "opened"), call(25, "resolve", "resolved"), call(26, "trigger", "opened")]
    assert judge(REFIRE, told, OPEN, past_redis=True).false_pages == 0
    assert judge(REFIRE, told, OPEN).false_pages == 1
    told[1] = call(25, "resolve", "dropped")
    assert judge(REFIRE, told, OPEN, past_redis=True).false_pages == 1


def test_the_oracle_asks_the_history_why_an_episode_was_not_delivered() -> None:
    entry = {"id": heard(0, FIRE).dedup_key, "at": str(NIGHT + 11 * SECOND), "outcome": "resolved_before_delivery"}
    assert judge(PAIR, [], [], [entry]).unexplained == 0
    assert judge(PAIR, [], [], []).unexplained == 1
    assert judge(PAIR, [], [], [{**entry, "at": str(NIGHT + 5 * SECOND)}]).unexplained == 1


@pytest.mark.parametrize(("since_s", "at_s", "lost"), [(0, 71, 0), (29, 100, 0), (0, 69, 1), (31, 100, 1)])
def test_an_episode_may_end_before_its_turn_however_long_it_lasted(since_s: int, at_s: int, lost: int) -> None:
    other = heard(since_s, FIRE)._replace(identity=8)
    told = [call(at_s, "trigger", "opened", key=other.dedup_key)]
    verdict = judge([*LONG_PAIR, other], told, [OpenAlert(0, other.dedup_key, "error")])
    assert (verdict.lost, verdict.resolved_before_delivery) == (lost, 1 - lost)


def test_a_verdict_shows_its_examples() -> None:
    assert "lost: alertmanager:0000000000000007" in str(judge([heard(0, FIRE)], [], []))


# --- the ledger and the load -----------------------------------------------------------------------------------------


async def test_the_ledger_reads_back_what_was_put_and_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    await asyncio.gather(ledger.put(PAIR), ledger.put([heard(20, FIRE, "info", 20)]))
    assert ledger.accepted == 3
    ledger.close()
    with path.open("a") as file:
        file.write(line_of(heard(30, RESOLVE))[:-1])
    assert list(read_ledger(path)) == [*PAIR, heard(20, FIRE, "info", 20)]


async def test_the_load_repeats_until_acknowledged_and_keeps_the_order(tmp_path: Path) -> None:
    """A receiver that refuses every other webhook and breaks some connections; it moves to another port half-way."""
    received: list[tuple[str, str, str]] = []
    taken: list[tuple[str, str, str]] = []
    posts = 0

    async def receive(request: aiohttp.web.Request) -> aiohttp.web.Response:
        nonlocal posts
        posts += 1
        alerts = [
            (alert["fingerprint"], alert["status"], alert["startsAt"]) for alert in (await request.json())["alerts"]
        ]
        received.extend(alerts)
        if posts % 5 == 0:
            assert request.transport is not None
            request.transport.abort()
        if posts % 2:
            return aiohttp.web.Response(status=503)
        if posts % 5:
            taken.extend(alerts)
        return aiohttp.web.Response(status=202)

    app = aiohttp.web.Application()
    app.add_routes([aiohttp.web.post("/webhooks/alertmanager", receive)])
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    addresses = tmp_path / "addresses"

    async def listen() -> aiohttp.web.TCPSite:
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        addresses.write_text(f"http://127.0.0.1:{runner.addresses[-1][1]}\n")
        return site

    site = await listen()
    async with Load(Plan(alerts=300, identities=20, batch=3, connections=4), addresses, tmp_path / "ledger") as load:
        await until(lambda: load.accepted >= 100)
        await site.stop()
        await listen()
        progress = await load.finished(within_s=30)
    await runner.cleanup()
    written = list(read_ledger(tmp_path / "ledger"))
    assert progress.accepted == len(written) == len(taken) == 300
    assert progress.statuses["202"] == 100 and progress.statuses["503"] > 10 and progress.broken > 0
    for identity in range(20):
        mine = [alert for alert in written if alert.identity == identity]
        assert [alert.status.value for alert in mine] == [
            status for fingerprint, status, _ in taken if int(fingerprint, 16) == identity
        ]
        for before, after in pairwise(mine):
            assert before.acked <= after.posted
            assert (after.episode > before.episode) == (before.status is RESOLVE)
    assert len({alert.severity for alert in written}) == 4
    assert len(received) > len(taken)


async def test_a_load_without_an_end_stops_when_told(tmp_path: Path) -> None:
    async with FakeReceiver() as url:
        (tmp_path / "addresses").write_text(url)
        async with Load(Plan(alerts=0, rate=200), tmp_path / "addresses", tmp_path / "ledger") as load:
            await until(lambda: load.accepted > 0)
            load.stop()
            progress = await load.finished(within_s=10)
    assert progress.done and progress.accepted == len(list(read_ledger(tmp_path / "ledger")))


class FakeReceiver:
    """A webhook that acknowledges everything."""

    async def __aenter__(self) -> str:
        app = aiohttp.web.Application()
        app.add_routes([aiohttp.web.post("/webhooks/alertmanager", self._receive)])
        self._runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await aiohttp.web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _receive(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        await request.read()
        return aiohttp.web.Response(status=202)


# --- PagerDuty -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def pagerduty() -> AsyncIterator[FakePagerDuty]:
    async with FakePagerDuty() as pagerduty:
        yield pagerduty


@pytest.fixture
async def client(pagerduty: FakePagerDuty) -> AsyncIterator[PagerDutyClient]:
    """Our own client with short time-outs: what it makes of a fault is what alertrouter will."""
    client = PagerDutyClient(pagerduty.url, connect_s=0.5, total_s=0.5)
    yield client
    await client.close()


def logged(pagerduty: FakePagerDuty) -> list[tuple[int, str, str, str]]:
    return [(call.number, call.action, call.result, call.fault) for call in pagerduty.log]


async def test_its_semantics(pagerduty: FakePagerDuty, client: PagerDutyClient) -> None:
    for body in (event(), event(), event(key="e" * 32), event("acknowledge"), event("resolve"), event("resolve")):
        assert isinstance(await client.send(body), Delivered)
    assert isinstance(await client.send(event(key="short")), Refused)
    assert [call.result for call in pagerduty.log] == [
        "opened", "updated", "opened", "acknowledged", "resolved", "dropped", "refused",
    ]  # fmt: skip
    assert [call.key for call in pagerduty.log] == [0, 0, 1, 0, 0, 0, 2]
    assert pagerduty.open_alerts() == [OpenAlert(1, "a", "error")]


async def test_its_limit_is_per_routing_key() -> None:
    async with FakePagerDuty(calls_per_minute=2) as pagerduty:
        client = PagerDutyClient(pagerduty.url)
        answers = [await client.send(event(dedup_key=name)) for name in "abc"]
        other = await client.send(event(key="e" * 32))
        await client.close()
    assert [type(answer) for answer in answers] == [Delivered, Delivered, TryAgain]
    assert isinstance(other, Delivered)
    assert pagerduty.totals() == {"received": 4, "logged": 4, "open": 3, "opened": 3, "throttled": 1}


#: What our client makes of each fault, and what PagerDuty did. A late call is processed after the client gave up.
FAULTS: dict[str, tuple[Fault, type, bool, str, bool]] = {
    "status": (Fault("status", status=503), TryAgain, False, "failed", False),
    "gateway": (Fault("status", status=504), TryAgain, True, "failed", False),
    "delay": (Fault("delay", delay_ms=100), Delivered, False, "opened", True),
    "delay beyond the time-out": (Fault("delay", delay_ms=900), TryAgain, True, "opened", True),
    "drip": (Fault("drip", delay_ms=1), Delivered, False, "opened", True),
    "reset before": (Fault("reset_before"), TryAgain, True, "lost", False),
    "reset after": (Fault("reset_after"), TryAgain, True, "opened", True),
    "swallow": (Fault("swallow"), Delivered, False, "swallowed", False),
    "late": (Fault("late", delay_ms=900), TryAgain, True, "opened", True),
}


@pytest.mark.parametrize(("fault", "kind", "ambiguous", "result", "is_open"), FAULTS.values(), ids=FAULTS.keys())
async def test_a_fault(
    pagerduty: FakePagerDuty,
    client: PagerDutyClient,
    fault: Fault,
    kind: type,
    ambiguous: bool,
    result: str,
    is_open: bool,
) -> None:
    pagerduty.fail(fault)
    answer = await client.send(event())
    assert isinstance(answer, kind), answer
    assert (isinstance(answer, TryAgain) and answer.ambiguous) is ambiguous
    assert (len(pagerduty.log) == 0) is (fault.kind == "late"), "a late call is processed after the client gave up"
    await until(lambda: logged(pagerduty) == [(1, "trigger", result, fault.kind)])
    assert [alert.dedup_key for alert in pagerduty.open_alerts()] == (["a"] if is_open else [])
    assert isinstance(await client.send(event()), Delivered), "the fault was for one call"


async def test_a_drip_is_slow(pagerduty: FakePagerDuty, client: PagerDutyClient) -> None:
    pagerduty.fail(Fault("drip", delay_ms=100))
    began = time.monotonic()
    await client.send(event())
    assert time.monotonic() - began >= 0.5, "the whole time that our client allows"


async def test_a_fault_is_for_the_calls_it_names(pagerduty: FakePagerDuty, client: PagerDutyClient) -> None:
    pagerduty.fail(Fault("status", times=0, one_in=3, routing_key=KEY, retry_after=7))
    answers = [await client.send(event(key=key)) for key in [KEY, "e" * 32] * 6]
    assert [type(answer) is TryAgain for answer in answers] == [n in (4, 10) for n in range(12)]
    assert isinstance(answers[4], TryAgain) and answers[4].retry_after_ms == 7_000
    pagerduty.heal()
    assert all([isinstance(await client.send(event()), Delivered) for _ in range(3)])


async def test_as_a_process_it_is_asked_over_its_admin_address() -> None:
    async with PagerDutyProcess() as pagerduty:
        client = PagerDutyClient(pagerduty.url)
        await pagerduty.fail(Fault("reset_after"))
        assert isinstance(await client.send(event(dedup_key="r")), TryAgain), "its loop is another one than ours"
        await client.send(event("resolve", dedup_key="r"))
        await pagerduty.fail(Fault("swallow"), Fault("status", times=0))
        assert isinstance(await client.send(event()), Delivered)
        assert isinstance(await client.send(event()), TryAgain)
        await pagerduty.heal()
        assert isinstance(await client.send(event()), Delivered)
        await client.close()
        log = list(await pagerduty.log())[2:]
        assert [(call.dedup_key, call.severity, call.result) for call in log] == [
            ("a", "error", "swallowed"),
            ("a", "error", "failed"),
            ("a", "error", "opened"),
        ]
        assert (await pagerduty.totals())["received"] == 5
        assert await pagerduty.open_alerts() == [OpenAlert(0, "a", "error")]


def test_the_log_holds_a_million_calls_cheaply() -> None:
    log = Log()
    one = {"routing_key": KEY, "dedup_key": "alertmanager:0", "event_action": "resolve"}
    for number in range(100_000):
        log.append(number, NIGHT + number, one, "resolved", "late")
    assert len(log.encode()) < 25 * len(log)
    assert list(Log.decode(log.encode()))[-1] == Call(
        99_999, NIGHT + 99_999, 0, "alertmanager:0", "resolve", "resolved", "", "late"
    )


# --- the proxy -------------------------------------------------------------------------------------------------------


class Echo:
    """Answers each line with the same line, on a port or a unix socket; remembers what it received."""

    def __init__(self, socket: str = "") -> None:
        self._socket = socket
        self.lines: list[bytes] = []
        self.address = socket
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Echo:
        if self._socket:
            self._server: asyncio.Server = await asyncio.start_unix_server(self._serve, self._socket)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                self.lines.append(line)
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async with Echo() as echo:
        yield echo


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(echo.address) as proxy:
        yield proxy


class Line:
    """A connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def say(self, text: bytes = b"hello\n", within_s: float = 2.0) -> bytes:
        """Send and return what comes back, up to a line. ConnectionResetError, or TimeoutError."""
        self._writer.write(text)
        async with asyncio.timeout(within_s):
            return await self._reader.readline()

    def close(self) -> None:
        self._writer.transport.abort()


async def dial(proxy: FaultProxy) -> Line:
    return Line(*await asyncio.open_connection("127.0.0.1", proxy.port))


async def test_it_passes_everything_on(proxy: FaultProxy) -> None:
    line = await dial(proxy)
    text = b"x" * 40_000 + b"\n"
    assert [await line.say(text) for _ in range(3)] == [text] * 3
    line.close()


async def test_it_stands_before_a_unix_socket(tmp_path: Path) -> None:
    async with Echo(str(tmp_path / "s")) as echo, FaultProxy(echo.address) as proxy:
        line = await dial(proxy)
        assert await line.say() == b"hello\n"
        line.close()


async def test_latency(proxy: FaultProxy) -> None:
    line = await dial(proxy)
    proxy.slow(0.1, jitter_s=0.02)
    began = time.monotonic()
    await line.say()
    assert 0.2 <= time.monotonic() - began < 1
    line.close()


async def test_blackhole(proxy: FaultProxy, echo: Echo) -> None:
    """What was sent into it is executed when it opens, after the client gave up: real networks do that too."""
    standing = await dial(proxy)
    await standing.say()
    proxy.blackhole()
    new = await dial(proxy)
    for line in (standing, new):
        with pytest.raises(TimeoutError):
            await line.say(within_s=0.1)
    assert len(echo.lines) == 1
    await proxy.heal()
    await until(lambda: len(echo.lines) == 3)
    for line in (standing, new):
        line.close()


@pytest.mark.parametrize(("direction", "arrived"), [("requests", 0), ("answers", 1)])
async def test_loss_in_one_direction(proxy: FaultProxy, echo: Echo, direction: str, arrived: int) -> None:
    proxy.blackhole("requests" if direction == "requests" else "answers")
    line = await dial(proxy)
    with pytest.raises(TimeoutError):
        await line.say(within_s=0.1)
    assert len(echo.lines) == arrived
    line.close()


async def test_reset(proxy: FaultProxy) -> None:
    line = await dial(proxy)
    await line.say()
    proxy.reset_now()
    with pytest.raises(ConnectionResetError):
        await line.say()
    again = await dial(proxy)
    assert await again.say() == b"hello\n"
    proxy.reset_all()
    with pytest.raises(ConnectionResetError):
        await again.say()
    with pytest.raises(ConnectionResetError):
        await (await dial(proxy)).say()


async def test_refuse(proxy: FaultProxy) -> None:
    line = await dial(proxy)
    await line.say()
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await line.say()
    with pytest.raises(ConnectionRefusedError):
        await dial(proxy)
    await proxy.heal()
    line = await dial(proxy)
    assert await line.say() == b"hello\n"
    line.close()


async def test_cut(proxy: FaultProxy, echo: Echo) -> None:
    line = await dial(proxy)
    await line.say()
    proxy.cut(after=8)
    assert await line.say() == b"hello\n"
    with pytest.raises(ConnectionResetError):
        await line.say()
    assert len(echo.lines) == 3, "the request arrived, its answer did not"


async def test_eaten_answers(proxy: FaultProxy, echo: Echo) -> None:
    line = await dial(proxy)
    await line.say()
    proxy.eat_answers()
    with pytest.raises(ConnectionResetError):
        await line.say()
    assert len(echo.lines) == 2, "the request arrived"
    assert proxy.answers_eaten == 1


async def test_nobody_behind_it(proxy: FaultProxy) -> None:
    async with FaultProxy("127.0.0.1:1") as nowhere:
        with pytest.raises(ConnectionResetError):
            await (await dial(nowhere)).say()


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_in_order_of_goals() -> None:
    rows = [Row("G10", "calls in a minute", "<= 120", shown(118), None), Row("G2", "lost", "0", shown(12345), False)]
    assert render(rows) == [
        "Goal | What              | Aim    | Figure | Held",
        "-----|-------------------|--------|--------|-----",
        "G2   | lost              | 0      | 12,345 | NO",
        "G10  | calls in a minute | <= 120 | 118    |",
    ]
    assert shown(0.12345) == "0.123" and shown("text") == "text" and shown(2.0) == "2"
