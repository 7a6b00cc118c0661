"""The PagerDuty Condition Language as a tree: text in, nodes out. The grammar is `pcl.lark` beside this file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from math import isinf
from typing import Literal as OneOf
from typing import NamedTuple, TypeVar, assert_never, cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from alertrouter.errors import AlertrouterError
from alertrouter.rules import mistakes
from alertrouter.rules.times import BadTime, Instant, Schedule, read_datetime, read_duration, read_schedule
from alertrouter.rules.wording import shown

#: Limits that PagerDuty publishes for the language.
CONDITION_BYTES = 2048
STRING_BYTES = 1024
PARENTHESIS_DEPTH = 32
FACTORS = 64
PATH_ELEMENTS = 32
INTEGER_BITS = 64

#: Names that a path may only hold in brackets and quotes.
RESERVED = frozenset(
    {"as", "at", "break", "const", "continue", "def", "do", "else", "end", "eq", "for", "function", "gt", "gte", "if"}
    | {"import", "is", "let", "loop", "lt", "lte", "namespace", "package", "require", "return", "var", "void", "when"}
    | {"while"}
)

#: A plain name after a dot.
_FIELD = re.compile(r"\.\s*(\w+)")


class ConditionError(AlertrouterError):
    """A condition that cannot be compiled. Line and column count from 1; the message says what to write instead."""

    def __init__(self, line: int, column: int, message: str, check: str = "syntax") -> None:
        super().__init__(f"{line}:{column}: {message}")
        self.line = line
        self.column = column
        self.message = message
        self.check = check


class Span(NamedTuple):
    """Where a node stands in the text of its condition: `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Literal:
    value: str | int | float | bool | Instant
    span: Span


@dataclass(frozen=True, slots=True)
class Path:
    root: str
    keys: tuple[str | int, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Now:
    span: Span


@dataclass(frozen=True, slots=True)
class Threshold:
    """How many triggers reached this rule within `seconds`."""

    function: str
    seconds: int
    span: Span


@dataclass(frozen=True, slots=True)
class Compare:
    operator: str
    left: Node
    right: Node
    span: Span


@dataclass(frozen=True, slots=True)
class Matches:
    """`matches` and `matches part`; `exactly` minds upper and lower case."""

    part: bool
    exactly: bool
    left: Node
    right: Node
    span: Span


@dataclass(frozen=True, slots=True)
class MatchesRegex:
    pattern: str
    pattern_at: int
    exactly: bool
    left: Node
    span: Span


@dataclass(frozen=True, slots=True)
class Exists:
    path: Path
    span: Span


@dataclass(frozen=True, slots=True)
class Within:
    schedule: Schedule
    span: Span


@dataclass(frozen=True, slots=True)
class Not:
    part: Node
    span: Span


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts joined by one word: all must hold for `and`, one is enough for `or`."""

    word: OneOf["and", "or"]
    parts: tuple[Node, ...]
    span: Span


Node = Literal | Path | Now | Threshold | Compare | Matches | MatchesRegex | Exists | Within | Not | Joined


def parse(text: str) -> Node:
    """The tree of a condition. Raises ConditionError."""
    _check_text(text)
    try:
        # lark types its answer as a tree; the builder has turned it into nodes.
        node = cast("Node", _parser().parse(text))
    except _Wrong as wrong:
        raise error_at(text, wrong.at, wrong.message) from None
    except UnexpectedInput as unexpected:
        raise error_at(text, *mistakes.explain(text, _place_of(unexpected, text), _expected_by(unexpected))) from None
    # Counted only where there may be so many: this is asked of every condition.
    if text.count("and") + text.count("or") >= FACTORS and _joints(node) >= FACTORS:
        remedy = "write several conditions under `when`, of which one is enough"
        raise error_at(text, 0, f"more than {FACTORS} tests joined by `and` and `or`; {remedy}")
    return node


def _joints(node: Node) -> int:
    return sum(len(each.parts) - 1 for each in walk(node) if isinstance(each, Joined))


def walk(node: Node) -> list[Node]:
    """The node and everything below it, in the order of the text."""
    found, ahead = [], [node]
    while ahead:
        found.append(each := ahead.pop())
        ahead += reversed(children(each))
    return found


def children(node: Node) -> tuple[Node, ...]:
    """What a node is made of."""
    match node:
        case Joined(parts=parts):
            return parts
        case Not(part=part):
            return (part,)
        case Compare(left=left, right=right) | Matches(left=left, right=right):
            return (left, right)
        case MatchesRegex(left=left):
            return (left,)
        case Exists(path=path):
            return (path,)
        case Literal() | Path() | Now() | Threshold() | Within():
            return ()
    assert_never(node)


def error_at(text: str, at: int, message: str, check: str = "syntax") -> ConditionError:
    """The error for a place in the text, given as an offset."""
    line_start = text.rfind("\n", 0, at) + 1
    return ConditionError(text.count("\n", 0, at) + 1, at - line_start + 1, shown(message), check)


class _Wrong(Exception):
    """What the builder refuses, and where. Never leaves this module."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


class _Builder(Transformer[Token, Node]):
    """One method for each alternative of the grammar, called by lark with what the alternative holds."""

    def disjunction(self, parts: list[Node]) -> Node:
        return Joined("or", tuple(parts), Span(parts[0].span.start, parts[-1].span.end))

    def conjunction(self, parts: list[Node]) -> Node:
        return Joined("and", tuple(parts), Span(parts[0].span.start, parts[-1].span.end))

    def not_(self, held: tuple[Token, Node]) -> Node:
        word, part = held
        span = Span(_start(word), part.span.end)
        # A third `not` undoes the second: without this, a long run of them would nest without end.
        if isinstance(part, Not) and isinstance(part.part, Not):
            return replace(part.part, span=span)
        return Not(part, span)

    def exists(self, held: tuple[Node, Token]) -> Node:
        path, word = held
        if not isinstance(path, Path):
            raise _Wrong(path.span.start, "only a path can be asked whether it exists, as in `event.component exists`")
        return Exists(path, Span(path.span.start, _end(word)))

    def compare(self, held: tuple[Node, Token, Node]) -> Node:
        left, operator, right = held
        return Compare(operator.rstrip(), left, right, Span(left.span.start, right.span.end))

    def matches(self, held: tuple[Node, Token | None, Token | None, Node]) -> Node:
        left, part, exactly, right = held
        return Matches(part is not None, exactly is not None, left, right, Span(left.span.start, right.span.end))

    def matches_regex(self, held: tuple[Node, Token | None, Token]) -> Node:
        left, exactly, pattern = held
        span = Span(left.span.start, _end(pattern))
        return MatchesRegex(_unquote(pattern), _start(pattern), exactly is not None, left, span)

    def within(self, held: tuple[Token, Token]) -> Node:
        now, schedule = held
        return Within(_read(read_schedule, schedule), Span(_start(now), _end(schedule)))

    def group(self, held: tuple[Token, Node, Token]) -> Node:
        opening, node, closing = held
        return replace(node, span=Span(_start(opening), _end(closing)))

    def string(self, held: tuple[Token]) -> Node:
        return Literal(_unquote(held[0]), _span(held[0]))

    def integer(self, held: tuple[Token]) -> Node:
        return Literal(_integer(held[0]), _span(held[0]))

    def float(self, held: tuple[Token]) -> Node:
        value = float(held[0])
        if isinf(value):
            raise _Wrong(_start(held[0]), "the number is too large")
        return Literal(value, _span(held[0]))

    def datetime(self, held: tuple[Token]) -> Node:
        return Literal(_read(read_datetime, held[0]), _span(held[0]))

    def boolean(self, held: tuple[Token]) -> Node:
        return Literal(held[0] == "true", _span(held[0]))

    def now(self, held: tuple[Token]) -> Node:
        return Now(_span(held[0]))

    def threshold(self, held: tuple[Token, Token]) -> Node:
        function, duration = held
        return Threshold(str(function), _read(read_duration, duration), Span(_start(function), _end(duration)))

    def path(self, held: list[Token]) -> Node:
        span = Span(_start(held[0]), _end(held[-1]))
        keys = tuple(key for element in held if element.type != "RSQB" for key in _keys(element))
        if len(keys) + 1 > PATH_ELEMENTS:
            raise _Wrong(span.start, f"the path has {len(keys) + 1} elements; {PATH_ELEMENTS} are allowed")
        return Path(held[0].partition(".")[0].rstrip(), keys, span)


def _check_text(text: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > CONDITION_BYTES:
        remedy = "write several conditions under `when`, of which one is enough"
        raise error_at(text, 0, f"the condition has {size} bytes; {CONDITION_BYTES} are allowed; {remedy}")
    if not text.strip():
        raise error_at(text, 0, "the condition is empty; leave `when` out for a rule that always matches")
    if text.count("(") <= PARENTHESIS_DEPTH:
        return
    depth = 0
    for token in re.finditer(r"'(?:[^'\\]|\\.)*'|[()]", text, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth > PARENTHESIS_DEPTH:
            raise error_at(text, token.start(), f"parentheses nest deeper than {PARENTHESIS_DEPTH}")


def _keys(element: Token) -> list[str] | tuple[str | int]:
    if element.type == "INT":
        index = _integer(element)
        if index < 0:
            raise _Wrong(_start(element), "an index counts from 0; there is none from the end")
        return (index,)
    if element.type == "STRING":
        return (_unquote(element),)
    names = _FIELD.findall(element)
    if not RESERVED.isdisjoint(names):
        word = next(name for name in _FIELD.finditer(element) if name[1] in RESERVED)
        at = _start(element) + word.start(1)
        raise _Wrong(at, f"`{word[1]}` is a reserved word; write it in brackets: ['{word[1]}']")
    return names


def _integer(token: Token) -> int:
    # Measured first: Python refuses to read integers of thousands of digits.
    if len(token) > 20 or not -(2 ** (INTEGER_BITS - 1)) <= int(token) < 2 ** (INTEGER_BITS - 1):
        raise _Wrong(_start(token), f"`{token}` does not fit into {INTEGER_BITS} bits; write it with a decimal point")
    return int(token)


def _unquote(token: Token) -> str:
    inside = token[1:-1]
    if "\\" not in inside and len(inside) * 4 <= STRING_BYTES:
        return inside
    for escape in re.finditer(r"\\(.)", inside, re.DOTALL):
        if escape[1] not in "'\\":
            at = _start(token) + 1 + escape.start()
            raise _Wrong(
                at, f"`{escape[0]}` is no escape: there are only \\' and \\\\; write \\\\{escape[1]} for a backslash"
            )
    value = re.sub(r"\\(.)", r"\1", inside, flags=re.DOTALL)
    size = len(value.encode("utf-8", "surrogatepass"))
    if size > STRING_BYTES:
        raise _Wrong(_start(token), f"the text has {size} bytes; {STRING_BYTES} are allowed")
    return value


Value = TypeVar("Value")


def _read(read: Callable[[str], Value], token: Token) -> Value:
    try:
        return read(str(token))
    except BadTime as bad:
        raise _Wrong(_start(token), str(bad)) from None


def _start(token: Token) -> int:
    assert token.start_pos is not None
    return token.start_pos


def _end(token: Token) -> int:
    assert token.end_pos is not None
    return token.end_pos


def _span(token: Token) -> Span:
    return Span(_start(token), _end(token))


def _place_of(unexpected: UnexpectedInput, text: str) -> int:
    place: int | None = unexpected.pos_in_stream
    if place is None or (isinstance(unexpected, UnexpectedToken) and unexpected.token.type == "$END"):
        return len(text)
    return place


def _expected_by(unexpected: UnexpectedInput) -> frozenset[str]:
    match unexpected:
        case UnexpectedToken():
            return frozenset(unexpected.accepts or unexpected.expected)
        case UnexpectedCharacters():
            return frozenset(unexpected.allowed or ())
    return frozenset()


@lru_cache(maxsize=1)
def _parser() -> Lark:
    grammar = files("alertrouter.rules").joinpath("pcl.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Builder(), maybe_placeholders=True)
