"""What an alert has to hold to meet a condition, as far as that can be arranged. Pure.

A guess, to be tried: what hangs on the time, on a count, or on something not being there is left to chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice

from alertrouter.rules.syntax import (
    Compare,
    Exists,
    Joined,
    Literal,
    Matches,
    MatchesRegex,
    Node,
    Path,
    walk,
)
from alertrouter.rules.times import Instant

#: A path and the value to be found there.
Sample = Mapping[tuple[str | int, ...], str | int | float | bool]

_MOST_WAYS = 16
_ANYTHING = "x"
#: What stands for itself in a pattern, once the rest is taken away.
_PLAIN = re.compile(r"[\w\s:;,/@#%&=!<>~'\"-]*")
_CHOICE = re.compile(r"\((?:\?:)?([^()|]*)(?:\|[^()]*)?\)")


def samples(node: Node) -> Iterator[Sample]:
    """Ways to meet the condition, the first of which is as good as any. At most 16."""
    return islice(_ways(node), _MOST_WAYS)


def _ways(node: Node) -> Iterator[Sample]:
    match node:
        case Joined(word="or", parts=parts):
            for part in parts:
                yield from _ways(part)
        case Joined(parts=parts):
            yield from _all_of(parts)
        case Compare(operator=operator, left=Path() as path, right=Literal(value=value)):
            yield _at(path, _beyond(operator, value))
        case Compare(operator="==", left=Literal(value=value), right=Path() as path):
            yield _at(path, value)
        case Matches(left=Path() as path, right=Literal(value=value)):
            yield _at(path, value)
        case MatchesRegex(left=Path() as path, pattern=pattern):
            yield _at(path, _matched_by(pattern))
        case Exists(path=path):
            yield _at(path, _ANYTHING)
        case Compare(operator="==") | Matches():
            yield {
                key: value
                for each in walk(node)
                if isinstance(each, Path)
                for key, value in _at(each, _ANYTHING).items()
            }
        case _:
            yield {}


def _all_of(parts: tuple[Node, ...]) -> Iterator[Sample]:
    if not parts:
        yield {}
        return
    for rest in islice(_all_of(parts[1:]), _MOST_WAYS):
        for first in islice(_ways(parts[0]), _MOST_WAYS):
            if all(rest.get(path, value) == value for path, value in first.items()):
                yield {**rest, **first}


def _at(path: Path, value: str | int | float | bool | Instant | None) -> Sample:
    return {} if value is None or isinstance(value, Instant) else {(path.root, *path.keys): value}


def _beyond(operator: str, value: str | int | float | bool | Instant) -> str | int | float | bool | Instant:
    if isinstance(value, str | bool | Instant) or operator in ("==", ">=", "<="):
        return value
    return value + 1 if operator == ">" else value - 1


def _matched_by(pattern: str) -> str | None:
    """A text that the pattern matches; None where it is not a simple one."""
    text = pattern.removeprefix("(?i)").removeprefix("^").removesuffix("$")
    text = text.replace(".*", "").replace(".+", _ANYTHING).replace(r"\d+", "1").replace(r"\w+", _ANYTHING)
    while (shorter := _CHOICE.sub(r"\1", text)) != text:
        text = shorter
    text = re.sub(r"\\([.\-/])", r"\1", text.partition("|")[0])
    return text if _PLAIN.fullmatch(text.replace(".", "")) else None
