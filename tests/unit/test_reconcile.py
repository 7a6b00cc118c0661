"""reconcile: heard against told, as a table. Every promise about resolves is decided here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alertrouter.alert import Severity, Status
from alertrouter.delivery.reconcile import Action, Rank, after, reconcile
from alertrouter.record import REPAIR_AFTER_MS, News, Outcome, Record, State, Told
from alertrouter.rules.model import Decision, Verdict
from tests.alerts import MINUTE, NIGHT, SECOND, make_alert

HERE = "pagerduty:default"
THERE = "pagerduty:search-service"
OPEN = Told(HERE, State.TRIGGERED, version=1, key="k")


def decision(
    verdict: Verdict = Verdict.DELIVER, *destinations: str, severity: str = "critical", **fields: Any
) -> Decision:
    event = make_alert(severity=severity).event
    return Decision(verdict, event, "payment", "P1", "", "", (), (), destinations or (HERE,), (), **fields)


DELIVER, SUPPRESS, DROP = decision(), decision(Verdict.SUPPRESS), decision(Verdict.DROP)
SUSPEND = decision(suspend_ms=5 * MINUTE)
AS_RESOLVE, AS_TRIGGER = decision(event_action="resolve"), decision(event_action="trigger")


def record(*told: Told, version: int = 1, status: Status = Status.FIRING, **fields: object) -> Record:
    base = Record("alertmanager:f00d", version, status, Severity.CRITICAL, News.NEW, make_alert(status=status))
    return replace(base, told=told, **fields)


def resolved(*told: Told, version: int = 2, **fields: object) -> Record:
    return record(*told, version=version, status=Status.RESOLVED, **{"resolved_version": version, **fields})


@dataclass(frozen=True)
class Case:
    name: str
    record: Record
    decision: Decision
    sends: tuple[tuple[str, Action], ...]
    outcome: Outcome
    wake_at: int = 0


TRIGGER, RESOLVE = ((HERE, Action.TRIGGER),), ((HERE, Action.RESOLVE),)
LATER = NIGHT + 5 * SECOND

CASES = [
    Case("new", record(), DELIVER, TRIGGER, Outcome.PENDING),
    Case("told", record(OPEN), DELIVER, (), Outcome.DELIVERED),
    Case("news since", record(OPEN, version=2), DELIVER, TRIGGER, Outcome.PENDING),
    Case("two in flight: looked at when the first is over",
         record(replace(OPEN, lease_until=LATER), replace(OPEN, destination=THERE, lease_until=LATER + SECOND), version=2),
         DELIVER, (), Outcome.PENDING, wake_at=LATER),
    Case("suppressed", record(), SUPPRESS, (), Outcome.SUPPRESSED),
    Case("suppressed after the page: stays open", record(OPEN, version=2), SUPPRESS, (), Outcome.SUPPRESSED),
    Case("resolved", resolved(OPEN), DELIVER, RESOLVE, Outcome.PENDING),
    Case("resolved while suppressed", resolved(OPEN), SUPPRESS, RESOLVE, Outcome.PENDING),
    Case("resolved after the route changed", resolved(OPEN), decision(Verdict.DELIVER, THERE), RESOLVE,
         Outcome.PENDING),
    Case("resolved and told so", resolved(replace(OPEN, state=State.RESOLVED, version=2)), DELIVER, (),
         Outcome.DELIVERED),
    Case("resolved before anything was tried", resolved(), DELIVER, (), Outcome.RESOLVED_BEFORE_DELIVERY),
    Case("resolved, was suppressed", resolved(), SUPPRESS, (), Outcome.SUPPRESSED),
    Case("resolved, trigger attempt unsure", resolved(Told(HERE, unsure=NIGHT, maybe_open=1, key="k")), DELIVER, RESOLVE,
         Outcome.PENDING),
    Case("resolved; a trigger of this episode was tried after the one before was resolved",
         resolved(replace(OPEN, state=State.RESOLVED, version=2, unsure=NIGHT, maybe_open=3), version=4), DELIVER, RESOLVE,
         Outcome.PENDING),
    Case("came back twice; the trigger between was tried: its resolve is owed",
         record(replace(OPEN, state=State.RESOLVED, version=2, unsure=NIGHT, maybe_open=3), version=5,
                resolved_version=4), DELIVER, RESOLVE, Outcome.PENDING),
    Case("nothing told, and the trigger tried is of this episode: no resolve is owed",
         record(Told(HERE, unsure=NIGHT, maybe_open=3, key="k"), version=3, resolved_version=2), DELIVER, TRIGGER,
         Outcome.PENDING),
    Case("resolve of the unknown is never eaten", resolved(version=1, fired_version=0), SUPPRESS, RESOLVE, Outcome.PENDING),
    Case("resolve of the unknown, once", resolved(replace(OPEN, state=State.RESOLVED), version=1, fired_version=0), DELIVER,
         (), Outcome.DELIVERED),
    Case("came back: the owed resolve first", record(OPEN, version=3, resolved_version=2), DELIVER, RESOLVE,
         Outcome.PENDING),
    Case("came back, suppressed: the owed resolve all the same", record(OPEN, version=3, resolved_version=2), SUPPRESS,
         RESOLVE, Outcome.PENDING),
    Case("came back, resolve told: now the trigger",
         record(replace(OPEN, state=State.RESOLVED, version=2), version=3, resolved_version=2), DELIVER, TRIGGER,
         Outcome.PENDING),
    Case("came back, the owed resolve was refused: now the trigger",
         record(replace(OPEN, dead=2), version=3, resolved_version=2), DELIVER, TRIGGER, Outcome.PENDING),
    Case("moved mid-life: both", record(OPEN, version=2), decision(Verdict.DELIVER, THERE),
         ((HERE, Action.TRIGGER), (THERE, Action.TRIGGER)), Outcome.PENDING),
    Case("refused", record(Told(HERE, dead=1)), DELIVER, (), Outcome.DEAD_LETTERED),
    Case("refused, heard again", record(Told(HERE, dead=1), version=2), DELIVER, TRIGGER, Outcome.PENDING),
    Case("in flight", record(Told(HERE, lease_until=LATER)), DELIVER, (), Outcome.PENDING, LATER),
    Case("backing off", record(Told(HERE, not_before=LATER)), DELIVER, (), Outcome.PENDING, LATER),
    Case("slow there, free here", record(Told(HERE, not_before=LATER)), decision(Verdict.DELIVER, HERE, THERE),
         ((THERE, Action.TRIGGER),), Outcome.PENDING, LATER),
    Case("late copy held, nothing owed",
         record(replace(OPEN, state=State.RESOLVED, version=2), version=3, resolved_version=2, hold_until=LATER),
         DELIVER, (), Outcome.PENDING, LATER),
    Case("late copy held, its resolve is still sent", record(OPEN, version=3, resolved_version=2, hold_until=LATER),
         DELIVER, RESOLVE, Outcome.PENDING, LATER),
    Case("late copy released",
         record(replace(OPEN, state=State.RESOLVED, version=2), version=3, resolved_version=2, hold_until=NIGHT),
         DELIVER, TRIGGER, Outcome.PENDING),
    Case("unsure attempt, repair waits", record(replace(OPEN, unsure=NIGHT - 1)), DELIVER, (), Outcome.DELIVERED,
         NIGHT - 1 + REPAIR_AFTER_MS),
    Case("unsure attempt, repair due", record(replace(OPEN, unsure=NIGHT - REPAIR_AFTER_MS)), DELIVER, TRIGGER,
         Outcome.DELIVERED),
    Case("unsure resolve, repair due",
         resolved(replace(OPEN, state=State.RESOLVED, version=2, unsure=NIGHT - REPAIR_AFTER_MS)), DELIVER, RESOLVE,
         Outcome.DELIVERED),
    Case("dropped", record(), DROP, (), Outcome.DROPPED),
    Case("dropped after the page, resolved", resolved(OPEN), DROP, RESOLVE, Outcome.PENDING),
    Case("suspended", record(), SUSPEND, (), Outcome.PENDING, NIGHT + 5 * MINUTE),
    Case("still suspended: news neither extends nor restarts it", record(version=2, suspended_until=LATER), SUSPEND, (),
         Outcome.PENDING, LATER),
    Case("no longer suspended by the rules", record(suspended_until=LATER), DELIVER, TRIGGER, Outcome.PENDING),
    Case("suspension over", record(suspended_until=NIGHT), SUSPEND, TRIGGER, Outcome.PENDING),
    Case("never suspended once a trigger was sent", record(OPEN, version=2), SUSPEND, TRIGGER, Outcome.PENDING),
    Case("never suspended once a trigger was tried", record(Told(HERE, unsure=NIGHT, maybe_open=1)), SUSPEND, TRIGGER,
         Outcome.PENDING),
    Case("suspended again in its next episode",
         record(replace(OPEN, state=State.RESOLVED, version=2), version=3, resolved_version=2), SUSPEND, (),
         Outcome.PENDING, NIGHT + 5 * MINUTE),
    Case("suspended, the owed resolve is sent", record(OPEN, version=3, resolved_version=2, suspended_until=LATER),
         SUSPEND, RESOLVE, Outcome.PENDING, LATER),
    Case("resolved in suspension", resolved(suspended_until=LATER), SUSPEND, (), Outcome.CANCELLED_IN_SUSPEND),
    Case("a rule makes a resolve of it", record(OPEN, version=2), AS_RESOLVE, RESOLVE, Outcome.PENDING),
    Case("a rule makes a resolve of what was never opened", record(), AS_RESOLVE, RESOLVE, Outcome.PENDING),
    Case("a rule made a resolve of it", record(replace(OPEN, state=State.RESOLVED)), AS_RESOLVE, (),
         Outcome.DELIVERED),
    Case("a rule makes a trigger of a resolve", resolved(OPEN), AS_TRIGGER, TRIGGER, Outcome.PENDING),
    Case("suppressed for a time", record(), decision(Verdict.SUPPRESS, until=LATER), (), Outcome.SUPPRESSED, LATER),
    Case("suppressed for a time, resolved", resolved(), decision(Verdict.SUPPRESS, until=LATER), (),
         Outcome.SUPPRESSED),
    Case("acknowledged, nothing told: trigger first", record(status=Status.ACKNOWLEDGED), DELIVER, TRIGGER,
         Outcome.PENDING),
    Case("acknowledged, never heard firing: passed on",
         record(version=1, status=Status.ACKNOWLEDGED, fired_version=0), DELIVER, ((HERE, Action.ACKNOWLEDGE),),
         Outcome.PENDING),
    Case("acknowledged, never heard firing, passed on",
         record(replace(OPEN, state=State.ACKNOWLEDGED), version=1, status=Status.ACKNOWLEDGED, fired_version=0),
         DELIVER, (), Outcome.DELIVERED),
    Case("acknowledged after a resolve that is still owed: that first",
         record(OPEN, version=3, status=Status.ACKNOWLEDGED, resolved_version=2, fired_version=0), DELIVER, RESOLVE,
         Outcome.PENDING),
    Case("acknowledged, triggered", record(OPEN, version=2, status=Status.ACKNOWLEDGED), DELIVER,
         ((HERE, Action.ACKNOWLEDGE),), Outcome.PENDING),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_missing(case: Case) -> None:
    plan = reconcile(case.record, case.decision, NIGHT)
    assert tuple((send.destination, send.action) for send in plan.sends) == case.sends
    assert (plan.outcome, plan.wake_at) == (case.outcome, case.wake_at)


SHORT = [
    Case("nothing told: the trigger first", resolved(), DELIVER, TRIGGER, Outcome.PENDING),
    Case("an episode told before it", resolved(replace(OPEN, state=State.RESOLVED, version=2), version=4,
         fired_version=3), DELIVER, TRIGGER, Outcome.PENDING),
    Case("told: the resolve", resolved(OPEN), DELIVER, RESOLVE, Outcome.PENDING),
    Case("only where the rules send it", resolved(Told(THERE)), DELIVER, TRIGGER, Outcome.PENDING),
    Case("over before it was judged by a rule that suspends", resolved(), SUSPEND, (), Outcome.RESOLVED_BEFORE_DELIVERY),
    Case("both told", resolved(replace(OPEN, state=State.RESOLVED, version=2)), DELIVER, (), Outcome.DELIVERED),
    Case("never heard firing", resolved(fired_version=0), DELIVER, RESOLVE, Outcome.PENDING),
    Case("suppressed", resolved(), SUPPRESS, (), Outcome.SUPPRESSED),
    Case("resolved while suspended", resolved(suspended_until=LATER, last_heard=NIGHT), SUSPEND, (),
         Outcome.CANCELLED_IN_SUSPEND),
    Case("a rule makes a resolve of it", record(), AS_RESOLVE, RESOLVE, Outcome.PENDING),
]  # fmt: skip


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.name)
def test_what_is_missing_where_short_alerts_page(case: Case) -> None:
    plan = reconcile(case.record, case.decision, NIGHT, page_short=True)
    assert tuple((send.destination, send.action) for send in plan.sends) == case.sends
    assert plan.outcome == case.outcome
    if plan.sends and plan.sends[0].action is Action.TRIGGER:
        assert plan.sends[0].version < case.record.version, "the resolve is still missing after it"


@pytest.mark.parametrize(
    ("told", "pinned"),
    [
        (OPEN, True),
        (Told(HERE, unsure=NIGHT, maybe_open=1), True),
        (Told(HERE), False),
        (replace(OPEN, state=State.RESOLVED), False),
    ],
)
def test_the_key_is_pinned_while_the_alert_is_or_may_be_open(told: Told, pinned: bool) -> None:
    [send] = reconcile(record(told, version=3), DELIVER, NIGHT).sends
    assert send.pinned is pinned


@pytest.mark.parametrize(
    ("heard", "severity", "rank"),
    [
        (record(), "critical", Rank.CRITICAL),
        (record(), "error", Rank.ERROR),
        (record(), "warning", Rank.WARNING),
        (record(), "info", Rank.INFO),
        (resolved(OPEN), "info", Rank.RESOLVE),
        (record(OPEN, version=2, news=News.REFRESH), "critical", Rank.REPEAT),
        (record(replace(OPEN, unsure=1)), "critical", Rank.REPEAT),
    ],
)
def test_what_waits_in_which_order(heard: Record, severity: str, rank: Rank) -> None:
    [send] = reconcile(heard, decision(severity=severity), NIGHT).sends
    assert send.rank is rank


TOLD = st.builds(
    Told,
    destination=st.sampled_from([HERE, THERE]),
    state=st.sampled_from(State),
    version=st.integers(0, 5),
    key=st.just("k"),
    tries=st.integers(0, 3),
    not_before=st.sampled_from([0, NIGHT - 1, NIGHT + MINUTE]),
    dead=st.integers(0, 5),
    maybe_open=st.integers(0, 5),
    unsure=st.sampled_from([0, NIGHT - REPAIR_AFTER_MS, NIGHT - 1]),
    lease_until=st.sampled_from([0, NIGHT + SECOND]),
)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Any record that accept and settle could leave behind: nothing told is newer than what was heard."""
    version = draw(st.integers(1, 5))
    status = draw(st.sampled_from(Status))
    told = draw(st.lists(TOLD, unique_by=lambda t: t.destination, max_size=2))
    return record(
        *(
            replace(
                t,
                version=min(t.version, version),
                dead=min(t.dead, version),
                maybe_open=min(t.maybe_open, version) if t.unsure else 0,
            )
            for t in told
        ),
        version=version,
        status=status,
        fired_version=draw(st.integers(0 if status is not Status.FIRING else 1, version)),
        resolved_version=version if status is Status.RESOLVED else draw(st.integers(0, version - 1)),
        hold_until=draw(st.sampled_from([0, NIGHT + SECOND])),
        suspended_until=draw(st.sampled_from([0, NIGHT - 1, NIGHT + SECOND])),
        news=draw(st.sampled_from(News)),
    )


@given(
    records(),
    st.sampled_from(Verdict),
    st.lists(st.sampled_from([HERE, THERE]), min_size=1, unique=True),
    st.sampled_from([0, MINUTE]),
)
def test_a_healthy_destination_always_comes_to_rest(
    heard: Record, verdict: Verdict, named: list[str], suspend_ms: int
) -> None:
    """Confirming every send ends in few steps with nothing missing: no loop, no forgotten state (I2, I4)."""
    rules = decision(verdict, *named, suspend_ms=suspend_ms)
    now = NIGHT
    last: dict[str, Action] = {}
    for _ in range(12):
        plan = reconcile(heard, rules, now)
        heard = replace(heard, suspended_until=plan.suspended_until)
        assert len({send.destination for send in plan.sends}) == len(plan.sends), "one in flight per destination"
        for send in plan.sends:
            heard = after(heard, heard.told_of(send.destination), send, now)
            last[send.destination] = send.action
        if not plan.sends:
            if not plan.wake_at:
                break
            assert plan.wake_at > now, "a wake-up in the past would spin"
            now = plan.wake_at
    else:
        pytest.fail("never comes to rest")
    assert plan.outcome is not Outcome.PENDING
    if heard.status is Status.RESOLVED:
        closed_or_refused = [not told.is_open or told.dead == heard.version for told in heard.told]
        assert all(closed_or_refused), "what was opened gets closed"
    if heard.status is Status.RESOLVED and last:
        assert set(last.values()) <= {Action.RESOLVE}, "no trigger after the resolve that followed it"
