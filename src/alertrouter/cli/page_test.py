"""`alertrouter page-test`: can this service be paged now? A test page through the whole path, and its resolve."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import click

from alertrouter.cli.silence import (
    asked,
    complain,
    output_option,
    refuse,
    show,
    show_json,
    url_of,
    url_option,
    whoami,
)
from alertrouter.delivery.explained_text import headline, span
from alertrouter.settings import duration_ms

_LOOK_EVERY_S = 0.2
#: The service resolves by itself what this program did not live to resolve.
_SPARE_S = 30
_MOST_S = 3600
#: How an alert ended where nothing more will come of it.
_ENDED = frozenset(
    {"delivered", "suppressed", "dropped", "dead_lettered", "cancelled_in_suspend", "resolved_before_delivery"}
)
#: What the service says of an alert that it sent past Redis.
_SENT_DIRECTLY = "sent_directly"


class _Span(click.ParamType[float]):
    """A duration such as 90s, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else duration_ms(value) / 1000
        except ValueError as error:
            self.fail(str(error), param, ctx)


@dataclass(slots=True)
class _Report:
    """What happened. `said` are the lines for people, printed as they come unless it is `quiet`."""

    quiet: bool
    id: str = ""
    destination: str = ""
    paged: bool = False
    resolved: bool = False
    said: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.said.append(line)
        if not self.quiet:
            show(line)


@click.command("page-test")
@click.argument("service")
@click.option("--severity", type=click.Choice(["critical", "error", "warning", "info"]), help="[default: critical]")
@click.option("--keep", type=_Span(), default="60s", show_default=True, help="How long the page stays open.")
@click.option("--timeout", type=_Span(), default="30s", show_default=True, help="How long PagerDuty may take.")
@click.option("--detail", "details", multiple=True, metavar="NAME=VALUE", help="What alerts of the service hold.")
@click.option("--by", default=whoami, show_default="your login name", help="Who tests; the page says so.")
@url_option
@output_option
def command(
    service: str,
    severity: str | None,
    keep: float,
    timeout: float,
    details: tuple[str, ...],
    by: str,
    url: str | None,
    output: str,
) -> None:
    """Page SERVICE with a marked test page, by the rules, queue and routing key of a running service, and resolve it.

    It rings like any page, so tell whoever is on call. `unrouted` tests what no rule of the router wants.

    Exits with 1 unless PagerDuty took the page, by the key that the service names, and its resolve.
    """
    pairs = [each.partition("=") for each in details]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise click.BadParameter(f"{wrong[0]}: write NAME=VALUE", param_hint="--detail")
    if keep + timeout + _SPARE_S > _MOST_S:
        raise click.UsageError("--keep and --timeout: a test page is open for an hour at most")
    wish = {
        "service": service,
        "by": by,
        "details": {name: value for name, _, value in pairs},
        "for": f"{round(keep + timeout + _SPARE_S)}s",
        **({"severity": severity} if severity else {}),
    }
    report = _Report(quiet=output == "json")
    is_well = asyncio.run(_test(url_of(url), wish, report, keep, timeout))
    if output == "json":
        show_json(
            {
                "id": report.id,
                "service": service,
                "destination": report.destination,
                "paged": report.paged,
                "resolved": report.resolved,
                "said": report.said,
            }
        )
    sys.exit(0 if is_well else 1)


async def _test(url: str, wish: Mapping[str, Any], report: _Report, keep: float, patience: float) -> bool:
    """Whether all went as it should."""
    began = time.monotonic()
    status, begun = await asked("POST", url, "/api/v1/page-tests", wish)
    if status == 503:
        complain(f"NOT PAGED: {url} takes no alerts: {(begun or {}).get('error', 'no reason')}; see {url}/-/ready")
        return False
    if status != 202:
        refuse(url, status, begun)
    report.id, report.destination = begun["id"], ", ".join(begun["destinations"])
    report.say(f"Test page {report.id} for {wish['service']}, {begun['severity']}, {_by_which_key(begun)}.")
    took_its_key = True
    try:
        if begun["outcome"] == _SENT_DIRECTLY:
            report.paged = True
            report.say("PAGED: Redis is away; the service sent it straight to PagerDuty, which took it.")
        else:
            took_its_key = await _wait_for_page(url, report, began, patience)
        if report.paged and keep:
            report.say(f"It stays open for {span(round(keep * 1000))}, so that it rings; Ctrl-C resolves it now.")
            await asyncio.sleep(keep)
    except asyncio.CancelledError:  # Ctrl-C: whoever was paged is not left with it
        pass
    await _resolve(url, report, patience)
    return report.paged and report.resolved and took_its_key and not begun["missing_key"]


def _by_which_key(begun: Mapping[str, Any]) -> str:
    if begun["own_key"]:
        return f"by the service's own routing key ({', '.join(begun['destinations'])})"
    if begun["missing_key"]:
        return f"by the default routing key, because its own is not there: set {begun['missing_key']} and restart it"
    return "by the default routing key, because the service names none"


async def _wait_for_page(url: str, report: _Report, began: float, patience: float) -> bool:
    """Wait for what PagerDuty answers, and say it. Returns whether the destination's own key took it."""
    while True:
        explained = await _explained(url, report.id)
        told = _told(explained)
        if told["state"] in ("triggered", "acknowledged"):
            report.paged = True
            took = f"{time.monotonic() - began:.1f} s"
            report.say(f"PAGED: PagerDuty took it after {took}, as incident key {told['dedup_key']}.")
            if told["rerouted"]:
                report.say(
                    f"But not by its key, which PagerDuty refused ({told['refusal']}): it came by the fallback's."
                )
            return not told["rerouted"]
        is_late = time.monotonic() - began > patience
        if explained.get("outcome") in _ENDED or is_late:
            waited = f" within {span(round(patience * 1000))}" if is_late else ""
            reason = headline(explained) if explained else "the service does not say what became of it."
            report.say(
                f"NOT PAGED{waited}: {reason.removeprefix('NOT DELIVERED YET: ').removeprefix('NOT DELIVERED: ')}"
            )
            return False
        await asyncio.sleep(_LOOK_EVERY_S)


async def _resolve(url: str, report: _Report, patience: float) -> None:
    status, answer = await asked("POST", url, f"/api/v1/page-tests/{quote(report.id, safe='')}/resolve")
    if status != 202:
        report.say(f"NOT RESOLVED: {(answer or {}).get('error', status)}; resolve {report.id} in PagerDuty by hand.")
        return
    if answer["outcome"] == _SENT_DIRECTLY:
        report.resolved = True
        report.say("Resolved, straight at PagerDuty.")
        return
    began = time.monotonic()
    while time.monotonic() - began <= patience:
        explained = await _explained(url, report.id)
        told = _told(explained)
        if told["state"] == "resolved" or (explained.get("outcome") in _ENDED and not told["may_be_open"]):
            report.resolved = report.paged
            report.say(
                "Resolved, and PagerDuty knows." if report.paged else "Nothing is open; nobody is paged later on."
            )
            return
        await asyncio.sleep(_LOOK_EVERY_S)
    report.say(f"NOT RESOLVED YET: PagerDuty has not taken the resolve; the service goes on trying. {report.id}")


async def _explained(url: str, alert_id: str) -> Mapping[str, Any]:
    """What the service says of the alert; empty where it does not."""
    status, answer = await asked("GET", url, f"/api/v1/alerts/{quote(alert_id, safe='')}")
    return answer if status == 200 and isinstance(answer, dict) else {}


def _told(explained: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the destination was told: a service has one that pages."""
    nothing = {"state": "nothing", "rerouted": False, "may_be_open": False}
    return next(iter(explained.get("told", ())), nothing)
