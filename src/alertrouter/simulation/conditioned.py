"""What in the rules has conditions: rules and cache variables, to be covered and mutated alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from alertrouter.rules.cache import CacheVariable
from alertrouter.rules.condition import Condition
from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.finding import PlacedRule, RulesDirectory
from alertrouter.rules.model import Orchestration, Ruleset
from alertrouter.rules.syntax import Joined, Node, Not


@dataclass(frozen=True, slots=True)
class Conditioned:
    """A rule, or a cache variable, and where its conditions stand: in `document`, below `path`.

    key:    the name of a rule, that of a variable outside of its file.
    shown:  what people call it.
    """

    key: str
    shown: str
    conditions: tuple[Condition, ...]
    orchestration: Orchestration
    document: Document
    path: tuple[Key, ...]
    placed: PlacedRule | None = None
    variable: CacheVariable | None = None

    @property
    def rule(self) -> str:
        """The name of the rule; "" for a variable."""
        return self.placed.rule.name if self.placed else ""

    def in_condition(self, condition: int, offset: int, message: str) -> Problem:
        """A place in the text of one of the conditions."""
        when = (*self.path, "when")
        path = (*when, condition) if isinstance(self.document.value_at(when), list) else when
        return self.document.problem_within(path, offset, message, "")


def conditioned(ruleset: Ruleset, documents: Mapping[str, Document]) -> Iterator[Conditioned]:
    """Every rule that is not disabled, and every cache variable, in the order of the files."""
    for placed in RulesDirectory(ruleset, documents, now=0).rules():
        rule = placed.rule
        if not rule.disabled:
            yield Conditioned(
                rule.name,
                f"rule `{rule.name}`",
                rule.conditions,
                placed.orchestration,
                placed.document,
                placed.path,
                placed=placed,
            )
    for orchestration in ruleset.orchestrations.values():
        for number, variable in enumerate(orchestration.cache_variables):
            yield Conditioned(
                variable.key,
                f"cache variable `{variable.name}`",
                variable.conditions,
                orchestration,
                documents[orchestration.name],
                ("cache_variables", number),
                variable=variable,
            )


def leaves(tree: Node) -> list[Node]:
    """The tests that a condition is made of, in the order of the text."""
    found: list[Node] = []
    ahead = [tree]
    while ahead:
        match node := ahead.pop():
            case Not(part=part):
                ahead.append(part)
            case Joined(parts=parts):
                ahead += reversed(parts)
            case _:
                found.append(node)
    return found
