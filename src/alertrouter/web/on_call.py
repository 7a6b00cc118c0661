"""What people on call change: /api/v1/silences and /api/v1/page-tests. JSON in, JSON out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from alertrouter.errors import BadPayload, NotDone, StoreUnavailable
from alertrouter.web.auth import Access, access
from alertrouter.web.body import read_body

_MOST_BYTES = 64 * 1024

Answer = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class OnCall:
    """The part of the API that changes something. Each callable raises NotDone or StoreUnavailable.

    add, end, listed:  silences: from a body, by id and who ends it, and all in force.
    test, resolve:     test pages: from a body, and by id.
    """

    def __init__(
        self,
        *,
        add: Callable[[bytes], Awaitable[Answer]],
        end: Callable[[str, str], Awaitable[Answer]],
        listed: Callable[[], Awaitable[Answer]],
        test: Callable[[bytes], Awaitable[Answer]],
        resolve: Callable[[str], Awaitable[Answer]],
    ) -> None:
        self._add = add
        self._end = end
        self._listed = listed
        self._test = test
        self._resolve = resolve

    @access(Access.READ)
    async def list_silences(self, request: web.Request) -> web.Response:
        """The silences in force, the one that ends first first."""
        return await self._answer(request, self._listed)

    @access(Access.OPERATE)
    async def add_silence(self, request: web.Request) -> web.Response:
        """201 with the silence. Body: owner, reason, `when` (a condition) or `alert` (an id), `for` or `until`."""
        return await self._answer(request, self._add, with_body=True, status=201)

    @access(Access.OPERATE)
    async def end_silence(self, request: web.Request) -> web.Response:
        """200 with the silence that was ended; `?by=` says who ends it."""
        id_, by = request.match_info["id"], request.query.get("by", "")
        return await self._answer(request, lambda: self._end(id_, by))

    @access(Access.OPERATE)
    async def begin_test(self, request: web.Request) -> web.Response:
        """202 with the id of the test page and where it goes. Body: service; by, for, severity, details."""
        return await self._answer(request, self._test, with_body=True, status=202)

    @access(Access.OPERATE)
    async def resolve_test(self, request: web.Request) -> web.Response:
        """202: the test page is being resolved."""
        return await self._answer(request, lambda: self._resolve(request.match_info["id"]), status=202)

    async def _answer(
        self, request: web.Request, act: Callable[..., Awaitable[Answer]], *, with_body: bool = False, status: int = 200
    ) -> web.Response:
        try:
            answer = await (act(await read_body(request, _MOST_BYTES)) if with_body else act())
        except BadPayload as error:
            return web.json_response({"error": error.reason}, status=error.status)
        except NotDone as error:
            return web.json_response({"error": error.reason, **error.more}, status=error.status)
        except StoreUnavailable as error:
            return web.json_response({"error": str(error)}, status=503)
        return web.json_response(answer, status=status)
