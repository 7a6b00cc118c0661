"""The index of a set of rules: it may pass over a rule only where that rule cannot match."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from alertrouter.rules.condition import Condition, compile_condition
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.index import build_index, explain_cost
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import START, Actions, Orchestration, Rule, Ruleset
from alertrouter.rules.moment import Moment
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import fill

PATHS = [
    "raw_event.a",
    "raw_event.b",
    "raw_event.a.b",
    "raw_event.a[0]",
    "raw_event.b[1].a",
    "raw_event['ß']",
    "raw_event",
]
#: Texts that are one to some ways of ignoring case and different to others, and texts that look like other values.
TEXTS = [
    "ß",
    "ss",
    "SS",
    "İ",
    "i",
    "i̇",
    "\u0131",
    "\u017f",
    "s",
    "\u212a",
    "k",
    "ﬁ",
    "fi",
    "Σ",
    "ς",
    "",
    "1",
    "1.0",
    "true",
    ".",
    "a\nb",
]
NUMBERS = ["1", "1.0", "0", "-0.0", "true", "false"]
LITERALS = st.sampled_from([f"'{text}'" for text in TEXTS] + NUMBERS)
PATTERNS = st.sampled_from(["ss", "^s", "i$", "(?-i)S", ".", "", "a.b", "k|ß", "\\\\d", "[^s]", "(?-s:a.b)"])
TESTS = st.one_of(
    st.builds("{} == {}".format, st.sampled_from(PATHS), LITERALS),
    st.builds("{} == {}".format, LITERALS, st.sampled_from([*PATHS, "2026-01-01 00:00:00 Etc/UTC"])),
    st.builds(
        "{} matches{} {}".format,
        st.sampled_from(PATHS),
        st.sampled_from(["", " exactly", " part", " part exactly"]),
        st.one_of(LITERALS, st.sampled_from(PATHS)),
    ),
    st.builds("{} matches regex{} '{}'".format, st.sampled_from(PATHS), st.sampled_from(["", " exactly"]), PATTERNS),
    st.builds("{} {} {}".format, st.sampled_from(PATHS), st.sampled_from([">", "<="]), LITERALS),
    st.builds("{} exists".format, st.sampled_from(PATHS)),
    st.sampled_from(["true", "raw_event.a", "now in Mon 00:00:00 to 12:00:00 Etc/UTC", "'ss' matches raw_event.a"]),
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not {}".format, inner),
    ),
    max_leaves=5,
).map(compile_condition)
RULES = st.lists(st.lists(CONDITIONS, max_size=2).map(tuple), max_size=8)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.sampled_from([1, 1.0, 0, -0.0, 10**400, float("nan"), "\ud800", *TEXTS])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "ß"]), inner, max_size=3)
    ),
    max_leaves=8,
)
RAW = st.dictionaries(st.sampled_from(["a", "b", "ß"]), VALUES, max_size=3)


def matching(rules: list[tuple[Condition, ...]], view: Any) -> list[int]:
    """The rules that match, each tried on its own."""
    now = Moment(NIGHT)
    return [n for n, each in enumerate(rules) if not each or any(condition.holds(view, now) for condition in each)]


def conditions(*texts: str) -> list[tuple[Condition, ...]]:
    return [(compile_condition(text),) for text in texts]


def candidates(rules: list[tuple[Condition, ...]], **raw: Any) -> list[int]:
    return list(build_index(rules).candidates({"event": {}, "raw_event": raw}, Moment(NIGHT)))


@given(RULES, RAW, st.sampled_from([1, 2**20]))
@example(conditions("raw_event.a matches part 'ss'", "raw_event.a matches regex 'ss'"), {"a": "ß"}, 2**20)
@example(conditions("raw_event.a matches part 'i'", "raw_event.a matches 'i̇'"), {"a": "İ"}, 2**20)
@example(conditions("raw_event.a matches 'ß'", "raw_event.a matches part 'ß'"), {"a": "SS"}, 2**20)
@example(conditions("raw_event.a == 1", "raw_event.a == true", "raw_event.a == '1'"), {"a": 1.0}, 2**20)
@example(conditions("raw_event.a == 1", "raw_event.a == true", "raw_event.a == '1'"), {"a": True}, 2**20)
def test_no_rule_that_matches_is_passed_over(rules: Any, raw: dict[str, Any], set_memory: int) -> None:
    view = {"event": {}, "raw_event": raw}
    found = list(build_index(rules, set_memory).candidates(view, Moment(NIGHT)))
    assert found == sorted(set(found))
    assert set(matching(rules, view)) <= set(found)


@given(RULES, RAW, st.data())
def test_the_first_rule_that_matches_is_the_same_as_from_top_to_bottom(rules: Any, raw: Any, data: Any) -> None:
    disabled = data.draw(st.sets(st.integers(0, 7)))
    start = tuple(Rule(str(n), each, Actions(), disabled=n in disabled) for n, each in enumerate(rules))
    everywhere = {name: Orchestration(name, "global") for name in ("global", "router", "unrouted")}
    everywhere["global"] = Orchestration("global", "global", {START: start})
    alert = replace(make_alert(), raw=raw)
    matched = [str(n) for n in matching(rules, {"event": {}, "raw_event": raw}) if n not in disabled]
    decision = evaluate(alert, Ruleset({}, everywhere), NIGHT)
    assert list(decision.matched) == matched[:1]
    traced = evaluate(alert, Ruleset({}, everywhere), NIGHT, trace=True)
    assert dataclasses.replace(traced, trace=()) == decision
    assert [each.rule for each in traced.trace if each.matched and each.rule != "catch_all"] == matched[:1]


def test_only_rules_behind_the_values_of_an_alert_are_tried() -> None:
    rules = conditions(*(f"raw_event.env == 'production' and raw_event.service == 'service-{n}'" for n in range(100)))
    assert candidates(rules, env="production", service="service-42") == [42]
    assert candidates(rules, env="production", service="none") == []


@pytest.mark.parametrize(
    ("test", "hit", "miss"),
    [
        ("raw_event.a == '{}'", "7", "x"),
        ("{} == raw_event.a", 7.0, "7"),
        ("raw_event.a matches 'A{}'", "a7", "b7"),
        ("raw_event.a matches exactly 'A{}'", "A7", "a7"),
        ("raw_event.a matches part 'x{}y'", "AX7YA", "x7"),
        ("raw_event.a matches part exactly 'x{}y'", "ax7ya", "AX7YA"),
        ("raw_event.a matches regex '^x.{}$'", "Xx7", "xx7x"),
        ("raw_event.a matches regex exactly '^x.{}$'", "xx7", "Xx7"),
        ("raw_event.a[0] == {}", [7], {"0": 7}),
        ("raw_event.a.b{} exists", {"b7": None}, {"b": 1}),
        ("raw_event.a.b{} > 1", {"b7": 0}, {"b": 2}),
        ("(raw_event.a == 'x' or raw_event.a == '{}') and raw_event.c exists", "7", None),
    ],
)
def test_each_kind_of_test_leads_to_its_own_rules(test: str, hit: Any, miss: Any) -> None:
    rules = conditions(*(test.format(n) for n in range(10, 5, -1)))
    assert candidates(rules, a=hit, c=1) == [3]
    assert candidates(rules, a=miss, c=1) == []


def test_every_one_of_several_conditions_leads_to_the_rule() -> None:
    either = compile_condition("raw_event.a == 1"), compile_condition("raw_event.b == 2")
    assert candidates([either], a=1) == [0]
    assert candidates([either], b=2) == [0]
    assert candidates([either], b=1) == []
    assert candidates([(either[0], compile_condition("now in Mon 00:00:00 to 12:00:00 Etc/UTC"))]) == [0]


def test_what_many_rules_must_not_see_is_looked_at_once() -> None:
    index = build_index(conditions(*["not raw_event.a == 'x'"] * 50))
    assert len(index.guards) == 1
    assert candidates(conditions(*["not raw_event.a == 'x'"] * 50), a="x") == []
    assert candidates(conditions(*["not raw_event.a == 'x'"] * 50)) == list(range(50))


def test_a_rule_is_passed_over_only_where_its_counter_would_not_be_asked() -> None:
    count = "trigger_count over 5 minutes > 3"
    rules = conditions(f"{count} and raw_event.a == 1", f"raw_event.a == 1 and {count}", f"raw_event.a == 1 or {count}")
    assert candidates(rules, a=2) == [0, 2]
    assert candidates(rules, a=1) == [0, 1, 2]


def test_patterns_that_cannot_be_joined_are_all_tried() -> None:
    rules = conditions(*(f"raw_event.a matches regex 'x{n}+'" for n in range(3)))
    index = build_index(rules, set_memory=1)
    assert index.candidates({"raw_event": {"a": "y"}}, Moment(NIGHT)) == [0, 1, 2]
    assert index.candidates({"raw_event": {"b": "y"}}, Moment(NIGHT)) == []
    assert [rule for rule, _ in index.residual] == [0, 1, 2]


@pytest.mark.parametrize("answer", [None, [1]])
def test_a_set_that_ran_out_of_memory_is_not_believed(answer: list[int] | None) -> None:
    class Exhausted:
        def Match(self, text: bytes) -> list[int] | None:  # noqa: N802 - RE2 calls it so
            return answer

    index = build_index(conditions(*(f"raw_event.a matches regex 'x{n}+'" for n in range(3))))
    texts = index.fields.inside["raw_event"].inside["a"].as_is
    assert texts is not None
    texts.joined = Exhausted()
    assert index.candidates({"raw_event": {"a": "y"}}, Moment(NIGHT)) == [0, 1, 2]


RESIDUAL = """
sets:
  start:
    - {rule: looked-up, when: event.source == 'a', then: {}}
    - {rule: pattern, when: "event.summary matches regex '^a'", then: {}}
    - {rule: half, when: [event.source == 'a', "not event.source == 'b'"], then: {}}
    - {rule: clock, when: "now in Mon 00:00:00 to 12:00:00 Etc/UTC", then: {}}
    - {rule: order, when: event.custom_details.n > 5, then: {}}
    - {rule: literal, when: "'a' matches event.source", then: {}}
    - {rule: all, then: {}}
"""


def test_the_rules_that_cost_something_for_every_alert_are_named(tmp_path: Path) -> None:
    fill(tmp_path, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": RESIDUAL})
    assert explain_cost(load_rules(tmp_path)) == [
        ("global", "start", "half", "`not event.source == 'b'` only says what must not be"),
        ("global", "start", "clock", "nothing in `now in Mon 00:00:00 to 12:00:00 Etc/UTC` can be looked up"),
        ("global", "start", "order", "`event.custom_details.n > 5` is tried for every alert that has the field"),
        (
            "global",
            "start",
            "literal",
            "`'a' matches event.source` compares no field with a text, a number or a pattern",
        ),
        ("global", "start", "all", "it has no condition"),
    ]
