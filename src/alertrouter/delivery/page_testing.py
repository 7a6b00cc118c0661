"""Test pages: an alert of our own that the rules route to a service as they would route a real one, and its resolve.

It takes the whole path (accept, rules, queue, routing key, PagerDuty), so that what keeps a real page from getting
through keeps this one. Whatever rules make of it, PagerDuty shows that it is a test (see `judging.show`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from alertrouter.alarms import PAGE_TEST
from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.delivery.judging import ActiveRules, decide
from alertrouter.errors import NotDone, StoreUnavailable
from alertrouter.rules.model import START, UNROUTED, Decision, Ruleset
from alertrouter.rules.sampling import Sample, samples
from alertrouter.rules.schema import did_you_mean, read_duration
from alertrouter.store.store import AlertStore

_LOOK_EVERY_S = 1.0
_LONGEST = timedelta(hours=1)
#: At once: nobody has so many services to try.
_MOST_OPEN = 100
_MOST_CHARACTERS = 200
_FIELDS = {"class": "class_"}
_TEXTS = ("summary", "source", "timestamp", "class", "component", "group")

_SEVERITIES = {severity.value: severity for severity in Severity}

_log = structlog.get_logger()


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody asks for: `for` is when it resolves by itself; `details` what the alert is to hold."""

    service: str
    by: str = ""
    severity: Severity | None = None
    details: Mapping[str, str] = {}
    duration: str = msgspec.field(name="for", default="60s")


class PageTests:
    """Begins test pages and resolves them. `accept` takes alerts in and says what each was."""

    def __init__(
        self,
        store: AlertStore,
        accept: Callable[[Sequence[Alert]], Awaitable[Sequence[StrEnum]]],
        rules: Callable[[], ActiveRules],
        clock: Callable[[], int],
        ahead: Callable[[], int] = lambda: 0,
    ) -> None:
        """`ahead` says how far `clock` is ahead of the time of day, in ms."""
        self._store = store
        self._accept = accept
        self._rules = rules
        self._clock = clock
        self._ahead = ahead
        self._begun: dict[str, tuple[Alert, int]] = {}  # and when each is to be resolved: Redis may be away

    async def begin(self, body: bytes) -> dict[str, Any]:
        """Send one on its way. Returns where it goes as JSON. Raises NotDone, and StoreUnavailable."""
        try:
            wish = msgspec.json.decode(body, type=Wish)
            lasts = read_duration(wish.duration)
        except (msgspec.MsgspecError, ValueError) as error:
            raise NotDone(f"{error}; write {{service, by, for}}") from None
        if lasts > _LONGEST:
            raise NotDone("for: a test page is open for an hour at most")
        if len(self._begun) >= _MOST_OPEN:
            raise NotDone(f"{_MOST_OPEN} test pages are open; wait until they are over", status=409)
        active, now = self._rules(), self._clock()
        alert, decision = _routed(wish, active.ruleset, now - self._ahead())
        ends_at = now + lasts // timedelta(milliseconds=1)
        # before it is sent: whatever dies meanwhile, and whoever is never answered, it is resolved
        self._begun[alert.id] = (alert, ends_at)
        with suppress(StoreUnavailable):
            await self._store.resolve_test_at(alert.id, ends_at)
        [outcome] = await self._accept([alert])
        missing_key = active.missing_keys.get(decision.service, "")
        _log.warning("test page begun", dedup_key=alert.id, service=wish.service, by=wish.by)
        return {
            "id": alert.id,
            "service": decision.service,
            "severity": decision.event.severity.value,
            "matched": list(decision.matched),
            "destinations": list(decision.destinations),
            "own_key": f"pagerduty:{decision.service}" in active.routing_keys and not missing_key,
            "missing_key": missing_key,
            "outcome": outcome.value,
        }

    async def resolve(self, alert_id: str) -> dict[str, Any]:
        """Resolve one. Returns what the resolve was. Raises NotDone, and StoreUnavailable."""
        alert, _ = self._begun.get(alert_id, (None, 0))
        if alert is None and alert_id.startswith(f"{PAGE_TEST}:"):
            record = await self._store.record(alert_id)
            alert = record.alert if record else None
        if alert is None:
            raise NotDone(f"no test page {alert_id} is known", status=404)
        [outcome] = await self._accept([replace(alert, status=Status.RESOLVED)])
        self._begun.pop(alert_id, None)
        with suppress(StoreUnavailable):  # then it is resolved twice, and once is as good
            await self._store.forget_test(alert_id)
        return {"id": alert_id, "outcome": outcome.value}

    async def watch(self) -> None:
        """Resolve those whose time is over, of dead processes too."""
        while True:
            now = self._clock()
            ours = [alert_id for alert_id, (_, ends_at) in self._begun.items() if ends_at <= now]
            for alert_id in dict.fromkeys([*ours, *await self._left_by_others(now)]):
                with suppress(StoreUnavailable):
                    try:
                        await self.resolve(alert_id)
                    except NotDone:  # nothing of it ever came to Redis
                        await self._store.forget_test(alert_id)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _left_by_others(self, now: int) -> Sequence[str]:
        try:
            return await self._store.tests_to_resolve(now)
        except StoreUnavailable:
            return ()


def _routed(wish: Wish, ruleset: Ruleset, time_of_day: int) -> tuple[Alert, Decision]:
    """An alert that the rules route to the service, and what they say about it. Raises NotDone."""
    service = wish.service.strip()
    if service != UNROUTED and service not in ruleset.services:
        raise NotDone(f"there is no service {service}{did_you_mean(service, ruleset.services)}", status=404)
    fingerprint = f"{service}-{secrets.token_hex(4)}"
    elsewhere: dict[str, None] = {}
    for sample in _ways_to(service, ruleset):
        alert = _alert(wish, fingerprint, sample)
        # without counts: nothing is counted for what is only tried
        decision = decide(alert, ruleset, time_of_day, None)
        if (decision.service or UNROUTED) == service:
            return alert, decision
        elsewhere[decision.service or UNROUTED] = None
    if not elsewhere:
        raise NotDone(f"no rule of the router leads to {service}: nothing ever pages it", status=409)
    raise NotDone(
        f"the router would send an alert made up for {service} to {', '.join(elsewhere)}; say what alerts of {service} "
        "hold, such as --detail team=payments",
        status=409,
        would_go_to=list(elsewhere),
    )


def _ways_to(service: str, ruleset: Ruleset) -> Iterator[Sample]:
    """What an alert may hold for the router to choose the service."""
    router = ruleset.orchestrations["router"]
    for rule in router.sets[START]:
        if pattern := rule.actions.dynamic_route_to:
            yield {(pattern.source.root, *pattern.source.keys): service}
        elif rule.actions.route_to == service and not rule.disabled:
            for condition in rule.conditions:
                yield from samples(condition.tree)
            if not rule.conditions:
                yield {}
    if service in (router.catch_all.route_to, UNROUTED):
        yield {}


def _alert(wish: Wish, fingerprint: str, sample: Sample) -> Alert:
    by = wish.by.strip()[:_MOST_CHARACTERS] or "somebody"
    roots: dict[str, Any] = {"event": {}, "raw_event": {}}
    for path, value in sample.items():
        _put(roots, path, value)
    held = roots["event"]
    details = held.get("custom_details")
    event = CommonEvent(
        summary=f"{by} tries whether {wish.service} can be paged",
        source="alertrouter page-test",
        severity=wish.severity or _SEVERITIES.get(held.get("severity"), Severity.CRITICAL),
        custom_details={
            **(details if isinstance(details, dict) else {}),
            "page_test": f"by {by}; it resolves by itself",
            **wish.details,
        },
    )
    return Alert(
        source=PAGE_TEST,
        fingerprint=fingerprint,
        status=Status.FIRING,
        event=replace(event, **{_FIELDS.get(name, name): str(held[name]) for name in _TEXTS if name in held}),
        client="alertrouter page-test",
        raw=roots["raw_event"] if isinstance(roots["raw_event"], dict) else {},
    )


def _put(into: dict[str, Any], path: tuple[str | int, ...], value: Any) -> None:
    """Put a value where the path leads, as far as objects go: nobody routes by a place in an array of ours."""
    *ahead, last = path
    for key in ahead:
        child = into.setdefault(str(key), {})
        if not isinstance(child, dict):
            return
        into = child
    into[str(last)] = value
