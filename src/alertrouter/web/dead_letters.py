"""GET and POST /api/v1/dead-letters: what was given up, why, and what to do about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, Protocol
from urllib.parse import quote

import msgspec
from aiohttp import web

from alertrouter.errors import BadPayload, StoreUnavailable
from alertrouter.letter import Filter, Found, filter_of, name_of, number_of
from alertrouter.web.api import CURSOR, is_number
from alertrouter.web.auth import Access, access
from alertrouter.web.body import read_body

_LETTERS = 100
_MOST_LETTERS = 1000
#: The file of letters that were too many for Redis, %-encoded.
SPILLED = "X-Alertrouter-Spilled"
#: In one POST: each is one look at Redis and then they are one script.
MOST_AT_ONCE = 100
_MOST_BYTES = 65_536


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a POST. letters: names of letters, as GET shows them."""

    action: Literal["redrive", "drop"]
    letters: list[str]
    force: bool = False


class _Desk(Protocol):
    """Who has the dead letters."""

    async def find(self, wanted: Filter, most: int, before: int = 0) -> tuple[list[Found], int]: ...
    async def show(self, name: str) -> Found | None: ...
    async def redrive(self, names: Sequence[str], *, force: bool = False) -> Sequence[Any]: ...
    async def drop(self, names: Sequence[str]) -> Sequence[Any]: ...


class DeadLettersApi:
    """The endpoints. Everything is answered in JSON, also what went wrong: {"error": ...}.

    spilled:  the newest file of letters that were too many for Redis; "" for none.
    """

    def __init__(self, desk: _Desk, spilled: Callable[[], str]) -> None:
        self._desk = desk
        self._spilled = spilled

    @access(Access.READ)
    async def list(self, request: web.Request) -> web.Response:
        """Dead letters, the newest first, a page at a time.

        service, destination, source, alert, reason, standing:  which; see `letter.Filter`.
        since:   ms since the epoch.
        limit:   up to 1000.  cursor: of the page before, from its header X-Alertrouter-Cursor.

        The header X-Alertrouter-Spilled names the file of letters that were too many, where there is one.
        """
        return await self._answer(request, self._list)

    async def _list(self, request: web.Request) -> web.Response:
        wanted, limit, before = _question(request.query)
        found, cursor = await self._desk.find(wanted, limit, before)
        headers = {CURSOR: name_of(cursor)} if cursor else {}
        if file := self._spilled():
            headers[SPILLED] = quote(file)
        return web.json_response([each.as_json(whole=False) for each in found], headers=headers)

    @access(Access.READ)
    async def show(self, request: web.Request) -> web.Response:
        """One dead letter by its name, with what was refused."""
        return await self._answer(request, self._show)

    async def _show(self, request: web.Request) -> web.Response:
        found = await self._desk.show(request.match_info["letter"])
        if found is None:
            return web.json_response({"error": "no such dead letter"}, status=404)
        return web.json_response(found.as_json(whole=True))

    @access(Access.OPERATE)
    async def post(self, request: web.Request) -> web.Response:
        """Redrive or drop letters: {"action": "redrive", "letters": ["mjq1z8k0"], "force": false}.

        Answers with a list, what became of each: {"letter", "result", "reason", "id"}.
        """
        return await self._answer(request, self._post)

    async def _post(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await read_body(request, _MOST_BYTES), type=_Asked)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
            raise ValueError(str(wrong)) from None
        if not 0 < len(asked.letters) <= MOST_AT_ONCE:
            raise ValueError(f"name 1 to {MOST_AT_ONCE} letters")
        names = list(dict.fromkeys(asked.letters))
        if asked.action == "drop":
            handled = await self._desk.drop(names)
        else:
            handled = await self._desk.redrive(names, force=asked.force)
        return web.json_response([asdict(each) for each in handled])

    async def _answer(
        self, request: web.Request, answer: Callable[[web.Request], Awaitable[web.Response]]
    ) -> web.Response:
        try:
            return await answer(request)
        except ValueError as wrong:
            return web.json_response({"error": str(wrong)}, status=400)
        except BadPayload as bad:
            return web.json_response({"error": bad.reason}, status=bad.status)
        except StoreUnavailable as error:
            return web.json_response({"error": str(error)}, status=503)


def _question(query: Mapping[str, str]) -> tuple[Filter, int, int]:
    """Filter, limit, and the number to go on before. Raises ValueError with what to write instead."""
    limit = query.get("limit", str(_LETTERS))
    if not is_number(limit, 9) or not 1 <= int(limit) <= _MOST_LETTERS:
        raise ValueError(f"limit is a number from 1 to {_MOST_LETTERS}")
    since = query.get("since", "0") or "0"
    if not is_number(since):
        raise ValueError("since is a time in milliseconds since the epoch")
    cursor = query.get("cursor", "")
    before = number_of(cursor) if cursor else 0
    if before is None:
        raise ValueError(f"cursor is what {CURSOR} said")
    return filter_of(query, int(since)), int(limit), before
