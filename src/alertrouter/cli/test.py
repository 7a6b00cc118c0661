"""`alertrouter test`: do the rules do what their tests say?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import structlog
import uvloop

from alertrouter.delivery.flapping import FlappingLimit
from alertrouter.delivery.silence import AutoResolve
from alertrouter.errors import AlertrouterError, SettingsInvalid, StoreUnavailable
from alertrouter.rules.build import CONFIG
from alertrouter.rules.document import Problem
from alertrouter.rules.load import Reading, read_rules
from alertrouter.rules.model import Ruleset
from alertrouter.rules.regex import BadPattern, Searcher, compile_search
from alertrouter.settings import load_settings
from alertrouter.shown import escaped, escaped_json, escaped_lines
from alertrouter.simulation import report
from alertrouter.simulation.cases import Case, find_files, read_cases
from alertrouter.simulation.coverage import Coverage, FileCoverage, as_lcov, share
from alertrouter.simulation.mutants import Mutant, mutants
from alertrouter.simulation.play import Played
from alertrouter.simulation.run import Result, Runner, Setup
from alertrouter.simulation.update import Change, changes, fillings, updated
from alertrouter.simulation.world import throwaway_redis
from alertrouter.store.store import Dedup


class _Pattern(click.ParamType[Searcher]):
    """A regular expression of RE2."""

    name = "regex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Searcher:
        try:
            return compile_search(value, exactly=True)
        except BadPattern as bad:
            self.fail(f"{value!r}: {bad}", param, ctx)


@dataclass(frozen=True, slots=True)
class _Read:
    """The rules and everything that is to be run with them."""

    reading: Reading
    ruleset: Ruleset
    cases: Sequence[Case]
    rulesets: Mapping[Path, Ruleset]
    setup: Setup


@dataclass(frozen=True, slots=True)
class _Report:
    """How it all went. covered and mutation are None where nobody asked for them."""

    results: Sequence[Result]
    seconds: float
    filled: Mapping[Path, Sequence[Change]]
    covered: Sequence[FileCoverage] | None = None
    mutation: tuple[int, Sequence[Mutant]] | None = None

    @property
    def passed(self) -> bool:
        """Whether every test did."""
        return all(result.passed for result in self.results)


class _CannotRun(AlertrouterError):
    """Something is wrong with the files: no test was run."""


@click.command("test")
@click.argument(
    "rules", type=click.Path(exists=True, file_okay=False, path_type=Path), default="rules", envvar="ALERTROUTER_RULES"
)
@click.option("--run", "wanted", type=_Pattern(), help="Only tests in whose names this RE2 pattern is found.")
@click.option("--diff", is_flag=True, help="Show every value in full, and why it came so.")
@click.option("--update", is_flag=True, help="Write what came into the expectations, and into each `expect: {}`.")
@click.option("--coverage", "covering", is_flag=True, help="Show what of the rules no test reached.")
@click.option("--lcov", type=click.Path(dir_okay=False, path_type=Path), help="Write the coverage there for lcov.")
@click.option("--mutate", is_flag=True, help="Change the rules one thing at a time: which change does no test notice?")
@click.option(
    "--fail-under", type=click.FloatRange(0, 100), metavar="N", help="Fail if coverage or mutation score is below N %."
)
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write the results there as JUnit XML.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    rules: Path,
    wanted: Searcher | None,
    diff: bool,
    update: bool,
    covering: bool,
    lcov: Path | None,
    mutate: bool,
    fail_under: float | None,
    junit: Path | None,
    output: str,
) -> None:
    """Run the tests of RULES, a directory: every tests/*_test.yaml in it.

    They go through the rules, the store and the worker that serve, on a clock of their own; nothing is sent anywhere.
    Exits with 0 if all came as expected, 1 if not, 2 if the files are wrong. docs/testing-rules.md has examples.
    """
    covering = covering or lcov is not None or (fail_under is not None and not mutate)
    try:
        read = _read(rules, wanted)
        with _silence():
            done = uvloop.run(_run(read, covering=covering, mutate=mutate))
            if update and _write(done):
                read = _read(rules, wanted)
                done = uvloop.run(_run(read, covering=covering, mutate=mutate))
    except (_CannotRun, SettingsInvalid, StoreUnavailable) as error:
        click.echo(escaped_lines(str(error), sys.stderr.encoding or "utf-8"), err=True)
        sys.exit(2)
    if junit is not None:
        junit.write_text(report.as_junit(done.results, done.seconds), encoding="utf-8")
    if lcov is not None and done.covered is not None:
        lcov.write_text(as_lcov(done.covered), encoding="utf-8")
    if mutate and done.mutation is None:
        click.echo("the rules are not mutated: first make every test pass", err=True)
    if output == "json":
        told = report.as_json(done.results, done.seconds, done.covered, done.mutation)
        click.echo(escaped_json(json.dumps(told, indent=2, ensure_ascii=False)))
    else:
        encoding = sys.stdout.encoding or "utf-8"
        click.echo("\n".join(escaped(line, encoding) for line in _as_text(done, diff=diff)))
    sys.exit(1 if _has_failed(done, fail_under) else 0)


def _read(rules: Path, wanted: Searcher | None) -> _Read:
    """Everything there is to run. Raises _CannotRun with every problem, and SettingsInvalid."""
    reading = read_rules(rules)
    if reading.ruleset is None:
        raise _CannotRun("\n".join(map(str, reading.problems)))
    files = find_files(rules)
    if not files:
        raise _CannotRun(f"{rules}: there is no tests/*_test.yaml; docs/testing-rules.md begins with an empty one")
    cases: list[Case] = []
    problems: list[Problem] = []
    for file in files:
        for each in read_cases(file, reading.ruleset.custom):
            if isinstance(each, Problem):
                problems.append(each)
            elif wanted is None or wanted(each.name.encode("utf-8", "replace")):
                cases.append(each)
    rulesets: dict[Path, Ruleset] = {}
    for folder in dict.fromkeys(step.rules for case in cases for step in case.steps if step.rules is not None):
        other = read_rules(folder)
        problems += other.problems
        if other.ruleset is not None:
            rulesets[folder] = other.ruleset
    if problems:
        raise _CannotRun("\n".join(map(str, problems)))
    if not cases:
        raise _CannotRun(f"{rules}: no test has such a name")
    return _Read(reading, reading.ruleset, cases, rulesets, _setup(reading))


def _setup(reading: Reading) -> Setup:
    """What alertrouter.yaml sets. The environment plays no part: a test says the same everywhere."""
    file = reading.documents[CONFIG].get("settings")
    settings = load_settings({}, {}, file if isinstance(file, dict) else None)
    dedup = Dedup(settings.dedup_window, settings.resend_after, settings.dedup_mode)
    return Setup(
        dedup,
        settings.page_short,
        AutoResolve.from_setting(settings.auto_resolve_after),
        FlappingLimit.from_settings(settings.flapping_transitions, settings.flapping_within),
    )


@contextmanager
def _silence() -> Iterator[None]:
    """The worker's log is for those who run it."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


async def _run(read: _Read, *, covering: bool, mutate: bool) -> _Report:
    coverage = Coverage(read.ruleset, read.reading.documents) if covering or mutate else None
    filled: dict[Path, list[Change]] = {}

    def see(case: Case, played: Played) -> None:
        filled.setdefault(Path(case.document.file), []).extend(fillings(played))
        if coverage is not None:
            coverage.see(case, played)

    began = perf_counter()
    async with throwaway_redis() as (client, folder):
        runner = Runner(client, folder, read.rulesets, read.setup)
        results = [await runner.run(case, read.ruleset, see=see) for case in read.cases]
        seconds = perf_counter() - began
        mutation = None
        if mutate and coverage is not None and all(result.passed for result in results):  # else nothing is noticed
            every = list(mutants(read.ruleset, read.reading.documents))
            with click.progressbar(every, label="mutants", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
                mutation = (len(every), await runner.survivors(bar, coverage))
    files = coverage.files() if coverage is not None and covering else None
    return _Report(results, seconds, filled, files, mutation)


def _write(done: _Report) -> bool:
    """Write what came into the test files; whether there was anything to write."""
    wanted: dict[Path, list[Change]] = {path: list(filled) for path, filled in done.filled.items()}
    for result in done.results:
        wanted[Path(result.case.document.file)] += changes(result.failures)
    written = 0
    for path, each in wanted.items():
        before = path.read_bytes().decode("utf-8")
        mark = "\ufeff" if before.startswith("\ufeff") else ""
        after = mark + updated(before.removeprefix(mark), each)
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            click.echo(escaped(f"updated {path}"), err=True)
            written += 1
    return written > 0


def _as_text(done: _Report, *, diff: bool) -> Iterator[str]:
    for result in done.results:
        yield from report.as_text(result, whole=diff)
    if done.covered is not None:
        yield from report.coverage_text(done.covered)
        yield ""
    if done.mutation is not None:
        yield from report.mutation_text(*done.mutation)
    yield report.summary(done.results, done.seconds)


def _has_failed(done: _Report, fail_under: float | None) -> bool:
    figures = []
    if done.covered is not None:
        figures.append(share(done.covered))
    if done.mutation is not None:
        figures.append(report.score(done.mutation[0], len(done.mutation[1])))
    return not done.passed or any(each < (fail_under or 0) for each in figures)
