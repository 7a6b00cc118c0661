"""GET /api/v1: what happened to alerts, as JSON. Routing keys never leave the store; their names do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from alertrouter.errors import StoreUnavailable
from alertrouter.record import Record
from alertrouter.web.auth import Tokens, unauthorized

_MOST_ENTRIES = 1000


class Api:
    """The read-only API. `record` finds one alert's record by id, `history` the newest ends first."""

    def __init__(
        self,
        *,
        record: Callable[[str], Awaitable[Record | None]],
        history: Callable[[int], Awaitable[Sequence[Mapping[str, str]]]],
        tokens: Tokens,
    ) -> None:
        self._record = record
        self._history = history
        self._tokens = tokens

    async def alert(self, request: web.Request) -> web.Response:
        """One alert by its dedup_key: what was heard, what was told."""
        if not self._tokens.admit(request.headers):
            return unauthorized()
        try:
            record = await self._record(request.match_info["dedup_key"])
        except StoreUnavailable as error:
            return web.json_response({"error": str(error)}, status=503)
        if record is None:
            return web.json_response({"error": "no such alert"}, status=404)
        return web.json_response(_shown(record))

    async def history(self, request: web.Request) -> web.Response:
        """How alerts ended, newest first; `?limit=` up to 1000."""
        if not self._tokens.admit(request.headers):
            return unauthorized()
        limit = request.query.get("limit", "100")
        if not limit.isdecimal() or not 1 <= int(limit) <= _MOST_ENTRIES:
            return web.json_response({"error": f"limit is a number from 1 to {_MOST_ENTRIES}"}, status=400)
        try:
            return web.json_response(list(await self._history(int(limit))))
        except StoreUnavailable as error:
            return web.json_response({"error": str(error)}, status=503)


def _shown(record: Record) -> dict[str, Any]:
    return {
        "dedup_key": record.alert.dedup_key,
        "source": record.alert.source,
        "status": record.status,
        "severity": record.severity,
        "summary": record.alert.event.summary,
        "outcome": record.outcome,
        "rule": record.rule,
        "reason": record.reason,
        "service": record.service,
        "version": record.version,
        "news": record.news,
        "heard": {"first": record.first_heard, "last": record.last_heard, "count": record.count},
        "told": [
            {
                "destination": told.destination,
                "state": told.state or "nothing",
                "version": told.version,
                "at": told.at,
                "tries": told.tries,
                "not_before": told.not_before,
            }
            for told in record.told
        ],
    }
