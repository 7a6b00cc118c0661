"""Regular expressions of rules: RE2, linear in the text, without look-around and back-references."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import re2

Searcher = Callable[[bytes], bool]

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
    options = re2.Options()
    options.log_errors = False
    flags = "(?ms)" if exactly else "(?ims)"
    try:
        compiled = re2.compile(flags + pattern, options)
    except re2.error as error:
        raise BadPattern(_explanation(pattern, error)) from None
    search = compiled.search
    return lambda text: search(text) is not None


def _explanation(pattern: str, error: Exception) -> str:
    for signs, remedy in _NOT_IN_RE2:
        if any(sign in pattern for sign in signs):
            return remedy
    detail = error.args[0] if error.args else ""
    return detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
