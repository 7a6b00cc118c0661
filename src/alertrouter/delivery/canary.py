"""An alert to ourselves, every half minute: is what is accepted also judged? It pages nobody.

When it is not, the alarm cannot go the way that is stuck: it is sent past the queues, as while Redis is away.
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

_EVERY_S = 30.0
_LOOK_EVERY_S = 1.0
#: What is not judged within this time, and nothing else either, is stuck.
_STUCK_MS = 20_000
#: In a storm the canary waits its turn. This is too long all the same.
_SLOW_MS = 5 * 60_000

_log = structlog.get_logger()


class Canary:
    """Sends itself through the queues, and raises an alarm when it is lost there."""

    def __init__(
        self, store: AlertStore, direct: DirectPath, clock: Callable[[], int], wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._direct = direct
        self._clock = clock
        self._wake = wake
        self._sent_at = 0
        self._judged_at = 0
        self._lost: bool | None = None  # None: an earlier process may have said so

    def judged(self) -> None:
        """Something was judged: the queue moves."""
        self._judged_at = self._clock()

    async def watch(self) -> None:
        """Send one again and again, and wait until it is judged. Redis being away is said elsewhere."""
        while True:
            try:
                await self.send()
                while not await self.is_through():
                    await asyncio.sleep(_LOOK_EVERY_S)
            except StoreUnavailable as error:
                _log.debug("no canary while Redis is away", error=str(error))
            await asyncio.sleep(_EVERY_S)

    async def send(self) -> None:
        """Send one. Raises StoreUnavailable."""
        self._sent_at = self._clock()
        await self._store.accept([_CANARY_ALERT], self._sent_at)
        self._wake()

    async def is_through(self) -> bool:
        """Whether it was judged; raises or ends the alarm, as it is. Raises StoreUnavailable."""
        if await self._is_judged():
            await self._end()
            return True
        now = self._clock()
        if now - max(self._sent_at, self._judged_at) >= _STUCK_MS or now - self._sent_at >= _SLOW_MS:
            await self._raise(now - self._sent_at)
        return False

    async def _is_judged(self) -> bool:
        record = await self._store.record(CANARY)
        return record is None or record.outcome is not Outcome.PENDING

    async def _raise(self, waited_ms: int) -> None:
        telemetry.CANARY_LOST.set(1)
        if self._lost:
            return
        _log.error("what is accepted is not judged", waited_ms=waited_ms)
        try:
            await self._direct.accept([_stuck(firing=True)])
        except StoreUnavailable as error:
            _log.error("the alarm that alerts are not judged could not be sent", error=str(error))
        else:
            self._lost = True

    async def _end(self) -> None:
        telemetry.CANARY_LOST.set(0)
        if self._lost is None:
            record = await self._store.record(_stuck(firing=False).id)
            self._lost = record is not None and record.status is Status.FIRING
        if self._lost:
            _log.info("what is accepted is judged again")
            await self._store.accept([_stuck(firing=False)], self._clock())
            self._wake()
        self._lost = False


#: The same each time: judged before, it is news again; not judged yet, it is a duplicate.
_CANARY_ALERT = Alert(
    source=SELF,
    fingerprint=CANARY.partition(":")[2],
    status=Status.FIRING,
    event=CommonEvent(summary="alertrouter: canary", source="alertrouter", severity=Severity.INFO, class_="canary"),
)


def _stuck(*, firing: bool) -> Alert:
    return alarm(
        "canary-lost",
        "what is accepted is not judged: no alert goes out" if firing else "what is accepted is judged",
        firing=firing,
        details={
            "what it means": "Alerts are accepted and kept in Redis, and no replica takes them up. They are not lost.",
            "what to do": "Look at /-/healthy and the log of every replica, and restart those that are stuck. This ends "
            "by itself.",
        },
    )
