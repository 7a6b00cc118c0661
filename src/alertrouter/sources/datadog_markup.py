"""What Datadog writes into titles and texts: brackets, fences, mentions, the link to the monitor."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from urllib.parse import unquote_plus

from alertrouter.sources.datadog_fields import plain
from alertrouter.sources.text import one_line, unescaped

#: "[P1]", "[TEST]", "[]", "[Re-Triggered]", "[Recovered on {host:a,env:prod}]", and the author's own "[New issue]".
_BRACKET = re.compile(r"\s*\[([^\[\]{}]*?)(?: on \{.*?\})?\]")
_PRIORITY = re.compile(r"P[1-5]", re.IGNORECASE)

_FENCE = re.compile(r"^[ \t]*%%%[ \t\r]*$\n?", re.MULTILINE)

#: Handles of people and integrations. Not every "@": "@http.status_code" is a log attribute.
_MENTION = re.compile(
    r"(?<!\S)@(?:(?:webhook|slack|pagerduty|opsgenie|oncall|teams|team|victorops|hangouts|servicenow|jira|workflow|sns)"
    r"(?:-[\w./-]*)?(?!\S)|all(?!\S)|here(?!\S)|[\w.+-]+@[\w-]+\.[\w.-]+)",
    re.IGNORECASE,
)

#: Datadog's own line under every message. Today's address is /monitors/<id>?group=..., in 2015 it was /monitors#<id>?...
_MONITOR_STATUS = re.compile(r"\[Monitor Status\]\(([^\s()]+)\)", re.ASCII)
#: Apart from the link: in one expression, a link without its end is read again from each "/monitors/1" in it.
_MONITOR_ADDRESS = re.compile(r"https?://[^\s()]+/monitors[/#](\d{1,20})", re.ASCII)
_GROUP = re.compile(r"[?&]group=([^&#]*)")


@dataclass(frozen=True, slots=True)
class Title:
    """A title without the brackets Datadog put before it, and what they said; "" for what they did not."""

    text: str
    transition: str = ""
    priority: str = ""
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class MonitorLink:
    """The monitor and the group that a message's Monitor Status link leads to; all "" without such a link."""

    href: str = ""
    monitor_id: str = ""
    group: str = ""


def read_title(title: str, transitions: Container[str]) -> Title:
    """Takes Datadog's brackets off. `transitions` are the words, made plain, that it knows as transitions."""
    title = one_line(title)
    transition = priority = ""
    is_test = False
    position = 0
    while bracket := _BRACKET.match(title, position):
        word = bracket[1].strip()
        if _PRIORITY.fullmatch(word):
            priority = priority or word.upper()
        elif plain(word) in transitions:
            transition = transition or word
        elif plain(word) == "test":
            is_test = True
        elif word:
            break
        position = bracket.end()
    text = one_line(_MENTION.sub("", unescaped(title[position:])))
    return Title(text, transition, priority, is_test)


def read_monitor_link(text: str) -> MonitorLink:
    """The last such link: what stands before it, the monitor's author wrote."""
    link = MonitorLink()
    for status in _MONITOR_STATUS.finditer(text):
        if monitor := _MONITOR_ADDRESS.match(status[1]):
            href = status[1].replace("&amp;", "&")
            link = MonitorLink(href, monitor[1], _group_of(href))
    return link


def _group_of(href: str) -> str:
    group = _GROUP.search(href)
    if group is None:
        return ""
    try:
        return one_line(unquote_plus(group[1], errors="strict"))
    except UnicodeDecodeError:  # with replacement characters, two groups would be one
        return one_line(group[1])


def readable(text: str) -> str:
    """A message for people: without fences, with HTML entities resolved. Its lines and markdown stay."""
    return unescaped(_FENCE.sub("", text)).strip()
