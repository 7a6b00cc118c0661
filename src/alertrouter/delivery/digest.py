"""Digests: when more waits for a routing key than a minute of its call limit takes, one page per service says so first.

A digest is an alert like any other, of the sender `digest`: its record is `digest:<service>`. What it tells of, its
members, still go one by one, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import structlog

from alertrouter.alarms import DIGEST
from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.delivery.reconcile import RANK_OF_SEVERITY
from alertrouter.errors import StoreUnavailable
from alertrouter.store.store import DIGEST_SHOWS, AlertStore, Gathered, Storms, limited_as

#: One worker looks, for all; this often.
_LOOK_EVERY_MS = 5_000
#: A digest is told anew at most once in this time.
_TELL_EVERY_MS = 60_000
#: It is a storm when more waits than 60 s of the limit take, until less does than 20 s take.
_ENDS_BELOW = 20 / 60
#: Digests take no more of a key's calls than one in this many: the rest is their members'. A limit below has none.
_ONE_IN = 4
#: The service of alerts that reached only the catch-all; no other can be named so.
_UNROUTED = "unrouted"

_SEVERITY_OF_RANK = {int(rank): severity for severity, rank in RANK_OF_SEVERITY.items()}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """Calls per routing key in any 60 s, 0 for no limit: of every key, and of those that have one of their own."""

    calls_per_minute: int
    own: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return self.calls_per_minute > 0 or any(self.own.values())

    def by_queue(self) -> Mapping[str, int]:
        """Those of keys with one of their own, by the names of their queues."""
        return {limited_as(key): limit for key, limit in self.own.items()}


@dataclass(frozen=True, slots=True)
class Tally:
    """What waits for one service: how many of each severity, and the first of them, most urgent first."""

    service: str
    numbers: Mapping[Severity, int]
    first: tuple[Alert, ...]

    @property
    def number(self) -> int:
        """How many wait."""
        return sum(self.numbers.values())

    @property
    def worst(self) -> Severity:
        """The severity of the worst of them."""
        return next(severity for severity in Severity if self.numbers.get(severity))


def find_storms(seen: Storms, limits: Limits) -> Mapping[str, int]:
    """The queues in a storm, and the limit of each.

    They are longer than a minute of their limit takes, or were so and are not below 20 s of it yet.
    """
    own = limits.by_queue()
    found = {}
    for queue, size in seen.sizes.items():
        limit = own.get(queue, limits.calls_per_minute)
        if limit >= _ONE_IN and size > (limit * _ENDS_BELOW if queue in seen.storms else limit):
            found[queue] = limit
    return found


def choose(found: Iterable[Tally], seen: Storms, storms: Mapping[str, int], now: int) -> list[Tally]:
    """Whose digest is to be told now: those that have none yet first, then the worst, then the largest."""
    due = [each for each in found if now >= seen.digests.get(each.service, 0) + _TELL_EVERY_MS]
    order = list(Severity)
    due.sort(key=lambda each: (seen.digests.get(each.service, 0), order.index(each.worst), -each.number))
    return due[: sum(limit // _ONE_IN for limit in storms.values())]


def tally(gathered: Iterable[Gathered]) -> list[Tally]:
    """What waits, by service, from the stretches of one or several queues, each most urgent first."""
    numbers: dict[str, dict[Severity, int]] = {}
    first: dict[str, list[tuple[int, Alert]]] = {}
    for each in gathered:
        by_severity = numbers.setdefault(each.service, {})
        severity = _SEVERITY_OF_RANK[each.rank]
        by_severity[severity] = by_severity.get(severity, 0) + each.number
        first.setdefault(each.service, []).extend((each.rank, alert) for alert in each.first)
    return [
        Tally(
            service,
            by_severity,
            tuple(alert for _, alert in sorted(first[service], key=lambda pair: pair[0])[:DIGEST_SHOWS]),
        )
        for service, by_severity in numbers.items()
    ]


def digest_of(found: Tally, now: int) -> Alert:
    """The digest that tells of `found`. A later one is another episode of the same alert: it is news, and no new page."""
    name = found.service or _UNROUTED
    alerts = "1 alert waits" if found.number == 1 else f"{found.number:,} alerts wait"
    return Alert(
        source=DIGEST,
        fingerprint=name,
        status=Status.FIRING,
        episode=str(now),
        episode_at=now,
        event=CommonEvent(
            summary=f"{name}: {alerts} for PagerDuty's call limit, the worst {found.worst.value}",
            source="alertrouter",
            severity=found.worst,
            class_="digest",
            custom_details={
                "waiting": found.number,
                "waiting_by_severity": {
                    severity.value: found.numbers[severity] for severity in Severity if severity in found.numbers
                },
                "first": [_line(alert) for alert in found.first],
                "what it means": "More is firing than PagerDuty takes in a minute by this routing key. Each alert still "
                "comes by itself, the most urgent first. This is resolved when none of them waits or is open.",
            },
        ),
        client="alertrouter",
    )


def _line(alert: Alert) -> Mapping[str, Any]:
    return {"summary": alert.event.summary, "severity": alert.event.severity.value, "dedup_key": alert.dedup_key}


def over(service: str) -> Alert:
    """The end of the digest of `service`."""
    name = service or _UNROUTED
    return Alert(
        source=DIGEST,
        fingerprint=name,
        status=Status.RESOLVED,
        event=CommonEvent(f"{name}: nothing waits any more", "alertrouter", Severity.INFO, class_="digest"),
        client="alertrouter",
    )


class Digests:
    """Keeps the digests of one installation, together with the other workers: whoever comes first looks for all."""

    def __init__(self, store: AlertStore) -> None:
        self._store = store
        self._left_over = True  # by who was there before us, perhaps with another limit

    async def look(self, now: int, limits: Limits) -> bool:
        """Tell what is to be told at `now` (ms); True if something was. Redis being away is waited out."""
        if not (limits.any or self._left_over):
            return False
        try:
            seen = await self._store.storms(now, _LOOK_EVERY_MS)
            if seen is None:
                return False
            self._left_over = bool(seen.digests)
            storms = find_storms(seen, limits)
            told = await self._tell(seen, storms, now)
            ended = await self._end(seen, told, now)
        except StoreUnavailable as error:
            _log.warning("digests wait", error=str(error))
            return False
        return bool(told or ended)

    async def _tell(self, seen: Storms, storms: Mapping[str, int], now: int) -> Sequence[str]:
        """Tell of every service that something waits for. Returns them."""
        ended = seen.storms - storms.keys()
        if not (storms.keys() - seen.storms) and not (storms and now >= seen.gathered_at + _TELL_EVERY_MS):
            if ended:
                await self._store.note_storms((), ended, seen.gathered_at)
            return ()
        gathered = [each for queue in sorted(storms) for each in await self._store.gather(queue)]
        found = tally(gathered)
        told = choose(found, seen, storms, now)
        for each in told:
            _log.warning(
                "more waits than the call limit lets go in a minute", service=each.service, waiting=each.number
            )
            await self._store.digest_told(each.service, now)
            await self._store.accept([digest_of(each, now)], now)
        for each in found:
            if each not in told and each.service not in seen.digests:
                await self._store.forget_digest(each.service)  # who waits still is found again when it is its turn
        await self._store.note_storms(storms, ended, now)
        return [each.service for each in told]

    async def _end(self, seen: Storms, told: Sequence[str], now: int) -> Sequence[str]:
        """Resolve every digest of which no member waits or is open any more. Returns their services."""
        ended = [
            service for service in seen.digests if service not in told and await self._store.digest_is_over(service)
        ]
        for service in ended:
            await self._store.accept([over(service)], now)
            await self._store.forget_digest(service)
        return ended
