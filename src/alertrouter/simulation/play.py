"""One test, step by step, through a world of its own; what came of each step."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from alertrouter.alarms import SELF
from alertrouter.alert import Alert
from alertrouter.delivery.fallback import Direct
from alertrouter.delivery.judging import Counts
from alertrouter.errors import BadPayload, StoreUnavailable
from alertrouter.record import Outcome, Record
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.model import UNROUTED, Decision, Ruleset, RuleTrace, Verdict
from alertrouter.simulation.cases import Case, Sent, Step
from alertrouter.simulation.schema import Ending
from alertrouter.simulation.short_forms import Senders
from alertrouter.simulation.world import World, keys_for
from alertrouter.sources import find_parser
from alertrouter.store.store import Accepted

REDACTED = "[redacted]"

_DIRECT = {
    Direct.SENT: Ending.DELIVERED,
    Direct.KEPT: Ending.PENDING,
    Direct.DUPLICATE: Ending.DUPLICATE,
    Direct.SUPPRESSED: Ending.SUPPRESSED,
    Direct.DROPPED: Ending.DROPPED,
}


@dataclass(frozen=True, slots=True)
class Judged:
    """One decision, and what is needed to come to it again. at: ms since the epoch."""

    at: int
    alert: Alert
    ruleset: Ruleset
    decision: Decision
    counts: Counts | None = None

    def trace(self) -> tuple[RuleTrace, ...]:
        """Each rule looked at, with the reason in words."""
        return evaluate(self.alert, self.ruleset, self.at, counts=self.counts, trace=True).trace


@dataclass(frozen=True, slots=True)
class Came:
    """What came of a step for one alert: by the names that can be expected. judged: its latest decision."""

    values: Mapping[str, Any]
    judged: Judged | None = None
    news: str = ""


@dataclass(frozen=True, slots=True)
class Played:
    """What came of one step: for each alert it is about, and for those that earlier steps are about.

    judged:  every decision of this step.
    ended:   how alerts stood after it, in whatever step they were heard.
    """

    step: Step
    came: Sequence[Came]
    of: Mapping[int, Sequence[Came]]
    judged: Sequence[Judged]
    ended: frozenset[str]


@dataclass(slots=True, eq=False)
class _Subject:
    """An alert of the test. Without `alert` nothing was made of what was posted.

    said:     how its latest sighting ended, where that was plain at once.
    outcome:  how it stood when it was last looked at.
    """

    alert: Alert | None
    said: str = ""
    answer: int = 0
    reason: str = ""
    news: str = ""
    judged: Judged | None = None
    outcome: str = ""


async def play(case: Case, world: World, rulesets: Mapping[Path, Ruleset]) -> AsyncGenerator[Played]:
    """Go through the steps of a test. `rulesets` are those of the directories that its steps name."""
    player = _Player(world, rulesets)
    with _without_chance():
        for step in case.steps:
            yield await player.take(step)


@contextmanager
def _without_chance() -> Iterator[None]:
    """Retries wait a random time: here the same in each run."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


@dataclass(slots=True)
class _Player:
    world: World
    rulesets: Mapping[Path, Ruleset]
    senders: Senders = field(default_factory=Senders)
    subjects: dict[str, _Subject] = field(default_factory=dict)  # by the id of the alert's record
    heard: dict[int, list[_Subject]] = field(default_factory=dict)  # by the number of the step
    last: list[_Subject] = field(default_factory=list)

    async def take(self, step: Step) -> Played:
        world = self.world
        world.pagerduty.calls.clear()
        world.judgements.clear()
        if step.at > world.clock.now:  # else all that is due has happened with the step before
            await world.advance_to(step.at)
        judged: list[Judged] = []
        if step.sent is not None:
            judged = await self._post(step, step.sent)
        else:
            await self._happen(step)
        for each in world.judgements:
            if each.record.alert.source != SELF:
                found = Judged(each.at, each.record.alert, world.active.ruleset, each.decision, each.counts)
                judged.append(found)
                if subject := self.subjects.get(each.record.id):
                    subject.judged = found
        asked = {expected.of for expected in step.expect if expected.of is not None}
        came = [await self._came(step, subject) for subject in self.heard.get(step.number, self.last)]
        of = {number: [await self._came(step, subject) for subject in self.heard[number]] for number in asked}
        plans = [each.plan for each in world.judgements if each.record.alert.source != SELF]
        ended = {plan.outcome.value for plan in plans if plan.outcome is not Outcome.PENDING}
        ended |= {str(each.values["outcome"]) for each in came}
        return Played(step, came or [await self._came(step, _Subject(None))], of, judged, frozenset(ended))

    async def _happen(self, step: Step) -> None:
        world = self.world
        if step.pagerduty:
            world.pagerduty.answer = 0 if step.pagerduty == 202 else step.pagerduty
        elif step.redis == "down":
            world.redis_is_away = True
        elif step.redis == "up" and world.redis_is_away:
            await world.bring_redis_back()
        elif step.restart:
            world.restart()
            if not world.redis_is_away:
                await world.worker.run_until_idle()
        elif step.rules is not None:
            await world.change_rules(keys_for(self.rulesets[step.rules]))

    async def _post(self, step: Step, sent: Sent) -> list[Judged]:
        """Post what a sender sends; returns what was decided past Redis."""
        judged: list[Judged] = []
        self.last = self.heard[step.number] = []
        for body, content_type in self.senders.post(sent, step.at):
            judged += await self._hear(sent, body, content_type)
        return judged

    async def _hear(self, sent: Sent, body: bytes, content_type: str) -> list[Judged]:
        try:
            parse = find_parser(sent.source, self.world.active.ruleset.custom)
            payload = parse(body, {"content-type": content_type}, sent.source)
        except BadPayload as error:
            self.last.append(_Subject(None, Ending.REFUSED, error.status, error.reason))
            return []
        self.last += (_Subject(None, Ending.IGNORED, 202, reason) for reason in payload.ignored)
        if payload.skipped and not payload.alerts:
            self.last.append(_Subject(None, Ending.REFUSED, 400, payload.skipped[0].reason))
        subjects = [self.subjects.setdefault(alert.id, _Subject(alert)) for alert in payload.alerts]
        self.last += subjects
        past_redis = [
            Judged(self.world.clock(), alert, self.world.active.ruleset, self.world.decide_past_redis(alert))
            for alert in (payload.alerts if self.world.redis_is_away else ())
        ]
        for subject, each in zip(subjects, past_redis, strict=False):
            subject.judged = each
        words: Sequence[StrEnum | None]
        try:
            words = await self.world.hear(*payload.alerts)
        except StoreUnavailable:
            words = [None] * len(subjects)
        for subject, alert, word in zip(subjects, payload.alerts, words, strict=True):
            subject.alert = alert
            subject.answer = 503 if word is None else 202
            subject.news = str(word or "")
            subject.said = _said(word)
        return past_redis

    async def _came(self, step: Step, subject: _Subject) -> Came:
        alert = subject.alert
        calls = [call for call in self.world.pagerduty.calls if call.status == 202]
        values: dict[str, Any] = dict.fromkeys(
            ("service", "severity", "priority", "rule", "matched", "dedup_key", "destination", "event")
        )
        heard_now = step.sent is not None and subject in self.heard[step.number]
        values |= {"outcome": str(subject.said) or None, "reason": subject.reason}
        values["answer"] = subject.answer if heard_now else None
        values["events"] = [_redacted(call.event) for call in calls]
        values["open"] = [
            {
                "dedup_key": each.dedup_key,
                "status": each.status,
                "summary": each.summary,
                "severity": each.severity,
                "destination": self.world.destinations.get(each.routing_key, ""),
            }
            for each in self.world.pagerduty.api.alerts.values()
        ]
        if alert is None:
            return Came(values)
        record = None if self.world.redis_is_away else await self.world.store.record(alert.id)
        if heard_now and subject.said:
            subject.outcome = subject.said
        elif record is not None:
            subject.outcome = _outcome_of(record, self.world.clock())
        values["outcome"] = str(subject.outcome) or None
        shared = next((told.dedup_key for told in record.told if told.dedup_key), "") if record else ""
        keys = {alert.dedup_key, shared}
        values["dedup_key"] = shared or alert.dedup_key
        if subject.judged is not None:
            decision = subject.judged.decision
            values |= _decided(decision)
            keys.add(decision.dedup_key)
            values["dedup_key"] = shared or decision.dedup_key or alert.dedup_key
        if call := next((call for call in reversed(calls) if call.event.get("dedup_key") in keys), None):
            values["event"] = _redacted(call.event)
            values["destination"] = self.world.destinations.get(call.routing_key, "")
        return Came(values, subject.judged, subject.news)


def _said(word: StrEnum | None) -> str:
    """What is said of a sighting at once; "" where its record says it."""
    match word:
        case None:
            return Ending.REFUSED
        case Direct():
            return _DIRECT[word]
        case Accepted():
            return Ending(word.value)
    return ""


def _outcome_of(record: Record, now: int) -> str:
    if record.outcome is Outcome.PENDING and record.suspended_until > now:
        return Ending.SUSPENDED
    return Ending(record.outcome.value)


def _decided(decision: Decision) -> dict[str, Any]:
    unrouted = UNROUTED if decision.verdict is not Verdict.DROP else ""
    return {
        "service": decision.service or unrouted,
        "severity": decision.event.severity.value,
        "priority": decision.priority,
        "rule": decision.rule,
        "reason": decision.reason,
        "matched": list(decision.matched),
    }


def _redacted(event: Mapping[str, Any]) -> dict[str, Any]:
    return {**event, "routing_key": REDACTED}
