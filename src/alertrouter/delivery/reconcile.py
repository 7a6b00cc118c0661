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


RANK_OF_SEVERITY = {
    Severity.CRITICAL: Rank.CRITICAL,
    Severity.ERROR: Rank.ERROR,
    Severity.WARNING: Rank.WARNING,
    Severity.INFO: Rank.INFO,
}

STATE_AFTER = {
    Action.TRIGGER: State.TRIGGERED,
    Action.ACKNOWLEDGE: State.ACKNOWLEDGED,
    Action.RESOLVE: State.RESOLVED,
}


@dataclass(frozen=True, slots=True)
class Send:
    """One message still missing at a destination.

    version:  the heard version that the destination will have been told.
    pinned:   use the key the destination was told with, whatever the rules name now.
    """

    destination: str
    action: Action
    version: int
    rank: Rank
    pinned: bool

    @property
    def opens(self) -> int:
        """The heard version that it triggers; 0 if it opens nothing."""
        return self.version if self.action is Action.TRIGGER else 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one record now.

    sends:            at most one per destination; what must follow it comes out of the next reconcile.
    wake_at:          when to look again though nothing is heard; 0 for never.
    outcome:          how the newest heard alert ended, PENDING while something is missing.
    suspended_until:  until when this episode is held back; 0 if it never was.
    """

    sends: tuple[Send, ...]
    wake_at: int
    outcome: Outcome
    suspended_until: int = 0


def reconcile(record: Record, decision: Decision, now: int, *, page_short: bool = False) -> Plan:
    """Compare heard with told under `decision` and return the sends that are missing at `now` (ms).

    page_short: an alert that fired and resolved before anything was tried is triggered and resolved all the same.
    """
    status = _status(record, decision)
    wakes: list[int] = []
    held = status is Status.FIRING and record.hold_until > now
    if held:
        status = Status.RESOLVED
        wakes.append(record.hold_until)
    suspended_until = _suspended_until(record, decision, status, now)
    suspended = decision.suspend_ms > 0 and suspended_until > now and status is not Status.RESOLVED
    if suspended:
        wakes.append(suspended_until)

    sends: list[Send] = []
    missing = held or suspended
    dead = False
    for told in _concerned(record, decision):
        action = _missing_action(record, told, decision, status, now)
        if action is None and (page_short or record.is_forced) and _was_short(record, told, decision):
            action = Action.TRIGGER
        if action is Action.TRIGGER and suspended:
            action = None  # what was tried before is repaired all the same
        if action is not None and told.dead == _version(record, action, status):
            dead = True
            continue
        repair = False
        missing = missing or action is not None
        if action is None and told.unsure and told.dead not in (told.version, record.version):
            if told.unsure + REPAIR_AFTER_MS > now:
                wakes.append(told.unsure + REPAIR_AFTER_MS)
            else:
                action, repair = _repair_action(told, decision), True
        if action is None:
            continue
        blocked_until = max(told.lease_until, told.not_before)
        if blocked_until > now:
            wakes.append(blocked_until)
            continue
        sends.append(
            Send(
                told.destination,
                action,
                version=told.version if repair else _version(record, action, status),
                rank=_rank(record, told, decision, action, repair),
                pinned=repair or _is_pinned(record, told, decision, action, now),
            )
        )

    outcome = Outcome.PENDING if missing else Outcome.DEAD_LETTERED if dead else _outcome(record, decision, status, now)
    if decision.until and outcome in (Outcome.SUPPRESSED, Outcome.DROPPED) and status is not Status.RESOLVED:
        wakes.append(max(decision.until, now + 1))
    return Plan(tuple(sends), min(wakes, default=0), outcome, suspended_until)


def after(record: Record, told: Told, send: Send, now: int) -> Record:
    """The record as it will stand once `send` is confirmed by `told`'s destination at `now`."""
    # an acknowledgement of what never fired is passed on, and says nothing of what the destination has
    passed_on = send.action is Action.ACKNOWLEDGE and not record.fired_version
    news = replace(
        told,
        state=told.state if passed_on else STATE_AFTER[send.action],
        version=send.version,
        at=now,
        tries=0,
        not_before=0,
        dead=0 if send.version >= told.dead else told.dead,  # a repair says nothing of what was given up since
        unsure=told.unsure if told.unsure + REPAIR_AFTER_MS > now else 0,
        lease_until=0,
        maybe_open=0,
    )
    return record.with_told(news)


def _status(record: Record, decision: Decision) -> Status:
    """What was heard, unless a rule says to take it for the opposite."""
    if decision.event_action == Action.RESOLVE:
        return Status.RESOLVED
    if decision.event_action == Action.TRIGGER and record.status is Status.RESOLVED and record.news is not News.SILENT:
        return Status.FIRING
    return record.status


def _suspended_until(record: Record, decision: Decision, status: Status, now: int) -> int:
    """Set once per episode, by the first decision that suspends it, and never once a trigger was attempted."""
    if record.suspended_until or status is Status.RESOLVED or decision.verdict is not Verdict.DELIVER:
        return record.suspended_until
    if not decision.suspend_ms or any(told.is_open for told in record.told):
        return 0
    return now + decision.suspend_ms


def _concerned(record: Record, decision: Decision) -> Iterable[Told]:
    """Every destination already told, and every one the present decision names."""
    known = {told.destination for told in record.told}
    return (*record.told, *(Told(name) for name in decision.destinations if name not in known))


def _missing_action(record: Record, told: Told, decision: Decision, status: Status, now: int) -> Action | None:
    named = told.destination in decision.destinations and decision.verdict is Verdict.DELIVER
    match status:
        case Status.RESOLVED:
            if told.is_open or told.lease_until > now:  # what is in flight may open it
                return Action.RESOLVE
            # A resolve for an alert we know nothing about may close something opened before our memory began, or by
            # others where a rule asks for it: it is never eaten, whatever the rules say. PagerDuty drops it if it
            # matches nothing.
            unknown = not record.fired_version or (decision.event_action == Action.RESOLVE and named)
            untold = told.version < record.version and told.destination in decision.destinations
            return Action.RESOLVE if unknown and untold else None
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
            if not record.fired_version:  # of what we never heard firing: passed on, and opens nothing
                return Action.ACKNOWLEDGE if named and told.version < record.version else None
            if told.state is State.TRIGGERED:
                return Action.ACKNOWLEDGE
            return Action.TRIGGER if named and told.state is not State.ACKNOWLEDGED else None
        case _:
            assert_never(status)


def _owes_resolve(record: Record, told: Told) -> bool:
    """A resolve was heard since `told`, and the alert came back: an incident that came back must page again."""
    came_back = record.status is not Status.RESOLVED
    return came_back and told.is_open and told.heard_version < record.resolved_version > told.dead


def _is_pinned(record: Record, told: Told, decision: Decision, action: Action, now: int) -> bool:
    """Whether a send goes by the key of the one before it: it is open there, or may be, or was rerouted there."""
    if told.rerouted and told.refused == record.version:
        return True
    is_late = told.key != "" and told.unsure + REPAIR_AFTER_MS > now  # it may still be processed
    if not (told.is_open or is_late):
        return False
    # a key that was refused is no place for a new page, where the rules name another
    gave_up = told.bad_key and told.dead >= told.heard_version
    return not (gave_up and action is Action.TRIGGER and told.destination in decision.destinations)


def _was_short(record: Record, told: Told, decision: Decision) -> bool:
    """Fired and resolved, and the destination has heard of neither."""
    named = told.destination in decision.destinations and decision.verdict is Verdict.DELIVER
    # over before it was judged, it would have been suspended and cancelled
    would_be = decision.suspend_ms > 0 and not (record.suspended_until or record.is_forced)
    was_suspended = would_be or record.suspended_until > record.last_heard
    is_heard = record.status is Status.RESOLVED and record.news is not News.SILENT
    return named and is_heard and record.fired_version > told.version and not was_suspended


def _version(record: Record, action: Action, status: Status) -> int:
    """The heard version that `action` tells of: not the newest where one before it is told first."""
    if action is Action.RESOLVE and status is not Status.RESOLVED:
        return record.resolved_version
    if action is Action.TRIGGER and status is Status.RESOLVED:
        return record.fired_version
    return record.version


def _repair_action(told: Told, decision: Decision) -> Action | None:
    match told.state:
        case State.RESOLVED:
            # what was tried since is of another episode: it fires, muted by now, and is not closed for having been tried
            return None if told.maybe_open else Action.RESOLVE
        case State.TRIGGERED | State.ACKNOWLEDGED:
            # an acknowledgement does not open what a late resolve closed; it follows the trigger once more
            return Action.TRIGGER if decision.verdict is Verdict.DELIVER else None
        case State.NOTHING:
            return None
        case _:
            assert_never(told.state)


def _rank(record: Record, told: Told, decision: Decision, action: Action, repair: bool) -> Rank:
    # another text of what pages already wakes nobody
    is_update = record.news is News.CONTENT and told.state in (State.TRIGGERED, State.ACKNOWLEDGED)
    if repair or (action is Action.TRIGGER and (record.news is News.REFRESH or is_update)):
        return Rank.REPEAT
    if action is Action.TRIGGER:
        return RANK_OF_SEVERITY[decision.event.severity]
    return Rank.RESOLVE


def _outcome(record: Record, decision: Decision, status: Status, now: int) -> Outcome:
    """How the newest heard alert ended, given that nothing is missing."""
    unsent = {Verdict.SUPPRESS: Outcome.SUPPRESSED, Verdict.DROP: Outcome.DROPPED}.get(decision.verdict)
    if status is not Status.RESOLVED:
        return unsent or Outcome.DELIVERED
    if any(told.state is State.RESOLVED and told.version >= record.resolved_version for told in record.told):
        return Outcome.DELIVERED
    if record.suspended_until > now:
        return Outcome.CANCELLED_IN_SUSPEND
    return unsent or Outcome.RESOLVED_BEFORE_DELIVERY
