"""Text from senders, made fit to show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import unescape
from typing import Any

import msgspec

from alertrouter.alert import Link

#: Longest piece of a sender's text that an error or a note repeats.
_QUOTED_LIMIT = 80

#: Orders of writing direction, which can make a line read as something else, and controls. Single marks and joiners
#: (U+200C to U+200F) stay: Persian, Hebrew and emoji need them.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_WEB = ("http://", "https://")


def one_line(text: str) -> str:
    """The text in one line: runs of white space become one blank, invisible orders are left out."""
    if text.isprintable() and "  " not in text:
        return text.strip()
    return " ".join(_INVISIBLE.sub("", " ".join(text.split())).split())


def first_line(text: str) -> str:
    """The first line that shows something."""
    return next((line for line in map(one_line, text.splitlines()) if line), "")


def unescaped(text: str) -> str:
    """The text with HTML's entities resolved."""
    try:
        return unescape(text)
    except ValueError:  # "&#" and more digits than CPython makes a number of
        return text


def quoted(value: object) -> str:
    """A value as a reason or note may repeat it: in quotes, in one line, 80 characters at most."""
    text = one_line(value) if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= _QUOTED_LIMIT else text[: _QUOTED_LIMIT - 1] + "…")


def as_text(value: Any) -> str:
    """Text as it is, nothing for null, JSON for everything else."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def first_shown(fields: Mapping[str, str], names: Iterable[str]) -> str:
    """The first of the named fields that holds more than white space; "" if none does."""
    for name in names:
        value = fields.get(name)
        if value and not value.isspace():
            return value
    return ""


def web_address(text: str) -> str:
    """The address if it is one of the web, else "": `javascript:` is no link. What a URL may hold is not looked at."""
    address = text.strip()
    return address if address.startswith(_WEB) else ""


def links(candidates: Iterable[tuple[str, str]]) -> tuple[Link, ...]:
    """Links from pairs of address and text, without those whose address is none of the web."""
    return tuple([Link(href, text) for address, text in candidates if address and (href := web_address(address))])
