"""The rules in this repository: they load, and they do what the services' teams were promised."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from alertrouter.alert import Severity
from alertrouter.cli import main
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules, read_rules
from alertrouter.rules.model import Ruleset, Verdict
from tests.alerts import NIGHT, make_alert

ROOT = Path(__file__).parents[2]
WHILE_IT_LASTS = round(datetime(2027, 3, 31, 23, 59, 59, tzinfo=UTC).timestamp() * 1000)
AFTERWARDS = WHILE_IT_LASTS + 1000


@pytest.fixture(scope="module")
def ruleset() -> Ruleset:
    return load_rules(ROOT / "rules")


def test_they_load_without_a_problem() -> None:
    assert read_rules(ROOT / "rules").problems == ()


@pytest.mark.parametrize(
    ("name", "team", "tier"),
    [
        ("payment-service", "team-payments", 1),
        ("user-service", "team-identity", 1),
        ("search-service", "team-discovery", 2),
        ("notification-service", "team-comms", 2),
        ("analytics-pipeline", "team-data", 3),
    ],
)
def test_each_service_has_its_owner_and_a_runbook_in_this_repository(
    ruleset: Ruleset, name: str, team: str, tier: int
) -> None:
    service = ruleset.services[name]
    assert (service.team, service.tier) == (team, tier)
    assert service.on_call
    assert service.runbook.endswith(f"/runbooks/{name}.md")
    assert (ROOT / "runbooks" / f"{name}.md").read_text().startswith(f"# {name}\n")


@pytest.mark.parametrize(
    ("written", "service"),
    [
        ("payment", "payment-service"),
        ("payment-service", "payment-service"),
        ("Payment-Service", "payment-service"),
        ("user", "user-service"),
        ("search-service", "search-service"),
        ("notification", "notification-service"),
        ("analytics", "analytics-pipeline"),
        ("analytics-pipeline", "analytics-pipeline"),
        ("payments-db", ""),
        ("", ""),
    ],
)
def test_alerts_find_their_service_by_its_short_and_its_full_name(ruleset: Ruleset, written: str, service: str) -> None:
    assert evaluate(make_alert(service=written), ruleset, NIGHT).service == service


@pytest.mark.parametrize(
    ("summary", "env", "now", "verdict", "rule"),
    [
        ("DNS timeout on node-3", "staging", WHILE_IT_LASTS, Verdict.SUPPRESS, "staging-dns-noise"),
        ("DNS timeout on node-3", "staging", AFTERWARDS, Verdict.DELIVER, ""),
        ("DNS timeout on node-3", "production", NIGHT, Verdict.DELIVER, ""),
        ("disk full on node-3", "staging", NIGHT, Verdict.DELIVER, ""),
    ],
)
def test_dns_noise_of_staging_is_suppressed_until_it_expires(
    ruleset: Ruleset, summary: str, env: str, now: int, verdict: Verdict, rule: str
) -> None:
    decision = evaluate(make_alert(summary=summary, env=env, service="search"), ruleset, now)
    assert (decision.verdict, decision.rule, bool(decision.reason)) == (verdict, rule, bool(rule))
    assert decision.service == "search-service"


@pytest.mark.parametrize("service", ["payment", "payment-service"])
def test_payments_are_critical_and_p1(ruleset: Ruleset, service: str) -> None:
    decision = evaluate(make_alert(severity="warning", service=service), ruleset, NIGHT)
    assert (decision.event.severity, decision.priority) == (Severity.CRITICAL, "P1")


def test_a_payment_pod_out_of_memory_is_marked_for_automation(ruleset: Ruleset) -> None:
    decision = evaluate(make_alert(summary="payment-7d9 OOMKilled", service="payment"), ruleset, NIGHT)
    assert decision.matched == ("payments-critical", "payments", "payments-oom-killed")
    assert decision.details == {"remediation": "restart-pod"}
    assert decision.annotations
    assert decision.links


def test_other_services_out_of_memory_are_not_marked(ruleset: Ruleset) -> None:
    decision = evaluate(make_alert(summary="search-7d9 OOMKilled", service="search"), ruleset, NIGHT)
    assert decision.details == {}


@pytest.mark.parametrize(
    ("severity", "priority"), [("critical", "P1"), ("error", "P2"), ("warning", "P3"), ("info", "P4")]
)
def test_severity_gives_the_priority(ruleset: Ruleset, severity: str, priority: str) -> None:
    assert evaluate(make_alert(severity=severity, service="search"), ruleset, NIGHT).priority == priority


def test_what_no_rule_wants_still_pages(ruleset: Ruleset) -> None:
    decision = evaluate(make_alert(service="unheard-of"), ruleset, NIGHT)
    assert (decision.verdict, decision.service) == (Verdict.DELIVER, "")
    assert decision.destinations == ("pagerduty:default",)


def test_their_own_tests_reach_all_of_them_and_notice_every_change() -> None:
    words = ["test", str(ROOT / "rules"), "--coverage", "--mutate", "--fail-under", "100", "-o", "json"]
    result = CliRunner().invoke(main, words)
    told = json.loads(result.stdout)
    assert [each for file in told["coverage"]["files"] for each in file["unreached"]] == []
    assert told["mutation"]["survivors"] == []
    assert (result.exit_code, told["failed"], told["coverage"]["percent"], told["mutation"]["score"]) == (
        0,
        0,
        100,
        100,
    )
    assert told["mutation"]["mutants"] > 60
