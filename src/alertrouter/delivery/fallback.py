"""The direct path: what is heard while Redis is away goes to PagerDuty inside the request.

A sender that is asked to try again later forgets every alert that is over by then; a critical one among them is a lost
page. So resolves, acknowledgements, critical and error alerts are judged in memory and sent at once, and only what
waits well (warnings, infos) is answered with 503. What was sent is journaled, and told to Redis when it is back.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count

import structlog

from alertrouter import telemetry
from alertrouter.alert import Alert, Link, Severity, Status
from alertrouter.delivery.journal import Begun, Ended, Entry, Journal
from alertrouter.delivery.judging import ActiveRules, decide, show
from alertrouter.delivery.reconcile import RANK_OF_SEVERITY, STATE_AFTER, Action, Rank
from alertrouter.destinations.pagerduty import (
    FALLBACK,
    Delivered,
    EventAction,
    Objection,
    PagerDuty,
    Refused,
    Rung,
    TryAgain,
    build_event,
    encode_event,
)
from alertrouter.errors import ForeignData, StoreUnavailable
from alertrouter.record import State, Told
from alertrouter.rules.model import CacheQuery, CountQuery, Decision, Verdict
from alertrouter.store.store import LATE_COPY_HOLD_MS, AlertStore

#: Datadog waits 15 s for an answer and Alertmanager 10 s; two have gone by waiting for Redis.
_BUDGET_S = 5.0
_AT_ONCE = 32
#: A sender that is asked to try again sends what went through once more.
_REMEMBERED_MS = 10 * 60_000
_MOST_REMEMBERED = 100_000
_AGAIN_AFTER_S = 0.5
#: Redis is away after this many failures within that time.
_FAILURES = 3
_FAILURES_WITHIN_MS = 5_000
#: No rule counts that far.
_MANY = 10**9

_log = structlog.get_logger()


class Direct(StrEnum):
    """What became of an alert on the direct path."""

    SENT = "sent_directly"
    KEPT = "kept_for_redis"
    DUPLICATE = "duplicate"
    SUPPRESSED = "suppressed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class _Way:
    """One alert and where it goes."""

    alert: Alert
    decision: Decision
    action: Action
    destination: str
    key: str = field(repr=False)
    dedup_key: str
    rank: Rank
    active: ActiveRules = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Last:
    """What PagerDuty was last told of an alert by us, and when."""

    action: Action
    episode: str
    severity: Severity
    key: str = field(repr=False)
    dedup_key: str = ""
    content: str = ""
    at: int = 0


class Breaker:
    """Whether Redis is to be asked at all. Open after three failures in a row within five seconds, until closed."""

    def __init__(self) -> None:
        self.is_open = False
        self._failures: list[int] = []

    def failed(self, now: int) -> None:
        """Redis did not confirm something at `now` (ms)."""
        self._failures = [at for at in self._failures if at > now - _FAILURES_WITHIN_MS] + [now]
        self.is_open = self.is_open or len(self._failures) >= _FAILURES

    def succeeded(self) -> None:
        """Redis confirmed something: what failed before was not because it is away."""
        self._failures.clear()

    def close(self) -> None:
        """Redis answers again."""
        self.is_open = False
        self._failures.clear()


class DirectPath:
    """Sends alerts past Redis and tells Redis of it afterwards."""

    def __init__(
        self,
        pagerduty: PagerDuty,
        rules: Callable[[], ActiveRules],
        clock: Callable[[], int],
        journal: Journal,
        ahead: Callable[[], int] = lambda: 0,
        changes: Callable[[str], Sequence[Link]] = lambda _: (),
    ) -> None:
        """`ahead` says how far `clock` is ahead of the time of day, in ms; `changes` what was changed of a service lately."""
        self._changes = changes
        self._pagerduty = pagerduty
        self._rules = rules
        self._clock = clock
        self._ahead = ahead
        self._journal = journal
        self._slots = _Slots(_AT_ONCE)
        self._turns: defaultdict[str, _Turn] = defaultdict(_Turn)
        self._last: OrderedDict[str, _Last] = OrderedDict()
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.journal_problem = ""

    async def accept(self, alerts: Sequence[Alert]) -> list[Direct]:
        """Judge and send `alerts`; returns what became of each. Raises StoreUnavailable unless all were taken.

        What went through is not sent again when the sender repeats the rest.
        """
        active = self._rules()
        now = self._clock()
        self._requests += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(_BUDGET_S):
                outcomes = await asyncio.gather(*(self._take(alert, active, now) for alert in alerts))
        except TimeoutError:
            raise StoreUnavailable(f"not all alerts could be sent within {_BUDGET_S:.0f} s") from None
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()
        taken = [outcome for outcome in outcomes if outcome is not None]
        if len(taken) < len(alerts):
            raise StoreUnavailable(f"{len(alerts) - len(taken)} of {len(alerts)} alerts wait for Redis to be back")
        return taken

    async def _take(self, alert: Alert, active: ActiveRules, now: int) -> Direct | None:
        """What became of one alert; None where the sender has to repeat it."""
        decision = decide_without_counts(alert, active, now, self._ahead())
        status = _status(alert, decision)
        if decision.dedup_key and status is Status.RESOLVED:
            return await self._leave_to_redis(alert, now)
        if decision.verdict is Verdict.DROP or (decision.verdict is Verdict.SUPPRESS and status is Status.FIRING):
            kept = await self._write(Begun(self._journal.next_number(), now, alert))
            return Direct(_KEPT_AS[decision.verdict]) if kept else None
        if status is Status.FIRING and decision.event.severity in (Severity.WARNING, Severity.INFO):
            return None
        destination = decision.destinations[0]
        key = active.key_of(destination)
        way = _Way(
            alert=alert,
            decision=decision,
            action=_ACTIONS[status],
            destination=destination,
            key=key,
            dedup_key=decision.dedup_key or _dedup_key(alert, key, active),
            rank=RANK_OF_SEVERITY[decision.event.severity] if status is Status.FIRING else Rank.RESOLVE,
            active=active,
        )
        async with self._turn(alert.id):
            return await self._send(way, now)

    async def _send(self, way: _Way, now: int) -> Direct | None:
        last = self._last.get(way.alert.id)
        if last is not None and last.at > now - _REMEMBERED_MS:
            if _is_repeated(way, last):
                return Direct.DUPLICATE
            if _is_late_copy(way, last, now):
                return None
            if way.action is not Action.TRIGGER:
                way = replace(way, key=last.key, dedup_key=last.dedup_key)  # where its trigger went
                if way.action is Action.RESOLVE and way.dedup_key not in ("", way.alert.id):
                    return await self._leave_to_redis(way.alert, now)
        fallback = way.active.key_of(FALLBACK)
        told, journaled = await self._send_by(way, now)
        if isinstance(told, Refused) and way.action is Action.TRIGGER and fallback != way.key:
            way = replace(way, key=fallback)
            told, journaled = await self._send_by(way, now)
        if not isinstance(told, State) or told is State.NOTHING:
            return None
        if journaled or way.action is Action.TRIGGER:
            self._remember(way, now)
        # without the journal nobody would know which key a page is open under; a page itself must not wait for a disk
        return Direct.SENT if journaled or way.action is Action.TRIGGER else None

    async def _leave_to_redis(self, alert: Alert, now: int) -> Direct | None:
        """A resolve of an incident that is shared: only Redis knows whether others keep it open."""
        kept = await self._write(Begun(self._journal.next_number(), now, alert))
        return Direct.KEPT if kept else None

    async def _send_by(self, way: _Way, now: int) -> tuple[State | Refused | None, bool]:
        """What came of sending by the way's key, and whether all of it is in the journal."""
        number = self._journal.next_number()
        begun = await self._write(Begun(number, now, way.alert, way.destination, way.key, way.dedup_key))
        async with self._slots.taken(way.rank):
            told = await self._post(way)
        if told is None:
            return None, begun  # nobody knows, and so says the journal
        ended = await self._write(Ended(number, told if isinstance(told, State) else State.NOTHING))
        return told, begun and ended

    async def _post(self, way: _Way) -> State | Refused | None:
        """Send until it is taken, put off, or its key refused. NOTHING for put off; None where nobody knows."""
        alert = way.alert
        enriched = show(alert, way.decision, way.active.ruleset, self._changes(way.decision.service))
        dedup_key = way.dedup_key or alert.dedup_key
        rung = Rung.WHOLE
        log = _log.bind(dedup_key=alert.dedup_key, source=alert.source, destination=way.destination)
        unsure = False
        while True:
            body = encode_event(build_event(EventAction(way.action.value), way.key, dedup_key, enriched, rung))
            answer = await self._pagerduty.send(body)
            telemetry.DIRECT_SENDS.labels(_WORDS[type(answer)]).inc()
            match answer:
                case Delivered():
                    log.info("event delivered past Redis", action=way.action.value)
                    return STATE_AFTER[way.action]
                case TryAgain(retry_after_ms=None):
                    unsure = unsure or answer.ambiguous
                    await asyncio.sleep(_AGAIN_AFTER_S)
                case Refused(objection=Objection.KEY) if not unsure:
                    log.error("routing key refused", reason=answer.reason)
                    return answer
                case Refused() if way.action is Action.TRIGGER and rung < Rung.MINIMAL:
                    rung = Rung(rung + 1)
                case _:
                    log.warning("event not taken past Redis; the sender is asked to repeat it", reason=answer.reason)
                    return None if unsure else State.NOTHING

    def _remember(self, way: _Way, now: int) -> None:
        self._last.pop(way.alert.id, None)
        self._last[way.alert.id] = _Last(
            way.action, way.alert.episode, way.alert.event.severity, way.key, way.dedup_key, _content(way.alert), now
        )
        while self._last and (
            len(self._last) > _MOST_REMEMBERED or next(iter(self._last.values())).at <= now - _REMEMBERED_MS
        ):
            self._last.popitem(last=False)

    async def _write(self, line: Begun | Ended) -> bool:
        try:
            await self._journal.append(line)
        except OSError as error:
            if not self.journal_problem:
                _log.error("the journal cannot be written", error=str(error))
            self.journal_problem = str(error)
            return False
        self.journal_problem = ""
        return True

    @asynccontextmanager
    async def _turn(self, alert_id: str) -> AsyncIterator[None]:
        """Only one send of an alert at a time, in the order they came."""
        turn = self._turns[alert_id]
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[alert_id]

    @property
    def untold_bytes(self) -> int:
        """How much Redis has not been told of yet, of what this process sent."""
        return self._journal.size

    async def replay(self, store: AlertStore) -> None:
        """Tell `store` what was heard and sent past it, by this process and by dead ones. Raises StoreUnavailable."""
        for path in self._journal.others():
            with self._journal.adopting(path) as entries:
                await self._adopt(entries, store)
        while size := self._journal.size:
            await self._idle.wait()  # what is being sent has not ended in the journal yet
            size = self._journal.size
            await self._adopt(await asyncio.to_thread(self._journal.read), store)
            if self._idle.is_set() and self._journal.forget(size):
                return

    async def _adopt(self, entries: Sequence[Entry], store: AlertStore) -> None:
        for entry in entries:
            begun = entry.begun
            if entry.told is State.NOTHING:
                continue  # it reached nobody, and its sender was asked to repeat it
            told = None
            if begun.destination:
                told = Told(
                    begun.destination,
                    state=entry.told or State.NOTHING,
                    key=begun.key,
                    dedup_key=begun.dedup_key,
                    at=begun.at,
                )
            try:
                await store.adopt(begun.alert, begun.at, told, self._clock())
            except ForeignData as error:
                _log.error("an alert sent past Redis cannot be taken in", error=str(error))
        if entries:
            _log.info("what was sent past Redis is taken in", alerts=len(entries))


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class _Slots:
    """So many at once, and of those that wait the best rank first."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    @asynccontextmanager
    async def taken(self, rank: int) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (rank, next(self._numbers), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back()
                raise
        try:
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


_WORDS = {Delivered: "delivered", TryAgain: "again", Refused: "refused"}
_KEPT_AS = {Verdict.SUPPRESS: Direct.SUPPRESSED, Verdict.DROP: Direct.DROPPED}
_ACTIONS = {
    Status.FIRING: Action.TRIGGER,
    Status.ACKNOWLEDGED: Action.ACKNOWLEDGE,
    Status.RESOLVED: Action.RESOLVE,
}


class _AllCounted(dict[CountQuery | CacheQuery, int | str | None]):
    """The same answer to every question of a threshold; nothing is remembered."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self._answer = answer

    def __contains__(self, query: object) -> bool:
        return True

    def __missing__(self, query: CountQuery | CacheQuery) -> int | None:
        return self._answer if isinstance(query, CountQuery) else None


def decide_without_counts(alert: Alert, active: ActiveRules, now: int, ahead: int = 0) -> Decision:
    """The decision where nothing can be counted: a suppression or drop that hangs on a count does not apply."""
    decision = decide(alert, active.ruleset, now, _AllCounted(1), ahead=ahead)
    if decision.verdict is Verdict.DELIVER:
        return decision
    if_many = decide(alert, active.ruleset, now, _AllCounted(_MANY), ahead=ahead)
    return if_many if if_many.verdict is Verdict.DELIVER else decision


def _status(alert: Alert, decision: Decision) -> Status:
    """What was heard, unless a rule says to take it for the opposite."""
    if decision.event_action == Action.RESOLVE:
        return Status.RESOLVED
    if decision.event_action == Action.TRIGGER and alert.status is Status.RESOLVED:
        return Status.FIRING
    return alert.status


def _is_repeated(way: _Way, last: _Last) -> bool:
    same = way.action is last.action and way.alert.episode == last.episode
    unchanged = way.alert.event.severity is last.severity and _content(way.alert) == last.content
    return same and (way.action is not Action.TRIGGER or unchanged)


def _dedup_key(alert: Alert, key: str, active: ActiveRules) -> str:
    """An event's key where it goes out by another integration's routing key, who may have the same one: its record's id.

    Only Redis knows whether that is so. Else "", for its own.
    """
    is_anothers = alert.enqueued is not None and active.integration_of(key) != alert.source
    return alert.id if is_anothers else ""


def _content(alert: Alert) -> str:
    """What tells another text of the alert from this one, where that is news."""
    return alert.enqueued.content if alert.enqueued else ""


def _is_late_copy(way: _Way, last: _Last, now: int) -> bool:
    """Firing just after the resolve of the same episode: held, as it would be with Redis."""
    is_copy = way.action is Action.TRIGGER and last.action is Action.RESOLVE and way.alert.episode == last.episode
    return is_copy and way.alert.episode != "" and last.at > now - LATE_COPY_HOLD_MS
