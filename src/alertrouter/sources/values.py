"""Single values of a payload, whatever type they arrived in, and what stands for no value at all."""

from __future__ import annotations

from typing import Any

from alertrouter.sources.instant import UNKNOWN, Instant, read_epoch, read_rfc3339
from alertrouter.sources.text import first_line, unescaped

#: What templates make of a variable that has no value.
NOTHING = frozenset(("", "null", "None"))


def word(value: Any) -> str:
    """Texts and numbers, for a template's author may forget the quotes; of anything else nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def told(value: Any) -> str:
    """A name, key or number as text; "" for nothing, for its words, and for a variable nobody replaced: "$INCIDENT_ID"."""
    text = word(value).strip()
    return "" if text in NOTHING or text.startswith("$") else text


def shown(value: Any) -> str:
    """The first line of somebody's prose, fit to show. It may begin with a dollar, unless it is a variable's name alone."""
    line = first_line(unescaped(word(value)))
    return "" if line in NOTHING or (line.startswith("$") and " " not in line) else line


def moment(value: Any) -> Instant:
    """RFC 3339, or a count of seconds or milliseconds since 1970, as text or number. UNKNOWN where it is no time."""
    text = told(value)
    instant = read_rfc3339(text)
    return read_epoch(text) if instant is UNKNOWN else instant


def mapping(value: Any) -> dict[str, Any]:
    """An object's members; none where there is no object."""
    return value if isinstance(value, dict) else {}


def details(known: dict[str, Any], *labels: Any) -> dict[str, Any]:
    """`custom_details`: the sender's labels, of two alike the later, beside what is known, which no label takes the place of.

    What stands for nothing is left out, and so is what is no object among `labels`.
    """
    merged: dict[str, Any] = {}
    for each in (*labels, known):
        merged |= {name: value for name, value in mapping(each).items() if not _is_nothing(value)}
    return merged


def escaped(text: str) -> str:
    """A part of an identity, so that ":" can join it to the next one."""
    return text.replace("%", "%25").replace(":", "%3A")


def _is_nothing(value: Any) -> bool:
    return value in NOTHING if isinstance(value, str) else value is None or value == [] or value == {}
