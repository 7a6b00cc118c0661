"""`alertrouter test`, as a person or a script calls it: the real server, store and worker, on a clock of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from alertrouter.cli import main
from tests.rules.test_wrong_files import fill

RULES = {
    "alertrouter.yaml": "priorities: {P1: {severity: critical}, P2: {severity: error}}\n",
    "global.yaml": """
        cache_variables:
          - {name: last_host, type: recent_value, source: event.source, regex: .+}
        sets:
          start:
            - rule: staging
              owner: team-sre
              when: event.custom_details.env == 'staging'
              then: {suppress: true, reason: nobody is paged for staging, expires: 2027-01-31}
            - rule: forgotten
              owner: team-sre
              when: event.class == 'Noise'
              then: {drop: true, reason: nobody wants it, expires: 2027-01-31}
            - rule: held
              when: event.class == 'Blip'
              then: {suspend: 5m}
            - rule: many
              when: event.class == 'Often' and trigger_count over 10 minutes >= 3
              then: {severity: critical}
            - rule: often
              when: event.class == 'Often'
              then: {severity: info}
            - rule: shared
              when: event.class == 'Shared'
              then: {dedup_key: "cluster {{event.custom_details.cluster}}", annotate: "after {{cache_var.last_host}}"}
    """,
    "router.yaml": """
        sets:
          start:
            - rule: to-shop
              when: event.custom_details.service == 'shop'
              then: {route_to: shop}
        catch_all: {route_to: unrouted}
    """,
    "services/shop.yaml": "{team: team-shop, routing_key: {env: PD_KEY_SHOP}}",
}

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `alertrouter test` in a directory where rules/ holds RULES and the steps or the whole text of a test file."""
    monkeypatch.chdir(tmp_path)

    def invoke(text: str, *words: str, start: str = "2027-01-10T03:00:00Z", **others: str) -> Result:
        steps = dedent(text)
        if not steps.startswith("tests:"):
            indented = "".join(f"      {line}\n" for line in steps.strip().splitlines())
            steps = f"tests:\n  - name: it\n    start: {start}\n    steps:\n{indented}"
        files = {name: dedent(content) for name, content in {**RULES, **others}.items()}
        fill(tmp_path / "rules", {**files, "tests/a_test.yaml": steps})
        return CliRunner().invoke(main, ["test", *words])

    return invoke


def passes(result: Result) -> None:
    assert (result.exit_code, result.stderr) == (0, ""), result.output


def told(result: Result) -> Any:
    return json.loads(result.stdout)


# what becomes of alerts


def test_a_page_is_sent_once_repeated_by_nobody_and_closed(call: Call) -> None:
    result = call("""
        - alertmanager: {labels: {alertname: Disk, service: shop, severity: critical}}
          expect:
            outcome: delivered
            answer: 202
            service: shop
            severity: critical
            priority: P1
            matched: [to-shop]
            rule: ""
            destination: pagerduty:shop
            event: {event_action: trigger, routing_key: "[redacted]", payload: {severity: critical, class: Disk}}
            events: [{event_action: trigger}]
            open: [{status: triggered, severity: critical, destination: "pagerduty:shop"}]
        - at: 4m59s
          alertmanager: {same: true}
          expect: {outcome: duplicate, event: null, events: []}
        - at: 20m
          alertmanager: {same: true, status: resolved}
          expect:
            outcome: delivered
            event: {event_action: resolve, dedup_key: "{{steps[0].event.dedup_key}}", payload: null}
            open: []
    """)
    passes(result)
    assert "1 passed (3 steps" in result.stdout


def test_a_firing_alert_keeps_its_start_and_one_that_comes_back_has_another(call: Call) -> None:
    passes(
        call("""
        - alertmanager: {labels: {alertname: Disk}}
          expect: {event: {payload: {timestamp: "2027-01-10T03:00:00Z"}}}
        - at: 5h
          alertmanager: {same: true, annotations: {summary: still full}}
          expect: {event: {payload: {timestamp: "{{steps[0].event.payload.timestamp}}", summary: still full}}}
        - advance: 1m
          alertmanager: {same: true, status: resolved}
        - advance: 1m
          alertmanager: {labels: {alertname: Disk}}
          expect: {outcome: delivered, event: {payload: {timestamp: "2027-01-10T08:02:00Z"}}}
        """)
    )


def test_suppressed_until_its_end_and_then_paged(call: Call) -> None:
    passes(
        call(
            """
        - alertmanager: {labels: {alertname: Disk, env: staging}}
          expect: {outcome: suppressed, rule: staging, reason: nobody is paged for staging, event: null, open: []}
        - at: 2027-01-31T23:59:59Z
          expect: {outcome: suppressed}
        - advance: 1s
          expect: {outcome: delivered, event: {event_action: trigger}}
        """,
            start="2027-01-31T23:00:00Z",
        )
    )


def test_dropped_held_back_and_over_before_anybody_was_told(call: Call) -> None:
    passes(
        call("""
        - alertmanager: {labels: {alertname: Noise}}
          expect: {outcome: dropped, rule: forgotten, service: ""}
        - alertmanager: {labels: {alertname: Blip}}
          expect: {outcome: suspended, event: null}
        - advance: 4m59s
          expect: {outcome: suspended, events: []}
        - advance: 1s
          expect: {outcome: delivered, event: {event_action: trigger}}
        - alertmanager: {labels: {alertname: Blip, again: "yes"}}
          expect: {outcome: suspended}
        - advance: 1m
          alertmanager: {same: true, status: resolved}
          expect: {outcome: cancelled_in_suspend, events: []}
        - pagerduty: down
        - alertmanager: {labels: {alertname: Short}}
          expect: {outcome: pending, event: null}
        - advance: 1s
          expect: [{outcome: pending}]
        """)
    )


def test_counts_and_shared_incidents_are_those_of_the_store(call: Call) -> None:
    passes(
        call("""
        - alertmanager: [{labels: {alertname: Often, n: "1"}}, {labels: {alertname: Often, n: "2"}}]
          expect: {severity: info, matched: [often]}
        - alertmanager: {labels: {alertname: Often, n: "3"}}
          expect: {severity: critical, matched: [many]}
        - alertmanager:
            - {labels: {alertname: Shared, cluster: a, n: "1", host: one}}
            - {labels: {alertname: Shared, cluster: a, n: "2", host: two}}
          expect: {dedup_key: cluster a}
        - expect:
            of: 2
            outcome: delivered
        - alertmanager: {same: true, status: resolved}
          expect: {event: null}
        - alertmanager: {labels: {alertname: Shared, cluster: a, n: "1", host: one}, status: resolved}
          expect: {event: {event_action: resolve, dedup_key: cluster a}}
        """)
    )


def test_what_pagerduty_does_not_take_is_sent_again_or_kept(call: Call) -> None:
    passes(
        call("""
        - pagerduty: {status: 500}
        - alertmanager: {labels: {alertname: Disk}}
          expect: {outcome: pending, events: []}
        - pagerduty: up
        - advance: 5m
          expect: {outcome: delivered, events: [{event_action: trigger}]}
        - pagerduty: {status: 400}
        - alertmanager: {labels: {alertname: Other}}
          expect: {outcome: dead_lettered}
        """)
    )


def test_redis_away_and_back(call: Call) -> None:
    passes(
        call("""
        - redis: down
        - alertmanager: {labels: {alertname: Disk, severity: critical, service: shop}}
          expect: {outcome: delivered, answer: 202, service: shop, event: {event_action: trigger}}
        - alertmanager: {labels: {alertname: Disk, severity: warning}}
          expect: {outcome: refused, answer: 503, event: null}
        - pagerduty: down
        - alertmanager: {labels: {alertname: Third, severity: critical}}
          expect: {outcome: refused, answer: 503}
        - pagerduty: up
        - restart: true
        - redis: up
          expect: {of: 1, outcome: delivered}
        - advance: 1m
          alertmanager: {labels: {alertname: Disk, severity: critical, service: shop}, status: resolved}
          expect: {event: {event_action: resolve}, destination: pagerduty:shop}
        """)
    )


def test_a_restart_loses_nothing(call: Call) -> None:
    passes(
        call("""
        - alertmanager: {labels: {alertname: Blip}}
          expect: {outcome: suspended}
        - restart: true
        - advance: 5m
          expect: {outcome: delivered}
        """)
    )


def test_rules_that_change_midway_close_what_the_old_ones_opened_where_they_opened_it(call: Call) -> None:
    passes(
        call(
            """
        - alertmanager: [{labels: {alertname: Disk, service: shop}}, {labels: {alertname: Disk, env: staging}}]
          expect: [{destination: "pagerduty:shop"}, {outcome: suppressed}]
        - rules: ../../other
          expect: [{outcome: delivered, event: null}, {outcome: delivered, event: {event_action: trigger}}]
        - advance: 1m
          alertmanager: {labels: {alertname: Disk, service: shop}, status: resolved}
          expect: {service: unrouted, event: {event_action: resolve}, destination: "pagerduty:shop"}
        """,
            **{"../other/router.yaml": "catch_all: {route_to: unrouted}\n"},
        )
    )


def test_bodies_as_they_are_and_what_is_no_alert(call: Call) -> None:
    passes(
        call(
            """
        - body: body.json
          expect: {outcome: delivered, dedup_key: "alertmanager:f1"}
        - alertmanager: {body: {alerts: [{fingerprint: f2, labels: {alertname: Disk}}]}}
          source: alertmanager/team-a
          expect: {dedup_key: "alertmanager/team-a:f2"}
        - alertmanager: {same: true}
          source: alertmanager/team-a
          expect: {outcome: duplicate}
        - alertmanager: {body: {alert: []}}
          expect: {outcome: refused, answer: 400}
        - datadog: {body: {title: "a deployment", text: "is done"}}
          expect: {outcome: ignored, reason: no notification of a monitor}
        - datadog: {title: Latency is high, tags: ["service:shop"], priority: P1, hostname: web-1}
          expect: {outcome: delivered, service: shop, severity: critical, event: {payload: {source: web-1}}}
        - advance: 5m
          datadog: {same: true, transition: Recovered}
          expect: {event: {event_action: resolve, dedup_key: "{{steps[5].dedup_key}}"}}
        """,
            **{"tests/body.json": '{"alerts": [{"fingerprint": "f1", "labels": {"alertname": "Disk"}}]}'},
        )
    )


def test_the_settings_of_the_rules_directory_hold_in_tests(call: Call) -> None:
    steps = """
        - alertmanager: {labels: {alertname: Disk}}
        - at: 9m
          alertmanager: {same: true}
          expect: {outcome: duplicate}
    """
    assert call(steps).exit_code == 1
    config = RULES["alertrouter.yaml"] + "settings: {dedup_window: 10m}\n"
    passes(call(steps, **{"alertrouter.yaml": config}))
    result = call(steps, **{"alertrouter.yaml": "settings: {dedup_windw: 10m}\n"})
    assert result.exit_code == 2
    assert "did you mean dedup_window?" in result.stderr


# how it is told

WRONG = """\
tests:
  - name: a disk
    steps:
      - alertmanager: {labels: {alertname: Disk, service: shop}}
        expect: {outcome: delivered, service: unrouted, matched: [staging]}
  - name: a fine one
    steps:
      - {alertmanager: {labels: {alertname: Disk}}, expect: {outcome: delivered}}
"""


def test_a_wrong_expectation_is_shown_beside_what_came(call: Call) -> None:
    result = call(WRONG)
    assert result.exit_code == 1
    *lines, summary = result.stdout.splitlines()
    assert lines == [
        "rules/tests/a_test.yaml:5:47: a disk: steps[0], 0s after the start: alertmanager",
        "  - service: unrouted",
        "  + service: shop",
        "  - matched[0]: staging",
        "  + matched[0]: to-shop",
        "",
    ]
    assert summary.startswith("1 failed, 1 passed (2 steps, ")


def test_diff_says_why_by_the_first_test_that_failed(call: Call) -> None:
    lines = call(WRONG, "--diff").stdout.splitlines()
    why = lines[lines.index("  why: delivered as error P2") :]
    assert why[1:3] == [
        "    global",
        "     >no  staging                      `event.custom_details.env == 'staging'` is false: it is not there",
    ]
    assert (
        "      yes to-shop                      `event.custom_details.service == 'shop'` is true: it is \"shop\"" in why
    )


def test_diff_shows_counts_as_they_were(call: Call) -> None:
    result = call(
        """
        - alertmanager: [{labels: {alertname: Often, n: "1"}}, {labels: {alertname: Often, n: "2"}}]
          expect: [{}, {severity: critical}]
        """,
        "--diff",
    )
    assert "`trigger_count over 10 minutes >= 3` is false: it is 2" in result.stdout


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("- {alertmanager: {labels: {a: b}}, expect: {outcome: pending}}", "why: delivered as error P2"),
        (
            "- alertmanager: {labels: {env: staging}}\n- {expect: {outcome: delivered}}",
            "why: suppressed by staging: nobody is paged for staging",
        ),
        (
            "- alertmanager: {labels: {alertname: Blip}}\n- {expect: {outcome: delivered}}",
            "why: held back for 5m, unless it is resolved by then",
        ),
        (
            "- alertmanager: {labels: {a: b}}\n- {alertmanager: {same: true}, expect: {outcome: delivered}}",
            "why: the same as it was last heard, within the dedup window",
        ),
        ("- {alertmanager: {body: {}}, expect: {outcome: delivered}}", "why: its sender was answered 400: wrong shape"),
        ("- pagerduty: down\n- {alertmanager: {labels: {a: b}}, expect: {outcome: delivered}}", "why: not taken by"),
    ],
)
def test_diff_says_how_the_alert_stands(call: Call, steps: str, said: str) -> None:
    result = call(steps, "--diff")
    assert result.exit_code == 1
    assert said in result.stdout


def test_an_ending_that_no_alert_may_have(call: Call) -> None:
    text = """\
        tests:
          - name: never muted
            steps:
              - alertmanager: {labels: {env: staging}}
              - advance: 1m
            expect_none: [dropped, pending, suppressed]
    """
    result = call(text)
    assert result.exit_code == 1
    assert "rules/tests/a_test.yaml:6:37: never muted: steps[0]" in result.stdout
    assert "  - outcome: never suppressed\n  + outcome: suppressed\n" in result.stdout
    passes(call(text.replace("env: staging", "env: production")))


def test_a_body_of_more_alerts_than_expected(call: Call) -> None:
    result = call("- {alertmanager: [{labels: {a: b}}, {labels: {a: c}}], expect: [{}]}")
    assert "  - alerts: 1\n  + alerts: 2\n" in result.stdout


def test_only_tests_of_a_name_are_run(call: Call) -> None:
    result = call(WRONG, "--run", "^a f..e")
    passes(result)
    assert "1 passed" in result.stdout
    assert call(WRONG, "--run", "nothing").exit_code == 2
    assert call(WRONG, "--run", "(").exit_code == 2


def test_json(call: Call) -> None:
    result = call(WRONG, "-o", "json", "--coverage")
    assert result.exit_code == 1
    found = told(result)
    assert (found["passed"], found["failed"], found["steps"]) == (1, 1, 2)
    (failure,) = found["tests"][0]["failures"]
    assert failure["differences"][0] == {
        "name": "service",
        "expected": "unrouted",
        "came": "shop",
        "file": "rules/tests/a_test.yaml",
        "line": 5,
        "column": 47,
    }
    assert failure["why"][0] == "why: delivered as error P2"
    router = next(each for each in found["coverage"]["files"] if each["file"] == "rules/router.yaml")
    assert router == {
        "file": "rules/router.yaml",
        "rules": {"reached": 1, "all": 1},
        "conditions": {"reached": 2, "all": 2},
        "catch_alls": {"reached": 1, "all": 1},
        "unreached": [],
    }


def test_junit(call: Call, tmp_path: Path) -> None:
    call(WRONG, "--junit", "out.xml")
    root = ElementTree.fromstring((tmp_path / "out.xml").read_text(encoding="utf-8"))  # noqa: S314 - our own
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    (suite,) = root
    first, second = suite
    assert (first.get("name"), first.get("file"), first.get("line")) == ("a disk", "rules/tests/a_test.yaml", "2")
    (failure,) = first
    assert failure.get("message") == "otherwise: service, matched[0]"
    assert "+ service: shop" in str(failure.text)
    assert list(second) == []


def test_mistakes_end_with_2_and_their_places(call: Call, tmp_path: Path) -> None:
    result = call("- {att: 5m, expect: {}}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "rules/tests/a_test.yaml:5:10: unknown key `att`; did you mean `at`?\n"
    result = call("- expect: {}", **{"router.yaml": "catch_al: {}"})
    assert result.exit_code == 2
    assert "rules/router.yaml:1:1: unknown key `catch_al`" in result.stderr
    result = call("- {rules: ../../other, expect: {}}", **{"../other/router.yaml": "catch_al: {}"})
    assert result.exit_code == 2
    assert "other/router.yaml:1:1: unknown key `catch_al`" in result.stderr
    (tmp_path / "rules/tests/a_test.yaml").unlink()
    result = CliRunner().invoke(main, ["test"])
    assert result.exit_code == 2
    assert "there is no tests/*_test.yaml" in result.stderr


def test_update_writes_what_came_and_fills_what_is_empty(call: Call, tmp_path: Path) -> None:
    text = """\
tests:
  - name: it # a comment
    steps:
      # another
      - alertmanager: {labels: {alertname: Disk, service: shop}}
        expect: {outcome: pending, event: {event_action: resolve}, matched: []} # a third
      - at: 1m
        alertmanager: {same: true}
        expect: {}
      - expect: {dedup_key: "{{steps[0].dedup_key}}"}
"""
    result = call(text, "--update")
    assert (result.exit_code, result.stderr) == (0, "updated rules/tests/a_test.yaml\n")
    assert (tmp_path / "rules/tests/a_test.yaml").read_text(encoding="utf-8") == text.replace(
        "{outcome: pending, event: {event_action: resolve}, matched: []}",
        "{outcome: delivered, event: {event_action: trigger}, matched: [to-shop]}",
    ).replace("{}", "{outcome: duplicate, service: shop, severity: error, priority: P2, matched: [to-shop]}")
    again = CliRunner().invoke(main, ["test", "--update"])
    assert (again.exit_code, again.stderr) == (0, "")


def test_update_does_not_hide_what_must_never_be(call: Call) -> None:
    text = (
        "tests: [{name: a, steps: [{alertmanager: {labels: {env: staging}}, expect: {}}], expect_none: [suppressed]}]"
    )
    assert call(text, "--update").exit_code == 1


# coverage and mutants

PART = """
    - alertmanager: {labels: {alertname: Disk, service: shop}}
      expect: {service: shop}
"""


def test_coverage_names_what_no_test_reached(call: Call, tmp_path: Path) -> None:
    result = call(PART, "--lcov", "out.info")
    passes(result)
    lines = result.stdout.splitlines()
    assert next(line.split() for line in lines if line.startswith("rules/router.yaml ")) == (
        ["rules/router.yaml", "1/1", "1/2", "0/1", "50", "%"]
    )
    assert "rules/router.yaml:5:13: `event.custom_details.service == 'shop'` was never false" in lines
    assert "rules/router.yaml:7:1: no test ended in this catch-all" in lines
    assert "rules/global.yaml:6:7: no test made the rule `staging` match" in lines
    assert "rules/global.yaml:18:40: `trigger_count over 10 minutes >= 3` was never reached" in lines
    tracefile = (tmp_path / "out.info").read_text(encoding="utf-8")
    router = tracefile[tracefile.index("SF:rules/router.yaml") :].partition("end_of_record")[0].splitlines()
    assert router[1:3] == ["BRDA:5,0,0,1", "BRDA:5,0,1,0"]
    assert {"DA:4,1", "DA:5,1", "DA:6,1", "DA:7,0"} <= set(router)


def test_rules_that_another_directory_brings_are_not_covered_by_it(call: Call) -> None:
    other = {f"../other/{name}": text for name, text in RULES.items()}
    result = call("- rules: ../../other\n" + dedent(PART).strip(), "--coverage", "-o", "json", **other)
    passes(result)
    assert told(result)["coverage"]["percent"] == 0


@pytest.mark.parametrize(("least", "code"), [("10", 0), ("99", 1)])
def test_too_little_coverage_fails(call: Call, least: str, code: int) -> None:
    assert call(PART, "--fail-under", least).exit_code == code
    assert call(PART, "--coverage", "--fail-under", least).exit_code == code


def test_mutants_that_nobody_notices_are_listed(call: Call) -> None:
    result = call(PART, "--mutate", "-o", "json")
    passes(result)
    mutation = told(result)["mutation"]
    router = [each["change"] for each in mutation["survivors"] if each["rule"] == "to-shop"]
    assert router == ["dropped the condition: the rule always matches `event.custom_details.service == 'shop'`"]
    assert mutation["mutants"] > len(mutation["survivors"]) > 5
    both = PART + "    - {alertmanager: {labels: {alertname: Disk}}, expect: {service: unrouted}}\n"
    survivors = told(call(both, "--mutate", "-o", "json"))["mutation"]["survivors"]
    assert [each for each in survivors if each["rule"] == "to-shop"] == []


@pytest.mark.parametrize(("least", "code"), [("5", 0), ("99", 1)])
def test_a_mutation_score_that_is_too_low_fails(call: Call, least: str, code: int) -> None:
    result = call(PART, "--mutate", "--fail-under", least)
    assert result.exit_code == code
    assert "mutation score " in result.stdout
    assert "rules/router.yaml:5:13: rule `to-shop`: dropped the condition: the rule always matches" in result.stdout


def test_a_rule_that_never_matched_is_mutated_where_it_was_tried(call: Call) -> None:
    result = call(
        "- {alertmanager: {labels: {alertname: Disk}}, expect: {service: unrouted}}", "--mutate", "-o", "json"
    )
    passes(result)
    survivors = told(result)["mutation"]["survivors"]
    assert [each["change"] for each in survivors if each["rule"] == "to-shop"] == ["dropped the action `route_to`"]


def test_conditions_of_cache_variables_are_covered_and_mutated(call: Call) -> None:
    remembering = """
        cache_variables:
          - {name: deploying, type: recent_value, when: event.class == 'Deploy', source: event.source, regex: .+}
        sets:
          start:
            - rule: known
              when: event.source == cache_var.deploying
              then: {severity: info}
    """
    only_half = """
        - alertmanager: {labels: {alertname: Deploy, host: one, severity: warning}}
          expect: {severity: info}
    """
    result = call(only_half, "--coverage", "--mutate", **{"global.yaml": remembering})
    passes(result)
    assert "rules/global.yaml:3:49: `event.class == 'Deploy'` was never false" in result.stdout
    assert (
        "cache variable `deploying`: dropped the condition: it always holds `event.class == 'Deploy'`" in result.stdout
    )
    both = (
        only_half
        + """
        - alertmanager: {labels: {alertname: Other, host: two, severity: warning}}
          expect: {severity: warning}
    """
    )
    result = call(both, "--coverage", "--mutate", **{"global.yaml": remembering})
    passes(result)
    assert "deploying" not in result.stdout


def test_rules_are_not_mutated_while_a_test_fails(call: Call) -> None:
    result = call(WRONG, "--mutate")
    assert result.exit_code == 1
    assert result.stderr == "the rules are not mutated: first make every test pass\n"
    assert "mutation score" not in result.stdout


def test_two_runs_say_the_same(call: Call) -> None:
    """Retries wait a random time in `serve`."""
    steps = "- pagerduty: down\n- alertmanager: {labels: {a: b}}\n- advance: 7s\n- pagerduty: up\n"
    steps += "".join("- {advance: 1s, expect: {outcome: dropped}}\n" for _ in range(30))
    first, second = (told(call(steps, "-o", "json"))["tests"][0]["failures"] for _ in range(2))
    assert first == second
    assert {each["differences"][0]["came"] for each in first} == {"pending", "delivered"}
