"""A schedule or a span of time that never opens, now or later.

Two windows that have no moment in common, an end before its beginning, or a one-off window that is over. A rule with such
a test does nothing.

    when: now in Mon 09:00:00 to 10:00:00 Etc/UTC and now in Tue 09:00:00 to 10:00:00 Etc/UTC
    when: now > 2027-05-02 00:00:00 Etc/UTC and now < 2027-05-01 00:00:00 Etc/UTC
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alertrouter.rules.closures import Run, compile_node
from alertrouter.rules.finding import Finding, Gravity, RulesDirectory, finding_of
from alertrouter.rules.moment import Moment
from alertrouter.rules.syntax import Joined, Literal, Node, Now, Path, Span, Threshold, Within, walk
from alertrouter.rules.times import Instant

ID = "schedule-never-opens"

#: Longer than a year, so that every change of the clocks is in it.
HORIZON_MS = 400 * 86_400_000


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for placed in directory.rules():
        for index, condition in enumerate(placed.rule.conditions):
            for span in _closed(condition.tree, directory.now):
                problem = placed.in_condition(index, span.start, "no moment from now on satisfies this", ID)
                yield finding_of(problem, Gravity.WARNING, "correct the times, or remove the rule")


def _closed(node: Node, now: int) -> Iterator[Span]:
    """The parts that keep a condition from ever holding, where tests of the time alone do."""
    match node:
        case Joined("or", parts):
            for part in parts:
                yield from _closed(part, now)
            return
        case Joined("and", parts):
            timed = [part for part in parts if _is_of_time(part)]
        case _:
            timed = [node] if _is_of_time(node) else []
    if timed and not _opens(timed, now):
        yield timed[0].span


def _is_of_time(node: Node) -> bool:
    nodes = walk(node)
    return any(isinstance(each, Now | Within) for each in nodes) and not any(
        isinstance(each, Path | Threshold) for each in nodes
    )


def _opens(tests: Sequence[Node], now: int) -> bool:
    """Whether all the tests hold at one moment from now on.

    Looked for from now on and from each instant that is named: beyond the last one, only the weeks repeat themselves.
    """
    run = compile_node(Joined("and", tuple(tests), tests[0].span))
    values = (each.value for test in tests for each in walk(test) if isinstance(each, Literal))
    named = {value.ms + step for value in values if isinstance(value, Instant) for step in (-1, 0, 1)}
    return any(
        _opens_within(run, start, start + HORIZON_MS) for start in sorted({now} | {ms for ms in named if ms > now})
    )


def _opens_within(run: Run, start: int, end: int) -> bool:
    """Whether it holds between two times (ms since the epoch). It is asked again whenever a test changes its answer."""
    at = start
    while at < end:
        moment = Moment(at)
        if run({}, moment) is True:
            return True
        at = moment.until or end
    return False
