"""Promises of conditions on values and texts that nobody thought of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alertrouter.rules.condition import ConditionError, compile_condition
from alertrouter.rules.moment import Moment

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
OPERANDS = st.sampled_from(
    [
        "raw_event.a",
        "raw_event.b",
        "raw_event.a.b",
        "raw_event.a[0]",
        "raw_event",
        "'a'",
        "'5'",
        "5",
        "0.5",
        "true",
        "now",
    ]
)
TESTS = st.one_of(
    st.builds("{} {} {}".format, OPERANDS, st.sampled_from(["==", ">", ">=", "<", "<="]), OPERANDS),
    st.builds(
        "{} matches{} {}".format, OPERANDS, st.sampled_from(["", " part", " exactly", " part exactly"]), OPERANDS
    ),
    st.builds(
        "{} matches regex{} '{}'".format, OPERANDS, st.sampled_from(["", " exactly"]), st.sampled_from(["a", "^.$"])
    ),
    st.sampled_from(["raw_event.a exists", "raw_event.a.b exists", "now in Mon 00:00:00 to 12:00:00 Etc/UTC"]),
    OPERANDS,
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not {}".format, inner),
    ),
    max_leaves=6,
)


@given(CONDITIONS, st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), st.integers(0, 2**42))
def test_evaluation_never_fails_and_its_words_agree_with_it(condition: str, raw: dict[str, Any], now: int) -> None:
    compiled = compile_condition(condition)
    view = {"event": {}, "raw_event": raw}
    assert compiled.evaluate(view, Moment(now)).holds is compiled.holds(view, Moment(now))


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [10**5000, nested(50_000), float("nan"), float("-inf"), "\ud800", {"\ud800": "\udfff"}, "\x00", "a" * 10_000_000],
    ids=["huge integer", "deep nesting", "nan", "infinity", "surrogate", "surrogates inside", "nul", "10 MB"],
)
@pytest.mark.parametrize(
    "test", ["== 1", "> 1", "matches 'x'", "matches part '\n'", "matches regex 'x$'", "matches raw_event.a", "exists"]
)
def test_evaluation_takes_whatever_python_calls_json(value: Any, test: str) -> None:
    condition = compile_condition(f"raw_event.a {test}")
    view = {"raw_event": {"a": value}}
    assert condition.evaluate(view, Moment(0)).holds is condition.holds(view, Moment(0))


def problem_with(text: str) -> ConditionError | None:
    try:
        compile_condition(text)
    except ConditionError as error:
        return error
    return None


@given(st.text())
def test_any_text_compiles_or_gets_a_place_and_a_reason(text: str) -> None:
    problem = problem_with(text)
    assume(problem is not None)
    assert problem is not None
    lines = text.split("\n")
    assert 1 <= problem.line <= len(lines)
    assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
    assert problem.message


WORDS = """
    event . [ ] ( ) ' '' 'a' 0 -1 1.5 == != > matches part regex exactly exists and or not now in over true trigger_count
    2026-01-01 Mon 09:00:00 to Etc/UTC 5 minutes # " , - raw_event.a null AND
"""


@given(st.lists(st.sampled_from(WORDS.split()), max_size=12))
def test_any_run_of_words_compiles_or_gets_a_place_and_a_reason(words: list[str]) -> None:
    text = " ".join(words)
    problem = problem_with(text)
    assume(problem is not None)
    assert problem is not None
    assert 1 <= problem.column <= len(text) + 1
    assert problem.message
