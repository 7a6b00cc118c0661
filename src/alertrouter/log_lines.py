"""What a log line may say: fields that are listed, values without credentials, text that cannot forge a line. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from math import isfinite
from typing import Any

from alertrouter.shown import HIDDEN, escaped, without_credentials, without_secrets

#: The fields of one line, as structlog hands them from one processor to the next.
Line = MutableMapping[str, Any]

#: Every field that our code logs, and those that structlog adds. What is not listed keeps its name and loses its value:
#: a field is added here by somebody who has looked at what can stand in it.
FIELDS = frozenset(
    {
        *("event", "level", "timestamp", "exception", "stack", "logger"),
        *("dedup_key", "source", "destination", "rule", "rules", "service", "severity", "action", "outcome", "version"),
        *("reason", "error", "errors", "status", "objection", "rung", "result", "why", "what", "wanted"),
        *("again_in_ms", "ahead_of_redis_ms", "for_ms", "skew_ms", "last_heard", "added_at", "ends_at"),
        *("alert", "alerts", "count", "entries", "ignored", "skipped", "truncated", "waiting", "letter", "letters"),
        *("alarm", "by", "channel", "fault", "file", "heartbeat", "id", "line", "owner", "part", "stored_on", "to"),
        *("address", "connections", "host", "integration", "open_files", "topic", "url", "when"),
    }
)
#: Where other programs' words stand, which may repeat what they were given.
_OTHERS_WORDS = frozenset({"event", "error", "errors", "exception", "reason", "stack"})


def listed_fields(_: Any, __: str, line: Line) -> Line:
    """The line without the values of fields that nobody has listed."""
    for name in line.keys() - FIELDS:
        line[name] = HIDDEN
    return line


def plain_values(_: Any, __: str, line: Line) -> Line:
    """The line as plain JSON data without credentials: in URLs, in logins, and in what others say, by their form."""
    return {name: _plain(value, others=name in _OTHERS_WORDS) for name, value in line.items()}


def one_terminal_line(_: Any, __: str, line: Line) -> Line:
    """The line for a terminal: nothing in it moves the cursor. A traceback is indented, so that no line of it is ours."""
    return {
        name: "\n".join(f"  {escaped(each)}" for each in value.split("\n"))
        if name in ("exception", "stack")
        else _escaped(value)
        for name, value in line.items()
    }


def as_json(line: Line, default: Any = None) -> str:
    """One line of ASCII, which JSON's escapes make of any text."""
    return json.dumps(line, allow_nan=False, default=default)


def _plain(value: object, *, others: bool) -> Any:
    match value:
        case bool() | int() | None:
            return value
        case float():
            return value if isfinite(value) else str(value)
        case str():
            text = without_credentials(str(value))
            return without_secrets(text) if others else text
        case Mapping():
            return {str(name): _plain(each, others=others) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each, others=others) for each in value]
        case _:
            return _plain(repr(value), others=others)


def _escaped(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value
