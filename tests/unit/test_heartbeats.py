"""Which alerts are heartbeats, what becomes of them, and who is paged for a silent one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from alertrouter.alarms import CANARY, HEARTBEAT, SELF_DESTINATION, alarm
from alertrouter.alert import Alert, Severity
from alertrouter.delivery.judging import decide
from alertrouter.rules.heartbeats import heard_in
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Ruleset, Verdict
from tests.alerts import HOUR, NIGHT, make_alert

CONFIG = """
    heartbeats:
      - name: prometheus-a
        when: event.custom_details.alertname == 'Watchdog' and event.custom_details.cluster == 'a'
        interval: 5m
        service: payment-service
      - name: nightly
        when: [event.custom_details.job == 'nightly', event.custom_details.job == 'weekly']
        source: [datadog, datadog/batch]
        interval: 1d
        grace: 2h
        service: search-service
        severity: warning
      - {name: any-datadog, source: datadog, interval: 1h}
"""


@pytest.fixture
def ruleset(tmp_path: Path) -> Ruleset:
    files = {
        "alertrouter.yaml": CONFIG,
        "router.yaml": "catch_all: {route_to: unrouted}",
        "services/payment-service.yaml": "team: team-payments",
        "services/search-service.yaml": "routing_key: {env: PD_KEY_SEARCH}",
    }
    (tmp_path / "services").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(dedent(text))
    return load_rules(tmp_path)


def watchdog(cluster: str = "a", status: str = "firing", source: str = "alertmanager") -> Alert:
    return make_alert("watchdog", status, source=source, alertname="Watchdog", cluster=cluster)


def test_times_have_a_default_for_grace_only(ruleset: Ruleset) -> None:
    assert [(each.name, each.interval_ms, each.grace_ms, each.service) for each in ruleset.heartbeats] == [
        ("prometheus-a", 300_000, 60_000, "payment-service"),
        ("nightly", 86_400_000, 7_200_000, "search-service"),
        ("any-datadog", 3_600_000, 60_000, ""),
    ]
    assert [each.severity for each in ruleset.heartbeats] == [Severity.CRITICAL, Severity.WARNING, Severity.CRITICAL]


@pytest.mark.parametrize(
    ("alert", "heard"),
    [
        (watchdog(), ["prometheus-a"]),
        (watchdog(source="alertmanager/a"), ["prometheus-a"]),
        (watchdog(cluster="b"), []),
        (watchdog(status="resolved"), []),
        (watchdog(status="acknowledged"), []),
        (make_alert(source="datadog"), ["any-datadog"]),
        (make_alert(source="datadog", job="nightly"), ["nightly", "any-datadog"]),
        (make_alert(source="datadog/batch", job="weekly"), ["nightly"]),
        (make_alert(source="alertmanager", job="nightly"), []),
        (make_alert(source="datadog/other"), []),
    ],
)
def test_a_heartbeat_is_what_fires_and_is_named_by_condition_and_source(
    alert: Alert, heard: list[str], ruleset: Ruleset
) -> None:
    assert [each.name for each in heard_in(alert, ruleset.heartbeats, NIGHT)] == heard


@pytest.mark.parametrize(
    ("alert", "verdict", "rule"),
    [
        (watchdog(), Verdict.DROP, "heartbeat:prometheus-a"),
        (watchdog(status="resolved"), Verdict.DELIVER, ""),  # it may have paged before it was made a heartbeat
        (watchdog(cluster="b"), Verdict.DELIVER, ""),
        (make_alert(source="datadog"), Verdict.DELIVER, ""),  # named by its sender alone it pages like any other
        (make_alert(source="datadog", job="nightly"), Verdict.DROP, "heartbeat:nightly"),
    ],
)
def test_only_what_a_condition_names_is_kept_from_paging(
    alert: Alert, verdict: Verdict, rule: str, ruleset: Ruleset
) -> None:
    decision = decide(alert, ruleset, NIGHT, None)
    assert (decision.verdict, decision.rule) == (verdict, rule)
    assert bool(decision.destinations) is (verdict is Verdict.DELIVER)


def test_its_condition_asks_for_the_time_of_day(tmp_path: Path) -> None:
    """And not for the time of timers, which is two hours ahead here."""
    (tmp_path / "router.yaml").write_text("catch_all: {route_to: unrouted}")
    (tmp_path / "alertrouter.yaml").write_text(
        "heartbeats: [{name: by-night, when: 'now < 2027-01-10 03:30:00 Etc/UTC', interval: 5m}]"
    )
    ruleset = load_rules(tmp_path)
    now = NIGHT + 2 * HOUR
    assert decide(make_alert(), ruleset, now, None, ahead=2 * HOUR).rule == "heartbeat:by-night"
    assert decide(make_alert(), ruleset, now, None).verdict is Verdict.DELIVER


@pytest.mark.parametrize(
    ("name", "service", "destination"),
    [
        ("prometheus-a", "payment-service", "pagerduty:default"),
        ("nightly", "search-service", "pagerduty:search-service"),
        ("any-datadog", "", SELF_DESTINATION),
        ("left-the-rules", "", SELF_DESTINATION),
    ],
)
def test_its_silence_pages_the_service_it_names(name: str, service: str, destination: str, ruleset: Ruleset) -> None:
    decision = decide(alarm(HEARTBEAT + name, "silent"), ruleset, NIGHT, None)
    assert (decision.verdict, decision.service, decision.destinations) == (Verdict.DELIVER, service, (destination,))


def test_a_service_that_is_gone_leaves_the_page_to_ourselves(ruleset: Ruleset) -> None:
    decision = decide(alarm(HEARTBEAT + "nightly", "silent"), replace(ruleset, services={}), NIGHT, None)
    assert (decision.service, decision.destinations) == ("", (SELF_DESTINATION,))


def test_the_canary_pages_nobody(ruleset: Ruleset) -> None:
    canary = alarm(CANARY.partition(":")[2], "canary")
    assert canary.id == CANARY
    assert decide(canary, ruleset, NIGHT, None).verdict is Verdict.DROP
    assert decide(alarm("canary-lost", "stuck"), ruleset, NIGHT, None).verdict is Verdict.DELIVER


def test_a_changed_heartbeat_is_another_version_of_the_rules(tmp_path: Path) -> None:
    (tmp_path / "router.yaml").write_text("catch_all: {route_to: unrouted}")
    versions = set()
    for interval in ("1m", "2m"):
        (tmp_path / "alertrouter.yaml").write_text(f"heartbeats: [{{name: a, source: datadog, interval: {interval}}}]")
        versions.add(load_rules(tmp_path).version)
    assert len(versions) == 2
