"""`alertrouter explain`: one payload through the rules, or one alert of a running service; what becomes of it, and why."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import click
from click.core import ParameterSource
from yarl import URL

from alertrouter.alert import PAGERDUTY
from alertrouter.cli.history import service_url, token_header, unauthorized
from alertrouter.delivery.explained_text import as_text
from alertrouter.delivery.explaining import as_json, explain
from alertrouter.errors import BadPayload, RulesInvalid, SettingsInvalid
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Ruleset
from alertrouter.settings import load_settings
from alertrouter.shown import escaped
from alertrouter.sources import SENDERS, ParsedPayload, Parser, find_parser, pagerduty
from alertrouter.sources.body import FORM

_REQUEST_S = 30.0
_BY_HAND = ParameterSource.COMMANDLINE
_OF_A_PAYLOAD = {"sender": "--source", "rules": "--rules", "at": "--at"}


class _Moment(click.ParamType[int]):
    """A date and time with its zone, as ms since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date and time, such as 2027-03-31T02:15:00+01:00", param, ctx)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


class _Sender(click.ParamType[str]):
    """A sender, or one with its name."""

    name = "sender"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = (*SENDERS, PAGERDUTY)
        if value.partition("/")[0] not in known:
            self.fail(f"{value!r} is not one of {', '.join(known)}", param, ctx)
        return str(value)


@click.command("explain")
@click.argument("body", type=click.File("rb"), required=False)
@click.option(
    "--source",
    "sender",
    type=_Sender(),
    help=f"Who posts such bodies: {', '.join(SENDERS[:-1])} or custom/name; pagerduty: an Events v2 body.",
)
@click.option(
    "--rules", type=click.Path(path_type=Path), default="rules", envvar="ALERTROUTER_RULES", show_default=True
)
@click.option("--at", type=_Moment(), help="Judge as of this time instead of now; UTC unless it says otherwise.")
@click.option("--alert", metavar="DEDUP_KEY", help="An alert that a running service knows, instead of BODY.")
@click.option(
    "--url",
    help="The service; as a rule the one that ALERTROUTER_LISTEN names. Its token is ALERTROUTER_API_OPERATE_TOKENS, or ALERTROUTER_WEBHOOK_TOKENS.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def command(
    ctx: click.Context,
    body: BinaryIO | None,
    sender: str | None,
    rules: Path,
    at: int | None,
    alert: str | None,
    url: str | None,
    output: str,
) -> None:
    """Show what would become of the alerts in BODY, a file or - for standard input, and why.

    With --alert: what became of an alert that a running service knows, by its own rules, what it was told and what came
    back. Nothing is sent, stored or counted. Without a service a duplicate is not known as one.

    Exits with 1 where the rules cannot be loaded, the alert is not known or the service does not answer.
    """
    if alert is not None:
        given = [name for key, name in _OF_A_PAYLOAD.items() if ctx.get_parameter_source(key) is _BY_HAND]
        if body is not None or given:
            what = ", ".join(["BODY"] * (body is not None) + given)
            raise click.UsageError(f"--alert asks a running service and its rules; leave out {what}")
        explained = [_from_service(alert, url)]
    else:
        if url is not None:
            raise click.UsageError("--url goes with --alert")
        if body is None:
            raise click.UsageError("name a BODY (- for standard input) and its --source, or an alert with --alert")
        if sender is None:
            raise click.UsageError("Missing option '--source': who posts such bodies?")
        explained = _from_body(body, sender, rules, at)
    _show(explained, output)


def _show(explained: Sequence[dict[str, Any]], output: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    if output == "json":
        lines = json.dumps(explained, indent=2, ensure_ascii=False).split("\n")
    else:
        lines = [line for each in explained for line in ("", *as_text(each))][1:] or ["no alerts in the body"]
    click.echo("\n".join(escaped(line, encoding) for line in lines))


def _complain(text: str) -> None:
    click.echo(escaped(text, sys.stderr.encoding or "utf-8"), err=True)


# --- a payload -------------------------------------------------------------------------------------------------------


def _from_body(body: BinaryIO, sender: str, rules: Path, at: int | None) -> list[dict[str, Any]]:
    now = time.time_ns() // 1_000_000
    try:
        ruleset = load_rules(rules, now=now)
        payload = _parser_of(sender, ruleset)(body.read(), _headers(body), sender)
    except RulesInvalid as invalid:
        for line in ("the rules cannot be loaded:", *invalid.problems):
            _complain(line)
        sys.exit(1)
    except BadPayload as bad:
        raise click.BadParameter(f"not understood: {escaped(bad.reason)}", param_hint="BODY") from None
    for problem in (each for problems in ruleset.quarantined.values() for each in problems):
        _complain(f"quarantined: {problem}")
    for skipped in payload.skipped:
        _complain(f"alert {skipped.position + 1} of the body is skipped: {skipped.reason}")
    for reason in payload.ignored:
        _complain(f"ignored: {reason}")
    return [as_json(explain(alert, ruleset, now if at is None else at)) for alert in payload.alerts]


def _parser_of(sender: str, ruleset: Ruleset) -> Parser:
    if sender == PAGERDUTY:
        return _parse_event
    try:
        return find_parser(sender, ruleset.custom)
    except BadPayload as unknown:
        raise click.BadParameter(unknown.reason, param_hint="--source") from None


def _parse_event(body: bytes, _headers: Mapping[str, str], source: str) -> ParsedPayload:
    return pagerduty.parse(body, source, new_key=lambda: uuid4().hex)


def _headers(body: BinaryIO) -> Mapping[str, str]:
    """A file says by its name that it is a form; standard input may have none."""
    return {"content-type": FORM} if str(getattr(body, "name", "")).endswith(".form") else {}


# --- a running service -----------------------------------------------------------------------------------------------


def _from_service(alert: str, url: str | None) -> dict[str, Any]:
    """All that a service says about one alert. Ends the program with one line where it says nothing of use."""
    try:
        settings = load_settings(os.environ, {})
    except SettingsInvalid as invalid:
        raise click.UsageError(str(invalid)) from None
    url = (url or service_url(settings)).rstrip("/")
    if not _is_address(url):
        raise click.UsageError(f"--url {url}: write http://host:port")
    if not alert.strip():
        raise click.UsageError("--alert needs the dedup_key of an alert")
    status, answer = asyncio.run(_ask(url, alert, token_header(settings)))
    if status != 200 or not _is_explanation(answer):
        _give_up(_why_not(status, answer, alert, url))
    return cast(dict[str, Any], answer)


def _is_address(url: str) -> bool:
    try:
        parsed = URL(url)
    except ValueError:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def _is_explanation(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.keys() >= {"outcome", "record", "told", "history", "judged_now", "trace"}


def _why_not(status: int, answer: Any, alert: str, url: str) -> str:
    """What a service means by an answer that is no explanation."""
    match status, answer:
        case 404, {"closest": [*closest]}:
            near = f"; perhaps {' or '.join(map(str, closest))}" if closest else ""
            return f"{url} knows no alert {alert}{near}"
        case 401, _:
            return unauthorized(url)
        case _, {"error": reason}:
            return f"{url} answered {status}: {reason}"
    return f"{url} answered {status}, but not as alertrouter does"


async def _ask(url: str, alert: str, headers: dict[str, str]) -> tuple[int, Any]:
    """Status and JSON of the answer; None for what is no JSON."""
    place = URL(f"{url}/api/v1/alerts/{quote(alert, safe='', errors='replace')}", encoded=True)
    timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.get(place, allow_redirects=False) as response,  # a token is for nobody else
        ):
            status, body = response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        said = " ".join(str(error).split()) or f"no answer within {_REQUEST_S:g} s"
        _give_up(f"{url} cannot be asked: {said}; is `alertrouter serve` running there? Else say where with --url")
    try:
        return status, json.loads(body)
    except ValueError:
        return status, None


def _give_up(reason: str) -> NoReturn:
    _complain(f"alertrouter: {reason}")
    sys.exit(1)
