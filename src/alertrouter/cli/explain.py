"""`alertrouter explain`: one payload through the rules, every rule with why or why not."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import click

from alertrouter.alert import Alert, Status
from alertrouter.destinations.pagerduty import EventAction, build_event, encode_event
from alertrouter.enrich import enrich
from alertrouter.errors import BadPayload, RulesInvalid
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Decision, Ruleset, RuleTrace, Service, Verdict
from alertrouter.rules.times import Instant
from alertrouter.sources import PARSERS, ParsedPayload, pagerduty

_ACTIONS = {
    Status.FIRING: EventAction.TRIGGER,
    Status.ACKNOWLEDGED: EventAction.ACKNOWLEDGE,
    Status.RESOLVED: EventAction.RESOLVE,
}
_PAGERDUTY = "pagerduty"
_REDACTED = "[redacted]"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One alert, what the rules say about it, and the event that would be sent: None where none would be."""

    alert: Alert
    decision: Decision
    service: Service | None
    dedup_key: str
    action: EventAction
    event: dict[str, Any] | None

    @property
    def outcome(self) -> str:
        """How the alert would end, as on record in the history."""
        match self.decision.verdict:
            case Verdict.SUPPRESS:
                return "suppressed"
            case Verdict.DROP:
                return "dropped"
        triggers = self.action is EventAction.TRIGGER
        return "suspended" if self.decision.suspend_ms and triggers else "delivered"


class _Moment(click.ParamType[int]):
    """A date and time with its zone, as ms since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date and time, such as 2027-03-31T02:15:00+01:00", param, ctx)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command("explain")
@click.argument("body", type=click.File("rb"))
@click.option(
    "--source",
    "sender",
    required=True,
    type=click.Choice([*PARSERS, _PAGERDUTY]),
    help="Who posts such bodies; pagerduty: an Events v2 body.",
)
@click.option(
    "--rules", type=click.Path(path_type=Path), default="rules", envvar="ALERTROUTER_RULES", show_default=True
)
@click.option("--at", type=_Moment(), help="Judge as of this time instead of now; UTC unless it says otherwise.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(body: BinaryIO, sender: str, rules: Path, at: int | None, output: str) -> None:
    """Show what would become of the alerts in BODY, a file or - for standard input, and why.

    Nothing is sent or stored: a duplicate is not known as one here.
    """
    now = time.time_ns() // 1_000_000
    try:
        ruleset = load_rules(rules, now=now)
        payload = _parse(sender, body.read())
    except RulesInvalid as invalid:
        click.echo("\n".join(["the rules cannot be loaded:", *invalid.problems]), err=True)
        sys.exit(1)
    except BadPayload as bad:
        raise click.BadParameter(f"not understood: {bad.reason}", param_hint="BODY") from None
    for problem in (each for problems in ruleset.quarantined.values() for each in problems):
        click.echo(f"quarantined: {problem}", err=True)
    explanations = [_explain(alert, ruleset, now if at is None else at) for alert in payload.alerts]
    for skipped in payload.skipped:
        click.echo(f"alert {skipped.position + 1} of the body is skipped: {skipped.reason}", err=True)
    for reason in payload.ignored:
        click.echo(f"ignored: {reason}", err=True)
    if output == "json":
        click.echo(json.dumps([_as_json(each) for each in explanations], indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join("\n".join(_as_text(each)) for each in explanations) or "no alerts in the body")


def _parse(sender: str, body: bytes) -> ParsedPayload:
    if sender == _PAGERDUTY:
        return pagerduty.parse(body, sender, new_key=lambda: uuid4().hex)
    return PARSERS[sender](body, "application/json", sender)


def _explain(alert: Alert, ruleset: Ruleset, now: int) -> Explanation:
    decision = evaluate(alert, ruleset, now, trace=True)
    # Whoever posts events gives PagerDuty's identity himself; for every other sender we make it.
    own_key = alert.fingerprint if alert.source == _PAGERDUTY else alert.dedup_key
    dedup_key = decision.dedup_key or own_key
    action = EventAction(decision.event_action) if decision.event_action else _ACTIONS[alert.status]
    event = None
    if decision.verdict is Verdict.DELIVER:
        built = build_event(action, _REDACTED, dedup_key, enrich(alert, decision, ruleset))
        event = json.loads(encode_event(built))
    return Explanation(alert, decision, ruleset.services.get(decision.service), dedup_key, action, event)


def _as_json(explained: Explanation) -> dict[str, Any]:
    alert, decision = explained.alert, explained.decision
    return {
        "outcome": explained.outcome,
        "service": decision.service,
        "severity": decision.event.severity.value,
        "priority": decision.priority,
        "dedup_key": explained.dedup_key,
        "source": alert.source,
        "status": alert.status.value,
        "summary": alert.event.summary,
        "rule": decision.rule,
        "reason": decision.reason,
        "suspend_ms": decision.suspend_ms,
        "event_action": explained.action.value,
        "escalation_policy": decision.escalation_policy,
        "custom_fields": decision.custom_fields,
        "notify": decision.notify,
        "automation": [each.name for each in decision.automation],
        "quarantined": decision.quarantined,
        "until": decision.until,
        "destinations": decision.destinations,
        "matched": decision.matched,
        "annotations": decision.annotations,
        "notes": alert.notes,
        "event": explained.event,
        "trace": [asdict(each) for each in decision.trace],
    }


def _as_text(explained: Explanation) -> Iterator[str]:
    alert, decision = explained.alert, explained.decision
    yield f"{explained.dedup_key}: {alert.status.value}"
    yield f"  {alert.event.summary}"
    yield ""
    yield from _verdict(explained)
    for note in alert.notes:
        yield f"  note: {note}"
    yield ""
    for (orchestration, set_name), looked_at in groupby(decision.trace, lambda each: (each.orchestration, each.set)):
        yield f"  {orchestration}" if set_name == "start" else f"  {orchestration}, set {set_name}"
        for each in looked_at:
            yield from _looked_at(each)
    if explained.event is not None:
        yield ""
        yield "  PagerDuty would get:"
        yield from (f"    {line}" for line in json.dumps(explained.event, indent=2, ensure_ascii=False).splitlines())


def _verdict(explained: Explanation) -> Iterator[str]:
    decision, service = explained.decision, explained.service
    grade = " ".join(filter(None, (decision.event.severity.value, decision.priority)))
    match explained.outcome:
        case "suppressed" | "dropped" as outcome:
            yield f"  {outcome.upper()} by {decision.rule}: {decision.reason}"
            yield "  What PagerDuty was told before is still resolved."
        case "suspended":
            yield f"  SUSPENDED for {decision.suspend_ms / 1000:g} s, unless it is resolved by then"
            yield f"  After that DELIVERED as {grade} to {', '.join(decision.destinations)}"
        case _:
            yield f"  DELIVERED as {grade} to {', '.join(decision.destinations)}"
    if decision.event_action:
        yield f"  sent as a {decision.event_action}, because a rule says so"
    if decision.notify:
        yield f"  told as well: {', '.join(decision.notify)}"
    if decision.automation:
        yield f"  automation: {', '.join(each.name for each in decision.automation)}"
    if decision.until:
        yield f"  judged anew on {Instant(decision.until)}"
    if decision.quarantined:
        yield f"  sent to the catch-all: the file of {decision.quarantined} is faulty"
    if explained.outcome == "dropped" or (decision.quarantined and service is None):
        return
    if service is None:
        yield "  service: none, because no rule of the router wanted it"
        return
    yield f"  service: {service.name}" + (f", team: {service.team}" if service.team else "")
    if service.runbook:
        yield f"  runbook: {service.runbook}"


def _looked_at(trace: RuleTrace) -> Iterator[str]:
    yield f"    {'yes' if trace.matched else 'no ':3} {trace.rule:28} {trace.why}"
    for warning in trace.warnings:
        yield f"        {'':28} warning: {warning}"
