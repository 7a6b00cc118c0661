"""An alert to ourselves, three times a minute: is what comes accepted, and what is accepted judged? It pages nobody.

When it is not, the alarm cannot go the way that is stuck: it is sent past Redis and its queues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from alertrouter import telemetry
from alertrouter.alarms import CANARY, SELF, alarm
from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.delivery.fallback import DirectPath
from alertrouter.errors import StoreUnavailable
from alertrouter.record import Outcome
from alertrouter.store.store import AlertStore

_EVERY_S = 20.0
_LOOK_EVERY_S = 1.0
_AWAY_LOOK_EVERY_S = 5.0
#: What is not judged within this time, and nothing else either, is stuck.
_STUCK_MS = 20_000
#: In a storm the canary waits its turn. This is too long all the same.
_SLOW_MS = 5 * 60_000
#: A failover takes ten seconds. Redis that is away for longer does not come back by itself.
_AWAY_MS = 20_000

_log = structlog.get_logger()


class _PastRedis:
    """An alarm that is raised past Redis, and ended through it."""

    def __init__(self, name: str, wrong: str, right: str, what_to_do: str) -> None:
        details = {"what to do": f"{what_to_do} This ends by itself."}
        self._firing = alarm(name, wrong, details=details)
        self._over = alarm(name, right, firing=False)
        self._is_raised: bool | None = None  # None: an earlier process may have raised it

    async def begin(self, direct: DirectPath) -> None:
        """Send it, once. What cannot be sent now is sent the next time."""
        if self._is_raised:
            return
        _log.error(self._firing.event.summary)
        try:
            await direct.accept([self._firing])
        except StoreUnavailable as error:
            _log.error("an alarm could not be sent", alarm=self._firing.fingerprint, error=str(error))
        else:
            self._is_raised = True

    async def end(self, store: AlertStore, now: int) -> bool:
        """End it where it was raised. Raises StoreUnavailable."""
        if self._is_raised is None:
            record = await store.record(self._firing.id)
            self._is_raised = record is not None and record.status is Status.FIRING
        if not self._is_raised:
            return False
        _log.info(self._over.event.summary)
        await store.accept([self._over], now)
        self._is_raised = False
        return True


class Canary:
    """Sends itself through the queues, and raises an alarm when it is lost there or cannot even get in."""

    def __init__(
        self, store: AlertStore, direct: DirectPath, clock: Callable[[], int], wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._direct = direct
        self._clock = clock
        self._wake = wake
        self._sent_at = 0
        self._judged_at = 0
        self._away_since = 0
        self._lost = _PastRedis(
            "canary-lost",
            "what is accepted is not judged: no alert goes out",
            "what is accepted is judged",
            "Alerts are kept in Redis, and no replica takes them up. Look at /-/healthy and the log of every replica, and "
            "restart those that are stuck.",
        )
        self._away = _PastRedis(
            "redis-away",
            "Redis does not answer",
            "Redis answers",
            "Resolves, critical and error alerts go straight to PagerDuty, the others are answered with 503 and may be "
            "lost. Bring Redis back; the log says how it fails.",
        )

    def judged(self) -> None:
        """Something was judged: the queue moves."""
        self._judged_at = self._clock()

    async def watch(self) -> None:
        """Send one again and again, and wait until it is judged."""
        await asyncio.sleep(_EVERY_S)  # one that begins has other things to do
        while True:
            try:
                await self.send()
                while not await self.is_through():  # noqa: ASYNC110 - another replica may be who judges it
                    await asyncio.sleep(_LOOK_EVERY_S)
            except StoreUnavailable as error:
                await self.cannot_get_in(str(error))
                await asyncio.sleep(_AWAY_LOOK_EVERY_S)
            else:
                await asyncio.sleep(_EVERY_S)

    async def send(self) -> None:
        """Send one. Raises StoreUnavailable."""
        self._sent_at = self._clock()
        await self._store.accept([_CANARY_ALERT], self._sent_at)
        self._away_since = 0
        self._wake()
        if await self._away.end(self._store, self._sent_at):
            self._wake()

    async def is_through(self) -> bool:
        """Whether it was judged; raises or ends the alarm, as it is. Raises StoreUnavailable."""
        now = self._clock()
        record = await self._store.record(CANARY)
        if record is None or record.outcome is not Outcome.PENDING:
            telemetry.CANARY_LOST.set(0)
            if await self._lost.end(self._store, now):
                self._wake()
            return True
        if now - max(self._sent_at, self._judged_at) >= _STUCK_MS or now - self._sent_at >= _SLOW_MS:
            telemetry.CANARY_LOST.set(1)
            await self._lost.begin(self._direct)
        return False

    async def cannot_get_in(self, why: str) -> None:
        """Redis did not take it, or did not answer."""
        now = self._clock()
        self._away_since = self._away_since or now
        _log.debug("no canary while Redis is away", error=why)
        if now - self._away_since >= _AWAY_MS:
            await self._away.begin(self._direct)


#: The same each time: judged before, it is news again; not judged yet, it is a duplicate.
_CANARY_ALERT = Alert(
    source=SELF,
    fingerprint=CANARY.partition(":")[2],
    status=Status.FIRING,
    event=CommonEvent(summary="alertrouter: canary", source="alertrouter", severity=Severity.INFO, class_="canary"),
)
