"""Change events: forwarded to PagerDuty whenever pages leave room for them, and told to who is paged for their service.

They wake nobody, so they wait in a queue of their own, one is sent at a time, and none while a page waits for the same
routing key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from uuid import uuid4

import msgspec
import structlog

from alertrouter import telemetry
from alertrouter.alert import Alert, CommonEvent, Link, Severity, Status
from alertrouter.delivery.fallback import decide_without_counts
from alertrouter.delivery.judging import ActiveRules
from alertrouter.destinations.pagerduty import Delivered, Outcome, Refused, TryAgain, encode_change
from alertrouter.errors import StoreUnavailable
from alertrouter.letter import of_body
from alertrouter.rules.evaluate import destination_of
from alertrouter.sources.pagerduty import Change
from alertrouter.store.changes import REMEMBERED_MS, Remembered, Waiting
from alertrouter.store.store import AlertStore, limited_as

_LOOK_EVERY_S = 5.0
_AT_ONCE = 20
_MINUTE_MS = 60_000
_WORDS = {Delivered: "delivered", TryAgain: "again", Refused: "refused"}

_log = structlog.get_logger()


class ChangeClient(Protocol):
    """Whoever takes change events."""

    async def send_change(self, body: bytes) -> Outcome:
        """Post one encoded change event. Nothing is raised for what becomes of it."""


class Changes:
    """Takes change events in, forwards them, and knows the latest of each service."""

    def __init__(
        self,
        store: AlertStore,
        pagerduty: ChangeClient,
        rules: Callable[[], ActiveRules],
        clock: Callable[[], int],
        *,
        calls_per_minute: int,
        ahead: Callable[[], int] = lambda: 0,
    ) -> None:
        """`ahead` says how far `clock` is ahead of the time of day, in ms."""
        self._store = store
        self._pagerduty = pagerduty
        self._rules = rules
        self._clock = clock
        self._calls_per_minute = calls_per_minute
        self._ahead = ahead
        self._remembered: Mapping[str, Sequence[Remembered]] = {}
        self._news = asyncio.Event()

    async def accept(self, change: Change) -> bool:
        """Take one in; False where too many wait for PagerDuty. Raises StoreUnavailable."""
        taken = await self._store.changes.put(Waiting(uuid4().hex, self._clock(), change.source, change.event))
        telemetry.CHANGES.labels("accepted" if taken else "no_room").inc()
        self._news.set()
        return taken

    def of(self, service: str) -> Sequence[Link]:
        """The service's latest changes in words, the latest first. What belongs to no service is told to none."""
        now = self._clock() - self._ahead()
        recent = (
            [each for each in self._remembered.get(service, ()) if now - each.at < REMEMBERED_MS] if service else []
        )
        return [Link(each.href, f"deployed {_ago(now - each.at)}: {each.summary}") for each in recent]

    async def watch(self) -> None:
        """Forward and remember until it is cancelled."""
        while True:
            self._news.clear()
            try:
                await self.look()
            except StoreUnavailable as error:
                _log.debug("change events wait while Redis is away", error=str(error))
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def look(self) -> None:
        """Forward what is due, and see what others remember. Raises StoreUnavailable."""
        for change in await self._store.changes.claim(self._clock(), _AT_ONCE):
            await self._forward(change)
        self._remembered = await self._store.changes.remembered()

    async def _forward(self, change: Waiting) -> None:
        active, now = self._rules(), self._clock()
        alert = _as_alert(change)
        # rules say whose it is; whether an alert is suppressed is nothing to a change
        service = decide_without_counts(alert, active, now, self._ahead()).service
        key = active.key_of(destination_of(service, active.ruleset))
        if service:
            await self._remember(service, alert, change.at - self._ahead())
        limit = active.own_limits.get(key, self._calls_per_minute)
        if not await self._store.changes.may_call(limited_as(key), limit, now, f"{change.id} {now}"):
            return
        body = encode_change(change.event, key)
        answer = await self._pagerduty.send_change(body)
        telemetry.CHANGES.labels(_WORDS[type(answer)]).inc()
        log = _log.bind(source=change.source, service=service)
        if isinstance(answer, TryAgain):
            log.warning("change event not delivered yet", reason=answer.reason)
            return
        if isinstance(answer, Refused):
            log.error("change event refused; kept as a dead letter", status=answer.status, reason=answer.reason)
            await self._bury(change, answer)
        await self._store.changes.settle(change)

    async def _remember(self, service: str, change: Alert, posted_at: int) -> None:
        """`posted_at` is a time of day, as its sender's own is; one that lies ahead is none."""
        href = next((link.href for link in change.links), "")
        made_at = min(change.episode_at or posted_at, posted_at)
        await self._store.changes.remember(service, Remembered(made_at, change.event.summary, href), posted_at)

    async def _bury(self, change: Waiting, refused: Refused) -> None:
        body, now = msgspec.json.encode(change.event), self._clock()
        why = f"PagerDuty refuses this change event: {refused.reason}"
        await self._store.letters.keep_body(
            of_body(change.source, body, "application/json", refused.status, why, now), body, now
        )


def _as_alert(change: Waiting) -> Alert:
    """The change as rules look at it."""
    read = Change(change.source, change.event)
    return Alert(
        source=change.source,
        fingerprint=change.id,
        status=Status.FIRING,
        event=CommonEvent(
            summary=read.summary,
            source=read.origin,
            severity=Severity.INFO,
            timestamp=read.made.text,
            custom_details=read.details,
        ),
        episode_at=read.made.ms,
        links=read.links,
        raw=change.event,
    )


def _ago(ms: int) -> str:
    minutes = max(ms, 0) // _MINUTE_MS
    return "just now" if not minutes else "1 minute ago" if minutes == 1 else f"{minutes} minutes ago"
