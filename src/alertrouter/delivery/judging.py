"""From an alert to what is done about it, whatever happens: a fault of ours must page rather than lose the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

import structlog

from alertrouter import telemetry
from alertrouter.alarms import SELF, SELF_DESTINATION
from alertrouter.alert import Alert
from alertrouter.enrich import Enriched, enrich
from alertrouter.rules.evaluate import DEFAULT_DESTINATION, evaluate
from alertrouter.rules.model import CacheQuery, CountQuery, Decision, Ruleset, Verdict

T = TypeVar("T")
Counts = Mapping[CountQuery | CacheQuery, int | str | None]

#: While our time comes nearer to Redis' by a fiftieth, the end of a window is met to within 12 s.
_LOOK_AGAIN_MS = 10 * 60_000

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ActiveRules:
    """The rules in force and the literal routing key behind every destination they name. Replaced as one."""

    ruleset: Ruleset
    routing_keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def key_of(self, destination: str) -> str:
        """The routing key in force for `destination`: the default one where it has none of its own."""
        return self.routing_keys.get(destination) or self.routing_keys[DEFAULT_DESTINATION]


def decide(
    alert: Alert, ruleset: Ruleset, now: int, counts: Counts | None, *, trace: bool = False, ahead: int = 0
) -> Decision:
    """What the rules say, given what they counted. An alert about ourselves is beyond them.

    trace: record each rule looked at, with the reason in words; changes nothing else.
    ahead: how far `now` is ahead of the time of day, which rules ask for (ms). The decision's `until` is by `now`'s
           clock; as the two come nearer to each other meanwhile, it is looked at again before long.
    """
    if alert.source == SELF:
        return plain_decision(alert, SELF_DESTINATION)
    decision = _or_plain(
        alert, lambda: evaluate(alert, ruleset, now - ahead, counts=counts, trace=trace), plain_decision
    )
    if ahead and decision.until:
        return replace(decision, until=min(decision.until + ahead, now + _LOOK_AGAIN_MS))
    return decision


def show(alert: Alert, decision: Decision, ruleset: Ruleset) -> Enriched:
    """What the responder sees."""
    return _or_plain(alert, lambda: enrich(alert, decision, ruleset), _plain)


def plain_decision(alert: Alert, destination: str = DEFAULT_DESTINATION) -> Decision:
    """The decision for an alert that is not judged by rules: to `destination`, as it is."""
    return Decision(
        verdict=Verdict.DELIVER,
        event=alert.event,
        service="",
        priority="",
        rule="",
        reason="not judged by rules",
        matched=(),
        annotations=(),
        destinations=(destination,),
        trace=(),
    )


def _or_plain(alert: Alert, compute: Callable[[], T], plain: Callable[[Alert], T]) -> T:
    try:
        return compute()
    except Exception:  # noqa: BLE001 - the one broad catch: it settles the alert
        telemetry.RULE_ERRORS.inc()
        _log.exception("evaluation failed; the alert goes on as received", dedup_key=alert.dedup_key)
        return plain(alert)


def _plain(alert: Alert) -> Enriched:
    return Enriched(alert.event, alert.links, alert.client, alert.client_url)
