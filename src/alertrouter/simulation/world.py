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
from pathlib import Path
from types import MappingProxyType

import msgspec

from alertrouter.alert import Alert
from alertrouter.delivery.fallback import DirectPath
from alertrouter.delivery.journal import Journal
from alertrouter.delivery.judging import ActiveRules
from alertrouter.delivery.reconcile import Plan
from alertrouter.delivery.worker import Worker
from alertrouter.destinations.pagerduty import Outcome, classify
from alertrouter.record import Record
from alertrouter.rules.evaluate import DEFAULT_DESTINATION
from alertrouter.rules.model import Decision, Ruleset
from alertrouter.sandbox import Call
from alertrouter.sandbox.events_api import EventsApi
from alertrouter.store.connect import Client, connect
from alertrouter.store.embedded import start_embedded
from alertrouter.store.store import AlertStore, Dedup


class WorldClock:
    """Time as the world sets it, in ms since the epoch."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class PagerDutyInMemory:
    """Takes the place of the client: judges events as the sandbox does, or answers as it is told to.

    answer:  an HTTP status that it gives instead of taking events; 0 for none.
    calls:   every call, in order; whoever has read them may clear them.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.api = EventsApi()
        self.answer = 0
        self.calls: list[Call] = []

    async def send(self, body: bytes) -> Outcome:
        """What PagerDuty makes of one encoded event."""
        now = self._clock()
        if self.answer and self.answer != 202:
            return classify(self.answer, {}, b"", now)
        call = self.api.enqueue(body, now)
        self.calls.append(call)
        return classify(call.status, {}, msgspec.json.encode(call.answer), now)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was decided about a record at `at` (ms)."""

    at: int
    record: Record
    decision: Decision
    plan: Plan


@dataclass(slots=True)
class World:
    """One installation and its PagerDuty.

    judgements:  every one, in order; whoever has read them may clear them.
    """

    client: Client
    instance: str
    folder: Path
    clock: WorldClock
    active: ActiveRules
    dedup: Dedup = field(default_factory=Dedup)
    page_short: bool = False
    pagerduty: PagerDutyInMemory = field(init=False)
    judgements: list[Judgement] = field(default_factory=list)
    redis_is_away: bool = False
    store: AlertStore = field(init=False)
    worker: Worker = field(init=False)
    direct: DirectPath = field(init=False)
    _processes: int = 0

    def __post_init__(self) -> None:
        self.pagerduty = PagerDutyInMemory(self.clock)
        self.restart()

    def restart(self) -> None:
        """Another process on the same data."""
        self._processes += 1
        owner = f"{self._processes}"
        self.store = AlertStore(self.client, instance=self.instance, owner=owner, dedup=self.dedup)
        self.worker = Worker(
            self.store,
            self.pagerduty,
            lambda: self.active,
            self.clock,
            calls_per_minute=0,
            page_short=self.page_short,
            on_judged=self._note,
        )
        journal = Journal(self.folder / self.instance, owner)
        self.direct = DirectPath(self.pagerduty, lambda: self.active, self.clock, journal)
        self.worker.rejudge()

    def _note(self, record: Record, decision: Decision, plan: Plan, now: int) -> None:
        self.judgements.append(Judgement(now, record, decision, plan))

    async def hear(self, *alerts: Alert) -> Sequence[StrEnum]:
        """Take alerts in and let everything follow that follows at once; returns what each was.

        Raises StoreUnavailable where their sender would be asked to try again.
        """
        if self.redis_is_away:
            return await self.direct.accept(alerts)
        words = await self.store.accept(alerts, self.clock())
        await self.worker.run_until_idle()
        return words

    async def advance_to(self, at: int) -> None:
        """Go on to `at` (ms since the epoch), and on the way do what falls due, when it does."""
        while not self.redis_is_away:
            due = await self.store.next_due()
            if not due or due > at:
                break
            self.clock.now = max(self.clock.now, due)
            await self.worker.run_until_idle()
            if await self.store.next_due() == due:
                break  # it waits for something that is not here
        self.clock.now = max(self.clock.now, at)
        if not self.redis_is_away:
            await self.worker.run_until_idle()

    async def change_rules(self, active: ActiveRules) -> None:
        """Put others in force, and judge again what the old ones kept from being sent."""
        self.active = active
        self.worker.rejudge()
        if not self.redis_is_away:
            await self.worker.run_until_idle()

    async def bring_redis_back(self) -> None:
        """Tell Redis what was sent past it."""
        self.redis_is_away = False
        await self.direct.replay(self.store)
        await self.worker.run_until_idle()


def keys_for(ruleset: Ruleset) -> ActiveRules:
    """The rules with a made-up key behind each destination: none of them is a secret, and each is told apart."""
    names = [DEFAULT_DESTINATION, *(f"pagerduty:{name}" for name, each in ruleset.services.items() if each.routing_key)]
    keys: Mapping[str, str] = {name: f"{number:032d}" for number, name in enumerate(names)}
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
