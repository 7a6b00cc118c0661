"""Promises of evaluation for rule sets and alerts that nobody thought of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alertrouter.alert import DEDUP_KEY_LIMIT, Alert, Severity, Status
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import CacheQuery, CountQuery, Decision, Ruleset
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import fill
from tests.unit.test_condition_properties import CONDITIONS, JSON

WINDOW = "now in Sat,Sun 00:00:00 to 12:00:00 Europe/London"
COUNTING = [
    "trigger_count over 5 minutes > 1",
    "not resetting_trigger_count over 1 hour >= 2",
    "raw_event.a exists and resetting_trigger_count over 1 hour >= 1",
    f"{WINDOW} or trigger_count over 1 minute == 1",
]
CACHE_VARIABLES: list[dict[str, Any]] = [
    {"name": "plain", "type": "recent_value", "source": "raw_event.a", "regex": "(.)(b)?"},
    {"name": "last", "when": "raw_event.b exists", "type": "recent_value", "source": "raw_event", "regex": ".+"},
    {"name": "windowed", "when": WINDOW, "type": "trigger_count", "over": "5m"},
    {"name": "all", "type": "trigger_count", "over": "1h"},
    {"name": "back", "when": "cache_var.all == 1", "type": "recent_value", "source": "cache_var.last", "regex": "."},
]
REMEMBERING = [
    "cache_var.plain == 'a'",
    "cache_var.last matches part raw_event.a or cache_var.windowed >= 1",
    "not cache_var.back exists",
]
HELD_BACK = {"reason": "known", "expires": "2027-01-12"}
ACTIONS: list[dict[str, Any]] = [
    {},
    {"suppress": True, **HELD_BACK},
    {"drop": True, **HELD_BACK},
    {"suspend": "5m", "priority": "P1", "event_action": "resolve"},
    {
        "severity": "info",
        "annotate": "{{raw_event}}",
        "escalation_policy": "all",
        "custom_fields": {"a": "{{event.group}}"},
    },
    {
        "variables": [{"name": "v", "path": "raw_event.a", "value": "(.)(b)?"}],
        "extractions": [
            {"target": "event.summary", "template": "{{variables.v}}{{raw_event.b}}"},
            {"target": "event.severity", "source": "raw_event.b", "regex": r"\w+"},
            {"target": "event.custom_details.x", "source": "event.custom_details", "regex": ".+"},
        ],
    },
    {
        "notify": "pagerduty",
        "automation": {"name": "a", "job": "b", "parameters": {"c": "{{raw_event}}", "d": 1}},
        "dedup_key": "{{raw_event.a}}{{cache_var.last}}{{cache_var.all}}",
    },
]
RULES = st.lists(
    st.tuples(
        st.lists(CONDITIONS | st.sampled_from([*COUNTING, *REMEMBERING, WINDOW]), max_size=2), st.sampled_from(ACTIONS)
    ),
    max_size=5,
)


def one_set(rules: list[tuple[list[str], dict[str, Any]]]) -> str:
    return json.dumps(
        {
            "cache_variables": CACHE_VARIABLES,
            "sets": {
                "start": [
                    {"rule": f"r{number}", "owner": "me", "then": then, **({"when": when} if when else {})}
                    for number, (when, then) in enumerate(rules)
                ]
            },
        }
    )


@given(
    rules=RULES,
    status=st.sampled_from(Status),
    severity=st.sampled_from(Severity),
    raw=st.dictionaries(st.sampled_from("ab"), JSON),
    now=st.integers(NIGHT - 2**33, NIGHT + 2**33),
    later=st.integers(0, 2**33),
    remembered=st.text(max_size=3) | st.none(),
    count=st.integers(0, 3),
)
def test_every_alert_gets_one_decision_from_every_rule_set(
    tmp_path_factory: pytest.TempPathFactory,
    rules: list[tuple[list[str], dict[str, Any]]],
    status: Status,
    severity: Severity,
    raw: dict[str, Any],
    now: int,
    later: int,
    remembered: str | None,
    count: int,
) -> None:
    directory = tmp_path_factory.getbasetemp() / "any-rules"
    fill(directory, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": one_set(rules)})
    ruleset = load_rules(directory)
    alert = replace(make_alert(status=status, severity=severity), raw=raw)
    decision = evaluate(alert, ruleset, now)

    # the trace changes nothing
    traced = evaluate(alert, ruleset, now, trace=True)
    assert without_trace(traced) == decision

    # asked for one by one, counts of 1 and nothing remembered come to the same
    assert answered(alert, ruleset, now, 1, None) == decision

    # and with any other answers it comes to an end, too
    other = answered(alert, ruleset, now, count, remembered)
    assert len(other.dedup_key) <= DEDUP_KEY_LIMIT
    assert all(write.value for write in other.cache_writes)

    # it stands until its time is up
    moment = now + later if not decision.until else min(now + later, decision.until - 1)
    assert evaluate(alert, ruleset, moment) == decision


def answered(alert: Alert, ruleset: Ruleset, now: int, count: int, remembered: str | None) -> Decision:
    """The decision with these answers to all that it asks for, each asked for once."""
    answers: dict[CountQuery | CacheQuery, int | str | None] = {}
    while wanted := (decision := evaluate(alert, ruleset, now, counts=answers)).wants:
        assert answers.keys().isdisjoint(wanted)
        for query in wanted:
            # only a trigger is counted
            assert alert.status is Status.FIRING or isinstance(query, CacheQuery) or query.peek
            answers[query] = remembered if isinstance(query, CacheQuery) else count
    return decision


def without_trace(decision: Decision) -> Decision:
    return Decision(**{**{name: getattr(decision, name) for name in Decision.__slots__}, "trace": ()})
