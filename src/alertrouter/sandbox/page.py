"""The sandbox's web page: what PagerDuty would have received, newest first. Pure; everything shown is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from itertools import islice
from typing import Any

import msgspec

from alertrouter.sandbox.events_api import Call, Result

CALLS_SHOWN = 100
DETAILS_SHOWN = 30
TEXT_SHOWN = 300

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
article { border: 1px solid #d5dbe1; border-left: 6px solid #8795a1; border-radius: 4px; margin: 1rem 0; padding: .6rem 1rem }
article.critical { border-left-color: #b3261e } article.error { border-left-color: #d9650b }
article.warning { border-left-color: #c79a00 } article.info { border-left-color: #2f6fb5 }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: .2rem 0 }
p { margin: .2rem 0 } p:empty, dl:empty { display: none } small, dt { color: #5b6b7a } b { text-transform: uppercase; font-size: .8rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .4rem 0; font-size: .85rem }
dd { margin: 0; overflow-wrap: anywhere }
"""

#: Nothing but this page's own style: no script, no image, no frame, whatever an alert holds.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(sha256(_STYLE.encode()).digest()).decode()}'"
)


def render(calls: Iterable[Call], open_alerts: int) -> str:
    """The page as HTML, given calls from oldest to newest."""
    newest = list(calls)[: -CALLS_SHOWN - 1 : -1]
    cards = "".join(map(_card, newest)) or "<p>Nothing yet. This page looks again every three seconds.</p>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta http-equiv="refresh" content="3"><meta name="viewport" content="width=device-width">
<title>PagerDuty stand-in</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>PagerDuty stand-in</h1>
<p>Open alerts: {open_alerts}. As JSON: <a href="/events">events</a>, <a href="/alerts">open alerts</a>.</p>
{cards}
</body>
</html>
"""


def _card(call: Call) -> str:
    payload = _mapping(call.event.get("payload"))
    details = _mapping(payload.get("custom_details"))
    severity = _text(payload.get("severity"))
    received = datetime.fromtimestamp(call.received_at / 1000, UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    title = call.title or payload.get("summary") or call.event.get("dedup_key") or call.answer.get("message")
    about = (("service", details.get("service")), ("team", details.get("team")), ("source", payload.get("source")))
    return f"""<article class="{severity}">
<p><b>{_text(call.event.get("event_action"))}</b> {severity} <small>→ {_outcome(call)} · {received} UTC</small></p>
<h2>{_text(title)}</h2>
<p>{" · ".join(f"{name} {_text(value)}" for name, value in about if value)}</p>
<p>{_links(call.event.get("links"))}</p>
<dl>{"".join(_detail(name, value) for name, value in islice(details.items(), DETAILS_SHOWN))}</dl>
<small>dedup_key {_text(call.event.get("dedup_key"))} · routing key {_text(call.key_alias)}</small>
</article>
"""


def _outcome(call: Call) -> str:
    errors = call.answer.get("errors")
    if call.result is Result.DROPPED:
        return "dropped: no open alert has this key"
    return f"{call.result} ({call.status}) {_text('; '.join(errors))}" if errors else f"{call.result} ({call.status})"


def _links(links: Any) -> str:
    found = [_mapping(link) for link in links] if isinstance(links, list) else []
    return " · ".join(_anchor(_string(link.get("href")), _string(link.get("text"))) for link in found)


def _detail(name: str, value: Any) -> str:
    shown = _anchor(value, "") if isinstance(value, str) else _text(value)
    return f"<dt>{_text(name)}</dt><dd>{shown}</dd>"


def _anchor(href: str, text: str) -> str:
    """A link where `href` is one that is safe to follow, else its text."""
    if not href.startswith(("https://", "http://")):
        return _text(text or href)
    return f'<a href="{escape(href)}" rel="noreferrer">{_text(text or href)}</a>'


def _text(value: Any) -> str:
    """Any JSON value as escaped text of bounded length; nothing for null."""
    text = _string(value)
    return escape(text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + "…")


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
