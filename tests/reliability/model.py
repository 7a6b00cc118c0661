"""A state machine that plays senders, rules, PagerDuty, clock and death against the real scripts and the real worker.

An oracle in plain Python says of every sighting whether it is news, of every call to PagerDuty whether it may be made,
and at the end, when everything has healed and come to rest, what PagerDuty must hold. It keeps its own books; of the
system it asks only how the newest news ended so far (`outcome`), which decides whether something is pending.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, cast

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec.structs import replace
from redis.asyncio import Redis

from alertrouter.alert import Alert, Severity, Status
from alertrouter.delivery.judging import ActiveRules
from alertrouter.delivery.silence import AutoResolve
from alertrouter.delivery.worker import Worker
from alertrouter.destinations import pagerduty
from alertrouter.destinations.pagerduty import FALLBACK, Delivered, Objection, PagerDutyClient, Refused, TryAgain
from alertrouter.errors import StoreUnavailable
from alertrouter.letter import Found
from alertrouter.record import SOURCE_SILENT_AFTER_MS, News, Outcome, Record
from alertrouter.rules.evaluate import DEFAULT_DESTINATION
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Ruleset
from alertrouter.rules.silences import Silence
from alertrouter.sandbox.events_api import EventsApi
from alertrouter.sandbox.events_api import Result as Applied
from alertrouter.store.store import (
    LATE_COPY_HOLD_MS,
    OWNER_DEAD_AFTER_MS,
    WINDOW_SLACK_MS,
    Accepted,
    AlertStore,
    Claim,
    Dedup,
    Settlement,
)
from tests.alerts import HOUR, MINUTE, SECOND, Clock, make_alert

T = TypeVar("T")

#: Two alerts of a sender that names its episodes, and one of a sender that does not (and knows acknowledging).
ALERTS = ("alertmanager:a", "alertmanager:b", "pagerduty:c")
KEYS = ("d" * 32, "n" * 32)
SEARCH_KEY = "5" * 32
SEARCH_DESTINATION = "pagerduty:search-service"
FALLBACK_KEY = "f" * 32
SUSPENDED_MS = 2 * MINUTE
#: A time-out's request is processed within this or never: repairs are sent after 90 s because of it.
LATEST_MS = 85 * SECOND
#: What is not repeated for that long is over, where silence says anything.
SILENT_MS = 6 * MINUTE
#: More take-overs than this and the system rightly takes the record for the killer of its workers.
MOST_INTERRUPTIONS = 4

_MUTE = "owner: team-sre, then: {suppress: true, reason: maintenance, expires: 2099-01-01}"
_HOURS = ", ".join(
    f'"now in Mon,Tue,Wed,Thu,Fri,Sat,Sun {hour:02}:00:00 to {hour:02}:20:00 Etc/UTC"' for hour in range(24)
)
_RULES = {
    "normal": "",
    "mute": f"rule: mute, {_MUTE}",
    "mute warnings": f"rule: mute, when: \"event.severity == 'warning'\", {_MUTE}",
    "mute hourly": f"rule: mute, when: [{_HOURS}], {_MUTE}",
    "drop": "rule: drop, owner: team-sre, then: {drop: true, reason: unwanted, expires: 2099-01-01}",
    "suspend": "rule: suspend, owner: team-sre, then: {suspend: 2m}",
    "route": "",
    "silence": "",
}
#: Somebody on call silences everything: as a rule that mutes, it stops no resolve.
_SILENCE = Silence(id="s", owner="anna", reason="r", added_at=0, ends_at=4_070_908_800_000, when="event.summary exists")
MODES = tuple(_RULES)


@cache
def ruleset(mode: str) -> Ruleset:
    """The rules of one mode, loaded from files as in production."""
    target = "search-service" if mode == "route" else "main-service"
    files = {
        "global.yaml": f"sets: {{start: [{{{_RULES[mode]}}}]}}\n" if _RULES[mode] else "sets: {start: []}\n",
        "router.yaml": f"sets: {{start: []}}\ncatch_all: {{route_to: {target}}}\n",
        "services/main-service.yaml": "service: main-service\nteam: t\ntier: 1\n",
        "services/search-service.yaml": (
            "service: search-service\nteam: t\ntier: 1\nrouting_key: {env: PD_KEY_SEARCH}\n"
        ),
    }
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return dataclasses.replace(load_rules(Path(folder)), silences=(_SILENCE,) if mode == "silence" else ())


class Died(Exception):
    """The worker's process is gone: nothing that it still does has an effect."""


@dataclass
class Life:
    """One worker process. `doom` is the step at which it dies: (script, or post, and before or after it)."""

    owner: str
    doom: tuple[str, str] | None = None
    dead: bool = False
    twice: str = ""
    lost: str = ""

    def passes(self, step: str, when: str) -> None:
        """Die here if this is where, and stay dead."""
        if self.doom == (step, when):
            self.dead = True
        if self.dead:
            raise Died


@dataclass
class Lease:
    """A claimed send that nobody has settled."""

    fence: str
    until: int
    owner: str


@dataclass
class Hung:
    """A POST whose answer has not come: the worker behind it is slow, stopped, or cut off."""

    life: Life
    body: bytes
    began: int
    answer: asyncio.Future[pagerduty.Outcome]
    task: asyncio.Task[Any] | None


@dataclass
class Book:
    """What the oracle knows of one alert.

    n:         the sighting that is the newest news; `resolved_n` the newest resolve, `fired_n` the newest firing.
    live:      firing, or acknowledged after it fired.
    open:      by routing key, the sighting that the newest trigger sent there showed, until a resolve was answered.
    tried:     keys that it was triggered with, as far as anybody knows.
    refused:   keys that PagerDuty refused, or under which it refused a resolve: what is open there may stay so.
    pages:     how often PagerDuty opened it, by routing key; `episodes` is how often it should have at most.
    silent:    it is over because it was not repeated since `last_heard`.
    """

    id: str
    heard: bool = False
    status: Status = Status.RESOLVED
    live: bool = False
    severity: Severity = Severity.CRITICAL
    episode: str = ""
    started: int = 0
    n: int = 0
    fired_n: int = 0
    resolved_n: int = 0
    fired_at: int = 0
    hold_until: int = 0
    window_ends: int = 0
    told_at: int = 0
    open: dict[str, int] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    pages: dict[str, int] = field(default_factory=dict)
    episodes: int = 0
    last: Alert | None = None
    last_heard: int = 0
    silent: bool = False

    @property
    def named(self) -> bool:
        """Whether its sender names episodes."""
        return self.id.startswith("alertmanager")

    def falls_silent(self, n: int) -> None:
        """It is over, as if its resolve had been heard."""
        self.status, self.live, self.silent = Status.RESOLVED, False, True
        self.n = self.resolved_n = n
        self.hold_until = 0

    def is_later(self, alert: Alert) -> bool:
        """Another occurrence than the newest heard of."""
        return bool(alert.episode and self.episode) and alert.episode_at > self.started

    def judges(self, alert: Alert, now: int, outcome: Outcome, dedup: Dedup) -> News | Accepted:
        """What this sighting is, by the table of transitions."""
        if alert.status is Status.FIRING:
            if not self.heard or not self.live:
                return News.NEW
            if self.is_later(alert):
                return News.EPISODE
            if alert.event.severity is not self.severity:
                return News.SEVERITY
            if outcome is Outcome.PENDING:
                return Accepted.DUPLICATE
            if outcome is not Outcome.DELIVERED:
                return News.AGAIN
            past = now >= self.window_ends or now >= self.told_at + dedup.resend_after_ms
            return News.REFRESH if past and self.status is Status.FIRING else Accepted.DUPLICATE
        if alert.status is Status.ACKNOWLEDGED:
            return Accepted.DUPLICATE if self.heard and self.status is Status.ACKNOWLEDGED else News.STATUS
        if not self.heard:
            return News.STATUS
        if self.status is Status.RESOLVED:
            return News.AGAIN if outcome is Outcome.DEAD_LETTERED else Accepted.DUPLICATE
        return Accepted.STALE if 0 < alert.ended_at < self.started else News.STATUS

    def takes(self, alert: Alert, kind: News | Accepted, n: int, now: int, dedup: Dedup) -> None:
        """Remember the sighting as what it is."""
        window = dedup.window_ms + (WINDOW_SLACK_MS if dedup.mode == "rolling" else 0)
        if isinstance(kind, News) or (kind is Accepted.DUPLICATE and alert.status is Status.FIRING):
            self.last_heard = now
        if isinstance(kind, Accepted):
            if kind is Accepted.DUPLICATE and alert.status is Status.FIRING and dedup.mode == "rolling":
                self.window_ends = now + window
            return
        is_copy = kind is News.NEW and self.heard and alert.episode and self.episode and not self.is_later(alert)
        late_copy = is_copy and not self.silent
        self.silent = False
        if kind is not News.SEVERITY:  # of another severity a late copy is one still
            self.hold_until = now + LATE_COPY_HOLD_MS if late_copy else 0
        if not (self.heard and self.started > alert.episode_at):
            self.episode, self.started = alert.episode, alert.episode_at
        match alert.status:
            case Status.FIRING:
                self.episodes += kind is News.NEW
                if kind in (News.NEW, News.EPISODE):
                    self.fired_at = now
                if not (kind is News.AGAIN and self.status is Status.ACKNOWLEDGED):
                    self.status = Status.FIRING
                self.live, self.fired_n = True, n
            case Status.ACKNOWLEDGED:
                self.status = Status.ACKNOWLEDGED
            case Status.RESOLVED:
                self.status, self.live, self.resolved_n = Status.RESOLVED, False, n
        self.heard, self.severity, self.n = True, alert.event.severity, n
        self.window_ends = now + window
        self.last = alert


class WatchedStore(AlertStore):
    """The real store, of a worker that may die at any script, be answered late, or do a step twice."""

    def __init__(self, machine: Machine, life: Life) -> None:
        super().__init__(machine.client, owner=life.owner, dedup=machine.dedup)
        self._machine = machine
        self._life = life

    async def _run(self, name: str, keys: list[str], arguments: Sequence[str | int | bytes]) -> Any:
        life = self._life
        life.passes(name, "before")
        answer = await super()._run(name, keys, arguments)
        if name == "resolve_unheard" and answer:
            self._machine.note_silent(str(arguments[1]), int(arguments[0]))
        if life.twice == name:
            life.twice = ""
            await super()._run(name, keys, arguments)
        life.passes(name, "after")
        if life.lost == name:
            life.lost = ""
            raise StoreUnavailable("the answer is lost")
        return answer

    async def claim_due(self, now: int, most: int) -> tuple[list[Record], int]:
        """Whoever takes a lease over without a report must know that the send may have happened."""
        records, next_due = await super().claim_due(now, most)
        self._machine.beats[self.owner] = now
        for record in records:
            self._machine.look_at_takeover(record)
        return records, next_due

    async def claim_sends(
        self, now: int, most: int, calls_per_minute: int, own_limits: Mapping[str, int] = MappingProxyType({})
    ) -> tuple[list[Claim], int]:
        """One lease at a time for each alert and destination."""
        claims, next_call = await super().claim_sends(now, most, calls_per_minute, own_limits)
        self._machine.beats[self.owner] = now
        for claim in claims:
            self._machine.look_at_claim(claim, self.owner, now)
        return claims, next_call

    async def _settle(self, batch: Sequence[tuple[Settlement, int]]) -> list[int]:
        """A send that was put down gives its lease back."""
        results = await super()._settle(batch)
        for (settlement, now), settled in zip(batch, results, strict=True):
            self._machine.note_settled(settlement, bool(settled), now)
        self._life.passes("settle", "put down")
        return results

    async def leave(self) -> None:
        self._life.passes("leave", "before")
        await super().leave()
        self._machine.beats[self.owner] = 0


class WatchedWorker(Worker):
    """The real worker; what goes wrong in a send is the test's to know."""

    def __init__(self, machine: Machine, life: Life, send: Callable[[bytes], Coroutine[Any, Any, pagerduty.Outcome]]):
        self.store = WatchedStore(machine, life)
        self.life = life
        self._machine = machine
        super().__init__(
            self.store,
            cast(PagerDutyClient, _Line(send)),
            lambda: machine.active,
            machine.clock,
            calls_per_minute=machine.limit,
            page_short=machine.page_short,
            auto_resolve=AutoResolve(SILENT_MS) if machine.silence else None,
        )

    def _sent(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Died):
            self._machine.wrong(f"a send ended in {error!r}")
        super()._sent(task)


@dataclass
class _Line:
    """Takes the place of PagerDutyClient."""

    send: Callable[[bytes], Coroutine[Any, Any, pagerduty.Outcome]]


class Machine(RuleBasedStateMachine):
    """Everything that may happen, in any order. `wrong` collects what must not be; each step ends by looking at it."""

    #: The event loop and the server of the test that runs this.
    transitions: ClassVar[int] = 0
    loop: ClassVar[asyncio.AbstractEventLoop]
    client: ClassVar[Redis]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.letters: Sequence[Found] = ()
        self.api = EventsApi()
        self.books = {name: Book(name) for name in ALERTS}
        self.faults: deque[str] = deque()
        self.late: list[tuple[int, bytes]] = []
        self.hung: list[Hung] = []
        self.leases: dict[tuple[str, str], Lease] = {}
        self.beats: dict[str, int] = {}
        self.posts: list[tuple[str, str, str, int]] = []
        self.complaints: list[str] = []
        self.interruptions = 0
        self.workers = 0
        self.sightings = 0
        self.faulty = False
        self.blind = False
        self.sound = True
        self.idle_at = -1

    # --- the run ----------------------------------------------------------------------------------------------------

    @initialize(
        mode=st.sampled_from(["rolling", "rolling", "rolling", "fixed"]),
        limit=st.sampled_from([0, 0, 0, 4]),
        page_short=st.sampled_from([False, False, False, True]),
        silence=st.booleans(),
    )
    def start(self, mode: str = "rolling", limit: int = 0, page_short: bool = False, silence: bool = False) -> None:
        """An empty server and one worker."""
        self.dedup = Dedup(mode=mode)
        self.limit = limit
        self.page_short = page_short
        self.silence = silence
        self.heard_at: list[int] = []
        self.mode = "normal"
        self.default_key = KEYS[0]
        self._activate()
        self._do(self.client.flushall())
        self.worker = self._new_worker()

    def teardown(self) -> None:
        """Heal everything, let it come to rest, and compare what PagerDuty holds with what was heard."""
        if not hasattr(self, "worker"):
            return
        try:
            if self.sound:
                self.heal_everything()
        finally:
            for hung in list(self.hung):
                self._bury(hung.life, late=False)

    def _do(self, step: Awaitable[T]) -> T:
        return self.loop.run_until_complete(step)

    def _new_worker(self) -> WatchedWorker:
        self.workers += 1
        life = Life(f"worker-{self.workers}")
        return WatchedWorker(self, life, lambda body: self._post(life, body))

    def _activate(self) -> None:
        keys = {DEFAULT_DESTINATION: self.default_key, SEARCH_DESTINATION: SEARCH_KEY, FALLBACK: FALLBACK_KEY}
        self.active = ActiveRules(ruleset(self.mode), MappingProxyType(keys))

    def wrong(self, complaint: str) -> None:
        """Note what must not be; the step that is under way ends with it."""
        self.complaints.append(complaint)

    def _look(self) -> None:
        """What holds after every step."""
        self.sound = False
        assert not self.complaints, self.complaints
        for book in self.books.values():
            if book.heard:
                record = self._record(book.id)
                assert record is not None, f"{book.id} is forgotten"
                self._look_at_record(book, record)
        self.sound = True

    def _record(self, name: str) -> Record | None:
        return self._do(self.worker.store.record(name))

    def _look_at_record(self, book: Book, record: Record) -> None:
        assert record.status == book.status, f"{book.id} is {record.status}, not {book.status}"
        unclear = any(told.unsure or told.lease_until for told in record.told) or self._keys_in_the_air(book)
        if unclear or record.poisoned:
            return
        held_open = {key for key, name in self.api.alerts if name == book.id}
        if book.live and record.outcome is Outcome.DELIVERED:
            assert held_open, f"{book.id} is said to be delivered, and is not open at PagerDuty"
        if not book.live and record.outcome not in (Outcome.PENDING, Outcome.DEAD_LETTERED):
            assert held_open <= book.refused, f"{book.id} ended as {record.outcome}, and is open at PagerDuty"

    def _keys_in_the_air(self, book: Book) -> set[str]:
        """The keys of what PagerDuty may yet process."""
        bodies = [body for _, body in self.late] + [hung.body for hung in self.hung]
        events = [msgspec.json.decode(body) for body in bodies]
        return {event["routing_key"] for event in events if event["dedup_key"] == book.id}

    # --- the worker -------------------------------------------------------------------------------------------------

    def _work(self, how: str = "run") -> None:
        """Let the worker act: `run` until idle, `judge` without sending, `hang` in its sends, or do nothing (`wait`)."""
        if how == "hang":
            self._hang()
        elif how != "wait":
            try:
                self._do(self.worker._judge_due() if how == "judge" else self.worker.run_until_idle())
            except (Died, StoreUnavailable):
                self.faulty = True
            self.idle_at = self.clock() if how == "run" else -1
            if how == "run" and not self.faulty and self.silence:
                self._look_at_silence()
            if self.worker.life.dead:
                self.faulty = True
                self.worker = self._new_worker()
                self.idle_at = -1
        else:
            self.idle_at = -1
        self._look()

    def _hang(self) -> None:
        """Another worker takes what there is to send, and gets no answer."""
        self.workers += 1
        life = Life(f"slow-{self.workers}")
        worker = WatchedWorker(self, life, lambda body: self._post(life, body, hangs=True))
        self.interruptions += 1
        self.faulty = True
        self.idle_at = -1

        async def work() -> None:
            await worker._judge_due()
            await worker._begin_sends()
            for _ in range(20):
                await asyncio.sleep(0)

        self._do(work())

    def _look_at_silence(self) -> None:
        """Nothing is left open whose sender goes on without it. That it was heard is put down once a minute only.

        What rules kept from everybody is not looked at: it is forgotten.
        """
        now = self.clock()
        for book in self.books.values():
            if not book.tried and self.mode not in ("normal", "route", "suspend"):
                continue
            if book.heard and book.status is not Status.RESOLVED and book.named and now >= book.last_heard + SILENT_MS:
                times = [at for at in self.heard_at if at >= book.last_heard]
                gaps = [later - earlier for earlier, later in zip(times, [*times[1:], now], strict=True)]
                if max(gaps) < SOURCE_SILENT_AFTER_MS - 2 * MINUTE:
                    self.wrong(f"{book.id} is not repeated since {book.last_heard}, and fires")

    def look_at_takeover(self, record: Record) -> None:
        """A lease that fell without a report leaves the destination unsure."""
        for (name, destination), lease in list(self.leases.items()):
            told = record.told_of(destination)
            if name == record.id and not told.lease_until:
                if not told.unsure:
                    self.wrong(f"{name}: lease {lease.fence} was taken over and nothing is to be repaired")
                self.books.get(name, Book("")).tried.add(told.key)
                del self.leases[name, destination]

    def look_at_claim(self, claim: Claim, owner: str, now: int) -> None:
        """At most one lease that has not fallen."""
        place = (claim.record.id, claim.destination)
        held = self.leases.get(place)
        if held and held.until > now and now - self.beats.get(held.owner, now) < OWNER_DEAD_AFTER_MS:
            self.wrong(f"{place} is leased twice")
        self.leases[place] = Lease(claim.fence, claim.lease_until, owner)

    def note_settled(self, settlement: Settlement, settled: bool, now: int) -> None:
        """The lease is given back; what was delivered by a trigger is from now on the last delivery."""
        claim = settlement.claim
        place = (claim.record.id, claim.destination)
        if place in self.leases and self.leases[place].fence == claim.fence:
            del self.leases[place]
        book = self.books.get(claim.record.id, Book(""))  # alarms of alertrouter's own are nobody's here
        if settled and settlement.result == "delivered":
            key = claim.record.told_of(claim.destination).key
            if settlement.state == "triggered":
                book.told_at = now
            elif settlement.state == "resolved":
                book.open.pop(key, None)

    def note_silent(self, name: str, now: int) -> None:
        """An alert is resolved for its silence: its sender was not silent, and had the time to repeat it."""
        book = self.books[name]
        if not (book.named and self.silence and self._is_silent(book, now, SOURCE_SILENT_AFTER_MS)):
            self.wrong(f"{name} is resolved as if it were silent")
        if not book.heard or book.status is Status.RESOLVED:
            self.wrong(f"{name} is over, and is resolved for its silence")
        self.sightings += 1
        book.falls_silent(self.sightings)

    def _is_silent(self, book: Book, now: int, away_after: int) -> bool:
        """Not repeated for long enough, in which its sender was never silent for `away_after`."""
        times = [at for at in self.heard_at if book.last_heard <= at <= now]
        if not times:
            return False
        gaps = [later - earlier for earlier, later in zip(times, [*times[1:], now], strict=True)]
        back = max((at for at, gap in zip(times[1:], gaps, strict=False) if gap > away_after), default=book.last_heard)
        return gaps[-1] <= away_after and now >= back + SILENT_MS

    # --- PagerDuty --------------------------------------------------------------------------------------------------

    async def _post(self, life: Life, body: bytes, *, hangs: bool = False) -> pagerduty.Outcome:
        life.passes("post", "before")
        event = msgspec.json.decode(body)
        if event["dedup_key"] not in self.books:  # an alarm of alertrouter's own
            self._apply(body)
            return Delivered("")
        book = self.books[event["dedup_key"]]
        key, action = event["routing_key"], event["event_action"]
        self._look_at_post(book, key, action, event)
        if hangs:
            if action == "trigger":
                book.open[key] = book.n
            hung = Hung(life, body, self.clock(), self.loop.create_future(), asyncio.current_task())
            self.hung.append(hung)
            return await hung.answer
        fault = self.faults.popleft() if self.faults else "ok"
        self.faulty = self.faulty or fault != "ok"
        answer = self._answer(fault, body, book, key, action)
        life.passes("post", "after")
        return answer

    def _answer(self, fault: str, body: bytes, book: Book, key: str, action: str) -> pagerduty.Outcome:
        if fault in ("400 key", "400 content"):
            if action == "resolve" or fault == "400 key":
                book.refused.add(key)
                book.open.pop(key, None)
            return Refused(400, "Event object is invalid", Objection(fault[4:]))
        if fault == "429":
            return TryAgain("HTTP 429", 30 * SECOND, ambiguous=False, throttled=True)
        if fault == "500":
            return TryAgain("HTTP 500", None, ambiguous=False)
        if action == "trigger":
            book.open[key] = book.n
        if fault == "no answer":
            return TryAgain("no answer", None, ambiguous=True)
        if fault == "processed late":
            self.late.append((self.clock() + LATEST_MS, body))
            return TryAgain("no answer", None, ambiguous=True)
        self._apply(body)
        if fault == "answer lost":
            return TryAgain("no answer", None, ambiguous=True)
        if action == "resolve":
            book.open.pop(key, None)
            book.refused.discard(key)
        return Delivered(book.id)

    def _apply(self, body: bytes) -> None:
        call = self.api.enqueue(body, self.clock())
        assert call.status == 202, call.answer
        if call.result is Applied.OPENED and call.event["dedup_key"] in self.books:
            pages = self.books[call.event["dedup_key"]].pages
            pages[call.routing_key] = pages.get(call.routing_key, 0) + 1

    def _look_at_post(self, book: Book, key: str, action: str, event: dict[str, Any]) -> None:
        """Whether this call, begun now by a worker that lives, follows from what was heard and from the rules in force."""
        now = self.clock()
        place = f"{action} of {book.id} to {key[:1]}"
        self._look_at_limit(key, now)
        summary = event["payload"]["summary"].removesuffix(" [shortened by alertrouter]") if action == "trigger" else ""
        if summary.startswith("An alert of "):
            book.tried.add(key)
            return  # set aside because its workers died: told in a minimal form
        n = book.n if action != "resolve" else book.resolved_n
        if not self.faulty and (action, key, book.id, n) in self.posts:
            self.wrong(f"{place} is made twice though nothing failed")
        self.posts.append((action, key, book.id, n))
        match action:
            case "trigger":
                self._look_at_trigger(book, key, place, summary, event["payload"]["severity"])
            case "acknowledge":
                if book.status is not Status.ACKNOWLEDGED and not self.faulty:
                    self.wrong(f"{place}: nobody has acknowledged it")
            case "resolve":
                if book.open.get(key, 0) > book.resolved_n:
                    self.wrong(f"{place} closes what is firing")
                if key not in book.tried and book.fired_n and book.named and not self.blind:
                    self.wrong(f"{place}: nothing was ever opened there")
                if book.resolved_n == 0:
                    self.wrong(f"{place}: no resolve was heard")
        book.tried.add(key)

    def _look_at_trigger(self, book: Book, key: str, place: str, summary: str, severity: str) -> None:
        now = self.clock()
        short = self.page_short and not book.live
        if not book.live and not short:
            self.wrong(f"{place}: it is over, or was never heard firing")
        if not short and (summary, severity) != (f"sighting {book.n}", book.severity):
            self.wrong(f"{place} shows {severity} {summary}, the newest is {book.severity} sighting {book.n}")
        if book.hold_until > now and book.live:
            self.wrong(f"{place}: a late copy is held")
        if not self._delivers(book):
            self.wrong(f"{place} is suppressed")
        current = SEARCH_KEY if self.mode == "route" else self.default_key
        stands_in = key == FALLBACK_KEY and book.refused
        if key != current and key not in book.tried and not (stands_in or self.blind):
            self.wrong(f"{place}: neither pinned nor in force")
        if self.mode == "suspend" and not book.tried and not self.blind and now < book.fired_at + SUSPENDED_MS:
            self.wrong(f"{place} is suspended")
        if 0 < book.open.get(key, book.n) < book.resolved_n < book.n:
            self.wrong(f"{place}: the resolve before it is owed")

    def _look_at_limit(self, key: str, now: int) -> None:
        if self.limit and not self.faulty:
            recent = sum(call.routing_key == key and call.received_at > now - MINUTE for call in self.api.calls)
            if recent >= self.limit:
                self.wrong(f"call {recent + 1} within a minute to {key[:1]}")

    def _delivers(self, book: Book) -> bool:
        """Whether the rules in force let a trigger of the newest news through."""
        seconds = self.clock() // SECOND % 3600
        match self.mode:
            case "mute" | "drop" | "silence":
                return False
            case "mute warnings":
                return book.severity is not Severity.WARNING
            case "mute hourly":
                return seconds > 20 * 60
            case _:
                return True

    # --- what is heard ----------------------------------------------------------------------------------------------

    def _alert(self, book: Book, status: Status, *, started: int, ended: int = 0, severity: Severity) -> Alert:
        self.sightings += 1
        source, _, fingerprint = book.id.partition(":")
        return make_alert(
            fingerprint,
            status,
            source=source,
            severity=severity,
            started=started if book.named else 0,
            ended=ended if book.named else 0,
            episode=None if book.named else "",
            summary=f"sighting {self.sightings}",
        )

    def _hear(self, alerts: Sequence[Alert], work: str, *, repeat: bool = False) -> None:
        """Accept one webhook, as its sender sees it: again if the answer was lost."""
        self.sound = False
        now = self.clock()
        quiet = self._is_quiet() and work == "run"
        store = self.worker.store
        opened = {alert.id: set(self.books[alert.id].open) for alert in alerts}
        unknown = {alert.id: not self.books[alert.id].fired_n for alert in alerts}
        known = {alert.id: self._record(alert.id) for alert in alerts}
        outcomes = {name: record.outcome if record else Outcome.PENDING for name, record in known.items()}
        versions = {name: record.version if record else 0 for name, record in known.items()}
        expected = []
        for alert in alerts:
            book = self.books[alert.id]
            kind = book.judges(alert, now, outcomes[alert.id], self.dedup)
            book.takes(alert, kind, int(alert.event.summary.removeprefix("sighting ")), now, self.dedup)
            if isinstance(kind, News):
                Machine.transitions += 1
                outcomes[alert.id] = Outcome.PENDING
                versions[alert.id] += 1
            expected.append(kind)
        heard = self._do(store.accept(alerts, now))
        if alerts[0].source == "alertmanager":
            self.heard_at.append(now)
        self._do(store.heard_from({alert.source for alert in alerts}, now))
        assert heard == expected, f"{[alert.status.value for alert in alerts]} heard as {heard}, not {expected}"
        if repeat:
            again = self._do(store.accept(alerts, now))
            assert all(isinstance(kind, Accepted) for kind in again), f"the same webhook again is news: {again}"
        for name, version in versions.items():
            record = self._record(name)
            assert record is not None and record.version == version, f"{name} has not as many versions as news"
        before = len(self.posts)
        self._work(work)
        self.sound = False
        if quiet and not self.faulty and len(alerts) == 1:
            self._look_at_effect(alerts[0], expected[0], opened[alerts[0].id], unknown[alerts[0].id], before)
        self.sound = True

    def _is_quiet(self) -> bool:
        """Nothing failed yet, and all that could be done by now was done."""
        return not (self.faulty or self.faults or self.limit or self.worker.life.doom) and self.idle_at == self.clock()

    def _look_at_effect(
        self, alert: Alert, kind: News | Accepted, opened: set[str], unknown: bool, before: int
    ) -> None:
        """What is heard in quiet times is told at once, and nothing else is."""
        book = self.books[alert.id]
        told = [(action, key) for action, key, _, _ in self.posts[before:]]
        if isinstance(kind, Accepted):
            assert not told, f"a {kind} is told: {told}"
        elif alert.status is Status.RESOLVED:
            everywhere = {("resolve", key) for key in opened}
            assert everywhere <= set(told), f"opened at {opened}, told {told}"
            if unknown and self.mode != "drop":
                assert told, "a resolve of the unknown is eaten"
        elif alert.status is Status.FIRING and book.status is Status.FIRING:
            waits = book.hold_until > self.clock() or (self.mode == "suspend" and not opened)
            if self._delivers(book) and not waits:
                assert "trigger" in {action for action, _ in told}, f"{kind} is not told: {told}"

    work = st.sampled_from(["run", "run", "run", "run", "wait", "judge", "hang"])
    names = st.sampled_from(ALERTS)
    severities = st.sampled_from([Severity.CRITICAL, Severity.WARNING])

    def _how(self, work: str) -> str:
        return "wait" if work == "hang" and self.interruptions >= MOST_INTERRUPTIONS else work

    @rule(name=names, work=work, repeat=st.booleans())
    def hear_firing(self, name: str, work: str = "run", repeat: bool = False) -> None:
        """Unchanged: new, a duplicate, a refresh, or a late copy of what was resolved."""
        book = self.books[name]
        alert = self._alert(book, Status.FIRING, started=book.started or self.clock(), severity=book.severity)
        self._hear([alert], self._how(work), repeat=repeat)

    @rule(name=names, work=work, repeat=st.booleans())
    def hear_later_episode(self, name: str, work: str = "run", repeat: bool = False) -> None:
        """It went and came back, whether or not its resolve was heard."""
        book = self.books[name]
        alert = self._alert(book, Status.FIRING, started=self.clock(), severity=book.severity)
        self._hear([alert], self._how(work), repeat=repeat)

    @rule(name=names, drift=st.sampled_from([SECOND, HOUR]), work=work)
    def hear_earlier_start(self, name: str, drift: int, work: str = "run") -> None:
        """Prometheus restarted, or its twin began to look earlier."""
        book = self.books[name]
        started = (book.started or self.clock()) - drift
        self._hear([self._alert(book, Status.FIRING, started=started, severity=book.severity)], self._how(work))

    @rule(name=names, severity=severities, work=work, repeat=st.booleans())
    def hear_severity(self, name: str, severity: Severity, work: str = "run", repeat: bool = False) -> None:
        """The same with a severity of its own."""
        book = self.books[name]
        alert = self._alert(book, Status.FIRING, started=book.started or self.clock(), severity=severity)
        self._hear([alert], self._how(work), repeat=repeat)

    @rule(name=names, work=work, repeat=st.booleans())
    def hear_resolved(self, name: str, work: str = "run", repeat: bool = False) -> None:
        """It is over; perhaps nobody ever heard of it."""
        book = self.books[name]
        ended = max(self.clock(), book.started)
        alert = self._alert(
            book, Status.RESOLVED, started=book.started or self.clock(), ended=ended, severity=book.severity
        )
        self._hear([alert], self._how(work), repeat=repeat)

    @rule(name=st.sampled_from(ALERTS[:2]), work=work)
    def hear_stale_resolve(self, name: str, work: str = "run") -> None:
        """The resolve of an episode before the present one comes late."""
        book = self.books[name]
        started = (book.started or self.clock()) - HOUR
        alert = self._alert(book, Status.RESOLVED, started=started, ended=started + HOUR - 1, severity=book.severity)
        self._hear([alert], self._how(work))

    @rule(work=work, repeat=st.booleans())
    def hear_acknowledged(self, work: str = "run", repeat: bool = False) -> None:
        """Somebody has it in hand."""
        book = self.books["pagerduty:c"]
        alert = self._alert(book, Status.ACKNOWLEDGED, started=0, severity=book.severity)
        self._hear([alert], self._how(work), repeat=repeat)

    @rule(first=st.sampled_from([Status.FIRING, Status.RESOLVED]), work=work, same=st.booleans())
    def hear_batch(self, first: Status, work: str = "run", same: bool = False) -> None:
        """One webhook with two alerts, or twice the same alert in another state."""
        books = [self.books[ALERTS[0]], self.books[ALERTS[0 if same else 1]]]
        second = Status.RESOLVED if first is Status.FIRING else Status.FIRING
        alerts = [
            self._alert(
                book,
                status,
                started=self.clock() if status is Status.FIRING else book.started or self.clock(),
                ended=max(self.clock(), book.started) if status is Status.RESOLVED else 0,
                severity=book.severity,
            )
            for book, status in zip(books, (first, second), strict=True)
        ]
        self._hear(alerts, self._how(work))

    @rule(name=names, work=work)
    def second_sender_repeats(self, name: str, work: str = "run") -> None:
        """The twin of the sender tells the newest news as well: a duplicate, unless that did not get through."""
        book = self.books[name]
        if book.last is not None:
            self.sightings += 1
            event = replace(book.last.event, summary=f"sighting {self.sightings}")
            self._hear([replace(book.last, event=event)], self._how(work))

    # --- time, rules ------------------------------------------------------------------------------------------------

    def _advance(self, ms: int) -> None:
        end = self.clock() + ms
        while due := sorted(at for at, _ in self.late if at <= end):
            self.clock.now = due[0]
            self._process_late(due[0])
        self.clock.now = end

    def _process_late(self, until: int) -> None:
        due, self.late = ([each for each in self.late if each[0] <= until], [e for e in self.late if e[0] > until])
        for _, body in due:
            self._apply(body)

    @rule(ms=st.sampled_from([1, SECOND, 11 * SECOND, 16 * SECOND, 30 * SECOND, 91 * SECOND]), work=work)
    def time_passes(self, ms: int, work: str = "run") -> None:
        """A little while: backoff, leases, holds and repairs."""
        self._advance(ms)
        self._work(self._how(work))

    @rule(ms=st.sampled_from([5 * MINUTE, 5 * MINUTE + 16 * SECOND, 4 * HOUR]))
    def much_time_passes(self, ms: int) -> None:
        """A window, or the time after which what is open is told again."""
        self._advance(ms)
        self._work()

    @rule(mode=st.sampled_from(MODES), work=work)
    def rules_change(self, mode: str, work: str = "run") -> None:
        """Other rules are loaded; what the old ones kept back is judged again."""
        self.mode = mode
        self._activate()
        self.worker.rejudge()
        self._work(self._how(work))

    @rule(work=work)
    def key_is_rotated(self, work: str = "run") -> None:
        """The default routing key is another."""
        self.default_key = KEYS[1 - KEYS.index(self.default_key)]
        self._activate()
        self.worker.rejudge()
        self._work(self._how(work))

    @rule()
    def dead_letters_are_looked_at(self) -> None:
        """Somebody reads what was given up; what is done about it later is done by what was read."""
        self.letters = self._do(self.worker.store.letters.page(self.clock()))

    @rule(work=work)
    def dead_letters_are_redriven(self, work: str = "run") -> None:
        """They are put back, whatever was heard and told since they were read."""
        before = {letter.letter.id: self._record(letter.letter.id) for letter in self.letters}
        words = self._do(self.worker.store.letters.redrive(self.letters, self.clock()))
        for letter, word in zip(self.letters, words, strict=True):
            record = before[letter.letter.id]
            if word == "redriven" and record is not None and not record.poisoned:
                told = record.told_of(letter.letter.destination)
                assert told.dead == letter.letter.version, f"{record.id}: newer news is overtaken"
        self._work(self._how(work))

    # --- what goes wrong --------------------------------------------------------------------------------------------

    @rule(
        fault=st.sampled_from(["429", "500", "400 content", "400 key", "no answer", "answer lost", "processed late"]),
        times=st.sampled_from([1, 1, 2, 5]),
    )
    def pagerduty_fails(self, fault: str, times: int = 1) -> None:
        """Its next answers are these."""
        self.faults.extend([fault] * times)

    @rule()
    def pagerduty_heals(self) -> None:
        """It answers as it should."""
        self.faults.clear()

    @precondition(lambda self: self.late)
    @rule()
    def pagerduty_catches_up(self) -> None:
        """What it took in and never answered is processed now."""
        self._process_late(self.clock() + LATEST_MS)
        self._look()

    @precondition(lambda self: self.interruptions < MOST_INTERRUPTIONS)
    @rule(
        step=st.sampled_from(["claim_due", "judged", "claim_sends", "post", "settle", "resolve_unheard"]),
        when=st.sampled_from(["before", "after"]),
    )
    def worker_will_die(self, step: str, when: str) -> None:
        """SIGKILL at this step, when it comes to it; another process takes its place."""
        self.interruptions += 1
        self.worker.life.doom = (step, "put down" if (step, when) == ("settle", "after") else when)
        self.blind = self.blind or (step, when) == ("claim_sends", "after")

    @precondition(lambda self: self.interruptions < MOST_INTERRUPTIONS)
    @rule(step=st.sampled_from(["claim_due", "judged", "claim_sends"]))
    def answer_of_redis_is_lost(self, step: str) -> None:
        """The script runs, and the worker does not know."""
        self.interruptions += 1
        self.faulty = True
        self.blind = self.blind or step == "claim_sends"
        self.worker.life.lost = step

    @rule(step=st.sampled_from(["judged", "settle", "resolve_unheard"]))
    def script_runs_twice(self, step: str) -> None:
        """Its first answer was lost, and it was asked again."""
        self.faulty = True
        self.worker.life.twice = step

    @rule()
    def scripts_are_flushed(self) -> None:
        """Redis was restarted and does not know the scripts any more."""
        self._do(self.client.script_flush())

    @rule(void=st.booleans())
    def process_restarts(self, void: bool) -> None:
        """An orderly end and a new start; with an embedded Redis all leases found then are void."""
        self._do(self.worker.store.leave())
        self.worker = self._new_worker()
        if void:
            self._do(self.worker.store.void_leases())
            self.beats = dict.fromkeys(self.beats, 0)
        self.worker.rejudge()  # the rules and keys may have changed meanwhile
        self._work()

    @precondition(lambda self: self.hung)
    @rule(applied=st.booleans(), work=work)
    def slow_worker_goes_on(self, applied: bool, work: str = "run") -> None:
        """A stopped process is continued: PagerDuty gets its event only now, and its settlement comes late."""
        self._finish(self.hung.pop(0), applied)
        self._work(self._how(work))

    @precondition(lambda self: self.hung)
    @rule(late=st.booleans())
    def slow_worker_dies(self, late: bool) -> None:
        """Nobody will settle what it sent, which PagerDuty may yet process."""
        self._bury(self.hung[0].life, late=late)
        self._look()

    def _finish(self, hung: Hung, applied: bool) -> None:
        event = msgspec.json.decode(hung.body)
        record = self._record(event["dedup_key"])
        if record is not None and event["routing_key"] not in {told.key for told in record.told}:
            applied = False  # under a key that the alert no longer has nobody closes it: not promised
        if applied:
            self._apply(hung.body)
        hung.answer.set_result(Delivered("") if applied else TryAgain("no answer", None, ambiguous=True))
        if hung.task is not None:
            self._do(asyncio.wait([hung.task]))

    def _bury(self, life: Life, *, late: bool) -> None:
        life.dead = True
        for hung in [hung for hung in self.hung if hung.life is life]:
            self.hung.remove(hung)
            if late and hung.began + LATEST_MS > self.clock():
                self.late.append((hung.began + LATEST_MS, hung.body))
            hung.answer.set_exception(Died())
            if hung.task is not None:
                self._do(asyncio.wait([hung.task]))

    # --- the end ----------------------------------------------------------------------------------------------------

    def heal_everything(self) -> None:
        """At rest, PagerDuty holds what was heard last; nothing is lost, and what was opened can be closed."""
        self.faults.clear()
        self.silence, self.worker._auto_resolve = False, None  # silence would go on for ever
        self.worker.life.doom, self.worker.life.twice, self.worker.life.lost = None, "", ""
        for hung in list(self.hung):
            self._bury(hung.life, late=True)
        self._rest()
        if self.mode == "mute hourly":
            # its window ends, nothing more is heard, and within a minute everything that fires has paged
            past = self.clock() % HOUR
            self._advance(max(0, 21 * MINUTE - past))
            self._work()
            self._rest()
            self._advance(max(0, 21 * MINUTE - self.clock() % HOUR))
            self._work()
        self._look_at_ends()
        self.mode = "normal"
        self._activate()
        self.worker.rejudge()
        self._rest()
        self._look_at_pagerduty()
        posts = len(self.posts)
        self._advance(3 * HOUR)
        self._work()
        assert len(self.posts) == posts, f"it never rests: {self.posts[posts:]}"
        for book in self.books.values():
            if book.live:
                self.hear_resolved(book.id)
        self._rest()
        self._look_at_pagerduty()
        for book in self.books.values():
            for key, pages in book.pages.items():
                assert self.faulty or pages <= book.episodes, f"{book.id} paged {pages} times at {key[:1]}"

    def _rest(self) -> None:
        """Let time pass until nothing is left to do."""
        keys = self.worker.store.keys
        backlog: dict[str, int] = {}
        for _ in range(200):
            self._work()
            backlog = self._do(self.worker.store.backlog(self.clock()))
            first: list[tuple[bytes, float]] = self._do(cast(Any, self.client).zrange(keys.due, 0, 0, withscores=True))
            due = int(first[0][1]) if first else 0
            if backlog["leased"] or backlog["waiting"] or self.late:
                self._advance(16 * SECOND)
            elif due and due < self.clock() + 24 * HOUR:
                self._advance(max(due - self.clock(), 1))
            else:
                return
        raise AssertionError(f"it never comes to rest: {backlog}")

    def _look_at_ends(self) -> None:
        """Every alert's newest news ended, and how it did is on record."""
        ends = {(entry.get("id"), entry.get("version"), entry.get("outcome")) for entry in self._do(self._history())}
        letters = {field.decode().split("\n", 3)[3] for field in self._do(self._dead_letters())}
        for book in self.books.values():
            if not book.heard:
                continue
            record = self._record(book.id)
            assert record is not None
            assert record.outcome is not Outcome.PENDING, f"{book.id} never ended"
            assert (book.id, str(record.version), record.outcome) in ends, f"{book.id}: its end is not on record"
            if record.outcome is Outcome.DEAD_LETTERED:
                assert book.id in letters
            elif book.live and self._delivers(book):
                assert record.outcome is Outcome.DELIVERED, f"{book.id} fires, and ended as {record.outcome}"
            fields = self._do(cast(Any, self.client).hlen(self.worker.store.keys.alert + book.id))
            assert fields <= 30 + 16 * len(record.told), f"{book.id}: its record grew to {fields} fields"

    async def _history(self) -> list[dict[str, str]]:
        return await self.worker.store.history(10_000)

    async def _dead_letters(self) -> list[bytes]:
        return list(await cast(Any, self.client).hkeys(self.worker.store.keys.dead))

    def _look_at_pagerduty(self) -> None:
        """Open is what fires, closed is what is over; only where PagerDuty refused the resolve something stays."""
        for book in self.books.values():
            record = self._record(book.id)
            if record is None or record.poisoned:
                continue
            states = {key: alert.status for (key, name), alert in self.api.alerts.items() if name == book.id}
            if book.live:
                assert states, f"{book.id} fires, and is not open at PagerDuty"
                acknowledged = "acknowledged" in states.values()
                told = acknowledged or set(states) <= book.refused  # nobody can tell a key that is refused
                assert told or book.status is not Status.ACKNOWLEDGED, f"{book.id} is not acknowledged"
            else:
                assert set(states) <= book.refused, f"{book.id} is over, and open at PagerDuty"
