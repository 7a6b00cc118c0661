"""From an alert to what is done about it, whatever happens: a fault of ours must page rather than lose the page."""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import TypeVar

import structlog
from msgspec.structs import replace

from alertrouter import telemetry
from alertrouter.alarms import CANARY, DIGEST, HEARTBEAT, PAGE_TEST, SELF, SELF_DESTINATION
from alertrouter.alert import Alert, Link
from alertrouter.enrich import Enriched, enrich, images_of
from alertrouter.rules.evaluate import DEFAULT_DESTINATION, destination_of, evaluate
from alertrouter.rules.heartbeats import heard_in
from alertrouter.rules.model import CacheQuery, CountQuery, Decision, Ruleset, Verdict

T = TypeVar("T")
#: Before the summary of a test page, whatever rules make of it.
TEST_MARK = "TEST PAGE, nothing is wrong: "
Counts = Mapping[CountQuery | CacheQuery, int | str | None]

#: While our time comes nearer to Redis' by a fiftieth, the end of a window is met to within 12 s.
_LOOK_AGAIN_MS = 10 * 60_000

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ActiveRules:
    """The rules in force and the literal routing key behind every destination they name. Replaced as one.

    missing_keys:  where each routing key was to be found that is not there, by the service that names it.
    """

    ruleset: Ruleset
    routing_keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    missing_keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: Calls per minute of the routing keys that have a limit of their own, by the literal key; 0 for no limit.
    own_limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    #: Where the routing key of each integration was to be found that is not there.
    missing_integrations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: SHA-256 of each routing key that may post events, and the sender that it stands for.
    integrations: tuple[tuple[bytes, str], ...] = field(default=(), repr=False)

    def integration_of(self, routing_key: str) -> str | None:
        """The sender that a routing key stands for; None for an unknown one. Takes the same time whatever the key."""
        offered = sha256(routing_key.encode("utf-8", "surrogateescape")).digest()
        found = [source for digest, source in self.integrations if hmac.compare_digest(offered, digest)]
        return found[0] if found else None

    def key_of(self, destination: str) -> str:
        """The routing key in force for `destination`: the default one where it has none of its own."""
        return self.routing_keys.get(destination) or self.routing_keys[DEFAULT_DESTINATION]


def decide(
    alert: Alert, ruleset: Ruleset, now: int, counts: Counts | None, *, trace: bool = False, ahead: int = 0
) -> Decision:
    """What the rules say, given what they counted. An alert of our own is beyond them, and so is a heartbeat.

    trace: record each rule looked at, with the reason in words; changes nothing else.
    ahead: how far `now` is ahead of the time of day, which rules ask for (ms). The decision's `until` is by `now`'s
           clock; as the two come nearer to each other meanwhile, it is looked at again before long.
    """
    if alert.source == SELF:
        return _of_ours(alert, ruleset)
    if alert.source == DIGEST:
        service = alert.fingerprint if alert.fingerprint in ruleset.services else ""
        return plain_decision(alert, destination_of(service, ruleset), service)
    time_of_day = now - ahead

    def judge() -> Decision:
        for heartbeat in heard_in(alert, ruleset.heartbeats, time_of_day) if ruleset.heartbeats else ():
            if heartbeat.conditions:
                return _dropped(alert, HEARTBEAT + heartbeat.name, "a heartbeat: it is noted, and pages nobody")
        return evaluate(alert, ruleset, time_of_day, counts=counts, trace=trace)

    decision = _or_plain(alert, judge, plain_decision)
    if ahead and decision.until:
        return dataclasses.replace(decision, until=min(decision.until + ahead, now + _LOOK_AGAIN_MS))
    return decision


def show(alert: Alert, decision: Decision, ruleset: Ruleset, changes: Sequence[Link] = ()) -> Enriched:
    """What the responder sees, the service's latest `changes` included. That a test page is one is said first, and no rule takes it away."""
    shown = _or_plain(alert, lambda: enrich(alert, decision, ruleset, changes), _plain)
    if alert.source == PAGE_TEST:
        shown = dataclasses.replace(shown, event=replace(shown.event, summary=TEST_MARK + shown.event.summary))
    return shown


def _of_ours(alert: Alert, ruleset: Ruleset) -> Decision:
    """The decision for an alert about ourselves, or about a heartbeat that is not heard: that pages whom it names."""
    if alert.id == CANARY:
        return _dropped(alert, "", "sent by alertrouter to itself, to see that alerts are judged")
    silent = alert.fingerprint.removeprefix(HEARTBEAT) if alert.fingerprint.startswith(HEARTBEAT) else ""
    service = next((each.service for each in ruleset.heartbeats if each.name == silent), "")
    if service not in ruleset.services:
        return plain_decision(alert, SELF_DESTINATION)
    return plain_decision(alert, destination_of(service, ruleset), service)


def _dropped(alert: Alert, rule: str, reason: str) -> Decision:
    decision = plain_decision(alert)
    return dataclasses.replace(decision, verdict=Verdict.DROP, rule=rule, reason=reason, destinations=())


def plain_decision(alert: Alert, destination: str = DEFAULT_DESTINATION, service: str = "") -> Decision:
    """The decision for an alert that is not judged by rules: to `destination`, as it is."""
    return Decision(
        verdict=Verdict.DELIVER,
        event=alert.event,
        service=service,
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
    return Enriched(alert.event, alert.links, alert.client, alert.client_url, images_of(alert))
