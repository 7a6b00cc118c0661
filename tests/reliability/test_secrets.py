"""Planted secrets, driven through the whole running service and every way it has of failing: none comes out again."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, quote_plus

import aiohttp
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from alertrouter.sandbox import Sandbox
from alertrouter.settings import load_settings
from tests.conftest import program
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure
from tests.rig.second_channel import MailServer, Receiver
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

PATH = "/webhooks/alertmanager"
#: The one place in Redis for a literal routing key: what a destination of an alert was told with.
TOLD_KEY = re.compile(rb"t:.*:key")
_CORES = asyncio.Semaphore(2)
SILENT_RULE = "event.custom_details.alertname == 'Quiet'"


SENDERS = """
sources:
  alertmanager/team:
    tokens: [{name: new, file: FOLDER/team}, {name: old, file: FOLDER/old}]
    header: X-Team-Token
  alertmanager/signed:
    signature: {scheme: grafana, secrets: [{name: s1, file: FOLDER/signing}]}
integrations:
  zabbix: {routing_key: {file: FOLDER/integration}, service: payment-service}
"""


class Secrets:
    """What is planted, by name, and every form in which it may come out."""

    def __init__(self) -> None:
        keys = ("default", "by environment", "by file", "fallback", "own", "integration", "refused key")
        self.keys = {name: secrets.token_hex(16) for name in keys}
        words = (
            *("token", "second token", "refused token", "redis", "smtp", "hook", "hook address"),
            *("read token", "operate token", "team token", "old team token", "signing"),
        )
        self.words = {name: secrets.token_urlsafe(27) + "/+:" for name in words}
        self.words["team token"] = f"alertrouter_{secrets.token_urlsafe(32)}"  # as `alertrouter token new` makes them

    def __getitem__(self, name: str) -> str:
        return self.keys.get(name) or self.words[name]

    @property
    def forms(self) -> Iterator[tuple[str, bytes]]:
        """Each secret as it is, as part of a URL, in hex, and in Base64 wherever in a text it may begin."""
        for name, secret in {**self.keys, **self.words}.items():
            plain = secret.encode()
            forms = {plain, quote(secret, safe="").encode(), quote_plus(secret).encode(), plain.hex().encode()}
            for before in range(3):
                text = base64.b64encode(b"\0" * before + plain)
                # the ends share letters with what stands beside them
                forms |= {text[4 if before else 0 : -4], base64.urlsafe_b64encode(b"\0" * before + plain)[4:-4]}
            for form in forms:
                yield name, form


class Outputs:
    """Everything that came out, by where."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}

    def add(self, where: str, text: bytes | str) -> None:
        self.texts[where] = self.texts.get(where, b"") + (text.encode() if isinstance(text, str) else text) + b"\n"

    def hits(self, planted: Secrets) -> list[str]:
        forms = list(planted.forms)
        return sorted(
            {f"{name} in {where}" for where, text in self.texts.items() for name, form in forms if form in text}
        )


class Client:
    """Asks a service, and keeps all that it says."""

    def __init__(self, url: str, planted: Secrets, outputs: Outputs) -> None:
        self.url = url
        self._planted = planted
        self._outputs = outputs

    async def ask(
        self, path: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and text of the answer."""
        token = self._planted["token" if path.startswith("/webhooks/") else "operate token"]
        said = {"X-Alertrouter-Token": token} if headers is None else dict(headers)
        if method == "POST" and path.startswith(("/api/", "/-/")):
            said.setdefault("Content-Type", "application/json")
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=data, headers=said) as answer,
        ):
            text = await answer.text()
            self._outputs.add(f"answer to {method} {path.partition('?')[0]}", f"{answer.headers}\n{text}")
            return answer.status, text


async def run(outputs: Outputs, environ: Mapping[str, str], *arguments: str) -> tuple[int, bytes]:
    """A command with the service's environment: exit code and standard output. As many at once as there are cores."""
    async with _CORES, asyncio.timeout(120):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "alertrouter", *arguments),
            env={**os.environ, **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
    outputs.add(f"alertrouter {' '.join(arguments[:2])}", output + errors)
    return process.returncode or 0, output


async def everything_in(redis: Redis) -> AsyncIterator[tuple[str, bytes]]:
    """Every key of Redis with all its values, but what a destination was told with."""
    async for key in redis.scan_iter():
        value: Any
        match await redis.type(key):
            case b"string":
                value = await redis.get(key)
            case b"hash":
                value = [each for each in (await fields_of(redis, key)).items() if not TOLD_KEY.fullmatch(each[0])]
            case b"zset":
                value = await redis.zrange(key, 0, -1)
            case b"set":
                value = list(await cast(Awaitable[set[bytes]], redis.smembers(key)))
            case b"stream":
                value = await redis.xrange(key)
            case kind:
                raise AssertionError(f"{key!r} is a {kind!r}")
        yield f"Redis {key.decode()}", key + b"\n" + b"\n".join(texts_in(value))


async def fields_of(redis: Redis, key: bytes) -> dict[bytes, bytes]:
    return await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(key.decode()))


def texts_in(value: Any) -> Iterator[bytes]:
    """All that a value of Redis is made of."""
    match value:
        case bytes():
            yield value
        case dict():
            yield from texts_in(list(value.items()))
        case list() | tuple():
            for each in value:
                yield from texts_in(each)


@pytest.fixture
def planted() -> Secrets:
    return Secrets()


@pytest.fixture
def rules(tmp_path: Path, planted: Secrets) -> Path:
    """The usual rules, a service with its key in a file, and senders with credentials of their own."""
    folder = write_rules(tmp_path / "rules")
    files = {"key": "by file", "integration": "integration", "team": "team token", "old": "old team token"}
    for file, name in {**files, "signing": "signing"}.items():
        (tmp_path / file).write_text(planted[name] + "\n")
    (folder / "alertrouter.yaml").write_text(SENDERS.replace("FOLDER", str(tmp_path)))
    (folder / "services" / "files.yaml").write_text(
        f"service: files\nrouting_key: {{file: {tmp_path / 'key'}}}\nsets: {{start: []}}\ncatch_all: {{}}\n"
    )
    rule = "    - rule: files\n      when: event.custom_details.service == 'files'\n      then: {route_to: files}\n"
    router = folder / "router.yaml"
    router.write_text(router.read_text().replace("catch_all:", f"{rule}catch_all:"))
    return folder


async def by_own_credentials(client: Client, planted: Secrets) -> None:
    """Senders with credentials of their own, and who looks but does not touch; and what each does wrong."""
    body = alertmanager_body(alertmanager_alert(n="own"))
    for name in ("team token", "old team token"):
        for headers in ({"X-Team-Token": planted[name]}, {"Authorization": f"Bearer {planted[name]}"}):
            assert (await client.ask(f"{PATH}/team", "POST", body, headers))[0] == 202
            assert (await client.ask(PATH, "POST", body, headers))[0] == 401
            assert (await client.ask(f"{PATH}/team", "POST", b"{", headers))[0] == 400
    for secret, status in ((planted["signing"], 202), (planted["signing"] + "x", 401)):
        signature = hmac.new(secret.encode(), body, "sha256").hexdigest()
        headers = {"X-Grafana-Alerting-Signature": signature}
        assert (await client.ask(f"{PATH}/signed", "POST", body, headers))[0] == status
    headers = {"X-Grafana-Alerting-Signature": planted["signing"]}
    assert (await client.ask(f"{PATH}/signed", "POST", body, headers))[0] == 401
    payload = {"summary": "Disk full", "source": "db-1", "severity": "critical"}
    faults: Sequence[tuple[str, dict[str, Any], int]] = (
        (planted["integration"], {}, 202),
        (planted["integration"], {"payload": {}}, 400),
        (planted["refused key"], {}, 400),
        (planted["refused key"] + "x", {}, 400),
    )
    for key, change, status in faults:
        event = {"routing_key": key, "event_action": "trigger", "dedup_key": "disk", "payload": payload, **change}
        assert (await client.ask("/v2/enqueue", "POST", event, {}))[0] == status
        assert (await client.ask("/v2/change/enqueue", "POST", event, {}))[0] == status
        event["routing_key"] = ""
        assert (await client.ask("/v2/enqueue", "POST", event, {"X-Routing-Key": key}))[0] == status
    reader = {"X-Alertrouter-Token": planted["read token"]}
    assert (await client.ask("/api/v1/silences", headers=reader))[0] == 200
    assert (await client.ask("/-/reload", "POST", b"{}", reader))[0] == 403
    sender = {"X-Alertrouter-Token": planted["token"]}
    assert (await client.ask("/api/v1/silences", headers=sender))[0] == 401


async def hostile_requests(client: Client, planted: Secrets) -> None:
    """What a sender does wrong, and what somebody tries who is none."""
    wrong = planted["refused token"]
    basic = base64.b64encode(f"me:{wrong}".encode()).decode()
    for headers in (
        {"Authorization": f"Bearer {wrong}"},
        {"Authorization": f"Basic {basic}"},
        {"X-Alertrouter-Token": wrong},
    ):
        for path in (PATH, f"{PATH}/team-a", "/-/reload", "/api/v1/dead-letters"):
            assert (await client.ask(path, "POST", b"{}", headers))[0] == 401
    assert (await client.ask(f"{PATH}?token={wrong}", "POST", b"{}", {}))[0] == 401
    for body in (b"{", b"[]", b'{"alerts": 1}', b"\xff\xfe"):
        assert (await client.ask(PATH, "POST", body))[0] == 400
    token = {"X-Alertrouter-Token": planted["token"]}
    assert (await client.ask(PATH, "POST", b"x", {**token, "Content-Encoding": "gzip"}))[0] == 400
    assert (await client.ask(PATH, "POST", b"x", {**token, "Content-Encoding": "br"}))[0] == 415
    assert (await client.ask("/webhooks/nobody", "POST", b"{}"))[0] == 404
    assert (await client.ask("/no/such/path"))[0] == 404
    host, port = client.url.removeprefix("http://").split(":")
    for head in (
        f"POST {PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {planted['token']}\x00\r\n\r\n",
        f"POST {PATH} HTTP/1.1\r\nX-Alertrouter-Token {planted['token']}\r\n\r\n",
        f"GET /?{planted['token']} HTTP/9.9\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        answer = await reader.read(65536)
        assert b" 400 " in answer.splitlines()[0]
        writer.close()
        # what is wrong is shown to whoever sent it; of others it may hold nothing
        client._outputs.add("answer to malformed HTTP", answer.replace(planted["token"].encode(), b""))


async def test_no_planted_secret_comes_out(
    tmp_path: Path, rules: Path, planted: Secrets, figure: Figure, capfd: pytest.CaptureFixture[str]
) -> None:
    outputs = Outputs()
    redis = RedisServer(program("redis-server"), tmp_path / "redis")
    async with (
        redis,
        Sandbox() as pagerduty,
        Receiver(planted["hook"], lambda: 0.0) as receiver,
        MailServer(login=("mailer", "another password")) as mail,
    ):
        await redis.command("CONFIG", "SET", "requirepass", planted["redis"])
        receiver.status = 500
        redis_url = f"redis://:{quote(planted['redis'], safe='')}@127.0.0.1:{redis.port}/0"
        environ = {
            "ALERTROUTER_WEBHOOK_TOKENS": f"{planted['token']},{planted['second token']}",
            "ALERTROUTER_API_READ_TOKENS": planted["read token"],
            "ALERTROUTER_API_OPERATE_TOKENS": planted["operate token"],
            "ALERTROUTER_REDIS_URL": redis_url,
            "ALERTROUTER_PAGERDUTY_ROUTING_KEY": planted["default"],
            "ALERTROUTER_PAGERDUTY_FALLBACK_ROUTING_KEY": planted["fallback"],
            "ALERTROUTER_PAGERDUTY_SELF_ROUTING_KEY": planted["own"],
            "PD_KEY_SEARCH": planted["by environment"],
            "ALERTROUTER_SECOND_CHANNEL_AFTER": "1s",
            "ALERTROUTER_SECOND_CHANNEL_WEBHOOK_URL": f"{receiver.url}?key={quote(planted['hook address'], safe='')}",
            "ALERTROUTER_SECOND_CHANNEL_WEBHOOK_SECRET": planted["hook"],
            "ALERTROUTER_SECOND_CHANNEL_SMTP_URL": (
                f"smtp://mailer:{quote(planted['smtp'], safe='')}@127.0.0.1:{mail.port}"
            ),
            "ALERTROUTER_SECOND_CHANNEL_MAIL_FROM": "alertrouter@example.org",
            "ALERTROUTER_SECOND_CHANNEL_MAIL_TO": "oncall@example.org",
            "ALERTROUTER_LOG_LEVEL": "debug",
            "ALERTROUTER_HISTORY_PATH": str(tmp_path / "history"),
            "PYTHONFAULTHANDLER": "1",
        }
        for dump in (load_settings(environ, {}), vars(load_settings(environ, {}))):
            outputs.add("repr(settings)", f"{dump!r} {dump}")
        outputs.add("settings as JSON", load_settings(environ, {}).model_dump_json())
        router = Router(tmp_path / "router", rules, pagerduty.url, redis_url, **environ)
        async with router:
            client = Client(router.url, planted, outputs)
            command = {**environ, "ALERTROUTER_LISTEN": router.url.removeprefix("http://")}
            await through_the_service(client, planted, pagerduty)
            await by_own_credentials(client, planted)
            await hostile_requests(client, planted)
            await bad_rules(client, rules, planted)
            await by_commands(outputs, command, client, rules, tmp_path)
            await second_channel_fails(client, pagerduty, receiver, router)
            async with Redis.from_url(redis_url) as store:
                found = [entry async for entry in everything_in(store)]
                told = [value async for key in store.scan_iter() async for value in told_keys(store, key)]
            for where, text in found:
                outputs.add(where, text)
            assert {planted[name].encode() for name in ("default", "by environment", "by file")} <= set(told)
            await without_redis(client, redis, router, planted)
            await looked_at(client)
            assert int(limits(router)["Max core file size"]) == 0, "the kernel writes no memory to disk"
            await router.end(signal.SIGABRT)
        await refused_starts(outputs, environ, redis.port, planted)
        outputs.add("log", router.log.read_bytes())
    for file in (tmp_path / "history").rglob("*.jsonl"):
        outputs.add("history files", file.read_bytes())
    outputs.add("this process", "".join(capfd.readouterr()))
    log = outputs.texts["log"].decode()
    assert "Fatal Python error: Aborted" in log and "second channel failed" in log
    before_the_crash = log.partition("Fatal Python error")[0].splitlines()
    lines = [json.loads(line) for line in before_the_crash if line]
    assert len(lines) > 20
    assert not [line for line in lines if "***" in {value for value in line.values() if isinstance(value, str)}]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "router" / "data" / "journal").iterdir()} <= {0o600}
    hits = outputs.hits(planted)
    searched = sum(map(len, outputs.texts.values()))
    figure(
        "G22",
        f"{len(planted.keys) + len(planted.words)} planted secrets found in {len(outputs.texts)} kinds of output "
        f"({searched // 1024} kB), plain, in URLs, hex and Base64",
        "0",
        len(hits),
        not hits,
    )
    assert hits == []


async def told_keys(store: Redis, key: bytes) -> AsyncIterator[bytes]:
    """The literal routing keys in one record."""
    if await store.type(key) == b"hash":
        for name, value in (await fields_of(store, key)).items():
            if TOLD_KEY.fullmatch(name):
                yield value


async def through_the_service(client: Client, planted: Secrets, pagerduty: Sandbox) -> None:
    """Pages by each key, and every way in which PagerDuty refuses them, with the key in its words."""
    services = {"payment": "default", "search": "by environment", "files": "by file"}
    for number, (service, name) in enumerate(services.items()):
        key = planted[name]
        answers: tuple[tuple[int, str | dict[str, Any]], ...] = (
            (400, {"status": "invalid event", "errors": [f"the event {{'routing_key': '{key}'}} is odd"]}),
            (400, {"status": "invalid event", "errors": [f"Routing key {key} is unknown"]}),
            (403, f"<html>{key}</html>"),
            (500, f"at {pagerduty.url}/v2/enqueue?routing_key={key}"),
            (429, f"too many for {key}"),
        )
        for fault, (status, said) in enumerate(answers):
            pagerduty.fail(status, 1, routing_key=key, body=said, retry_after="1")
            alert = alertmanager_alert(service=service, n=f"{number}.{fault}", severity="critical")
            assert (await client.ask(PATH, "POST", alertmanager_body(alert)))[0] == 202
    sent = {planted[name] for name in ("default", "by environment", "by file")}
    await until(lambda: sent <= {call.routing_key for call in pagerduty.events}, 20)
    pagerduty.heal()
    pagerduty.fail(400, 1000, routing_key=planted["default"], body={"errors": [f"{planted['default']} says no"]})
    assert (await client.ask(PATH, "POST", alertmanager_body(alertmanager_alert(n="refused"))))[0] == 202
    await until(lambda: letters_of(client), 20)
    pagerduty.heal()


async def letters_of(client: Client) -> bool:
    """Whether there are dead letters."""
    return len(json.loads((await client.ask("/api/v1/dead-letters"))[1])) > 0


async def bad_rules(client: Client, rules: Path, planted: Secrets) -> None:
    """Somebody writes a key where its place belongs, and YAML that is none, and takes it back."""
    key, word, any_word = planted["by environment"], planted["team token"], planted["old team token"]
    await written(
        client,
        rules / "services" / "search-service.yaml",
        f"service: search-service\nrouting_key: {key}\n",
        f"service: search-service\nrouting_key: {{env: {key}}}\nsets: {{start: []}}\ncatch_all: {{}}\n",
        f"service: search-service\nrouting_key: {{file: {key}}}\nsets: {{start: []}}\ncatch_all: {{}}\n",
        f"service: search-service\nrouting_key: {{value: {key}}}\n",
        f"service: search-service\nrouting_key: [{key}\n",
        f"{key}\n",
        f"service: search-service\n{key}: x\n",
        f"service: search-service\nsets: {{start: [{{rule: a, when: {key}}}]}}\ncatch_all: {{}}\n",
    )
    await written(
        client,
        rules / "alertrouter.yaml",
        f"sources: {{alertmanager/team: {{tokens: [{{name: new, file: {any_word!r}}}, {{name: b, env: {any_word!r}}}]}}}}\n",
        f"sources: {{alertmanager/team: {{tokens: [{word!r}]}}}}\n",
        f"sources: {{alertmanager/team: {{tokens: {word!r}}}}}\n",
        f"sources: {{alertmanager/team: {{tokens: [{{name: new, file: {word!r}}}]}}}}\n",
        f"sources: {{alertmanager/team: {{tokens: [{{name: new, env: {word!r}}}]}}}}\n",
        f"sources: {{alertmanager/team: {{tokens: [{{name: {word!r}, env: A}}]}}}}\n",
        f"sources: {{alertmanager/team: {{{word!r}: 1}}}}\n",
        f"sources: {{alertmanager/team: {{signature: {{scheme: {word!r}, secrets: [{word!r}]}}}}}}\n",
        f"integrations: {{zabbix: {{routing_key: {key}, service: payment-service}}}}\n",
        f"integrations: {{zabbix: {{routing_key: {{env: {key}}}, service: payment-service}}}}\n",
    )
    (rules / "router.yaml").rename(rules / "kept")
    assert (await client.ask("/-/reload", "POST"))[0] == 422
    (rules / "kept").rename(rules / "router.yaml")
    assert (await client.ask("/-/reload", "POST"))[0] == 200


async def written(client: Client, path: Path, *texts: str) -> None:
    """Put each text into the file for a while."""
    good = path.read_text()
    for text in texts:
        path.write_text(text)
        await client.ask("/-/reload", "POST")
        await looked_at(client)
    path.write_text(good)


async def looked_at(client: Client) -> None:
    """Everything that can be read of the service."""
    for path in (
        *("/-/ready", "/-/healthy", "/metrics", "/api/v1/history?kind=all&limit=1000", "/api/v1/shadow"),
        *("/api/v1/dead-letters", "/api/v1/silences", "/api/v1/alerts/alertmanager:none", "/"),
    ):
        await client.ask(path)


async def by_commands(outputs: Outputs, environ: Mapping[str, str], client: Client, rules: Path, folder: Path) -> None:
    """Every command that asks the service, or reads what it wrote."""

    async def say(*arguments: str, **others: str) -> bytes:
        return (await run(outputs, {**environ, **others}, *arguments))[1]

    listed = await say("dead-letters", "list", "-o", "json")
    letters = [each["letter"] for each in json.loads(listed)]
    assert letters
    for letter in letters:
        await client.ask(f"/api/v1/dead-letters/{letter}")
    recorded = await say("history", "-o", "jsonl", "--kind", "heard")
    record = folder / "recorded.jsonl"
    record.write_bytes(recorded)
    alert = json.loads(recorded.splitlines()[0])["id"]
    added = await say("silence", "add", SILENT_RULE, "--reason", "noise", "--owner", "me", "-o", "json")
    replay = ("replay", "--rules", str(rules), str(record), "-o")
    await asyncio.gather(
        say("dead-letters", "list"),
        say("dead-letters", "show", letters[0]),
        say("dead-letters", "show", letters[-1], "-o", "json"),
        say("history", "--kind", "heard,sent,ended"),
        say("history", "--alert", alert),
        say("explain", "--alert", alert),
        *(say(*replay, form) for form in ("json", "markdown")),
        say("check", str(rules)),
        say("test", str(rules)),
        say("silence", "list"),
        say("page-test", "search-service", "--keep", "1s"),
        say("dead-letters", "list", ALERTROUTER_WEBHOOK_TOKENS="another"),
        say("history", ALERTROUTER_LISTEN="127.0.0.1:1"),
    )
    await asyncio.gather(
        say("silence", "end", json.loads(added)["id"]),
        say("dead-letters", "redrive", "--force", *letters[:-1]),
        say("dead-letters", "drop", letters[-1]),
    )


async def second_channel_fails(client: Client, pagerduty: Sandbox, receiver: Receiver, router: Router) -> None:
    """PagerDuty takes nothing, and neither webhook nor mail server takes the news of it."""
    pagerduty.fail(500, 10_000)
    alert = alertmanager_alert(service="payment", n="outage", severity="critical")
    assert (await client.ask(PATH, "POST", alertmanager_body(alert)))[0] == 202
    await until(lambda: receiver.calls > 0 and b"refuses user and password" in router.log.read_bytes(), 30)
    pagerduty.heal()


async def without_redis(client: Client, redis: RedisServer, router: Router, planted: Secrets) -> None:
    """Redis goes, and is back with another password."""
    await redis.kill()
    pagerduty_takes = alertmanager_alert(service="search", n="direct", severity="critical")
    assert (await client.ask(PATH, "POST", alertmanager_body(pagerduty_takes)))[0] == 202
    await looked_at(client)
    redis._options = ("--requirepass", "another")
    with suppress(TimeoutError):
        async with asyncio.timeout(1):  # it answers nobody who knows no password
            await redis.start()
    await client.ask(PATH, "POST", alertmanager_body(alertmanager_alert(service="search", n="wrong password")))
    await until(lambda: b"uthenticat" in router.log.read_bytes() or b"invalid" in router.log.read_bytes(), 20)
    with suppress(RedisError):
        await redis.command("PING")


async def refused_starts(outputs: Outputs, environ: Mapping[str, str], port: int, planted: Secrets) -> None:
    """The service is started with settings that are wrong, each around a secret."""
    wrong = (
        ("ALERTROUTER_REDIS_URL", f"redis://:{planted['redis']}@127.0.0.1:{port}/0"),  # not encoded
        ("ALERTROUTER_REDIS_URL", planted["redis"]),
        ("ALERTROUTER_PAGERDUTY_ROUTING_KEY", planted["default"] + "0"),
        ("ALERTROUTER_PAGERDUTY_EVENTS_URL", f"https://me:{planted['smtp']}@events.example.org"),
        ("ALERTROUTER_SECOND_CHANNEL_WEBHOOK_URL", f"http://hooks.example.org/{planted['hook address']}"),
        ("ALERTROUTER_SECOND_CHANNEL_SMTP_URL", f"smtp://me:{planted['smtp']}@mail.example.org"),
        ("ALERTROUTER_SECOND_CHANNEL_SMTP_URL", f"http://{planted['smtp']}"),
        ("ALERTROUTER_WEBHOOK_TOKEN", planted["token"]),
        ("ALERTROUTER_API_OPERATE_TOKEN", planted["operate token"]),
    )
    busy = {**environ, "ALERTROUTER_LISTEN": f"127.0.0.1:{busy_port()}"}
    ended = await asyncio.gather(*(run(outputs, {**busy, name: value}, "serve") for name, value in wrong))
    assert {code for code, _ in ended} <= {1, 2}


_BUSY = socket.create_server(("127.0.0.1", 0))


def busy_port() -> int:
    """A port that somebody listens on: what gets past its settings ends there."""
    return int(_BUSY.getsockname()[1])


def limits(router: Router) -> dict[str, str]:
    """The soft limits of the running process, by name."""
    assert router._process is not None
    text = Path(f"/proc/{router._process.pid}/limits").read_text()
    return dict(re.findall(r"(?m)^(\S.*?)\s{2,}(\S+)", text))
