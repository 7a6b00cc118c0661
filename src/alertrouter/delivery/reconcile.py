"""What was heard against what was told: which sends are still missing. Pure; no clock, no I/O.

Ordering, retries, coalescing and repair all follow from this one comparison: an alert that flapped fifty times
while PagerDuty was down costs at most one resolve and one trigger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import assert_never

from msgspec.structs import replace

from alertrouter.alert import Severity, Status
from alertrouter.record import REPAIR_AFTER_MS, News, Outcome, Record, State, Told
from alertrouter.rules.model import Decision, Verdict


class Action(StrEnum):
    """The Events API v2 `event_action` of a send."""

    TRIGGER = "trigger"
    ACKNOWLEDGE = "acknowledge"
    RESOLVE = "resolve"


class Rank(IntEnum):
    """Strict order in which sends of one destination wait."""

    CRITICAL = 0
    RESOLVE = 1
    ERROR = 2
    WARNING = 3
    INFO = 4
    REPEAT = 5  # refreshes and repairs


_RANK_OF_SEVERITY = {
    Severity.CRITICAL: Rank.CRITICAL,
    Severity.ERROR: Rank.ERROR,
    Severity.WARNING: Rank.WARNING,
    Severity.INFO: Rank.INFO,
}

_STATE_AFTER = {
    Action.TRIGGER: State.TRIGGERED,
    Action.ACKNOWLEDGE: State.ACKNOWLEDGED,
    Action.RESOLVE: State.RESOLVED,
}


@dataclass(frozen=True, slots=True)
class Send:
    """One message still missing at a destination. `pinned` says to use the key the destination was told with."""

    destination: str
    action: Action
    rank: Rank
    pinned: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one record now.

    sends:    at most one per destination; what must follow it comes out of the next reconcile.
    wake_at:  when to look again though nothing is heard; 0 for never.
    outcome:  how the newest heard alert ended, PENDING while something is missing.
    """

    sends: tuple[Send, ...]
    wake_at: int
    outcome: Outcome


def reconcile(record: Record, decision: Decision, now: int) -> Plan:
    """Compare heard with told under `decision` and return the sends that are missing at `now` (ms)."""
    status = record.status
    held = status is Status.FIRING and record.hold_until > now
    if held:
        status = Status.RESOLVED

    sends: list[Send] = []
    wakes = [record.hold_until] if held else []
    missing = held
    dead = False
    for told in _concerned(record, decision):
        action = _missing_action(record, told, decision, status)
        repeat = False
        if action is not None and told.dead == record.version:
            dead = True
            continue
        missing = missing or action is not None
        if action is None and told.unsure:
            if told.unsure + REPAIR_AFTER_MS > now:
                wakes.append(told.unsure + REPAIR_AFTER_MS)
            else:
                action, repeat = _repair_action(told, decision), True
        if action is None:
            continue
        blocked_until = max(told.lease_until, told.not_before)
        if blocked_until > now:
            wakes.append(blocked_until)
        else:
            sends.append(Send(told.destination, action, _rank(record, decision, action, repeat), told.is_open))

    outcome = Outcome.PENDING if missing else Outcome.DEAD_LETTERED if dead else _outcome(record, decision, status)
    return Plan(tuple(sends), min(wakes, default=0), outcome)


def after(record: Record, told: Told, action: Action, now: int) -> Record:
    """The record as it will stand once `action` is confirmed by `told`'s destination at `now`."""
    news = replace(
        told,
        state=_STATE_AFTER[action],
        version=record.version if action is not Action.RESOLVE else max(told.version, record.resolved_version),
        at=now,
        tries=0,
        not_before=0,
        unsure=told.unsure if told.unsure + REPAIR_AFTER_MS > now else 0,
        lease_until=0,
    )
    others = tuple(other for other in record.told if other.destination != told.destination)
    return replace(record, told=(*others, news))


def _concerned(record: Record, decision: Decision) -> Iterable[Told]:
    """Every destination already told, and every one the present decision names."""
    known = {told.destination for told in record.told}
    return (*record.told, *(Told(name) for name in decision.destinations if name not in known))


def _missing_action(record: Record, told: Told, decision: Decision, status: Status) -> Action | None:
    named = told.destination in decision.destinations and decision.verdict is Verdict.DELIVER
    match status:
        case Status.RESOLVED:
            if told.is_open:
                return Action.RESOLVE
            # A resolve for an alert we know nothing about may close something opened before our memory began:
            # it is never eaten, whatever the rules say. PagerDuty drops it if it matches nothing.
            unknown = not record.fired and told.version < record.version
            return Action.RESOLVE if unknown and told.destination in decision.destinations else None
        case Status.FIRING:
            if _owes_resolve(record, told):
                return Action.RESOLVE
            if decision.verdict is not Verdict.DELIVER or not (named or told.is_open):
                return None
            confirmed = told.state in (State.TRIGGERED, State.ACKNOWLEDGED) and told.version >= record.version
            return None if confirmed else Action.TRIGGER
        case Status.ACKNOWLEDGED:
            if _owes_resolve(record, told):
                return Action.RESOLVE
            if told.state is State.TRIGGERED:
                return Action.ACKNOWLEDGE
            return Action.TRIGGER if named and told.state is not State.ACKNOWLEDGED else None
        case _:
            assert_never(status)


def _owes_resolve(record: Record, told: Told) -> bool:
    """A resolve was heard since `told`, and the alert came back: an incident that came back must page again."""
    return told.is_open and told.version < record.resolved_version > told.dead


def _repair_action(told: Told, decision: Decision) -> Action | None:
    match told.state:
        case State.RESOLVED:
            return Action.RESOLVE
        case State.TRIGGERED:
            return Action.TRIGGER if decision.verdict is Verdict.DELIVER else None
        case State.ACKNOWLEDGED:
            return Action.ACKNOWLEDGE
        case State.NOTHING:
            return None
        case _:
            assert_never(told.state)


def _rank(record: Record, decision: Decision, action: Action, repeat: bool) -> Rank:
    if repeat or (record.news is News.REFRESH and action is Action.TRIGGER):
        return Rank.REPEAT
    if action is Action.TRIGGER:
        return _RANK_OF_SEVERITY[decision.event.severity]
    return Rank.RESOLVE


def _outcome(record: Record, decision: Decision, status: Status) -> Outcome:
    """How the newest heard alert ended, given that nothing is missing."""
    if status is not Status.RESOLVED:
        return Outcome.DELIVERED if decision.verdict is Verdict.DELIVER else Outcome.SUPPRESSED
    if any(told.state is State.RESOLVED and told.version >= record.resolved_version for told in record.told):
        return Outcome.DELIVERED
    return Outcome.SUPPRESSED if decision.verdict is Verdict.SUPPRESS else Outcome.RESOLVED_BEFORE_DELIVERY
