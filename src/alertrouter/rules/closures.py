"""Nodes of a condition become closures. No closure ever fails, whatever JSON it is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any, assert_never

from alertrouter.rules.moment import Moment
from alertrouter.rules.regex import compile_search
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
)
from alertrouter.rules.times import Instant, Schedule

#: What a condition looks at: `event` as PagerDuty would see it, `raw_event` as it was received.
View = Mapping[str, Any]
#: A compiled node. Answers a JSON value or an Instant; None for a null, a missing field, and a test that makes no sense.
Run = Callable[[View, Moment], Any]
#: True, false, or None where two values cannot be compared.
Comparison = Callable[[Any, Any], bool | None]

#: The left side of any `matches` is cut to this many bytes of UTF-8, as PagerDuty does.
SUBJECT_BYTES = 65_536

#: Stands for a field that is not there; a null is None.
MISSING = object()
#: dict first: asking for Mapping alone costs several times as much.
OBJECTS = (dict, Mapping)
ARRAYS = (list, tuple)
_NUMBERS = (int, float)
#: What `now > x` is where `x > now` is written.
_MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">=", "==": "=="}
#: How many ms after an instant the comparison of `now` with it changes its answer.
_CHANGES = {">": (1,), ">=": (0,), "<": (0,), "<=": (1,), "==": (0, 1)}
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {">": gt, ">=": ge, "<": lt, "<=": le}


def compile_node(node: Node) -> Run:
    match node:
        case Joined(word=word, parts=parts):
            runs = [compile_node(part) for part in parts]
            return _all(runs) if word == "and" else _any(runs)
        case Not(part=part):
            run = compile_node(part)
            return lambda view, now: run(view, now) is not True
        case Compare(operator=operator, left=Now(), right=Literal(value=Instant() as instant)):
            return _compare_now(operator, instant)
        case Compare(operator=operator, left=Literal(value=Instant() as instant), right=Now()):
            return _compare_now(_MIRRORED[operator], instant)
        case Compare(operator=operator, left=left, right=right):
            return _compare(comparison_of(operator), compile_node(left), compile_node(right))
        case Matches():
            return _matches(node)
        case MatchesRegex(left=left, pattern=pattern, exactly=exactly):
            return _matches_regex(_compile_text(left), compile_search(pattern, exactly=exactly))
        case Exists(path=path):
            find = finder_of(path)
            return lambda view, _now: find(view) is not MISSING
        case Within(schedule=schedule):
            return _within(schedule)
        case Literal() | Now() | Path() | Threshold():
            return _compile_operand(node)
    assert_never(node)


def _compile_operand(node: Literal | Now | Path | Threshold) -> Run:
    match node:
        case Literal(value=value):
            return lambda _view, _now: value
        case Now():
            return lambda _view, now: Instant(now.ms)
        case Path():
            return _read(finder_of(node))
        case Threshold():
            return lambda _view, now: now.count(node)
    assert_never(node)


def _all(runs: list[Run]) -> Run:
    def run(view: View, now: Moment) -> bool:
        for part in runs:  # noqa: SIM110  # a generator costs more than the tests it joins
            if part(view, now) is not True:
                return False
        return True

    return run


def _any(runs: list[Run]) -> Run:
    def run(view: View, now: Moment) -> bool:
        for part in runs:  # noqa: SIM110  # as above
            if part(view, now) is True:
                return True
        return False

    return run


def _compare(compare: Comparison, left: Run, right: Run) -> Run:
    return lambda view, now: compare(left(view, now), right(view, now))


def _compare_now(operator: str, instant: Instant) -> Run:
    compare = comparison_of(operator)
    changes = [instant.ms + later for later in _CHANGES[operator]]

    def run(_view: View, now: Moment) -> bool | None:
        now.changes_at(next((change for change in changes if change > now.ms), 0))
        return compare(Instant(now.ms), instant)

    return run


def _within(schedule: Schedule) -> Run:
    def run(_view: View, now: Moment) -> bool:
        now.changes_at(schedule.next_change(now.ms))
        return schedule.holds(now.ms)

    return run


def comparison_of(operator: str) -> Comparison:
    if operator == "==":
        return _equal
    order = _ORDER[operator]

    def compare(left: object, right: object) -> bool | None:
        if (_is_number(left) and _is_number(right)) or (isinstance(left, Instant) and isinstance(right, Instant)):
            return order(left, right)
        return None

    return compare


def _equal(left: object, right: object) -> bool:
    match left:
        case bool():
            return left is right
        case int() | float():
            return _is_number(right) and left == right
        case str():
            return isinstance(right, str) and left == right
        case Instant():
            return left == right
    return False


def _is_number(value: object) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)


def _matches(node: Matches) -> Run:
    fold = str if node.exactly else str.casefold
    left, part = _compile_text(node.left), node.part
    if isinstance(node.right, Literal):
        literal = fold(text_of(node.right.value) or "")
        return lambda view, now: _is_match(subject_of(left(view, now)), literal, fold, part)
    right = _compile_text(node.right)

    def run(view: View, now: Moment) -> bool:
        sought = text_of(right(view, now))
        return sought is not None and _is_match(subject_of(left(view, now)), fold(sought), fold, part)

    return run


def _compile_text(node: Node) -> Run:
    """A node whose text is asked for: that of `now` is another each second."""
    if not isinstance(node, Now):
        return compile_node(node)

    def run(_view: View, now: Moment) -> Instant:
        now.changes_at((now.ms // 1000 + 1) * 1000)
        return Instant(now.ms)

    return run


def _is_match(subject: str | None, sought: str, fold: Callable[[str], str], part: bool) -> bool:
    """Whether the subject is, or for a part holds, what is sought, which is folded already."""
    if subject is None:
        return False
    return sought in fold(subject) if part else sought == fold(subject)


def _matches_regex(left: Run, search: Callable[[bytes], bool]) -> Run:
    def run(view: View, now: Moment) -> bool:
        subject = subject_of(left(view, now))
        return subject is not None and search(subject.encode("utf-8", "replace"))

    return run


def _read(find: Callable[[View], Any]) -> Run:
    def run(view: View, _now: Moment) -> Any:
        value = find(view)
        return None if value is MISSING else value

    return run


def finder_of(path: Path) -> Callable[[View], Any]:
    """The value at a path, or MISSING. Names lead into objects, numbers into arrays, and nothing else anywhere."""
    keys = (path.root, *path.keys)

    def find(view: View) -> Any:
        value: Any = view
        for key in keys:
            if isinstance(key, str):
                if not isinstance(value, OBJECTS) or key not in value:
                    return MISSING
            elif not isinstance(value, ARRAYS) or key >= len(value):
                return MISSING
            value = value[key]
        return value

    return find


def subject_of(value: object) -> str | None:
    """A value as the text that `matches` looks at."""
    text = text_of(value)
    if text is None or len(text) * 4 <= SUBJECT_BYTES:
        return text
    return text.encode("utf-8", "replace")[:SUBJECT_BYTES].decode("utf-8", "ignore")


def text_of(value: object) -> str | None:
    """A value as text: objects and arrays as compact JSON. None for null, and for what Python cannot write down."""
    match value:
        case str() | None:
            return value
        case bool():
            return "true" if value else "false"
        case Instant():
            return str(value)
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_jsonable)
    except (ValueError, RecursionError):
        # Integers of thousands of digits, and nesting deeper than the stack.
        return None


def _jsonable(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)
