"""Variables, extractions, templates and the dynamic route: what rules take from an alert and write into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alertrouter.alert import Alert, Severity
from alertrouter.enrich import enrich
from alertrouter.errors import RulesInvalid
from alertrouter.rules.closures import SUBJECT_BYTES
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Decision, Ruleset
from alertrouter.rules.syntax import ConditionError
from alertrouter.rules.templates import LONGEST_TEMPLATE, REFERENCES, read_template
from tests.alerts import NIGHT, make_alert
from tests.rules.test_wrong_files import fill
from tests.unit.test_condition_properties import JSON

ROUTER = "catch_all: {route_to: unrouted}\n"
SHOP = "routing_key: {env: PD_KEY_SHOP}\n"


def load(directory: Path, then: str, router: str = ROUTER) -> Ruleset:
    """Rules whose only global rule does this, written as YAML on one line."""
    text = f"sets: {{start: [{{rule: r, then: {then}}}]}}\n"
    fill(directory, {"router.yaml": router, "services/shop.yaml": SHOP, "global.yaml": text})
    return load_rules(directory)


def decide(directory: Path, then: str, alert: Alert | None = None, router: str = ROUTER) -> Decision:
    return evaluate(
        alert or make_alert(summary="pod web-7 of shop OOMKilled"), load(directory, then, router), NIGHT, trace=True
    )


def extracted(directory: Path, extraction: str, alert: Alert | None = None) -> Decision:
    return decide(directory, f"{{extractions: [{extraction}]}}", alert)


@pytest.mark.parametrize(
    ("extraction", "summary"),
    [
        (
            "{target: event.summary, template: 'on {{event.source}}: {{event.summary}}'}",
            "on payment-1: pod web-7 of shop OOMKilled",
        ),
        (
            "{target: event.summary, template: '{{ event.custom_details.service }}{{event.severity}}'}",
            "paymentcritical",
        ),
        ("{target: event.summary, template: 'no } braces { here }}'}", "no } braces { here }}"),
        ("{target: event.summary, source: event.summary, regex: 'web-[0-9]+'}", "web-7"),
        ("{target: event.summary, source: event.summary, regex: 'pod (\\S+) of (\\S+)'}", "web-7shop"),
        ("{target: event.summary, source: event.summary, regex: '(x)?pod (?:\\S+) of (\\S+)'}", "shop"),
        ("{target: event.summary, source: event.summary, regex: '(?i)oomkilled'}", "OOMKilled"),
    ],
)
def test_an_extraction_writes_what_its_template_or_pattern_gives(tmp_path: Path, extraction: str, summary: str) -> None:
    decision = extracted(tmp_path, extraction)
    assert decision.event.summary == summary
    assert decision.trace[0].warnings == ()


@pytest.mark.parametrize("name", ["summary", "source", "class", "component", "group"])
def test_it_writes_these_fields(tmp_path: Path, name: str) -> None:
    event = extracted(tmp_path, f"{{target: event.{name}, template: written}}").event
    assert getattr(event, "class_" if name == "class" else name) == "written"


@pytest.mark.parametrize(
    ("written", "severity"), [("warning", Severity.WARNING), (" Info ", Severity.INFO), ("worst", Severity.CRITICAL)]
)
def test_a_severity_is_written_if_it_is_one(tmp_path: Path, written: str, severity: Severity) -> None:
    decision = extracted(tmp_path, f"{{target: event.severity, template: '{written}'}}")
    assert decision.event.severity is severity
    told = ("event.severity stays as it is: `worst` is no severity",) if written == "worst" else ()
    assert decision.trace[0].warnings == told


def test_it_writes_one_detail_and_leaves_the_others_and_the_alert_alone(tmp_path: Path) -> None:
    alert = make_alert(pod="old", env="prod")
    decision = extracted(tmp_path, "{target: \"event.custom_details['pod']\", template: new}", alert)
    assert decision.event.custom_details == {"pod": "new", "env": "prod"}
    assert alert.event.custom_details == {"pod": "old", "env": "prod"}
    assert enrich(alert, decision, load_rules(tmp_path)).event.custom_details["pod"] == "new"


@pytest.mark.parametrize(
    ("extraction", "warnings"),
    [
        (
            "{target: event.summary, source: event.summary, regex: 'nowhere'}",
            ("`event.summary` does not match `nowhere`", "event.summary stays as it is: nothing was extracted"),
        ),
        (
            "{target: event.summary, template: '{{event.group}}'}",
            ("`event.group` is not there", "event.summary stays as it is: nothing was extracted"),
        ),
        (
            "{target: event.summary, source: event.group, regex: '.*'}",
            ("`event.group` is not there", "event.summary stays as it is: nothing was extracted"),
        ),
    ],
)
def test_where_nothing_is_found_the_field_stays_and_the_trace_says_so(
    tmp_path: Path, extraction: str, warnings: tuple[str, ...]
) -> None:
    decision = extracted(tmp_path, extraction)
    assert decision.event.summary == "pod web-7 of shop OOMKilled"
    assert decision.trace[0].warnings == warnings


def test_an_unknown_reference_in_a_template_is_empty_and_the_trace_says_so(tmp_path: Path) -> None:
    decision = extracted(tmp_path, "{target: event.summary, template: '[{{raw_event.labels.pod}}] down'}")
    assert decision.event.summary == "[] down"
    assert decision.trace[0].warnings == ("`raw_event.labels.pod` is not there",)


def test_variables_come_first_and_extractions_in_order(tmp_path: Path) -> None:
    then = """{
      variables: [
        {name: pod, path: event.summary, type: regex, value: 'pod (\\S+)'},
        {name: number, path: variables.pod, value: '[0-9]+'},
      ],
      extractions: [
        {target: event.source, template: '{{variables.pod}}'},
        {target: event.group, source: variables.number, regex: '.+'},
        {target: event.component, template: '{{event.source}}!'},
      ],
      annotate: 'restart {{variables.pod}}',
      custom_fields: {pod: '{{variables.pod}}', tries: 3},
    }"""
    decision = decide(tmp_path, then)
    event = decision.event
    assert (event.source, event.group, event.component) == ("web-7", "7", "web-7!")
    assert decision.annotations == ("restart web-7",)
    assert decision.custom_fields == {"pod": "web-7", "tries": 3}
    ours = enrich(make_alert(), decision, load_rules(tmp_path)).event.custom_details["alertrouter"]
    assert ours["custom_fields"] == {"pod": "web-7", "tries": 3}


def test_rules_after_it_and_the_router_see_what_was_written(tmp_path: Path) -> None:
    router = """
sets: {start: [{rule: by-group, when: event.group == 'web-7' and event.custom_details.pod == 'web-7', then: {route_to: shop}}]}
catch_all: {route_to: unrouted}
"""
    then = """{extractions: [
      {target: event.group, source: event.summary, regex: 'web-[0-9]+'},
      {target: event.custom_details.pod, template: '{{event.group}}'}]}"""
    assert decide(tmp_path, then, router=router).service == "shop"


def test_a_senders_text_is_never_a_template_or_a_pattern(tmp_path: Path) -> None:
    alert = make_alert(summary="{{event.source}} %s {0} ${x} (.*) \\1", service="{{event.summary}}")
    then = "{extractions: [{target: event.source, template: '{{event.summary}}'}, {target: event.group, template: '{{event.source}}'}], annotate: '{{event.custom_details.service}}'}"
    decision = decide(tmp_path, then, alert)
    assert decision.event.source == alert.event.summary
    assert decision.event.group == alert.event.summary
    assert decision.annotations == ("{{event.summary}}",)


def test_an_extracted_text_is_bounded(tmp_path: Path) -> None:
    alert = make_alert(summary="ä" * 1_000_000)
    decision = extracted(
        tmp_path, "{target: event.source, template: '{{event.summary}}{{event.summary}}{{event.summary}}'}", alert
    )
    assert len(decision.event.source) == SUBJECT_BYTES


@given(summary=st.text(st.characters(codec=None)), details=st.dictionaries(st.sampled_from(["pod", "x"]), JSON))
def test_no_alert_is_too_strange(tmp_path_factory: pytest.TempPathFactory, summary: str, details: Any) -> None:
    then = """{
      variables: [{name: v, path: event.custom_details.pod, value: '(.)(.)?'}],
      extractions: [
        {target: event.custom_details.pod, template: '{{variables.v}}{{event.custom_details}}'},
        {target: event.severity, source: event.summary, regex: '\\w+'},
        {target: event.summary, source: raw_event, regex: '.+'},
      ],
      annotate: '{{raw_event}}{{event.summary}}'}"""
    directory = tmp_path_factory.getbasetemp() / "strange"
    ruleset = load_rules(directory) if directory.exists() else load(directory, then)
    alert = make_alert(summary=summary)
    alert = replace(alert, event=replace(alert.event, custom_details=details), raw=details)
    decision = evaluate(alert, ruleset, NIGHT)
    assert decision.matched == ("r",)
    assert evaluate(alert, ruleset, NIGHT, trace=True).event == decision.event


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a {{event.summary", "`{{` has no `}}` after it; write {{event.summary}}"),
        ("{{summary}}", "`{{summary}}`: a path starts with event., raw_event., variables. or cache_var."),
        ("{{event.summary == 'x'}}", "`{{event.summary == 'x'}}`: write a path, such as event.summary"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConditionError) as raised:
        read_template(text)
    assert raised.value.message.startswith(message)


class Counted(dict[str, object]):
    """A mapping that counts how often it is written down."""

    written = 0

    def items(self) -> Any:
        self.written += 1
        return super().items()


@pytest.mark.parametrize(("size", "times"), [(SUBJECT_BYTES, 1), (SUBJECT_BYTES // 4, 4), (10, REFERENCES)])
def test_what_would_be_cut_is_not_even_written(size: int, times: int) -> None:
    raw = Counted(a="x" * (size - len('{"a":""}')))
    text = read_template("{{raw_event}}" * REFERENCES).render({"raw_event": raw}, [])
    assert (raw.written, len(text)) == (times, min(SUBJECT_BYTES, times * size))


@pytest.mark.parametrize(
    ("fits", "more", "message"),
    [
        ("x" * LONGEST_TEMPLATE, "x", "write at most 65536 characters: no more of a text is ever shown"),
        ("{{event.source}} " * REFERENCES, "{{event.class}}", "write at most 200 references: {{...}}"),
    ],
    ids=["characters", "references"],
)
def test_a_template_is_bounded(tmp_path: Path, fits: str, more: str, message: str) -> None:
    load(tmp_path, f"{{annotate: ['{fits}']}}")
    with pytest.raises(RulesInvalid) as raised:
        load(tmp_path, f"{{annotate: ['{fits}{more}']}}")
    assert "global.yaml:1:44: " in str(raised.value) and message in str(raised.value)


DYNAMIC = """
sets:
  start:
    - rule: by-name
      then: {dynamic_route_to: {source: event.custom_details.service, regex: '^team-(.+)$', lookup_by: service_name}}
    - rule: the-rest
      when: event.custom_details.service == 'team-cart'
      then: {route_to: shop}
catch_all: {route_to: unrouted}
"""


@pytest.mark.parametrize(
    ("written", "service", "matched", "why"),
    [
        ("team-shop", "shop", ("by-name",), "`event.custom_details.service` names the service shop"),
        ("team-cart", "shop", ("the-rest",), "`event.custom_details.service` names no service that there is: `cart`"),
        ("shop", "", (), "`event.custom_details.service` names no service that there is"),
        ("team-unrouted", "", (), "`event.custom_details.service` names no service that there is: `unrouted`"),
    ],
)
def test_the_router_may_find_the_service_by_its_name(
    tmp_path: Path, written: str, service: str, matched: tuple[str, ...], why: str
) -> None:
    fill(tmp_path, {"router.yaml": DYNAMIC, "services/shop.yaml": SHOP})
    decision = evaluate(make_alert(service=written), load_rules(tmp_path), NIGHT, trace=True)
    assert (decision.service, decision.matched) == (service, matched)
    (first,) = (each for each in decision.trace if each.rule == "by-name")
    assert (first.matched, first.why) == (bool(matched[:1] == ("by-name",)), why)
    assert evaluate(make_alert(service=written), load_rules(tmp_path), NIGHT).service == service


def test_an_alert_without_that_field_goes_on_to_the_next_rule(tmp_path: Path) -> None:
    fill(tmp_path, {"router.yaml": DYNAMIC, "services/shop.yaml": SHOP})
    decision = evaluate(make_alert(host="x"), load_rules(tmp_path), NIGHT, trace=True)
    assert decision.service == ""
    by_name = next(each for each in decision.trace if each.rule == "by-name")
    assert by_name.warnings[0] == "`event.custom_details.service` is not there"


def test_a_disabled_lookup_is_passed_over(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "router.yaml": DYNAMIC.replace("- rule: by-name", "- rule: by-name\n      disabled: true"),
            "services/shop.yaml": SHOP,
        },
    )
    decision = evaluate(make_alert(service="team-shop"), load_rules(tmp_path), NIGHT, trace=True)
    assert decision.service == ""
    assert next(each.why for each in decision.trace if each.rule == "by-name") == "it is disabled"
