"""What the tests reached of the rules: each rule, both answers of each test in their conditions, each catch-all."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from alertrouter.rules.cache import CacheVariable
from alertrouter.rules.closures import Run, View, compile_node
from alertrouter.rules.condition import Condition, Outcome
from alertrouter.rules.document import Document, Key
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.finding import PlacedRule
from alertrouter.rules.model import Orchestration, Rule, Ruleset
from alertrouter.rules.moment import Moment
from alertrouter.rules.syntax import Joined, Node, Not, Span
from alertrouter.simulation.cases import Case
from alertrouter.simulation.conditioned import Conditioned, conditioned, leaves
from alertrouter.simulation.play import Played


class Leaf(NamedTuple):
    """One test in a condition that is not made of others: whose it is, the number of the condition, the place there."""

    key: str
    condition: int
    span: Span


@dataclass(frozen=True, slots=True)
class Unreached:
    """What no test reached. Line and column count from 1."""

    file: str
    line: int
    column: int
    kind: str  # "rule", "condition" or "catch_all"
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a rule file. branches: how often each test in it was true, and how often false, in their order."""

    hits: int
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """Of one file: reached and all, of each kind. The two answers of a test count one by one."""

    file: str
    rules: tuple[int, int]
    conditions: tuple[int, int]
    catch_alls: tuple[int, int]
    unreached: Sequence[Unreached]
    lines: Mapping[int, Line]

    @property
    def counts(self) -> tuple[int, int]:
        """Reached and all, whatever the kind."""
        each = (self.rules, self.conditions, self.catch_alls)
        return sum(reached for reached, _ in each), sum(all_ for _, all_ in each)


def share(files: Sequence[FileCoverage]) -> float:
    """How much of all of them was reached, in percent; never 100 where something was not."""
    reached = sum(each.counts[0] for each in files)
    total = sum(each.counts[1] for each in files)
    return 100.0 if reached == total else min(100 * reached / total, 99.99)


@dataclass(slots=True)
class Coverage:
    """Fills while tests run.

    matched, caught:         how often a rule matched, and a catch-all acted, by the names of rules and of orchestrations.
    answers:                 how often a leaf was true, and how often false.
    looked_at, acted:        the tests in which a rule was tried, and in which it matched.
    entered, caught_in:      the tests in which an orchestration was entered, and in which its catch-all acted.
    """

    ruleset: Ruleset
    documents: Mapping[str, Document]
    matched: Counter[str] = field(default_factory=Counter)
    caught: Counter[str] = field(default_factory=Counter)
    answers: Counter[tuple[Leaf, bool]] = field(default_factory=Counter)
    looked_at: dict[str, dict[int, Case]] = field(default_factory=dict)
    acted: dict[str, dict[int, Case]] = field(default_factory=dict)
    entered: dict[str, dict[int, Case]] = field(default_factory=dict)
    caught_in: dict[str, dict[int, Case]] = field(default_factory=dict)
    watched: Ruleset = field(init=False)

    def __post_init__(self) -> None:
        self.watched = _watched(self.ruleset, self._note)

    def _note(self, leaf: Leaf, holds: bool) -> None:
        self.answers[leaf, holds] += 1

    def see(self, case: Case, played: Played) -> None:
        """Look at one step. What other rules decided is no part of this."""
        for judged in played.judged:
            if judged.ruleset is not self.ruleset:
                continue
            again = evaluate(judged.alert, self.watched, judged.at, counts=judged.counts, trace=True)
            for each in again.trace:
                self.entered.setdefault(each.orchestration, {})[id(case)] = case
                if each.rule == "catch_all":
                    self.caught[each.orchestration] += 1
                    self.caught_in.setdefault(each.orchestration, {})[id(case)] = case
                    continue
                self.looked_at.setdefault(each.rule, {})[id(case)] = case
                if each.matched:
                    self.matched[each.rule] += 1
                    self.acted.setdefault(each.rule, {})[id(case)] = case

    def files(self) -> list[FileCoverage]:
        """What was reached, by file."""
        parts: dict[str, list[Conditioned]] = {}
        for each in conditioned(self.ruleset, self.documents):
            parts.setdefault(each.orchestration.name, []).append(each)
        return [
            self._of_file(orchestration, parts.get(name, []), self.documents[name])
            for name, orchestration in self.ruleset.orchestrations.items()
            if self.documents[name].text.strip()
        ]

    def _of_file(self, orchestration: Orchestration, parts: Sequence[Conditioned], document: Document) -> FileCoverage:
        rules = [each.placed for each in parts if each.placed is not None]
        of_all = [leaf for each in parts for leaf in _leaves_of(each)]
        unreached = [*self._unreached_rules(rules), *self._unreached_answers(parts)]
        was_caught = self.caught[orchestration.name] > 0
        if not was_caught:
            unreached.append(_at(document, ("catch_all",), "catch_all", "", "no test ended in this catch-all"))
        return FileCoverage(
            file=document.file,
            rules=(sum(self.matched[each.rule.name] > 0 for each in rules), len(rules)),
            conditions=(
                sum(self.answers[leaf, holds] > 0 for leaf in of_all for holds in (True, False)),
                2 * len(of_all),
            ),
            catch_alls=(int(was_caught), 1),
            unreached=sorted(unreached, key=lambda each: (each.line, each.column)),
            lines=self._lines(orchestration, parts, document),
        )

    def _unreached_rules(self, rules: Sequence[PlacedRule]) -> Iterator[Unreached]:
        for each in rules:
            if not self.matched[each.rule.name]:
                message = f"no test made the rule `{each.rule.name}` match"
                yield _at(each.document, each.at("rule"), "rule", each.rule.name, message)

    def _unreached_answers(self, parts: Sequence[Conditioned]) -> Iterator[Unreached]:
        for each in parts:
            for leaf in _leaves_of(each):
                missing = [holds for holds in (True, False) if not self.answers[leaf, holds]]
                if not missing:
                    continue
                text = each.conditions[leaf.condition].text
                source = " ".join(text[leaf.span.start : leaf.span.end].split())
                never = "reached" if len(missing) == 2 else str(missing[0]).lower()
                found = each.in_condition(leaf.condition, leaf.span.start, f"`{source}` was never {never}")
                yield Unreached(found.file, found.line, found.column, "condition", each.rule, found.message)

    def _lines(self, orchestration: Orchestration, parts: Sequence[Conditioned], document: Document) -> dict[int, Line]:
        """The lines of a rule's name and actions with how often it matched, those of tests with their answers."""
        lines: dict[int, Line] = {}
        for each in parts:
            for key in ("rule", "then") if each.rule else ():
                _add(lines, document.problem((*each.path, key), "").line, self.matched[each.rule])
            for leaf in _leaves_of(each):
                line = each.in_condition(leaf.condition, leaf.span.start, "").line
                answers = self.answers[leaf, True], self.answers[leaf, False]
                _add(lines, line, sum(answers), answers)
        if "catch_all" in document:
            _add(lines, document.problem_with_key(("catch_all",), "").line, self.caught[orchestration.name])
        return dict(sorted(lines.items()))


def _add(lines: dict[int, Line], number: int, hits: int, branches: tuple[int, ...] = ()) -> None:
    known = lines.get(number, Line(0))
    lines[number] = Line(max(known.hits, hits), known.branches + branches)


def _at(document: Document, path: tuple[Key, ...], kind: str, rule: str, message: str) -> Unreached:
    found = document.problem_with_key(path, message)
    return Unreached(found.file, found.line, found.column, kind, rule, message)


def as_lcov(files: Sequence[FileCoverage]) -> str:
    """A tracefile of lcov 1.x, in which both answers of a test are branches: https://man.archlinux.org/man/geninfo.1"""
    lines: list[str] = []
    for each in files:
        branches = [
            (number, place, taken) for number, line in each.lines.items() for place, taken in enumerate(line.branches)
        ]
        reached = {number: line.hits for number, line in each.lines.items()}
        lines += ["TN:alertrouter", f"SF:{each.file}"]
        # a branch whose line was never reached is written as `-`
        lines += [f"BRDA:{number},0,{place},{taken if reached[number] else '-'}" for number, place, taken in branches]
        lines += [f"BRF:{len(branches)}", f"BRH:{sum(taken > 0 for *_, taken in branches)}"]
        lines += [f"DA:{number},{hits}" for number, hits in reached.items()]
        lines += [f"LF:{len(reached)}", f"LH:{sum(hits > 0 for hits in reached.values())}", "end_of_record"]
    return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class _Watched(Condition):
    """A condition that tells of each leaf it comes to, in the order and no further than evaluation does."""

    key: str = ""
    number: int = 0
    runs: Mapping[Span, Run] = field(default_factory=dict)
    note: Callable[[Leaf, bool], None] = lambda *_: None

    def evaluate(self, view: View, now: Moment) -> Outcome:
        return Outcome(self.look(self.tree, view, now), "", ())  # nobody reads the words

    def look(self, node: Node, view: View, now: Moment) -> bool:
        match node:
            case Not(part=part):
                return not self.look(part, view, now)
            case Joined(word="and", parts=parts):
                return all(self.look(part, view, now) for part in parts)
            case Joined(parts=parts):
                return any(self.look(part, view, now) for part in parts)
        holds = self.runs[node.span](view, now) is True
        self.note(Leaf(self.key, self.number, node.span), holds)
        return holds


def _watched(ruleset: Ruleset, note: Callable[[Leaf, bool], None]) -> Ruleset:
    """The same rules, whose conditions tell what they come to when they are traced."""

    def watched(key: str, conditions: Sequence[Condition]) -> tuple[_Watched, ...]:
        return tuple(
            _Watched(
                each.text,
                each.tree,
                each.run,
                each.counts,
                key,
                number,
                {node.span: compile_node(node) for node in leaves(each.tree)},
                note,
            )
            for number, each in enumerate(conditions)
        )

    def rule_of(rule: Rule) -> Rule:
        return dataclasses.replace(rule, conditions=watched(rule.name, rule.conditions))

    def variable_of(variable: CacheVariable) -> CacheVariable:
        # no trace is kept of these: they tell whenever they are run
        conditions = watched(variable.key, variable.conditions)
        telling = tuple(dataclasses.replace(each, run=partial(each.look, each.tree)) for each in conditions)
        return dataclasses.replace(variable, conditions=telling)

    orchestrations = {
        name: dataclasses.replace(
            each,
            sets=MappingProxyType({key: tuple(map(rule_of, rules)) for key, rules in each.sets.items()}),
            cache_variables=tuple(map(variable_of, each.cache_variables)),
        )
        for name, each in ruleset.orchestrations.items()
    }
    return dataclasses.replace(ruleset, orchestrations=MappingProxyType(orchestrations))


def _leaves_of(part: Conditioned) -> list[Leaf]:
    return [
        Leaf(part.key, number, node.span)
        for number, condition in enumerate(part.conditions)
        for node in leaves(condition.tree)
    ]
