"""Log lines: listed fields only, no credentials, and one line of JSON or of text whatever somebody wrote into it."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from alertrouter.log_lines import FIELDS, as_json, listed_fields, one_terminal_line, plain_values
from alertrouter.rules.silences import Silence
from alertrouter.telemetry import log_crash, set_up_logging

PACKAGE = Path(__file__).parents[2] / "src" / "alertrouter"
CALLS = {"debug", "info", "warning", "error", "critical", "exception", "bind"}
#: What our code hands over as a whole, and the fields in it.
WHOLE = {
    "_said(each)": {"letter", "dedup_key", "result", "reason"},
    "msgspec.to_builtins(silence)": set(Silence.__struct_fields__),
    "said": {"status", "objection", "reason"},
    "_skipped(payload)": {"skipped"},
}
KEY = "0123456789abcdefABCDEF0123456789"
#: Everything Python can hold, lone surrogates and all that moves a cursor included.
texts = st.text(st.characters(exclude_categories=()), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call that writes a log line or adds to one, with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
                logger = ast.unparse(node.func.value)
                if logger.rpartition(".")[2] in ("log", "_log") or logger == "structlog.get_logger()":
                    yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_every_field_that_our_code_logs_is_listed() -> None:
    calls = list(log_calls())
    assert len(calls) > 60
    for place, call in calls:
        for keyword in call.keywords:
            named = WHOLE[ast.unparse(keyword.value)] if keyword.arg is None else {keyword.arg} - {"exc_info"}
            assert named <= FIELDS, f"{place}: look at what can stand in it, then list it in alertrouter.log_lines"


def rendered(line: dict[str, Any]) -> dict[str, Any]:
    """The line as it is logged, read back."""
    text = as_json(plain_values(None, "", listed_fields(None, "", line)))
    assert text.isascii() and text.isprintable()
    found: dict[str, Any] = json.loads(text)
    return found


@given(texts, st.dictionaries(st.sampled_from(sorted(FIELDS)) | texts, values, max_size=4))
@example("\x1b[2J\r\nforged", {"reason": "\u202egnp.exe", "error": "\x9b31m", "why": "\ud800\x00"})
def test_a_line_is_one_line_of_json_whatever_it_holds(event: str, fields: dict[str, Any]) -> None:
    found = rendered({**fields, "event": event})
    assert found.keys() == fields.keys() | {"event"}
    assert {found[name] for name in fields.keys() - FIELDS - {"event"}} <= {"***"}


#: Fields that structlog itself fills, always with text.
BY_STRUCTLOG = {"event", "level", "timestamp", "exception", "stack", "logger"}


@given(
    texts,
    st.dictionaries(st.sampled_from(sorted(FIELDS - BY_STRUCTLOG)), values, max_size=4)
    | st.dictionaries(st.just("exception"), texts),
)
@example("\x1b[2J\r\nforged", {"exception": "Traceback\r\n2027 [error] forged\x1b[2J"})
def test_a_line_for_a_terminal_moves_no_cursor_and_forges_no_line(event: str, fields: dict[str, Any]) -> None:
    line = one_terminal_line(None, "", plain_values(None, "", {**fields, "event": event}))
    text = str(structlog.dev.ConsoleRenderer(colors=False)(None, "", line))
    first, *rest = text.split("\n")
    assert first.isprintable()
    for each in rest:
        assert not each or (each.startswith("  ") and each.isprintable())


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("redis://me:sesame@host:6379/0 is away", "redis://***@host:6379/0 is away"),
        ("at redis://:se/sa#me?@host/0?password=sesame", "at redis://***@host/0?***"),
        ("'https://hooks.example.org/x?token=sesame#sesame'", "'https://hooks.example.org/x?***'"),
        ("no connection to http://127.0.0.1:9088/v2/enqueue", "no connection to http://127.0.0.1:9088/v2/enqueue"),
        ("Authorization: Bearer sesame", "Authorization: Bearer ***"),
        ("authorization: basic c2VzYW1l==", "authorization: basic ***"),
    ],
)
def test_credentials_are_left_out_wherever_they_stand(said: str, left: str) -> None:
    found = rendered({"event": said, "why": [{"deep": said}], "exception": f"Traceback\n{said}", "url": said})
    assert found == {"event": left, "why": [{"deep": left}], "exception": f"Traceback\n{left}", "url": left}


def test_what_has_the_form_of_a_routing_key_is_left_out_of_what_others_say() -> None:
    assert rendered({"event": "e", "error": f"'{KEY}' is unknown", "reason": KEY}) == {
        "event": "e",
        "error": "'***' is unknown",
        "reason": "***",
    }
    assert rendered({"event": "e", "dedup_key": KEY})["dedup_key"] == KEY, "PagerDuty's own keys of alerts look alike"


def test_values_of_other_kinds_are_shown_as_they_show_themselves() -> None:
    assert rendered({"event": "e", "what": ValueError("redis://:sesame@host"), "why": float("nan")}) == {
        "event": "e",
        "what": "ValueError('redis://***@host')",
        "why": "nan",
    }


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is logged as JSON from now on."""
    handlers = logging.getLogger().handlers[:]
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    set_up_logging("json", "info")
    assert isinstance(sys.stderr, io.StringIO)
    yield sys.stderr
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers


def test_a_traceback_has_no_locals_and_no_credentials(lines: io.StringIO) -> None:
    def connect(url: str) -> None:
        password = "open" + "sesame"
        raise ConnectionError(f"{url} is away, {len(password)}")

    try:
        connect("redis://:hunter2@host")
    except ConnectionError as error:
        structlog.get_logger().exception("it failed")
        log_crash(type(error), error, error.__traceback__)
    written = lines.getvalue()
    assert "opensesame" not in written and "hunter2" not in written
    failed, crashed = map(json.loads, written.splitlines())
    assert "in connect" in failed["exception"] and "redis://***@host" in failed["exception"]
    assert crashed["event"] == "a fault of this program ends it" and "in connect" in crashed["exception"]


def test_a_field_that_nobody_listed_keeps_its_name_only(lines: io.StringIO) -> None:
    structlog.get_logger().info("it was sent", body="sesame", service="payment")
    (found,) = map(json.loads, lines.getvalue().splitlines())
    assert (found["body"], found["service"]) == ("***", "payment")


def test_the_console_hides_and_escapes_as_well(lines: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", lines)
    set_up_logging("console", "info")
    structlog.get_logger().error("\x1b[2Jforged\r\n", body="sesame", reason="redis://:sesame@host \x9b")
    written = re.sub(r"\x1b\[\d*m", "", lines.getvalue())  # its own colours
    assert written.count("\n") == 1 and written.rstrip("\n").isprintable()
    assert "sesame" not in written and "forged" in written


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: h\r\nX-Alertrouter-Token: opensesame\x00\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nX-Alertrouter-Token opensesame\r\n\r\n",
        b"GET /?opensesame HTTP/9.9\r\n\r\n",
    ],
)
async def test_a_request_that_is_no_http_is_not_repeated(request_: bytes, lines: io.StringIO) -> None:
    """Aiohttp's error shows the line that is wrong, which may hold a token."""
    runner = web.ServerRunner(web.Server(lambda _: web.Response()), access_log=None)  # type: ignore[arg-type,return-value]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(request_)
    assert b" 400 " in await reader.read()
    writer.close()
    await runner.cleanup()
    (found,) = map(json.loads, lines.getvalue().splitlines())
    assert found["event"] == "a request that is no HTTP" and found["error"].startswith("Bad")
    assert "sesame" not in lines.getvalue()


def test_libraries_log_in_the_same_form(lines: io.StringIO) -> None:
    logging.getLogger("aiohttp.server").error("Error handling request: %s", "Authorization: Bearer sesame\nforged")
    (found,) = map(json.loads, lines.getvalue().splitlines())
    assert (found["logger"], found["level"]) == ("aiohttp.server", "error")
    assert found["event"] == "Error handling request: Authorization: Bearer ***\nforged"
