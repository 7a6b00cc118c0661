"""`alertrouter check`: is the rules directory fit to be served?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from alertrouter.rules.load import Reading, read_rules


@click.command("check")
@click.argument(
    "rules", type=click.Path(exists=True, file_okay=False, path_type=Path), default="rules", envvar="ALERTROUTER_RULES"
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(rules: Path, output: str) -> None:
    """Load RULES, a directory, and print every problem as file:line:col, what is wrong, what to write instead.

    Exits with 0 if there is none, 1 if there are some, 2 if there is no such directory.
    """
    reading = read_rules(rules)
    click.echo(_as_json(reading) if output == "json" else _as_text(reading, rules))
    sys.exit(1 if reading.problems else 0)


def _as_json(reading: Reading) -> str:
    version = reading.ruleset.version if reading.ruleset else None
    problems = [asdict(problem) for problem in reading.problems]
    return json.dumps({"version": version, "problems": problems}, indent=2, ensure_ascii=False)


def _as_text(reading: Reading, rules: Path) -> str:
    if reading.ruleset is None:
        return "\n".join([*map(str, reading.problems), "", f"{rules}: {len(reading.problems)} problem(s)"])
    orchestrations = reading.ruleset.orchestrations.values()
    count = sum(len(each) for orchestration in orchestrations for each in orchestration.sets.values())
    return f"{rules}: no problems in {count} rules and {len(reading.ruleset.services)} services (version {reading.ruleset.version})"
