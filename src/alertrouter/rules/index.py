"""Which rules of a set could match an alert, found without a look at all the others.

For each condition a clue is chosen: a test without which the condition does not hold. The fields of an alert lead to
the clues they give, and these to the rules that remain to be tried, in order. An index never decides that a rule
matches, only that one cannot: clues may be found too often, never too seldom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import re2

from alertrouter.rules.closures import ARRAYS, OBJECTS, Run, View, compile_node, subject_of, text_of
from alertrouter.rules.condition import Condition
from alertrouter.rules.logic import meaning
from alertrouter.rules.moment import Moment
from alertrouter.rules.regex import quoted, with_flags
from alertrouter.rules.syntax import (
    Compare,
    Exists,
    Joined,
    Literal,
    Matches,
    MatchesRegex,
    Node,
    Not,
    Now,
    Path,
    Threshold,
    Within,
    walk,
)

if TYPE_CHECKING:  # the model holds indexes
    from alertrouter.rules.model import Ruleset

#: What one set of patterns may use, in bytes: for itself, and to remember what it has seen of texts.
SET_MEMORY = 64 * 1024 * 1024

#: So many rules behind one value are as good as a single one.
FEW = 8

_SCALARS = (str, int, float)

#: Kinds of clues, those first that are cheapest to find.
_EQUALS, _MATCHES, _PATTERN, _EXISTS, _GUARD = range(5)


class Clue(NamedTuple):
    """A test without which a condition does not hold.

    path:   where to look; nowhere for a guard.
    folded: whether upper and lower case are one.
    sought: what to find there: a value, a text, a pattern as bytes; for a guard the meaning of the test.
    """

    kind: int
    path: tuple[str | int, ...] = ()
    folded: bool = False
    sought: Hashable = None


#: Tests of which one must hold, each with its node. None at all where no such tests are known.
Clues = Mapping[Clue, Node]


@dataclass(frozen=True, slots=True)
class Index:
    """Rules are known by their position in the set.

    always:   rules that have no clue.
    guards:   tests that have to be run, each with the rules that need it.
    residual: rules whose cost the index does not spare, with the reason, in order.
    """

    always: Sequence[int]
    guards: Sequence[tuple[Run, Sequence[int]]]
    fields: _Field
    residual: Sequence[tuple[int, str]]

    def candidates(self, view: View, now: Moment) -> Sequence[int]:
        """The rules that could match, in order. No other does."""
        found: list[int] = []
        self.fields.collect(view, found)
        for run, rules in self.guards:
            if run(view, now) is True:
                found += rules
        return sorted({*found, *self.always}) if found else self.always


def explain_cost(ruleset: Ruleset) -> list[tuple[str, str, str, str]]:
    """Orchestration, set and name of each rule that costs something for every alert, and why."""
    return [
        (orchestration.name, set_name, orchestration.sets[set_name][position].name, reason)
        for orchestration in ruleset.orchestrations.values()
        for set_name, index in orchestration.indexes.items()
        for position, reason in index.residual
    ]


def build_index(rules: Sequence[tuple[Condition, ...]], set_memory: int = SET_MEMORY) -> Index:
    """The index of a set, from the conditions of its rules; a rule that has none always matches."""
    chooser = _Chooser(rules)
    always: list[int] = []
    guards: dict[Clue, tuple[Run, list[int]]] = {}
    fields = _Field()
    reasons: dict[int, str] = {}
    for rule, conditions in enumerate(rules):
        chosen = [chooser.best(condition, condition.tree) for condition in conditions]
        if reason := _reason(conditions, chosen):
            reasons[rule] = reason
        if not chosen or not all(chosen):
            always.append(rule)
            continue
        for clue, node in {clue: node for clues in chosen for clue, node in clues.items()}.items():
            if clue.kind == _GUARD:
                guards.setdefault(clue, (compile_node(node), []))[1].append(rule)
            else:
                fields.at(clue.path).add(clue, rule)
    for rule in fields.join_patterns(set_memory):
        reasons.setdefault(rule, "RE2 cannot join its pattern with the others on the same field")
    return Index(always, list(guards.values()), fields, sorted(reasons.items()))


@dataclass(slots=True)
class _Texts:
    """The texts and patterns sought in one field. `joined` answers all patterns at once."""

    equal: dict[Hashable, list[int]] = field(default_factory=dict)
    patterns: dict[Hashable, list[int]] = field(default_factory=dict)
    behind: list[list[int]] = field(default_factory=list)
    joined: re2.Set | None = None

    def join_patterns(self, set_memory: int) -> None:
        """Make one set of all patterns. Where that cannot be done, all of them count as found."""
        self.behind = list(self.patterns.values())
        options = re2.Options()
        options.log_errors = False
        options.max_mem = set_memory
        joined = re2.Set.SearchSet(options)
        try:
            for pattern in (*self.patterns, b""):
                joined.Add(pattern)
            joined.Compile()
        except re2.error:
            return
        self.joined = joined

    def collect(self, text: str, found: list[int]) -> None:
        found += self.equal.get(text, ())
        if self.behind:
            answer = self.joined.Match(text.encode("utf-8", "replace")) if self.joined else None
            # The empty pattern, added last, is in every text: without it the set has run out of memory.
            last = len(self.behind)
            matched = answer if answer and last in answer else range(last)
            for number in matched:
                if number != last:
                    found += self.behind[number]


@dataclass(slots=True)
class _Field:
    """What is sought in one field of an alert, and in the fields inside it."""

    inside: dict[str | int, _Field] = field(default_factory=dict)
    exists: list[int] = field(default_factory=list)
    values: dict[Hashable, list[int]] = field(default_factory=dict)
    as_is: _Texts | None = None
    folded: _Texts | None = None

    def at(self, path: Sequence[str | int]) -> _Field:
        """The field at a path below this one; made where it is new."""
        here = self
        for key in path:
            here = here.inside.setdefault(key, _Field())
        return here

    def add(self, clue: Clue, rule: int) -> None:
        """Note that a rule needs what the clue seeks in this very field."""
        if clue.kind == _EXISTS:
            self.exists.append(rule)
        elif clue.kind == _EQUALS:
            self.values.setdefault(clue.sought, []).append(rule)
        else:
            texts = self._texts(folded=clue.folded)
            sought = texts.patterns if clue.kind == _PATTERN else texts.equal
            sought.setdefault(clue.sought, []).append(rule)

    def _texts(self, *, folded: bool) -> _Texts:
        if folded:
            self.folded = self.folded or _Texts()
            return self.folded
        self.as_is = self.as_is or _Texts()
        return self.as_is

    def join_patterns(self, set_memory: int) -> Iterator[int]:
        """Make the sets of patterns, here and inside. Yields the rules whose set could not be made."""
        for texts in (self.as_is, self.folded):
            if texts and texts.patterns:
                texts.join_patterns(set_memory)
                if texts.joined is None:
                    yield from (rule for rules in texts.behind for rule in rules)
        for each in self.inside.values():
            yield from each.join_patterns(set_memory)

    def collect(self, value: Any, found: list[int]) -> None:
        """Add the rules that find what they need in this field of an alert, and in the fields inside it."""
        if self.exists:
            found += self.exists
        if self.values and isinstance(value, _SCALARS):
            found += self.values.get(_key(value), ())
        if self.as_is or self.folded:
            self._collect_texts(value, found)
        if self.inside:
            self._collect_inside(value, found)

    def _collect_texts(self, value: Any, found: list[int]) -> None:
        text = subject_of(value)
        if text is None:
            return
        if self.as_is:
            self.as_is.collect(text, found)
        if self.folded:
            self.folded.collect(text.casefold(), found)

    def _collect_inside(self, value: Any, found: list[int]) -> None:
        inside = self.inside
        if isinstance(value, OBJECTS):
            if len(inside) < len(value):  # fewer are asked for than are there
                for key, each in inside.items():
                    if key in value:
                        each.collect(value[key], found)
            else:
                for key in value:
                    if key in inside:
                        inside[key].collect(value[key], found)
        elif isinstance(value, ARRAYS):
            for key, each in inside.items():
                if isinstance(key, int) and key < len(value):
                    each.collect(value[key], found)


class _Chooser:
    """Knows all clues of a set, and so which of them tell most."""

    def __init__(self, rules: Sequence[tuple[Condition, ...]]) -> None:
        self.clues: dict[int, Clue | None] = {}  # by id of the test: nodes are dear to compare
        self.frequency: Counter[Clue] = Counter()
        for test in (test for conditions in rules for each in conditions for test in _tests(each.tree)):
            if id(test) not in self.clues:
                self.clues[id(test)] = _clue(test)
            if clue := self.clues[id(test)]:
                self.frequency[clue] += 1

    def best(self, condition: Condition, node: Node) -> Clues:
        """The best tests of which one must hold for a node of the condition to hold."""
        match node:
            case Joined("and", parts):
                choices = []
                for part in parts:
                    if clues := self.best(condition, part):
                        choices.append(clues)
                    if condition.counts and any(isinstance(each, Threshold) for each in walk(part)):
                        break  # what gets here is counted, whatever comes after
                return min(choices, key=lambda clues: max(map(self._rank, clues)), default={})
            case Joined("or", parts):
                choices = [self.best(condition, part) for part in parts]
                return {clue: each for clues in choices for clue, each in clues.items()} if all(choices) else {}
        clue = self.clues[id(node)]
        return {clue: node} if clue else {}

    def _rank(self, clue: Clue) -> tuple[int, int, int]:
        """The lower, the fewer rules are tried in vain."""
        if clue.kind == _EXISTS:
            return 1, self.frequency[clue], 0
        if clue.kind == _GUARD:
            return 2, -self.frequency[clue], 0  # one that many rules share is run once for all of them
        return 0, max(self.frequency[clue], FEW), clue.kind


def _tests(node: Node) -> Iterator[Node]:
    """What `and` and `or` join."""
    if isinstance(node, Joined):
        for part in node.parts:
            yield from _tests(part)
    else:
        yield node


def _clue(test: Node) -> Clue | None:
    """What to look for, for the test to hold."""
    match test:
        case Compare("==", Path() as path, Literal(value=str() | int() | float() as value)) | Compare(
            "==", Literal(value=str() | int() | float() as value), Path() as path
        ):
            return Clue(_EQUALS, _keys(path), sought=_key(value))
        case Matches(part, exactly, Path() as path, Literal(value=value)):
            text = text_of(value) or ""
            text = text if exactly else text.casefold()
            kind, sought = (_PATTERN, quoted(text)) if part else (_MATCHES, text)
            return Clue(kind, _keys(path), not exactly, sought)
        case MatchesRegex(pattern=pattern, exactly=exactly, left=Path() as path):
            return Clue(_PATTERN, _keys(path), sought=with_flags(pattern, exactly=exactly).encode())
        case (
            Exists(path=path)
            | Compare(left=Path() as path)
            | Compare(right=Path() as path)
            | Matches(left=Path() as path)
        ):
            return Clue(_EXISTS, _keys(path))
    if any(isinstance(each, Now | Within | Threshold) for each in walk(test)):
        return None  # the clock and the counters are asked only when it is the rule's turn
    return Clue(_GUARD, sought=meaning(test))


def _keys(path: Path) -> tuple[str | int, ...]:
    return (path.root, *path.keys)


def _key(value: str | float) -> Hashable:
    """The same for two values that `==` finds equal. To Python true is 1 and false 0, to a condition they are not."""
    return (value,) if isinstance(value, bool) else value


def _reason(conditions: Sequence[Condition], chosen: Sequence[Clues]) -> str:
    """Why a rule costs something for every alert; "" if it does not."""
    if not conditions:
        return "it has no condition"
    for condition, clues in zip(conditions, chosen, strict=True):
        if not clues:
            return f"nothing in `{condition.text}` can be looked up"
        for clue, node in clues.items():
            shown = condition.text[node.span.start : node.span.end]
            if clue.kind == _GUARD and isinstance(node, Not):
                return f"`{shown}` only says what must not be"
            if clue.kind == _GUARD:
                return f"`{shown}` compares no field with a text, a number or a pattern"
            if clue.kind == _EXISTS:
                return f"`{shown}` is tried for every alert that has the field"
    return ""
