"""What people write instead of a condition, and the form they were after."""

from __future__ import annotations

import re
from collections.abc import Mapping

_KEYWORDS = frozenset(
    {"and", "or", "not", "matches", "part", "regex", "exactly", "exists", "now", "in", "over", "true", "false"}
)

#: Fields of an event that a condition reads as `event.<field>`.
EVENT_FIELDS = ("summary", "source", "severity", "timestamp", "class", "component", "group", "custom_details")
#: What a path may start with.
ROOTS = ("event", "raw_event", "cache_var")

_NOT_EQUAL = "there is no `!=`; write `not a == b`"
_CONTAINS = "write `a matches part 'text'` for a text inside another"
_EQUALS = "write `a == 'text'`, or `a matches 'text'` where upper and lower case are one"
_ONE_OF = "`in` is for schedules; write `a matches 'x' or a matches 'y'`, or `a matches regex '^(x|y)$'`"
_NULL = "there is no null; `a exists` tells whether a field is there"
_REGEX = "write `a matches regex 'pattern'`"
_EDGE = "write `a matches regex '^text'` for the start of a text and `a matches regex 'text$'` for its end"
_BETWEEN = "`now` is compared with `now > date` and `now < date`, or with `now in schedule`"

_OPERAND_MISSING = "a path, a number, true, false or text in single quotes is missing"

_SYMBOLS = (
    ("!=", _NOT_EQUAL),
    ("<>", _NOT_EQUAL),
    ("<->", _BETWEEN),
    ("=~", f"there is no `=~`; {_REGEX}"),
    ("!~", "there is no `!~`; write `not a matches regex 'pattern'`"),
    ("===", "write `==`"),
    ("=", "write `==`"),
    (">", "the operators are ==, >, >=, < and <="),
    ("<", "the operators are ==, >, >=, < and <="),
    ("!", "there is no `!`; write `not`"),
    ("&", "there is no `&&`; write `and`"),
    ("|", "there is no `||`; write `or`"),
    ('"', "text goes in single quotes: 'text'"),
    ("`", "text goes in single quotes: 'text'"),
    ("/", f"there are no /patterns/; {_REGEX}"),
    ("{", "there are no templates in a condition; write the path alone"),
    ("*", "there are no wildcards and no arithmetic; an index is a number, as in `a[0]`"),
    ("+", "there is no arithmetic"),
    ("%", "there is no arithmetic"),
    ("$", "there are no $ names; a path starts with event. or raw_event."),
    (",", "there are no lists; join tests with `and` or `or`"),
    (")", "there is no `(` for this `)`"),
    ("#", "there are no comments in a condition"),
)

_WORDS = {
    "contains": f"there is no `contains`; {_CONTAINS}",
    "include": f"there is no `include`; {_CONTAINS}",
    "includes": f"there is no `includes`; {_CONTAINS}",
    "like": f"there is no `like`; {_CONTAINS}",
    "equals": f"there is no `equals`; {_EQUALS}",
    "equal": f"there is no `equal`; {_EQUALS}",
    "eq": f"there is no `eq`; {_EQUALS}",
    "is": f"there is no `is`; {_EQUALS}",
    "ne": _NOT_EQUAL,
    "gt": "write `>`",
    "gte": "write `>=`",
    "lt": "write `<`",
    "lte": "write `<=`",
    "startswith": _EDGE,
    "starts": _EDGE,
    "endswith": _EDGE,
    "ends": _EDGE,
    "between": _BETWEEN,
    "match": "write `matches`",
    "exist": "write `exists`",
    "regexp": _REGEX,
    "does": "write `not` in front of the test: `not a matches part 'text'`",
    "not": "write `not` in front of the test: `not a matches part 'text'`",
    "in": _ONE_OF,
    "null": _NULL,
    "nil": _NULL,
    "None": _NULL,
    "undefined": _NULL,
    "xor": "there is no `xor`",
}

#: Words taken for a bare name, where an operand was due.
_NO_OPERAND = {
    **{word: f"`{word}` cannot stand here; {_OPERAND_MISSING}" for word in ("and", "or", "matches", "exists", "in")},
    **{word: remedy for word, remedy in _WORDS.items() if word not in _KEYWORDS},
    "part": "the order is `matches part exactly`",
    "regex": "`regex` comes right after `matches`; only `exactly` may follow it",
}

#: Where the grammar leaves one way to go on.
_PLACES = (
    ("SCHEDULE", "a schedule looks like `now in Mon,Tue 09:00:00 to 17:00:00 Europe/London`"),
    ("DURATION", "a duration looks like `over 1 hour 30 minutes`"),
    ("_OVER", "a count needs its time: `trigger_count over 5 minutes > 3`"),
)


def explain(text: str, at: int, expected: frozenset[str]) -> tuple[int, str]:
    """Where a condition went wrong and what to write instead.

    `at` is where reading stopped, `expected` the terminals of the grammar that could have stood there.
    """
    before, rest = text[:at].rstrip(), text[at:]
    last = re.search(r"(?<![\w.'\]])[A-Za-z_]\w*$", before)
    if "_DOT" in expected and last is not None and (remedy := _word_remedy(last[0], _NO_OPERAND)):
        return last.start(), remedy
    if before.endswith("<") and rest.startswith((">", "->")):
        return at - 1, _BETWEEN if rest.startswith("->") else _NOT_EQUAL
    word = _word_at_start(rest)
    if expected & {"_MATCHES", "_AND"} and (remedy := _word_remedy(word, _WORDS)):
        return at, remedy
    return at, _remedy_by_place(before, rest, word, expected)


def unknown_root(name: str, *, right_side: bool) -> str:
    """What to write instead of a path that starts with no known root."""
    if remedy := _word_remedy(name, _NO_OPERAND):
        return remedy
    if name == "variables":
        return "`variables` are set by a rule's actions, after its conditions; test the field they are taken from"
    if right_side:
        return f"text goes in single quotes: '{name}'; a path starts with event. or raw_event."
    path = f"event.{name}" if name in EVENT_FIELDS else f"event.custom_details.{name}"
    return f"a path starts with event. or raw_event.; write `{path}`"


def _word_remedy(word: str, remedies: Mapping[str, str]) -> str:
    if word in remedies:
        return remedies[word]
    if word.lower() in _KEYWORDS and word not in _KEYWORDS:
        return f"keywords are lower case: write `{word.lower()}`"
    return ""


def _remedy_by_place(before: str, rest: str, word: str, expected: frozenset[str]) -> str:
    if not rest:
        return "the condition stops here; something is missing after it"
    for terminal, remedy in _PLACES:
        if terminal in expected:
            return remedy
    if "_MATCHES" in expected and re.search(r"[\w\]]$", before) and rest.startswith("-"):
        return "a name with `-` is written in brackets: event.custom_details['alert-name']"
    if before.endswith((".", "[")) and not rest.startswith('"'):
        return "after a dot comes a plain name; anything else is written ['any name'], and an index [0]"
    if before.endswith(("regex", "exactly")) and expected <= {"STRING", "EXACTLY"}:
        return "a pattern stands in the rule itself, in single quotes: `a matches regex 'pattern'`"
    if rest.startswith("(") and "_MATCHES" in expected:
        return "there are no functions"
    if rest.startswith("'") and not re.match(r"'(?:[^'\\]|\\.)*'", rest, re.DOTALL):
        return "the text has no closing quote; a quote inside it is written \\'"
    for symbol, remedy in _SYMBOLS:
        if rest.startswith(symbol):
            return remedy
    return f"`{word or rest[0]}` cannot stand here; {_wanted(expected)}"


def _wanted(expected: frozenset[str]) -> str:
    if "_MATCHES" in expected:
        return "after a path comes `matches`, `exists`, `==`, `>`, `>=`, `<` or `<=`"
    if "_AND" in expected:
        return "tests are joined by `and` or `or`"
    return _OPERAND_MISSING


def _word_at_start(text: str) -> str:
    match = re.match(r"[A-Za-z_]\w*", text)
    return match[0] if match else ""
