"""`alertrouter silence`: keep alerts from paging for some hours, see what is kept back, and end it."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import quote

import aiohttp
import click
from yarl import URL

from alertrouter.cli.history import service_url, token_header, unauthorized
from alertrouter.delivery.explained_text import span
from alertrouter.errors import SettingsInvalid
from alertrouter.settings import duration_ms, load_settings
from alertrouter.shown import escaped

_REQUEST_S = 30.0

url_option = click.option(
    "--url",
    help="The service; as a rule the one that ALERTROUTER_LISTEN names. Its token is ALERTROUTER_API_OPERATE_TOKENS, or ALERTROUTER_WEBHOOK_TOKENS.",
)
output_option = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)


def whoami() -> str:
    """The login name; "" where there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


@click.group("silence")
def command() -> None:
    """Keep alerts from paging for some hours, without a commit. Resolves of what was paged go out all the same."""


@command.command("add")
@click.argument("when", required=False)
@click.option("--alert", default="", metavar="ID", help="One alert, by its dedup_key, instead of a condition.")
@click.option("--reason", required=True, help="Why; it is shown wherever the silence keeps something back.")
@click.option("--owner", default=whoami, show_default="your login name", help="Whom to ask about it.")
@click.option("--for", "duration", help="How long, at most 24h.  [default: 1h]")
@click.option("--until", help="A time instead, UTC unless it says otherwise, such as 2027-01-10T05:00.")
@url_option
@output_option
def add(
    when: str | None,
    alert: str,
    reason: str,
    owner: str,
    duration: str | None,
    until: str | None,
    url: str | None,
    output: str,
) -> None:
    r"""Keep back alerts that meet the condition WHEN, written as in the rules, or one --alert.

    \b
    alertrouter silence add "event.custom_details.env == 'staging'" --for 2h --reason "load test, OPS-1423"
    alertrouter silence add --alert alertmanager:7be148814d8a8bd4 --reason "known, fix is deploying"

    What still fires at its end is judged again, and pages then. Exits with 1 where the service refuses.
    """
    if (when is None) is not bool(alert):
        raise click.UsageError("write a condition, or name one alert with --alert")
    if duration and until:
        raise click.UsageError("--for or --until, not both")
    wish = {"owner": owner, "reason": reason, **({"alert": alert} if alert else {"when": when})}
    if until:
        wish["until"] = until
    else:
        try:
            wish["for"] = f"{duration_ms(duration or '1h') // 1000}s"
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--for") from None
    place = url_of(url)
    status, answer = ask("POST", place, "/api/v1/silences", wish)
    if status != 201:
        if when is not None and isinstance(answer, dict) and "column" in answer:
            complain(_pointed_out(when, answer))
            sys.exit(1)
        refuse(place, status, answer)
    if output == "json":
        show_json(answer)
        return
    silence: Mapping[str, Any] = answer
    show(f"Silence {silence['id']} keeps back {_what(silence)}, until {moment(silence['ends_at'])}.")
    for warning in silence["warnings"]:
        complain(f"warning: {warning}")
    show("What was paged before is still resolved. What fires at the end of the silence pages then.")
    show(f"End it earlier: alertrouter silence end {silence['id']}")


@command.command("list")
@url_option
@output_option
def list_(url: str | None, output: str) -> None:
    """Show the silences in force, the one that ends first first."""
    place = url_of(url)
    status, answer = ask("GET", place, "/api/v1/silences")
    if status != 200:
        refuse(place, status, answer)
    if output == "json":
        show_json(answer)
        return
    for silence in answer:
        show(f"{silence['id']}  until {moment(silence['ends_at'])}  {silence['owner']}: {silence['reason']}")
        show(f"        {_what(silence)}")
    if not answer:
        show("no silences")


@command.command("end")
@click.argument("id_", metavar="ID")
@click.option("--by", default=whoami, show_default="your login name", help="Who ends it.")
@url_option
@output_option
def end(id_: str, by: str, url: str | None, output: str) -> None:
    """End a silence before its time. What it kept back and still fires pages now.

    Exits with 1 where there is no such silence.
    """
    place = url_of(url)
    id_ = id_.removeprefix("silence:")
    status, answer = ask("DELETE", place, f"/api/v1/silences/{quote(id_, safe='')}?by={quote(by)}")
    if status != 200:
        refuse(place, status, answer)
    if output == "json":
        show_json(answer)
        return
    show(f"Silence {id_} is over: what it kept back and still fires pages now.")


def _what(silence: Mapping[str, Any]) -> str:
    return f"alert {silence['alert']}" if silence.get("alert") else silence["when"]


def _pointed_out(when: str, answer: Mapping[str, Any]) -> str:
    """The mistake, the line it is in, and a mark below it."""
    line, column = int(answer["line"]), int(answer["column"])
    text = [*when.split("\n"), ""][line - 1]
    return f"{answer['error']}\n  {escaped(text)}\n  {' ' * (len(escaped(text[: column - 1])))}^"


# --- talking to a service, and to people ------------------------------------------------------------------------------


def url_of(url: str | None) -> str:
    """Where the service is. Raises click.UsageError."""
    place = (url or service_url(_settings())).rstrip("/")
    try:
        parsed = URL(place)
    except ValueError:
        parsed = URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise click.UsageError(f"--url {url}: write http://host:port")
    return place


def _settings() -> Any:
    try:
        return load_settings(os.environ, {})
    except SettingsInvalid as invalid:
        raise click.UsageError(str(invalid)) from None


def ask(method: str, url: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """Status and JSON of the answer; None for what is no JSON. Ends the program where nobody answers."""
    return asyncio.run(asked(method, url, path, body))


async def asked(method: str, url: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
    """As `ask`."""
    headers = token_header(_settings())
    timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            # a token is for nobody else
            session.request(method, URL(url + path, encoded=True), json=body, allow_redirects=False) as response,
        ):
            status, text = response.status, await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        said = " ".join(str(error).split()) or f"no answer within {_REQUEST_S:g} s"
        complain(f"alertrouter: {url} cannot be asked: {said}; is `alertrouter serve` running there? Else use --url")
        sys.exit(1)
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def refuse(url: str, status: int, answer: Any) -> NoReturn:
    """Say why the service did not do it, and end the program with 1."""
    if status == 401:
        reason = unauthorized(url)
    elif isinstance(answer, dict) and "error" in answer:
        reason = str(answer["error"])
    else:
        reason = f"{url} answered {status}, but not as alertrouter does"
    complain(f"alertrouter: {reason}")
    sys.exit(1)


def show(text: str) -> None:
    """One line of output, whatever a sender wrote into it."""
    click.echo(escaped(text, sys.stdout.encoding or "utf-8"))


def show_json(answer: Any) -> None:
    """The answer as JSON."""
    click.echo(json.dumps(answer, indent=2))


def complain(text: str) -> None:
    """What is wrong, on standard error."""
    for line in text.split("\n"):
        click.echo(escaped(line, sys.stderr.encoding or "utf-8"), err=True)


def moment(ms: int) -> str:
    """A time in UTC, and how far away it is."""
    return (
        f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC (in {span(ms - time.time_ns() // 1_000_000)})"
    )
