"""A rule that no alert ever reaches, because an earlier rule of its set takes all that it would match.

The first rule that matches is the only one that acts. The check compares the conditions as they are written: the earlier
rule has none, or the same one, or one that holds wherever the later one does. It stays silent where it cannot be sure.
Rules that end by themselves, such as suppressions, hide nothing: what stands below them is reached when they have ended.
Nor does `dynamic_route_to`, which leaves to the next rules what it finds no service for.

    - rule: disk-warning
      when: event.custom_details.percent > 80
      then: {severity: warning}
    - rule: disk-critical            # never reached: put it first
      when: event.custom_details.percent > 90
      then: {severity: critical}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from alertrouter.rules.condition import Condition
from alertrouter.rules.finding import Finding, PlacedRule, RulesDirectory, finding_of
from alertrouter.rules.logic import implies, meaning
from alertrouter.rules.syntax import Compare, Exists, Joined, Literal, Matches, Node, Not, Path, walk

ID = "unreachable-rule"

#: In characters. A longer text is compared only with the same text, because it has too many parts.
LONGEST_PHRASE = 80


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for rules in directory.sets():
        yield from _in_set(rules)


def _in_set(rules: tuple[PlacedRule, ...]) -> Iterator[Finding]:
    takes_all: PlacedRule | None = None
    earlier = _Earlier()
    for placed in rules:
        rule = placed.rule
        if rule.disabled:
            continue
        hidden_by = [takes_all] if takes_all else earlier.hiding(rule.conditions)
        if hidden_by:
            names = " and ".join(f"`{each.rule.name}` at {each.rule.place}" for each in hidden_by)
            message = f"`{rule.name}` is never reached: all that it would match is taken by {names}"
            remedy = "move it above, or remove it"
            yield finding_of(placed.document.problem(placed.at("rule"), message, ID), remedy=remedy)
        elif _lets_pass(placed):
            continue
        elif rule.conditions:
            earlier.add(placed)
        else:
            takes_all = placed


def _lets_pass(placed: PlacedRule) -> bool:
    """Whether it ends by itself, or goes on to the next rule where it finds no service."""
    actions = placed.rule.actions
    return actions.suppress is not None or actions.drop is not None or actions.dynamic_route_to is not None


class _Earlier:
    """Conditions seen so far, found by what another condition must hold to imply one: sets may have thousands."""

    def __init__(self) -> None:
        self.by_clue: dict[Hashable, list[tuple[Node, PlacedRule]]] = defaultdict(list)

    def add(self, placed: PlacedRule) -> None:
        for condition in placed.rule.conditions:
            for clue in _clues(condition.tree):
                self.by_clue[clue].append((condition.tree, placed))

    def hiding(self, conditions: tuple[Condition, ...]) -> list[PlacedRule]:
        """The rules that together take all these conditions would; none where one of them is left over."""
        found: dict[str, PlacedRule] = {}
        for alternative in (each for condition in conditions for each in _alternatives(condition.tree)):
            candidates = (each for trait in _traits(alternative) for each in self.by_clue.get(trait, ()))
            hiding = next((placed for tree, placed in candidates if implies(alternative, tree)), None)
            if hiding is None:
                return []
            found[hiding.rule.name] = hiding
        return list(found.values())


def _alternatives(node: Node) -> tuple[Node, ...]:
    """The parts of which one is enough: an earlier rule may take the one, and another rule the other."""
    return node.parts if isinstance(node, Joined) and node.word == "or" else (node,)


def _clues(broad: Node) -> frozenset[Hashable]:
    """Traits of which every condition that implies `broad` has one."""
    match broad:
        case Joined("and", parts):
            return min(map(_clues, parts), key=_commonness)  # each part must be implied: the rarest tells most
        case Joined("or", parts):
            return frozenset().union(*map(_clues, parts))
        case Not():
            return frozenset({_NEGATION})
        case Exists(path=path):
            return frozenset({_Field(meaning(path))})
        case Compare(operator=">" | ">=" | "<" | "<=", left=Path() as path):
            return frozenset({_Field(meaning(path))})
    sought = _text_sought(broad)
    if sought is None:
        return frozenset({meaning(broad)})
    path, text, part = sought
    return frozenset({("part" if part else "whole", meaning(path), text)})


def _traits(narrow: Node) -> frozenset[Hashable]:
    traits: set[Hashable] = set()
    for node in walk(narrow):
        traits.add(_NEGATION if isinstance(node, Not) else meaning(node))
        if isinstance(node, Path):
            traits.add(_Field(meaning(node)))
        if (sought := _text_sought(node)) is not None:
            path, text, _ = sought
            field = meaning(path)
            traits.add(("whole", field, text))
            traits.update(("part", field, piece) for piece in _pieces(text))
    return frozenset(traits)


#: The traits that many conditions share.
_NEGATION = "not"


@dataclass(frozen=True, slots=True)
class _Field:
    """A condition looks at this field, in whichever way."""

    path: Hashable


def _commonness(clues: frozenset[Hashable]) -> int:
    return sum(clue == _NEGATION or isinstance(clue, _Field) for clue in clues)


def _text_sought(node: Node) -> tuple[Path, str, bool] | None:
    """The field, the text in one casing, and whether it is but a part, for tests that look for one text in one field."""
    match node:
        case Compare("==", Path() as path, Literal(value=str(text))):
            return path, text.casefold(), False
        case Matches(part, _, Path() as path, Literal(value=str(text))):
            return path, text.casefold(), part
    return None


def _pieces(text: str) -> Iterator[str]:
    """Every text within it, if it is no longer than what people look for; of a longer one, itself alone."""
    if len(text) > LONGEST_PHRASE:
        yield text
        return
    yield ""
    for start in range(len(text)):
        for end in range(start + 1, len(text) + 1):
            yield text[start:end]
