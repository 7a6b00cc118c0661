"""All of Redis: one atomic script per step, one round trip per step. Time is an argument, in ms since the epoch."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from hashlib import sha256
from importlib import resources
from itertools import chain
from typing import Any, cast

import msgspec
import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.errors import SettingsInvalid, StoreUnavailable
from alertrouter.record import REPAIR_AFTER_MS, News, Outcome, Record, State, Told
from alertrouter.store.keys import Keys, keys_of
from alertrouter.store.merge import Merge

#: More alerts in one script would block Redis for milliseconds (256 take about 2.5 ms).
MOST_PER_CALL = 256
#: Longer than a send may take (10 s) and short enough that a dead worker's alerts flow again within seconds.
LEASE_MS = 15_000
#: A worker whose heartbeat is older has lost its leases.
OWNER_DEAD_AFTER_MS = 10_000
#: A record whose workers ended that often without a report is why they ended. A restart under load costs one.
MOST_TAKEOVERS = 5
#: Alertmanager repeats a changed group at exactly its group_interval, 5 minutes by default: without slack an
#: unchanged member of it would fall in and out of the window by turns.
WINDOW_SLACK_MS = 15_000
#: A late copy of an episode already resolved waits this long for its own resolve.
LATE_COPY_HOLD_MS = 30_000
CLOSED_LIFETIME_MS = 24 * 3600 * 1000
HISTORY_LENGTH = 100_000

_RANK_STEP = 10**13  # larger than any time in ms, so that rank orders before age; their sum is exact in a double
_log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
_decode_alert = msgspec.json.Decoder(Alert).decode

#: Scripts that must run though Redis is full: they drain it. accept is not among them.
_SCRIPTS = {
    "accept": False,
    "claim_due": True,
    "count": True,
    "judged": True,
    "claim_sends": True,
    "settle": True,
    "recall": True,
    "backlog": True,
    "bury": True,
    "leave_incident": True,
    "repair_members": True,
}


@dataclass(frozen=True, slots=True)
class Dedup:
    """The dedup window. mode: "rolling" re-arms it at each sighting, "fixed" forwards once per window."""

    window_ms: int = 5 * 60_000
    resend_after_ms: int = 4 * 3600_000
    mode: str = "rolling"


class Accepted(StrEnum):
    """What accept made of one alert, beyond the kinds of News."""

    DUPLICATE = "duplicate"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Judged:
    """What was decided about a claimed record.

    parked:  rules keep it from being sent; other rules may not.
    sends:   (destination, rank, routing key, or "" if pinned, key of a shared incident, or "").
    """

    record: Record
    outcome: Outcome
    rule: str
    reason: str
    service: str
    wake_at: int
    closed: bool
    sends: tuple[tuple[str, int, str, str], ...] = field(repr=False)  # holds routing keys
    parked: bool = False
    suspended_until: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A leased send: nobody else sends to `destination` for this record until `lease_until`."""

    destination: str
    fence: str
    lease_until: int
    record: Record


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a rule counts, over `window_ms`; `only_look` does not count anything in."""

    key: str
    window_ms: int
    only_look: bool = False


class Result(StrEnum):
    """How a leased send ended."""

    DELIVERED = "delivered"
    AGAIN = "again"
    REFUSED = "refused"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a leased send ended and what it makes of the record; `detail` is the destination's own words."""

    claim: Claim
    result: Result
    outcome: Outcome
    state: State = State.NOTHING
    version: int = 0
    closed: bool = False
    wake_at: int = 0
    not_before: int = 0
    ambiguous: bool = False
    detail: str = ""


def connect(url: str) -> Redis:
    """A client for the accept path and the worker: short time-outs, no hidden retries, waits for a free connection.

    redis-py would by default retry for up to a minute and raise at the 101st concurrent command. Raises
    SettingsInvalid for what is no address of a Redis.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=32,
            timeout=2,
            socket_timeout=2,
            socket_connect_timeout=1,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise SettingsInvalid(
            f"ALERTROUTER_REDIS_URL: {error}; write redis://host:6379/0, rediss:// for TLS, or unix:///path"
        ) from error
    return Redis.from_pool(pool)


class AlertStore:
    """The alert records of one installation in one Redis. Every method is one script, one round trip.

    Raises StoreUnavailable when Redis did not confirm; what was asked for may have happened all the same.
    """

    def __init__(
        self,
        client: Redis,
        *,
        instance: str = "main",
        owner: str = "",
        dedup: Dedup | None = None,
        script_flags: bool = True,
    ) -> None:
        """`script_flags` is off only for fakeredis, which does not know the `#!lua` line."""
        # redis-py types every answer as bytes or text, decoded or not; ours are never decoded
        self._client = cast(Any, client)
        self.keys: Keys = keys_of(instance)
        self.owner = owner or f"{os.getpid()}-{os.urandom(4).hex()}"
        self._dedup = dedup or Dedup()
        self._turn = 0
        folder = resources.files("alertrouter.store") / "scripts"
        self._scripts = {
            name: client.register_script(
                (f"#!lua flags={'allow-oom' if when_full else ''}\n" if script_flags else "")
                + (folder / f"{name}.lua").read_text()
            )
            for name, when_full in _SCRIPTS.items()
        }
        self._accepting = Merge(self._accept, most=MOST_PER_CALL)
        self._settling = Merge(self._settle, most=MOST_PER_CALL)
        self._leases = self.keys.leases + self.owner

    async def accept(self, alerts: Sequence[Alert], now: int) -> list[News | Accepted]:
        """Take `alerts` in; returns what each was. Once this returns, Redis has all of them."""
        results = await self._accepting.put([(alert, now) for alert in alerts])
        if "error" in results:
            raise StoreUnavailable("a key of ours holds foreign data; look for `WRONGTYPE` keys under our prefix")
        return [Accepted(word) if word in _ACCEPTED else News(word) for word in results]

    async def _accept(self, batch: Sequence[tuple[Alert, int]]) -> list[str]:
        keys = self.keys
        dedup = self._dedup
        answer = await self._run(
            "accept",
            [keys.due, keys.history, keys.parked, *(keys.alert + alert.id for alert, _ in batch)],
            [
                # merged webhooks arrived within one round trip of each other
                max(now for _, now in batch),
                dedup.window_ms + (WINDOW_SLACK_MS if dedup.mode == "rolling" else 0),
                dedup.resend_after_ms,
                LATE_COPY_HOLD_MS,
                dedup.mode,
                HISTORY_LENGTH,
                keys.wait,
                *chain.from_iterable(
                    (
                        alert.id,
                        alert.status.value,
                        alert.event.severity.value,
                        alert.episode,
                        alert.episode_at,
                        alert.ended_at,
                        _encode(alert),
                    )
                    for alert, _ in batch
                ),
            ],
        )
        return [word.decode() for word in answer]

    async def claim_due(self, now: int, most: int) -> tuple[list[Record], int]:
        """Lease up to `most` records to judge, taking back what dead workers held.

        Returns them and when the next one is due (0 for none).
        """
        keys = self.keys
        answer = await self._run(
            "claim_due",
            [keys.due, keys.owners, self._leases, keys.dead],
            [now, self.owner, LEASE_MS, OWNER_DEAD_AFTER_MS, most, keys.alert, keys.leases, MOST_TAKEOVERS],
        )
        readable = [(id_, await self._read(id_, "\n\n" + id_.decode(), flat)) for id_, flat in answer[1:]]
        return [record for _, record in readable if record is not None], int(float(answer[0] or 0))

    async def count(self, record: Record, thresholds: Sequence[Threshold], now: int) -> Sequence[int]:
        """What each threshold has counted, this version of this record included once unless it only looks."""
        return cast(
            Sequence[int],
            await self._run(
                "count",
                [
                    self.keys.count + threshold.key + part
                    for threshold in thresholds
                    for part in ("", ":answers", ":given")
                ],
                [
                    now,
                    f"{record.version} {record.id}",
                    *chain.from_iterable((threshold.window_ms, int(threshold.only_look)) for threshold in thresholds),
                ],
            ),
        )

    async def remembered(self, names: Sequence[str]) -> list[str | None]:
        """What rules remembered under each name; None for nothing."""
        async with _as_unavailable():
            values = await self._client.mget([self.keys.cache + name for name in names])
        return [None if value is None else value.decode() for value in values]

    async def remember(self, values: Mapping[str, str]) -> None:
        """Remember values for rules."""
        async with _as_unavailable():
            await self._client.mset({self.keys.cache + name: value for name, value in values.items()})

    async def reset_counts(self, keys: Iterable[str]) -> None:
        """Let thresholds start again from nothing."""
        async with _as_unavailable():
            await self._client.delete(*(self.keys.count + key for key in keys))

    async def recall(self, now: int) -> None:
        """Make everything due that was kept from being sent: the rules are others now."""
        keys = self.keys
        while await self._run("recall", [keys.due, keys.parked], [now, keys.alert, MOST_PER_CALL]) == MOST_PER_CALL:
            pass

    async def judged(self, batch: Sequence[Judged], now: int) -> None:
        """Put down what was decided. A record with newer news is left due instead."""
        keys = self.keys
        arguments: list[str | int] = [now, keys.alert, keys.wait, CLOSED_LIFETIME_MS, HISTORY_LENGTH]
        for item in batch:
            arguments += [
                item.record.id,
                item.record.version,
                item.outcome.value,
                item.rule,
                item.reason,
                item.service,
                item.wake_at,
                int(item.closed),
                int(item.parked),
                item.suspended_until,
                len(item.sends),
            ]
            for destination, rank, routing_key, dedup_key in item.sends:
                score = rank * _RANK_STEP + item.record.last_heard
                arguments += [destination, score, routing_key, _limited_as(routing_key), dedup_key]
        await self._run("judged", [keys.due, self._leases, keys.waiting, keys.history, keys.parked], arguments)

    async def claim_sends(self, now: int, most: int, calls_per_minute: int) -> tuple[list[Claim], int]:
        """Lease up to `most` waiting sends within each destination's call limit.

        Returns them and when the limit allows the next call (0 if nothing waits for it).
        """
        keys = self.keys
        self._turn += 1
        answer = await self._run(
            "claim_sends",
            [keys.waiting, self._leases, keys.fence, keys.owners, keys.due],
            [now, LEASE_MS, most, calls_per_minute, self._turn, keys.alert, keys.wait, keys.calls, self.owner],
        )
        claims = []
        for destination, fence, lease_until, id_, flat in answer[1:]:
            record = await self._read(id_, f"{fence.decode()}\n{destination.decode()}\n{id_.decode()}", flat)
            if record is not None:
                claims.append(Claim(destination.decode(), fence.decode(), int(lease_until), record))
        return claims, int(float(answer[0] or 0))

    async def _read(self, id_: bytes, lease: str, flat: Sequence[bytes]) -> Record | None:
        """A claimed record, or None where this program cannot read it: one such must not hold up all others."""
        try:
            return _record_from(dict(zip(flat[::2], flat[1::2], strict=True)))
        except (KeyError, ValueError, msgspec.MsgspecError) as error:
            _log.error("a record cannot be read and is set aside", dedup_key=id_.decode(), error=repr(error))
            letter = msgspec.json.encode({"id": id_.decode(), "reason": f"the record cannot be read: {error!r}"})
            await self._run("bury", [self._leases, self.keys.dead], [id_, lease, letter])
            return None

    async def join_incident(self, record: Record, told: Told) -> None:
        """The alert is about to be told under a key that it shares with others."""
        async with _as_unavailable():
            await self._client.sadd(self._members(told), record.id)

    async def leave_incident(self, record: Record, told: Told) -> int:
        """The alert is about to be resolved under a shared key; how many others are still open under it."""
        return cast(int, await self._run("leave_incident", [self._members(told)], [record.id]))

    async def repair_members(self, told: Told, now: int) -> None:
        """The shared incident was resolved: whoever joined it meanwhile is told again."""
        await self._run(
            "repair_members",
            [self._members(told), self.keys.due],
            [now, self.keys.alert, told.destination, REPAIR_AFTER_MS],
        )

    def _members(self, told: Told) -> str:
        return f"{self.keys.members}{told.destination}:{told.dedup_key}"

    async def beat(self, now: int) -> None:
        """Say that this worker lives; its leases fall when it has not for ten seconds."""
        async with _as_unavailable():
            await self._client.zadd(self.keys.owners, {self.owner: now})

    async def settle(self, settlement: Settlement, now: int) -> bool:
        """Put down how a send ended. False if its lease was taken away meanwhile."""
        [settled] = await self._settling.put([(settlement, now)])
        return bool(settled)

    async def _settle(self, batch: Sequence[tuple[Settlement, int]]) -> list[int]:
        keys = self.keys
        return cast(
            list[int],
            await self._run(
                "settle",
                [keys.due, self._leases, keys.dead, keys.history, keys.parked],
                [
                    max(now for _, now in batch),
                    keys.alert,
                    REPAIR_AFTER_MS,
                    CLOSED_LIFETIME_MS,
                    HISTORY_LENGTH,
                    *chain.from_iterable(
                        (
                            item.claim.record.id,
                            item.claim.destination,
                            item.claim.fence,
                            item.result.value,
                            item.state.value,
                            item.version,
                            item.claim.record.version,
                            item.outcome.value,
                            int(item.closed),
                            item.wake_at,
                            item.not_before,
                            int(item.ambiguous),
                            item.detail,
                        )
                        for item, _ in batch
                    ),
                ],
            ),
        )

    async def record(self, alert_id: str) -> Record | None:
        """The record of one alert, or None."""
        async with _as_unavailable():
            found = await self._client.hgetall(self.keys.alert + alert_id)
        return _record_from(found) if found else None

    async def void_leases(self) -> None:
        """Let every lease fall at the next claim: for a store whose lock proves that all owners are dead."""
        async with _as_unavailable():
            for owner in await self._client.zrange(self.keys.owners, 0, -1):
                await self._client.zadd(self.keys.owners, {owner: 0})

    async def leave(self) -> None:
        """Give up this worker's leases now instead of after its heartbeat has gone stale."""
        async with _as_unavailable():
            await self._client.zadd(self.keys.owners, {self.owner: 0}, xx=True)

    async def time(self) -> int:
        """Redis' own time in ms."""
        async with _as_unavailable():
            seconds, microseconds = await self._client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def history(self, most: int) -> list[dict[str, str]]:
        """How alerts ended, newest first."""
        async with _as_unavailable():
            entries = await self._client.xrevrange(self.keys.history, count=most)
        return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]

    async def backlog(self, now: int) -> dict[str, int]:
        """How many records are due now, scheduled for later, waiting to be sent, leased, and dead-lettered."""
        keys = self.keys
        sizes = await self._run(
            "backlog", [keys.due, keys.waiting, keys.owners, keys.dead], [now, keys.wait, keys.leases]
        )
        return dict(zip(("due", "scheduled", "waiting", "leased", "dead_letters"), sizes, strict=True))

    async def _run(self, name: str, keys: list[str], arguments: Sequence[str | int | bytes]) -> Any:
        async with _as_unavailable():
            return await self._scripts[name](keys=keys, args=arguments)


@asynccontextmanager
async def _as_unavailable() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error


@cache
def _limited_as(routing_key: str) -> str:
    """What calls with this key are counted under: two destinations may share one, and it is a secret."""
    return sha256(routing_key.encode()).hexdigest()[:16]


_ACCEPTED = frozenset(Accepted)
# looked up, because calling an enumeration costs more than the rest of a field
_STATUS = {word.encode(): word for word in Status}
_SEVERITY = {word.encode(): word for word in Severity}
_NEWS = {word.encode(): word for word in News}
_OUTCOME = {word.encode(): word for word in Outcome}


def _stand_in(fields: Mapping[bytes, bytes]) -> Alert:
    """What is told of an alert that no worker survives: that it is there."""
    source, _, fingerprint = fields[b"id"].decode().partition(":")
    return Alert(
        source=source,
        fingerprint=fingerprint,
        status=_STATUS[fields[b"status"]],
        event=CommonEvent(
            summary=f"An alert of {source} that alertrouter cannot handle; see its dead letters",
            source=source,
            severity=_SEVERITY[fields[b"severity"]],
        ),
    )


def _record_from(fields: Mapping[bytes, bytes]) -> Record:
    """A record from its Redis hash. Fields of a destination are named t:<destination>:<field>."""
    told: dict[str, dict[str, str]] = {}
    for name, value in fields.items():
        if name.startswith(b"t:"):
            destination, _, field = name[2:].decode().rpartition(":")
            told.setdefault(destination, {})[field] = value.decode()
    poisoned = fields.get(b"poisoned") == b"1"
    return Record(
        id=fields[b"id"].decode(),
        version=int(fields[b"version"]),
        status=_STATUS[fields[b"status"]],
        severity=_SEVERITY[fields[b"severity"]],
        # words that a later version of this program may have written do not make the record unreadable
        news=_NEWS.get(fields[b"news"], News.AGAIN),
        alert=_stand_in(fields) if poisoned else _decode_alert(fields[b"alert"]),
        fired_version=int(fields.get(b"fired_version", 0)),
        resolved_version=int(fields.get(b"resolved_version", 0)),
        hold_until=int(fields[b"hold_until"]),
        suspended_until=int(fields.get(b"suspended_until", 0)),
        first_heard=int(fields[b"first_heard"]),
        last_heard=int(fields[b"last_heard"]),
        count=int(fields[b"count"]),
        outcome=_OUTCOME.get(fields[b"outcome"], Outcome.PENDING),
        rule=fields.get(b"rule", b"").decode(),
        reason=fields.get(b"reason", b"").decode(),
        service=fields.get(b"service", b"").decode(),
        poisoned=poisoned,
        told=tuple(
            Told(
                destination=destination,
                state=State(half.get("state", "")),
                version=int(half.get("version", 0)),
                key=half.get("key", ""),
                dedup_key=half.get("dedup_key", ""),
                at=int(half.get("at", 0)),
                tries=int(half.get("tries", 0)),
                not_before=int(half.get("not_before", 0)),
                dead=int(half.get("dead", 0)),
                unsure=int(half.get("unsure", 0)),
                lease_until=int(half.get("lease_until", 0)),
            )
            for destination, half in told.items()
        ),
    )
