"""One alert through global rules, router and service rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Decision, Ruleset, Verdict
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import fill
from tests.unit.test_condition_properties import JSON

ROUTER = """
sets:
  start:
    - rule: to-shop
      when: event.custom_details.service == 'shop'
      then: {route_to: shop}
    - rule: critical-to-ops
      when: event.severity == 'critical'
      then: {route_to: ops}
catch_all: {route_to: unrouted}
"""
PRIORITIES = """
priorities:
  P1: {severity: critical}
  P2: {severity: error}
  P5: {severity: error}
"""
SHOP = "team: team-shop\n"
OPS = "routing_key: {env: PD_KEY_OPS}\n"
#: 2027-04-01T00:00:00Z
APRIL = 1_806_537_600_000


@pytest.fixture
def decide(tmp_path: Path) -> Any:
    """The decision, with its trace, of a small directory in which some files are replaced or added."""

    def run(files: dict[str, str], now: int = NIGHT, **alert: Any) -> Decision:
        fill(tmp_path, {"router.yaml": ROUTER, "services/shop.yaml": SHOP, "services/ops.yaml": OPS, **files})
        return evaluate(make_alert(**alert), load_rules(tmp_path), now, trace=True)

    return run


def rules(*each: str, catch_all: str = "{}", **sets: str) -> str:
    """A file whose set `start` holds these rules, written `name | condition | actions`."""

    def one_set(name: str, texts: tuple[str, ...]) -> str:
        lines = [f"  {name}:"] + ["  " + line for text in texts for line in one_rule(text)]
        return "\n".join(lines) if texts else f"  {name}: []"

    def one_rule(text: str) -> list[str]:
        name, condition, then = (part.strip() for part in text.split("|"))
        when = [f'    when: "{condition}"'] if condition else []
        return [f"  - rule: {name}", "    owner: team-sre", *when, f"    then: {then}"]

    parts = [one_set("start", each), *(one_set(name, tuple(text.splitlines())) for name, text in sets.items())]
    return "sets:\n" + "\n".join(parts) + f"\ncatch_all: {catch_all}\n"


def test_goes_through_global_router_and_service(decide: Any) -> None:
    decision = decide(
        {
            "global.yaml": rules("first | event.source exists | {annotate: seen}"),
            "services/shop.yaml": rules("last | | {severity: warning}"),
        },
        service="shop",
    )
    assert decision.service == "shop"
    assert decision.matched == ("first", "to-shop", "last")
    assert decision.annotations == ("seen",)
    assert decision.event.severity is Severity.WARNING
    assert [each.orchestration for each in decision.trace] == ["global", "router", "service:shop"]


def test_the_first_match_wins_and_no_other_rule_of_the_set_is_looked_at(decide: Any) -> None:
    text = rules("one | false | {}", "two | true | {annotate: two}", "three | true | {annotate: three}")
    decision = decide({"global.yaml": text}, service="shop")
    assert decision.annotations == ("two",)
    looked_at = [(each.rule, each.matched) for each in decision.trace if each.orchestration == "global"]
    assert looked_at == [("one", False), ("two", True)]


def test_the_catch_all_applies_where_no_rule_of_the_last_set_matched(decide: Any) -> None:
    text = rules(
        "one | true | {route_to: more, annotate: one}",
        catch_all="{annotate: caught}",
        more="two | false | {annotate: two}",
    )
    decision = decide({"global.yaml": text}, service="shop")
    assert decision.annotations == ("one", "caught")
    assert [(each.set, each.rule) for each in decision.trace if each.orchestration == "global"] == [
        ("start", "one"),
        ("more", "two"),
        ("more", "catch_all"),
    ]


def test_the_catch_all_does_not_apply_after_a_match_without_a_route(decide: Any) -> None:
    text = rules("one | true | {annotate: one}", catch_all="{annotate: caught}")
    assert decide({"global.yaml": text}, service="shop").annotations == ("one",)


def test_several_conditions_are_alternatives(decide: Any) -> None:
    text = "sets: {start: [{rule: r, when: ['false', 'true'], then: {annotate: hit}}]}\n"
    assert decide({"global.yaml": text}, service="shop").annotations == ("hit",)


def test_a_disabled_rule_is_passed_over(decide: Any) -> None:
    text = "sets: {start: [{rule: r, disabled: true, then: {annotate: hit}}]}\n"
    decision = decide({"global.yaml": text}, service="shop")
    assert decision.annotations == ()
    assert decision.trace[0].why == "it is disabled"


def test_the_router_sees_what_the_global_rules_changed(decide: Any) -> None:
    text = rules("worse | event.severity == 'warning' | {severity: critical}")
    assert decide({"global.yaml": text}, severity="warning", service="x").service == "ops"
    assert decide({"global.yaml": ""}, severity="warning", service="x").service == ""


def test_later_rules_override_and_notes_links_and_details_add_up(decide: Any) -> None:
    first = "{severity: info, priority: P1, annotate: a, enrich: {links: [{href: 'https://a.example.org'}], details: {x: 1, y: 1}}}"
    last = "{severity: error, annotate: b, enrich: {links: [{href: 'https://b.example.org'}], details: {y: 2}}}"
    decision = decide(
        {
            "alertrouter.yaml": PRIORITIES,
            "global.yaml": rules(f"first | true | {first}"),
            "services/shop.yaml": rules(f"last | true | {last}"),
        },
        service="shop",
    )
    assert decision.event.severity is Severity.ERROR
    assert decision.priority == "P1"
    assert decision.annotations == ("a", "b")
    assert [link.href for link in decision.links] == ["https://a.example.org", "https://b.example.org"]
    assert decision.details == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("then", "table", "severity", "priority"),
    [
        ("{priority: P2}", PRIORITIES, "error", "P2"),
        ("{priority: P2, severity: info}", PRIORITIES, "info", "P2"),
        ("{priority: P2}", "", "critical", "P2"),
        ("{}", PRIORITIES, "critical", "P1"),
        ("{severity: error}", PRIORITIES, "error", "P2"),
        ("{severity: info}", PRIORITIES, "info", ""),
        ("{severity: error}", "", "error", ""),
    ],
)
def test_priority_and_severity_follow_each_other(
    decide: Any, then: str, table: str, severity: str, priority: str
) -> None:
    decision = decide({"alertrouter.yaml": table, "global.yaml": rules(f"r | | {then}")}, service="shop")
    assert (decision.event.severity, decision.priority) == (severity, priority)


def test_what_reaches_only_the_catch_all_is_unrouted_and_pages_through_the_default_key(decide: Any) -> None:
    decision = decide({"unrouted.yaml": rules("u | | {severity: info}")}, severity="warning", service="x")
    assert (decision.verdict, decision.service) == (Verdict.DELIVER, "")
    assert decision.matched == ("u",)
    assert decision.destinations == ("pagerduty:default",)


def test_the_catch_all_of_the_router_may_name_a_service(decide: Any) -> None:
    decision = decide({"router.yaml": "catch_all: {route_to: ops}\n"}, service="x")
    assert decision.service == "ops"


@pytest.mark.parametrize(("service", "destination"), [("shop", "pagerduty:default"), ("x", "pagerduty:ops")])
def test_a_service_with_a_key_of_its_own_is_paged_through_it(decide: Any, service: str, destination: str) -> None:
    assert decide({}, service=service).destinations == (destination,)


SUPPRESS = "{suppress: true, reason: known, expires: 2027-03-31}"


@pytest.mark.parametrize(("now", "verdict"), [(APRIL - 1, Verdict.SUPPRESS), (APRIL, Verdict.DELIVER)])
def test_a_suppression_ends_with_its_last_day_in_utc(decide: Any, now: int, verdict: Verdict) -> None:
    decision = decide({"global.yaml": rules(f"quiet | true | {SUPPRESS}")}, now=now, service="shop")
    assert decision.verdict is verdict
    assert decision.rule == ("quiet" if verdict is Verdict.SUPPRESS else "")
    assert decision.reason == ("known" if verdict is Verdict.SUPPRESS else "")


def test_an_expired_suppression_is_passed_over_and_says_so(decide: Any) -> None:
    text = rules(f"quiet | true | {SUPPRESS}", "next | true | {annotate: next}")
    decision = decide({"global.yaml": text}, now=APRIL, service="shop")
    assert decision.annotations == ("next",)
    assert decision.trace[0].why == "its suppression expired on 2027-04-01 00:00:00 Etc/UTC, so it is passed over"


def test_a_suppressed_alert_is_still_routed_and_changed(decide: Any) -> None:
    text = rules(f"quiet | true | {SUPPRESS}")
    decision = decide({"global.yaml": text, "services/shop.yaml": rules("s | | {severity: info}")}, service="shop")
    assert (decision.verdict, decision.service) == (Verdict.SUPPRESS, "shop")
    assert decision.event.severity is Severity.INFO


def test_the_last_suppression_is_the_one_on_record(decide: Any) -> None:
    again = "{suppress: true, reason: moving house, expires: 2027-03-31}"
    decision = decide(
        {"global.yaml": rules(f"quiet | | {SUPPRESS}"), "services/shop.yaml": rules(f"move | | {again}")},
        service="shop",
    )
    assert (decision.rule, decision.reason) == ("move", "moving house")


def test_a_suppression_in_the_catch_all_is_on_record_as_such(decide: Any) -> None:
    catch_all = "{owner: team-shop, suppress: true, reason: known, expires: 2027-03-31}"
    decision = decide({"services/shop.yaml": f"catch_all: {catch_all}\n"}, service="shop")
    assert (decision.verdict, decision.rule, decision.reason) == (Verdict.SUPPRESS, "catch_all", "known")
    expired = decide({"services/shop.yaml": f"catch_all: {catch_all}\n"}, now=APRIL, service="shop")
    assert expired.verdict is Verdict.DELIVER


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("event.component exists or event.group exists or event.class exists or event.timestamp exists", False),
        ("event.summary == 'payment is down' and event.source == 'payment-1'", True),
        ("event.severity == 'critical'", True),
        ("raw_event.labels.x == 'y'", True),
    ],
)
def test_rules_see_the_event_without_its_empty_fields_and_the_body_as_received(
    tmp_path: Path, condition: str, holds: bool
) -> None:
    alert = make_alert(service="shop")
    alert = Alert(alert.source, alert.fingerprint, alert.status, alert.event, raw={"labels": {"x": "y"}})
    fill(
        tmp_path, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": rules(f"r | {condition} | {{}}")}
    )
    assert bool(evaluate(alert, load_rules(tmp_path), NIGHT).matched) is holds


def test_the_optional_fields_are_seen_under_pagerdutys_names(tmp_path: Path) -> None:
    event = CommonEvent("s", "src", Severity.INFO, "2027-01-01T00:00:00Z", "comp", "grp", "cls")
    condition = "event.class == 'cls' and event.component == 'comp' and event.group == 'grp' and event.timestamp matches part '2027'"
    fill(
        tmp_path, {"router.yaml": "catch_all: {route_to: unrouted}\n", "global.yaml": rules(f"r | {condition} | {{}}")}
    )
    assert evaluate(Alert("x", "f", Status.FIRING, event), load_rules(tmp_path), NIGHT).matched == ("r",)


def test_nothing_changes_with_the_trace_but_the_trace(decide: Any, tmp_path: Path) -> None:
    with_trace = decide({"global.yaml": rules("r | event.summary matches 'x' | {}")}, service="shop")
    without = evaluate(make_alert(service="shop"), load_rules(tmp_path), NIGHT)
    assert without.trace == ()
    assert with_trace.trace[0].why == "`event.summary matches 'x'` is false: it is \"payment is down\""
    assert with_trace == Decision(
        **{**{name: getattr(without, name) for name in Decision.__slots__}, "trace": with_trace.trace}
    )


def test_the_alert_itself_stays_as_it_was(decide: Any, tmp_path: Path) -> None:
    alert = make_alert(severity="warning", service="shop")
    fill(tmp_path, {"router.yaml": ROUTER, "services/shop.yaml": SHOP, "services/ops.yaml": OPS})
    fill(tmp_path, {"global.yaml": rules("r | | {severity: info, enrich: {details: {a: b}}}")})
    evaluate(alert, load_rules(tmp_path), NIGHT)
    assert alert == make_alert(severity="warning", service="shop")


HOLD_BACK = "reason: known, expires: 2027-03-31"


def test_a_drop_is_the_end_and_no_router_is_asked(decide: Any) -> None:
    text = rules(f"away | true | {{drop: true, {HOLD_BACK}, annotate: seen}}")
    decision = decide({"global.yaml": text}, service="shop")
    assert (decision.verdict, decision.rule, decision.reason) == (Verdict.DROP, "away", "known")
    assert (decision.service, decision.destinations) == ("", ())
    assert [each.orchestration for each in decision.trace] == ["global"]
    assert decide({"global.yaml": text}, now=APRIL, service="shop").verdict is Verdict.DELIVER


def test_a_drop_does_not_even_go_on_to_another_set(decide: Any) -> None:
    text = rules(
        f"away | true | {{drop: true, {HOLD_BACK}, route_to: more}}",
        more=f"quiet | true | {{suppress: true, {HOLD_BACK}}}",
    )
    decision = decide({"global.yaml": text}, service="shop")
    assert (decision.verdict, decision.matched) == (Verdict.DROP, ("away",))


def test_a_drop_wins_over_a_suppression_before_it(decide: Any) -> None:
    text = rules(
        f"quiet | true | {{suppress: true, {HOLD_BACK}, route_to: more}}",
        more=f"away | true | {{drop: true, {HOLD_BACK}}}",
    )
    assert decide({"global.yaml": text}, service="shop").verdict is Verdict.DROP


def test_an_expired_drop_says_so(decide: Any) -> None:
    decision = decide({"global.yaml": rules(f"away | | {{drop: true, {HOLD_BACK}}}")}, now=APRIL, service="shop")
    assert decision.trace[0].why == "its drop expired on 2027-04-01 00:00:00 Etc/UTC, so it is passed over"


def test_what_a_rule_says_of_time_action_and_escalation_is_overridden_by_a_later_one(decide: Any) -> None:
    first = "{suspend: 5m, event_action: resolve, escalation_policy: everyone, custom_fields: {a: 1, b: 1}}"
    last = "{suspend: 1h, event_action: trigger, escalation_policy: two, custom_fields: {b: 2}}"
    once = decide({"global.yaml": rules(f"first | | {first}")}, service="shop")
    twice = decide(
        {"global.yaml": rules(f"first | | {first}"), "services/shop.yaml": rules(f"last | | {last}")}, service="shop"
    )

    def said(decision: Decision) -> Any:
        return decision.suspend_ms, decision.event_action, decision.escalation_policy, decision.custom_fields

    assert said(once) == (300_000, "resolve", "everyone", {"a": 1, "b": 1})
    assert said(twice) == (3_600_000, "trigger", "two", {"a": 1, "b": 2})


SHIPPED = Path(__file__).parents[2] / "rules"


@pytest.fixture(scope="module")
def shipped() -> Ruleset:
    return load_rules(SHIPPED)


ALERTS = st.builds(
    Alert,
    source=st.just("any"),
    fingerprint=st.text(min_size=1),
    status=st.sampled_from(Status),
    event=st.builds(
        CommonEvent,
        summary=st.text() | st.sampled_from(["DNS timeout", "OOMKilled", "index lag"]),
        source=st.text(),
        severity=st.sampled_from(Severity),
        class_=st.text(),
        custom_details=st.dictionaries(
            st.text() | st.sampled_from(["service", "env", "reason", "provider"]),
            JSON | st.sampled_from(["payment", "search-service", "notification", "staging", "analytics"]),
        ),
    ),
    raw=st.dictionaries(st.text(), JSON),
)


@given(alert=ALERTS, now=st.integers(0, 2**42))
def test_every_alert_gets_one_decision_from_the_shipped_rules(shipped: Ruleset, alert: Alert, now: int) -> None:
    decision = evaluate(alert, shipped, now)
    assert decision.verdict in Verdict
    assert decision.service == "" or decision.service in shipped.services
    assert decision.destinations == ("pagerduty:default",)
    assert decision.priority in shipped.priorities
    assert (decision.verdict is Verdict.SUPPRESS) == bool(decision.rule) == bool(decision.reason)
    traced = evaluate(alert, shipped, now, trace=True)
    assert (traced.verdict, traced.matched, traced.service) == (decision.verdict, decision.matched, decision.service)
    assert tuple(each.rule for each in traced.trace if each.matched and each.rule != "catch_all") == decision.matched
