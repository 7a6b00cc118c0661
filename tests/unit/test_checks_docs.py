"""What is published beside the code: pages, schemas, the pre-commit hook and the action for GitHub."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from tools.generate_docs import DOCS, generated

from alertrouter.cli import main
from alertrouter.rules.build import ALLOWED
from alertrouter.rules.condition import ConditionError, compile_condition
from alertrouter.rules.model import Kind
from tests.rules.test_wrong_files import PLACES, WRONG, fill

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "rules").glob("*.yaml")) + sorted((ROOT / "rules" / "services").glob("*.yaml"))
#: The wrong files that a schema can see through: what they do wrong is wrong by itself, and the same in every version.
SEEN = {
    "config": "duration priority-without-severity unknown-kind unknown-section",
    "global": "a-list catch-all-routes drop-and-suppress drop-without-anything event-action-acknowledge "
    "link-without-scheme name-catch-all name-with-blanks no-name no-then reason-without-suppress "
    "suppress-expires-never suppress-false suppress-in-catch-all suppress-without-anything suppress-without-owner "
    "suspend-without-unit unknown-action unknown-key unknown-key-in-rule unknown-severity when-a-number when-empty",
    "router": "catch-all-empty no-catch-all rule-without-route severity suppress",
    "service": "drop routing-key-itself runbook-outside tier",
    "unrouted": "suppress suspend",
}


def schema_for(path: Path) -> str:
    return "service" if path.parent.name == "services" else path.stem


@cache
def validator(kind: str) -> Draft202012Validator:
    schema = json.loads((DOCS / "schema" / f"{kind}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def as_an_editor_reads(text: str) -> Any:
    """Dates are text to YAML 1.2, which editors read."""
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


def test_the_generated_files_are_up_to_date() -> None:
    there = {
        f"{folder}/{path.name}": path.read_text(encoding="utf-8")
        for folder in ("checks", "schema")
        for path in (DOCS / folder).iterdir()
    }
    assert there == generated(), "run `python -m tools.generate_docs`"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_schemas_accept_the_shipped_rules(path: Path) -> None:
    content = as_an_editor_reads(path.read_text(encoding="utf-8"))
    assert [error.message for error in validator(schema_for(path)).iter_errors(content)] == []


@pytest.mark.parametrize("wrong", [f"{place}-{name}" for place, names in SEEN.items() for name in names.split()])
def test_the_schemas_refuse_the_wrong_files(wrong: str) -> None:
    content = as_an_editor_reads((WRONG / f"{wrong}.yaml").read_text(encoding="utf-8"))
    assert not validator(schema_for(Path(PLACES[wrong.partition("-")[0]]))).is_valid(content)


@pytest.mark.parametrize("command", ["check", "test"])
def test_the_pre_commit_hooks_run_the_commands(command: str) -> None:
    hooks = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    hook = hooks[f"alertrouter-{command}"]
    assert (hook["language"], hook["pass_filenames"]) == ("python", False)
    assert re.search(hook["files"], "rules/services/shop.yaml")
    assert not re.search(hook["files"], "src/rules/model.py")
    program, *words = shlex.split(hook["entry"])
    assert program == "alertrouter"
    assert CliRunner().invoke(main, [*words, str(ROOT / "rules")]).exit_code == 0


def test_the_action_is_composite_and_passes_no_input_as_code() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    assert all(given["description"] and isinstance(given["default"], str) for given in action["inputs"].values())
    used = set(re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", (ROOT / "action.yml").read_text()))
    assert used == action["inputs"].keys()
    for step in action["runs"]["steps"]:
        assert "uses" in step or step["shell"] == "bash"
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize(
    ("strict", "version", "installed", "checked"),
    [
        (
            "false",
            "",
            [
                f"--require-hashes -r {ROOT}/requirements/runtime.txt -r {ROOT}/requirements/build.txt",
                f"--no-deps --no-build-isolation {ROOT}",
            ],
            "check -o github -- my rules",
        ),
        ("true", "1.2.3", ["--constraint LOCK alertrouter==1.2.3"], "check -o github --strict -- my rules"),
    ],
)
def test_the_action_installs_and_checks(
    tmp_path: Path, strict: str, version: str, installed: list[str], checked: str
) -> None:
    calls = tmp_path / "calls"
    made = tmp_path / "temp" / "alertrouter" / "bin"
    made.mkdir(parents=True)
    for program in (tmp_path / "python", made / "pip", made / "alertrouter"):
        program.write_text(f'#!/bin/sh\necho "{program.name} $*" >>{calls}\n')
        program.chmod(0o755)
    _, install, check, *_ = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    variables = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "VERSION": version,
        "SOURCE": str(ROOT),
        "RULES": "my rules",
        "STRICT": strict,
    }
    for step in (install, check):
        given = {name: variables[name] for name in ("PATH", "RUNNER_TEMP", *step["env"])}
        subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], env=given, check=True, timeout=30)
    assert re.sub(r"/dev/fd/\d+", "LOCK", calls.read_text()).splitlines() == [
        f"python -m venv {tmp_path}/temp/alertrouter",
        *(f"pip install --quiet {each}" for each in installed),
        f"alertrouter {checked}",
    ]


def test_the_action_uses_others_by_their_commit() -> None:
    used = [
        step["uses"] for step in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"] if "uses" in step
    ]
    assert used
    for each in used:
        assert re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40}", each)


REFERENCE = (DOCS / "rules.md").read_text(encoding="utf-8")


def rows(heading: str, of: str = REFERENCE) -> list[list[str]]:
    """The cells of the first table below a line."""
    table = of.partition(f"{heading}\n")[2].partition("\n|---")[2].partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table]


@pytest.mark.parametrize("condition", [row[0].strip("`") for row in rows("## Conditions")])
def test_the_conditions_of_the_reference_compile(condition: str) -> None:
    assert compile_condition(condition).text == condition


@pytest.mark.parametrize("row", rows("What people write, and what they mean:"), ids=lambda row: str(row[0]))
def test_the_mistakes_of_the_reference_get_the_message_it_says(row: list[str]) -> None:
    with pytest.raises(ConditionError) as refused:
        compile_condition(row[0].strip("`"))
    assert refused.value.message == row[1]


def test_the_reference_allows_each_action_where_loading_does() -> None:
    kinds: tuple[Kind, ...] = ("global", "router", "service", "unrouted")
    written = {row[0].strip("`"): row[2:] for row in rows("## Actions")}
    allowed = {
        action: [
            "" if action not in ALLOWED[kind][0] else "yes" if action in ALLOWED[kind][1] else "rules" for kind in kinds
        ]
        for action in frozenset().union(*(ALLOWED[kind][0] for kind in kinds))
    }
    assert written == allowed


def test_the_files_of_the_reference_load_and_check_clean(tmp_path: Path) -> None:
    files = dict(re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", REFERENCE, re.DOTALL))
    assert files.keys() == {"global.yaml", "router.yaml", "services/payment-service.yaml"}
    runbook = {"../runbooks/payment-service.md": ""}
    fill(tmp_path / "rules", {**files, **runbook})
    result = CliRunner().invoke(main, ["check", "--strict", "--at", "2027-01-15", str(tmp_path / "rules")])
    assert result.exit_code == 0, result.output


def test_each_editor_line_leads_to_the_schema_of_its_file() -> None:
    lines = rows("first, with the path or link under which you keep the schema:")
    assert len(lines) == 6
    for file, line in lines:
        here = ROOT / "rules" / file.strip("`")
        schema = (here.parent / line.strip("`").partition("$schema=")[2]).resolve()
        kind = "test" if here.parent.name == "tests" else schema_for(here)
        assert schema == DOCS / "schema" / f"{kind}.schema.json"
        assert schema.is_file()
