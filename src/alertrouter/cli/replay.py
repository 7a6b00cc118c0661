"""`alertrouter replay`: recorded alerts against changed rules: what pages more, less, elsewhere?"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alertrouter import telemetry
from alertrouter.errors import RulesInvalid, SettingsInvalid
from alertrouter.history.reading import Damaged, files_in, read, total_bytes
from alertrouter.rules.build import CONFIG
from alertrouter.rules.load import load_config, load_rules
from alertrouter.settings import load_settings
from alertrouter.shown import escaped, escaped_json
from alertrouter.simulation.replay import Contender, Difference, replay
from alertrouter.simulation.replay_report import FAILURES, as_json, as_markdown, as_text, failure, failures
from alertrouter.sources import find_parser
from alertrouter.store.store import Dedup

_DAMAGED_SHOWN = 20
#: What is decoded is used once and leaves no cycles behind.
_GC_THRESHOLD = 50_000


class _FailOn(click.ParamType[list[tuple[str, float]]]):
    """What to fail on, comma-separated."""

    name = "what"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[tuple[str, float]]:
        try:
            return [failure(word) for word in value.split(",") if word.strip()]
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("replay")
@click.argument("events", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option(
    "--rules",
    "new",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The rules to try.",
)
@click.option(
    "--against",
    "old",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The rules to compare them with; ALERTROUTER_RULES or rules/ where nothing is said.",
)
@click.option(
    "--against-git", "ref", metavar="REF", help="Compare with the rules as they are in this commit or branch."
)
@click.option("-o", "--output", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
@click.option(
    "--fail-on",
    type=_FailOn(),
    default="",
    help=f"Exit with 1 if there is any of: {', '.join(FAILURES)} (more-pages=10%).",
)
@click.option("--strict", is_flag=True, help="Exit with 2 where a line cannot be read.")
def command(
    events: tuple[Path, ...],
    new: Path,
    old: Path | None,
    ref: str | None,
    output: str,
    fail_on: list[tuple[str, float]],
    strict: bool,
) -> None:
    """Run recorded alerts, in their own time, through two sets of rules, and say what would change.

    EVENTS are files as `alertrouter history -o jsonl` and ALERTROUTER_HISTORY_PATH write them, folders of such files, or -
    for standard input. Nothing is sent.
    """
    if old is not None and ref is not None:
        raise click.UsageError("--against and --against-git exclude each other")
    telemetry.set_up_logging("console", "error")
    files = files_in(events)
    if not files:
        raise click.UsageError("there are no .jsonl files in there")
    damaged: list[Damaged] = []
    with ExitStack() as stack:
        before = stack.enter_context(_of_commit(new, ref)) if ref else old or load_settings(os.environ, {}).rules
        names = (ref or str(before), str(new))
        old_side, new_side = _contender(before), _contender(new)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        progress = stack.enter_context(_progress())
        task = progress.add_task("replaying", total=total_bytes(files))
        advance = partial(progress.advance, task)
        found = _run(
            replay(
                old_side,
                new_side,
                read(files, damaged.append, advance, partial(find_parser, custom=new_side.ruleset.custom)),
            )
        )
    _tell_of_damage(damaged)
    if not found.heard:
        click.echo("no alerts in there: are these files of the history?", err=True)
    failed = failures(found, fail_on)
    match output:
        case "json":
            told = json.dumps(as_json(found, names, len(damaged), failed), indent=2, ensure_ascii=False)
            click.echo(escaped_json(told))
        case "markdown":
            click.echo(as_markdown(found, names, len(damaged), failed))
        case _:
            click.echo(as_text(found, names, len(damaged), failed))
    if strict and (damaged or not found.heard):
        sys.exit(2)
    sys.exit(1 if failed else 0)


def _contender(directory: Path) -> Contender:
    """The rules of a directory, with the settings that its alertrouter.yaml has for duplicates."""
    config = directory / CONFIG
    try:
        settings = load_settings(os.environ, {}, load_config(config).get("settings") if config.exists() else None)
        ruleset = load_rules(directory)
    except RulesInvalid as invalid:
        _complain(f"the rules in {directory} cannot be loaded:", *invalid.problems)
        sys.exit(1)
    except SettingsInvalid as invalid:
        raise click.UsageError(str(invalid)) from None
    for problem in (each for problems in ruleset.quarantined.values() for each in problems):
        _complain(f"quarantined: {problem}")
    dedup = Dedup(settings.dedup_window, settings.resend_after, settings.dedup_mode)
    return Contender(ruleset, dedup, settings.page_short)


@contextmanager
def _of_commit(directory: Path, ref: str) -> Iterator[Path]:
    """The directory as it is in a commit of the repository it is in, put down in a temporary one."""
    if shutil.which("git") is None:
        raise click.UsageError("--against-git needs git, which is not installed; use --against with a directory")
    top = Path(_git(directory, "rev-parse", "--show-toplevel").decode().strip())
    inside = directory.resolve().relative_to(top.resolve()).as_posix()
    commit = _git(directory, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}").decode().strip()
    archive = _git(top, "archive", "--format=tar", commit, *(() if inside == "." else ("--", inside)))
    with tempfile.TemporaryDirectory(prefix="alertrouter-") as name:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(name, filter="data")
        yield Path(name, inside)


def _git(folder: Path, *arguments: str) -> bytes:
    # no shell, and the one word that a person gives stands behind --end-of-options
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)  # noqa: S603, S607
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise click.UsageError(f"git {arguments[0]}: {said[-1] if said else f'ended with {done.returncode}'}")
    return done.stdout


def _progress() -> Progress:
    """Shown on a terminal only, and gone when it is over."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _run(main: Coroutine[Any, Any, Difference]) -> Difference:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def _complain(*lines: str) -> None:
    click.echo("\n".join(escaped(line, sys.stderr.encoding or "utf-8") for line in lines), err=True)


def _tell_of_damage(damaged: Sequence[Damaged]) -> None:
    for each in damaged[:_DAMAGED_SHOWN]:
        _complain(f"{each.place}: {each.reason}")
    if len(damaged) > _DAMAGED_SHOWN:
        click.echo(f"... and {len(damaged) - _DAMAGED_SHOWN:,} more lines that cannot be read", err=True)
