"""The webhook endpoint of a running service: every request gets an HTTP answer, and 2xx means stored."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from alertrouter.alarms import SELF
from alertrouter.errors import SettingsInvalid
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings, load_settings
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import Client, serving, write_rules
from tests.waiting import until

PATH = "/webhooks/alertmanager"


async def idle(client: Client) -> None:
    """Wait until nothing accepted is under way."""

    async def nothing_left() -> bool:
        backlog = await client.service.backlog()
        return backlog["due"] == backlog["waiting"] == backlog["leased"] == 0

    await until(nothing_left)


async def test_an_alert_becomes_an_event(client: Client, sandbox: Sandbox) -> None:
    status, answer = await client.post(PATH, alertmanager_body(alertmanager_alert()))
    assert (status, answer) == (202, {"status": "accepted", "alerts": 1, "outcomes": {"new": 1}})
    [call] = await sandbox.wait_for(lambda events: len(events) == 1)
    assert call.event["payload"]["summary"] == "HighErrorRate of payment"
    assert call.event["payload"]["custom_details"]["team"] == "team-payments"


async def test_the_same_body_twice_is_one_event(client: Client, sandbox: Sandbox) -> None:
    body = alertmanager_body(alertmanager_alert())
    assert (await client.post(PATH, body))[1]["outcomes"] == {"new": 1}
    assert (await client.post(PATH, body))[1]["outcomes"] == {"duplicate": 1}
    await idle(client)
    assert len(sandbox.calls) == 1


async def test_fifty_copies_on_twenty_connections_are_one_event(client: Client, sandbox: Sandbox) -> None:
    body = alertmanager_body(alertmanager_alert())
    connector = aiohttp.TCPConnector(limit=20)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def post() -> dict[str, int]:
            async with session.post(client.service.url + PATH, data=body) as response:
                assert response.status == 202
                outcomes: dict[str, int] = (await response.json())["outcomes"]
                return outcomes

        outcomes = await asyncio.gather(*(post() for _ in range(50)))
    await idle(client)
    assert sorted(next(iter(outcome)) for outcome in outcomes) == ["duplicate"] * 49 + ["new"]
    assert len(sandbox.calls) == 1


async def test_a_batch_larger_than_one_script_call_is_stored_whole(client: Client, sandbox: Sandbox) -> None:
    body = alertmanager_body(*(alertmanager_alert(n=str(n)) for n in range(700)))
    assert (await client.post(PATH, body))[1]["outcomes"] == {"new": 700}
    await sandbox.wait_for(lambda events: len(events) == 700, timeout_s=30)


async def test_two_named_senders_are_two_identity_spaces(client: Client, sandbox: Sandbox) -> None:
    for path in (PATH, f"{PATH}/team-a", f"{PATH}/team-b"):
        assert (await client.post(path, alertmanager_body(alertmanager_alert())))[1]["outcomes"] == {"new": 1}
    await sandbox.wait_for(lambda events: len({call.event["dedup_key"] for call in events}) == 3)


async def test_one_bad_alert_does_not_sink_the_others(client: Client, sandbox: Sandbox) -> None:
    status, answer = await client.post(PATH, alertmanager_body("not an alert", alertmanager_alert(), {"labels": 7}))
    assert (status, answer["outcomes"]) == (202, {"new": 1})
    skipped = answer["skipped"]
    assert isinstance(skipped, list) and [entry["alert"] for entry in skipped] == [0, 2]
    _, metrics = await client.get("/metrics")
    assert 'alertrouter_alerts_received_total{outcome="skipped",source="alertmanager"}' in metrics
    await sandbox.wait_for(lambda events: len(events) == 2)
    pages = {call.event["dedup_key"] for call in sandbox.events}
    assert "alertrouter:not-understood:alertmanager" in pages, "whoever runs the sender is told as well"


DEEP = b'{"alerts":[{"labels":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}]}"
REFUSED = {
    "empty": (b"", {}, 400),
    "blank": (b"  \n", {}, 400),
    "not JSON": (b"<alerts/>", {}, 400),
    "cut short": (alertmanager_body(alertmanager_alert())[:-20], {}, 400),
    "a number": (b"7", {}, 400),
    "a list": (b"[]", {}, 400),
    "no alerts": (b"{}", {}, 400),
    "alerts is an object": (b'{"alerts":{}}', {}, 400),
    "only bad alerts": (b'{"alerts":[1,null]}', {}, 400),
    "NUL bytes": (b"\x00" * 1000, {}, 400),
    "NULs inside": (b'{"alerts":\x00[]}', {}, 400),
    "NaN": (b'{"alerts":[{"labels":{"a":NaN}}]}', {}, 400),
    "deep": (DEEP, {}, 400),
    "17 MB": (alertmanager_body({**alertmanager_alert(), "annotations": {"summary": "x" * 17_000_000}}), {}, 413),
    "corrupt gzip": (b"\x1f\x8b\x08\x00garbage", {"Content-Encoding": "gzip"}, 400),
    "gzip that is none": (b'{"alerts":[]}', {"Content-Encoding": "gzip"}, 400),
    "gzip cut short": (gzip.compress(alertmanager_body(alertmanager_alert()))[:-9], {"Content-Encoding": "gzip"}, 400),
    "gzip bomb": (gzip.compress(b" " * 100_000_000), {"Content-Encoding": "gzip"}, 413),
    "unknown encoding": (b"{}", {"Content-Encoding": "br"}, 415),
    "two encodings": (b"{}", {"Content-Encoding": "gzip, gzip"}, 415),
}


@pytest.mark.parametrize(("body", "headers", "expected"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_cannot_be_understood_is_answered_with_a_reason(
    client: Client, sandbox: Sandbox, body: bytes, headers: dict[str, str], expected: int
) -> None:
    status, answer = await client.post(PATH, body, headers)
    assert status == expected
    assert 0 < len(str(answer["error"])) < 200
    assert all(id_.startswith(f"{SELF}:") for id_ in await client.service.store.some_ids()), "no alert was made of it"
    assert (await client.post(PATH, alertmanager_body(alertmanager_alert())))[0] == 202, "it goes on serving"


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
async def test_compressed_bodies_are_read(client: Client, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    body = compress(alertmanager_body(alertmanager_alert()))
    assert (await client.post(PATH, body, {"Content-Encoding": encoding}))[0] == 202


@pytest.mark.parametrize(
    ("summary", "sent"),
    [
        (b"caf\xe9 down", r"caf\xe9 down"),
        (b"lone \\ud800 half", r"lone \ud800 half"),
        (b"nul \\u0000 here", r"nul \x00 here"),
    ],
    ids=["bad UTF-8", "surrogate", "NUL"],
)
async def test_broken_text_is_mended_marked_and_sent(
    client: Client, sandbox: Sandbox, summary: bytes, sent: str
) -> None:
    body = alertmanager_body(alertmanager_alert()).replace(b"HighErrorRate of payment", summary)
    assert (await client.post(PATH, body))[0] == 202
    [call] = await sandbox.wait_for(lambda events: len(events) == 1)
    assert sent in call.event["payload"]["summary"]
    assert "replaced" in json.dumps(call.event["payload"]["custom_details"])


async def test_an_unknown_sender_is_told_which_there_are(client: Client) -> None:
    status, answer = await client.post("/webhooks/nagios", b"{}")
    assert status == 404 and "alertmanager, azure, " in str(answer["error"])


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process that does not answer."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_without_redis_a_page_gets_through_and_a_warning_is_asked_for_again(
    client: Client, sandbox: Sandbox
) -> None:
    assert json.loads((await client.get("/-/ready"))[1])["status"] == "ready"
    assert client.service.embedded is not None
    with frozen(client.service.embedded.pid):
        status, answer = await client.post(PATH, alertmanager_body(alertmanager_alert()))
        assert (status, answer["outcomes"]) == (202, {"sent_directly": 1})
        assert [call.event["dedup_key"] for call in sandbox.events] != []
        status, answer = await client.post(PATH, alertmanager_body(alertmanager_alert(severity="warning")))
        assert (status, answer["error"]) == (503, "not stored, try again")
        ready, text = await client.get("/-/ready")
        assert ready == 200 and "Redis does not answer" in text

    async def knows_of_it() -> bool:
        status, answer = await client.post(PATH, alertmanager_body(alertmanager_alert()))
        return (status, answer.get("outcomes")) == (202, {"duplicate": 1})

    await until(knows_of_it)

    async def is_well() -> bool:
        return bool(json.loads((await client.get("/-/ready"))[1])["warnings"] == [])

    await until(is_well)
    resolved = alertmanager_alert(status="resolved")
    await client.post(PATH, alertmanager_body(resolved))
    await sandbox.wait_for(lambda events: events[-1].event["event_action"] == "resolve")
    assert [call.result for call in sandbox.events] == ["opened", "resolved"]


async def test_who_wants_no_direct_path_is_answered_503(settings: Settings, sandbox: Sandbox) -> None:
    async with serving(settings.model_copy(update={"fail_open": False})) as client:
        assert client.service.embedded is not None
        with frozen(client.service.embedded.pid):
            status, answer = await client.post(PATH, alertmanager_body(alertmanager_alert()))
            assert (status, answer["error"]) == (503, "not stored, try again")
            await asyncio.gather(*(client.post(PATH, alertmanager_body(alertmanager_alert())) for _ in range(4)))
            ready, text = await client.get("/-/ready")
            assert ready == 503 and "Redis does not answer" in text
        assert sandbox.calls == []

        async def accepts() -> bool:
            return (await client.post(PATH, alertmanager_body(alertmanager_alert())))[0] == 202

        await until(accepts)
        assert (await client.get("/-/ready"))[0] == 200


async def test_with_broken_data_pages_get_through(settings: Settings, sandbox: Sandbox) -> None:
    """The embedded Redis refuses to start on them, until somebody sets them aside."""
    async with serving(settings) as client:
        await client.post(PATH, alertmanager_body(alertmanager_alert()))
        await idle(client)
    [*_, broken] = sorted((settings.data_dir / "appendonlydir").glob("*.incr.aof"))
    whole = broken.read_bytes()
    broken.write_bytes(b"\xff" * 64 + whole)
    async with serving(settings) as client:
        status, answer = await client.post(PATH, alertmanager_body(alertmanager_alert(n="2")))
        assert (status, answer["outcomes"]) == (202, {"sent_directly": 1})
        broken.write_bytes(whole)

        async def stored() -> bool:
            return (await client.post(PATH, alertmanager_body(alertmanager_alert(severity="info"))))[0] == 202

        await until(stored)
        [sent_directly] = {call.event["dedup_key"] for call in sandbox.events[1:]}

        async def knows_of_it() -> bool:
            return await client.service.store.record(sent_directly) is not None

        await until(knows_of_it)


async def test_an_embedded_redis_that_dies_is_started_again(client: Client, sandbox: Sandbox) -> None:
    await client.post(PATH, alertmanager_body(alertmanager_alert()))
    assert client.service.embedded is not None
    os.kill(client.service.embedded.pid, signal.SIGKILL)

    async def accepts() -> bool:
        return (await client.post(PATH, alertmanager_body(alertmanager_alert(n="2"))))[0] == 202

    await until(accepts)
    await sandbox.wait_for(lambda events: len({call.event["dedup_key"] for call in events}) == 2)


TOKENS = ("old-token", "new-tökén")


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({}, False),
        ({"Authorization": "Bearer old-token"}, True),
        ({"Authorization": "bearer old-token"}, True),
        ({"Authorization": "Bearer wrong"}, False),
        ({"Authorization": "Bearer "}, False),
        ({"Authorization": aiohttp.encode_basic_auth("anyone", "old-token")}, True),
        ({"Authorization": aiohttp.encode_basic_auth("old-token", "")}, False),
        ({"Authorization": "Basic !!!"}, False),
        ({"X-Alertrouter-Token": "old-token"}, True),
        ({"X-Alertrouter-Token": "new-tökén"}, True),
        ({"X-Alertrouter-Token": ""}, False),
    ],
)
async def test_tokens(settings: Settings, headers: dict[str, str], admitted: bool) -> None:
    settings = settings.model_copy(update={"webhook_tokens": tuple(SecretStr(token) for token in TOKENS)})
    async with serving(settings) as client:
        status, _ = await client.post(PATH, alertmanager_body(alertmanager_alert()), headers)
        assert status == (202 if admitted else 401)
        for path in ("/-/reload", "/api/v1/history"):
            method = client.session.post if path == "/-/reload" else client.session.get
            async with method(client.service.url + path, headers=headers) as response:
                assert response.status == (200 if admitted else 401)
        assert (await client.get("/-/healthy"))[0] == (await client.get("/-/ready"))[0] == 200


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":9087", "[::]:9087", "192.0.2.7:9087", "alerts.example.org:9087"])
def test_without_tokens_only_loopback(listen: str) -> None:
    with pytest.raises(SettingsInvalid, match="Set ALERTROUTER_WEBHOOK_TOKENS"):
        load_settings({}, {"listen": listen}).check_exposure()
    load_settings({"ALERTROUTER_WEBHOOK_TOKENS": "t"}, {"listen": listen}).check_exposure()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:9087", "127.8.8.8:1"])
def test_loopback_may_be_open(listen: str) -> None:
    load_settings({}, {"listen": listen}).check_exposure()


async def test_reload_puts_new_rules_in_force_and_keeps_the_old_when_faulty(
    client: Client, sandbox: Sandbox, rules: Path
) -> None:
    (rules / "global.yaml").write_text("sets: {start: [{rule: x, when: 'event.nope = 1'}]}\ncatch_all: {}\n")
    status, answer = await client.post("/-/reload")
    assert status == 422 and "global.yaml:1:" in str(answer["errors"])
    assert "alertrouter_rules_last_reload_successful 0.0" in (await client.get("/metrics"))[1]
    assert (await client.get("/-/ready"))[0] == 200
    await client.post(PATH, alertmanager_body(alertmanager_alert()))
    of_rules, _ = await sandbox.wait_for(lambda events: len(events) == 2)
    assert (of_rules.event["event_action"], of_rules.event["dedup_key"]) == ("trigger", "alertrouter:rules-refused")

    write_rules(rules, {"router.yaml": "sets: {start: []}\ncatch_all: {route_to: search-service}\n"})
    assert (await client.post("/-/reload"))[0] == 200
    assert "alertrouter_rules_last_reload_successful 1.0" in (await client.get("/metrics"))[1]
    over = (await sandbox.wait_for(lambda events: len(events) == 3))[2]
    assert (over.event["event_action"], over.event["dedup_key"]) == ("resolve", "alertrouter:rules-refused")
    await client.post(PATH, alertmanager_body(alertmanager_alert(n="2")))
    events = await sandbox.wait_for(lambda events: len(events) == 4)
    assert events[3].event["payload"]["custom_details"]["team"] == "team-discovery"


async def test_what_became_of_an_alert_can_be_asked(client: Client, sandbox: Sandbox) -> None:
    await client.post(PATH, alertmanager_body(alertmanager_alert(env="staging")))
    await idle(client)
    [entry] = json.loads((await client.get("/api/v1/history"))[1])
    assert (entry["outcome"], entry["rule"]) == ("suppressed", "staging-noise")
    status, text = await client.get(f"/api/v1/alerts/{entry['id']}")
    assert status == 200 and json.loads(text)["reason"] == "nobody is paged for staging"
    assert (await client.get("/api/v1/alerts/none"))[0] == 404
    assert (await client.get("/api/v1/history?limit=x"))[0] == 400


async def test_a_worker_that_is_stuck_is_not_healthy(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await client.get("/-/healthy"))[0] == 200
    monkeypatch.setattr("alertrouter.web.operations._STUCK_S", 0.2)
    blocked = asyncio.Event()

    async def never_answers(*_: object) -> None:
        await blocked.wait()

    monkeypatch.setattr(client.service.store, "claim_due", never_answers)

    async def is_unhealthy() -> bool:
        status, text = await client.get("/-/healthy")
        return status == 503 and "stuck" in text

    await until(is_unhealthy)
    monkeypatch.undo()
    blocked.set()


@pytest.mark.parametrize(
    "sent",
    [b"POST / HTTP/1.1\r\n\r\n", b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"],
    ids=["no HTTP", "gone in the middle"],
)
async def test_what_clients_do_wrong_is_no_error_of_ours(
    client: Client, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = client.service.url.removeprefix("http://").partition(":")
    for _ in range(20):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0)  # so that it is read before we are gone
        writer.close()
        await reader.read()
    assert (await client.get("/-/healthy"))[0] == 200
    assert not caplog.records


@pytest.mark.parametrize("expected", [b"\xff", b"200-ok", b""])
async def test_an_expectation_that_cannot_be_met_is_refused(client: Client, expected: bytes) -> None:
    host, _, port = client.service.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: " + expected + b"\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 417 ")
    writer.close()
