"""`alertrouter dead-letters`: what a running service gave up, why, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote, urlencode

import aiohttp
import click
from yarl import URL

from alertrouter.cli.history import Moment, progress_bar, reason_in, service_url, token_header, unauthorized
from alertrouter.errors import SettingsInvalid
from alertrouter.letter import TEXT_FILTERS, Standing, number_of
from alertrouter.settings import load_settings
from alertrouter.shown import escaped

_REQUEST_S = 30.0
_PAGE = 500
#: As many as the service takes at once.
_AT_ONCE = 100
_CURSOR = "X-Alertrouter-Cursor"
_SPILLED = "X-Alertrouter-Spilled"
_PATH = "/api/v1/dead-letters"

F = TypeVar("F", bound=Callable[..., Any])
Shown = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Service:
    """A running service and its token."""

    url: str
    headers: Mapping[str, str] = field(repr=False)


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_common = _options(
    click.option(
        "--url",
        help="The service; as a rule the one that ALERTROUTER_LISTEN names. Its token is ALERTROUTER_API_OPERATE_TOKENS, or ALERTROUTER_WEBHOOK_TOKENS.",
    ),
    click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True),
)
_filters = _options(
    click.option("--service", default="", help="Only of this service."),
    click.option("--destination", default="", help="Only what this one refused, such as pagerduty:default."),
    click.option("--source", default="", help="Only of this sender, such as alertmanager or datadog/team-a."),
    click.option("--alert", default="", metavar="ID", help="Only about this alert, by its dedup_key."),
    click.option("--reason", default="", help="Only where the reason holds this text, or: key, size, content."),
    click.option("--standing", default="", type=click.Choice(["", *Standing]), help="What became of it since."),
    click.option("--since", type=Moment(), help="Not older: how long ago, or a time (UTC unless it says otherwise)."),
)
_letters = click.argument("letters", nargs=-1, metavar="[LETTER]...")
_all = click.option("--all", "every", is_flag=True, help="Every letter that the filters, if any, leave.")


def _ends_well(function: F) -> F:
    """Says in one line what kept a command from its work, instead of a traceback."""

    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(1)

    return wrapped  # type: ignore[return-value]


@click.group("dead-letters")
def command() -> None:
    """What was given up: events that PagerDuty refuses, bodies of senders that cannot be understood, and why.

    Mend the reason (the rules, a routing key, the sender's template), then redrive: the alert is judged again, by the
    rules and keys of now.

    Exit codes: 0 it was done; 1 some of it was not, or the service does not answer; 2 wrong usage.
    """


@command.command("list")
@_filters
@_common
@_ends_well
def list_letters(url: str | None, output: str, **filters: Any) -> None:
    """List dead letters, the newest first.

    standing: stands (redrive it), resolved (its alert is over), gone (no record of it any more), newer (newer news was
    told or refused since: drop it).
    """
    service = _service(url)
    found, spilled = asyncio.run(_all_letters(service, filters))
    if output == "json":
        _print(_json_lines(found))
    elif found:
        _print(line for each in found for line in _in_list(each))
    else:
        click.echo("no dead letters", err=True)
    if spilled:
        said = f"older letters, that were too many, are in {spilled} where {service.url} runs, one a line"
        click.echo(escaped(said, sys.stderr.encoding or "utf-8"), err=True)


@command.command("show")
@click.argument("letter")
@_common
@_ends_well
def show_letter(letter: str, url: str | None, output: str) -> None:
    """Show one dead letter: the words of who refused it, what was refused, and what to do."""
    if number_of(letter) is None:
        raise click.BadParameter(f"{letter!r} is no dead letter; `alertrouter dead-letters list` has their names")
    found = asyncio.run(_one_letter(_service(url), letter))
    if output == "json":
        _print(_json_lines(found))
    else:
        _print(_in_full(found))


@command.command("redrive")
@_letters
@_all
@click.option(
    "--force", is_flag=True, help="Tell also of what is over or gone: it is triggered, and resolved right after."
)
@_filters
@_common
@_ends_well
def redrive_letters(
    letters: tuple[str, ...], every: bool, force: bool, url: str | None, output: str, **filters: Any
) -> None:
    """Put letters back: by name (- reads names), by filter, or --all. Each is judged again by the rules and keys of now.

    By filter: those that stand, and with --force also those that are resolved or gone. Newer news is never overtaken.
    """
    may = {Standing.STANDS, Standing.RESOLVED, Standing.GONE} if force else {Standing.STANDS}
    service = _service(url)
    names = _names(service, letters, every, filters, lambda each: bool(filters["standing"]) or each["standing"] in may)
    _do(service, {"action": "redrive", "force": force}, names, output, "redriven")


@command.command("drop")
@_letters
@_all
@click.option("--yes", is_flag=True, help="Do not ask.")
@_filters
@_common
@_ends_well
def drop_letters(
    letters: tuple[str, ...], every: bool, yes: bool, url: str | None, output: str, **filters: Any
) -> None:
    """Let go of letters: by name (- reads names), by filter, or --all. Their alerts stay as they are."""
    service = _service(url)
    names = _names(service, letters, every, filters, lambda _: True)
    if not letters and names and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"this drops {len(names)} letters: say --yes")
        click.confirm(f"Drop {len(names)} dead letter{'s' * (len(names) != 1)}?", abort=True, err=True)
    _do(service, {"action": "drop"}, names, output, "dropped")


def _names(
    service: _Service,
    letters: tuple[str, ...],
    every: bool,
    filters: Mapping[str, Any],
    takes: Callable[[Shown], bool],
) -> list[str]:
    """The letters that are meant. Ends the program where none are named, or none found."""
    filtered = any(filters.values())
    if bool(letters) == (every or filtered):
        raise click.UsageError("name letters, or give a filter or --all" + (", not both" if letters else ""))
    if letters:
        names = [name for line in sys.stdin for name in line.split()] if letters == ("-",) else list(letters)
        if wrong := [name for name in names if number_of(name) is None]:
            raise click.UsageError(f"{escaped(wrong[0])} is no dead letter; `alertrouter dead-letters list` has names")
    else:
        found, _ = asyncio.run(_all_letters(service, filters))
        names = [each["letter"] for each in found if takes(each)]
    if not names:
        _give_up("no dead letters to do this to")
    return list(dict.fromkeys(names))


def _do(service: _Service, asked: Mapping[str, Any], names: Sequence[str], output: str, done: str) -> None:
    handled = asyncio.run(_post(service, asked, names, done))
    if output == "json":
        _print(_json_lines(handled))
    else:
        _print(
            "  ".join(filter(None, (each["letter"], each["result"], each["id"], each["reason"]))) for each in handled
        )
    sys.exit(0 if all(each["result"] == done for each in handled) else 1)


# --- the service -----------------------------------------------------------------------------------------------------


def _service(url: str | None) -> _Service:
    try:
        settings = load_settings(os.environ, {})
    except SettingsInvalid as invalid:
        raise click.UsageError(str(invalid)) from None
    url = (url or service_url(settings)).rstrip("/")
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise click.UsageError(f"--url {url}: write http://host:port")
    return _Service(url, token_header(settings))


async def _all_letters(service: _Service, filters: Mapping[str, Any]) -> tuple[list[Shown], str]:
    """The letters that the filters leave, and the file of those that were too many; "" for none."""
    query = {name: filters[name] for name in TEXT_FILTERS if filters[name]}
    query |= {"since": str(filters["since"])} if filters["since"] else {}
    found: list[Shown] = []
    cursor = ""
    async with _session(service) as session:
        with progress_bar() as progress:
            task = progress.add_task("reading", total=None)
            while True:
                asked = urlencode({**query, "limit": _PAGE, **({"cursor": cursor} if cursor else {})})
                page, headers = await _ask(service, session, "GET", f"?{asked}")
                found += page
                cursor = headers.get(_CURSOR, "")
                progress.update(task, completed=len(found), total=None if cursor else len(found))
                if not cursor:
                    return found, unquote(headers.get(_SPILLED, ""))


async def _one_letter(service: _Service, letter: str) -> Shown:
    async with _session(service) as session:
        found, _ = await _ask(service, session, "GET", f"/{letter}")
    if not isinstance(found, dict):
        _give_up(f"{service.url} answered, but not as alertrouter does")
    return found


async def _post(service: _Service, asked: Mapping[str, Any], names: Sequence[str], done: str) -> list[Shown]:
    handled: list[Shown] = []
    async with _session(service) as session:
        with progress_bar() as progress:
            task = progress.add_task(done, total=len(names))
            for start in range(0, len(names), _AT_ONCE):
                some = names[start : start + _AT_ONCE]
                answer, _ = await _ask(service, session, "POST", "", {**asked, "letters": some})
                handled += answer
                progress.advance(task, len(some))
    return handled


def _session(service: _Service) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers=service.headers, timeout=aiohttp.ClientTimeout(total=_REQUEST_S))


async def _ask(
    service: _Service, session: aiohttp.ClientSession, method: str, rest: str, body: Any = None
) -> tuple[Any, Mapping[str, str]]:
    """The JSON of a good answer, and its headers. Ends the program with one line where there is none."""
    place = URL(f"{service.url}{_PATH}{rest}", encoded=True)
    try:
        # a token is for nobody else, so no redirect is followed
        async with session.request(method, place, json=body, allow_redirects=False) as response:
            status, answer, headers = response.status, await response.read(), response.headers
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        said = " ".join(str(error).split()) or f"no answer within {_REQUEST_S:g} s"
        _give_up(f"{service.url} cannot be asked: {said}; is `alertrouter serve` running there? Else say where: --url")
    if status == 401:
        _give_up(unauthorized(service.url))
    if status != 200:
        _give_up(f"{service.url} answered {status}: {reason_in(answer)}")
    try:
        return json.loads(answer), headers
    except ValueError:
        _give_up(f"{service.url} answered, but not as alertrouter does")


def _give_up(reason: str) -> NoReturn:
    click.echo(escaped(f"alertrouter: {reason}", sys.stderr.encoding or "utf-8"), err=True)
    sys.exit(1)


# --- what is shown ---------------------------------------------------------------------------------------------------


def _print(lines: Iterable[str]) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    click.echo("\n".join(escaped(line, encoding) for line in lines))


def _json_lines(value: Any) -> list[str]:
    # not splitlines: it would end lines inside of texts, where JSON has none
    return json.dumps(value, indent=2, ensure_ascii=False).split("\n")


def _in_list(shown: Shown) -> Iterator[str]:
    yield f"{shown['letter']}  {_utc(shown.get('at', 0))}  {shown['standing']:<8}  {_what(shown)}: {_reason(shown)}"
    about = (_cut(shown["id"] or shown["source"]), shown["service"], _cut(shown.get("summary", "")))
    yield f"          {'  '.join(filter(None, about))}"


def _what(shown: Shown) -> str:
    match shown["kind"]:
        case "refused":
            severity = f" {shown['severity']}" if shown.get("severity") else ""
            return f"{shown.get('action', 'event')}{severity} refused by {shown.get('destination', '')}"
        case "poisoned":
            return "ends every worker"
        case "unreadable":
            return "unreadable record"
        case "body":
            return "body not understood"
    return "unreadable letter"


def _reason(shown: Shown) -> str:
    status = f"HTTP {shown['status']}: " if shown.get("status") and shown["kind"] == "refused" else ""
    return _cut(status + shown["reason"])


def _in_full(shown: Shown) -> Iterator[str]:
    yield f"{_what(shown)}: {_reason(shown)}"
    yield ""
    for title, text in (
        ("letter", shown["letter"]),
        ("standing", f"{shown['standing']}: {_NEXT.get(shown['standing'], '')}".format(letter=shown["letter"])),
        ("alert", shown["id"]),
        ("summary", shown.get("summary", "")),
        ("sender", shown["source"]),
        ("service", shown["service"]),
        ("given up", f"{_utc(shown.get('at', 0))} UTC"),
        ("attempts", str(shown.get("attempts", ""))),
        ("said before", shown.get("before", "")),
    ):
        if text:
            yield f"  {title:<12}{text}"
    if shown["kind"] == "refused":
        if "event" in shown:
            yield from _block("What was refused (the routing key is not kept)", shown["event"])
        else:
            yield "  What was refused is too large to be kept; the alert is judged anew when it is redriven."
    if "alert" in shown:
        yield from _block("The alert as it was heard", shown["alert"])
    if shown["kind"] == "body":
        form = " in base64" if shown.get("base64") else ""
        yield f"  The body, {shown.get('size', 0)} bytes{form}, {shown.get('content_type') or 'no Content-Type'}"
        yield from (f"    {line}" for line in shown.get("body", "").split("\n"))


_NEXT = {
    "stands": "mend the reason, then `alertrouter dead-letters redrive {letter}`",
    "resolved": "the alert is over, and nobody was told; `redrive --force` tells it and resolves it, else drop it",
    "gone": "there is no record of the alert any more; `redrive --force` tells it and resolves it, else drop it",
    "newer": "newer news was heard or told since, and stands; drop this one",
}


def _block(title: str, value: Any) -> Iterator[str]:
    yield f"  {title}"
    yield from (f"    {line}" for line in _json_lines(value))


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _cut(text: str, size: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= size else text[: size - 1] + "…"
