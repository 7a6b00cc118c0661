"""Who may send: over HTTP, with rules, files, reloads and the log of a real service."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from yarl import URL

from alertrouter import app, credentials
from alertrouter.app import running
from alertrouter.errors import SettingsInvalid
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from alertrouter.web.body import Room
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.process import Process
from tests.service.conftest import ENVIRON, Client, serving, write_rules
from tests.waiting import until

GLOBAL, TEAM_A, TEAM_A_OLD, TEAM_B, SIGNING = "global-token", "token-of-a", "old-token-of-a", "token-of-b", "a secret"
PATH = "/webhooks/alertmanager"
BODY = alertmanager_body(alertmanager_alert())
SIGNED = f"{PATH}/signed"
SIGNATURE, SIGNED_AT = "X-Grafana-Alerting-Signature", "X-Signed-At"


def sources(folder: Path) -> str:
    """alertrouter.yaml with three named senders, and the files it names."""
    for name, secret in {"a": TEAM_A, "a-old": TEAM_A_OLD, "b": TEAM_B, "signing": SIGNING}.items():
        (folder / name).write_text(secret + "\n")
    return f"""
        sources:
          alertmanager/team-a:
            tokens: [{{name: new, file: {folder}/a}}, {{name: old, file: {folder}/a-old}}]
            header: X-Team-Token
          alertmanager/team-b:
            tokens: [{{name: only, file: {folder}/b}}]
          alertmanager/signed:
            signature:
              scheme: grafana
              secrets: [{{name: s1, file: {folder}/signing}}]
              timestamp_header: {SIGNED_AT}
    """


@pytest.fixture
def settings(settings: Settings, rules: Path, tmp_path: Path) -> Settings:
    """With credentials for three sources, and a token that admits all others."""
    write_rules(rules, {"alertrouter.yaml": sources(tmp_path)})
    return settings.model_copy(update={"webhook_tokens": (SecretStr(GLOBAL),)})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with serving(settings) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def status(client: Client, path: str, headers: dict[str, str], body: bytes = BODY) -> int:
    return (await client.post(path, body, headers))[0]


async def counted(client: Client) -> dict[tuple[str, str], float]:
    """How often each credential was shown, by source and name."""
    families = text_string_to_metric_families((await client.get("/metrics"))[1])
    return {
        (sample.labels["source"], sample.labels["token"]): sample.value
        for family in families
        if family.name == "alertrouter_webhook_credentials"
        for sample in family.samples
        if sample.name.endswith("_total")
    }


@pytest.mark.parametrize(
    ("path", "headers", "admitted"),
    [
        (f"{PATH}/team-a", bearer(TEAM_A), True),
        (f"{PATH}/team-a", bearer(TEAM_A_OLD), True),
        (f"{PATH}/team-a", {"Authorization": aiohttp.encode_basic_auth("anyone", TEAM_A)}, True),
        (f"{PATH}/team-a", {"X-Alertrouter-Token": TEAM_A}, True),
        (f"{PATH}/team-a", {"X-Team-Token": TEAM_A}, True),
        (f"{PATH}/team-b", {"X-Team-Token": TEAM_B}, False),
        (f"{PATH}/team-a", bearer(TEAM_B), False),
        (f"{PATH}/team-a", bearer(GLOBAL), False),
        (f"{PATH}/team-a", {}, False),
        (f"{PATH}/team-b", bearer(TEAM_B), True),
        (f"{PATH}/team-c", bearer(GLOBAL), True),
        (PATH, bearer(GLOBAL), True),
        (PATH, bearer(TEAM_A), False),
        (f"{PATH}/team-c", bearer(TEAM_A), False),
        (f"{PATH}/signed", bearer(GLOBAL), False),
    ],
)
async def test_a_source_takes_its_own_credentials_only(
    client: Client, path: str, headers: dict[str, str], admitted: bool
) -> None:
    assert await status(client, path, headers) == (202 if admitted else 401)


async def test_nobody_resolves_the_alert_of_another(client: Client, sandbox: Sandbox) -> None:
    await client.post(f"{PATH}/team-a", BODY, bearer(TEAM_A))
    [paged] = await sandbox.wait_for(lambda events: len(events) == 1)
    resolve = alertmanager_body(alertmanager_alert(status="resolved"))
    for token in (TEAM_B, GLOBAL, "", "guess"):
        assert await status(client, f"{PATH}/team-a", bearer(token), resolve) == 401
    # by its own address it can only resolve what is its own
    assert await status(client, f"{PATH}/team-b", bearer(TEAM_B), resolve) == 202
    assert await status(client, f"{PATH}/team-a", bearer(TEAM_A), alertmanager_body(alertmanager_alert(n="2"))) == 202
    await sandbox.wait_for(lambda events: len(events) >= 2)
    assert not [
        call
        for call in sandbox.events
        if call.event["dedup_key"] == paged.event["dedup_key"] and call.event["event_action"] == "resolve"
    ]


async def test_a_wrong_token_and_a_name_that_nobody_has_are_answered_alike(client: Client) -> None:
    answers = set()
    for path in (
        f"{PATH}/team-a",
        f"{PATH}/nobody",
        "/webhooks/nonsense",
        "/webhooks/nonsense/x",
        f"{PATH}/UPPER",
        SIGNED,
    ):
        async with client.session.post(client.service.url + path, data=BODY, headers=bearer("wrong")) as response:
            headers = {name: value for name, value in response.headers.items() if name != "Date"}
            answers.add((response.status, await response.text(), json.dumps(headers)))
    assert len(answers) == 1
    assert answers.pop()[0] == 401
    assert await status(client, "/webhooks/nonsense", bearer(GLOBAL)) == 404


@pytest.mark.parametrize(
    "sender", ["alertmanager%2Fteam-a", "alertmanager%2Fteam-a%3Ax", "alertmanager%0A", "Alertmanager", "a" * 65, "%00"]
)
async def test_an_encoded_slash_makes_no_named_sender(client: Client, sender: str) -> None:
    for token in (GLOBAL, TEAM_A):
        async with client.session.post(
            URL(f"{client.service.url}/webhooks/{sender}", encoded=True), data=BODY, headers=bearer(token)
        ) as response:
            assert response.status == (404 if token == GLOBAL else 401)
    named = {f"alertmanager/{name}" for name in ("team-a", "team-b", "signed")}
    assert {source for source, _ in await counted(client)} <= {*named, "alertmanager", "other"}


async def test_bodies_of_nobody_have_only_so_much_room(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who signs shows nothing before all of the body is here."""
    monkeypatch.setattr(app, "Room", lambda _: Room(300_000))
    async with serving(settings) as client:
        host, port = client.service.url.removeprefix("http://").split(":")
        writers = []
        for _ in range(2):
            _, writer = await asyncio.open_connection(host, int(port))
            lines = "".join(f"{name}: {text}\r\n" for name, text in signed(client).items())
            head = f"POST {SIGNED} HTTP/1.1\r\nHost: {host}:{port}\r\n{lines}Content-Length: 200000\r\n\r\n"
            writer.write(head.encode() + b" " * 149_000)
            writers.append(writer)

        async def is_full() -> bool:
            return await status(client, SIGNED, signed(client, b" " * 9_000), b" " * 9_000) == 503

        await until(is_full, within_s=5)
        assert await status(client, PATH, bearer(GLOBAL)) == 202, "whose token is known needs no room"
        for writer in writers:
            writer.close()

        async def has_room() -> bool:
            return await status(client, SIGNED, signed(client)) == 202

        await until(has_room, within_s=5)


async def test_who_shows_nothing_is_asked_for_a_password_first(client: Client) -> None:
    """SNS shows its password only when it is asked to, and may read no further than the first line."""
    async with client.session.post(client.service.url + PATH, data=BODY) as response:
        asked = response.headers.getall("WWW-Authenticate")
    assert asked == ['Basic realm="alertrouter"', 'Bearer realm="alertrouter"']


@pytest.mark.parametrize("path", [PATH, f"{PATH}/team-a", SIGNED])
async def test_who_shows_nothing_is_told_before_the_body_is_read(client: Client, path: str) -> None:
    host, port = client.service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ") and b"Connection: close" in head
    writer.close()
    await writer.wait_closed()
    assert await status(client, path, bearer("wrong"), b" " * 5_000_000) == 401, "not a connection that is cut"


@pytest.mark.parametrize("path", [PATH, SIGNED])
async def test_who_asks_before_sending_is_told_to_go_on_once_and_only_if_known(client: Client, path: str) -> None:
    """As curl does from 1 MB on: https://curl.se/docs/manpage.html#--expect100-timeout."""
    host, port = client.service.url.removeprefix("http://").split(":")
    known = {**signed(client), **bearer(GLOBAL)}
    for headers, expected in ((known, b"HTTP/1.1 100 "), (bearer("wrong"), b"HTTP/1.1 401 ")):
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
        length = f"Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{lines}{length}\r\n".encode())
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(expected)
            if headers is known:
                writer.write(BODY)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 202 ")
        writer.close()


@pytest.mark.parametrize("name", ["token", "access_token", "TOKEN", "api_key", "X-Alertrouter-Token"])
async def test_a_token_in_the_address_is_refused(client: Client, name: str) -> None:
    assert await status(client, f"{PATH}?{name}={GLOBAL}", {}) == 401
    assert await status(client, f"{PATH}?{name}={GLOBAL}", bearer(GLOBAL)) == 401, "it is in a log by now"
    assert await status(client, f"/-/reload?{name}={GLOBAL}", bearer(GLOBAL), b"") == 401
    assert await status(client, f"{PATH}?tokens=all", bearer(GLOBAL)) == 202


def signed(client: Client, body: bytes = BODY, *, off_s: int = 0, secret: str = SIGNING) -> dict[str, str]:
    """The headers with which Grafana signs a body, some seconds from now."""
    seconds = client.service._time_of_day() // 1000 + off_s
    message = f"{seconds}:".encode() + body
    return {SIGNATURE: hmac.new(secret.encode(), message, sha256).hexdigest(), SIGNED_AT: str(seconds)}


async def test_a_signed_sender_whose_webhooks_are_too_large_pages(settings: Settings) -> None:
    """Nobody can tell by its signature whose it is; but its alerts are lost, and no sender makes them smaller."""
    async with serving(settings.model_copy(update={"max_body_bytes": 4096})) as client:
        assert await status(client, SIGNED, signed(client)) == 202
        large = BODY + b" " * 4096
        for _ in range(3):
            assert await status(client, SIGNED, signed(client, large), large) == 413

        async def is_told() -> bool:
            return await client.service.store.record("alertrouter:sender-refused:alertmanager/signed") is not None

        await until(is_told, within_s=15)


async def test_who_was_never_heard_cannot_be_made_to_page(client: Client) -> None:
    """Anybody can be refused under any name; only one that rules say is somebody's counts."""
    for _ in range(3):
        assert await status(client, "/webhooks/azure", {}) == 401
        assert await status(client, "/v2/enqueue", {}, b"x") == 400
        assert await status(client, f"{PATH}/team-a", {}) == 401

    async def is_told(sender: str) -> bool:
        return await client.service.store.record(f"alertrouter:sender-refused:{sender}") is not None

    await until(lambda: is_told("alertmanager/team-a"), within_s=15)
    assert not await is_told("azure") and not await is_told("pagerduty")


async def test_a_body_of_an_odd_type_is_kept(client: Client) -> None:
    host, port = client.service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = f"Host: {host}:{port}\r\nAuthorization: Bearer {GLOBAL}\r\nContent-Length: 1\r\nContent-Type: text/"
    writer.write(f"POST {PATH} HTTP/1.1\r\n{lines}".encode() + b"\xff\r\n\r\n{")
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    writer.close()
    [letter] = await client.service.store.letters.page(client.service._time_of_day())
    assert letter.letter.kind == "body"


async def test_a_signed_webhook_is_taken(client: Client) -> None:
    before = (await counted(client))["alertmanager/signed", "s1"]
    assert await status(client, SIGNED, signed(client)) == 202
    assert await status(client, SIGNED, signed(client), BODY + b" ") == 401
    assert await status(client, SIGNED, signed(client, secret="another")) == 401
    assert await status(client, SIGNED, signed(client, off_s=-290)) == 202
    assert await status(client, SIGNED, signed(client, off_s=-310)) == 401, "a copy that somebody kept"
    assert await status(client, SIGNED, {**signed(client), SIGNED_AT: "0"}) == 401
    assert (await counted(client))["alertmanager/signed", "s1"] == before + 2
    huge = b" " * (client.service._settings.max_body_bytes + 1)
    assert await status(client, SIGNED, signed(client, huge), huge) == 413


async def test_each_credential_is_counted_so_that_an_old_one_is_seen_dying(client: Client) -> None:
    before = await counted(client)
    assert {("alertmanager/team-a", "new"), ("alertmanager/team-a", "old"), ("alertmanager/team-b", "only")} <= set(
        before
    ), "each is there before its first use"
    for token in (TEAM_A, TEAM_A, TEAM_A_OLD, "wrong"):
        await client.post(f"{PATH}/team-a", BODY, bearer(token))
    await client.post(f"{PATH}/made-up-name", BODY, bearer(GLOBAL))
    grown = {key: value - before.get(key, 0) for key, value in (await counted(client)).items()}
    assert {key: by for key, by in grown.items() if by} == {
        ("alertmanager/team-a", "new"): 2,
        ("alertmanager/team-a", "old"): 1,
        ("alertmanager", "global:1"): 1,
    }


async def test_a_rotation_needs_no_restart(
    settings: Settings, tmp_path: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_LOOK_EVERY_S", 0.02)
    async with serving(settings) as client:

        async def takes(token: str) -> bool:
            return await status(client, f"{PATH}/team-a", bearer(token)) == 202

        (tmp_path / "a").write_text("newer-token-of-a")
        await until(lambda: takes("newer-token-of-a"))
        assert await takes(TEAM_A_OLD) and not await takes(TEAM_A)

        (tmp_path / "a").write_text("")
        await until(lambda: bool(client.service.credentials.warnings()))
        assert await takes("newer-token-of-a"), "what was read before stays in force"
        ready = json.loads((await client.get("/-/ready"))[1])
        assert [warning for warning in ready["warnings"] if "the credential new of alertmanager/team-a" in warning]
        assert "newer-token-of-a" not in str(ready)

        only_b = f"sources: {{alertmanager/team-b: {{tokens: [{{name: only, file: {tmp_path}/b}}]}}}}\n"
        write_rules(rules, {"alertrouter.yaml": only_b})
        assert (await client.post("/-/reload", b"", bearer(GLOBAL)))[0] == 200
        assert not await takes("newer-token-of-a")
        assert await takes(GLOBAL), "without credentials of its own, those that admit everybody"


async def test_beyond_loopback_a_source_without_credentials_is_refused(settings: Settings, rules: Path) -> None:
    exposed = settings.model_copy(update={"webhook_tokens": (), "listen": "0.0.0.0:0"})
    async with serving(exposed) as client:
        assert await status(client, f"{PATH}/team-a", bearer(TEAM_A)) == 202
        for path in (PATH, f"{PATH}/team-c", "/webhooks/datadog"):
            assert await status(client, path, {}) == await status(client, path, bearer(TEAM_A)) == 401
        assert await status(client, "/-/reload", bearer(TEAM_A), b"") == 401
        write_rules(rules, {"alertrouter.yaml": "{}\n"})
        await client.service.reload()  # nobody has credentials any more: then nobody may send
        assert await status(client, f"{PATH}/team-a", {}) == await status(client, PATH, {}) == 401
    with pytest.raises(SettingsInvalid, match="name the tokens of each sender under `sources`"):
        async with running(exposed, ENVIRON):
            pass


async def test_a_misspelt_sender_is_told(settings: Settings, rules: Path, tmp_path: Path) -> None:
    misspelt = f"sources: {{alertmanger/team-a: {{tokens: [{{name: new, file: {tmp_path}/a}}]}}}}\n"
    write_rules(rules, {"alertrouter.yaml": misspelt})
    async with serving(settings) as client:
        warnings = json.loads((await client.get("/-/ready"))[1])["warnings"]
        assert [warning for warning in warnings if "there is no sender alertmanger" in warning]


def refused_in(process: Process) -> set[str]:
    """The senders of which the log says that they are refused."""
    return {entry["source"] for entry in process.log if entry["event"] == "a sender is refused"}


async def test_no_answer_and_no_log_line_shows_a_token(sandbox: Sandbox, rules: Path, tmp_path: Path) -> None:
    write_rules(rules, {"alertrouter.yaml": sources(tmp_path)})
    canaries = ["wr0ng-canary", "query-canary", "c3VyZTpiYXNpYy1jYW5hcnk=", "basic-canary", "f" * 64]
    async with (
        Process(tmp_path, rules, sandbox, ALERTROUTER_WEBHOOK_TOKENS=GLOBAL, ALERTROUTER_LOG_LEVEL="debug") as process,
        aiohttp.ClientSession() as session,
    ):
        shown = [
            (f"{PATH}/team-a", bearer(canaries[0])),
            (f"{PATH}?token={canaries[1]}", {}),
            (PATH, {"Authorization": f"Basic {canaries[2]}"}),
            (PATH, {"Authorization": f"Basic {canaries[2]}!"}),
            (SIGNED, {SIGNATURE: canaries[4], SIGNED_AT: "1"}),
            ("/-/reload", bearer(canaries[0])),
        ]
        answers = []
        async with session.post(process.url + PATH, data=BODY, headers=bearer(GLOBAL)) as response:
            assert response.status == 202
        for path, headers in shown * 3:  # a known sender that is refused three times is an alarm, and a line in the log
            async with session.post(process.url + path, data=BODY, headers=headers) as response:
                answers.append(await response.text() + str(response.headers))
                assert response.status == 401
        async with session.get(process.url + "/-/healthy") as response:
            assert response.status == 200
        await until(lambda: {"alertmanager/team-a", "alertmanager"} <= refused_in(process))
        async with session.get(process.url + "/metrics") as response:
            answers.append(await response.text())
    events = [json.dumps(call.event) for call in sandbox.events]
    everything = "\n".join([*process.output, *answers, *events])
    assert not [secret for secret in [*canaries, GLOBAL, TEAM_A, TEAM_A_OLD, TEAM_B, SIGNING] if secret in everything]
