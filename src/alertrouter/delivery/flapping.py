"""An alert that comes and goes all the time stays open, with one note that says so, until it has made up its mind. Pure.

While it flaps its resolve is held, and what fires again is not paged anew. That ends by itself; if it is over then, it
is closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as changed

from msgspec.structs import replace

from alertrouter.alarms import OUR_OWN, PAGE_TEST
from alertrouter.alert import Status
from alertrouter.delivery.reconcile import Plan, reconcile
from alertrouter.record import Flapping, News, Outcome, Record
from alertrouter.rules.model import Decision


@dataclass(frozen=True, slots=True)
class FlappingLimit:
    """An alert flaps that changes between firing and resolved more than `transitions` times in `within_ms`."""

    transitions: int
    within_ms: int

    @classmethod
    def from_settings(cls, transitions: int, within_ms: int) -> FlappingLimit | None:
        """None where nothing is said to flap: with 0 transitions."""
        return cls(transitions, within_ms) if transitions else None


def look(record: Record, limit: FlappingLimit, now: int) -> Flapping:
    """What to put down about the flapping of `record` at `now` (ms).

    | since the last look, by version                 | changes |
    | nothing new, or never looked at                 | none    |
    | it fired and is over, or was over and fires     | one     |
    | it is as it was, and began to fire in between   | two     |

    It flaps until there were no more than `transitions` of them in the time before.
    """
    before = record.flapping
    if record.alert.source in OUR_OWN or record.alert.source == PAGE_TEST:
        return before
    over = record.status is Status.RESOLVED
    changes = 0
    if before.version and record.version != before.version:
        changes = 1 if over != before.over else 2 if record.fired_version > before.version else 0
    times = (*before.times, *((record.last_heard,) * changes))[-limit.transitions - 1 :]
    recent = tuple(at for at in times if at > now - limit.within_ms)
    if len(recent) <= limit.transitions:
        return Flapping(record.version, over, recent, forgiven=before.forgiven)
    return Flapping(
        record.version,
        over,
        recent,
        since=before.since or record.version,
        until=recent[0] + limit.within_ms,
        forgiven=record.version,
    )


def flaps(record: Record, now: int) -> bool:
    """Whether it flaps at `now` (ms)."""
    return record.flapping.until > now


def plan_for(record: Record, decision: Decision, now: int, *, page_short: bool = False) -> Plan:
    """What to do about a record, flapping or not: `reconcile`, with a resolve that is held taken for not heard."""
    shown = _shown(record, now)
    plan = reconcile(shown, decision, now, page_short=page_short)
    if not flaps(record, now):
        return plan
    wake_at = min(filter(None, (plan.wake_at, record.flapping.until)))
    is_held = shown.status is not record.status and plan.outcome is not Outcome.DEAD_LETTERED
    return changed(plan, wake_at=wake_at, outcome=Outcome.PENDING if is_held else plan.outcome)


def _shown(record: Record, now: int) -> Record:
    """The record as destinations are to be told of it."""
    flapping = record.flapping
    # what fires again owes no resolve that was held: nobody was told that it was over
    is_forgiven = record.status is not Status.RESOLVED and record.resolved_version <= flapping.forgiven
    shown = replace(record, resolved_version=0) if is_forgiven and record.resolved_version else record
    is_open = any(told.is_open or told.lease_until > now for told in record.told)
    if not flaps(record, now) or not is_open or record.status is Status.ACKNOWLEDGED:
        return shown
    # told once at the version it began with; a severity of its own is told all the same
    version = record.version if record.news is News.SEVERITY else flapping.since
    return replace(shown, status=Status.FIRING, version=version, resolved_version=0, hold_until=0)


def note(record: Record) -> str:
    """What the responder is told of it."""
    return f"flapping: {changes(record.flapping)}; it stays open, and is not paged anew, until it has made up its mind"


def changes(flapping: Flapping) -> str:
    """How often it changed, in words."""
    minutes = max(round((flapping.until - flapping.times[0]) / 60_000), 1)
    return f"it changed {len(flapping.times)} times within {minutes} min"
