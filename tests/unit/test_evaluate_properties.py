"""Promises of evaluation for rule sets and alerts that nobody thought of."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alertrouter.alert import Severity, Status
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import CountQuery, Decision
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
]
RULES = st.lists(
    st.tuples(st.lists(CONDITIONS | st.sampled_from([*COUNTING, WINDOW]), max_size=2), st.sampled_from(ACTIONS)),
    max_size=5,
)


def one_set(rules: list[tuple[list[str], dict[str, Any]]]) -> str:
    return json.dumps(
        {
            "sets": {
                "start": [
                    {"rule": f"r{number}", "owner": "me", "then": then, **({"when": when} if when else {})}
                    for number, (when, then) in enumerate(rules)
                ]
            }
        }
    )


@given(
    rules=RULES,
    status=st.sampled_from(Status),
    severity=st.sampled_from(Severity),
    raw=st.dictionaries(st.sampled_from("ab"), JSON),
    now=st.integers(NIGHT - 2**33, NIGHT + 2**33),
    later=st.integers(0, 2**33),
)
def test_every_alert_gets_one_decision_from_every_rule_set(
    tmp_path_factory: pytest.TempPathFactory,
    rules: list[tuple[list[str], dict[str, Any]]],
    status: Status,
    severity: Severity,
    raw: dict[str, Any],
    now: int,
    later: int,
) -> None:
    directory = tmp_path_factory.getbasetemp() / "any-rules"
    fill(directory, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": one_set(rules)})
    ruleset = load_rules(directory)
    alert = replace(make_alert(status=status, severity=severity), raw=raw)
    decision = evaluate(alert, ruleset, now)

    # the trace changes nothing
    traced = evaluate(alert, ruleset, now, trace=True)
    assert without_trace(traced) == decision

    # asked for one by one, counts of 1 come to the same
    counts: dict[CountQuery, int] = {}
    while wanted := (asked := evaluate(alert, ruleset, now, counts=counts)).wants:
        assert status is Status.FIRING
        assert counts.keys().isdisjoint(wanted)
        counts |= dict.fromkeys(wanted, 1)
    assert asked == decision

    # it stands until its time is up
    moment = now + later if not decision.until else min(now + later, decision.until - 1)
    assert evaluate(alert, ruleset, moment) == decision


def without_trace(decision: Decision) -> Decision:
    return Decision(**{**{name: getattr(decision, name) for name in Decision.__slots__}, "trace": ()})
