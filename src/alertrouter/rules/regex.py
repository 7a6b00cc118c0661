"""Regular expressions of rules: RE2, linear in the text, without look-around and back-references."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import re2

Searcher = Callable[[bytes], bool]
#: What a pattern finds in a text; None where it finds nothing.
Extractor = Callable[[str], str | None]

#: What people bring from other dialects, and what RE2 has instead.
_NOT_IN_RE2 = (
    (("(?=", "(?!", "(?<=", "(?<!"), "RE2 has no look-ahead or look-behind; join two tests with `and` or `and not`"),
    (
        ("(?>", "*+", "++", "?+"),
        "RE2 has no atomic groups or possessive quantifiers and needs none: it never backtracks",
    ),
    (("\\1", "\\2", "\\3", "(?P="), "RE2 has no back-references"),
    (("\\Z",), "RE2 writes the end of the text as \\z"),
)


class BadPattern(ValueError):
    """A pattern that RE2 does not take; the text says why and what to write."""


@lru_cache(maxsize=4096)
def compile_search(pattern: str, *, exactly: bool) -> Searcher:
    """A function that tells whether UTF-8 text holds the pattern anywhere.

    `.` crosses newlines, `^` and `$` match at line ends, and case is ignored unless `exactly`;
    inline flags in the pattern win over all three.
    """
    search = _compile(pattern, with_flags(pattern, exactly=exactly)).search
    return lambda text: search(text) is not None


@lru_cache(maxsize=4096)
def compile_extractor(pattern: str) -> Extractor:
    """A function that answers what the groups of the pattern hold, joined; without groups, all that matches.

    The first match anywhere counts. Unlike in a condition there are no flags but those in the pattern.
    Raises BadPattern.
    """
    search = _compile(pattern, pattern).search

    def extract(text: str) -> str | None:
        match = search(text.encode("utf-8", "replace"))
        if match is None:
            return None
        groups = match.groups() or (match[0],)
        return b"".join(group for group in groups if group is not None).decode("utf-8", "replace")

    return extract


def _compile(pattern: str, flagged: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(flagged, options)
    except re2.error as error:
        raise BadPattern(_explanation(pattern, error)) from None


def with_flags(pattern: str, *, exactly: bool) -> str:
    """The pattern as RE2 is to read it."""
    return ("(?ms)" if exactly else "(?ims)") + pattern


def quoted(text: str) -> bytes:
    """The pattern of a text, in UTF-8."""
    pattern: bytes = re2.escape(text.encode("utf-8", "replace"))
    return pattern


def _explanation(pattern: str, error: Exception) -> str:
    for signs, remedy in _NOT_IN_RE2:
        if any(sign in pattern for sign in signs):
            return remedy
    detail = error.args[0] if error.args else ""
    return detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
