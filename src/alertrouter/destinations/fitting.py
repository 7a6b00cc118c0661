"""Makes whatever a sender wrote fit to be sent: sound text, plain JSON data, and no more bytes than allowed. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

#: Deepest nesting kept; nobody reads further down, and the recursions here stay shallow.
DEPTH_LIMIT = 20
#: Ends every text that was cut.
CUT_MARK = "… [cut by alertrouter]"
#: Values up to this many bytes are kept whole for as long as any room is left: identifiers, names, numbers, links.
SMALL = 200

encode = msgspec.json.encode


def sound(text: str) -> str:
    """`text` without lone surrogates, which JSON readers need not accept: two halves are joined, the rest is U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def cut(text: str, limit: int) -> str:
    """Sound text of at most `limit` code points, with an ellipsis where something is missing; "" for a blank one."""
    text = sound(text)
    if not text.strip():
        return ""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON data. What JSON has no form for (not-a-number, dates, other objects) becomes its text."""
    match value:
        case str():
            return sound(value)
        case None | bool():
            return value
        case int():
            # Python refuses to write integers of thousands of digits in decimal.
            return value if value.bit_length() <= 1_024 else hex(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case Mapping() | list() | tuple() if depth == DEPTH_LIMIT:
            return f"[nested deeper than {DEPTH_LIMIT} levels]"
        case Mapping():
            return {sound(str(key)): plain(child, depth + 1) for key, child in value.items()}
        case list() | tuple():
            return [plain(child, depth + 1) for child in value]
        case _:
            return sound(str(value))


def fit(value: Any, budget: int) -> Any:
    """The part of `value` (plain JSON data) that encodes to at most `budget` bytes; None where nothing of it fits.

    Small values stay whole. What room they leave is shared evenly among the large ones: of a text its head is kept,
    of an object or list its smaller entries, in their order. The same input gives the same result.
    """
    if len(encode(value)) <= budget:
        return value
    match value:
        case str():
            return _head(value, budget)
        case dict():
            entries = [(key, child, len(encode(key)) + 2) for key, child in value.items()]  # 2: colon and comma
            kept = dict(_share_out(entries, budget - 2))  # 2: the braces
            return {key: kept[key] for key in value if key in kept} or None
        case list():
            items = [(index, child, 1) for index, child in enumerate(value)]  # 1: the comma
            return [child for _, child in sorted(_share_out(items, budget - 2), key=lambda item: item[0])] or None
        case _:
            return None


def _share_out(entries: list[tuple[Any, Any, int]], room: int) -> Iterator[tuple[Any, Any]]:
    """What can be kept of (key, child, bytes beside the child) entries within `room` bytes, smallest first."""
    sized = sorted(((len(encode(child)), key, child, beside) for key, child, beside in entries), key=lambda e: e[0])
    for position, (size, key, child, beside) in enumerate(sized):
        share = min(room, max(room // (len(sized) - position), SMALL)) - beside
        if size > share:
            child = fit(child, share)
            if child is None:
                continue
            size = len(encode(child))
        room -= size + beside
        yield key, child


def _head(text: str, budget: int) -> str | None:
    """The longest head of `text` that fits together with the mark. By halving: escapes make characters uneven."""
    if len(encode(CUT_MARK)) > budget:
        return None
    low, high = 0, min(len(text), budget)
    while low < high:
        middle = (low + high + 1) // 2
        if len(encode(text[:middle] + CUT_MARK)) <= budget:
            low = middle
        else:
            high = middle - 1
    return text[:low] + CUT_MARK
