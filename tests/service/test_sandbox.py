"""The PagerDuty stand-in does what PagerDuty does, shows it, and fails when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from html.parser import HTMLParser
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from alertrouter.cli.sandbox import command
from alertrouter.errors import SettingsInvalid
from alertrouter.sandbox import Call, Result, Sandbox
from alertrouter.sandbox.events_api import ALERTS_KEPT, BYTES_KEPT, CALLS_KEPT, EventsApi

KEY = "0123456789abcdefghijABCDEFGHIJKL"
OTHER_KEY = KEY.swapcase()
NOW = 1_767_323_045_000


def trigger(dedup_key: str | None = "a", key: str = KEY, **payload: Any) -> dict[str, Any]:
    event = {
        "routing_key": key,
        "event_action": "trigger",
        "payload": {"summary": "Disk full", "source": "db-1", "severity": "critical"} | payload,
    }
    return event if dedup_key is None else event | {"dedup_key": dedup_key}


def acknowledge(dedup_key: str = "a", key: str = KEY) -> dict[str, Any]:
    return {"routing_key": key, "event_action": "acknowledge", "dedup_key": dedup_key}


def resolve(dedup_key: str = "a", key: str = KEY) -> dict[str, Any]:
    return {"routing_key": key, "event_action": "resolve", "dedup_key": dedup_key}


def enqueue(api: EventsApi, event: dict[str, Any], now: int = NOW) -> Call:
    return api.enqueue(json.dumps(event).encode(), now)


class Browser:
    """Plain HTTP to a sandbox."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, str, Mapping[str, str]]:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with self.session.request(method, self.url + path, data=data) as response:
            return response.status, await response.text(), response.headers

    async def enqueue(self, body: Any) -> tuple[int, Any]:
        status, text, _ = await self.request("POST", "/v2/enqueue", body)
        return status, json.loads(text)

    async def get(self, path: str) -> Any:
        status, text, _ = await self.request("GET", path)
        assert status == 200
        return json.loads(text)


@contextlib.asynccontextmanager
async def browsing(sandbox: Sandbox) -> AsyncIterator[Browser]:
    async with sandbox, aiohttp.ClientSession() as session:
        yield Browser(sandbox.url, session)


class Tags(HTMLParser):
    """The tags, attributes and link targets that a browser would find in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name == "href"}


# --- what PagerDuty does with events ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "results", "still_open"),
    [
        ([trigger()], ["opened"], ["a"]),
        ([trigger(), trigger()], ["opened", "updated"], ["a"]),
        ([trigger(), resolve()], ["opened", "resolved"], []),
        ([trigger(), resolve(), resolve()], ["opened", "resolved", "dropped"], []),
        ([trigger(), resolve(), trigger()], ["opened", "resolved", "opened"], ["a"]),
        ([trigger(), acknowledge(), trigger(), resolve()], ["opened", "acknowledged", "updated", "resolved"], []),
        ([trigger(), resolve(), acknowledge()], ["opened", "resolved", "dropped"], []),
        ([resolve(), acknowledge()], ["dropped", "dropped"], []),
        ([trigger("a"), trigger("A"), resolve("a")], ["opened", "opened", "resolved"], ["A"]),
        ([trigger(), resolve(key=OTHER_KEY)], ["opened", "dropped"], ["a"]),
        ([trigger(), trigger(key=OTHER_KEY), resolve()], ["opened", "opened", "resolved"], ["a"]),
    ],
    ids=[
        "trigger",
        "the same again",
        "resolve",
        "resolved before",
        "opened anew",
        "acknowledged in between",
        "acknowledged too late",
        "never opened",
        "keys are case-sensitive",
        "another routing key closes nothing",
        "identity is both keys",
    ],
)
def test_the_life_of_an_alert(events: list[dict[str, Any]], results: list[str], still_open: list[str]) -> None:
    api = EventsApi()
    calls = [enqueue(api, event) for event in events]
    assert [call.result for call in calls] == results
    assert [call.status for call in calls] == [202] * len(events), "what PagerDuty drops, it drops silently"
    assert [alert.dedup_key for alert in api.alerts.values()] == still_open


def test_a_resolve_shows_what_it_closed() -> None:
    api = EventsApi()
    enqueue(api, trigger(summary="Disk full on db-1"))
    assert enqueue(api, trigger(summary="Disk fuller on db-1")).title == "Disk full on db-1"
    assert enqueue(api, resolve()).title == "Disk full on db-1"


def test_a_trigger_without_dedup_key_gets_one_of_its_own() -> None:
    api = EventsApi()
    first, second = (enqueue(api, trigger(None)) for _ in range(2))
    assert [first.result, second.result] == ["opened", "opened"]
    assert first.answer["dedup_key"] != second.answer["dedup_key"]
    assert enqueue(api, resolve(first.answer["dedup_key"])).result == "resolved"


def without(event: dict[str, Any], *path: str) -> dict[str, Any]:
    *parents, last = path
    copy: dict[str, Any] = json.loads(json.dumps(event))
    inner = copy
    for name in parents:
        inner = inner[name]
    del inner[last]
    return copy


@pytest.mark.parametrize(
    ("event", "errors"),
    [
        (
            {},
            [
                "'routing_key' is missing or blank",
                "'event_action' is missing or blank",
                "'dedup_key' is missing or blank",
            ],
        ),
        (trigger(key="a" * 31), ["Length of 'routing_key' is incorrect (should be 32 characters)"]),
        (trigger(key="a" * 33), ["Length of 'routing_key' is incorrect (should be 32 characters)"]),
        (trigger(key="a" * 31 + "-"), ["'routing_key' cannot contain non-alphanumeric characters."]),
        (trigger(key="a" * 31 + "é"), ["'routing_key' cannot contain non-alphanumeric characters."]),
        (trigger() | {"routing_key": 7}, ["'routing_key' is missing or blank"]),
        (
            trigger() | {"event_action": "close"},
            ["'event_action' is invalid (must be one of the following: 'trigger', 'acknowledge' or 'resolve')"],
        ),
        (without(resolve(), "dedup_key"), ["'dedup_key' is missing or blank"]),
        (trigger(""), ["'dedup_key' is missing or blank"]),
        (trigger("a" * 255), []),
        (trigger("a" * 256), ["'dedup_key' is too long (maximum is 255 characters)"]),
        (without(trigger(), "payload"), ["'payload' is missing or blank"]),
        (without(trigger(), "payload", "summary"), ["'payload.summary' is missing or blank"]),
        (
            trigger(summary=" ", source=""),
            ["'payload.summary' is missing or blank", "'payload.source' is missing or blank"],
        ),
        (trigger(summary="😀" * 1024), []),
        (trigger(summary="😀" * 1025), ["'payload.summary' is too long (maximum is 1024 characters)"]),
        (without(trigger(), "payload", "severity"), ["'payload.severity' is missing or blank"]),
        (
            trigger(severity="CRITICAL"),
            ["'payload.severity' is invalid (must be one of the following: 'critical', 'warning', 'error' or 'info')"],
        ),
        (trigger(timestamp="2015-07-17T08:42:58.315+0000"), []),
        (trigger(timestamp="yesterday"), ["'payload.timestamp' is not in ISO 8601 format"]),
        (trigger(timestamp=""), ["'payload.timestamp' is not in ISO 8601 format"]),
        (trigger(custom_details="text"), ["'payload.custom_details' is not an object"]),
        (trigger() | {"payload": trigger()["payload"] | {"class": 5}}, ["'payload.class' is not a string"]),
        (trigger() | {"links": [{"href": "https://x.org", "text": "x"}], "images": [{"src": "https://x.org"}]}, []),
        (trigger() | {"links": [{"text": "no address"}]}, ["'links' is not an array of objects with an 'href'"]),
        (
            trigger() | {"images": [{"src": "http://x.org"}]},
            ["'images' is not an array of objects with an HTTPS 'src'"],
        ),
        (trigger() | {"client": "x", "client_url": None}, ["'client_url' is not a string"]),
        (trigger() | {"anything": "else"}, []),
        (resolve() | {"payload": {"summary": "not looked at"}}, []),
    ],
)
def test_bad_events_are_refused_with_all_their_errors(event: dict[str, Any], errors: list[str]) -> None:
    call = enqueue(EventsApi(), event)
    if errors:
        assert (call.status, call.result) == (400, "refused")
        assert call.answer == {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
    else:
        assert call.status == 202


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"a":NaN}', b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    call = EventsApi().enqueue(body, NOW)
    assert (call.status, call.answer["status"]) == (400, "Unrecognized object")


def test_a_body_over_512_kb_is_refused() -> None:
    room = 512_000 - len(json.dumps(trigger(custom_details={"log": ""})))
    assert enqueue(EventsApi(), trigger(custom_details={"log": "x" * room})).status == 202
    assert enqueue(EventsApi(), trigger(custom_details={"log": "x" * (room + 1)})).status == 400


def test_the_limit_slides_and_counts_each_key_alone() -> None:
    api = EventsApi(calls_per_minute=2)
    assert enqueue(api, trigger(), NOW).status == 202
    assert enqueue(api, trigger(), NOW + 30_000).status == 202
    throttled = enqueue(api, resolve(), NOW + 59_999)
    assert (throttled.status, throttled.result) == (429, "throttled")
    assert enqueue(api, trigger(key=OTHER_KEY), NOW + 59_999).status == 202
    assert enqueue(api, trigger(), NOW + 60_000).status == 202, "the first call has left the window"
    assert enqueue(api, trigger(), NOW + 60_001).status == 429, "the second has not"
    assert len(api.alerts) == 2, "a throttled resolve was not taken"


def test_memory_is_bounded() -> None:
    api = EventsApi()
    body = json.dumps(trigger()).encode()
    for _ in range(CALLS_KEPT + 1):
        api.enqueue(body, NOW)
    assert len(api.calls) == CALLS_KEPT
    assert api.totals[Result.OPENED] + api.totals[Result.UPDATED] == CALLS_KEPT + 1

    large = enqueue(EventsApi(), trigger(custom_details={"log": "x" * 500_000}))
    for _ in range(200):
        api.record(large)
    assert sum(call.size for call in api.calls) <= BYTES_KEPT

    for number in range(ALERTS_KEPT + 1):
        enqueue(api, trigger(str(number)))
    assert len(api.alerts) == ALERTS_KEPT
    assert enqueue(api, resolve("0")).result == "dropped"
    assert enqueue(api, resolve(str(ALERTS_KEPT))).result == "resolved"


# --- what it shows ---------------------------------------------------------------------------------------------------


async def test_events_are_listed_in_order_with_keys_hidden_unless_asked_for() -> None:
    sandbox = Sandbox(clock=lambda: NOW)
    async with browsing(sandbox) as browser:
        for event in (trigger("a"), trigger("b", OTHER_KEY), resolve("a")):
            assert await browser.enqueue(event) == (
                202,
                {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]},
            )
        await browser.enqueue({"event_action": "resolve"})

        shown = await browser.get("/events")
        assert [(one["received_at"], one["result"], one["event"]["dedup_key"]) for one in shown] == [
            (NOW, "opened", "a"),
            (NOW, "opened", "b"),
            (NOW, "resolved", "a"),
        ]
        assert [one["event"]["routing_key"] for one in shown] == ["…IJKL", "…ijkl", "…IJKL"]
        assert shown[0]["event"]["payload"] == trigger()["payload"]

        full = await browser.get("/events?full=1")
        assert [one["event"]["routing_key"] for one in full] == [KEY, OTHER_KEY, KEY]
        assert [one["event"]["event_action"] for one in await browser.get("/events?dedup_key=a")] == [
            "trigger",
            "resolve",
        ]
        assert await browser.get("/events?dedup_key=") == []
        assert [one["status"] for one in await browser.get("/events?all=1")] == [202, 202, 202, 400]
        totals = await browser.get("/totals")
        assert {name: count for name, count in totals.items() if count} == {"opened": 2, "resolved": 1, "refused": 1}
        assert [call.event for call in sandbox.events] == [trigger("a"), trigger("b", OTHER_KEY), resolve("a")]


async def test_open_alerts_are_listed() -> None:
    now = iter(range(NOW, NOW + 10))
    async with browsing(Sandbox(clock=lambda: next(now))) as browser:
        for event in (trigger("a"), trigger("b"), trigger("a"), acknowledge("a"), resolve("b")):
            await browser.enqueue(event)
        assert await browser.get("/alerts") == [
            {
                "routing_key": "…IJKL",
                "dedup_key": "a",
                "status": "acknowledged",
                "summary": "Disk full",
                "severity": "critical",
                "opened_at": NOW,
                "updated_at": NOW + 3,
                "triggers": 2,
            }
        ]


async def test_clearing_the_events_leaves_the_alerts_open() -> None:
    async with browsing(Sandbox()) as browser:
        await browser.enqueue(trigger())
        assert (await browser.request("DELETE", "/events"))[0] == 204
        assert await browser.get("/events") == []
        await browser.enqueue(resolve())
        assert [one["result"] for one in await browser.get("/events")] == ["resolved"]


async def test_it_is_healthy() -> None:
    async with browsing(Sandbox()) as browser:
        assert await browser.get("/-/healthy") == {"status": "ok"}


async def test_the_page_shows_the_newest_event_first_with_what_a_responder_needs() -> None:
    async with browsing(Sandbox()) as browser:
        _, empty, headers = await browser.request("GET", "/")
        assert "Nothing yet" in empty
        assert 'http-equiv="refresh"' in empty

        details = {
            "service": "payment-service",
            "team": "team-payments",
            "tier": 1,
            "dashboard": "https://graphs.example.org/1",
        }
        runbook = {"href": "https://runbooks.example.org/disk?a=1&b=2", "text": "Runbook"}
        await browser.enqueue(trigger("a", summary="Disk füll", custom_details=details) | {"links": [runbook]})
        await browser.enqueue(resolve("a"))
        await browser.enqueue(resolve("never-opened"))
        await browser.enqueue(trigger("b", severity="bad"))
        _, page, headers = await browser.request("GET", "/")

    assert re.findall(r"<b>(\w+)</b>.*→ (\w+)", page) == [
        ("trigger", "refused"),
        ("resolve", "dropped"),
        ("resolve", "resolved"),
        ("trigger", "opened"),
    ]
    assert page.count("<h2>Disk füll</h2>") == 2, "the resolve shows what it closed"
    assert "service payment-service · team team-payments · source db-1" in page
    assert '<a href="https://runbooks.example.org/disk?a=1&amp;b=2" rel="noreferrer">Runbook</a>' in page
    assert '<a href="https://graphs.example.org/1" rel="noreferrer">https://graphs.example.org/1</a>' in page
    assert "critical" in page
    assert "dropped: no open alert has this key" in page
    assert "refused (400) &#x27;payload.severity&#x27; is invalid" in page
    assert "…IJKL" in page
    assert KEY not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]


async def test_nothing_on_the_page_can_act() -> None:
    attack = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    hostile = trigger(
        attack, summary=attack, source=attack, component=attack, custom_details={attack: attack, "service": {attack: 1}}
    )
    hostile |= {"links": [{"href": 'https://x.org/"onmouseover="alert(1)', "text": attack}]}
    refused = trigger(attack, severity=attack) | {
        "event_action": [attack],
        "links": [{"href": "javascript:alert(1)", "text": "click"}, attack, {"href": 5}],
        "payload": {"severity": attack, "custom_details": {"link": "javascript:alert(1)"}},
    }
    async with browsing(Sandbox()) as browser:
        assert (await browser.enqueue(hostile))[0] == 202
        assert (await browser.enqueue(refused))[0] == 400
        assert (
            await browser.enqueue({"payload": attack, "links": attack, "event_action": None, "routing_key": [KEY]})
        )[0] == 400
        _, page, _ = await browser.request("GET", "/")
    parser = Tags()
    parser.feed(page)
    assert not parser.tags & {"script", "img", "iframe", "object", "embed", "form", "base", "svg"}
    assert parser.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "href", "rel"}
    assert all(link.startswith(("https://", "http://", "/")) for link in parser.links)
    assert 'https://x.org/"onmouseover="alert(1)' in parser.links, "kept as one address, quotes and all"


# --- how it fails ----------------------------------------------------------------------------------------------------


async def test_it_fails_as_often_as_told_and_then_works() -> None:
    async with browsing(Sandbox()) as browser:
        fault = {"status": 503, "times": 2, "retry_after": 7, "body": {"message": "busy"}}
        assert (await browser.request("POST", "/fail", fault))[0] == 204
        for _ in range(2):
            status, text, headers = await browser.request("POST", "/v2/enqueue", trigger())
            assert (status, json.loads(text), headers["Retry-After"]) == (503, {"message": "busy"}, "7")
        assert (await browser.enqueue(trigger()))[0] == 202
        assert [one["result"] for one in await browser.get("/events?all=1")] == ["failed", "failed", "opened"]
        assert [one["result"] for one in await browser.get("/events")] == ["opened"]


async def test_faults_can_be_for_one_key_and_come_in_order() -> None:
    sandbox = Sandbox()
    async with browsing(sandbox) as browser:
        sandbox.fail(400, routing_key=OTHER_KEY)
        sandbox.fail(500, body="<h1>oops</h1>")
        sandbox.fail(429)
        assert (await browser.request("POST", "/v2/enqueue", trigger()))[:2] == (500, "<h1>oops</h1>")
        assert (await browser.enqueue(trigger(key=OTHER_KEY)))[0] == 400
        assert (await browser.enqueue(trigger(key=OTHER_KEY)))[0] == 429
        assert (await browser.enqueue(trigger(key=OTHER_KEY)))[0] == 202
        sandbox.fail(500, times=100)
        assert (await browser.enqueue(b"no json"))[0] == 500
        assert (await browser.request("DELETE", "/fail"))[0] == 204
        assert (await browser.enqueue(trigger()))[0] == 202


@pytest.mark.parametrize(
    "fault",
    [b"", b"[]", {"status": 100}, {"status": 600}, {"times": 0}, {"delay_ms": -1}, {"stauts": 500}, {"status": "500"}],
)
async def test_a_fault_that_makes_no_sense_is_refused(fault: Any) -> None:
    async with browsing(Sandbox()) as browser:
        status, text, _ = await browser.request("POST", "/fail", fault)
        assert status == 400
        assert json.loads(text)["error"]
        assert (await browser.enqueue(trigger()))[0] == 202


async def test_waiting_ends_with_the_event_or_says_what_came_instead() -> None:
    sandbox = Sandbox()
    async with browsing(sandbox) as browser:
        waiting = asyncio.create_task(sandbox.wait_for(lambda events: len(events) == 2))
        for event in (trigger(), resolve()):
            assert not waiting.done()
            await browser.enqueue(event)
        assert [call.result for call in await waiting] == ["opened", "resolved"]
        with pytest.raises(TimeoutError, match="trigger a: opened"):
            await sandbox.wait_for(lambda events: len(events) == 3, timeout_s=0.05)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "127.0.0.1.example.org", ""])
def test_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(SettingsInvalid, match="loopback only"):
        Sandbox(host)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("0.0.0.0:9088", "loopback only"),
        (":9088", "loopback only"),
        ("127.0.0.1", "not host:port"),
        ("127.0.0.1:http", "not host:port"),
        ("127.0.0.1:65536", "not host:port"),
    ],
)
def test_a_wrong_address_is_wrong_usage(listen: str, says: str) -> None:
    result = CliRunner().invoke(command, ["--listen", listen])
    assert result.exit_code == 2
    assert says in result.output


def test_a_taken_port_is_said_to_be_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(command, ["--listen", f"127.0.0.1:{taken.getsockname()[1]}"])
    assert result.exit_code == 2
    assert "in use" in result.output


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_serves_until_it_is_told_to_stop(stop: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from alertrouter.cli.sandbox import command; command()",
        "--listen",
        "127.0.0.1:0",
        "--calls-per-minute",
        "1",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        first_line = (await process.stdout.readline()).decode()
        url = re.findall(r"http://127\.0\.0\.1:\d+", first_line)[0]
        async with aiohttp.ClientSession() as session:
            browser = Browser(url, session)
            assert (await browser.enqueue(trigger()))[0] == 202
            assert (await browser.enqueue(trigger()))[0] == 429
        process.send_signal(stop)
        output, errors = await process.communicate()
    assert process.returncode == 0
    assert errors == b""
    assert f"ALERTROUTER_PAGERDUTY_EVENTS_URL={url}" in output.decode()
