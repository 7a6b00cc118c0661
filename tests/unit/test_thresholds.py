"""Thresholds: which counts a decision asks for, in which order, and which of them start anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import CacheQuery, CountQuery, Decision
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import fill

Decide = Callable[..., Decision]


@pytest.fixture
def decide(tmp_path: Path) -> Decide:
    """The decision of global rules r0, r1, ... that each have these conditions; counts are given by key."""

    def run(*rules: list[str], counts: Mapping[str, int] | None = None, status: str = "firing") -> Decision:
        lines: list[str] = []
        for number, conditions in enumerate(rules):
            when = (f'        - "{each}"' for each in conditions)
            lines += [f"    - rule: r{number}", "      when:", *when, "      then: {}"]
        text = "\n".join(["sets:", "  start:", *lines, ""])
        fill(tmp_path, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": text})
        known: dict[CountQuery | CacheQuery, int | str | None] | None = (
            None if counts is None else {query(key): count for key, count in counts.items()}
        )
        return evaluate(make_alert(status=status), load_rules(tmp_path), NIGHT, counts=known)

    return run


def query(key: str) -> CountQuery:
    """`r0/1/27` is the threshold at 27 of the second condition of rule r0; with `!` in front it is a resetting one."""
    return CountQuery(f"global/start/{key.removeprefix('!')}", 300_000, key.startswith("!"))


def test_without_counts_each_is_1(decide: Decide) -> None:
    assert decide(["trigger_count over 5 minutes == 1"]).matched == ("r0",)
    assert decide(["trigger_count over 5 minutes > 1"]).matched == ()
    assert decide(["resetting_trigger_count over 5 minutes >= 1"]).matched == ("r0",)


@pytest.mark.parametrize(("count", "matched"), [(3, ()), (4, ("r0",))])
def test_a_count_that_is_known_is_compared(decide: Decide, count: int, matched: tuple[str, ...]) -> None:
    decision = decide(["trigger_count over 5 minutes > 3"], counts={"r0/0/0": count})
    assert (decision.matched, decision.wants) == (matched, ())


def test_a_count_that_is_not_known_is_wanted_and_nothing_after_it_is_looked_at(decide: Decide) -> None:
    rules = (["trigger_count over 5 minutes > 3 or trigger_count over 5 minutes < 2"], ["true"])
    first = decide(*rules, counts={})
    assert (first.wants, first.matched) == ((query("r0/0/0"),), ())
    second = decide(*rules, counts={"r0/0/0": 2})
    assert (second.wants, second.matched) == ((query("r0/0/36"),), ())
    third = decide(*rules, counts={"r0/0/0": 2, "r0/0/36": 2})
    assert (third.wants, third.matched) == ((), ("r1",))


def test_only_what_passes_the_left_side_of_and_is_counted(decide: Decide) -> None:
    assert decide(["false and trigger_count over 5 minutes > 3"], counts={}).wants == ()
    assert decide(["true and trigger_count over 5 minutes > 3"], counts={}).wants == (query("r0/0/9"),)
    assert decide(["trigger_count over 5 minutes > 3 and false"], counts={}).wants == (query("r0/0/0"),)


def test_each_condition_of_each_rule_counts_for_itself(decide: Decide) -> None:
    rules = (["false", "trigger_count over 5 minutes > 3"], ["trigger_count over 5 minutes > 3"])
    assert decide(*rules, counts={}).wants == (query("r0/1/0"),)
    assert decide(*rules, counts={"r0/1/0": 1}).wants == (query("r1/0/0"),)


def test_a_resetting_count_starts_anew_once_its_condition_holds(decide: Decide) -> None:
    condition = ["resetting_trigger_count over 5 minutes > 3"]
    assert decide(condition, counts={"!r0/0/0": 3}).resets == ()
    assert decide(condition, counts={"!r0/0/0": 4}).resets == (query("!r0/0/0"),)
    assert decide(["trigger_count over 5 minutes > 3"], counts={"r0/0/0": 4}).resets == ()


def test_a_count_that_was_not_looked_at_or_whose_condition_failed_does_not_start_anew(decide: Decide) -> None:
    assert decide(["true or resetting_trigger_count over 5 minutes > 3"], counts={}).resets == ()
    reached = "resetting_trigger_count over 5 minutes > 3"
    assert decide([f"{reached} and false"], ["true"], counts={"!r0/0/0": 9}).resets == ()
    assert decide([f"{reached} and false", "true"], counts={"!r0/0/0": 9}).resets == ()
    both = {"!r0/0/0": 9, "!r0/1/0": 9}
    assert decide([f"{reached} and false", reached], counts=both).resets == (query("!r0/1/0"),)


@pytest.mark.parametrize("status", ["acknowledged", "resolved"])
@pytest.mark.parametrize("counts", [None, {}])
def test_what_is_no_trigger_is_never_counted(decide: Decide, status: str, counts: Mapping[str, int] | None) -> None:
    decision = decide(["trigger_count over 5 minutes == 0"], counts=counts, status=status)
    assert (decision.matched, decision.wants) == (("r0",), ())


def test_the_reason_names_the_count(tmp_path: Path) -> None:
    text = "sets: {start: [{rule: r, when: trigger_count over 5 minutes > 3, then: {}}]}\n"
    fill(tmp_path, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": text})
    decision = evaluate(make_alert(), load_rules(tmp_path), NIGHT, trace=True)
    assert decision.trace[0].why == "`trigger_count over 5 minutes > 3` is false: it is 1"
