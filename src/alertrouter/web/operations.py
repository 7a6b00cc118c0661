"""Operations, named as Prometheus and Alertmanager name them: health, readiness, metrics, reload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from alertrouter import telemetry
from alertrouter.errors import RulesInvalid, StoreUnavailable
from alertrouter.web.auth import Access, access

#: Every step is bounded by time-outs of a few seconds. Less would restart a machine that only swaps.
_STUCK_S = 60.0


class Operations:
    """The operations endpoints.

    missing:   what keeps the service from accepting, in words; empty when ready.
    warnings:  what is wrong though it can accept.
    stuck_for: for how many seconds the worker has not come back from a step that takes a few at most.
    backlog:   sizes of the queues; raises StoreUnavailable.
    reload:    loads the rules anew, returns what the answer says of them; raises RulesInvalid.
    """

    def __init__(
        self,
        *,
        missing: Callable[[], Awaitable[Sequence[str]]],
        warnings: Callable[[], Sequence[str]],
        stuck_for: Callable[[], float],
        backlog: Callable[[], Awaitable[dict[str, int]]],
        reload: Callable[[], Awaitable[Mapping[str, object]]],
    ) -> None:
        self._missing = missing
        self._warnings = warnings
        self._stuck_for = stuck_for
        self._backlog = backlog
        self._reload = reload

    @access(Access.ANYONE)
    async def healthy(self, _: web.Request) -> web.Response:
        """200 while the process answers and its worker works. 503 means that only a restart helps."""
        stuck = self._stuck_for()
        if stuck > _STUCK_S:
            return web.json_response({"status": "stuck", "worker_in_one_step_for_seconds": round(stuck)}, status=503)
        return web.json_response({"status": "healthy"})

    @access(Access.ANYONE)
    async def ready(self, _: web.Request) -> web.Response:
        """200 when alerts can be accepted, else 503 with what is missing."""
        missing = list(await self._missing())
        return web.json_response(
            {"status": "not ready" if missing else "ready", "missing": missing, "warnings": list(self._warnings())},
            status=503 if missing else 200,
        )

    @access(Access.ANYONE)
    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus metrics."""
        try:
            for queue, size in (await self._backlog()).items():
                telemetry.QUEUE.labels(queue).set(size)
            telemetry.REDIS_UP.set(1)
        except StoreUnavailable:
            telemetry.REDIS_UP.set(0)
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(telemetry.REGISTRY), headers={"Content-Type": content_type})

    @access(Access.OPERATE)
    async def reload(self, _: web.Request) -> web.Response:
        """Load the rules anew. 422 with every problem if they are faulty; the old ones then stay in force.

        200 with `quarantined` if only service files are: those alone keep their last good version.
        """
        try:
            loaded = await self._reload()
        except RulesInvalid as error:
            return web.json_response({"status": "refused", "errors": error.problems}, status=422)
        return web.json_response({"status": "reloaded", **loaded})
