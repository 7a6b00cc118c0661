"""A world in which time is set and nothing is waited for: what `alertrouter test` and `replay` run alerts through.

It has the store with its Lua scripts on a real server, the worker, the direct path and the rules of `serve`; only the
clock and PagerDuty are others.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import msgspec

from alertrouter.alert import Alert
from alertrouter.delivery.fallback import DirectPath, decide_without_counts
from alertrouter.delivery.flapping import FlappingLimit
from alertrouter.delivery.journal import Journal
from alertrouter.delivery.judging import ActiveRules, Counts
from alertrouter.delivery.reconcile import Plan
from alertrouter.delivery.silence import AutoResolve
from alertrouter.delivery.worker import Worker
from alertrouter.destinations.pagerduty import Outcome, TryAgain, classify
from alertrouter.record import Record
from alertrouter.rules.evaluate import DEFAULT_DESTINATION
from alertrouter.rules.model import CacheQuery, CountQuery, Decision, Ruleset
from alertrouter.sandbox import Call
from alertrouter.sandbox.events_api import EventsApi
from alertrouter.store.connect import Client, connect
from alertrouter.store.embedded import start_embedded
from alertrouter.store.store import AlertStore, Claim, Dedup, Threshold


class WorldClock:
    """Time as the world sets it, in ms since the epoch."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class PagerDutyInMemory:
    """Takes the place of the client: judges events as the sandbox does, or answers as it is told to.

    answer:     an HTTP status that it gives instead of taking events; 0 for none.
    impatient:  whoever sends has no time to wait for a better answer.
    calls:      every call, in order; whoever has read them may clear them.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.api = EventsApi()
        self.answer = 0
        self.impatient = False
        self.calls: list[Call] = []

    async def send(self, body: bytes) -> Outcome:
        """What PagerDuty makes of one encoded event."""
        now = self._clock()
        if self.answer and self.answer != 202:
            outcome = classify(self.answer, {}, b"", now)
            if self.impatient and isinstance(outcome, TryAgain) and outcome.retry_after_ms is None:
                raise TimeoutError  # the direct path would try until its five seconds are over
            return outcome
        call = self.api.enqueue(body, now)
        self.calls.append(call)
        return classify(call.status, {}, msgspec.json.encode(call.answer), now)


class _Answers(dict[CountQuery | CacheQuery, int | str | None]):
    """What the store answered to rules. To what it was not asked, nothing."""

    def __contains__(self, query: object) -> bool:
        return True

    def __missing__(self, query: CountQuery | CacheQuery) -> int | None:
        return 0 if isinstance(query, CountQuery) else None


class WatchedStore(AlertStore):
    """The store, which writes down what rules ask of it, and when there is something to do next (ms, 0 for never)."""

    answers: dict[CountQuery | CacheQuery, int | str | None]
    _judge_at: int = 0
    _send_at: int = 0

    @property
    def due_at(self) -> int:
        return min(filter(None, (self._judge_at, self._send_at)), default=0)

    async def claim_due(self, now: int, most: int) -> tuple[list[Record], int]:
        records, self._judge_at = await super().claim_due(now, most)
        return records, self._judge_at

    async def claim_sends(
        self, now: int, most: int, calls_per_minute: int, own_limits: Mapping[str, int] = MappingProxyType({})
    ) -> tuple[list[Claim], int]:
        claims, self._send_at = await super().claim_sends(now, most, calls_per_minute, own_limits)
        return claims, self._send_at

    async def count(self, record: Record, thresholds: Sequence[Threshold], now: int) -> Sequence[int]:
        counts = await super().count(record, thresholds, now)
        for each, answer in zip(thresholds, counts, strict=True):
            for resetting in (False, True):  # the store is not told which
                self.answers[CountQuery(each.key, each.window_ms, resetting, each.only_look)] = answer
        return counts

    async def remembered(self, names: Sequence[str]) -> list[str | None]:
        values = await super().remembered(names)
        self.answers.update(zip(map(CacheQuery, names), values, strict=True))
        return values


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was decided about a record at `at` (ms). `counts` are the answers that the rules were given."""

    at: int
    record: Record
    decision: Decision
    plan: Plan
    counts: Counts = field(default_factory=_Answers)


@dataclass(slots=True)
class World:
    """One installation and its PagerDuty.

    judgements:    every one, in order; whoever has read them may clear them.
    destinations:  the name behind each routing key that was ever in force.
    """

    client: Client
    instance: str
    folder: Path
    clock: WorldClock
    active: ActiveRules
    dedup: Dedup = field(default_factory=Dedup)
    page_short: bool = False
    auto_resolve: AutoResolve | None = None
    flapping: FlappingLimit | None = None
    pagerduty: PagerDutyInMemory = field(init=False)
    judgements: list[Judgement] = field(default_factory=list)
    destinations: dict[str, str] = field(default_factory=dict)
    redis_is_away: bool = False
    store: WatchedStore = field(init=False)
    worker: Worker = field(init=False)
    direct: DirectPath = field(init=False)
    _journal: Journal | None = None
    _processes: int = 0
    _is_new: bool = True  # the present process has not looked at what there is yet

    def __post_init__(self) -> None:
        self.pagerduty = PagerDutyInMemory(self.clock)
        self._name_keys()
        self.restart()

    def restart(self) -> None:
        """Another process on the same data."""
        self._processes += 1
        self._is_new = True
        owner = f"{self._processes}"
        self.store = WatchedStore(self.client, instance=self.instance, owner=owner, dedup=self.dedup, history_length=0)
        self.store.answers = _Answers()
        self.worker = Worker(
            self.store,
            self.pagerduty,
            lambda: self.active,
            self.clock,
            calls_per_minute=0,
            page_short=self.page_short,
            on_judged=self._note,
            auto_resolve=self.auto_resolve,
            flapping=self.flapping,
        )
        self.close()
        self._journal = Journal(self.folder / self.instance, owner)
        self.direct = DirectPath(self.pagerduty, lambda: self.active, self.clock, self._journal)
        self.worker.rejudge()

    def close(self) -> None:
        """Give up the file of this process: another one may adopt it."""
        if self._journal is not None:
            self._journal.close()

    def _note(self, record: Record, decision: Decision, plan: Plan, now: int) -> None:
        counts, self.store.answers = self.store.answers, _Answers()
        self.judgements.append(Judgement(now, record, decision, plan, counts))

    def _name_keys(self) -> None:
        self.destinations.update((key, name) for name, key in self.active.routing_keys.items())

    async def hear(self, *alerts: Alert) -> Sequence[StrEnum]:
        """Take alerts in and let everything follow that follows at once; returns what each was.

        Raises StoreUnavailable where their sender would be asked to try again.
        """
        if self.redis_is_away:
            self.pagerduty.impatient = True
            try:
                return await self.direct.accept(alerts)
            finally:
                self.pagerduty.impatient = False
        words = await self.store.accept(alerts, self.clock())
        if self.auto_resolve is not None:
            await self.store.heard_from((alert.source for alert in alerts), self.clock())
        await self._follow()
        return words

    def decide_past_redis(self, alert: Alert) -> Decision:
        """What the direct path makes of an alert now."""
        return decide_without_counts(alert, self.active, self.clock())

    async def advance_to(self, at: int) -> None:
        """Go on to `at` (ms since the epoch), and on the way do what falls due, when it does."""
        while not self.redis_is_away:
            due = await self.store.next_due()
            if not (due and due <= at) and not self._is_new:
                self.clock.now = max(self.clock.now, at)
                return  # all that follows has followed
            if not due or due > at:
                break
            self.clock.now = max(self.clock.now, due)
            await self._follow()
            if await self.store.next_due() == due:
                break  # it waits for something that is not here
        self.clock.now = max(self.clock.now, at)
        if not self.redis_is_away:
            await self._follow()

    async def _follow(self) -> None:
        self._is_new = False
        await self.worker.run_until_idle()

    async def change_rules(self, active: ActiveRules) -> None:
        """Put others in force, and judge again what the old ones kept from being sent."""
        self.active = active
        self._name_keys()
        self.worker.rejudge()
        if not self.redis_is_away:
            await self._follow()

    async def bring_redis_back(self) -> None:
        """Tell Redis what was sent past it."""
        self.redis_is_away = False
        await self.direct.replay(self.store)
        await self._follow()


def keys_for(ruleset: Ruleset) -> ActiveRules:
    """The rules with a made-up key behind each destination: none of them is a secret, and each is told apart."""
    names = [DEFAULT_DESTINATION, *(f"pagerduty:{name}" for name, each in ruleset.services.items() if each.routing_key)]
    # of the name alone: what was opened under other rules is closed under these
    keys: Mapping[str, str] = {name: sha256(name.encode()).hexdigest()[:32] for name in names}
    return ActiveRules(ruleset, MappingProxyType(keys))


@asynccontextmanager
async def throwaway_redis() -> AsyncIterator[tuple[Client, Path]]:
    """A client of a server that keeps nothing, and a directory that is removed with it."""
    with tempfile.TemporaryDirectory(prefix="alertrouter-") as name:
        folder = Path(name)
        embedded = await start_embedded(folder / "redis", durable=False)
        client = connect(embedded.url)
        try:
            yield client, folder
        finally:
            await client.aclose()
            await embedded.stop()
