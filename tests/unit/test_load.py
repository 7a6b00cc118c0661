"""A directory of rules becomes one ruleset, or the list of everything that is wrong with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from alertrouter.alert import Link, Severity
from alertrouter.errors import RulesInvalid
from alertrouter.rules.load import load_config, load_rules, read_rules
from alertrouter.rules.model import START, Actions, KeyReference, Ruleset, Suppression
from alertrouter.rules.templates import read_template
from tests.rules.test_wrong_files import fill

ROUTER = "catch_all: {route_to: unrouted}\n"
#: 2027-04-01T00:00:00Z
APRIL = 1_806_537_600_000


def load(tmp_path: Path, files: dict[str, str] | None = None) -> Ruleset:
    fill(tmp_path, {"router.yaml": ROUTER, **(files or {})})
    return load_rules(tmp_path)


def global_rule(then: str, **more: str) -> str:
    lines = [f"{key}: {value}" for key, value in {"rule": "r", **more, "then": then}.items()]
    return "sets:\n  start:\n    - " + "\n      ".join(lines) + "\n"


def test_the_router_alone_is_enough(tmp_path: Path) -> None:
    ruleset = load(tmp_path)
    assert ruleset.services == {}
    assert sorted(ruleset.orchestrations) == ["global", "router", "unrouted"]
    assert ruleset.orchestrations["router"].catch_all == Actions(route_to="unrouted")
    assert ruleset.orchestrations["global"].sets == {START: ()}


@pytest.mark.parametrize("sets", ["", "sets:\n", "sets: {start: []}\n"])
def test_sets_may_be_left_empty(tmp_path: Path, sets: str) -> None:
    assert load(tmp_path, {"global.yaml": sets}).orchestrations["global"].sets == {START: ()}


def test_a_service_file_in_full(tmp_path: Path) -> None:
    text = """
service: shop
team: team-shop
tier: 2
on_call: Weekly rotation
runbook: runbooks/shop.md
links: [{href: https://grafana.example.org/d/shop, text: Dashboard}]
routing_key: {env: PD_KEY_SHOP}
"""
    files = {"services/shop.yaml": text, "alertrouter.yaml": "runbook_base: https://git.example.org/blob/main/\n"}
    service = load(tmp_path, files).services["shop"]
    assert (service.name, service.team, service.tier, service.on_call) == ("shop", "team-shop", 2, "Weekly rotation")
    assert service.runbook == "https://git.example.org/blob/main/runbooks/shop.md"
    assert service.links == (Link("https://grafana.example.org/d/shop", "Dashboard"),)
    assert service.routing_key == KeyReference(env="PD_KEY_SHOP")


def test_a_service_is_known_by_its_file_and_the_rest_has_defaults(tmp_path: Path) -> None:
    ruleset = load(tmp_path, {"services/shop.yaml": "runbook: https://wiki.example.org/shop\n"})
    service = ruleset.services["shop"]
    assert (service.team, service.tier, service.routing_key) == ("", None, None)
    assert service.runbook == "https://wiki.example.org/shop"
    assert "service:shop" in ruleset.orchestrations


def test_a_runbook_path_without_a_base_stays_a_path(tmp_path: Path) -> None:
    assert (
        load(tmp_path, {"services/shop.yaml": "runbook: runbooks/shop.md\n"}).services["shop"].runbook
        == "runbooks/shop.md"
    )


def test_a_rule_in_full(tmp_path: Path) -> None:
    text = """
sets:
  start:
    - rule: everything
      owner: team-sre
      when:
        - event.severity == 'info'
        - event.source exists
      disabled: true
      then:
        route_to: more
        severity: warning
        priority: P3
        suppress: true
        reason: noise
        expires: 2027-03-31
        annotate: [one, two]
        enrich:
          links: [{href: https://wiki.example.org/noise}]
          details: {impact: none, parts: [1, 2.5, null]}
  more: []
catch_all: {severity: info}
"""
    orchestration = load(tmp_path, {"global.yaml": text}).orchestrations["global"]
    (rule,) = orchestration.sets["start"]
    assert [condition.text for condition in rule.conditions] == ["event.severity == 'info'", "event.source exists"]
    assert (rule.name, rule.owner, rule.disabled) == ("everything", "team-sre", True)
    assert rule.place == f"{tmp_path}/global.yaml:4:13"
    assert rule.actions == Actions(
        route_to="more",
        severity=Severity.WARNING,
        priority="P3",
        suppress=Suppression("team-sre", "noise", APRIL),
        annotate=(read_template("one"), read_template("two")),
        links=(Link("https://wiki.example.org/noise"),),
        details={"impact": "none", "parts": [1, 2.5, None]},
    )
    assert orchestration.catch_all == Actions(severity=Severity.INFO)


@pytest.mark.parametrize(
    ("written", "expires_at"),
    [
        ("2027-03-31", APRIL),
        ("'2027-03-31'", APRIL),
        ("2027-04-01T00:00:00Z", APRIL),
        ("2027-04-01 02:00:00 +02:00", APRIL),
        ("2027-04-01 00:00:00", APRIL),
        ("9999-12-31", 253_402_300_800_000),
    ],
)
def test_a_date_lasts_to_its_end_in_utc(tmp_path: Path, written: str, expires_at: int) -> None:
    then = f"{{suppress: true, reason: noise, expires: {written}}}"
    rules = load(tmp_path, {"global.yaml": global_rule(then, owner="team-sre")}).orchestrations["global"]
    suppression = rules.sets[START][0].actions.suppress
    assert suppression is not None
    assert suppression.expires_at == expires_at


def test_priorities_keep_their_order(tmp_path: Path) -> None:
    text = """
destinations: {slack: {war-room: {channel: "#war-room"}}}
priorities:
  P2: {severity: error, acknowledge_within: 15m, notify: [pagerduty]}
  P1: {severity: critical, acknowledge_within: 5m, notify: [pagerduty, "slack:war-room"], escalation: all_levels}
  P4: {severity: info, acknowledge_within: next_business_day, escalation: none}
"""
    ruleset = load(tmp_path, {"alertrouter.yaml": text})
    assert list(ruleset.priorities) == ["P2", "P1", "P4"]
    first = ruleset.priorities["P1"]
    assert (first.severity, first.acknowledge_within) == (Severity.CRITICAL, timedelta(minutes=5))
    assert (first.notify, first.escalation) == (("pagerduty", "slack:war-room"), "all_levels")
    assert ruleset.priorities["P4"].acknowledge_within is None
    assert ruleset.destinations == {"slack": {"war-room": {"channel": "#war-room"}}}


def test_without_a_table_any_priority_is_taken_as_it_is(tmp_path: Path) -> None:
    rules = load(tmp_path, {"global.yaml": global_rule("{priority: P1}")}).orchestrations["global"]
    assert rules.sets[START][0].actions.priority == "P1"


def test_every_problem_of_every_file_is_named_at_once(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "router.yaml": "catch_all: {route_to: shpo}\n",
            "global.yaml": global_rule("{severity: worst}", when="event.a != 'x'"),
            "services/shop.yaml": "tiers: 1\n",
            "services/cart.yaml": "sets: [\n",
        },
    )
    with pytest.raises(RulesInvalid) as raised:
        load_rules(tmp_path)
    assert raised.value.problems == [
        f"{tmp_path}/global.yaml:5:24: `worst` is not known; there is critical, error, info, warning",
        f"{tmp_path}/router.yaml:1:23: there is no services/shpo.yaml; did you mean `shop`?",
        f"{tmp_path}/services/cart.yaml:2:1: is not YAML: while parsing a flow node, did not find expected node content",
        f"{tmp_path}/services/shop.yaml:1:1: unknown key `tiers`; did you mean `tier`?",
    ]


def test_paths_are_named_as_the_directory_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "rules", {"router.yaml": "x: 1\n"})
    monkeypatch.chdir(tmp_path)
    problems = read_rules(Path("rules")).problems
    assert {problem.file for problem in problems} == {"rules/router.yaml"}


def test_a_name_used_in_two_files_is_refused_where_it_comes_second(tmp_path: Path) -> None:
    rule = "sets: {start: [{rule: same, then: {}}]}\n"
    fill(tmp_path, {"router.yaml": ROUTER, "global.yaml": rule, "services/shop.yaml": rule})
    (problem,) = read_rules(tmp_path).problems
    assert str(problem) == (
        f"{tmp_path}/services/shop.yaml:1:23: the rule name `same` is used already, at {tmp_path}/global.yaml:1:23; "
        "choose another"
    )


@pytest.mark.parametrize(
    ("stray", "message"),
    [
        ("globals.yaml", "no rules are read from a file of this name; did you mean `global.yaml`?"),
        ("global.yml", "no rules are read from a file of this name; did you mean `global.yaml`?"),
        ("services/shop.yml", "rename the file to shop.yaml: no rules are read from .yml files"),
        ("services/unrouted.yaml", "no service can be named unrouted: the router sends there what no rule wants"),
    ],
)
def test_a_file_that_would_be_passed_over_is_named(tmp_path: Path, stray: str, message: str) -> None:
    fill(tmp_path, {"router.yaml": ROUTER, stray: ""})
    (problem,) = read_rules(tmp_path).problems
    assert str(problem) == f"{tmp_path}/{stray}:1:1: {message}"


def test_hidden_files_tests_and_other_kinds_are_left_alone(tmp_path: Path) -> None:
    strays = ("README.md", ".hidden.yaml", "services/.swap.yaml", "tests/dns_test.yaml", "catalog/catalog-info.yaml")
    load(tmp_path, dict.fromkeys(strays, "x: ["))
    assert read_rules(tmp_path).problems == ()


def test_no_directory_and_no_router_are_problems(tmp_path: Path) -> None:
    (missing,) = read_rules(tmp_path / "nowhere").problems
    assert str(missing) == f"{tmp_path}/nowhere:1:1: cannot be read: No such file or directory"
    (empty,) = read_rules(tmp_path).problems
    assert str(empty).startswith(f"{tmp_path}/router.yaml:1:1: is missing; ")


def test_the_version_follows_the_contents_and_not_the_place(tmp_path: Path) -> None:
    first = load(tmp_path / "a", {"services/shop.yaml": "team: team-shop\n"})
    copy = load(tmp_path / "b", {"services/shop.yaml": "team: team-shop\n"})
    changed = load(tmp_path / "c", {"services/shop.yaml": "team: team-cart\n"})
    renamed = load(tmp_path / "d", {"services/cart.yaml": "team: team-shop\n"})
    assert first.version == copy.version
    assert len({first.version, changed.version, renamed.version}) == 3


def test_a_routing_key_in_the_file_is_not_repeated(tmp_path: Path) -> None:
    key = "0123456789abcdef0123456789abcdef"
    for text in (f"routing_key: {key}\n", f"routing_key: {{env: [{key}]}}\n"):
        fill(tmp_path, {"router.yaml": ROUTER, "services/shop.yaml": text})
        (problem,) = read_rules(tmp_path).problems
        assert key not in str(problem)


def test_a_rule_set_with_many_sets_loads_up_to_the_limit(tmp_path: Path) -> None:
    def chain(length: int) -> str:
        links = [f"  s{n}: [{{rule: r{n}, then: {{route_to: s{n + 1}}}}}]\n" for n in range(1, length - 1)]
        return "sets:\n  start: [{rule: r0, then: {route_to: s1}}]\n" + "".join(links) + f"  s{length - 1}: []\n"

    assert len(load(tmp_path, {"global.yaml": chain(1000)}).orchestrations["global"].sets) == 1000
    fill(tmp_path, {"global.yaml": chain(1001)})
    assert [problem.message for problem in read_rules(tmp_path).problems] == ["1001 sets; at most 1000 are allowed"]


def test_the_config_is_a_mapping_for_those_who_read_its_other_sections(tmp_path: Path) -> None:
    path = tmp_path / "alertrouter.yaml"
    path.write_text("settings:\n  dedup_window: 5m\n")
    config = load_config(path)
    sections: Any = dict(config)
    assert sections == {"settings": {"dedup_window": "5m"}}
    assert config.place(("settings", "dedup_window")) == f"{path}:2:17"
    assert dict(load_config(tmp_path / "none.yaml")) == {}
    path.write_text("setings: {}\n")
    with pytest.raises(RulesInvalid) as raised:
        load_config(path)
    assert raised.value.problems == [f"{path}:1:1: unknown key `setings`; did you mean `settings`?"]


@pytest.mark.parametrize("limit", ["-1", "many", "1.5"])
def test_a_call_limit_is_a_whole_number(tmp_path: Path, limit: str) -> None:
    text = f"routing_key: {{env: PD_KEY, calls_per_minute: {limit}}}\n"
    fill(tmp_path, {"router.yaml": ROUTER, "services/shop.yaml": text})
    (problem,) = read_rules(tmp_path).problems
    assert problem.message == "`calls_per_minute` is a whole number; 0 is no limit"
