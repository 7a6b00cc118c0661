"""Recorded alerts through two rule sets, each with all its state, in the alerts' own time: what would page otherwise?

Both go side by side through the production store and worker, so that a recording may come from a pipe and be of any
length. What is compared is the episode of an alert: from firing to the next time it fires anew.
"""

from __future__ import annotations

import tempfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from alertrouter.alarms import OUR_OWN
from alertrouter.alert import Alert, Severity, Status
from alertrouter.delivery.reconcile import Action
from alertrouter.history.entries import Duplicate
from alertrouter.history.reading import Line, Recorded
from alertrouter.record import News, Outcome
from alertrouter.rules.model import Ruleset
from alertrouter.sandbox.events_api import Result
from alertrouter.simulation.quick_client import QuickClient
from alertrouter.simulation.world import Judgement, World, WorldClock, keys_for
from alertrouter.store.connect import Client
from alertrouter.store.embedded import start_embedded
from alertrouter.store.store import CLOSED_LIFETIME_MS, MOST_PER_CALL, WINDOW_SLACK_MS, Accepted, Dedup

#: How long both go on after the last alert: what was held back is sent by then.
_GO_ON_MS = 3600_000
#: Changes that are kept one by one; all are counted.
_SHOWN = 200
_UNROUTED = "unrouted"
_OURS = tuple(f"{source}:" for source in sorted(OUR_OWN))
_BEGINS = frozenset({News.NEW, News.EPISODE})
_SILENT = frozenset({Accepted.DUPLICATE, Accepted.STALE})
_KEPT_BACK = frozenset({Outcome.SUPPRESSED, Outcome.DROPPED})
_STATUSES = {status.value: status for status in Status}
_WORST_FIRST = {severity: rank for rank, severity in enumerate(Severity)}

_decode_alert = msgspec.json.Decoder(Alert).decode


class Kind(StrEnum):
    """What changes for an alert."""

    FEWER = "fewer"  # paged, and would not
    MORE = "more"  # did not page, and would
    MOVED = "moved"  # pages on both sides, not alike


@dataclass(frozen=True, slots=True)
class Page:
    """What a responder is shown of an alert: the worst that was sent of it."""

    service: str
    destination: str
    severity: Severity
    priority: str
    dedup_key: str


@dataclass(slots=True)
class Course:
    """What one rule set made of one episode. `page` is None where nobody was paged; `paged_at` when first (ms)."""

    page: Page | None = None
    paged_at: int = 0
    service: str = ""
    outcome: Outcome = Outcome.PENDING
    rule: str = ""
    reason: str = ""
    matched: tuple[str, ...] = ()
    held_back: bool = False

    def take(self, judged: Judgement) -> None:
        """Go on by one judgement."""
        decision, plan = judged.decision, judged.plan
        if judged.record.status is not Status.RESOLVED or not self.matched:
            self.service, self.rule, self.reason = decision.service, decision.rule, decision.reason
            self.matched = decision.matched
        if plan.sends:
            self.outcome = Outcome.DELIVERED
        elif plan.outcome is not Outcome.PENDING:
            self.outcome = plan.outcome
        self.held_back = self.held_back or plan.outcome in _KEPT_BACK
        for send in plan.sends:
            if send.action is not Action.TRIGGER:
                continue
            severity = decision.event.severity
            self.paged_at = self.paged_at or judged.at
            if self.page is None or _WORST_FIRST[severity] < _WORST_FIRST[self.page.severity]:
                self.page = Page(decision.service, send.destination, severity, decision.priority, decision.dedup_key)


@dataclass(frozen=True, slots=True)
class Change:
    """An episode that would go otherwise. at: when it began (ms).  fields: of a moved one, what differs."""

    kind: Kind
    id: str
    summary: str
    at: int
    before: Course
    after: Course
    fields: tuple[str, ...] = ()

    @property
    def service(self) -> str:
        """The service that is or was paged."""
        course = self.after if self.kind is Kind.MORE else self.before
        return (course.page.service if course.page else course.service) or _UNROUTED

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that make the difference, as far as that can be told from which ones matched."""
        for course in (self.after, self.before):
            if course.page is None and course.rule:
                return (course.rule,)
        before, after = self.before.matched, self.after.matched
        differing = [f"+{rule}" for rule in after if rule not in before]
        differing += [f"-{rule}" for rule in before if rule not in after]
        return tuple(differing) or after[-1:] or ("catch_all",)

    @property
    def is_lost_critical(self) -> bool:
        """A critical page that would not be."""
        return (
            self.kind is Kind.FEWER and self.before.page is not None and self.before.page.severity is Severity.CRITICAL
        )

    @property
    def is_downgraded_critical(self) -> bool:
        """A critical page that would be of a lesser severity."""
        return (
            self.kind is Kind.MOVED and "severity" in self.fields and _page(self.before).severity is Severity.CRITICAL
        )


@dataclass(slots=True)
class Side:
    """The counts of one rule set. `outcomes`, `paged` and `matched` are of episodes, by outcome, service and rule."""

    opened: int = 0
    events: int = 0
    refused: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    paged: Counter[str] = field(default_factory=Counter)
    severities: Counter[str] = field(default_factory=Counter)
    matched: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Difference:
    """Everything that was found.

    heard:          sightings; `duplicates` of them as short entries, `unknown` of those of alerts that the recording
                    never shows whole.
    changes:        per kind the first ones; `counts` has all.  lost_critical: every one.
    by_service:     (service, kind) of changes.  by_rule: likewise.  moves: (field, before, after).
    reasons:        (kind, service, rules, reason).
    """

    heard: int = 0
    duplicates: int = 0
    unknown: int = 0
    first_at: int = 0
    last_at: int = 0
    episodes: int = 0
    before: Side = field(default_factory=Side)
    after: Side = field(default_factory=Side)
    counts: Counter[Kind] = field(default_factory=Counter)
    suppressed: int = 0
    unsuppressed: int = 0
    new_unrouted: int = 0
    downgraded_critical: int = 0
    later: int = 0
    earlier: int = 0
    changes: dict[Kind, list[Change]] = field(default_factory=lambda: {kind: [] for kind in Kind})
    lost_critical: list[Change] = field(default_factory=list)
    by_service: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    by_rule: Counter[tuple[str, Kind]] = field(default_factory=Counter)
    moves: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    reasons: Counter[tuple[Kind, str, str, str]] = field(default_factory=Counter)

    @property
    def days(self) -> float:
        """How long a time the recording covers."""
        return (self.last_at - self.first_at) / 86_400_000


@dataclass(slots=True)
class _Episode:
    """One episode on both sides."""

    id: str
    summary: str
    at: int
    courses: tuple[Course, Course]


class _Replayed:
    """One rule set's world, gone through quickly: nothing is asked of it where nothing can have changed."""

    def __init__(self, world: World, client: QuickClient) -> None:
        self._world = world
        self._client = client
        dedup = world.dedup
        self._rolling = dedup.mode == "rolling"
        self._window = dedup.window_ms + (WINDOW_SLACK_MS if self._rolling else 0)
        #: Until when an unchanged firing alert is sure to be a duplicate, and when it will be forwarded again at the
        #: soonest (ms). Of what was not delivered, and of fixed windows, nobody can be sure.
        self._sure: dict[str, tuple[int, int]] = {}
        self._next_due = 0
        #: Closed records by when they closed: production's Redis forgets them a day later.
        self._closed: OrderedDict[str, int] = OrderedDict()
        self.forgotten: list[str] = []

    async def advance_to(self, at: int) -> Sequence[Judgement]:
        """Do what falls due up to `at` (ms), when it does; returns what was judged."""
        world = self._world
        while self._next_due and self._next_due <= at:
            due = self._next_due
            world.clock.now = max(world.clock.now, due)
            await self._work()
            if self._next_due == due:
                break
        world.clock.now = max(world.clock.now, at)
        await self._forget()
        return self._taken()

    async def hear(
        self, alerts: Sequence[Alert], *, unchanged: bool
    ) -> tuple[Sequence[News | Accepted], Sequence[Judgement]]:
        """Take alerts in at the present time; returns what each was, and what was judged.

        unchanged: they are as they were when they were last heard.
        """
        now = self._world.clock.now
        if unchanged and len(alerts) <= MOST_PER_CALL and all(self._is_sure(alert, now) for alert in alerts):
            self._client.expected = [Accepted.DUPLICATE.encode()] * len(alerts)
            try:
                words = await self._world.store.accept(alerts, now)
            finally:
                self._client.expected = None
        else:
            words = await self._world.store.accept(alerts, now)
        has_news = False
        for alert, word in zip(alerts, words, strict=True):
            if word not in _SILENT:
                has_news = True
                self._closed.pop(alert.id, None)
                self._sure.pop(alert.id, None)
            elif (sure := self._sure.get(alert.id)) and alert.status is Status.FIRING:
                self._sure[alert.id] = (now + self._window, sure[1])
        if has_news:
            await self._work()
        return words, self._taken()

    def _is_sure(self, alert: Alert, now: int) -> bool:
        window_ends, again_at = self._sure.get(alert.id, (0, 0))
        return now < window_ends and now < again_at and alert.status is Status.FIRING

    async def _work(self) -> None:
        await self._world.worker.run_until_idle()
        self._next_due = self._world.store.due_at

    def _taken(self) -> Sequence[Judgement]:
        judged, self._world.judgements = self._world.judgements, []
        again_after = self._world.dedup.resend_after_ms
        for each in judged:
            record = each.record
            self._sure.pop(record.id, None)
            if each.plan.wake_at:
                continue
            if record.status is Status.RESOLVED:
                self._closed[record.id] = each.at
                self._closed.move_to_end(record.id)
            elif (
                self._rolling
                and record.status is Status.FIRING
                and any(send.action is Action.TRIGGER for send in each.plan.sends)
            ):
                self._sure[record.id] = (record.last_heard + self._window, each.at + again_after)
        return judged

    async def _forget(self) -> None:
        oldest = self._world.clock.now - CLOSED_LIFETIME_MS
        old: list[str] = []
        for id_, at in self._closed.items():
            if at > oldest:
                break
            old.append(id_)
        if old:
            for id_ in old:
                del self._closed[id_]
            prefix = self._world.store.keys.alert
            await self._world.client.delete(*(prefix + id_ for id_ in old))
            self.forgotten += old

    def count(self, side: Side) -> None:
        """Add up what PagerDuty was sent."""
        for call in self._world.pagerduty.calls:
            side.events += 1
            side.opened += call.result is Result.OPENED
            side.refused += call.status != 202
        self._world.pagerduty.calls.clear()


class Replay:
    """Goes through a recording. `difference` has what was found so far, all of it after `run`."""

    def __init__(self, before: World, after: World, client: QuickClient) -> None:
        self._sides = (_Replayed(before, client), _Replayed(after, client))
        self._episodes: dict[str, _Episode] = {}
        self._alerts: dict[str, bytes] = {}
        self._forgotten: set[str] = set()
        self.difference = Difference()

    async def run(self, lines: Iterable[Line]) -> Difference:
        """Replay all of `lines`, which are in the order of time."""
        found = self.difference
        for at, group in groupby(lines, key=attrgetter("at")):
            same_time = list(group)
            if found.first_at:
                await self._advance_to(at)  # first of all: it lets go of what is heard again now
            alerts = [alert for line in same_time for alert in self._alerts_of(line)]
            if alerts:
                unchanged = all(isinstance(line, Duplicate) for line in same_time)
                if not found.first_at:
                    found.first_at = at
                    await self._advance_to(at)
                found.last_at = max(found.last_at, at)
                found.heard += len(alerts)
                await self._hear(alerts, max(at, found.last_at), unchanged=unchanged)
        await self._advance_to(found.last_at + _GO_ON_MS)
        for id_ in list(self._episodes):
            self._end(id_)
        return found

    def _alerts_of(self, line: Line) -> Iterator[Alert]:
        match line:
            case Recorded() | Duplicate() if line.id.startswith(_OURS):
                return  # an alarm about ourselves is beyond the rules
            case Recorded():
                if line.news != Accepted.STALE:  # a duplicate that follows repeats what it left as it was
                    self._alerts[line.alert.id] = msgspec.json.encode(line.alert)
                self._forgotten.discard(line.alert.id)
                yield line.alert
            case Duplicate():
                self.difference.duplicates += 1
                yield from self._repeated(line)

    def _repeated(self, line: Duplicate) -> Iterator[Alert]:
        known = self._alerts.get(line.id)
        status = _STATUSES.get(line.status)
        if known is None or status is None:
            self.difference.unknown += 1
            return
        alert = _decode_alert(known)
        yield alert if alert.status is status else replace(alert, status=status)

    async def _advance_to(self, at: int) -> None:
        for number, side in enumerate(self._sides):
            self._take(number, await side.advance_to(at))
        self._forget()

    async def _hear(self, alerts: Sequence[Alert], at: int, *, unchanged: bool) -> None:
        heard = [await side.hear(alerts, unchanged=unchanged) for side in self._sides]
        for number, alert in enumerate(alerts):
            words = [side_words[number] for side_words, _ in heard]
            if alert.id not in self._episodes or not _BEGINS.isdisjoint(words):
                self._begin(alert, words, at)
        for number, (_, judged) in enumerate(heard):
            self._take(number, judged)

    def _begin(self, alert: Alert, words: Sequence[News | Accepted], at: int) -> None:
        last = self._episodes.get(alert.id)
        self._end(alert.id)
        before, after = (
            Course() if last is None or word in _BEGINS else course
            for word, course in zip(words, last.courses if last else (None, None), strict=True)
        )
        self._episodes[alert.id] = _Episode(alert.id, alert.event.summary, at, (before or Course(), after or Course()))

    def _take(self, number: int, judged: Sequence[Judgement]) -> None:
        for each in judged:
            episode = self._episodes.get(each.record.id)
            if episode is not None:
                episode.courses[number].take(each)
        self._sides[number].count(self.difference.before if number == 0 else self.difference.after)

    def _forget(self) -> None:
        """Let go of what both sides have forgotten."""
        for side in self._sides:
            for id_ in side.forgotten:
                if id_ in self._forgotten:
                    self._forgotten.discard(id_)
                    self._end(id_)
                    self._alerts.pop(id_, None)
                else:
                    self._forgotten.add(id_)
            side.forgotten.clear()

    def _end(self, id_: str) -> None:
        episode = self._episodes.pop(id_, None)
        if episode is not None:
            _compare(episode, self.difference)


def _compare(episode: _Episode, found: Difference) -> None:
    """Add one episode to what was found."""
    before, after = episode.courses
    found.episodes += 1
    for side, course in ((found.before, before), (found.after, after)):
        side.outcomes[course.outcome.value] += 1
        side.matched.update(course.matched)
        if course.page:
            side.paged[course.page.service or _UNROUTED] += 1
            side.severities[course.page.severity.value] += 1
    found.suppressed += _is_suppressed(after) and not _is_suppressed(before)
    found.unsuppressed += _is_suppressed(before) and not _is_suppressed(after)
    found.new_unrouted += bool(after.page and not after.page.service and (before.service or before.page is None))
    change = _change(episode, before, after)
    if before.page and after.page:
        found.later += after.paged_at > before.paged_at
        found.earlier += after.paged_at < before.paged_at
    if change is None:
        return
    found.counts[change.kind] += 1
    if len(found.changes[change.kind]) < _SHOWN:
        found.changes[change.kind].append(change)
    if change.is_lost_critical:
        found.lost_critical.append(change)
    found.downgraded_critical += change.is_downgraded_critical
    found.by_service[change.service, change.kind] += 1
    for rule in change.rules:
        found.by_rule[rule, change.kind] += 1
    for name in change.fields:
        found.moves[name, str(getattr(before.page, name)), str(getattr(after.page, name))] += 1
    if change.kind is not Kind.MOVED:
        unpaged = after if change.kind is Kind.FEWER else before
        outcome = unpaged.outcome.value.replace("_", " ")
        why = f"{outcome}: {unpaged.reason}" if unpaged.reason else outcome
        found.reasons[change.kind, change.service, ", ".join(change.rules), why] += 1


def _change(episode: _Episode, before: Course, after: Course) -> Change | None:
    if before.page is None and after.page is None:
        return None
    fields: tuple[str, ...] = ()
    if before.page is None:
        kind = Kind.MORE
    elif after.page is None:
        kind = Kind.FEWER
    elif before.page != after.page:
        kind = Kind.MOVED
        fields = tuple(name for name in Page.__slots__ if getattr(before.page, name) != getattr(after.page, name))
    else:
        return None
    return Change(kind, episode.id, episode.summary, episode.at, before, after, fields)


def _is_suppressed(course: Course) -> bool:
    return course.page is None and course.held_back


def _page(course: Course) -> Page:
    assert course.page is not None
    return course.page


@dataclass(frozen=True, slots=True)
class Contender:
    """One of the two sides: rules, and the settings that decide with them."""

    ruleset: Ruleset
    dedup: Dedup = field(default_factory=Dedup)
    page_short: bool = False


async def replay(before: Contender, after: Contender, lines: Iterable[Line]) -> Difference:
    """What `after` would make otherwise of recorded `lines` than `before`. Needs no network, and sends nothing."""
    with tempfile.TemporaryDirectory(prefix="alertrouter-") as name:
        folder = Path(name)
        server = await start_embedded(folder / "redis", durable=False)
        try:
            with QuickClient(Path(server.url.removeprefix("unix://"))) as client:
                worlds = [
                    World(
                        cast(Client, cast(Any, client)),
                        instance,
                        folder,
                        WorldClock(0),
                        keys_for(side.ruleset),
                        dedup=side.dedup,
                        page_short=side.page_short,
                    )
                    for instance, side in (("before", before), ("after", after))
                ]
                try:
                    return await Replay(worlds[0], worlds[1], client).run(lines)
                finally:
                    for world in worlds:
                        world.close()
        finally:
            await server.stop()
