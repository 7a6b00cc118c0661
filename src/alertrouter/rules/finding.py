"""What `alertrouter check` looks at, and what it finds there. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.model import Actions, Orchestration, Rule, Ruleset


class Gravity(StrEnum):
    """An error makes a rule do something else than it says; a warning is probably a slip; a note was asked for."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """What one check found: where (line and column count from 1), what is wrong, and what to write instead."""

    file: str
    line: int
    column: int
    check: str
    severity: Gravity
    message: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """What is wrong and what to write instead."""
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.severity}({self.check}): {self.text}"


def finding_of(problem: Problem, severity: Gravity = Gravity.ERROR, remedy: str = "") -> Finding:
    """The finding for a problem, whose message may hold the remedy already."""
    return Finding(problem.file, problem.line, problem.column, problem.check, severity, problem.message, remedy)


@dataclass(frozen=True, slots=True)
class PlacedRule:
    """A rule and where it stands: in `document`, at `path`."""

    rule: Rule
    orchestration: Orchestration
    set: str
    document: Document
    path: tuple[Key, ...]

    def at(self, *below: Key) -> tuple[Key, ...]:
        """The path of something in the rule."""
        return (*self.path, *below)

    def in_condition(self, condition: int, offset: int, message: str, check: str) -> Problem:
        """A problem at an offset in the text of one of the rule's conditions."""
        when = self.at("when")
        path = (*when, condition) if isinstance(self.document.value_at(when), list) else when
        return self.document.problem_within(path, offset, message, check)


@dataclass(frozen=True, slots=True)
class Muting:
    """A `suppress` or `drop`, and where it stands: `then` is the path of the actions it is among.

    ends_at: ms since the epoch. rule: None for that of a catch-all.
    """

    action: Literal["suppress", "drop"]
    ends_at: int
    rule: Rule | None
    orchestration: Orchestration
    document: Document
    then: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class RulesDirectory:
    """A rules directory that loads, and what checks need to know beside it.

    documents:        each file, by the name of its orchestration, and alertrouter.yaml by its own.
    now:              ms since the epoch.
    tested:           the names of rules that a test mentions; None where there are no tests yet.
    runbooks_missing: runbook paths, as written, under which no file was found.
    """

    ruleset: Ruleset
    documents: Mapping[str, Document]
    now: int
    tested: frozenset[str] | None = None
    runbooks_missing: frozenset[str] = frozenset()

    def sets(self) -> Iterator[tuple[PlacedRule, ...]]:
        """The rules of each set, in the order in which they are tried."""
        for orchestration in self.ruleset.orchestrations.values():
            document = self.documents[orchestration.name]
            for name, rules in orchestration.sets.items():
                yield tuple(
                    PlacedRule(rule, orchestration, name, document, ("sets", name, index))
                    for index, rule in enumerate(rules)
                )

    def rules(self) -> Iterator[PlacedRule]:
        """Every rule, disabled ones too."""
        for rules in self.sets():
            yield from rules

    def muting(self) -> Iterator[Muting]:
        """What keeps alerts from paging. Disabled rules do not."""
        for placed in self.rules():
            if not placed.rule.disabled:
                yield from _muting(
                    placed.rule.actions, placed.rule, placed.orchestration, placed.document, placed.at("then")
                )
        for orchestration in self.ruleset.orchestrations.values():
            yield from _muting(
                orchestration.catch_all, None, orchestration, self.documents[orchestration.name], ("catch_all",)
            )


def _muting(
    actions: Actions, rule: Rule | None, orchestration: Orchestration, document: Document, then: tuple[Key, ...]
) -> Iterator[Muting]:
    if actions.suppress is not None:
        yield Muting("suppress", actions.suppress.expires_at, rule, orchestration, document, then)
    if actions.drop is not None:
        yield Muting("drop", actions.drop.expires_at, rule, orchestration, document, then)
