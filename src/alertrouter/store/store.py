"""All of Redis: one atomic script per step, one round trip per step. Time is an argument, in ms since the epoch."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from hashlib import sha1, sha256
from importlib import resources
from itertools import chain, count
from types import MappingProxyType
from typing import Any, cast

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from alertrouter.alarms import HEARTBEAT, REFUSED_SENDER, SELF, alarm
from alertrouter.alert import PAGERDUTY, Alert, CommonEvent, Enqueued, Severity, Status
from alertrouter.errors import ForeignData, StoreUnavailable
from alertrouter.letter import LARGEST_ALERT, Kind, Letter
from alertrouter.record import (
    REPAIR_AFTER_MS,
    SOURCE_SILENT_AFTER_MS,
    Flapping,
    News,
    Outcome,
    Record,
    Source,
    State,
    Told,
)
from alertrouter.store.changes import Changes
from alertrouter.store.keys import Keys, keys_of
from alertrouter.store.letters import Letters
from alertrouter.store.merge import Merge
from alertrouter.store.replicas import MISSING_FOR_MS, Replicas

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
#: So many failed calls by one routing key, whatever their alerts, and PagerDuty is down for it: then it is tried with one
#: call at a time, this often, so that the most urgent goes first, and within seconds, when it is back.
FAILURES_IN_A_ROW = 5
TRY_EVERY_MS = 5_000
CLOSED_LIFETIME_MS = 24 * 3600 * 1000
#: What was never sent is forgotten when it has not been heard of for that long.
FORGOTTEN_AFTER_MS = 48 * 3600 * 1000
#: Unless it will be judged again, when a window ends, before it has been unheard for that long.
AWAITED_FOR_MS = 30 * 24 * 3600 * 1000
_FORGET_SOURCE_AFTER_MS = 30 * 24 * 3600 * 1000
#: That a sender was heard is put down once in this time.
_NOTE_SOURCE_EVERY_MS = 60 * 1000
#: Entries. A heard one holds its alert, about 3 kB; the others take some 200 bytes.
HISTORY_LENGTH = 100_000

#: Who watches heartbeats does so every two seconds. After a longer pause nobody knows what was missed in it.
WATCH_PAUSE_MS = 10_000
#: A heartbeat is gone when no replica has had it in its rules for that long: they do not all reload at once.
_HEARTBEAT_GONE_MS = 5 * 60_000
#: A sender is refused when so many of its webhooks were within that time, and none was taken since.
REFUSALS = 3
REFUSED_WITHIN_MS = 5 * 60_000
_REFUSAL_FORGOTTEN_MS = 3600_000
_SENDER_FORGOTTEN_MS = 30 * 24 * 3600_000
#: The second channel is told of an outage that goes on not oftener than that.
TOLD_EVERY_MS = 15 * 60_000
#: An outage is over when no replica has seen it for that long.
OUTAGE_OVER_MS = 30_000

#: How much of Redis is searched for ids: each step holds it for about a millisecond.
_SCANS = 50
_SCANNED_AT_ONCE = 1000

#: How many alerts a digest shows.
DIGEST_SHOWS = 10
#: How much of a queue, and of a digest's members, one step looks at: about a millisecond of Redis.
_GATHERED_AT_ONCE = 1000
_MEMBERS_AT_ONCE = 200

_RANK_STEP = 10**13  # larger than any time in ms, so that rank orders before age; their sum is exact in a double
_log = structlog.get_logger()
#: What is open and unheard for 30 days is resolved: by then nobody is told under a dedup_key any more.
_KEEP_CLAIM_MS = 31 * 24 * 3600 * 1000
#: In the place of an alert's digest: it says nothing of its content.
_SAYS_NOTHING = "-"
_encode = msgspec.json.Encoder().encode
_decode_alert = msgspec.json.Decoder(Alert).decode
_decode_flapping = msgspec.json.Decoder(Flapping).decode

#: Every script and the types of its first KEYS: before it does anything it looks whether they hold something else,
#: because what a script wrote before it failed stays written.
_SCRIPTS = {
    "accept": "zset stream zset",
    "add_silence": "hash stream",
    "adopt": "hash zset",
    "backlog": "zset set zset hash",
    "beat": "zset string",
    "bury": "zset hash zset",
    "claim_changes": "zset",
    "claim_dedup_key": "string",
    "claim_due": "zset zset zset hash zset",
    "claim_sends": "set zset string zset zset zset hash",
    "count": "zset hash zset",
    "digest_over": "set",
    "drop_letters": "hash zset stream",
    "end_silence": "hash stream",
    "forget_noticed": "zset",
    "gather": "zset",
    "heard_from": "hash",
    "heartbeats": "zset hash",
    "join_incident": "set",
    "judged": "zset zset set stream zset",
    "keep_body": "hash zset zset zset",
    "leave_incident": "set",
    "letters": "hash zset",
    "letters_extent": "hash zset",
    "look": "hash zset hash zset zset",
    "look_at_counts": "zset hash",
    "may_send_change": "zset zset",
    "notice": "zset",
    "outage": "hash",
    "put_agreement": "string",
    "put_change": "zset",
    "put_flapping": "hash",
    "recall": "zset zset",
    "redrive": "zset zset hash zset stream",
    "remember": "",
    "remember_change": "hash",
    "remembered_changes": "hash",
    "repair_members": "set zset",
    "replay": "zset stream zset",
    "resolve_unheard": "zset zset stream zset",
    "senders": "zset hash",
    "settle": "zset zset hash stream zset zset zset hash",
    "settle_change": "zset",
    "storms": "set hash hash",
    "sweep": "zset stream zset",
    "unsent": "zset set zset",
}
#: The scripts that are refused when Redis is full. The others drain it.
_REFUSED_WHEN_FULL = frozenset({"accept", "put_change"})
#: The scripts that Redis itself keeps from changing anything; when it is full they run all the same.
#: https://redis.io/docs/latest/develop/programmability/lua-api/#script_flags
_READ_ONLY = frozenset({"letters", "letters_extent", "look", "look_at_counts", "remembered_changes", "unsent"})
#: What was taken in while Redis was away is taken in by the same script, and not refused.
_FILES = {"replay": "accept"}
_CHECK_TYPES = """\
for i, kind in ipairs({%s}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' holds a ' .. found .. ' that is not ours; delete it')
  end
end
"""
#: How long a loss of state is shown on /-/ready.
_SHOW_LOSS_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Dedup:
    """The dedup window. mode: "rolling" re-arms it at each sighting, "fixed" forwards once per window."""

    window_ms: int = 5 * 60_000
    resend_after_ms: int = 4 * 3600_000
    mode: str = "rolling"


@dataclass(frozen=True, slots=True)
class HistoryExtent:
    """length: entries that are there.  added: entries that were ever put down, these included."""

    length: int
    added: int


class Accepted(StrEnum):
    """What accept made of one alert, beyond the kinds of News."""

    DUPLICATE = "duplicate"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Queued:
    """A send that is to wait for its turn.

    routing_key:  "" keeps the one in use.
    dedup_key:    of a shared incident; "" for the alert's own.
    opens:        the heard version that it triggers; 0 for what opens nothing.
    is_ahead:     whatever its age, it is sent before all others of its rank.
    """

    destination: str
    rank: int
    routing_key: str = field(default="", repr=False)
    dedup_key: str = ""
    opens: int = 0
    is_ahead: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """What was decided about a claimed record.

    parked:  rules keep it from being sent; other rules may not.
    """

    record: Record
    outcome: Outcome
    rule: str
    reason: str
    service: str
    wake_at: int
    closed: bool
    sends: tuple[Queued, ...]
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
class Waiting:
    """A send that waits for its turn: behind `before` others, in its routing key's queue of `length`.

    paused_until:  until when its routing key is left alone (ms): PagerDuty asked for that, or took nothing by it; 0 where
                   it is not.
    """

    destination: str
    before: int
    length: int
    paused_until: int = 0


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is known of one alert at one instant. Times in ms since the epoch, 0 for never.

    window_ends:   until then the same, heard again, is a duplicate.
    resend_at:     from then on it is forwarded, window or not.
    due_at:        when it is judged next.
    dead_letters:  of its present state by destination: number, and letter as JSON.
    """

    record: Record
    window_ends: int
    resend_at: int
    due_at: int
    waiting: tuple[Waiting, ...]
    dead_letters: Mapping[str, tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a rule counts, over `window_ms`; `only_look` does not count anything in."""

    key: str
    window_ms: int
    only_look: bool = False


@dataclass(frozen=True, slots=True)
class Storms:
    """What waits for routing keys, each key by `limited_as`.

    sizes:        how many sends wait for each.
    storms:       those that more waited for than a minute takes, when last looked at.
    gathered_at:  when it was last looked who waits, in ms since the epoch.
    digests:      services whose digest is open, by when it was last told (ms).
    """

    sizes: Mapping[str, int]
    storms: frozenset[str]
    gathered_at: int
    digests: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Gathered:
    """`number` triggers of one rank that wait for one service ("" for none), and the first few of that service's."""

    service: str
    rank: int
    number: int
    first: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched, a heartbeat or a sender, and how it is.

    state:     of a heartbeat heard, silent, waiting (it has not had all its time) or gone (from the rules);
               of a sender refused, taken again, or some (refusals, too few to be said).
    at:        when a heartbeat was last heard (ms), 0 for never.
    words:     why a sender was refused.
    alarmed:   whether the alarm about it is firing.
    """

    name: str
    state: str
    alarmed: bool
    at: int = 0
    words: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A webhook that was refused. known: whose it is needs no proof, so that it counts though none was ever taken."""

    sender: str
    at: int
    known: bool
    words: str


class Result(StrEnum):
    """How a leased send ended."""

    DELIVERED = "delivered"
    AGAIN = "again"
    CHANGED = "changed"  # refused, and to be sent at once in another form
    REFUSED = "refused"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a leased send ended and what it makes of the record; `detail` is the destination's own words.

    rung, rerouted:  the other form to send it in.
    bad_key:         it was refused for its routing key, or it was a resolve.
    key:             the routing key to use from now on; "" keeps the one in use.
    opens:           the heard version that it triggers; 0 for what opens nothing.
    letter:          the dead letter of what was refused for good (JSON); b"" for the detail itself.
    paused_until:    until when nothing is sent by its routing key, by anybody; 0 where nobody asked for that.
    """

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
    rung: int = 0
    rerouted: bool = False
    bad_key: bool = False
    key: str = field(default="", repr=False)
    opens: int = 0
    letter: bytes = b""
    paused_until: int = 0


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
        wait_replicas: int = 0,
        history_length: int = HISTORY_LENGTH,
        script_flags: bool = True,
    ) -> None:
        """`wait_replicas` must have what is accepted; more than 0 needs a `Client` of ours.

        `history_length` is how many entries of the history are kept at least; 0 keeps none.
        `script_flags` is off only for fakeredis, which does not know the `#!lua` line.
        """
        # redis-py types every answer as bytes or text, decoded or not; ours are never decoded
        self._client = cast(Any, client)
        self.keys: Keys = keys_of(instance)
        self.owner = owner or f"{os.getpid()}-{os.urandom(4).hex()}"
        self._dedup = dedup or Dedup()
        self._history_length = history_length
        self._turn = 0
        self._scripts = {name: _script(name, kinds, script_flags) for name, kinds in _SCRIPTS.items()}
        self._accepting = Merge(self._accept, most=MOST_PER_CALL)
        self._settling = Merge(self._settle, most=MOST_PER_CALL)
        self._leases = self.keys.leases + self.owner
        self.letters = Letters(self._run, self.keys, history_length)
        self.changes = Changes(self._run, self.keys)
        self._replicas = Replicas(wait_replicas)
        self._alarmed_of_replicas: bool | None = None
        self._epoch = ""
        self._lost_at = 0
        self._alarms: list[Alert] = []
        self._noted_sources: dict[str, int] = {}

    async def accept(self, alerts: Sequence[Alert], now: int) -> list[News | Accepted]:
        """Take `alerts` in; returns what each was. Once this returns, Redis has all of them."""
        results = await self._accepting.put([(alert, now) for alert in alerts])
        if "error" in results:
            raise ForeignData(next(alert.id for alert, word in zip(alerts, results, strict=True) if word == "error"))
        return [Accepted(word) if word in _ACCEPTED else News(word) for word in results]

    async def _accept(self, batch: Sequence[tuple[Alert, int]], *, replayed: bool = False) -> list[str]:
        keys = self.keys
        dedup = self._dedup
        answer = await self._run_confirmed(
            "replay" if replayed else "accept",
            [keys.due, keys.history, keys.parked, *(keys.alert + alert.id for alert, _ in batch)],
            [
                # merged webhooks arrived within one round trip of each other
                max(now for _, now in batch),
                dedup.window_ms + (WINDOW_SLACK_MS if dedup.mode == "rolling" else 0),
                dedup.resend_after_ms,
                LATE_COPY_HOLD_MS,
                dedup.mode,
                self._history_length,
                keys.wait,
                int(replayed),
                *chain.from_iterable(
                    (
                        alert.id,
                        alert.status.value,
                        alert.event.severity.value,
                        alert.episode,
                        alert.episode_at,
                        alert.ended_at,
                        _encode(alert),
                        (alert.enqueued.content or _SAYS_NOTHING) if alert.enqueued else "",
                    )
                    for alert, _ in batch
                ),
            ],
        )
        return [word.decode() for word in answer]

    async def adopt(self, alert: Alert, heard_at: int, told: Told | None, now: int) -> str:
        """Take in what was heard, and perhaps told, while Redis was away; what was heard since stands.

        Returns what it was, as `accept` does, or "older" than what stands.

        `told.at` is when; its state is NOTHING where no answer came. Twice is as good as once. Raises
        StoreUnavailable, and ForeignData where this alert's key holds something else.
        """
        [word] = await self._accept([(alert, heard_at)], replayed=True)
        if word == "error":
            raise ForeignData(alert.id)
        if told is not None:
            if told.dedup_key not in ("", alert.id) and told.state is not State.RESOLVED:
                await self._run("join_incident", [self._members(told)], [alert.id])
            await self._run(
                "adopt",
                [self.keys.alert + alert.id, self.keys.due],
                [
                    now,
                    alert.id,
                    told.destination,
                    told.key,
                    limited_as(told.key),
                    told.dedup_key,
                    told.state.value,
                    told.at,
                    alert.status.value,
                    alert.event.severity.value,
                    alert.episode,
                ],
            )
            await self.note(
                {
                    "kind": "sent",
                    "id": alert.id,
                    "at": str(told.at),
                    "destination": told.destination,
                    "result": "delivered" if told.state is not State.NOTHING else "unsure",
                    "state": told.state.value,
                    "reason": "sent past Redis while it was away",
                }
            )
        return word

    async def claim_due(self, now: int, most: int) -> tuple[list[Record], int]:
        """Lease up to `most` records to judge, taking back what dead workers held.

        Returns them and when the next one is due (0 for none).
        """
        keys = self.keys
        answer = await self._run(
            "claim_due",
            [keys.due, keys.owners, self._leases, keys.dead, keys.letters],
            [
                *(now, self.owner, LEASE_MS, OWNER_DEAD_AFTER_MS, most, keys.alert, keys.leases, MOST_TAKEOVERS),
                *(keys.calls, LARGEST_ALERT),
            ],
        )
        readable = [(id_, await self._read(id_, "\n\n" + id_.decode(), flat, now)) for id_, flat in answer[1:]]
        return [record for _, record in readable if record is not None], int(float(answer[0] or 0))

    async def heard_from(self, sources: Iterable[str], now: int) -> None:
        """Put down that these senders were heard, at most once a minute each."""
        noted = self._noted_sources
        wanted = [each for each in set(sources) if abs(now - noted.get(each, -now)) >= _NOTE_SOURCE_EVERY_MS]
        if wanted:
            arguments: list[str | int] = [now, SOURCE_SILENT_AFTER_MS, _FORGET_SOURCE_AFTER_MS, *wanted]
            if await self._run("heard_from", [self.keys.sources], arguments) < len(noted):
                noted.clear()  # Redis has forgotten some, and so may we
            noted.update(dict.fromkeys(wanted, now))

    async def source(self, name: str) -> Source | None:
        """When a sender was heard; None for never."""
        async with _as_unavailable():
            found = await self._client.hget(self.keys.sources, name)
        if found is None:
            return None
        last, _, since = found.decode().partition(" ")
        return Source(int(last), int(since))

    async def resolve_unheard(self, record: Record, alert: Alert, reason: str, now: int) -> bool:
        """Resolve a claimed record for its silence: `alert` is how it is put down. False if it was heard meanwhile.

        Either way it is nobody's any more, and due.
        """
        keys = self.keys
        return bool(
            await self._run(
                "resolve_unheard",
                [keys.due, self._leases, keys.history, keys.parked],
                [
                    now,
                    record.id,
                    keys.alert,
                    record.version,
                    record.last_heard,
                    _encode(alert),
                    reason,
                    self._history_length,
                    keys.wait,
                ],
            )
        )

    async def put_flapping(self, record: Record, found: Flapping) -> None:
        """Put down what was found about a claimed record's flapping; nothing where it has newer news."""
        await self._run("put_flapping", [self.keys.alert + record.id], [record.version, _encode(found)])

    async def next_due(self) -> int:
        """When the next record is due, or a routing key that was left alone may be called again, in ms; 0 for never."""
        async with _as_unavailable():
            firsts = [
                *await self._client.zrange(self.keys.due, 0, 0, withscores=True),
                *await self._client.zrange(self.keys.paused, 0, 0, withscores=True),
            ]
        return min((int(at) for _, at in firsts), default=0)

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
        await self._run("remember", [self.keys.cache + name for name in values], list(values.values()))

    async def reset_counts(self, keys: Iterable[str]) -> None:
        """Let thresholds start again from nothing."""
        async with _as_unavailable():
            await self._client.delete(*(self.keys.count + key for key in keys))

    async def recall(self, now: int, refused: bool = True) -> None:
        """Make everything due that was kept from being sent, by PagerDuty only if `refused`: the rules are others now."""
        keys = self.keys
        cursor = b"0"
        while True:
            arguments: list[str | int | bytes] = [now, keys.alert, MOST_PER_CALL, int(refused), cursor]
            cursor = await self._run("recall", [keys.due, keys.parked], arguments)
            if cursor == b"0":
                return

    async def judged(self, batch: Sequence[Judged], now: int) -> None:
        """Put down what was decided. A record with newer news is left due instead."""
        keys = self.keys
        arguments: list[str | int] = [now, keys.alert, keys.wait, CLOSED_LIFETIME_MS, self._history_length]
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
            for send in item.sends:
                score = send.rank * _RANK_STEP + (0 if send.is_ahead else item.record.last_heard)
                key = send.routing_key
                arguments += [send.destination, score, key, limited_as(key), send.dedup_key, send.opens]
        await self._run("judged", [keys.due, self._leases, keys.waiting, keys.history, keys.parked], arguments)

    async def claim_sends(
        self, now: int, most: int, calls_per_minute: int, own_limits: Mapping[str, int] = MappingProxyType({})
    ) -> tuple[list[Claim], int]:
        """Lease up to `most` waiting sends within each routing key's call limit.

        calls_per_minute:  the limit of each key over a sliding 60 s; 0 for none.
        own_limits:        those of keys that have one of their own, by the key.

        Returns them and when the next call is allowed (0 if nothing waits for that).
        """
        keys = self.keys
        own: list[str | int] = []
        for key, limit in own_limits.items():
            own += [limited_as(key), limit]
        self._turn += 1
        # a master that was split off must not send what its successor knows nothing of, or nobody would resolve it
        answer = await self._run_confirmed(
            "claim_sends",
            [keys.waiting, self._leases, keys.fence, keys.owners, keys.due, keys.paused, keys.failing],
            [
                *(now, LEASE_MS, most, calls_per_minute, self._turn, keys.alert, keys.wait, keys.calls, self.owner),
                *(FAILURES_IN_A_ROW, TRY_EVERY_MS, _RANK_STEP),
                *own,
            ],
        )
        claims = []
        for destination, fence, lease_until, id_, flat in answer[1:]:
            record = await self._read(id_, f"{fence.decode()}\n{destination.decode()}\n{id_.decode()}", flat, now)
            if record is not None:
                claims.append(Claim(destination.decode(), fence.decode(), int(lease_until), record))
        return claims, int(float(answer[0] or 0))

    async def _read(self, id_: bytes, lease: str, flat: Sequence[bytes], now: int) -> Record | None:
        """A claimed record, or None where this program cannot read it: one such must not hold up all others."""
        try:
            return _record_from(dict(zip(flat[::2], flat[1::2], strict=True)))
        except (KeyError, ValueError, msgspec.MsgspecError) as error:
            _log.error("a record cannot be read and is set aside", dedup_key=id_.decode(), error=repr(error))
            letter = Letter(
                kind=Kind.UNREADABLE.value,
                at=now,
                id=id_.decode(),
                source=id_.decode().partition(":")[0],
                reason=f"the record cannot be read: {error!r}",
            )
            keys = [self._leases, self.keys.dead, self.keys.letters]
            await self._run("bury", keys, [now, id_, lease, _encode(letter)])
            return None

    async def silences(self) -> dict[str, bytes]:
        """Every silence as it was added, by id. Raises ForeignData where that key holds something else."""
        async with _as_unavailable():
            try:
                found = await self._client.hgetall(self.keys.silences)
            except ResponseError as error:
                raise ForeignData(self.keys.silences) from error
        return {id_.decode(errors="replace"): text for id_, text in found.items()}

    async def add_silence(self, id_: str, text: bytes, entry: Mapping[str, str], *, most: int) -> bool:
        """Put a silence into force, with its entry in the history; False where there are `most` already."""
        keys = [self.keys.silences, self.keys.history]
        fields = chain.from_iterable(entry.items())
        return bool(await self._run("add_silence", keys, [id_, text, most, self._history_length, *fields]))

    async def end_silence(self, id_: str, entry: Mapping[str, str]) -> bool:
        """Take a silence out of force, with its entry in the history; False where it was not in force any more."""
        keys = [self.keys.silences, self.keys.history]
        fields = chain.from_iterable(entry.items())
        return bool(await self._run("end_silence", keys, [id_, self._history_length, *fields]))

    async def resolve_test_at(self, alert_id: str, at: int) -> None:
        """Remember that a test page is to be resolved at `at` (ms), whoever began it lives or not."""
        async with _as_unavailable():
            await self._client.zadd(self.keys.tests, {alert_id: at})

    async def tests_to_resolve(self, now: int) -> list[str]:
        """Test pages whose time is over."""
        async with _as_unavailable():
            return [id_.decode() for id_ in await self._client.zrange(self.keys.tests, 0, now, byscore=True)]

    async def forget_test(self, alert_id: str) -> None:
        """A test page was resolved."""
        async with _as_unavailable():
            await self._client.zrem(self.keys.tests, alert_id)

    async def claim_dedup_key(
        self, routing_key: str, dedup_key: str, alert_id: str, *, is_over: bool, destinations: Iterable[str] = ()
    ) -> bool:
        """Whether the alert may be told by that routing key under that dedup_key: no other alert is.

        destinations:  those that have this routing key.

        Of an alert that is over this is remembered as long as its record.
        """
        name = f"{self.keys.claimed}{limited_as(routing_key)}:{dedup_key}"
        shared = [f"{self.keys.members}{each}:{dedup_key}" for each in destinations]
        lifetime = CLOSED_LIFETIME_MS if is_over else _KEEP_CLAIM_MS
        return bool(await self._run("claim_dedup_key", [name, *shared], [alert_id, lifetime]))

    async def told_under(self, dedup_key: str, routing_keys: Iterable[str]) -> str:
        """The id of an alert that is told under a client's dedup_key by one of these routing keys; "" for none."""
        names = [f"{self.keys.claimed}{limited_as(key)}:{dedup_key}" for key in dict.fromkeys(routing_keys)]
        async with _as_unavailable():
            found = await self._client.mget(names)
        return next((id_.decode() for id_ in found if id_), "")

    async def join_incident(self, record: Record, told: Told) -> None:
        """The alert is about to be told under a key that it shares with others."""
        await self._run("join_incident", [self._members(told)], [record.id])

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
        """Say that this worker lives; its leases fall when it has not for ten seconds.

        Looks by the way whether Redis still has its state and its replicas, and raises alarms if not.
        """
        keys = [self.keys.owners, self.keys.epoch]
        arguments = (now, self.owner, os.urandom(8).hex())
        if self._replicas.wanted:
            epoch, stored_on = await self._run_on_replicas("beat", keys, arguments)
            self._hear_replicas(stored_on, now)
        else:
            epoch = await self._run("beat", keys, arguments)
        self._alarms += self._look_at_epoch(epoch.decode(), now)
        self._alarms += await self._look_at_replicas()
        while self._alarms:  # one that cannot be stored now is kept for the next beat
            await self.accept(self._alarms[:1], now)
            del self._alarms[0]

    def _look_at_epoch(self, epoch: str, now: int) -> Sequence[Alert]:
        """The alarm to raise if the data is not what it was at the last beat."""
        before, self._epoch = self._epoch, epoch
        if before in ("", epoch):
            if now >= self._lost_at + _SHOW_LOSS_MS:
                self._lost_at = 0
            return ()
        self._lost_at = now
        _log.error("Redis lost its state: it was emptied or replaced by another one; going on with what it has")
        return (
            alarm(
                "state-lost",
                "Redis lost its state: it was emptied or replaced by another one",
                details={
                    "what it means": "What was accepted and not yet sent is gone. Alerts still firing page anew, "
                    "resolves of alerts that are no longer known are forwarded.",
                    "what to do": "Find out what emptied Redis (FLUSHALL, eviction, a restart without appendonly, "
                    "another server behind the address). Look in PagerDuty for incidents that nothing resolves.",
                },
            ),
        )

    async def _look_at_replicas(self) -> Sequence[Alert]:
        """The alarm to raise or to end, if what is the case has not been said yet."""
        missing = self._replicas.waived
        alert = alarm(
            "redis-replicas-gone",
            "Redis has too few replicas; alerts are accepted without them",
            severity=Severity.ERROR,
            firing=missing,
            details={"wanted": self._replicas.wanted, "what to do": "Bring the replicas back. This ends by itself."},
        )
        if self._alarmed_of_replicas is None and not missing:
            # an earlier process may have raised it
            record = await self.record(alert.id)
            self._alarmed_of_replicas = record is not None and record.status is Status.FIRING
        if missing is bool(self._alarmed_of_replicas):
            return ()
        self._alarmed_of_replicas = missing
        return (alert,)

    def warnings(self) -> list[str]:
        """What is wrong with the state, in words."""
        warnings = []
        if self._lost_at:
            warnings.append(
                "Redis lost its state within the last 24 h: what was accepted and not yet sent is gone; find out what "
                "emptied it (FLUSHALL, a restart without appendonly, another server), and look in PagerDuty for "
                "incidents that nothing resolves"
            )
        if self._replicas.waived:
            warnings.append(
                f"Redis has had fewer than {self._replicas.wanted} replicas for {MISSING_FOR_MS // 1000} s; alerts are "
                "accepted without them; bring them back"
            )
        return warnings

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
                [
                    keys.due,
                    self._leases,
                    keys.dead,
                    keys.history,
                    keys.parked,
                    keys.letters,
                    keys.paused,
                    keys.failing,
                ],
                [
                    max(now for _, now in batch),
                    keys.alert,
                    REPAIR_AFTER_MS,
                    CLOSED_LIFETIME_MS,
                    self._history_length,
                    keys.calls,
                    FAILURES_IN_A_ROW,
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
                            item.rung,
                            int(item.rerouted),
                            item.key,
                            limited_as(item.key),
                            item.opens,
                            int(item.bad_key),
                            item.letter,
                            item.paused_until,
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

    async def look(self, alert_id: str) -> Sight | None:
        """All that is known of one alert, or None. Changes nothing."""
        keys = self.keys
        found = await self._run(
            "look", [keys.alert + alert_id, keys.due, keys.dead, keys.letters, keys.paused], [alert_id, keys.wait]
        )
        if not found:
            return None
        flat, due_at, waiting, letters = found
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        delivered_at = int(fields.get(b"delivered_at", 0))
        return Sight(
            record=_record_from(fields),
            window_ends=int(fields.get(b"window_ends", 0)),
            resend_at=delivered_at + self._dedup.resend_after_ms if delivered_at else 0,
            due_at=int(float(due_at or 0)),
            waiting=tuple(
                Waiting(destination.decode(), before, length, int(float(paused_until or 0)))
                for destination, before, length, paused_until in _by(4, waiting)
            ),
            dead_letters={
                destination.decode(): (int(number), letter)
                for destination, letter, number in zip(letters[::3], letters[1::3], letters[2::3], strict=True)
            },
        )

    async def look_at_counts(self, record: Record, thresholds: Sequence[Threshold], now: int) -> Sequence[int]:
        """What `count` would answer now. Changes nothing."""
        return cast(
            Sequence[int],
            await self._run(
                "look_at_counts",
                [self.keys.count + threshold.key + part for threshold in thresholds for part in ("", ":answers")],
                [
                    now,
                    f"{record.version} {record.id}",
                    *chain.from_iterable((threshold.window_ms, int(threshold.only_look)) for threshold in thresholds),
                ],
            ),
        )

    async def hear_heartbeats(self, heard: Mapping[str, int]) -> None:
        """Put down when heartbeats were heard (ms)."""
        async with _as_unavailable():
            await self._client.zadd(self.keys.heard, dict(heard), gt=True)

    async def heartbeats(self, expected: Mapping[str, int], heard: Mapping[str, int], now: int) -> list[Watched]:
        """How heartbeats are, each `expected` to be heard within that many ms; with what was `heard`."""
        keys = self.keys
        flat = await self._run(
            "heartbeats",
            [keys.heard, keys.watch],
            [
                now,
                WATCH_PAUSE_MS,
                _HEARTBEAT_GONE_MS,
                f"{keys.alert}{SELF}:{HEARTBEAT}",
                len(expected),
                *_pairs(expected),
                *_pairs(heard),
            ],
        )
        return [
            Watched(name.decode(), state.decode(), alarmed == b"1", at=int(at))
            for name, state, at, alarmed in _by(4, flat)
        ]

    async def senders(self, taken: Mapping[str, int], refusals: Sequence[Refusal], now: int) -> list[Watched]:
        """How senders are that were refused since they were last `taken` (ms); with the `refusals` of late."""
        keys = self.keys
        flat = await self._run(
            "senders",
            [keys.senders, keys.refused],
            [
                now,
                REFUSALS,
                REFUSED_WITHIN_MS,
                f"{keys.alert}{SELF}:{REFUSED_SENDER}",
                _REFUSAL_FORGOTTEN_MS,
                _SENDER_FORGOTTEN_MS,
                len(taken),
                *_pairs(taken),
                *(word for each in refusals for word in (each.sender, each.at, int(each.known), each.words)),
            ],
        )
        return [
            Watched(sender.decode(), state.decode(), alarmed == b"1", words=words.decode(errors="replace"))
            for sender, state, words, alarmed in _by(4, flat)
        ]

    async def unsent(self, ranks: int, most: int) -> list[tuple[Record, bool]]:
        """Alerts that fire and are on their way: of each queue up to `most`, of those that wait the first `ranks` only.

        Each with whether it stands in such a queue. Changes nothing.
        """
        keys = self.keys
        found = await self._run(
            "unsent",
            [keys.due, keys.waiting, keys.owners],
            [most, keys.alert, keys.wait, keys.leases, ranks * _RANK_STEP],
        )
        records = []
        for _, waits, flat in found:
            try:
                records.append((_record_from(dict(zip(flat[::2], flat[1::2], strict=True))), waits == b"1"))
            except (KeyError, ValueError, msgspec.MsgspecError):
                continue  # whoever claims it says so
        return records

    async def tell_of_outage(self, failing: bool, now: int) -> str:
        """What this replica is to tell the second channel of PagerDuty: began, continues, over, or "" for nothing."""
        arguments = [now, int(failing), TOLD_EVERY_MS, OUTAGE_OVER_MS]
        return cast(bytes, await self._run("outage", [self.keys.outage], arguments)).decode()

    async def outage_untold(self, what: str, now: int) -> None:
        """The second channel could not be told `what`: it is to be told again."""
        async with _as_unavailable():
            if what == "over":
                await self._client.hset(self.keys.outage, "told_at", now)
            elif what == "began":
                await self._client.hdel(self.keys.outage, "told_at")

    async def some_ids(self) -> list[str]:
        """Ids of alerts on record, in no order; of some where there are very many."""
        prefix = self.keys.alert.encode()
        found: set[str] = set()
        cursor = 0
        async with _as_unavailable():
            for _ in range(_SCANS):
                cursor, keys = await self._client.scan(cursor, match=prefix + b"*", count=_SCANNED_AT_ONCE)
                found.update(key.removeprefix(prefix).decode() for key in keys)
                if not cursor:
                    break
        return sorted(found)

    async def sharing(self, dedup_key: str, destinations: Iterable[str]) -> list[str]:
        """Ids of alerts that share the incident of that key at one of `destinations`."""
        async with _as_unavailable():
            found = await self._client.sunion([f"{self.keys.members}{each}:{dedup_key}" for each in destinations])
        return sorted(id_.decode() for id_ in found)

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

    async def agreement(self) -> str:
        """What replicas agree on about the time; "" for nothing."""
        async with _as_unavailable():
            found = await self._client.get(self.keys.clock)
        return found.decode() if found else ""

    async def put_agreement(self, known: str, new: str) -> bool:
        """Agree on `new`, unless something else than `known` is agreed on by now."""
        return bool(await self._run("put_agreement", [self.keys.clock], [known, new]))

    async def history(self, most: int) -> list[dict[str, str]]:
        """How alerts ended, newest first."""
        ends: list[dict[str, str]] = []
        before = "+"
        while len(ends) < most:
            entries = await self.history_entries("-", before, most, newest_first=True)
            if not entries:
                break
            ends += (fields for _, fields in entries if "outcome" in fields)
            before = f"({entries[-1][0]}"
        return ends[:most]

    async def history_entries(
        self, first: str, last: str, most: int, *, newest_first: bool = False
    ) -> list[tuple[str, dict[str, str]]]:
        """Up to `most` entries of the history from `first` to `last`, each with its id, "<ms by Redis' clock>-<number>".

        Bounds are such ids, or the ms alone; "(" before one leaves it out, "-" and "+" are the ends.
        """
        async with _as_unavailable():
            if newest_first:
                entries = await self._client.xrevrange(self.keys.history, last, first, count=most)
            else:
                entries = await self._client.xrange(self.keys.history, first, last, count=most)
        return [
            (id_.decode(), {name.decode(): value.decode() for name, value in fields.items()}) for id_, fields in entries
        ]

    async def history_extent(self) -> HistoryExtent:
        """How much history there is, and how much of it was trimmed."""
        async with _as_unavailable():
            if not await self._client.exists(self.keys.history):
                return HistoryExtent(0, 0)
            found = await self._client.xinfo_stream(self.keys.history)
        return HistoryExtent(int(found["length"]), int(found["entries-added"]))

    async def note(self, entry: Mapping[str, str]) -> None:
        """Put one entry into the history."""
        if self._history_length:
            async with _as_unavailable():
                await self._client.xadd(self.keys.history, entry, maxlen=self._history_length, approximate=True)

    async def trim_history(self, before: int) -> None:
        """Let go of entries older than `before` (ms by Redis' clock)."""
        async with _as_unavailable():
            await self._client.xtrim(self.keys.history, minid=str(before), approximate=True)

    async def storms(self, now: int, every_ms: int) -> Storms | None:
        """What waits for each routing key; None where a worker looked less than `every_ms` ago."""
        keys = self.keys
        found = await self._run("storms", [keys.waiting, keys.storms, keys.digests], [now, every_ms, keys.wait])
        if not found:
            return None
        sizes, storms, digests = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in found)
        return Storms(
            {queue.decode(): size for queue, size in sizes.items()},
            frozenset(queue.decode() for queue in storms if not queue.startswith(b"@")),
            int(storms.get(b"@gathered", 0)),
            {service.decode(): int(at) for service, at in digests.items()},
        )

    async def note_storms(self, began: Iterable[str], ended: Iterable[str], gathered_at: int) -> None:
        """Remember which routing keys are in a storm, and when it was last looked who waits."""
        async with _as_unavailable():
            await self._client.hset(self.keys.storms, mapping={**dict.fromkeys(began, 1), "@gathered": gathered_at})
            if over := list(ended):
                await self._client.hdel(self.keys.storms, *over)

    async def gather(self, queue: str) -> list[Gathered]:
        """The triggers that wait in a queue, by service and rank, most urgent first; each becomes a member.

        It is read in stretches, while others take from it: the counts are about right.
        """
        keys = self.keys
        gathered: list[Gathered] = []
        for first in count(0, _GATHERED_AT_ONCE):
            looked_at, *groups = await self._run(
                "gather",
                [keys.wait + queue],
                [first, first + _GATHERED_AT_ONCE - 1, _RANK_STEP, DIGEST_SHOWS, keys.alert, keys.gathered],
            )
            gathered += (
                Gathered(service.decode(), rank, number, tuple(_readable(alerts)))
                for service, rank, number, alerts in groups
            )
            if looked_at < _GATHERED_AT_ONCE:
                break
        return gathered

    async def digest_told(self, service: str, now: int) -> None:
        """The digest of `service` is on its way."""
        async with _as_unavailable():
            await self._client.hset(self.keys.digests, service, now)

    async def digest_is_over(self, service: str) -> bool:
        """True if none of its members waits or is open any more."""
        members = self.keys.gathered + service
        return bool(await self._run("digest_over", [members], [_MEMBERS_AT_ONCE, self.keys.alert]))

    async def forget_digest(self, service: str) -> None:
        """The digest of `service` is resolved."""
        async with _as_unavailable():
            await self._client.hdel(self.keys.digests, service)
            await self._client.delete(self.keys.gathered + service)

    async def sweep(self, now: int) -> None:
        """Forget what was never sent and has not been heard of for two days; what was refused or told before, for thirty."""
        keys = self.keys
        arguments: list[str | int] = [
            now,
            FORGOTTEN_AFTER_MS,
            keys.alert,
            MOST_PER_CALL,
            self._history_length,
            AWAITED_FOR_MS,
        ]
        while await self._run("sweep", [keys.parked, keys.history, keys.due], arguments) == MOST_PER_CALL:
            pass

    async def memory(self) -> tuple[int, int]:
        """How much memory Redis uses, and how much it may use (0 for no bound), in bytes."""
        async with _as_unavailable():
            found = await self._client.info("memory")
        return int(found["used_memory"]), int(found.get("maxmemory", 0))

    async def backlog(self, now: int) -> dict[str, int]:
        """How many records are due now, scheduled for later, waiting to be sent, leased, and dead-lettered."""
        keys = self.keys
        sizes = await self._run(
            "backlog", [keys.due, keys.waiting, keys.owners, keys.dead], [now, keys.wait, keys.leases]
        )
        return dict(zip(("due", "scheduled", "waiting", "leased", "dead_letters"), sizes, strict=True))

    async def _run(self, name: str, keys: list[str], arguments: Sequence[str | int | bytes]) -> Any:
        script = self._scripts[name]
        tail = (len(keys), *keys, *arguments)
        async with _as_unavailable():
            try:
                return await self._client.execute_command("EVALSHA", script.sha, *tail)
            except NoScriptError:  # EVAL loads it and runs it: nobody can flush it in between
                return await self._client.execute_command("EVAL", script.source, *tail)

    async def _run_confirmed(self, name: str, keys: list[str], arguments: Sequence[str | int | bytes]) -> Any:
        """The answer of a script whose writes the replicas have that are needed now. StoreUnavailable if they do not."""
        needed = self._replicas.needed
        if not needed:
            return await self._run(name, keys, arguments)
        answer, stored_on = await self._run_on_replicas(name, keys, arguments)
        if stored_on < needed:
            self._client.forget()  # it may no longer be the master
            raise StoreUnavailable(f"stored on {stored_on} of {needed} replicas")
        return answer

    async def _run_on_replicas(
        self, name: str, keys: list[str], arguments: Sequence[str | int | bytes]
    ) -> tuple[Any, int]:
        """The answer of a script, and how many replicas have what it wrote."""
        script = self._scripts[name]
        wanted = self._replicas.wanted
        tail = (len(keys), *keys, *arguments)
        async with _as_unavailable():
            try:
                return cast(
                    tuple[Any, int],
                    await self._client.execute_on_replicas(wanted, "EVALSHA", script.sha, *tail),
                )
            except NoScriptError:
                return cast(
                    tuple[Any, int],
                    await self._client.execute_on_replicas(wanted, "EVAL", script.source, *tail),
                )

    def _hear_replicas(self, stored_on: int, now: int) -> None:
        """Take in how many replicas have what was written."""
        before = self._replicas.waived
        self._replicas.heard(stored_on, self._client.server, now)
        if stored_on < self._replicas.wanted:
            self._client.forget()  # it may no longer be the master
        if self._replicas.waived != before:
            _log.warning(
                "accepting without the replicas that are missing"
                if self._replicas.waived
                else "replicas confirm again",
                wanted=self._replicas.wanted,
                stored_on=stored_on,
            )


@dataclass(frozen=True, slots=True)
class _Script:
    """A script as Redis runs it, and the name that it has there."""

    source: str
    sha: str


@cache
def _script(name: str, kinds: str, flags: bool) -> _Script:
    flag = "" if name in _REFUSED_WHEN_FULL else "no-writes" if name in _READ_ONLY else "allow-oom"
    flag_line = f"#!lua flags={flag}\n" if flags else ""
    check = _CHECK_TYPES % ", ".join(f"'{kind}'" for kind in kinds.split())
    source = (
        flag_line
        + check
        + (resources.files("alertrouter.store") / "scripts" / f"{_FILES.get(name, name)}.lua").read_text()
    )
    return _Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())  # how Redis names scripts


@asynccontextmanager
async def _as_unavailable() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error


def _pairs(times: Mapping[str, int]) -> Iterable[str | int]:
    return (word for pair in times.items() for word in pair)


def _by(width: int, flat: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (flat[at : at + width] for at in range(0, len(flat), width))


@cache
def limited_as(routing_key: str) -> str:
    """What calls with this key are counted under: two destinations may share one, and it is a secret."""
    return sha256(routing_key.encode()).hexdigest()[:16]


_ACCEPTED = frozenset(Accepted)
# looked up, because calling an enumeration costs more than the rest of a field
_STATUS = {word.encode(): word for word in Status}
_SEVERITY = {word.encode(): word for word in Severity}
_NEWS = {word.encode(): word for word in News}
_OUTCOME = {word.encode(): word for word in Outcome}


def _readable(alerts: Iterable[bytes]) -> Iterator[Alert]:
    """Those of stored alerts that this program can read; whoever claims one of the others says so."""
    for alert in alerts:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            yield _decode_alert(alert)


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
        enqueued=Enqueued(fingerprint) if source.partition("/")[0] == PAGERDUTY else None,
    )


def _record_from(fields: Mapping[bytes, bytes]) -> Record:
    """A record from its Redis hash. Fields of a destination are named t:<destination>:<field>."""
    told: dict[str, dict[str, str]] = {}
    for name, value in fields.items():
        if name.startswith(b"t:"):
            destination, _, field = name[2:].decode().rpartition(":")
            told.setdefault(destination, {})[field] = value.decode()
    poisoned = fields.get(b"poisoned") == b"1"
    status = _STATUS[fields[b"status"]]
    alert = _stand_in(fields) if poisoned else _decode_alert(fields[b"alert"])
    if alert.enqueued and alert.status is not status:
        alert = msgspec.structs.replace(alert, status=status)  # what was heard last said nothing of its content
    return Record(
        id=fields[b"id"].decode(),
        version=int(fields[b"version"]),
        status=status,
        severity=_SEVERITY[fields[b"severity"]],
        # words that a later version of this program may have written do not make the record unreadable
        news=_NEWS.get(fields[b"news"], News.AGAIN),
        alert=alert,
        fired_version=int(fields.get(b"fired_version", 0)),
        resolved_version=int(fields.get(b"resolved_version", 0)),
        hold_until=int(fields[b"hold_until"]),
        suspended_until=int(fields.get(b"suspended_until", 0)),
        is_forced=fields.get(b"forced_version") == fields[b"version"],
        first_heard=int(fields[b"first_heard"]),
        last_heard=int(fields[b"last_heard"]),
        count=int(fields[b"count"]),
        outcome=_OUTCOME.get(fields[b"outcome"], Outcome.PENDING),
        rule=fields.get(b"rule", b"").decode(),
        reason=fields.get(b"reason", b"").decode(),
        service=fields.get(b"service", b"").decode(),
        poisoned=poisoned,
        flapping=_decode_flapping(fields[b"flapping"]) if b"flapping" in fields else Flapping(),
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
                bad_key=half.get("bad_key") == "1",
                unsure=int(half.get("unsure", 0)),
                lease_until=int(half.get("lease_until", 0)),
                opens=int(half.get("opens", 0)),
                maybe_open=int(half.get("maybe_open", 0)),
                refused=int(half.get("refused", 0)),
                rung=int(half.get("rung", 0)),
                rerouted=half.get("rerouted") == "1",
                refusal=half.get("refusal", ""),
            )
            for destination, half in told.items()
        ),
    )
