"""`alertrouter history`: what was heard, what was decided, what was sent, from a running service or from its files."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import click
import msgspec
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from yarl import URL

from alertrouter.errors import SettingsInvalid
from alertrouter.history.entries import (
    KINDS,
    Differed,
    Duplicate,
    Ended,
    Filter,
    LetterMoved,
    Sent,
    SilenceAdded,
    SilenceEnded,
    encode,
)
from alertrouter.history.reading import Damaged, Line, Recorded, files_in, read, total_bytes
from alertrouter.history.story import story
from alertrouter.settings import Settings, duration_ms, load_settings
from alertrouter.shown import escaped, escaped_json

_PAGE = 1000
_REQUEST_S = 30.0
#: As long as the history is kept, as a rule.
_LONG_AGO_MS = 30 * 24 * 3600 * 1000
_ANYWHERE = re.compile(r"^(0\.0\.0\.0|\[::\])(?=:)")
_decode_page = msgspec.json.Decoder(list[Line]).decode


class Moment(click.ParamType[int]):
    """A date and time, or how long ago, as ms since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return time.time_ns() // 1_000_000 - duration_ms(value)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no duration such as 24h or 7d, and no time such as 2027-01-10T03:00", param, ctx)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command("history")
@click.option(
    "--since",
    type=Moment(),
    default="24h",
    show_default=True,
    help="How long ago, or a time (UTC unless it says otherwise); with --alert as a rule 30d.",
)
@click.option("--until", type=Moment(), help="Likewise.")
@click.option("--service", default="", help="Only what was decided for this service.")
@click.option("--source", default="", help="Only this sender, such as alertmanager or datadog/team-a.")
@click.option("--outcome", default="", help="Only what ended so, such as suppressed.")
@click.option(
    "--alert", default="", metavar="ID", help="What happened to this alert, by its dedup_key, in plain words."
)
@click.option("--kind", default="", help=f"Only these, comma-separated: {', '.join(KINDS)}.")
@click.option(
    "--path",
    "paths",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Read files or folders instead of a service.",
)
@click.option(
    "--url",
    help="The service; as a rule the one that ALERTROUTER_LISTEN names. Its token is ALERTROUTER_API_OPERATE_TOKENS, or ALERTROUTER_WEBHOOK_TOKENS.",
)
@click.option("-o", "--output", type=click.Choice(["text", "jsonl"]), default="text", show_default=True)
@click.pass_context
def command(
    ctx: click.Context,
    since: int,
    until: int | None,
    service: str,
    source: str,
    outcome: str,
    alert: str,
    kind: str,
    paths: tuple[Path, ...],
    url: str | None,
    output: str,
) -> None:
    """Print what happened to alerts, oldest first. As jsonl it is what `alertrouter replay` takes.

    With --alert: what happened to one, on one screen.

    Exits with 1 where nothing is found, or where lines of files cannot be read.
    """
    kinds = frozenset(filter(None, kind.split(",")))
    if strange := kinds - set(KINDS):
        raise click.BadParameter(f"{', '.join(sorted(strange))}: there are {', '.join(KINDS)}", param_hint="--kind")
    if alert and ctx.get_parameter_source("since") is ParameterSource.DEFAULT:
        since = time.time_ns() // 1_000_000 - _LONG_AGO_MS
    wanted = Filter(since, until or 0, service, source, outcome, alert, kinds)
    of_alert: list[Line] = []
    tells = bool(alert) and output == "text"
    write = of_alert.append if tells else _write_json if output == "jsonl" else _write_text
    damaged: list[Damaged] = []
    near = ""
    with progress_bar() as progress:
        try:
            if paths:
                found = _from_files(paths, wanted, write, damaged, progress)
            else:
                settings = load_settings(os.environ, {})
                place = url or service_url(settings)
                found = asyncio.run(_from_service(place, settings, wanted, write, progress))
                near = asyncio.run(_near(place, settings, alert)) if alert and not found else ""
        except SettingsInvalid as invalid:
            raise click.UsageError(str(invalid)) from None
        except BrokenPipeError:
            raise  # whoever reads has enough
        except (aiohttp.ClientError, TimeoutError, OSError, Refused) as error:
            said = escaped(f"alertrouter: {str(error) or 'no answer in time'}", sys.stderr.encoding or "utf-8")
            click.echo(said, err=True)
            sys.exit(1)
    if found and tells:
        for line in story(of_alert):
            click.echo(escaped(line, sys.stdout.encoding or "utf-8"))
    for each in damaged:
        click.echo(escaped(f"{each.place}: {each.reason}", sys.stderr.encoding or "utf-8"), err=True)
    if not found:
        click.echo(f"nothing found{near}", err=True)
    sys.exit(0 if found and not damaged else 1)


class Refused(Exception):
    """The service answered, but not with entries."""


def service_url(settings: Settings) -> str:
    """Where the service listens that these settings are of."""
    return "http://" + _ANYWHERE.sub("127.0.0.1", settings.listen)


def token_header(settings: Settings) -> dict[str, str]:
    """What a service with these settings wants to see; nothing where it is open to all."""
    tokens = settings.api_operate_tokens or settings.api_read_tokens or settings.webhook_tokens
    return {"X-Alertrouter-Token": tokens[0].get_secret_value()} if tokens else {}


def unauthorized(url: str) -> str:
    """What to say of a 401."""
    return (
        f"{url} answered 401: set ALERTROUTER_API_OPERATE_TOKENS, or where it has none "
        "ALERTROUTER_WEBHOOK_TOKENS, to a token that it takes"
    )


def _from_files(
    paths: tuple[Path, ...],
    wanted: Filter,
    write: Callable[[Line], None],
    damaged: list[Damaged],
    progress: Progress,
) -> int:
    files = files_in(paths)
    task = progress.add_task("reading", total=total_bytes(files))
    found = 0
    for line in read(files, damaged.append, lambda count: progress.advance(task, count)):
        if wanted.takes(line):
            write(line)
            found += 1
    return found


async def _from_service(
    url: str, settings: Settings, wanted: Filter, write: Callable[[Line], None], progress: Progress
) -> int:
    headers = token_header(settings)
    now = time.time_ns() // 1_000_000
    task = progress.add_task("reading", total=max((wanted.until or now) - wanted.since, 1))
    found = 0
    timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        async for page, cursor in _pages(session, url.rstrip("/"), wanted):
            for line in page:
                write(line)
            found += len(page)
            if cursor:
                progress.update(task, completed=int(cursor.partition("-")[0]) - wanted.since)
    return found


async def _near(url: str, settings: Settings, alert: str) -> str:
    """Which alerts that the service knows may be meant; "" for none."""
    place = URL(f"{url.rstrip('/')}/api/v1/alerts/{quote(alert, safe='', errors='replace')}", encoded=True)
    timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
    async with (
        aiohttp.ClientSession(headers=token_header(settings), timeout=timeout) as session,
        session.get(place, allow_redirects=False) as response,
    ):
        body = await response.read()
    try:
        closest = json.loads(body)["closest"]
    except (ValueError, KeyError, TypeError):
        return ""
    return escaped(f"; perhaps {' or '.join(map(str, closest))}") if closest else ""


async def _pages(session: aiohttp.ClientSession, url: str, wanted: Filter) -> AsyncIterator[tuple[list[Line], str]]:
    """Page after page, oldest first, each with where the next one begins; "" for the last."""
    query = {
        "order": "oldest",
        "limit": str(_PAGE),
        "kind": ",".join(sorted(wanted.kinds)) or "all",
        "since": str(wanted.since),
        "until": str(wanted.until or ""),
        "service": wanted.service,
        "source": wanted.source,
        "outcome": wanted.outcome,
        "alert": wanted.alert,
    }
    cursor = ""
    while True:
        asked = {name: value for name, value in {**query, "cursor": cursor}.items() if value}
        place = f"{url}/api/v1/history?{urlencode(asked)}"
        async with session.get(place, allow_redirects=False) as response:  # a token is for nobody else
            body = await response.read()
            cursor = response.headers.get("X-Alertrouter-Cursor", "")
        if response.status != 200:
            raise Refused(f"{url} answered {response.status}: {reason_in(body)}")
        try:
            page = _decode_page(body)
        except msgspec.MsgspecError as error:
            raise Refused(f"{url} answered something else than entries: {error}") from None
        yield page, cursor
        if not cursor:
            return


def reason_in(body: bytes) -> str:
    """Why a service refused, in its own words."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason"


def _write_json(line: Line) -> None:
    click.echo(escaped_json(encode(line).decode()))


def _write_text(line: Line) -> None:
    moment = f"{datetime.fromtimestamp(line.at / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    click.echo(escaped(f"{moment}  {line.id}  {'  '.join(_words(line))}", sys.stdout.encoding or "utf-8"))


def _words(line: Line) -> Iterator[str]:
    match line:
        case Recorded():
            event = line.alert.event
            yield f"heard {line.alert.status.value} {event.severity.value}" + (f" ({line.news})" if line.news else "")
            yield event.summary
        case Duplicate():
            yield f"heard {line.status} again"
        case Ended():
            yield line.outcome.replace("_", " ")
            yield from filter(None, (line.service, f"by {line.rule}" if line.rule else "", line.reason))
        case Sent():
            yield f"{line.result} {line.destination}" + (f": {line.state}" if line.state else "")
            yield from filter(None, ("by the fallback's key" if line.rerouted else "", line.reason))
        case LetterMoved():
            yield f"dead letter {line.result}" + (f" ({line.destination})" if line.destination else "")
            yield from filter(None, (line.reason,))
        case Differed():
            yield "shadow rules differ: " + ", ".join(
                f"{name} {live or 'none'} → {shadow or 'none'}" for name, (live, shadow) in line.differences.items()
            )
        case SilenceAdded():
            end = f"{datetime.fromtimestamp(line.ends_at / 1000, UTC):%Y-%m-%d %H:%M:%S}"
            yield f"added by {line.owner} until {end}: {line.when or line.of_alert}"
            yield line.reason
        case SilenceEnded():
            yield f"of {line.owner} ended by {line.by}" if line.by else f"of {line.owner} is over"


def progress_bar() -> Progress:
    """Shown on a terminal only, and gone when it is over."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    shown = console.is_terminal and not sys.stdout.isatty()  # else what is read is progress enough
    return Progress(*columns, console=console, transient=True, disable=not shown)
