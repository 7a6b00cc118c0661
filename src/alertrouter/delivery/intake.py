"""Where alerts are taken in: by Redis, and by the direct path while Redis is away; and the way back to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum

import structlog

from alertrouter import telemetry
from alertrouter.alert import Alert
from alertrouter.delivery.fallback import Breaker, DirectPath
from alertrouter.errors import ForeignData, StoreUnavailable
from alertrouter.store.store import AlertStore

#: Slower than this, Redis is as good as away: the sender waits for an answer, and the direct path needs five seconds.
_REDIS_MAY_TAKE_S = 2.0
_TRY_AGAIN_S = 0.1
_PROBE_EVERY_S = 1.0
_PROBE_MAY_TAKE_S = 1.0
#: Before the first answer of Redis readiness waits that long for it, and no longer: pages get through without.
_FIRST_CONTACT_MS = 5_000
#: Old sends wait for the journal to be taken in, but not for one that cannot be.
_HOLD_AT_MOST_MS = 30_000
#: And for the journals of other replicas, who find back to Redis within a second of us.
_OTHERS_MS = 2_000

_log = structlog.get_logger()


class Intake:
    """Takes alerts in.

    fail_open:   False means that without Redis every sender is asked to try again.
    replicated:  whether others may use the same Redis.
    refuses:     whether there is no room for an alert of its kind.
    """

    def __init__(
        self,
        store: AlertStore,
        direct: DirectPath,
        clock: Callable[[], int],
        *,
        fail_open: bool = True,
        replicated: bool = False,
        refuses: Callable[[Alert], bool] = lambda _: False,
    ) -> None:
        self._store = store
        self._direct = direct
        self._clock = clock
        self._fail_open = fail_open
        self._refuses = refuses
        self._others_ms = _OTHERS_MS if fail_open and replicated else 0
        self._last_failure = -_OTHERS_MS
        self._breaker = Breaker()
        self._began = clock()
        self._met = False
        self._away = False
        self._hold_until = self._began + _HOLD_AT_MOST_MS
        self._left_over = True  # by processes before us: to be looked for once

    async def accept(self, alerts: Sequence[Alert]) -> Sequence[StrEnum]:
        """Take `alerts` in; returns what each was. Raises StoreUnavailable where the sender has to try again.

        Of a body that there is not room for as a whole, what there is room for is taken in all the same: heard again,
        it is a duplicate.
        """
        refused = [alert for alert in alerts if self._refuses(alert)]
        if refused and not self._breaker.is_open:
            for alert in refused:
                telemetry.ALERTS_REFUSED.labels(alert.event.severity.value).inc()
            if taken := [alert for alert in alerts if not self._refuses(alert)]:
                await self._take(taken)
            raise StoreUnavailable(f"no room for {len(refused)} of {len(alerts)} alerts")
        return await self._take(alerts)

    async def _take(self, alerts: Sequence[Alert]) -> Sequence[StrEnum]:
        if not self._breaker.is_open:
            try:
                return await self._store_alerts(alerts)
            except StoreUnavailable as error:
                if not isinstance(error, ForeignData):
                    self._went_away(str(error))
                if not self._fail_open:
                    raise
        if not self._fail_open:
            raise StoreUnavailable("Redis is away")
        return await self._direct.accept(alerts)

    async def _store_alerts(self, alerts: Sequence[Alert]) -> Sequence[StrEnum]:
        """What each was. One lost connection is no reason to go past Redis: that is tried again until it is away."""
        try:
            async with asyncio.timeout(_REDIS_MAY_TAKE_S):
                while True:
                    try:
                        outcomes = await self._store.accept(alerts, self._clock())
                    except ForeignData as error:
                        _log.error("an alert cannot be stored", error=str(error))
                        raise
                    except StoreUnavailable:
                        self._breaker.failed(self._clock())
                        if self._breaker.is_open:
                            raise
                        await asyncio.sleep(_TRY_AGAIN_S)
                    else:
                        self._breaker.succeeded()
                        self._met = True
                        with suppress(StoreUnavailable):  # the alerts are stored; the next ones say it as well
                            await self._store.heard_from((alert.source for alert in alerts), self._clock())
                        return outcomes
        except TimeoutError as error:
            self._breaker.failed(self._clock())
            raise StoreUnavailable(f"Redis: no answer within {_REDIS_MAY_TAKE_S:.0f} s") from error

    def _went_away(self, reason: str) -> None:
        now = self._clock()
        self._last_failure = now
        self._hold_until = now + _HOLD_AT_MOST_MS
        if not self._away:
            self._away = True
            telemetry.DIRECT_PATH.set(self._fail_open)
            instead = (
                "what cannot wait goes straight to PagerDuty" if self._fail_open else "senders are asked to try again"
            )
            _log.error(f"Redis is away; {instead}", reason=reason)

    def holds_sends(self) -> bool:
        """Whether what waits in Redis may be out of date: something was sent past it that it has not been told of."""
        now = self._clock()
        if self._breaker.is_open or now < self._last_failure + self._others_ms:
            return True
        untold = self._left_over or self._direct.untold_bytes > 0
        return untold and now < self._hold_until

    def redis_failed(self) -> None:
        """The worker could not reach Redis either."""
        self._last_failure = self._clock()

    async def watch(self) -> None:
        """Come back to Redis when it answers again, and tell it of everything that was sent past it."""
        while True:
            await self._look()
            telemetry.JOURNAL_BYTES.set(self._direct.untold_bytes)
            await asyncio.sleep(_PROBE_EVERY_S)

    async def _look(self) -> None:
        if self._met and not (self._away or self._left_over or self._direct.untold_bytes):
            return
        if not await self._answers():
            return
        self._met = True
        if self._breaker.is_open:
            self._hold_until = self._clock() + _HOLD_AT_MOST_MS
            self._breaker.close()
        try:
            await self._direct.replay(self._store)
        except StoreUnavailable as error:
            _log.error("Redis cannot be told yet what was sent past it", error=str(error))
            return
        self._left_over = False
        if self._away and not self._breaker.is_open:
            self._away = False
            telemetry.DIRECT_PATH.set(0)
            _log.info("Redis is back, and knows what was sent past it")

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_MAY_TAKE_S):
                await self._store.time()
        except (StoreUnavailable, TimeoutError):
            return False
        return True

    async def missing(self) -> str:
        """What keeps alerts from being taken in, if anything; "" while the direct path stands in for Redis."""
        if await self._answers():
            self._met = True
            return ""
        if not self._fail_open:
            return "Redis does not answer"
        if not self._met and self._clock() < self._began + _FIRST_CONTACT_MS:
            return "Redis has not answered yet"
        return ""

    def warnings(self) -> Sequence[str]:
        """What is wrong though alerts are taken in."""
        found = []
        if self._fail_open and (self._away or not self._met):
            found.append(
                "Redis does not answer: resolves, critical and error alerts go straight to PagerDuty, the others are "
                "answered with 503; bring Redis back"
            )
        if self._direct.journal_problem:
            found.append(
                f"the journal cannot be written ({self._direct.journal_problem}): without Redis resolves are answered "
                "with 503; make ALERTROUTER_DATA_DIR writable"
            )
        return found
