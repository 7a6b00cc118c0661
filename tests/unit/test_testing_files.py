"""Test files: what may stand in them, and what is said of anything else, with its place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from alertrouter.rules.document import Problem
from alertrouter.simulation.cases import DEFAULT_START, Case, find_files, read_cases
from alertrouter.simulation.schema import schema, span_text
from tests.rules.test_wrong_files import fill

ROOT = Path(__file__).parents[2]
SHIPPED = find_files(ROOT / "rules")
#: 2027-01-09T20:00:00Z
NIGHT = 1_799_524_800_000

IN_THE_ISSUE = """\
tests:
  - name: a flapping disk pages once and closes
    start: 2027-01-10T03:00:00+07:00
    steps:
      - at: 0s
        alertmanager: {labels: {alertname: DiskFull, service: payment, severity: critical}}
        expect: {outcome: delivered, service: payment-service, severity: critical, priority: P1, event: {event_action: trigger}}
      - at: 4m59s
        alertmanager: {same: true}
        expect: {outcome: duplicate}
      - at: 20m
        alertmanager: {same: true, status: resolved}
        expect: {event: {event_action: resolve, dedup_key: "{{steps[0].event.dedup_key}}"}}
  - name: production never muted by the staging rule
    steps: [alertmanager: {labels: {alertname: x}}]
    expect_none: [suppressed]
"""


def read(tmp_path: Path, text: str) -> list[Case] | list[Problem]:
    path = tmp_path / "a_test.yaml"
    path.write_text(text, encoding="utf-8")
    return read_cases(path)


def problems_of(tmp_path: Path, text: str) -> list[str]:
    """Each as line:column message."""
    found = read(tmp_path, text)
    return [str(each).removeprefix(f"{tmp_path}/a_test.yaml:").replace(f"{tmp_path}/", "") for each in found]


def cases_of(tmp_path: Path, text: str) -> list[Case]:
    found = [each for each in read(tmp_path, text) if isinstance(each, Case)]
    assert found, problems_of(tmp_path, text)
    return found


def test_a_file_is_read_with_the_time_of_each_step(tmp_path: Path) -> None:
    first, second = cases_of(tmp_path, IN_THE_ISSUE)
    assert first.name == "a flapping disk pages once and closes"
    assert [step.at for step in first.steps] == [NIGHT, NIGHT + 299_000, NIGHT + 1_200_000]
    assert first.steps[1].expect[0].wanted == {"outcome": "duplicate"}
    assert (second.start, second.expect_none) == (DEFAULT_START, ("suppressed",))


def test_steps_are_at_a_span_at_a_moment_or_a_while_after_the_one_before(tmp_path: Path) -> None:
    text = """\
tests:
  - name: times
    start: 2027-01-10 03:00:00 Asia/Bangkok
    steps:
      - expect: {events: []}
      - advance: 1m
      - advance: 1h30m
      - at: 2h
      - at: 2027-01-09T23:00:00Z
      - at: 2027-01-11T03:00:00+07:00
      - advance: 500ms
"""
    (case,) = cases_of(tmp_path, text)
    minutes = [(step.at - NIGHT) / 60_000 for step in case.steps]
    assert minutes == [0, 1, 91, 120, 180, 1440, 1440 + 0.5 / 60]


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0s"), (299_000, "4m59s"), (5_400_000, "1h30m"), (90_000_500, "1d1h500ms")]
)
def test_spans_are_written_as_they_are_read(ms: int, text: str) -> None:
    assert span_text(ms) == text


def within(step: str) -> str:
    """A file with this step on line 5, after one that hears an alert."""
    return f"""\
tests:
  - name: it
    steps:
      - {{alertmanager: {{labels: {{alertname: a}}}}, expect: {{outcome: delivered}}}}
      - {{{step}}}
"""


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("att: 5m", "5:10: unknown key `att`; did you mean `at`?"),
        ("at: 5 m", "5:14: `5 m`: write how long after the start, such as 0s, 4m59s or 1h30m"),
        ("advance: 1y", "5:19: `1y`: write a time span such as 0s, 4m59s, 20m or 1h30m"),
        ("at: 5m, advance: 5m", "5:27: write `at` or `advance`, not both"),
        (
            "at: 2027-01-10T03:00:00",
            "5:14: `2027-01-10T03:00:00`: write its zone as well: 2027-01-10T03:00:00Z, 2027-01-10T03:00:00+07:00",
        ),
        ("expect: {outcom: delivered}", "5:19: unknown key `outcom`; did you mean `outcome`?"),
        ("expect: {outcome: delivrd}", "5:28: `delivrd` is not known; did you mean `delivered`?"),
        ("expect: {severity: Critical}", "5:29: `Critical` is not known; did you mean `critical`?"),
        ("expect: {matched: one}", "5:28: `matched` is `one`; write a list, one `- ` for each entry"),
        ("expect: [{}, {servce: a}]", "5:24: unknown key `servce`; did you mean `service`?"),
        ("expect: {event: {event_acton: resolve}}", "5:27: unknown key `event_acton`; did you mean `event_action`?"),
        ("expect: {event: {payload: {clas: a}}}", "5:37: unknown key `clas`; did you mean `class`?"),
        (
            "expect: {event: {payload: {custom_details: {day: 2027-01-01}}}}",
            "5:59: `day` is `2027-01-01`; write text, in quotes if it looks like a date",
        ),
        ("expect: {open: [{stat: a}]}", "5:27: unknown key `stat`; did you mean `status`?"),
        ("expect: {of: 1}", "5:23: steps[1] is no earlier step with an alert"),
        ("expect: null", "5:10: `expect` says nothing; leave it out"),
        ("alertmanager: {lables: {a: b}}", "5:25: unknown key `lables`; did you mean `labels`?"),
        (
            "alertmanager: {labels: {a: 1}}",
            "5:37: `a` is `1`; write text, in quotes if it looks like a number, a date or yes and no",
        ),
        ("alertmanager: [{status: firng}]", "5:34: `firng` is not known; did you mean `firing`?"),
        ("datadog: {titel: a}", "5:20: unknown key `titel`; did you mean `title`?"),
        ("datadog: {same: true}", "5:26: no alert of datadog stands before this one in the test"),
        ("alertmanager: {body: {alerts: []}, status: firing}", "5:31: a body stands alone: it holds all that is sent"),
        ("alertmanager: {body: none.json}", "5:31: none.json cannot be read: No such file or directory"),
        (
            "alertmanager: {body: 5}",
            "5:31: `5`: write the path of a file beside this one, or the body itself as a mapping",
        ),
        (
            "alertmanager: {same: true}, source: datadog",
            "5:46: this alert is alertmanager's; write `alertmanager/<name>`",
        ),
        ("body: {alerts: []}, source: alertmangr", "5:38: `alertmangr` is no sender; did you mean `alertmanager`?"),
        ("body: {a: b}", "5:16: say who posts it: write `source: alertmanager` beside it"),
        ("source: alertmanager", "5:18: `source` says who posts; add an alert or a `body`"),
        ("pagerduty: broken", "5:21: `broken`: write up, down, or the answer it gives: {status: 500}"),
        ("pagerduty: {status: 42}", "5:30: `42`: write the status of an answer, such as 500"),
        ("redis: gone", "5:17: `gone` is not known; there is down, up"),
        ("restart: yes, redis: up", "5:10: a step does one thing, here `redis`; write another step for `restart`"),
        ("rules: nowhere", "5:17: there is no directory nowhere"),
        (
            'expect: {dedup_key: "{{steps[1].dedup_key}}"}',
            "5:31: steps[1] is no earlier step; they are counted from 0",
        ),
        ('expect: {dedup_key: "a {{steps[0].evnt}}"}', "5:33: nothing is known as `evnt`; did you mean `event`?"),
        (
            'expect: {dedup_key: "{{event.x}}"}',
            "5:31: only what came of earlier steps can be read here; write {{steps[0].event.dedup_key}}",
        ),
    ],
)
def test_a_mistake_in_a_step_is_refused_with_its_place_and_a_remedy(tmp_path: Path, step: str, said: str) -> None:
    found = problems_of(tmp_path, within(step))
    assert found == [said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["1:1: `tests` is missing"]),
        ("test: []\n", ["1:1: `tests` is missing", "1:1: unknown key `test`; did you mean `tests`?"]),
        ("tests: []\n", ["1:8: `tests` is `[]`; write at least one entry, or leave it out"]),
        ("tests:\n\t- a\n", ["2:1: is not YAML: indent with blanks, not with tabs"]),
        (
            "tests:\n  - {name: a, steps: [{at: 0s}]}\n",
            ["2:22: the test expects nothing; write `expect: {}` in a step, and `alertrouter test --update` fills it"],
        ),
        (
            "tests:\n  - {name: a, steps: [expect: {outcome: delivered}]}\n",
            ["2:32: no alert was heard yet whose `outcome` this could be"],
        ),
        (
            "tests:\n  - {name: a, start: 2027-01-10, steps: [expect: {}]}\n",
            ["2:22: `2027-01-10`: write a date and time with its zone, such as 2027-01-10T03:00:00+07:00"],
        ),
        (
            "tests:\n  - {name: a, steps: [expect: {}]}\n  - {name: a, steps: [expect: {}]}\n",
            ["3:12: this name is used already, on line 2; choose another"],
        ),
        (
            "tests:\n  - {name: a, steps: [{at: 5m, expect: {}}, {at: 4m}]}\n",
            ["2:50: the step before is later, 5m after the start"],
        ),
        (
            "tests:\n  - {name: a, steps: [expect: {}], expect_none: [supressed]}\n",
            ["2:50: `supressed` is not known; did you mean `suppressed`?"],
        ),
    ],
)
def test_a_mistake_in_a_file_is_refused(tmp_path: Path, text: str, said: list[str]) -> None:
    assert problems_of(tmp_path, text) == said


def test_every_mistake_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    assert len(problems_of(tmp_path, within("att: 5m, expect: {outcom: a, outcome: b}"))) == 3


def test_a_body_is_known_by_what_it_holds(tmp_path: Path) -> None:
    fill(tmp_path, {"body.json": '{"alerts": []}', "body.form": "alert_transition=Triggered&monitor_id=5"})
    text = "tests: [{name: a, steps: [{body: body.json, expect: {}}, {body: body.form}, {body: {monitor_id: 5, transition: x}}]}]"
    (case,) = cases_of(tmp_path, text)
    sent = [(step.sent.source, step.sent.content_type) for step in case.steps if step.sent]
    assert sent == [
        ("alertmanager", "application/json"),
        ("datadog", "application/x-www-form-urlencoded"),
        ("datadog", "application/json"),
    ]


def as_an_editor_reads(text: str) -> Any:
    """Dates are text to YAML 1.2, which editors read."""
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    made = json.loads(schema())
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_schema_accepts_the_shipped_tests(validator: Draft202012Validator, path: Path) -> None:
    found = validator.iter_errors(as_an_editor_reads(path.read_text(encoding="utf-8")))
    assert [error.message for error in found] == []


def test_the_schema_accepts_every_form(validator: Draft202012Validator) -> None:
    steps = (
        "pagerduty: up, expect: {open: [a, {dedup_key: b}], event: null}",
        "pagerduty: {status: 500}",
        "alertmanager: [{same: true}], expect: [{}]",
        "at: 1h30m, body: {a: 1}, source: alertmanager/team-a",
    )
    for step in steps:
        assert validator.is_valid(as_an_editor_reads(within(step))), step


@pytest.mark.parametrize(
    "step",
    ["att: 5m", "at: 5 m", "expect: {outcome: delivrd}", "alertmanager: {lables: {}}", "redis: gone", "expect: 5"],
)
def test_the_schema_refuses_what_is_refused_here(validator: Draft202012Validator, step: str) -> None:
    assert not validator.is_valid(as_an_editor_reads(within(step)))


TESTED = "test --diff --coverage --fail-under {} --lcov {temp}/alertrouter.info --junit {temp}/alertrouter-tests.xml -- my rules"


@pytest.mark.parametrize(
    ("test", "coverage", "mutation", "called"),
    [
        ("true", "", "", [TESTED.format(0, temp="{temp}")]),
        ("true", "90", "80", [TESTED.format(90, temp="{temp}"), "test --mutate --fail-under 80 -- my rules"]),
        ("false", "90", "80", []),
    ],
)
def test_the_action_runs_the_tests_that_are_there(
    tmp_path: Path, test: str, coverage: str, mutation: str, called: list[str]
) -> None:
    program = tmp_path / "alertrouter" / "bin" / "alertrouter"
    fill(tmp_path, {"alertrouter/bin/alertrouter": f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n', "calls": ""})
    program.chmod(0o755)
    [step] = (
        each
        for each in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
        if "Test" in each.get("name", "")
    )
    given = {"RULES": "my rules", "TEST": test, "COVERAGE": coverage, "MUTATION": mutation}
    assert step["env"].keys() == given.keys()

    def run() -> list[str]:
        (tmp_path / "calls").write_text("")
        environ = {"PATH": "/usr/bin:/bin", "RUNNER_TEMP": str(tmp_path), **given}
        command = ["bash", "-eo", "pipefail", "-c", step["run"]]
        subprocess.run(command, env=environ, cwd=tmp_path, check=True, timeout=30)
        return (tmp_path / "calls").read_text().splitlines()

    assert run() == []  # no tests, no failure
    fill(tmp_path, {"my rules/tests/deep/a_test.yaml": "tests: []"})
    assert run() == [each.format(temp=tmp_path) for each in called]
