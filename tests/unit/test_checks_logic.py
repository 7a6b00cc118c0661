"""What follows from a condition: never more than is true of every alert."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from alertrouter.rules.checks.unreachable_rule import _clues, _traits
from alertrouter.rules.condition import compile_condition
from alertrouter.rules.logic import fields_needed, implies, meaning
from alertrouter.rules.moment import Moment
from alertrouter.rules.syntax import Node, Path, walk

PATHS = st.sampled_from(["event.a", "event.b"])
TEXTS = st.sampled_from(["'x'", "'X'", "'xy'", "''", "'1'", "1", "1.0", "2", "true"])
NUMBERS = st.sampled_from(["1", "1.0", "1.5", "2", "-3"])
TESTS = st.one_of(
    st.builds("{} {} {}".format, PATHS, st.sampled_from(["==", ">", ">=", "<", "<="]), NUMBERS),
    st.builds("{} == {}".format, PATHS, TEXTS),
    st.builds("{} matches {}{}".format, PATHS, st.sampled_from(["", "part ", "exactly ", "part exactly "]), TEXTS),
    st.builds("{} matches regex {}".format, PATHS, st.sampled_from(["'x'", "'^x'"])),
    st.builds("{} exists".format, PATHS),
    st.builds("{} == {}".format, PATHS, PATHS),
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: " and ".join(f"({part})" for part in parts)),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: " or ".join(f"({part})" for part in parts)),
    ),
    max_leaves=5,
)
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 1, 1.0, 1.5, 2, 3, -3, "x", "X", "xy", "XY", "", "1", "ß", [], {}]
)
EVENTS = st.dictionaries(st.sampled_from(["a", "b"]), VALUES)


def tree(text: str) -> Node:
    return compile_condition(text).tree


def holds(text: str, event: dict[str, Any]) -> bool:
    return compile_condition(text).holds({"event": event}, Moment(0))


@given(CONDITIONS, CONDITIONS, EVENTS)
@example("event.a >= 1", "event.a > 1", {"a": 1})
@example("event.a == 'x'", "event.a matches part exactly 'X'", {"a": "x"})
@example("not (event.a > 1)", "not (event.a > 2)", {"a": 3})
@example("event.a matches 'x'", "event.a == 'x'", {"a": "X"})
@example("event.a matches part 'x'", "event.a matches 'x'", {"a": "xy"})
@example("event.a < 2", "event.a < 1", {"a": 1.5})
def test_what_is_implied_holds(narrow: str, broad: str, event: dict[str, Any]) -> None:
    if implies(tree(narrow), tree(broad)) and holds(narrow, event):
        assert holds(broad, event)


@given(CONDITIONS, CONDITIONS)
def test_a_condition_follows_from_itself_from_more_and_from_one_part(one: str, other: str) -> None:
    assert implies(tree(one), tree(f"({one})"))
    assert implies(tree(f"({one}) and ({other})"), tree(other))
    assert implies(tree(other), tree(f"({one}) or ({other})"))


@given(CONDITIONS, CONDITIONS)
def test_what_is_implied_is_found_by_a_common_trait(one: str, other: str) -> None:
    for narrow, broad in ((one, other), (f"({one}) and ({other})", one), (one, f"({one}) or ({other})")):
        if implies(tree(narrow), tree(broad)):
            assert _clues(tree(broad)) & _traits(tree(narrow))


@given(CONDITIONS, EVENTS)
def test_where_a_condition_holds_the_fields_it_needs_are_there(text: str, event: dict[str, Any]) -> None:
    needed = fields_needed(tree(text))
    for path in walk(tree(text)):
        if isinstance(path, Path) and meaning(path) in needed and holds(text, event):
            assert path.keys[0] in event


def test_counters_of_two_rules_are_two_counters() -> None:
    condition = tree("trigger_count over 5 minutes > 3")
    assert not implies(condition, condition)


def test_deep_conditions_are_compared_at_once() -> None:
    deep = "event.a exists"
    for index in range(15):
        deep = f"({deep} or event.b == {index}) and event.b == {index + 100}"
    other = deep.replace("event.a exists", "event.a == 1")
    assert implies(tree(other), tree(deep))
    assert not implies(tree(deep), tree(other))
