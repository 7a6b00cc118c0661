"""What a silence keeps back, for how long, and how that is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alertrouter.delivery.judging import decide
from alertrouter.delivery.reconcile import Action, reconcile
from alertrouter.record import News, Outcome, Record, State, Told
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Decision, Ruleset, Verdict
from alertrouter.rules.silences import Silence, compile_silence
from alertrouter.rules.syntax import ConditionError
from tests.alerts import HOUR, MINUTE, NIGHT, make_alert
from tests.rules.test_wrong_files import fill
from tests.unit.test_evaluate import rules

ID = make_alert().id
ROUTER = {"router.yaml": "catch_all: {route_to: shop}\n", "services/shop.yaml": "team: team-shop\n"}


def silence(when: str = "", *, alert: str = "", minutes: int = 60, id_: str = "4f88ef") -> Silence:
    return Silence(
        id=id_,
        owner="anna",
        reason="load test",
        added_at=NIGHT,
        ends_at=NIGHT + minutes * MINUTE,
        when=when,
        alert=alert,
    )


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def run(*silences: Silence, **files: str) -> Ruleset:
        fill(tmp_path, {**ROUTER, **{name.replace("_", "."): text for name, text in files.items()}})
        return replace(load_rules(tmp_path), silences=silences)

    return run


def judged(ruleset: Ruleset, now: int = NIGHT, **alert: Any) -> Decision:
    return evaluate(make_alert(**alert), ruleset, now, trace=True)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (silence("event.custom_details.env == 'prod'"), True),
        (silence("event.custom_details.env == 'staging'"), False),
        (silence("event.severity == 'critical' and event.summary matches part 'DOWN'"), True),
        (silence("raw_event.labels.env exists"), False),
        (silence(alert=ID), True),
        (silence(alert=f"{ID}0"), False),
        (silence(alert=""), False),
    ],
)
def test_it_keeps_back_what_it_names(load: Any, asked: Silence, kept: bool) -> None:
    decision = judged(load(asked), env="prod")
    if not kept:
        assert (decision.verdict, decision.rule, decision.until) == (Verdict.DELIVER, "", 0)
        return
    assert (decision.verdict, decision.rule) == (Verdict.SUPPRESS, "silence:4f88ef")
    assert decision.reason == "silence 4f88ef of anna until 2027-01-10 04:00:00 UTC: load test"
    assert decision.until == asked.ends_at, "judged again when it ends"
    assert (decision.service, decision.destinations) == ("shop", ("pagerduty:default",)), "a resolve finds its way"
    assert decision.matched == (), "a silence is no rule: metrics have no label for it"


def test_it_is_over_at_its_end_to_the_millisecond(load: Any) -> None:
    ruleset = load(silence(alert=ID, minutes=60))
    assert judged(ruleset, NIGHT + HOUR - 1).verdict is Verdict.SUPPRESS
    assert judged(ruleset, NIGHT + HOUR).verdict is Verdict.DELIVER


@pytest.mark.parametrize("ahead", [-2 * HOUR, -MINUTE, 0, MINUTE, 2 * HOUR])
def test_it_ends_by_the_time_of_day_whatever_time_timers_have(load: Any, ahead: int) -> None:
    ruleset = load(silence(alert=ID, minutes=60))
    end = NIGHT + HOUR + ahead  # by the clock of the timers
    last = decide(make_alert(), ruleset, end - 1, None, ahead=ahead)
    assert (last.verdict, last.until) == (Verdict.SUPPRESS, end)
    assert decide(make_alert(), ruleset, end, None, ahead=ahead).verdict is Verdict.DELIVER
    early = decide(make_alert(), ruleset, end - HOUR, None, ahead=ahead)
    assert early.until == (end - HOUR + 10 * MINUTE if ahead else end), "looked at again, as the two come nearer"


def test_it_sees_the_alert_as_the_rules_left_it(load: Any) -> None:
    lowered = rules("lower | event.custom_details.env == 'prod' | {severity: warning}")
    asked = silence("event.severity == 'warning'")
    assert judged(load(asked, global_yaml=lowered), env="prod").verdict is Verdict.SUPPRESS
    assert judged(load(asked, global_yaml=lowered), env="dev").verdict is Verdict.DELIVER, "critical as it came"


def test_one_of_a_shared_incident_is_found_by_its_key(load: Any) -> None:
    shared = rules("share | | {dedup_key: 'all of {{event.source}}'}")
    assert judged(load(silence(alert="all of payment-1"), global_yaml=shared)).verdict is Verdict.SUPPRESS
    assert judged(load(silence(alert=ID), global_yaml=shared)).verdict is Verdict.SUPPRESS


def test_what_rules_keep_back_is_theirs(load: Any) -> None:
    muted = rules("mute | | {suppress: true, reason: maintenance, expires: 2027-01-10}")
    decision = judged(load(silence(alert=ID), global_yaml=muted))
    assert (decision.verdict, decision.rule, decision.reason) == (Verdict.SUPPRESS, "mute", "maintenance")
    later = judged(load(silence(alert=ID, minutes=24 * 60), global_yaml=muted), NIGHT + 22 * HOUR)
    assert later.rule == "silence:4f88ef", "and then it is the silence that keeps it"


def test_of_several_the_first_is_named_and_each_is_explained(load: Any) -> None:
    over = silence(alert=ID, minutes=0, id_="over")
    other = silence("event.custom_details.env == 'dev'", id_="other")
    decision = judged(load(over, other, silence(alert=ID)))
    assert decision.rule == "silence:4f88ef"
    assert [(each.rule, each.matched) for each in decision.trace if each.orchestration == "silences"] == [
        ("silence:over", False),
        ("silence:other", False),
        ("silence:4f88ef", True),
    ]
    assert evaluate(make_alert(), load(over, other, silence(alert=ID)), NIGHT).rule == decision.rule, "traced or not"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("event.class contains 'x'", "1:13: there is no `contains`; write `a matches part 'text'`"),
        ("event.class exists and trigger_count over 5 minutes > 3", "1:24: a silence cannot count"),
        ("cache_var.host == 'x'", "1:1: a silence remembers nothing"),
        ("", "1:1: "),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConditionError) as wrong:
        compile_silence(text)
    assert str(wrong.value).startswith(message)


@pytest.mark.parametrize("state", [State.TRIGGERED, State.ACKNOWLEDGED])
@pytest.mark.parametrize("heard", ["resolved", "firing", "acknowledged"])
def test_it_never_stops_a_resolve_that_is_owed(load: Any, state: State, heard: str) -> None:
    """Resolved, or resolved and back again: what is open is closed, by the key it was opened with."""
    decision = judged(load(silence("event.summary exists")), status=heard)
    assert decision.verdict is Verdict.SUPPRESS
    record = Record(
        id=ID,
        version=3,
        status=make_alert(status=heard).status,
        severity=make_alert().event.severity,
        news=News.STATUS,
        alert=make_alert(status=heard),
        fired_version=1 if heard == "resolved" else 3,
        resolved_version=3 if heard == "resolved" else 2,
        told=(Told("pagerduty:old", state=state, version=1, key="k"),),
    )
    plan = reconcile(record, decision, NIGHT)
    assert [(send.destination, send.action, send.pinned) for send in plan.sends] == [
        ("pagerduty:old", Action.RESOLVE, True)
    ]
    if heard == "firing":
        closed = record.with_told(Told("pagerduty:old", state=State.RESOLVED, version=2, key="k"))
        rest = reconcile(closed, decision, NIGHT)
        assert (rest.sends, rest.outcome, rest.wake_at) == ((), Outcome.SUPPRESSED, NIGHT + HOUR)
