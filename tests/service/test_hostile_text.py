"""Any text in any field of a real body: stored, sent as valid JSON, and never raw in a log, on a terminal or a page."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alertrouter.app import Service, running
from alertrouter.sandbox import Sandbox
from alertrouter.settings import load_settings
from alertrouter.telemetry import set_up_logging
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import DEFAULT_KEY, ENVIRON, Client, write_rules
from tests.service.test_history import run
from tests.service.test_http import idle
from tests.unit.test_shown import UNSEEN, texts
from tests.unit.test_sources_properties import PAYLOADS, SCHEMA, as_json, places

BODIES = {
    "alertmanager": json.loads(alertmanager_body(alertmanager_alert())),
    "datadog": json.loads(next(path for path in PAYLOADS if path.stem == "template_triggered").read_bytes()),
}
_CORES = asyncio.Semaphore(2)
#: What a browser or a spreadsheet would do something about.
LIVE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)", "=cmd|'/c calc'!A0")


@dataclass
class Running:
    """A service and a PagerDuty in this process, and the log so far. They go on while `run` runs something."""

    runner: asyncio.Runner
    client: Client
    sandbox: Sandbox
    log: io.StringIO


@asynccontextmanager
async def service(folder: Path) -> AsyncIterator[tuple[Client, Sandbox]]:
    async with Sandbox() as sandbox:
        wanted = {
            "listen": "127.0.0.1:0",
            "data_dir": folder / "data",
            "rules": write_rules(folder / "rules"),
            "pagerduty_events_url": sandbox.url,
            "pagerduty_routing_key": DEFAULT_KEY,
            "pagerduty_calls_per_minute": 0,
        }
        async with running(load_settings({}, wanted), ENVIRON) as built, aiohttp.ClientSession() as session:
            assert isinstance(built, Service)
            yield Client(built, session), sandbox


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    log = io.StringIO()
    handlers = logging.getLogger().handlers[:]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", log)
        set_up_logging("json", "debug")
    with asyncio.Runner() as runner:
        manager = service(tmp_path)
        client, sandbox = runner.run(manager.__aenter__())
        yield Running(runner, client, sandbox, log)
        runner.run(manager.__aexit__(None, None, None))
    structlog.reset_defaults()
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers


def with_text(sender: str, changes: dict[int, str]) -> dict[str, Any]:
    """A body of that sender with other text at some of its places."""
    body: dict[str, Any] = json.loads(json.dumps(BODIES[sender]))
    found = [(holder, key) for holder, key in places(body) if isinstance(holder[key], str)]
    for number, text in changes.items():
        holder, key = found[number % len(found)]
        holder[key] = text
    return body


def another(body: dict[str, Any], number: int) -> dict[str, Any]:
    """The body about an alert that was not heard before."""
    if "alerts" in body:
        body["alerts"][0]["labels"]["number"] = str(number)
    else:
        body["alert"]["id"] = str(number)
    return body


async def hear(client: Client, sender: str, body: bytes) -> int:
    """Post it, and let everything that follows from it happen."""
    async with client.session.post(f"{client.service.url}/webhooks/{sender}", data=body) as answer:
        assert answer.content_type == "application/json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        json.loads(await answer.read())
    await idle(client)
    return answer.status


def check_events(sandbox: Sandbox) -> None:
    """Everything sent is an event as PagerDuty describes it."""
    for call in sandbox.calls:
        assert call.result != "invalid", call.answer
        SCHEMA.validate(call.event)
        json.dumps(call.event).encode()


def test_any_text_in_any_field_goes_the_whole_way(world: Running) -> None:
    number = itertools.count()

    @given(
        st.sampled_from(sorted(BODIES)),
        st.dictionaries(st.integers(0, 60), texts | st.sampled_from(LIVE), min_size=1, max_size=6),
        st.booleans(),
    )
    @example("alertmanager", dict.fromkeys(range(20), "\x1b]0;x\x07\u202e\ud800\x00\r\n::error::forged"), True)
    @example("datadog", dict.fromkeys(range(40), "\x9b31m@everyone =1+1 {{x}} ${x} <script>"), False)
    @example("alertmanager", dict.fromkeys(range(20), "n" * 10_000), True)
    @settings(max_examples=60)
    def any_text(sender: str, changes: dict[int, str], ascii_only: bool) -> None:
        body = as_json(another(with_text(sender, changes), next(number)), ascii_only=ascii_only)
        assert world.runner.run(hear(world.client, sender, body)) in (202, 400)
        check_events(world.sandbox)

    any_text()
    assert len(world.sandbox.events) > 20
    refuse_one(world)
    world.runner.run(look_at_everything(world))
    lines = world.log.getvalue().split("\n")[:-1]
    assert len(lines) > 50
    for line in lines:
        assert line.isascii() and line.isprintable()
        assert json.loads(line)["level"]


def refuse_one(world: Running) -> None:
    """A dead letter with hostile words of PagerDuty's, and a silence with hostile ones of ours."""
    hostile = "\x1b[2J\u202e\x9b31m<script>\r\n::error::forged [red]"
    world.sandbox.fail(400, 10, body={"status": "invalid", "message": hostile, "errors": [hostile]})
    body = with_text("alertmanager", dict.fromkeys(range(20), hostile))
    assert world.runner.run(hear(world.client, "alertmanager", as_json(another(body, -1)))) == 202
    world.sandbox.heal()
    silence = {"owner": hostile, "reason": hostile, "when": "event.class == 'Quiet'", "for": "1h"}
    status, answer = world.runner.run(world.client.post("/api/v1/silences", as_json(silence)))
    assert status == 201, answer


async def look_at_everything(world: Running) -> None:
    """Every command and every page shows it, and none shows it raw."""
    url = world.client.service.url
    environ = {"ALERTROUTER_LISTEN": url.removeprefix("http://"), "PYTHONIOENCODING": "utf-8"}
    code, recorded, _ = await run("history", "-o", "jsonl", "--kind", "heard", "--url", url, **environ)
    assert code == 0
    for line in recorded.split("\n")[:-1]:
        json.loads(line)
    alerts = list({json.loads(line)["id"]: 0 for line in recorded.split("\n")[:-1]})[-2:]
    folder = Path(world.client.service._settings.data_dir).parent
    (folder / "recorded.jsonl").write_text(recorded)
    _, letters, _ = await run("dead-letters", "list", "-o", "json", **environ)
    [letter, *_] = [each["letter"] for each in json.loads(letters)]
    rules = ("--rules", str(folder / "rules"), "--against", str(folder / "rules"), str(folder / "recorded.jsonl"))
    commands = [
        ("history", "--kind", "heard,sent,ended,letter_moved"),
        *((name, "--alert", alert) for alert in alerts for name in ("history", "explain")),
        ("explain", "--alert", alerts[0], "-o", "json"),
        ("dead-letters", "list"),
        ("dead-letters", "show", letter),
        ("dead-letters", "show", letter, "-o", "json"),
        ("silence", "list"),
        ("silence", "list", "-o", "json"),
        *(("replay", *rules, "-o", form) for form in ("text", "markdown", "json")),
    ]
    outputs = [("history", "-o", "jsonl"), *commands]
    shown = [recorded, *await asyncio.gather(*(said(command, environ) for command in commands))]
    for command, text in zip(outputs, shown, strict=True):
        assert text.strip(), command
        assert not UNSEEN.search(text.replace("\n", "")), command
        if command[-1] == "json":
            json.loads(text)
        elif command[-1] != "jsonl":
            assert not re.search(r"(?m)^\s*::\w+|^##\[", text), "no line of it is a workflow command"
    await check_pages(world)


async def said(command: tuple[str, ...], environ: dict[str, str]) -> str:
    async with _CORES:
        _, output, errors = await run(*command, **environ)
    assert "Traceback" not in errors
    return output + errors


class _Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(f"{tag}.{name}" for name, _ in attrs)}
        for name, value in attrs:
            assert name != "href" or (value or "").startswith(("/", "http://", "https://"))


async def check_pages(world: Running) -> None:
    """HTML is made of our tags only, everything else says that it is none."""
    async with world.client.session.get(world.sandbox.url) as page:
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
        tags = _Tags()
        tags.feed(await page.text())
    assert "article" in tags.found
    assert not tags.found & {"script", "img", "iframe", "object", "svg", "form"}
    assert not {each for each in tags.found if ".on" in each or each.endswith((".src", ".style"))}
    for path in ("/api/v1/history", "/api/v1/dead-letters", "/api/v1/silences", "/-/ready", "/metrics", "/none"):
        async with world.client.session.get(world.client.service.url + path) as answer:
            assert answer.content_type in ("application/json", "text/plain")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert answer.headers["Server"] == "alertrouter", "nobody needs to know what it is made of"
            await answer.read()
