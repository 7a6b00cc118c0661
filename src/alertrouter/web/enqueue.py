"""POST /v2/enqueue and /v2/change/enqueue: the Events API v2 as PagerDuty serves it, so that a tool which pages PagerDuty needs another URL only.

https://developer.pagerduty.com/docs/events-api-v2-overview: 202 with the dedup_key, 400 and 413 for what must not be
repeated, 5xx for what is worth it. The routing key is the credential; no token is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from uuid import uuid4

import msgspec
import structlog
from aiohttp import web

from alertrouter import telemetry
from alertrouter.alert import PAGERDUTY, Alert
from alertrouter.errors import BadPayload, StoreUnavailable
from alertrouter.sources.pagerduty import (
    Change,
    Event,
    read_alert,
    read_change,
    read_event,
    routing_key_of,
    unknown_key,
)
from alertrouter.web.auth import Access, access
from alertrouter.web.body import Room, read_body
from alertrouter.web.webhooks import Accept, Keep, OnRefused

#: "512 KB", read the strict way: what PagerDuty would not take, nobody is promised. Alertmanager cuts at this too.
EVENT_LIMIT = 512_000
#: Bytes of an event that may take noticeable time to read: some 10 ms, where all of it is odd.
_LARGE = 32 * 1024

_received = cache(telemetry.ALERTS_RECEIVED.labels)
_answers = cache(telemetry.WEBHOOKS.labels)


class Enqueue:
    """The endpoints for alert events and for change events.

    accept, keep:    as for `Webhooks`.
    accept_change:   takes a change event in; False where there is no room. Raises StoreUnavailable.
    unproven:        the room for events whose keys are not known yet.
    integration_of:  the sender that a routing key stands for, such as "pagerduty/zabbix"; None for an unknown key.
    """

    def __init__(
        self,
        accept: Accept,
        keep: Keep,
        accept_change: Callable[[Change], Awaitable[bool]],
        integration_of: Callable[[str], str | None],
        *,
        unproven: Room,
        on_taken: Callable[[str], None],
        on_refused: OnRefused,
    ) -> None:
        self._unproven = unproven
        self._accept = accept
        self._keep = keep
        self._accept_change = accept_change
        self._integration_of = integration_of
        self._on_taken = on_taken
        self._on_refused = on_refused
        self._log = structlog.get_logger()

    @access(Access.SENDER)
    async def post(self, request: web.Request) -> web.Response:
        """Answer one event."""
        try:
            event = await self._read(request)
            source = self._admitted(event, request)
        except BadPayload as error:  # nobody knows whose it is, so it is not kept
            return self._refused(PAGERDUTY, error, known=False)
        try:
            try:
                alert = read_alert(event, source, lambda: uuid4().hex)
            except BadPayload as error:
                await self._keep(source, _without_key(event), "application/json", error.status, error.reason, {})
                return self._refused(source, error, known=True)
            return await self._accepted(alert)
        except StoreUnavailable as error:
            # the intake says once what is wrong; a line for each event of an outage would say nothing more
            self._log.debug("event not stored; the sender is asked to retry", source=source, reason=str(error))
            return _answered(503, {"status": "unavailable", "message": "Not stored, try again"})

    @access(Access.SENDER)
    async def post_change(self, request: web.Request) -> web.Response:
        """Answer one change event."""
        source = ""
        try:
            event = await self._read(request)
            source = self._admitted(event, request)
            change = read_change(event, source)
        except BadPayload as error:
            return self._refused(source or PAGERDUTY, error, known=bool(source))
        try:
            if not await self._accept_change(change):
                return _answered(429, {"status": "throttle exceeded", "message": "Too many change events wait"})
        except StoreUnavailable as error:
            self._log.debug("change event not stored; the sender is asked to retry", source=source, reason=str(error))
            return _answered(503, {"status": "unavailable", "message": "Not stored, try again"})
        self._on_taken(source)
        return _answered(202, {"status": "success", "message": "Change event processed"})

    async def _read(self, request: web.Request) -> Event:
        body = await read_body(request, EVENT_LIMIT, self._unproven)
        return await asyncio.to_thread(read_event, body) if len(body) > _LARGE else read_event(body)

    def _admitted(self, event: Event, request: web.Request) -> str:
        key = routing_key_of(event, request.headers)
        source = self._integration_of(key)
        if source is None:
            raise unknown_key(key)
        return source

    async def _accepted(self, alert: Alert) -> web.Response:
        [outcome] = await self._accept([alert])
        self._on_taken(alert.source)
        _received(PAGERDUTY, outcome.value).inc()
        return _answered(202, {"status": "success", "message": "Event processed", "dedup_key": alert.fingerprint})

    def _refused(self, source: str, error: BadPayload, *, known: bool) -> web.Response:
        if error.status == 503:
            return _answered(503, {"status": "unavailable", "message": error.reason})
        self._log.warning("event not understood", source=source, status=error.status, reason=error.reason)
        self._on_refused(source, f"{error.status}: {error.reason}", known=known)
        return refusal(error)


def refusal(error: BadPayload) -> web.Response:
    """What PagerDuty answers to an event that it will never take, so that the sender's log says what is wrong."""
    status, message, errors = "invalid event", "Event object is invalid", list(error.faults)
    if error.status == 413:
        message, errors = "Event object is too large", [f"Event size exceeds 512 KB ({EVENT_LIMIT} bytes)"]
    elif not errors:
        status, message, errors = "Unrecognized object", error.reason, [error.reason]
    return _answered(error.status, {"status": status, "message": message, "errors": errors})


def _without_key(event: Event) -> bytes:
    """The event as a dead letter keeps it."""
    return msgspec.json.encode({**event.members, "routing_key": "[redacted]"})


def _answered(status: int, members: dict[str, object]) -> web.Response:
    _answers(PAGERDUTY, str(status)).inc()
    return web.Response(status=status, body=msgspec.json.encode(members) + b"\n", content_type="application/json")
