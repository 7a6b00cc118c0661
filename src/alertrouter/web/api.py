"""GET /api/v1: what happened to alerts, as JSON. Routing keys never leave the store; their names do."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from aiohttp import web

from alertrouter.errors import StoreUnavailable
from alertrouter.history.entries import KINDS, Entry, Filter, Heard, encode, entries_of
from alertrouter.web.auth import Access, access

_MOST_ENTRIES = 1000
_ENTRIES = 100
#: Entries of the stream that one request looks at: one that finds little says where to go on.
_LOOKED_AT = 20_000
_AT_ONCE = 500
#: Entries of the history that are shown beside an alert's record.
_ENTRIES_OF_ONE = 50
_NO_BODY = msgspec.Raw(b"null")
_PLACE = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")
#: The header that says where the next page begins: what to give as `cursor`. Missing on the last page.
CURSOR = "X-Alertrouter-Cursor"

HistoryEntries = Callable[..., Awaitable[Sequence[tuple[str, Mapping[str, str]]]]]


class Api:
    """The read-only API.

    explain:  all about one alert by its id; None where nothing is on record.
    closest:  ids of alerts that may be meant by one that is not known.
    history:  entries of the stream from one id to another, oldest or newest first.
    shadow:   what the shadow rules would have done otherwise; None where there are none.
    """

    def __init__(
        self,
        *,
        explain: Callable[[str], Awaitable[dict[str, Any] | None]],
        closest: Callable[[str], Awaitable[Sequence[str]]],
        history: HistoryEntries,
        shadow: Callable[[], Mapping[str, object] | None],
    ) -> None:
        self._explain = explain
        self._closest = closest
        self._history = history
        self._shadow = shadow

    @access(Access.READ)
    async def alert(self, request: web.Request) -> web.Response:
        """One alert by its dedup_key: what was heard, what was told, what the rules say, and why."""
        try:
            asked = request.match_info["dedup_key"]
            explained = await self._explain(asked)
            if explained is None:
                return web.json_response({"error": "no such alert", "closest": await self._closest(asked)}, status=404)
            record = explained["record"]
            entries, is_whole = await self._history_of(record["id"], record["first_heard"])
        except StoreUnavailable as error:
            return web.json_response({"error": str(error)}, status=503)
        return web.json_response({**explained, "history": entries, "history_complete": is_whole})

    async def _history_of(self, alert_id: str, since: int) -> tuple[list[dict[str, Any]], bool]:
        """The newest entries about one alert since then (ms), newest first, and whether there are no others."""
        found: list[dict[str, Any]] = []
        last = "+"
        for _ in range(_LOOKED_AT // _AT_ONCE):
            entries = await self._history("-", last, _AT_ONCE, newest_first=True)
            for id_, fields in entries:
                if fields.get("id", alert_id) != alert_id:
                    continue  # about another: telling that is much cheaper than reading it
                found += (_without_body(entry) for entry in entries_of(id_, fields) if entry.id == alert_id)
                if len(found) > _ENTRIES_OF_ONE:
                    return found[:_ENTRIES_OF_ONE], False
            if len(entries) < _AT_ONCE or int(entries[-1][1].get("at", since)) < since:
                return found, True
            last = f"({entries[-1][0]}"
        return found, False

    @access(Access.READ)
    async def history(self, request: web.Request) -> web.Response:
        """How alerts ended, newest first, a page at a time; with `kind` also what was heard and what was sent.

        since, until:  ms since the epoch, by Redis' clock.
        service, source, outcome, alert:  whose.
        kind:          heard, duplicate, ended, sent, shadow, silence_added, silence_ended: some, comma-separated, or all.
        order:         newest (as a rule) or oldest first.
        limit:         up to 1000.  cursor: of the page before, from its header X-Alertrouter-Cursor.
        """
        try:
            question = _question(request.query)
        except ValueError as wrong:
            return web.json_response({"error": str(wrong)}, status=400)
        try:
            found, cursor = await self._find(question)
        except StoreUnavailable as error:
            return web.json_response({"error": str(error)}, status=503)
        headers = {CURSOR: cursor} if cursor else {}
        return web.Response(body=encode(found), content_type="application/json", headers=headers)

    async def _find(self, question: _Question) -> tuple[list[Entry], str]:
        """The entries of one page, and where the next one begins; "" for nowhere."""
        found: list[Entry] = []
        first, last, place = question.first, question.last, ""
        for _ in range(_LOOKED_AT // _AT_ONCE):
            entries = await self._history(first, last, _AT_ONCE, newest_first=question.newest_first)
            for id_, fields in entries:
                found += (entry for entry in entries_of(id_, fields) if question.wanted.takes(entry))
                if len(found) >= question.limit:  # all of one entry of the stream go on one page
                    return found, id_
            if len(entries) < _AT_ONCE:
                return found, ""
            place = entries[-1][0]
            first, last = (first, f"({place}") if question.newest_first else (f"({place}", last)
        return found, place

    @access(Access.READ)
    async def shadow(self, request: web.Request) -> web.Response:
        """What the shadow rules would have done otherwise."""
        summary = self._shadow()
        if summary is None:
            return web.json_response({"error": "no shadow rules; set ALERTROUTER_SHADOW_RULES"}, status=404)
        return web.Response(body=encode(summary), content_type="application/json")


@dataclass(frozen=True, slots=True)
class _Question:
    """Which entries are asked for, and between which ids of the stream they are."""

    wanted: Filter
    first: str
    last: str
    newest_first: bool
    limit: int


def is_number(text: str, digits: int = 15) -> bool:
    """Whether it is a number that Redis reads as one: of ASCII digits, and not too many."""
    return text.isascii() and text.isdecimal() and len(text) <= digits


def _question(query: Mapping[str, str]) -> _Question:
    """Raises ValueError, with what to write instead."""
    limit = query.get("limit", str(_ENTRIES))
    if not is_number(limit, 9) or not 1 <= int(limit) <= _MOST_ENTRIES:
        raise ValueError(f"limit is a number from 1 to {_MOST_ENTRIES}")
    order = query.get("order", "newest")
    if order not in ("newest", "oldest"):
        raise ValueError("order is newest or oldest")
    kinds = frozenset(filter(None, query.get("kind", "").split(",")))
    if strange := kinds - {*KINDS, "all"}:
        raise ValueError(f"kind is one of {', '.join(KINDS)} or all, not {', '.join(sorted(strange))}")
    times = {name: query.get(name, "") for name in ("since", "until")}
    if wrong := [name for name, value in times.items() if value and not is_number(value)]:
        raise ValueError(f"{wrong[0]} is a time in milliseconds since the epoch")
    cursor = query.get("cursor", "")
    if cursor and not _PLACE.fullmatch(cursor):
        raise ValueError(f"cursor is what {CURSOR} said")
    first, last = times["since"] or "-", f"({times['until']}" if times["until"] else "+"
    if cursor:
        first, last = (first, f"({cursor}") if order == "newest" else (f"({cursor}", last)
    wanted = Filter(
        service=query.get("service", ""),
        source=query.get("source", ""),
        outcome=query.get("outcome", ""),
        alert=query.get("alert", ""),
        kinds=kinds - {"all"},
        ends_only=not kinds,
    )
    return _Question(wanted, first, last, order == "newest", int(limit))


class _Severity(msgspec.Struct):
    severity: str


class _Standing(msgspec.Struct):
    """What is shown of an alert that was heard."""

    status: str
    event: _Severity


def _without_body(entry: Entry) -> dict[str, Any]:
    """An entry as JSON; of an alert that was heard only how it stood."""
    if not isinstance(entry, Heard):
        return cast(dict[str, Any], msgspec.to_builtins(entry))
    shown = cast(dict[str, Any], msgspec.json.decode(encode(msgspec.structs.replace(entry, alert=_NO_BODY))))
    del shown["alert"]
    try:
        standing = msgspec.json.decode(entry.alert, type=_Standing)
    except msgspec.MsgspecError:  # a later version may have written it
        return shown
    return {**shown, "status": standing.status, "severity": standing.event.severity}
