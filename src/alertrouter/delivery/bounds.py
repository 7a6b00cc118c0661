"""Bounds: what may pile up, how full that is, and which alerts are then no longer taken in.

At half of any bound an alarm says so. Beyond four fifths senders are asked to try again with infos, later with warnings
and errors, and with critical alerts only at the bound itself. What resolves or acknowledges is always taken in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from alertrouter import telemetry
from alertrouter.alarms import OUR_OWN, SELF, alarm
from alertrouter.alert import Alert, Severity, Status
from alertrouter.store.store import AlertStore

#: An alarm is raised above the first and over below the second, so that it does not come and go.
_ALARM_ABOVE, _OVER_BELOW = 0.5, 0.4
#: From which share of a bound alerts of a severity are refused.
REFUSED_FROM: Mapping[Severity, float] = {
    Severity.INFO: 0.8,
    Severity.WARNING: 0.9,
    Severity.ERROR: 0.95,
    Severity.CRITICAL: 1.0,
}
#: Of a full Redis errors and criticals go past it, straight to PagerDuty: they are always tried.
_REFUSED_FROM_OF_MEMORY: Mapping[Severity, float] = {
    severity: REFUSED_FROM[severity] for severity in (Severity.INFO, Severity.WARNING)
}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Filling:
    """How full one bound is. `refused_from`: from which share of it alerts of a severity are refused to keep it so."""

    name: str
    used: int
    most: int
    what: str
    to_do: str
    refused_from: Mapping[Severity, float]

    @property
    def share(self) -> float:
        """From 0 to 1, and beyond where it does not hold."""
        return self.used / self.most if self.most else 0.0

    def refuses(self, severity: Severity) -> bool:
        """Whether there is no room in it for a firing alert of `severity`."""
        return severity in self.refused_from and self.share >= self.refused_from[severity]


def fillings(
    backlog: Mapping[str, int], memory: tuple[int, int], most_pending: int, most_dead_letters: int
) -> list[Filling]:
    """How full everything is, from the sizes of the queues and the memory that Redis uses and may use (bytes)."""
    return [
        Filling(
            "pending",
            backlog["due"] + backlog["waiting"],
            most_pending,
            "alerts waiting to be judged or sent",
            "Find out what floods the router (alertrouter_alerts_received_total) and mute it at its sender. If PagerDuty's "
            "call limit holds it up, ask for a higher one; raise ALERTROUTER_MAX_PENDING if Redis has the memory.",
            REFUSED_FROM,
        ),
        Filling(
            "redis-memory",
            *memory,
            "bytes of Redis' memory",
            "Put a larger `maxmemory` in redis.conf.",
            _REFUSED_FROM_OF_MEMORY,
        ),
        Filling(
            "dead-letters",
            backlog["dead_letters"],
            most_dead_letters,
            "dead letters",
            "See why PagerDuty refused them, redrive what is still of use and drop the rest.",
            {},
        ),
    ]


class Bounds:
    """How full one installation is, as last looked at. `clock` gives ms since the epoch."""

    def __init__(self, store: AlertStore, clock: Callable[[], int], most_pending: int, most_dead_letters: int) -> None:
        self._store = store
        self._clock = clock
        self._most_pending = most_pending  # about 3 kB of Redis each
        self._most_dead_letters = most_dead_letters  # beyond that the oldest move to a file
        self._fillings: Sequence[Filling] = ()
        #: The severity of the alarm about each bound, None for none; an earlier process may have raised one not in here.
        self._alarmed: dict[str, Severity | None] = {}

    def refuses(self, alert: Alert) -> bool:
        """Whether there is no room for `alert`, going by its sender's severity. A resolve makes room; ours are few."""
        if alert.source in OUR_OWN:
            return False
        return alert.status is Status.FIRING and any(each.refuses(alert.event.severity) for each in self._fillings)

    def warnings(self) -> list[str]:
        """What is more than half full, in words, and who is asked to try again."""
        return [
            f"{each.used:,} of at most {each.most:,} {each.what}{_asked(each)}: {each.to_do}"
            for each in self._fillings
            if each.share > _ALARM_ABOVE
        ]

    async def look(self) -> None:
        """See how full it is, and raise or end alarms. Raises StoreUnavailable; then the last look stands."""
        now = self._clock()
        self._fillings = fillings(
            await self._store.backlog(now), await self._store.memory(), self._most_pending, self._most_dead_letters
        )
        for each in self._fillings:
            telemetry.BOUND_SHARE.labels(each.name).set(each.share)
            await self._tell(each, now)

    async def _tell(self, filling: Filling, now: int) -> None:
        name = f"bound:{filling.name}"
        if filling.name not in self._alarmed:
            record = await self._store.record(f"{SELF}:{name}")
            is_raised = record is not None and record.status is Status.FIRING
            self._alarmed[filling.name] = record.severity if record is not None and is_raised else None
        before = self._alarmed[filling.name]
        level = _level(filling.share, before)
        if level is before:
            return
        alert = alarm(
            name,
            f"{filling.used:,} of at most {filling.most:,} {filling.what}",
            severity=level or Severity.ERROR,
            firing=level is not None,
            details={"share": round(filling.share, 2), "what to do": filling.to_do},
        )
        await self._store.accept([alert], now)
        self._alarmed[filling.name] = level
        _log.warning("more than half full" if level else "less than half full again", what=filling.what)


def _asked(filling: Filling) -> str:
    refused = [severity.value for severity in REFUSED_FROM if filling.refuses(severity)]
    return f"; {', '.join(refused)} alerts are answered with 503" if refused else ""


def _level(share: float, before: Severity | None) -> Severity | None:
    """How severe the alarm is: it gets worse at once, and ends late."""
    if share >= REFUSED_FROM[Severity.INFO]:
        return Severity.CRITICAL
    if share > _ALARM_ABOVE:
        return before or Severity.ERROR
    return before if share > _OVER_BELOW else None
