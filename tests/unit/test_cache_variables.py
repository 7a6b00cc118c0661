"""Cache variables: what rules remember from alert to alert, what they ask for, and who may read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import CacheQuery, CacheWrite, CountQuery, Decision
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import fill

Answers = Mapping[CountQuery | CacheQuery, int | str | None]

LAST = CacheQuery("global/cache/last")
HITS = CountQuery("global/cache/hits", 600_000, resetting=False)
PEEK = CountQuery("global/cache/hits", 600_000, resetting=False, peek=True)

RECENT = "{name: last, type: recent_value, source: event.custom_details.host, regex: 'db-([0-9]+)'}"
COUNT = "{name: hits, type: trigger_count, over: 10m, when: event.custom_details.host == 'db-1'}"
READS = "sets: {start: [{rule: seen, when: cache_var.last == '1', then: {}}, {rule: often, when: cache_var.hits > 3, then: {}}]}"


def decide(
    directory: Path, variables: str, counts: Answers | None, then: str = "{}", trace: bool = False, **alert: Any
) -> Decision:
    """The decision of global rules that have these variables: any two named `last` and `hits` are read."""
    rules = "sets: {start: []}" if "last" not in variables or "hits" not in variables else READS
    fill(
        directory,
        {
            "global.yaml": f"cache_variables: [{variables}]\n{rules}\ncatch_all: {then}\n",
            "router.yaml": "catch_all: {route_to: unrouted}\n",
        },
    )
    return evaluate(make_alert(**alert), load_rules(directory), NIGHT, counts=counts, trace=trace)


def test_what_the_pattern_finds_is_used_at_once_and_remembered(tmp_path: Path) -> None:
    decision = decide(tmp_path, RECENT, {}, "{annotate: 'on {{cache_var.last}}'}", host="db-17")
    assert decision.annotations == ("on 17",)
    assert decision.cache_writes == (CacheWrite("global/cache/last", "17"),)
    assert decision.wants == ()


@pytest.mark.parametrize(
    "variable",
    [
        RECENT,
        "{name: last, type: recent_value, source: event.custom_details.host, regex: 'web-(x?)'}",
        "{name: last, type: recent_value, source: event.group, regex: '.*'}",
        "{name: last, when: 'false', type: recent_value, source: event.custom_details.host, regex: '.+'}",
    ],
)
def test_where_it_finds_nothing_or_has_no_turn_what_was_remembered_is_asked_for(tmp_path: Path, variable: str) -> None:
    then = "{annotate: 'on {{cache_var.last}}'}"
    assert decide(tmp_path, variable, {}, then, host="web-1").wants == (LAST,)
    decision = decide(tmp_path, variable, {LAST: "12"}, then, host="web-1")
    assert (decision.annotations, decision.cache_writes, decision.wants) == (("on 12",), (), ())


@pytest.mark.parametrize("counts", [None, {LAST: None}])
def test_a_value_that_is_not_remembered_is_not_there(tmp_path: Path, counts: Answers | None) -> None:
    decision = decide(tmp_path, RECENT, counts, "{annotate: 'on {{cache_var.last}}'}", trace=True, host="web-1")
    assert decision.annotations == ("on ",)
    assert decision.trace[0].warnings == ("`cache_var.last` is not there",)


@pytest.mark.parametrize("status", ["firing", "acknowledged", "resolved"])
def test_any_alert_is_remembered(tmp_path: Path, status: str) -> None:
    assert decide(tmp_path, RECENT, {}, status=status, host="db-1").cache_writes == (
        CacheWrite("global/cache/last", "1"),
    )


@pytest.mark.parametrize(
    ("status", "host", "query"),
    [
        ("firing", "db-1", HITS),
        ("firing", "db-2", PEEK),
        ("resolved", "db-1", PEEK),
        ("acknowledged", "db-1", PEEK),
    ],
)
def test_only_a_trigger_whose_condition_holds_is_counted(
    tmp_path: Path, status: str, host: str, query: CountQuery
) -> None:
    then = "{annotate: '{{cache_var.hits}}'}"
    assert decide(tmp_path, COUNT, {}, then, status=status, host=host).wants == (query,)
    assert decide(tmp_path, COUNT, {query: 7}, then, status=status, host=host).annotations == ("7",)
    assert decide(tmp_path, COUNT, None, then, status=status, host=host).annotations == ("1",)


@pytest.mark.parametrize(
    ("answers", "matched"),
    [
        ({LAST: "1", PEEK: 9}, ("seen",)),
        ({LAST: None, PEEK: 4}, ("often",)),
        ({LAST: "4", PEEK: 3}, ()),
    ],
)
def test_conditions_read_them_as_text_and_as_number(tmp_path: Path, answers: Answers, matched: tuple[str, ...]) -> None:
    assert decide(tmp_path, f"{RECENT}, {COUNT}", answers, host="x").matched == matched


def test_the_reason_shows_the_value(tmp_path: Path) -> None:
    decision = decide(tmp_path, f"{RECENT}, {COUNT}", {LAST: "4", PEEK: 3}, trace=True, host="x")
    assert [each.why for each in decision.trace[:2]] == [
        "`cache_var.last == '1'` is false: it is \"4\"",
        "`cache_var.hits > 3` is false: it is 3",
    ]


def test_all_are_asked_for_at_once_but_what_depends_on_an_answer(tmp_path: Path) -> None:
    back = "{name: back, type: trigger_count, over: 1h, when: cache_var.last == '1'}"
    variables = f"{RECENT}, {COUNT}, {back}"
    assert decide(tmp_path, variables, {}, host="x").wants == (LAST, PEEK)
    counted = CountQuery("global/cache/back", 3_600_000, resetting=False)
    assert decide(tmp_path, variables, {LAST: "1", PEEK: 0}, host="x").wants == (counted,)
    looked_at = CountQuery("global/cache/back", 3_600_000, resetting=False, peek=True)
    assert decide(tmp_path, variables, {LAST: "2", PEEK: 0}, host="x").wants == (looked_at,)


def test_one_may_be_taken_from_another_before_it(tmp_path: Path) -> None:
    second = "{name: digit, type: recent_value, source: cache_var.last, regex: '^.'}"
    then = "{annotate: '{{cache_var.digit}}'}"
    assert decide(tmp_path, f"{RECENT}, {second}", {}, then, host="db-42").annotations == ("4",)


def test_and_is_not_asked_for_before_that_one_is_known(tmp_path: Path) -> None:
    second = "{name: digit, type: recent_value, source: cache_var.last, regex: '^.'}"
    assert decide(tmp_path, f"{RECENT}, {second}", {}, host="x").wants == (LAST,)
    assert decide(tmp_path, f"{RECENT}, {second}", {LAST: "42"}, host="x").cache_writes == (
        CacheWrite("global/cache/digit", "4"),
    )


def test_the_time_in_a_condition_bounds_how_long_the_decision_stands(tmp_path: Path) -> None:
    windowed = "{name: w, type: trigger_count, over: 1h, when: 'now > 2027-01-10 04:00:00 Etc/UTC'}"
    assert decide(tmp_path, windowed, None).until == 1_799_553_600_001


SERVICES = {
    "global.yaml": "cache_variables: [{name: last, type: recent_value, source: event.source, regex: '.+'}]\n",
    "router.yaml": "catch_all: {route_to: shop}\n",
    "services/shop.yaml": "cache_variables: [{name: last, type: recent_value, source: event.group, regex: '.+'}]\n"
    "catch_all: {annotate: '{{cache_var.last}}'}\n",
}


def test_each_file_has_its_own(tmp_path: Path) -> None:
    fill(tmp_path, SERVICES)
    alert = make_alert()
    ruleset = load_rules(tmp_path)
    of_shop = CacheQuery("service:shop/cache/last")
    assert evaluate(alert, ruleset, NIGHT, counts={}).wants == (of_shop,)
    assert evaluate(alert, ruleset, NIGHT, counts={of_shop: None}).annotations == ()
    decision = evaluate(replace(alert, event=replace(alert.event, group="web")), ruleset, NIGHT, counts={})
    assert decision.annotations == ("web",)
    assert decision.cache_writes == (CacheWrite("global/cache/last", "payment-1"), CacheWrite(of_shop.key, "web"))


def test_a_dropped_alert_reaches_no_other_files_variables(tmp_path: Path) -> None:
    drop = "catch_all: {owner: me, drop: true, reason: known, expires: 2027-03-31}\n"
    fill(tmp_path, {**SERVICES, "global.yaml": SERVICES["global.yaml"] + drop})
    decision = evaluate(make_alert(), load_rules(tmp_path), NIGHT, counts={})
    assert (decision.wants, decision.cache_writes) == ((), (CacheWrite("global/cache/last", "payment-1"),))


def test_a_senders_text_is_remembered_as_text(tmp_path: Path) -> None:
    hostile = "{{event.source}} \x00 %s (.*)"
    variable = "{name: last, type: recent_value, source: event.custom_details.host, regex: '(?s).+'}"
    decision = decide(tmp_path, variable, {}, "{annotate: '{{cache_var.last}}'}", host=hostile)
    assert decision.annotations == (hostile,)
    assert decision.cache_writes[0].value == hostile
