"""`alertrouter check`: is the rules directory fit to be served, and does it do what it seems to say?"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from alertrouter import __version__
from alertrouter.rules.build import CONFIG
from alertrouter.rules.check import check, pages
from alertrouter.rules.finding import Finding, Gravity, RulesDirectory, finding_of
from alertrouter.rules.finding_formats import as_github, as_json, as_sarif
from alertrouter.rules.load import Reading, read_rules
from alertrouter.shown import escaped, escaped_json

#: What a rule's name is made of.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")


@click.command("check")
@click.argument(
    "rules", type=click.Path(exists=True, file_okay=False, path_type=Path), default="rules", envvar="ALERTROUTER_RULES"
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json", "sarif", "github"]), default="text", show_default=True
)
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@click.option(
    "--at",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Check as of this time (UTC) instead of now: what will have expired by then?",
)
@click.option("--explain-cost", is_flag=True, help="Note the rules that are tried for every alert, and why.")
def command(rules: Path, output: str, strict: bool, at: datetime | None, explain_cost: bool) -> None:
    """Check RULES, a directory, and print every problem as file:line:col, what is wrong, what to write instead.

    Exits with 0 if there is none, 1 if there are some, 2 if there is no such directory. Warnings alone are no failure
    unless --strict. Each check, named in parentheses, has a page in docs/checks.
    """
    now = round((at.replace(tzinfo=UTC) if at else datetime.now(UTC)).timestamp() * 1000)
    reading = read_rules(rules, now=now)
    findings = _findings(reading, rules, now, with_cost=explain_cost)
    match output:
        case "json":
            text = escaped_json(as_json(findings, reading.ruleset.version if reading.ruleset else None))
        case "sarif":
            text = escaped_json(as_sarif(findings, pages(), __version__))
        case "github":
            text = as_github(findings)
        case _:
            lines = [*map(str, findings), *([""] if findings else []), _summary(findings, reading, rules)]
            text = "\n".join(escaped(line, sys.stdout.encoding or "utf-8") for line in lines)
    click.echo(text, nl=bool(text))
    failing = {Gravity.ERROR, Gravity.WARNING} if strict else {Gravity.ERROR}
    sys.exit(1 if any(finding.severity in failing for finding in findings) else 0)


def _findings(reading: Reading, rules: Path, now: int, *, with_cost: bool) -> list[Finding]:
    """What the loader refused and, as far as there are rules, what the checks find in them."""
    refused = [finding_of(problem) for problem in reading.problems]
    if reading.ruleset is None:
        return refused
    directory = RulesDirectory(
        ruleset=reading.ruleset,
        documents=reading.documents,
        now=now,
        tested=_words_of_tests(rules / "tests"),
        runbooks_missing=frozenset(_missing_runbooks(reading, rules)),
    )
    return sorted([*refused, *check(directory, with_cost=with_cost)])


def _words_of_tests(tests: Path) -> frozenset[str] | None:
    """Every word in the tests that may be a rule's name; None where there are no tests."""
    if not tests.is_dir():
        return None
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in tests.rglob("*_test.yaml"))
    return frozenset(word for text in texts for word in _NAME.findall(text))


def _missing_runbooks(reading: Reading, rules: Path) -> Iterator[str]:
    """The runbook paths under which nothing is found, as far as that can be told from here."""
    places = [rules.resolve().parent, rules]
    may_be_elsewhere = "runbook_base" in reading.documents[CONFIG]
    for document in reading.documents.values():
        match document.get("runbook"):
            case str(path) if "://" not in path:
                folder = path.partition("/")[0]
                is_here = not may_be_elsewhere or any((place / folder).exists() for place in places)
                if is_here and not any((place / path).is_file() for place in places):
                    yield path


def _summary(findings: Sequence[Finding], reading: Reading, rules: Path) -> str:
    if reading.ruleset is None:
        return f"{rules}: {len(findings)} problem(s)"
    orchestrations = reading.ruleset.orchestrations.values()
    count = sum(len(each) for orchestration in orchestrations for each in orchestration.sets.values())
    found = f"{len(findings)} problem(s)" if findings else "no problems"
    return f"{rules}: {found} in {count} rules and {len(reading.ruleset.services)} services (version {reading.ruleset.version})"
