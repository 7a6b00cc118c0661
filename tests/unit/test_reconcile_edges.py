"""reconcile at its edges: what holds at the very instant or version at which something turns."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from alertrouter.alert import Status
from alertrouter.delivery.reconcile import Action, Plan, reconcile
from alertrouter.record import Outcome, Record, State, Told
from alertrouter.rules.model import Verdict
from tests.alerts import MINUTE, NIGHT, SECOND
from tests.unit.test_reconcile import AS_TRIGGER, DELIVER, HERE, OPEN, SUSPEND, decision, record, resolved

CLOSED = replace(OPEN, state=State.RESOLVED, version=2)
SUPPRESS_AND_SUSPEND = decision(Verdict.SUPPRESS, suspend_ms=5 * MINUTE)


def actions(plan: Plan) -> list[Action]:
    return [send.action for send in plan.sends]


def test_a_lease_that_ends_now_holds_nothing_in_flight() -> None:
    plan = reconcile(resolved(Told(HERE, lease_until=NIGHT)), DELIVER, NIGHT)
    assert (plan.sends, plan.outcome) == ((), Outcome.RESOLVED_BEFORE_DELIVERY)


def test_what_is_in_flight_when_the_resolve_comes_is_waited_for() -> None:
    plan = reconcile(resolved(Told(HERE, lease_until=NIGHT + 1)), DELIVER, NIGHT)
    assert (plan.sends, plan.outcome, plan.wake_at) == ((), Outcome.PENDING, NIGHT + 1)


def test_a_suspension_that_ends_now_was_no_reason_for_silence() -> None:
    assert reconcile(resolved(suspended_until=NIGHT), SUSPEND, NIGHT).outcome is Outcome.RESOLVED_BEFORE_DELIVERY


@pytest.mark.parametrize(
    ("heard", "rules", "until"),
    [
        (record(), SUSPEND, NIGHT + 5 * MINUTE),
        (record(suspended_until=NIGHT + SECOND), SUSPEND, NIGHT + SECOND),
        (record(), SUPPRESS_AND_SUSPEND, 0),
        (record(suspended_until=NIGHT + SECOND), SUPPRESS_AND_SUSPEND, NIGHT + SECOND),
        (resolved(), SUSPEND, 0),
        (resolved(suspended_until=NIGHT + SECOND), SUSPEND, NIGHT + SECOND),
        (record(OPEN, version=2), SUSPEND, 0),
        (record(), DELIVER, 0),
    ],
)
def test_a_suspension_begins_once_and_only_for_what_would_be_sent(heard: Record, rules: object, until: int) -> None:
    assert reconcile(heard, rules, NIGHT).suspended_until == until  # type: ignore[arg-type]


def test_an_owed_resolve_tells_of_the_resolve_and_not_of_what_came_after() -> None:
    [send] = reconcile(record(OPEN, version=3, resolved_version=2), DELIVER, NIGHT).sends
    assert (send.action, send.version) == (Action.RESOLVE, 2)


def test_a_resolve_that_a_rule_made_a_trigger_of_is_owed_to_nobody() -> None:
    told = replace(OPEN, version=2)
    assert reconcile(resolved(told), AS_TRIGGER, NIGHT).sends == ()
    assert actions(reconcile(record(told, version=3, resolved_version=2), DELIVER, NIGHT)) == [Action.TRIGGER]


def test_an_older_resolve_told_says_nothing_of_this_one() -> None:
    plan = reconcile(resolved(CLOSED, version=4), DELIVER, NIGHT)
    assert (plan.sends, plan.outcome) == ((), Outcome.RESOLVED_BEFORE_DELIVERY)


@pytest.mark.parametrize(("told_version", "missing"), [(0, [Action.TRIGGER]), (1, []), (2, [])])
def test_a_short_alert_is_paged_only_where_it_was_not_told(told_version: int, missing: list[Action]) -> None:
    told = replace(CLOSED, version=told_version)
    plan = reconcile(resolved(told, fired_version=1), DELIVER, NIGHT, page_short=True)
    assert actions(plan) == missing


@pytest.mark.parametrize(
    ("told", "pinned"),
    [
        (Told(HERE, key="f", rerouted=True, refused=1), True),
        (Told(HERE, key="f", rerouted=True, refused=0), False),
        (Told(HERE, key="d", rerouted=False, refused=1), False),
    ],
)
def test_what_was_rerouted_stays_so_for_its_version(told: Told, pinned: bool) -> None:
    [send] = reconcile(record(told), DELIVER, NIGHT).sends
    assert send.pinned is pinned


def test_acknowledged_where_nothing_was_told_yet_is_triggered_first() -> None:
    heard = record(Told(HERE), version=2, status=Status.ACKNOWLEDGED, fired_version=1)
    assert actions(reconcile(heard, DELIVER, NIGHT)) == [Action.TRIGGER]
