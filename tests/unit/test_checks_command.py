"""`alertrouter check`, as a person, a script or a code host calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from alertrouter.cli import main
from alertrouter.rules.finding import Finding, Gravity
from alertrouter.rules.finding_formats import as_github, as_sarif
from tests.rules.test_wrong_files import FINE, PLACES, WRONG, fill

ROOT = Path(__file__).parents[2]
RULES = str(ROOT / "rules")
#: While the suppressions of the shipped rules last.
AT = ("--at", "2027-01-15")

EXPIRED = """sets:
  start:
    - rule: one
      owner: team-a
      when: event.class == 'disk'
      then: {suppress: true, reason: noise, expires: 2027-01-01}
"""
UNREACHABLE = """sets:
  start:
    - rule: all
      then: {}
    - rule: nothing
      then: {}
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["check", *words])


def test_the_shipped_rules_are_in_order() -> None:
    result = run(RULES, "--strict", *AT)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{RULES}: no problems in 12 rules and 5 services (version ")


@pytest.mark.parametrize("wrong", sorted(WRONG.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_wrong_file_is_told_with_its_place_and_the_id_of_a_page(wrong: Path, tmp_path: Path) -> None:
    text = wrong.read_text(encoding="utf-8")
    fill(tmp_path, {**FINE, PLACES[wrong.stem.partition("-")[0]]: text})
    result = run(str(tmp_path), *AT)
    assert result.exit_code == 1
    lines = result.stdout.replace(f"{tmp_path}/", "").splitlines()
    for expected in (line.split(" ", 3) for line in text.splitlines() if line.startswith("# expect ")):
        (line,) = (each for each in lines if each.endswith(f"): {expected[3]}") and f":{expected[2]}: error(" in each)
        check = line.partition("error(")[2].partition(")")[0]
        assert (ROOT / "docs" / "checks" / f"{check}.md").is_file()


def test_every_problem_is_printed(tmp_path: Path) -> None:
    fill(tmp_path, {"router.yaml": "catch_al: {}\n", "global.yaml": "set: {}\n"})
    result = run(str(tmp_path))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:2] == [
        f"{tmp_path}/global.yaml:1:1: error(unknown-key): unknown key `set`; did you mean `sets`?",
        f"{tmp_path}/router.yaml:1:1: error(missing-catch-all): `catch_all` is missing; "
        "write `catch_all: {route_to: unrouted}`, so that what no rule wants still pages",
    ]


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        ("{}", (), 0),
        ("{}", ("--strict",), 0),
        (EXPIRED, (), 0),
        (EXPIRED, ("--strict",), 1),
        (EXPIRED, ("--strict", "--at", "2026-12-31T23:59:59"), 0),
        (EXPIRED, ("--strict", "--at", "2027-01-02"), 1),
        (UNREACHABLE, (), 1),
        ("set: {}", (), 1),
        ("{}", ("-o", "xml"), 2),
        ("{}", ("--at", "soon"), 2),
    ],
)
def test_the_exit_code(tmp_path: Path, text: str, words: tuple[str, ...], code: int) -> None:
    fill(tmp_path, {**FINE, "global.yaml": text})
    assert run(str(tmp_path), *AT, *words).exit_code == code


def test_a_directory_that_is_not_there_is_wrong_usage() -> None:
    assert run("nowhere").exit_code == 2


def test_json_without_problems(tmp_path: Path) -> None:
    fill(tmp_path, FINE)
    result = run(str(tmp_path), "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["problems"] == []
    assert json.loads(result.stdout)["version"]


def test_json_of_what_the_loader_refuses(tmp_path: Path) -> None:
    fill(tmp_path, {**FINE, "global.yaml": "set: {}\n"})
    assert json.loads(run(str(tmp_path), "-o", "json").stdout) == {
        "version": None,
        "problems": [
            {
                "file": f"{tmp_path}/global.yaml",
                "line": 1,
                "column": 1,
                "check": "unknown-key",
                "severity": "error",
                "message": "unknown key `set`; did you mean `sets`?",
                "remedy": "",
            }
        ],
    }


def test_sarif(tmp_path: Path) -> None:
    fill(tmp_path, {**FINE, "global.yaml": EXPIRED})
    result = run(str(tmp_path), *AT, "-o", "sarif")
    assert result.exit_code == 0
    log = json.loads(result.stdout)
    assert log["version"] == "2.1.0"
    (tool_run,) = log["runs"]
    (rule,) = tool_run["tool"]["driver"]["rules"]
    assert rule["id"] == "expired"
    assert rule["shortDescription"]["text"] == "A suppression or a drop whose end has passed."
    assert tool_run["results"] == [
        {
            "ruleId": "expired",
            "ruleIndex": 0,
            "level": "warning",
            "message": {
                "text": "this has had no effect since 2027-01-02 00:00:00 Etc/UTC; remove the rule, or set a new end"
            },
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": f"{tmp_path}/global.yaml"},
                        "region": {"startLine": 6, "startColumn": 54},
                    }
                }
            ],
        }
    ]


def test_sarif_names_files_by_address() -> None:
    log = json.loads(as_sarif([Finding("my rules/ß.yaml", 1, 2, "syntax", Gravity.ERROR, "no")], {}, "1"))
    (finding,) = log["runs"][0]["results"]
    assert finding["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "my%20rules/%C3%9F.yaml"


def test_github_shows_a_problem_beside_its_line(tmp_path: Path) -> None:
    fill(tmp_path, {**FINE, "global.yaml": EXPIRED})
    result = run(str(tmp_path), *AT, "-o", "github")
    assert result.stdout == (
        f"::warning file={tmp_path}/global.yaml,line=6,col=54,title=alertrouter expired::"
        "this has had no effect since 2027-01-02 00:00:00 Etc/UTC; remove the rule, or set a new end\n"
    )


def test_github_is_told_nothing_when_there_is_nothing(tmp_path: Path) -> None:
    fill(tmp_path, FINE)
    assert run(str(tmp_path), "-o", "github").stdout == ""


def test_no_text_can_end_a_workflow_command_or_begin_another() -> None:
    finding = Finding("a,b:c%.yaml", 1, 2, "syntax", Gravity.ERROR, "50%\n::set-env name=x::y\r")
    assert as_github([finding]) == (
        "::error file=a%2Cb%3Ac%25.yaml,line=1,col=2,title=alertrouter syntax::50%25%0A::set-env name=x::y%0D"
    )


def test_cost_is_a_note_and_no_failure(tmp_path: Path) -> None:
    text = "sets: {start: [{rule: one, when: not event.class exists, then: {}}]}"
    fill(tmp_path, {**FINE, "global.yaml": text})
    result = run(str(tmp_path), "--strict", "--explain-cost", "-o", "github")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"::notice file={tmp_path}/global.yaml,line=1,col=23,title=alertrouter cost::`one`")
    assert run(str(tmp_path), "--explain-cost", "-o", "text").stdout.count("note(cost)") == 1


def test_rules_need_a_test_as_soon_as_there_are_tests(tmp_path: Path) -> None:
    fill(tmp_path, {**FINE, "global.yaml": EXPIRED.replace("2027-01-01", "2027-02-01")})
    assert run(str(tmp_path), "--strict", *AT).exit_code == 0
    fill(tmp_path, {"tests/noise.txt": "one"})
    assert "global.yaml:3:13: warning(rule-without-test): no test mentions `one`" in run(str(tmp_path), *AT).stdout
    fill(tmp_path, {"tests/deep/noise_test.yaml": "tests: [{name: muted, expect: {matched: [one]}}]\n"})
    assert run(str(tmp_path), "--strict", *AT).exit_code == 0


@pytest.mark.parametrize(
    ("files", "runbook", "is_found"),
    [
        ({}, "runbooks/shop.md", True),
        ({"runbooks/shop.md": ""}, "runbooks/shop.md", False),
        ({"rules/runbooks/shop.md": ""}, "runbooks/shop.md", False),
        ({"runbooks/other.md": ""}, "runbooks/shop.md", True),
        ({"rules/alertrouter.yaml": "runbook_base: https://wiki.example.org\n"}, "runbooks/shop.md", False),
        (
            {"rules/alertrouter.yaml": "runbook_base: https://wiki.example.org\n", "runbooks/other.md": ""},
            "runbooks/shop.md",
            True,
        ),
        ({}, "https://wiki.example.org/shop", False),
        ({}, ".", True),
        ({}, "null", False),
    ],
)
def test_runbooks_are_looked_for_beside_the_rules(
    tmp_path: Path, files: dict[str, str], runbook: str, is_found: bool
) -> None:
    shop = {"rules/router.yaml": FINE["router.yaml"], "rules/services/shop.yaml": f"runbook: {runbook}\n"}
    fill(tmp_path, {**shop, **files})
    result = run(str(tmp_path / "rules"), "--strict", *AT)
    assert (f"warning(runbook): there is no file {runbook}" in result.stdout) is is_found
    assert result.exit_code == int(is_found)
