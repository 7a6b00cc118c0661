"""Text that anybody may have written, made fit for a terminal, a log or a page of Markdown. Pure."""

from __future__ import annotations

import json
import re

#: What moves a cursor, hides or turns text: C0 and C1 controls, separators, zero-width and bidirectional marks, tags,
#: lone surrogates. Escaped in JSON as JSON has it, the value stays the same.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
#: From where a URL's scheme ends. The scheme stays as it is, and to look for its beginning takes the square of the time.
_URL = re.compile(r"""(?<=://)[^\s'"<>]+""")
_LOGIN = re.compile(r"\b(bearer|basic) +[\w.~+/=-]+", re.IGNORECASE | re.ASCII)
#: A routing key by its form: https://developer.pagerduty.com/docs/send-alert-event
_KEY = re.compile(r"(?<![0-9A-Za-z])[0-9A-Za-z]{32}(?![0-9A-Za-z])")
#: A token as `alertrouter token new` makes them; the capital or digit tells it from the name of a metric.
_TOKEN = re.compile(r"(?<![0-9A-Za-z])alertrouter_(?=[a-z_-]{0,42}[A-Z0-9])[0-9A-Za-z_-]{43}(?![0-9A-Za-z_-])")
#: What Markdown makes something of inside a line: https://github.github.com/gfm/#inlines
_MARKDOWN = re.compile(r"([\\`*\[\]!|~$])|(?<![^\W_])(_)|(_)(?![^\W_])")
#: What GitHub makes something of after that, in text: mentions, references, links, these also behind an underscore.
#: https://github.github.com/gfm/#autolinks-extension-
#: https://docs.github.com/en/get-started/writing-on-github/working-with-advanced-formatting/autolinked-references-and-urls
_AUTOLINKED = re.compile(r"@(?=\w)|#(?=\d)|:(?=//)|(?<![^\W_])(?:www(?=\.)|GH-(?=\d))", re.IGNORECASE)

HIDDEN = "***"


def escaped(text: str, encoding: str = "utf-8") -> str:
    r"""One line of text with `\u` escapes, as JSON has them, for all that moves a cursor or has no place in `encoding`.

    Such are control characters, line ends, marks that turn the direction of writing, and lone surrogates.
    """
    if _is_plain(text, encoding):
        return text
    return "".join(each if _is_plain(each, encoding) else json.dumps(each)[1:-1] for each in text)


def _is_plain(text: str, encoding: str) -> bool:
    if not text.isprintable():
        return False
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def no_command(line: str) -> str:
    """The line, in quotes where a runner of workflows would take it for a command.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """
    return f"'{line}'" if line.lstrip().startswith(("::", "##[")) else line


def escaped_lines(text: str, encoding: str = "utf-8") -> str:
    """Each line of the text, escaped."""
    return "\n".join(escaped(line, encoding) for line in text.split("\n"))


def escaped_json(text: str) -> str:
    """JSON that means the same and shows all that is unseen as escapes. Line ends between its values stay."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def without_credentials(text: str) -> str:
    """The text without what its URLs hold before the host and after the path, and without bearer and basic logins."""
    if "://" in text:
        text = _URL.sub(_bare, text)
    return _LOGIN.sub(rf"\1 {HIDDEN}", text) if " " in text else text


def without_secrets(text: str) -> str:
    """The text without what has the form of a routing key, or of a token that we made."""
    return _TOKEN.sub(HIDDEN, _KEY.sub(HIDDEN, text))


def _bare(found: re.Match[str]) -> str:
    # up to the last "@" and from the first "?" or "#" on: a password that should have been encoded may hold the others
    before, at, rest = found[0].rpartition("@")
    place, mark, _ = re.sub(r"[?#].*", "?", rest).partition("?")
    return f"{HIDDEN + '@' if at and before else ''}{place}{mark and '?' + HIDDEN}"


def in_markdown(text: str) -> str:
    """One line that Markdown shows as it is: no link, image, mention, HTML, table or emphasis comes of it."""
    line = _MARKDOWN.sub(r"\\\g<0>", escaped(" ".join(text.split()))).replace("&", "&amp;").replace("<", "&lt;")
    return _AUTOLINKED.sub(r"\g<0>&#8203;", line)  # a blank of no width


def in_code(text: str) -> str:
    """One line as code in Markdown, between as many backticks as it takes."""
    line = escaped(" ".join(text.split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if line[:1] == "`" or line[-1:] == "`" else f"{fence}{line}{fence}"
