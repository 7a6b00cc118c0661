"""Dead-man's switches: alerts that always fire. Who sends one and stops is paged for.

When each was last heard is kept in Redis, for all replicas and for whoever starts next. Each replica compares every two
seconds what is heard with the alarm that is open or not, and accepts what is missing: an alarm like every alert, so that
replicas page once and a crash in between loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import structlog
from msgspec.structs import replace

from alertrouter import telemetry
from alertrouter.alarms import HEARTBEAT, alarm
from alertrouter.alert import Alert, Severity
from alertrouter.delivery.judging import ActiveRules
from alertrouter.errors import StoreUnavailable
from alertrouter.rules.heartbeats import heard_in
from alertrouter.rules.model import Heartbeat
from alertrouter.store.store import AlertStore, Watched

_LOOK_EVERY_S = 2.0
#: As long as Redis may take for an alert.
_REDIS_MAY_TAKE_S = 2.0

Accept = Callable[[Sequence[Alert]], Awaitable[Sequence[StrEnum]]]

_log = structlog.get_logger()


class Heard(StrEnum):
    """What an alert was that is a heartbeat and no more."""

    HEARTBEAT = "heartbeat"


class Heartbeats:
    """Notes heartbeats as they come, and raises an alarm for those that do not.

    fail_open: False means that without Redis every sender is asked to try again.
    """

    def __init__(
        self,
        store: AlertStore,
        rules: Callable[[], ActiveRules],
        clock: Callable[[], int],
        wake: Callable[[], None],
        *,
        fail_open: bool = True,
        ahead: Callable[[], int] = lambda: 0,
    ) -> None:
        """`ahead` says how far `clock` is ahead of the time of day, which conditions ask for (ms)."""
        self._store = store
        self._rules = rules
        self._clock = clock
        self._wake = wake
        self._fail_open = fail_open
        self._ahead = ahead
        self._away = False
        self._noted: dict[str, int] = {}  # and not in Redis yet
        self._silent: tuple[str, ...] = ()

    async def take(self, alerts: Sequence[Alert], accept: Accept) -> Sequence[StrEnum]:
        """Note the heartbeats among `alerts`, have the others accepted meanwhile, and return what each was.

        Raises StoreUnavailable as `accept` does. While Redis is away heartbeats are kept in memory: the next one is
        as good, and after a pause nothing is silent that has not had all its time.
        """
        heartbeats = self._rules().ruleset.heartbeats
        if not heartbeats:
            return await accept(alerts)
        now = self._clock()
        time_of_day = now - self._ahead()
        others, pulses = [], {}
        is_heartbeat = []
        senders = set()
        for alert in alerts:
            heard = heard_in(alert, heartbeats, time_of_day)
            self._noted.update(dict.fromkeys((each.name for each in heard), now))
            pulses.update({each.name: now for each in heard if each.conditions})
            is_heartbeat.append(any(each.conditions for each in heard))
            if is_heartbeat[-1]:
                senders.add(alert.source)
            else:
                others.append(alert)
        if not pulses:
            return await accept(alerts)
        if not others:
            await self._put_down(pulses, senders)
            return [Heard.HEARTBEAT] * len(alerts)
        # together, so that it is one round trip; what became of the others decides about the answer
        _, accepted = await asyncio.gather(self._put_down(pulses, senders), accept(others))
        outcomes = iter(accepted)
        return [Heard.HEARTBEAT if each else next(outcomes) for each in is_heartbeat]

    async def _put_down(self, pulses: dict[str, int], senders: Iterable[str]) -> None:
        if self._away and self._fail_open:
            return
        try:
            async with asyncio.timeout(_REDIS_MAY_TAKE_S):
                await self._store.hear_heartbeats(pulses)
                await self._store.heard_from(senders, self._clock())
        except (StoreUnavailable, TimeoutError) as error:
            self._away = True
            if not self._fail_open:
                raise StoreUnavailable(f"a heartbeat could not be put down: {error}") from error
        else:
            for name, at in pulses.items():
                if self._noted.get(name) == at:
                    del self._noted[name]

    async def watch(self) -> None:
        """Look again and again which heartbeats are silent."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                if not self._away:
                    _log.warning("heartbeats cannot be watched while Redis is away", error=str(error))
                self._away = True
            else:
                self._away = False
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once, and raise or end the alarms that are due. Raises StoreUnavailable."""
        now = self._clock()
        heartbeats = {each.name: each for each in self._rules().ruleset.heartbeats}
        noted, self._noted = self._noted, {}
        try:
            expected = {each.name: each.silent_after_ms for each in heartbeats.values()}
            watched = await self._store.heartbeats(expected, noted, now)
        except StoreUnavailable:
            self._noted = {**noted, **self._noted}
            raise
        self._silent = tuple(each.name for each in watched if each.state == "silent")
        telemetry.HEARTBEATS_SILENT.set(len(self._silent))
        alarms = []
        for each in watched:
            if each.state == "silent" and not each.alarmed:
                _log.error("a heartbeat is silent", heartbeat=each.name, last_heard=_shown(each.at))
                alarms.append(_silence(heartbeats[each.name], each))
            elif each.state in ("heard", "gone") and each.alarmed:
                _log.info("a heartbeat is no longer missed", heartbeat=each.name, why=each.state)
                alarms.append(_over(each.name))
        if alarms:
            await self._store.accept(alarms, now)
            self._wake()

    def warnings(self) -> Sequence[str]:
        """The heartbeats that are silent."""
        return [f"the heartbeat {name} is silent: see whether its sender works and reaches us" for name in self._silent]


def _silence(heartbeat: Heartbeat, watched: Watched) -> Alert:
    """The alarm that a heartbeat is silent. Its episode is the silence: told twice, it is the same one."""
    seconds = heartbeat.silent_after_ms // 1000
    raised = alarm(
        HEARTBEAT + heartbeat.name,
        f"the heartbeat {heartbeat.name} has not been heard for more than {seconds} s",
        severity=heartbeat.severity,
        details={
            "heartbeat": heartbeat.name,
            "last heard": _shown(watched.at),
            "interval in seconds": heartbeat.interval_ms // 1000,
            "grace in seconds": heartbeat.grace_ms // 1000,
            "what it means": "Whoever sends it has stopped, or does not reach alertrouter: its other alerts do not "
            "come either.",
            "what to do": "See whether the sender runs, whether its own alert fires, and whether its webhooks are "
            "answered with 202. This ends by itself when the heartbeat is heard again.",
        },
    )
    return replace(raised, episode=str(watched.at), episode_at=watched.at)


def _over(name: str) -> Alert:
    return alarm(HEARTBEAT + name, f"the heartbeat {name} is heard", severity=Severity.CRITICAL, firing=False)


def _shown(at: int) -> str:
    """A time (ms) in UTC, or "never"."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds") if at else "never"
