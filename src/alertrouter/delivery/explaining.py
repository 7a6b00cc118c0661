"""Why an alert goes where it goes: what the rules say, with every rule looked at, and what is on record of it.

The evaluator and the comparison are those that serve. Nothing is counted, remembered, stored or sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, cast

import msgspec

from alertrouter.alert import Alert, Status
from alertrouter.delivery.flapping import changes
from alertrouter.delivery.judging import Counts, decide, plain_decision, show
from alertrouter.delivery.silence import AutoResolve, Silence, silence
from alertrouter.destinations.pagerduty import EventAction, build_event, encode_event
from alertrouter.letter import NOT_KEPT, encode, name_of, read
from alertrouter.record import REPAIR_AFTER_MS, Outcome, Record, Told
from alertrouter.rules.model import CacheQuery, CountQuery, Decision, Ruleset, Service, Verdict
from alertrouter.store.store import AlertStore, Sight, Threshold

REDACTED = "[redacted]"
SUSPENDED = "suspended"

#: An id nearer than this, from 0 to 1, may be a slip of the pen.
_NEAR = 0.6
_MOST_NEAR = 5
_WORTH_FINDING_INSIDE = 4

_ACTIONS = {
    Status.FIRING: EventAction.TRIGGER,
    Status.ACKNOWLEDGED: EventAction.ACKNOWLEDGE,
    Status.RESOLVED: EventAction.RESOLVE,
}


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
                return Outcome.SUPPRESSED.value
            case Verdict.DROP:
                return Outcome.DROPPED.value
        triggers = self.action is EventAction.TRIGGER
        return SUSPENDED if self.decision.suspend_ms and triggers else Outcome.DELIVERED.value


def explain(alert: Alert, ruleset: Ruleset, now: int, counts: Counts | None = None) -> Explanation:
    """What the rules say about `alert` at `now` (ms). Without `counts` each threshold counts 1."""
    return _explanation(alert, decide(alert, ruleset, now, counts, trace=True), ruleset)


def _explanation(alert: Alert, decision: Decision, ruleset: Ruleset, pinned_key: str = "") -> Explanation:
    dedup_key = pinned_key or decision.dedup_key or alert.dedup_key
    action = EventAction(decision.event_action) if decision.event_action else _ACTIONS[alert.status]
    event = None
    if decision.verdict is Verdict.DELIVER:
        event = json.loads(encode_event(build_event(action, REDACTED, dedup_key, show(alert, decision, ruleset))))
    return Explanation(alert, decision, ruleset.services.get(decision.service), dedup_key, action, event)


def as_json(explained: Explanation) -> dict[str, Any]:
    """One explanation as plain data. The routing key is not in it."""
    alert, decision, service = explained.alert, explained.decision, explained.service
    return {
        "outcome": explained.outcome,
        "service": decision.service,
        "severity": decision.event.severity.value,
        "priority": decision.priority,
        "dedup_key": explained.dedup_key,
        "source": alert.source,
        "status": alert.status.value,
        "severity_heard": alert.event.severity.value,
        "summary": alert.event.summary,
        "rule": decision.rule,
        "reason": decision.reason,
        "suspend_ms": decision.suspend_ms,
        "event_action": explained.action.value,
        "event_action_by_rule": bool(decision.event_action),
        "escalation_policy": decision.escalation_policy,
        "custom_fields": dict(decision.custom_fields),
        "notify": list(decision.notify),
        "automation": [each.name for each in decision.automation],
        "quarantined": decision.quarantined,
        "until": decision.until,
        "destinations": list(decision.destinations),
        "team": service.team if service else "",
        "runbook": service.runbook if service else "",
        "matched": list(decision.matched),
        "annotations": list(decision.annotations),
        "notes": list(alert.notes),
        "event": explained.event,
        "trace": [{**asdict(each), "warnings": list(each.warnings)} for each in decision.trace],
    }


async def explain_record(
    alert_id: str,
    store: AlertStore,
    ruleset: Ruleset,
    now: int,
    *,
    ahead: int = 0,
    auto_resolve: AutoResolve | None = None,
) -> dict[str, Any] | None:
    """What is on record of one alert, and what the rules say about it at `now`; None where nothing is on record.

    `outcome` is that of the record. What the rules say now is in `judged_now` and in the members that an explanation
    without a record has. Changes nothing in Redis. Raises StoreUnavailable.
    """
    sight = await store.look(alert_id)
    if sight is None:
        return None
    record = sight.record
    decision = await _decide(record, store, ruleset, now, ahead)
    silent = Silence()
    if auto_resolve is not None:
        source = record.alert.source
        silent = silence(record, await store.source(source), auto_resolve.of(source), now)
    pinned_key = next((told.dedup_key for told in record.told if told.is_open), "")
    explained = _explanation(record.alert, decision, ruleset, pinned_key)
    return {
        **as_json(explained),
        "outcome": _outcome_of(record, now),
        "status": record.status.value,
        "judged_now": {"at": now, "outcome": explained.outcome, "rules": ruleset.version},
        "record": {
            **_record_as_json(sight),
            # what is not due by then is forgotten, and not resolved: nobody was told of it
            "auto_resolve_at": 0 if silent.sender_silent or not 0 < sight.due_at <= silent.look_at else silent.look_at,
            "sender_silent": silent.sender_silent,
        },
        "told": [_told_as_json(told, record, sight) for told in record.told],
    }


async def _decide(record: Record, store: AlertStore, ruleset: Ruleset, now: int, ahead: int) -> Decision:
    """As the worker decides, but that counters are looked at and not counted up."""
    if record.poisoned:
        return plain_decision(record.alert)
    counts: dict[CountQuery | CacheQuery, int | str | None] = {}
    while True:
        # thousands of rules in words take longer than others should wait
        decision = await asyncio.to_thread(decide, record.alert, ruleset, now, counts, trace=True, ahead=ahead)
        if not decision.wants:
            return decision
        counted = [query for query in decision.wants if isinstance(query, CountQuery)]
        if counted:
            thresholds = [Threshold(query.key, query.window_ms, query.peek) for query in counted]
            counts.update(zip(counted, await store.look_at_counts(record, thresholds, now), strict=True))
        remembered = [query for query in decision.wants if isinstance(query, CacheQuery)]
        if remembered:
            values = await store.remembered([query.key for query in remembered])
            counts.update(zip(remembered, values, strict=True))


def _outcome_of(record: Record, now: int) -> str:
    is_held = record.outcome is Outcome.PENDING and record.suspended_until > now
    return SUSPENDED if is_held else record.outcome.value


def _record_as_json(sight: Sight) -> dict[str, Any]:
    record = sight.record
    is_delivered = record.status is Status.FIRING and record.outcome is Outcome.DELIVERED
    return {
        "id": record.id,
        "status": record.status.value,
        "severity": record.severity.value,
        "version": record.version,
        "news": record.news.value,
        "outcome": record.outcome.value,
        "rule": record.rule,
        "reason": record.reason,
        "service": record.service,
        "first_heard": record.first_heard,
        "last_heard": record.last_heard,
        "count": record.count,
        "window_ends": sight.window_ends,
        "duplicate_until": min(sight.window_ends, sight.resend_at) if is_delivered else 0,
        "suspended_until": record.suspended_until,
        "hold_until": record.hold_until,
        "due_at": sight.due_at,
        "waiting": [asdict(each) for each in sight.waiting],
        "poisoned": record.poisoned,
        "flapping": _flapping_as_json(record),
    }


def _flapping_as_json(record: Record) -> dict[str, Any]:
    """`until` is 0 while it does not flap."""
    found = record.flapping
    return {"until": found.until, "changes": changes(found) if found.until else "", "since_version": found.since}


def _told_as_json(told: Told, record: Record, sight: Sight) -> dict[str, Any]:
    """What one destination was told, without the routing key."""
    number, letter = sight.dead_letters.get(told.destination, (0, b""))
    is_changed = told.refused == record.version  # else it is of news before
    return {
        "destination": told.destination,
        "state": told.state.value or "nothing",
        "version": told.version,
        "at": told.at,
        "dedup_key": told.dedup_key or record.alert.dedup_key,
        "tries": told.tries,
        "not_before": told.not_before,
        "lease_until": told.lease_until,
        "repair_at": told.unsure + REPAIR_AFTER_MS if told.unsure else 0,
        "may_be_open": told.is_open,
        "dead": told.dead,
        "dead_letter": {"letter": name_of(number), **_shown(letter)} if letter else None,
        "rung": told.rung if is_changed else 0,
        "rerouted": told.rerouted,
        "refusal": told.refusal if is_changed else "",
    }


def _shown(letter: bytes) -> dict[str, Any]:
    """A dead letter without the alert, which is shown anyway."""
    shown = msgspec.structs.replace(read(letter), alert=NOT_KEPT)
    return cast(dict[str, Any], msgspec.json.decode(encode(shown)))


def closest(asked: str, known: Iterable[str]) -> list[str]:
    """Of the known ids those that may be meant by `asked`, the nearest first.

    Ids are compared without their sender, by what they begin and end with alike: this finds a slip, a piece that was
    not copied, and another sender.
    """
    near = sorted((-_nearness(asked.casefold(), each.casefold()), each) for each in known)
    return [each for nearness, each in near[:_MOST_NEAR] if -nearness >= _NEAR]


def _nearness(asked: str, known: str) -> float:
    if asked == known:
        return 1.0
    if len(asked) >= _WORTH_FINDING_INSIDE and asked in known:
        return 0.99
    left, right = (text.partition(":")[2] or text for text in (asked, known))
    longest = max(len(left), len(right), 1)
    shortest = min(len(left), len(right))
    begin = next((at for at in range(shortest) if left[at] != right[at]), shortest)
    end = next((at for at in range(shortest - begin) if left[-1 - at] != right[-1 - at]), shortest - begin)
    return (begin + end) / longest
