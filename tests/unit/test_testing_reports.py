"""What is made of a run of tests: differences, expectations written anew, mutants, tracefiles."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import Reading, read_rules
from alertrouter.simulation.check import _compare, _dotted
from alertrouter.simulation.coverage import FileCoverage, Line, as_lcov, share
from alertrouter.simulation.mutants import mutants
from alertrouter.simulation.report import score, shown
from alertrouter.simulation.update import Change, updated
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import FINE, fill


def differing(expected: Any, came: Any) -> list[str]:
    return [_dotted(path) for path, _, _ in _compare(expected, came)]


@pytest.mark.parametrize(
    ("expected", "came", "names"),
    [
        ("a", "a", []),
        ("a", "b", [""]),
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 4}}, ["a.b", "a.c"]),
        ({"a": None}, {}, []),
        ({"a": None}, {"a": 1}, ["a"]),
        ({"a": 1}, None, [""]),
        ([], ["a"], [""]),
        (["a", "b"], ["b", "a"], ["[0]", "[1]"]),
        ([{"a": 1}], [{"a": 2}], ["[0].a"]),
        (["a"], [{"dedup_key": "a", "status": "triggered"}], []),
        (["b"], [{"dedup_key": "a", "status": "triggered"}], ["[0]"]),
        (True, 1, [""]),
        (1, 1.0, []),
        ("1", 1, [""]),
    ],
)
def test_expectations_are_exact_for_what_they_name(expected: Any, came: Any, names: list[str]) -> None:
    assert differing(expected, came) == names


@pytest.mark.parametrize("value", ["a", "a, b", "5", "", None, True, 5, [], ["a: b", "#c"], {"a": ["x"]}, "2027-01-01"])
def test_what_is_shown_can_be_written_into_a_test(value: Any) -> None:
    assert yaml.safe_load(f"expect: {{it: {shown(value)}}}") == {"expect": {"it": value}}


BEFORE = """\
# at the top
tests:
  - name: it    # with a comment
    steps:
      - alertmanager: {labels: {a: 'b'}}   # quotes stay as they are
        expect: {outcome: delivered, service:   payment}  # and blanks
      - at: 5m
        expect:
          outcome: "pending" # why
          matched:   # of rules
            - one    # the first
            # between
            - two
          event: null

      - expect: {}
"""


def at(step: int, *path: str | int) -> tuple[str | int, ...]:
    return ("tests", 0, "steps", step, "expect", 0, *path)


def test_only_what_differs_is_written_and_all_else_stays() -> None:
    after = updated(BEFORE, [Change(at(0, "service"), "search"), Change(at(1, "outcome"), "delivered")])
    assert after == BEFORE.replace("service:   payment", "service:   search").replace('"pending"', "delivered")


def test_one_of_a_list_is_written_in_its_place() -> None:
    assert updated(BEFORE, [Change(at(1, "matched", 1), "three")]) == BEFORE.replace("- two", "- three")


def test_a_list_of_another_length_keeps_its_comments() -> None:
    after = updated(BEFORE, [Change(at(1, "matched"), ["one"])])
    assert yaml.safe_load(after)["tests"][0]["steps"][1]["expect"]["matched"] == ["one"]
    assert [line.strip() for line in after.splitlines() if "#" in line] == [
        "# at the top",
        "- name: it    # with a comment",
        "- alertmanager: {labels: {a: 'b'}}   # quotes stay as they are",
        "expect: {outcome: delivered, service:   payment}  # and blanks",
        'outcome: "pending" # why',
        "matched:   # of rules",
        "# the first",
        "# between",
    ]


def test_an_event_is_written_where_none_was_expected_and_the_other_way_round() -> None:
    event = {"event_action": "trigger", "dedup_key": "a:b"}
    with_event = updated(BEFORE, [Change(at(1, "event"), event)])
    assert yaml.safe_load(with_event)["tests"][0]["steps"][1]["expect"]["event"] == event
    without = updated(with_event, [Change(at(1, "event"), None)])
    assert without == BEFORE


def test_an_empty_expectation_is_filled() -> None:
    after = updated(BEFORE, [Change(at(2), {"outcome": "delivered", "matched": []})])
    assert after == BEFORE.replace("expect: {}", "expect: {outcome: delivered, matched: []}")


def test_what_two_alerts_disagree_about_is_left_alone() -> None:
    assert updated(BEFORE, [Change(at(0, "service"), "a"), Change(at(0, "service"), "b")]) == BEFORE


def test_of_a_change_within_a_change_the_outer_one_is_made() -> None:
    after = updated(BEFORE, [Change(at(1, "matched", 0), "x"), Change(at(1, "matched"), [])])
    expected = yaml.safe_load(BEFORE)
    expected["tests"][0]["steps"][1]["expect"]["matched"] = []
    assert yaml.safe_load(after) == expected


@given(
    st.dictionaries(
        st.sampled_from([("outcome",), ("matched",), ("matched", 0), ("matched", 1), ("event",)]),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=4)
        | st.dictionaries(st.text(min_size=1), st.text()),
        min_size=1,
    )
)
def test_whatever_is_written_all_else_says_the_same(values: dict[tuple[str | int, ...], Any]) -> None:
    expected = yaml.safe_load(BEFORE)
    here = expected["tests"][0]["steps"][1]["expect"]
    for path, value in sorted(values.items(), key=lambda item: -len(item[0])):  # the outer ones last
        *way, last = path
        (here[way[0]] if way else here)[last] = value
    after = updated(BEFORE, [Change(at(1, *path), value) for path, value in values.items()])
    assert yaml.safe_load(after) == expected
    assert [line for line in after.splitlines() if line in BEFORE.splitlines()[:7]] == BEFORE.splitlines()[:7]


def rules(tmp_path: Path, text: str, **others: str) -> Reading:
    files = {name: dedent(content) for name, content in others.items()}
    fill(tmp_path, {**FINE, "global.yaml": dedent(text), **files})
    reading = read_rules(tmp_path)
    assert reading.problems == ()
    return reading


def changes(reading: Reading) -> list[str]:
    """Each mutant without the directory it is in."""
    assert reading.ruleset is not None
    return [str(each).partition(".yaml:")[2] for each in mutants(reading.ruleset, reading.documents)]


def test_conditions_tests_and_actions_are_negated_and_dropped_one_at_a_time(tmp_path: Path) -> None:
    reading = rules(
        tmp_path,
        """\
        sets:
          start:
            - rule: one
              when: event.class == 'a' and not event.group == 'b'
              then: {annotate: hm, priority: P2}
            - rule: two
              when: [event.class == 'c', event.class == 'd']
              then: {}
            - rule: none
              disabled: true
              when: event.class == 'e'
              then: {severity: info}
        catch_all: {severity: warning}
        """,
    )
    assert changes(reading) == [
        "4:13: rule `one`: dropped `event.class == 'a'`",
        "4:36: rule `one`: dropped `not event.group == 'b'`",
        "4:13: rule `one`: negated `event.class == 'a' and not event.group == 'b'`",
        "4:13: rule `one`: negated `event.class == 'a'`",
        "4:36: rule `one`: dropped the `not` of `not event.group == 'b'`",
        "4:13: rule `one`: dropped the condition: the rule always matches "
        "`event.class == 'a' and not event.group == 'b'`",
        "5:28: rule `one`: dropped the action `priority`",
        "5:14: rule `one`: dropped the action `annotate`",
        "7:14: rule `two`: negated `event.class == 'c'`",
        "7:14: rule `two`: dropped the condition `event.class == 'c'`",
        "7:34: rule `two`: negated `event.class == 'd'`",
        "7:34: rule `two`: dropped the condition `event.class == 'd'`",
        "13:13: catch-all: dropped the action `severity`",
    ]


def test_each_entry_of_a_list_of_actions_is_dropped_by_itself(tmp_path: Path) -> None:
    reading = rules(
        tmp_path,
        """\
        sets:
          start:
            - rule: one
              then:
                variables: [{name: host, path: event.source, value: .+}]
                extractions:
                  - {target: event.summary, template: "on {{variables.host}}"}
                  - {target: event.custom_details.host, source: event.source, regex: .+}
                enrich: {links: [{href: "https://example.org"}], details: {a: b}}
        """,
    )
    assert [each.partition("`one`: ")[2] for each in changes(reading)] == [
        "dropped host of `variables`",
        "dropped event.summary of `extractions`",
        "dropped event.custom_details.host of `extractions`",
        "dropped `enrich.links`",
        "dropped `enrich.details`",
    ]


def test_a_priority_and_the_severity_it_stands_for_are_dropped_together(tmp_path: Path) -> None:
    text = "sets: {start: [{rule: one, then: {severity: %s, priority: P1}}]}"
    assert changes(rules(tmp_path, text % "critical")) == [
        "1:55: rule `one`: dropped the actions `priority` and `severity`"
    ]
    assert len(changes(rules(tmp_path, text % "info"))) == 2


def test_a_catch_all_to_unrouted_is_left_alone_for_without_it_nothing_changes(tmp_path: Path) -> None:
    assert changes(rules(tmp_path, "{}")) == []
    assert changes(rules(tmp_path, "{}", **{"router.yaml": "catch_all: {route_to: shop}"})) == [
        "1:13: catch-all: dropped the action `route_to`"
    ]


def test_a_mutant_is_the_rules_with_that_change(tmp_path: Path) -> None:
    reading = rules(
        tmp_path,
        """\
        sets:
          start:
            - rule: one
              when: event.custom_details.a == '1' or (event.custom_details.b == '2' and event.custom_details.c == '3')
              then: {annotate: hm}
        """,
    )
    assert reading.ruleset is not None
    alerts = [make_alert(a=a, b=b, c=c) for a in "12" for b in "12" for c in "34"]
    plain = [evaluate(each, reading.ruleset, NIGHT) for each in alerts]
    for mutant in mutants(reading.ruleset, reading.documents):
        changed = mutant.ruleset()
        assert [evaluate(each, changed, NIGHT) for each in alerts] != plain, str(mutant)
    assert [evaluate(each, reading.ruleset, NIGHT) for each in alerts] == plain


def covered(rules: tuple[int, int], conditions: tuple[int, int] = (0, 0)) -> FileCoverage:
    lines = {3: Line(2), 4: Line(3, (1, 2)), 7: Line(0, (0, 0)), 8: Line(4, (4, 0))}
    return FileCoverage("rules/global.yaml", rules, conditions, (1, 1), (), lines)


def test_the_tracefile_has_a_line_for_each_rule_and_two_branches_for_each_test() -> None:
    assert as_lcov([covered((1, 2))]).splitlines() == [
        "TN:alertrouter",
        "SF:rules/global.yaml",
        "BRDA:4,0,0,1",
        "BRDA:4,0,1,2",
        "BRDA:7,0,0,-",
        "BRDA:7,0,1,-",
        "BRDA:8,0,0,4",
        "BRDA:8,0,1,0",
        "BRF:6",
        "BRH:3",
        "DA:3,2",
        "DA:4,3",
        "DA:7,0",
        "DA:8,4",
        "LF:4",
        "LH:3",
        "end_of_record",
    ]


def test_a_figure_is_not_rounded_up_to_a_hundred() -> None:
    assert share([covered((3, 3))]) == 100
    assert share([covered((3, 4))]) == 80
    assert share([covered((99_999, 100_000))]) < 100
    assert score(1_000_000, 1) < 100
    assert score(0, 0) == 100
