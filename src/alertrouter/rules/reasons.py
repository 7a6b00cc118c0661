"""Why a condition holds or not, in words for people. Slower than the closures it asks, and never of another opinion."""

from __future__ import annotations

from alertrouter.rules.closures import MISSING, View, comparison_of, compile_node, finder_of, text_of
from alertrouter.rules.moment import Moment
from alertrouter.rules.syntax import (
    Compare,
    Joined,
    Literal,
    Matches,
    MatchesRegex,
    Node,
    Not,
    Now,
    Path,
    Span,
    Threshold,
    Within,
    walk,
)
from alertrouter.rules.times import Instant

#: How much of one value and of one test is worth reading, in characters.
SHOWN_VALUE = 80
SHOWN_SOURCE = 200


def explain(node: Node, text: str, view: View, now: Moment, warnings: list[str]) -> tuple[bool, str]:
    """Whether the node holds, and the part of it that decided that, as words."""
    match node:
        case Not(part=part):
            holds, why = explain(part, text, view, now, warnings)
            return not holds, f"not ({why})" if isinstance(part, Joined) else why
        case Joined(word=word, parts=parts):
            seen: list[str] = []
            decisive = word == "or"
            for part in parts:
                holds, why = explain(part, text, view, now, warnings)
                if holds is decisive:
                    return holds, why
                seen.append(why)
            return not decisive, "; ".join(seen)
    holds = compile_node(node)(view, now) is True
    warnings.extend(_complaints(node, text, view, now))
    verdict = f"`{cut(_source(node.span, text), SHOWN_SOURCE)}` is {'true' if holds else 'false'}"
    values = _values(node, text, view, now)
    return holds, f"{verdict}: {values}" if values else verdict


def _values(node: Node, text: str, view: View, now: Moment) -> str:
    """What the paths of a test hold. A path that the test begins with need not be repeated."""
    paths = [each for each in walk(node) if isinstance(each, Path)]
    named = [
        f"{'it' if len(paths) == 1 and path.span.start == node.span.start else _source(path.span, text)} {_sight(path, view)}"
        for path in paths
    ]
    if any(isinstance(each, Now | Within) for each in walk(node)):
        named.append(f"now is {Instant(now.ms)}")
    thresholds = [each for each in walk(node) if isinstance(each, Threshold)]
    named += [f"{'it' if len(thresholds) == 1 else each.function} is {now.count(each)}" for each in thresholds]
    return ", ".join(named)


def _complaints(node: Node, text: str, view: View, now: Moment) -> list[str]:
    source = cut(_source(node.span, text), SHOWN_SOURCE)
    match node:
        case Compare(operator=operator, left=left, right=right) if operator != "==":
            sides = compile_node(left)(view, now), compile_node(right)(view, now)
            if comparison_of(operator)(*sides) is None:
                return [f"`{source}` compares {_kind(sides[0])} with {_kind(sides[1])}"]
        case Matches(left=left, right=right):
            sides = compile_node(left)(view, now), compile_node(right)(view, now)
            if None in (text_of(sides[0]), text_of(sides[1])):
                return [f"`{source}` has nothing to compare"]
        case MatchesRegex(left=left) if text_of(compile_node(left)(view, now)) is None:
            return [f"`{source}` has nothing to search"]
        case Path() | Literal() if not isinstance(value := compile_node(node)(view, now), bool):
            return [f"`{source}` is {_kind(value)}, neither true nor false"]
    return []


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case Instant():
            return "a date"
        case list() | tuple():
            return "an array"
    return "an object"


def _sight(path: Path, view: View) -> str:
    value = finder_of(path)(view)
    if value is MISSING:
        return "is not there"
    shown = f'"{" ".join(value.split())}"' if isinstance(value, str) else text_of(value)
    return f"is {cut(shown or 'null', SHOWN_VALUE)}"


def _source(span: Span, text: str) -> str:
    return " ".join(text[span.start : span.end].split())


def cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"
