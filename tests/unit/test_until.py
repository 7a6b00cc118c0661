"""`until`: the instant to which a decision holds, as far as time alone can change it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alertrouter.rules.closures import compile_node
from alertrouter.rules.condition import compile_condition
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.moment import Moment
from alertrouter.rules.syntax import Within, parse
from alertrouter.rules.times import DAYS
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import fill
from tests.unit.test_condition_properties import CONDITIONS

DAY = 86_400_000


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def until(condition: str, now: int, view: dict[str, Any] | None = None) -> int:
    moment = Moment(now)
    compile_condition(condition).holds(view or {"event": {"summary": "x"}}, moment)
    return moment.until


@pytest.mark.parametrize(
    ("condition", "now", "change"),
    [
        # the autumn table: open 05:30 to 06:00, when the clock goes back, and 06:30 to 08:15:00
        ("Sun 01:30:00 to 03:15:00 America/New_York", "2021-11-07 05:00", "2021-11-07 05:30:00"),
        ("Sun 01:30:00 to 03:15:00 America/New_York", "2021-11-07 05:30", "2021-11-07 06:00:00"),
        ("Sun 01:30:00 to 03:15:00 America/New_York", "2021-11-07 06:00", "2021-11-07 06:30:00"),
        ("Sun 01:30:00 to 03:15:00 America/New_York", "2021-11-07 06:30", "2021-11-07 08:15:01"),
        ("Sun 01:30:00 to 03:15:00 America/New_York", "2021-11-07 08:30", "2021-11-14 06:30:00"),
        # the spring table: open 06:30 to 07:15:00, with the hour from 02:00 on skipped
        ("Sun 01:30:00 to 03:15:00 America/New_York", "2021-03-14 06:00", "2021-03-14 06:30:00"),
        ("Sun 01:30:00 to 03:15:00 America/New_York", "2021-03-14 06:30", "2021-03-14 07:15:01"),
        ("Sun 01:30:00 to 03:15:00 America/New_York", "2021-03-14 07:30", "2021-03-21 05:30:00"),
        # it starts or ends within the hour that is skipped
        ("Sun 02:30:00 to 04:00:00 America/New_York", "2021-03-14 06:00", "2021-03-14 07:00:00"),
        ("Sun 01:00:00 to 02:30:00 America/New_York", "2021-03-14 06:30", "2021-03-14 07:00:00"),
        ("Sun 02:10:00 to 02:50:00 America/New_York", "2021-03-14 06:00", "2021-03-21 06:10:00"),
        # over midnight, whole days, the whole week
        ("Mon 22:00:00 to 06:00:00 Etc/UTC", "2027-01-04 21:00", "2027-01-04 22:00:00"),
        ("Mon 22:00:00 to 06:00:00 Etc/UTC", "2027-01-04 23:00", "2027-01-05 06:00:01"),
        ("Mon 22:00:00 to 06:00:00 Etc/UTC", "2027-01-05 07:00", "2027-01-11 22:00:00"),
        ("Mon,Tue 22:00:00 to 06:00:00 Asia/Kolkata", "2027-01-05 12:00", "2027-01-05 16:30:00"),
        ("Mon 09:00:00 to 09:00:00 Etc/UTC", "2027-01-04 09:00", "2027-01-05 09:00:01"),
        ("Mon,Tue 09:00:00 to 09:00:00 Etc/UTC", "2027-01-04 09:00", "2027-01-06 09:00:01"),
        ("Mon 00:00:00 to 23:59:59 Etc/UTC", "2027-01-04 23:59", "2027-01-05 00:00:00"),
        ("Mon,Tue,Wed,Thu,Fri,Sat,Sun 00:00:00 to 00:00:00 Europe/London", "2027-01-04 12:00", None),
    ],
)
def test_a_schedule_changes_when_it_opens_and_closes_by_the_clock_on_the_wall(
    condition: str, now: str, change: str | None
) -> None:
    assert until(f"now in {condition}", at(now)) == (at(change) if change else 0)


ZONES = ["Etc/UTC", "America/New_York", "Europe/London", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns"]
CLOCKS = st.times().map(lambda clock: f"{clock:%H:%M:%S}") | st.sampled_from(["00:00:00", "23:59:59", "02:30:00"])
SCHEDULES = st.builds(
    "now in {} {} to {} {}".format,
    st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(",".join),
    CLOCKS,
    CLOCKS,
    st.sampled_from(ZONES),
)


@given(SCHEDULES, st.integers(at("2026-01-01"), at("2028-01-01")), st.data())
@example("now in Sun 01:30:00 to 03:15:00 America/New_York", at("2021-11-07 05:45"), None)
def test_a_schedule_gives_one_answer_before_its_change_and_another_at_it(text: str, now: int, data: Any) -> None:
    tree = parse(text)
    assert isinstance(tree, Within)
    schedule = tree.schedule
    change = schedule.next_change(now)
    between = list(range(now, change or now + 8 * DAY, 10 * 60_000))
    if data is not None:
        between.append(data.draw(st.integers(now, (change or now + 30 * DAY) - 1)))
    assert {schedule.holds(ms) for ms in between} == {schedule.holds(now)}
    if change:
        assert schedule.holds(change - 1) is schedule.holds(now)
        assert schedule.holds(change) is not schedule.holds(now)


NOON = at("2027-01-01 12:00:00")


@pytest.mark.parametrize(
    ("condition", "now", "change"),
    [
        ("now > 2027-01-01 12:00:00 Etc/UTC", NOON - 5, NOON + 1),
        ("now > 2027-01-01 12:00:00 Etc/UTC", NOON, NOON + 1),
        ("now > 2027-01-01 12:00:00 Etc/UTC", NOON + 1, 0),
        ("now >= 2027-01-01 12:00:00 Etc/UTC", NOON - 5, NOON),
        ("now >= 2027-01-01 12:00:00 Etc/UTC", NOON, 0),
        ("now < 2027-01-01 12:00:00 Etc/UTC", NOON - 5, NOON),
        ("now <= 2027-01-01 12:00:00 Etc/UTC", NOON - 5, NOON + 1),
        ("now == 2027-01-01 12:00:00 Etc/UTC", NOON - 5, NOON),
        ("now == 2027-01-01 12:00:00 Etc/UTC", NOON, NOON + 1),
        ("2027-01-01 12:00:00 Etc/UTC > now", NOON - 5, NOON),
        ("2027-01-01 12:00:00 Etc/UTC < now", NOON, NOON + 1),
        ("now > 2027-01-01 12:00:00 Etc/UTC and now < 2027-01-01 13:00:00 Etc/UTC", NOON - 5, NOON + 1),
        ("now > 2027-01-01 12:00:00 Etc/UTC and now < 2027-01-01 13:00:00 Etc/UTC", NOON + 1, NOON + 3_600_000),
        ("now matches part '12:00'", NOON + 5, NOON + 1000),
        ("now matches regex '12:00'", NOON, NOON + 1000),
        ("'2027-01-01 12:00:00 Etc/UTC' matches now", NOON + 999, NOON + 1000),
        ("now > 5", NOON, 0),
        ("now", NOON, 0),
        # only what was looked at
        ("event.summary == 'y' and now < 2027-01-01 13:00:00 Etc/UTC", NOON, 0),
        ("event.summary == 'x' or now < 2027-01-01 13:00:00 Etc/UTC", NOON, 0),
        ("not event.summary == 'y' and now < 2027-01-01 13:00:00 Etc/UTC", NOON, NOON + 3_600_000),
    ],
)
def test_a_comparison_with_now_changes_once(condition: str, now: int, change: int) -> None:
    assert until(condition, now) == change


@given(CONDITIONS | SCHEDULES, st.integers(NIGHT - 30 * DAY, NIGHT + 30 * DAY), st.data())
def test_before_that_instant_a_condition_answers_the_same(condition: str, now: int, data: Any) -> None:
    run, view = compile_node(parse(condition)), {"event": {}, "raw_event": {"a": 5}}
    moment = Moment(now)
    answer = run(view, moment) is True
    later = data.draw(st.integers(now, (moment.until or now + 400 * DAY) - 1))
    assert (run(view, Moment(later)) is True) is answer


WINDOWS = """
sets:
  start:
    - rule: by-night
      owner: team-sre
      when: now in Mon,Tue,Wed,Thu,Fri 22:00:00 to 06:00:00 America/New_York
      then: {route_to: night, suspend: 5m}
    - rule: move
      owner: team-sre
      when: now > 2027-01-20 08:00:00 Europe/London and now < 2027-01-20 18:00:00 Europe/London
      then: {suppress: true, reason: moving, expires: 2027-02-01}
    - rule: noise
      owner: team-sre
      when: event.severity == 'info'
      then: {drop: true, reason: noise, expires: 2027-01-12}
  night:
    - rule: quiet
      owner: team-sre
      when: event.severity == 'warning'
      then: {suppress: true, reason: asleep, expires: 2027-01-15}
"""


@given(
    severity=st.sampled_from(["critical", "warning", "info"]),
    now=st.integers(NIGHT, NIGHT + 30 * DAY),
    data=st.data(),
)
def test_before_that_instant_the_decision_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, severity: str, now: int, data: Any
) -> None:
    directory = tmp_path_factory.getbasetemp() / "windows"
    if not directory.exists():
        fill(directory, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": WINDOWS})
    ruleset, alert = load_rules(directory), make_alert(severity=severity)
    decision = evaluate(alert, ruleset, now)
    later = data.draw(st.integers(now, (decision.until or now + 400 * DAY) - 1))
    assert evaluate(alert, ruleset, later) == decision


def test_a_suppression_that_applies_ends(tmp_path: Path) -> None:
    fill(tmp_path, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": WINDOWS})
    ruleset = load_rules(tmp_path)
    weekend = at("2027-01-09 18:00")
    assert evaluate(make_alert(severity="info"), ruleset, weekend).until == at("2027-01-12 03:00")
    assert evaluate(make_alert(severity="info"), ruleset, at("2027-01-12 12:00")).until == at("2027-01-13 00:00")
    # a rule whose suppression has ended is passed over: its window is looked at no more
    assert evaluate(make_alert(), ruleset, at("2027-02-06 12:00")).until == at("2027-02-09 03:00")
