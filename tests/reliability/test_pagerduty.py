"""A PagerDuty that throttles, fails, stalls, lies and comes late: in the end its open alerts are what still fires."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from alertrouter.alarms import SELF
from alertrouter.alert import Alert
from alertrouter.delivery.worker import Worker
from alertrouter.destinations.pagerduty import PagerDutyClient
from alertrouter.sandbox import Result, Sandbox
from tests.alerts import MINUTE, SECOND, make_alert
from tests.conftest import program
from tests.rig.pagerduty import FakePagerDuty, Fault
from tests.service.conftest import DEFAULT_KEY, SEARCH_KEY, Rig, rig, rules, sandbox
from tests.waiting import until

__all__ = ["rig", "rules", "sandbox"]  # fixtures of the service tests

INVALID = {"status": "invalid event", "message": "Event object is invalid", "errors": ["'payload' is bad"]}
BAD_KEY = {"status": "invalid event", "message": "Event object is invalid", "errors": ["Invalid routing key"]}
SERVICES = ("payment", "search")
FOR_EVER = 1_000_000

Change = Callable[[], Awaitable[None] | None]


# --- the story that every fault is told in ---------------------------------------------------------------------------


def each(name: str, status: str = "firing", **changed: Any) -> list[Alert]:
    """The alert called `name`, one of each service: two keys, of which a fault may concern one."""
    return [make_alert(f"{name}-{service}", status, service=service, **changed) for service in SERVICES]


def names(*alerts: str) -> set[str]:
    return {f"alertmanager:{name}-{service}" for name in alerts for service in SERVICES}


async def live_through(rig: Rig, fail: Callable[[], object], heal: Callable[[], object], *steps_ms: int) -> None:
    """Alerts fire and resolve before and during a fault that lasts `steps_ms`; then five minutes without it.

    stays: fires before.  closes: resolves meanwhile.  flaps: resolves and fires anew.  begins: fires meanwhile.
    brief: fires and resolves meanwhile.
    """
    await rig.hear(*each("stays"), *each("closes"), *each("flaps"))
    fail()
    await rig.settle(SECOND)
    await rig.hear(*each("closes", "resolved", ended=rig.clock()), *each("flaps", "resolved", ended=rig.clock()))
    await rig.settle(SECOND)
    await rig.hear(*each("flaps", started=rig.clock()), *each("begins"), *each("brief"))
    await rig.settle(SECOND)
    await rig.hear(*each("brief", "resolved", ended=rig.clock()))
    for step in steps_ms:
        await rig.settle(step)
    heal()
    for _ in range(20):
        await rig.settle(15 * SECOND)


def judge(open_alerts: Iterable[str], opened: Iterable[str], brief: Iterable[str]) -> None:
    """PagerDuty's open alerts are what fires, and each episode opened one; of the brief ones only those in `brief`."""
    assert set(open_alerts) == names("stays", "flaps", "begins")
    pages = {name: 2 if name in names("flaps") else 1 for name in names("stays", "closes", "flaps", "begins")}
    assert Counter(opened) == pages | dict.fromkeys(brief, 1)


def judge_sandbox(sandbox: Sandbox, brief: Iterable[str] = ()) -> None:
    opened = [str(call.event["dedup_key"]) for call in sandbox.events if call.result is Result.OPENED]
    judge([dedup_key for _, dedup_key in sandbox._api.alerts], opened, brief)


def judge_fake(pagerduty: FakePagerDuty, brief: Iterable[str] = ()) -> None:
    judge(
        [alert.dedup_key for alert in pagerduty.open_alerts()],
        [call.dedup_key for call in pagerduty.log if call.result == "opened"],
        brief,
    )


@asynccontextmanager
async def sending_to(rig: Rig, url: str, **patience: float) -> AsyncIterator[None]:
    """The rig's worker, sending to `url`."""
    client = PagerDutyClient(url, **patience)  # type: ignore[arg-type]
    rig.worker = Worker(rig.store, client, lambda: rig.active, rig.clock, calls_per_minute=0)
    try:
        yield
    finally:
        await client.close()


@pytest.fixture
async def fake(rig: Rig) -> AsyncIterator[FakePagerDuty]:
    """PagerDuty with faults on the connection; the rig sends there, with patience for a third of a second."""
    async with FakePagerDuty() as pagerduty, sending_to(rig, pagerduty.url, connect_s=0.2, total_s=0.3):
        yield pagerduty


# --- it says no, for now ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_an_hour_of_server_errors(rig: Rig, status: int) -> None:
    await live_through(rig, lambda: rig.sandbox.fail(status, FOR_EVER), rig.sandbox.heal, *[30 * SECOND] * 120)
    judge_sandbox(rig.sandbox)
    tries = Counter(str(call.event["dedup_key"]) for call in rig.sandbox.calls if call.status == status)
    assert max(tries.values()) < 150, "an alert is tried every half minute, not all the time"


@pytest.mark.parametrize(("retry_after", "pause_ms"), [(None, 30 * SECOND), (45, 45 * SECOND)])
async def test_a_throttled_key_is_left_alone_for_as_long_as_it_asks(
    rig: Rig, retry_after: int | None, pause_ms: int
) -> None:
    def throttle() -> None:
        rig.sandbox.fail(429, FOR_EVER, routing_key=SEARCH_KEY, retry_after=retry_after)

    await live_through(rig, throttle, rig.sandbox.heal, 10 * SECOND, 10 * SECOND)
    judge_sandbox(rig.sandbox, ["alertmanager:brief-payment"])
    throttled = [call for call in rig.sandbox.calls if call.status == 429]
    assert throttled
    assert {call.routing_key for call in throttled} == {SEARCH_KEY}

    before = len(rig.sandbox.calls)
    throttle()
    await rig.hear(*each("later"))
    rig.sandbox.heal()
    assert [call.status for call in rig.sandbox.calls[before:]] in ([202, 429], [429, 202]), "the other key flows"
    await rig.settle(pause_ms - 1)
    assert len(rig.sandbox.calls) == before + 2
    await rig.settle(1)
    assert [call.status for call in rig.sandbox.calls[before + 2 :]] == [202]


async def test_a_storm_over_pagerdutys_own_limit_loses_nothing(rig: Rig) -> None:
    """Its true sliding minute, which our count does not know of: somebody else uses the key too."""
    storm = [make_alert(f"storm-{n}") for n in range(40)]
    async with Sandbox(calls_per_minute=10, clock=rig.clock) as limited, sending_to(rig, limited.url):
        await rig.hear(*storm)
        assert len(limited.events) == 10
        for _ in range(40):
            await rig.settle(15 * SECOND)
        opened = [call.event["dedup_key"] for call in limited.events if call.result is Result.OPENED]
        assert sorted(opened) == sorted(alert.id for alert in storm)
        for at in range(len(limited.events) - 10):
            assert limited.events[at + 10].received_at - limited.events[at].received_at >= MINUTE


# --- it is slow, or breaks off ---------------------------------------------------------------------------------------


async def test_slow_answers_within_the_time_out_are_answers(rig: Rig, fake: FakePagerDuty) -> None:
    await live_through(rig, lambda: fake.fail(Fault("delay", delay_ms=50, times=0)), fake.heal)
    judge_fake(fake, names("brief"))


@pytest.mark.parametrize(
    ("fault", "brief"),
    [
        (Fault("delay", delay_ms=1_000, times=0), names("brief")),  # processed at once, answered too late
        (Fault("drip", delay_ms=20, times=0), names("brief")),  # the status is there, and it counts
        (Fault("reset_before", times=0), ()),
        (Fault("reset_after", times=0), names("brief")),
    ],
    ids=lambda fault: fault.kind if isinstance(fault, Fault) else None,
)
async def test_answers_that_do_not_come(rig: Rig, fake: FakePagerDuty, fault: Fault, brief: Iterable[str]) -> None:
    await live_through(rig, lambda: fake.fail(fault), fake.heal, 3 * SECOND)
    judge_fake(fake, brief)


async def test_a_trigger_that_is_processed_after_its_resolve_is_closed_again(rig: Rig, fake: FakePagerDuty) -> None:
    alert = make_alert()
    fake.fail(Fault("late", delay_ms=1_500))
    await rig.hear(alert)
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(SECOND)))
    assert fake.open_alerts() == []
    await until(lambda: len(fake.open_alerts()) == 1)
    await rig.settle(88 * SECOND)
    assert len(fake.open_alerts()) == 1
    await rig.settle(2 * SECOND)
    assert fake.open_alerts() == []
    before = len(fake.log)
    await rig.settle(10 * MINUTE)
    assert len(fake.log) == before, "one repair, no more"


async def test_a_resolve_that_is_processed_after_the_next_trigger_is_undone(rig: Rig, fake: FakePagerDuty) -> None:
    await rig.hear(make_alert())
    fake.fail(Fault("late", delay_ms=1_500))
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(SECOND)))
    await rig.settle(2 * SECOND)
    await rig.hear(make_alert(started=rig.clock.advance(SECOND)))
    assert [(call.action, call.result) for call in fake.log][-2:] == [("resolve", "resolved"), ("trigger", "opened")]
    await until(lambda: fake.open_alerts() == [])
    await rig.settle(2 * MINUTE)
    assert [alert.dedup_key for alert in fake.open_alerts()] == [make_alert().id]


# --- it says no, for good --------------------------------------------------------------------------------------------


async def test_one_service_that_is_refused_holds_up_no_other(rig: Rig) -> None:
    await rig.hear(*each("before"))
    rig.sandbox.fail(400, FOR_EVER, routing_key=SEARCH_KEY, body=INVALID)
    for n in range(20):
        await rig.hear(*each(f"n{n}"))
    in_the_other = {dedup_key for key, dedup_key in rig.sandbox._api.alerts if key == DEFAULT_KEY}
    assert in_the_other == {make_alert(f"{name}-payment").id for name in ("before", *(f"n{n}" for n in range(20)))}
    refused = Counter(str(call.event["dedup_key"]) for call in rig.sandbox.calls if call.status == 400)
    assert set(refused.values()) == {3}, "whole, bare, minimal, and then no more"
    assert (await rig.store.backlog(rig.clock()))["dead_letters"] == 20

    rig.sandbox.heal()
    await rig.settle(MINUTE)
    for n in range(20):
        await rig.hear(*each(f"n{n}"))  # as senders repeat what fires
    fires = names("before", *(f"n{n}" for n in range(20)))
    assert {dedup_key for _, dedup_key in rig.sandbox._api.alerts} == fires
    opened = Counter(str(call.event["dedup_key"]) for call in rig.sandbox.events if call.result is Result.OPENED)
    assert opened == dict.fromkeys(fires, 1)


async def test_a_key_that_is_refused_costs_no_page(rig: Rig) -> None:
    await rig.hear(*each("stays"), *each("closes"))
    rig.sandbox.fail(400, FOR_EVER, routing_key=SEARCH_KEY, body=BAD_KEY)
    await rig.hear(*each("begins"), *each("ends"))
    alarm = f"{SELF}:routing-key-refused:pagerduty:search-service"
    assert {dedup_key for _, dedup_key in rig.sandbox._api.alerts} == {
        *names("stays", "closes", "begins", "ends"),
        alarm,
    }
    over = each("ends", "resolved", ended=rig.clock.advance(SECOND)), each("closes", "resolved", ended=rig.clock())
    await rig.hear(*over[0], *over[1])
    left = {dedup_key for _, dedup_key in rig.sandbox._api.alerts}
    assert left == {*names("stays", "begins"), "alertmanager:closes-search", alarm}, "no other key closes that one"
    assert (await rig.store.backlog(rig.clock()))["dead_letters"] == 1

    rig.sandbox.heal()
    await rig.settle(MINUTE)
    await rig.hear(*over[1])
    assert {dedup_key for _, dedup_key in rig.sandbox._api.alerts} == names("stays", "begins")
    opened = Counter(str(call.event["dedup_key"]) for call in rig.sandbox.events if call.result is Result.OPENED)
    assert set(opened.values()) == {1}


# --- it is somebody else ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 301, 302, 307, 308])
async def test_only_a_202_is_a_delivery(rig: Rig, status: int) -> None:
    body = "" if status == 204 else "<html><h1>Welcome to the captive portal</h1></html>"
    await live_through(rig, lambda: rig.sandbox.fail(status, FOR_EVER, body=body), rig.sandbox.heal, 30 * SECOND)
    judge_sandbox(rig.sandbox)


async def test_a_202_is_a_delivery_whatever_it_says(rig: Rig) -> None:
    await live_through(rig, lambda: rig.sandbox.fail(202, FOR_EVER, body="\x00{garbage"), rig.sandbox.heal)
    judge_sandbox(rig.sandbox, names("brief"))
    assert all(call.status == 202 for call in rig.sandbox.calls)


class Front:
    """TLS before the sandbox, with a certificate to exchange. `async with Front(sandbox) as front:`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._target = int(sandbox.url.rpartition(":")[2])
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def show(self, context: ssl.SSLContext) -> None:
        """Listen anew, with another certificate."""
        await self.close()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self.port:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        for task in (asyncio.create_task(_pass(reader, back)), asyncio.create_task(_pass(there, writer))):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        pass
    finally:
        writer.transport.abort()


class Certificates:
    """An authority of the test's own, and what it and others signed for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "ca.pem"
        self._openssl("req", "-x509", *self._new("ca"), "-subj", "/CN=test authority", "-days", "2")

    def server(self, *, name: str = "IP:127.0.0.1", days: int = 2, signed: bool = True) -> ssl.SSLContext:
        """What a server shows that is called `name`."""
        leaf = f"leaf{name}{days}{signed}".replace(":", "-")
        pem, extension = self.folder / f"{leaf}.pem", self.folder / f"{leaf}.ext"
        extension.write_text(f"subjectAltName={name}\n")
        self._openssl("req", *self._new(leaf), "-subj", "/CN=events")
        request = self.folder / f"{leaf}.pem"
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key") if signed else ("-signkey", f"{leaf}.key")
        request.rename(self.folder / f"{leaf}.csr")
        self._openssl(
            *("x509", "-req", "-in", f"{leaf}.csr", *signer, "-days", str(days)),
            *("-extfile", extension.name, "-out", pem.name),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, self.folder / f"{leaf}.key")
        return context

    def _new(self, name: str) -> tuple[str, ...]:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        return (*curve, "-keyout", f"{name}.key", "-out", f"{name}.pem")

    def _openssl(self, *words: str) -> None:
        done = subprocess.run([program("openssl"), *words], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def _old(context: ssl.SSLContext) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda known: known.server(days=-1), "certificate has expired"),
        (lambda known: known.server(name="DNS:events.example.org"), "IP address mismatch"),
        (lambda known: known.server(signed=False), "self-signed certificate"),
        (lambda known: _old(known.server()), "no connection"),
    ],
    ids=["expired", "wrong host", "self-signed", "old protocol"],
)
async def test_a_server_that_cannot_prove_who_it_is_hears_nothing(
    rig: Rig,
    certificates: Certificates,
    shown: Callable[[Certificates], ssl.SSLContext],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    front = Front(rig.sandbox)
    await front.show(shown(certificates))
    try:
        async with sending_to(rig, f"https://127.0.0.1:{front.port}"):
            with capture_logs() as log:
                await rig.hear(*each("stays"))
                await rig.settle(MINUTE)
            assert rig.sandbox.calls == [], "not even once without looking at the certificate"
            late = [entry for entry in log if entry["event"] == "event not delivered yet"]
            assert len(late) >= 4, "tried again"
            assert [entry["reason"] for entry in late if reason not in entry["reason"]] == []

            await front.show(certificates.server())
            await rig.settle(MINUTE)
        assert {dedup_key for _, dedup_key in rig.sandbox._api.alerts} == names("stays")
        assert len(rig.sandbox.calls) == 2, "none of the tries was ambiguous: nothing is to be repaired"
    finally:
        await front.close()
