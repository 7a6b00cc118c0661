"""What follows from a condition, told from its tree alone. Where it cannot be told, nothing follows."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields
from typing import Any

from alertrouter.rules.syntax import (
    Compare,
    Exists,
    Joined,
    Literal,
    Matches,
    MatchesRegex,
    Node,
    Not,
    Path,
    Threshold,
    walk,
)

#: Where a node stands in its text, which says nothing about what it means.
_PLACES = frozenset({"span", "pattern_at"})
_GREATER = frozenset({">", ">="})
_LESS = frozenset({"<", "<="})


def meaning(node: Node) -> Hashable:
    """The same for two nodes that are written alike, wherever they stand."""
    parts = (_meaning_of(getattr(node, each.name)) for each in fields(node) if each.name not in _PLACES)
    return (type(node).__name__, *parts)


def implies(narrow: Node, broad: Node) -> bool:
    """Whether `broad` holds wherever `narrow` does, for every alert at any time. False where that cannot be told."""
    if any(isinstance(each, Threshold) for node in (narrow, broad) for each in walk(node)):
        return False  # each rule has a counter of its own
    told: dict[tuple[int, int], bool] = {}  # else a pair is met once for each way that leads to it

    def follows(narrow: Node, broad: Node) -> bool:
        pair = id(narrow), id(broad)
        if pair not in told:
            told[pair] = _follows(narrow, broad)
        return told[pair]

    def _follows(narrow: Node, broad: Node) -> bool:
        match narrow, broad:
            case Joined("or", parts), _:
                return all(follows(part, broad) for part in parts)
            case _, Joined("and", parts):
                return all(follows(narrow, part) for part in parts)
            case Not(inside), Not(outside) if follows(outside, inside):
                return True
            case Joined("and", parts), _ if any(follows(part, broad) for part in parts):
                return True
            case _, Joined("or", parts):
                return any(follows(narrow, part) for part in parts)
        return meaning(narrow) == meaning(broad) or _test_implies(narrow, broad)

    return follows(narrow, broad)


def fields_needed(node: Node) -> frozenset[Hashable]:
    """The meanings of the paths that must be there for the node to hold."""
    match node:
        case Exists(path=path):
            return frozenset({meaning(path)})
        case Compare(left=left, right=right) | Matches(left=left, right=right):
            return frozenset(meaning(each) for each in (left, right) if isinstance(each, Path))
        case Path() | MatchesRegex(left=Path()):
            return frozenset({meaning(node if isinstance(node, Path) else node.left)})
        case Joined("and", parts):
            return frozenset().union(*map(fields_needed, parts))
        case Joined("or", parts):
            return frozenset.intersection(*map(fields_needed, parts))
    return frozenset()


def _meaning_of(value: Any) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(_meaning_of, value))
    if hasattr(value, "span"):
        return meaning(value)
    return type(value).__name__, value  # True is no 1, and 1.0 is another text than 1


def _test_implies(narrow: Node, broad: Node) -> bool:
    match narrow, broad:
        case Compare(one, left, Literal(value=low)), Compare(other, left_too, Literal(value=high)):
            return meaning(left) == meaning(left_too) and _range_implies(one, low, other, high)
        case _, Exists(path=path):
            return meaning(path) in fields_needed(narrow)
        case _, Matches(part, exactly, left, Literal(value=str(sought))):
            return _text_implies(narrow, left, sought, part=part, exactly=exactly)
    return False


def _range_implies(one: str, low: object, other: str, high: object) -> bool:
    """Whether `x one low` implies `x other high`, for numbers."""
    if not isinstance(low, int | float) or not isinstance(high, int | float) or bool in (type(low), type(high)):
        return False
    if one == "==":
        return {">": low > high, ">=": low >= high, "<": low < high, "<=": low <= high}.get(other, False)
    touches = low == high and not (other in ("<", ">") and one in ("<=", ">="))
    if {one, other} <= _GREATER:
        return low > high or touches
    if {one, other} <= _LESS:
        return low < high or touches
    return False


def _text_implies(narrow: Node, left: Node, sought: str, *, part: bool, exactly: bool) -> bool:
    """Whether a test of the same text implies `left matches [part] [exactly] 'sought'`."""
    match narrow:
        case Compare("==", same, Literal(value=str(text))):
            narrow_part, narrow_exactly = False, True
        case Matches(narrow_part, narrow_exactly, same, Literal(value=str(text))):
            pass
        case _:
            return False
    if meaning(same) != meaning(left) or (exactly and not narrow_exactly) or (narrow_part and not part):
        return False
    if not exactly:
        text, sought = text.casefold(), sought.casefold()
    return sought in text if part else sought == text
