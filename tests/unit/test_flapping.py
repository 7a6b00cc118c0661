"""What flaps, and what it is then told."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from alertrouter.alarms import DIGEST, PAGE_TEST, SELF
from alertrouter.alert import Severity, Status
from alertrouter.delivery.flapping import FlappingLimit, flaps, look, plan_for
from alertrouter.delivery.judging import plain_decision
from alertrouter.delivery.reconcile import Action, reconcile
from alertrouter.record import Flapping, News, Outcome, Record, State, Told
from tests.alerts import MINUTE, NIGHT, make_alert

HERE = "pagerduty:default"
LIMIT = FlappingLimit(3, 10 * MINUTE)
TIMES = tuple(NIGHT + minute * MINUTE for minute in range(4))
FLAPPING = Flapping(version=5, over=False, times=TIMES, since=5, until=NIGHT + 10 * MINUTE, forgiven=5)
NOW = NIGHT + 5 * MINUTE
AFTER = FLAPPING.until


def record(status: Status = Status.FIRING, version: int = 5, **fields: object) -> Record:
    found = Record(
        id="alertmanager:f00d",
        version=version,
        status=status,
        severity=Severity.CRITICAL,
        news=News.STATUS if status is Status.RESOLVED else News.NEW,
        alert=make_alert(status=status),
        fired_version=version if status is Status.FIRING else version - 1,
        resolved_version=version if status is Status.RESOLVED else version - 1,
        last_heard=NOW,
    )
    return replace(found, **fields)


def told(state: State, version: int, **fields: object) -> Told:
    return replace(Told(HERE, state, version=version, key="k" * 32), **fields)


@pytest.mark.parametrize(
    ("before", "status", "version", "fired_version", "changes"),
    [
        (Flapping(), Status.FIRING, 1, 1, 0),
        (Flapping(1, over=False), Status.FIRING, 1, 1, 0),
        (Flapping(1, over=False), Status.RESOLVED, 2, 1, 1),
        (Flapping(2, over=True), Status.FIRING, 3, 3, 1),
        (Flapping(2, over=True), Status.RESOLVED, 3, 1, 0),
        (Flapping(2, over=True), Status.RESOLVED, 4, 3, 2),
        (Flapping(1, over=False), Status.FIRING, 3, 3, 2),
        (Flapping(1, over=False), Status.FIRING, 2, 2, 2),  # a later episode: the resolve between was not heard
        (Flapping(1, over=False), Status.FIRING, 2, 1, 0),  # its severity
        (Flapping(1, over=False), Status.ACKNOWLEDGED, 2, 1, 0),
    ],
)
def test_what_is_a_change(before: Flapping, status: Status, version: int, fired_version: int, changes: int) -> None:
    found = look(record(status, version, fired_version=fired_version, flapping=before), LIMIT, NOW)
    assert (found.version, found.over, found.times) == (version, status is Status.RESOLVED, (NOW,) * changes)
    assert not found.since


@pytest.mark.parametrize(
    ("minutes", "flaps_at", "until"),
    [
        ((0, 1, 2), 3, 0),  # as often as it may
        ((0, 1, 2, 3), 3, 10),
        ((0, 1, 2, 3, 4), 4, 11),  # of more only the newest count
        ((0, 1, 2, 10), 10, 0),  # the first is ten minutes ago
    ],
)
def test_how_often_is_too_often(minutes: tuple[int, ...], flaps_at: int, until: int) -> None:
    state = Flapping(1, over=False)
    version = 1
    for minute in minutes:
        version += 1
        at = NIGHT + minute * MINUTE
        status = Status.FIRING if state.over else Status.RESOLVED
        state = look(record(status, version, last_heard=at, flapping=state), LIMIT, at)
    assert state.until == (NIGHT + until * MINUTE if until else 0)
    assert flaps(record(version=version, flapping=state), NIGHT + flaps_at * MINUTE) == bool(until)
    assert len(state.times) <= LIMIT.transitions + 1


def test_it_ends_by_itself_and_remembers_what_was_held() -> None:
    found = look(record(flapping=FLAPPING), LIMIT, AFTER)
    assert (found.since, found.until, found.forgiven) == (0, 0, 5)
    still = look(record(flapping=FLAPPING), LIMIT, AFTER - 1)
    assert (still.since, still.until) == (5, AFTER)


@pytest.mark.parametrize("source", [SELF, DIGEST, PAGE_TEST])
def test_what_we_send_ourselves_never_flaps(source: str) -> None:
    before = Flapping(5, over=True, times=TIMES)
    assert look(record(version=6, alert=make_alert(source=source), flapping=before), LIMIT, NOW) == before
    assert look(record(version=6, flapping=before), LIMIT, NOW).since == 6, "others do"


@pytest.mark.parametrize(
    ("status", "version", "half", "now", "action", "outcome"),
    [
        # it begins: what is not open is opened, what is open is told once
        (Status.FIRING, 5, told(State.RESOLVED, 4), NOW, Action.TRIGGER, Outcome.PENDING),
        (Status.FIRING, 5, told(State.TRIGGERED, 5), NOW, None, Outcome.DELIVERED),
        (Status.RESOLVED, 5, told(State.TRIGGERED, 4), NOW, Action.TRIGGER, Outcome.PENDING),
        # it goes on: nothing is told, the resolve is held
        (Status.RESOLVED, 6, told(State.TRIGGERED, 5), NOW, None, Outcome.PENDING),
        (Status.FIRING, 7, told(State.TRIGGERED, 5), NOW, None, Outcome.DELIVERED),
        (Status.RESOLVED, 6, told(State.ACKNOWLEDGED, 5), NOW, None, Outcome.PENDING),
        # nothing is open: there is nothing to hold, and what fires is told
        (Status.RESOLVED, 6, told(State.RESOLVED, 4), NOW, None, Outcome.RESOLVED_BEFORE_DELIVERY),
        (Status.FIRING, 7, told(State.RESOLVED, 4), NOW, Action.TRIGGER, Outcome.PENDING),
        (Status.FIRING, 7, told(State.NOTHING, 0, dead=5), NOW, Action.TRIGGER, Outcome.PENDING),
        # it ends
        (Status.RESOLVED, 6, told(State.TRIGGERED, 5), AFTER, Action.RESOLVE, Outcome.PENDING),
        (Status.FIRING, 7, told(State.TRIGGERED, 5), AFTER, Action.TRIGGER, Outcome.PENDING),
        (Status.FIRING, 7, told(State.TRIGGERED, 7), AFTER, None, Outcome.DELIVERED),
    ],
)
def test_what_is_told(
    status: Status, version: int, half: Told, now: int, action: Action | None, outcome: Outcome
) -> None:
    heard = record(status, version, told=(half,), flapping=replace(FLAPPING, forgiven=version))
    decision = plain_decision(heard.alert)
    plan = plan_for(heard, decision, now)
    assert [send.action for send in plan.sends] == ([action] if action else [])
    assert plan.outcome is outcome
    assert plan.wake_at == (AFTER if now < AFTER else 0)


def test_a_severity_of_its_own_is_told_while_it_flaps() -> None:
    heard = record(version=8, news=News.SEVERITY, told=(told(State.TRIGGERED, 5),), flapping=FLAPPING)
    [send] = plan_for(heard, plain_decision(heard.alert), NOW).sends
    assert (send.action, send.version) == (Action.TRIGGER, 8)


def test_a_resolve_heard_after_it_flapped_is_owed_again() -> None:
    heard = record(version=8, resolved_version=7, told=(told(State.TRIGGERED, 5),), flapping=replace(FLAPPING, since=0))
    [send] = plan_for(heard, plain_decision(heard.alert), AFTER).sends
    assert send.action is Action.RESOLVE


def test_what_never_flapped_is_as_it_was() -> None:
    for status in Status:
        heard = record(status, told=(told(State.TRIGGERED, 4),))
        decision = plain_decision(heard.alert)
        assert plan_for(heard, decision, NOW) == reconcile(heard, decision, NOW)
