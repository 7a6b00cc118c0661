"""PagerDuty takes nothing, and a critical alert waits: that is told by the second channel, which leads past PagerDuty."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from alertrouter import telemetry
from alertrouter.alarms import DIGEST
from alertrouter.alert import Severity
from alertrouter.delivery.fallback import decide_without_counts
from alertrouter.delivery.judging import ActiveRules
from alertrouter.delivery.reconcile import Rank
from alertrouter.destinations.pagerduty import Outcome, PagerDuty, TryAgain
from alertrouter.destinations.second_channel import Mail, Message, SignedWebhook, post, send_mail
from alertrouter.errors import StoreUnavailable
from alertrouter.record import Record
from alertrouter.rules.model import Verdict
from alertrouter.store.store import TOLD_EVERY_MS, AlertStore

_LOOK_EVERY_S = 5.0
#: While PagerDuty fails each alert that is tried is tried again within a minute: a failure older than this is no news.
_STALE_MS = 3 * 60_000
#: What is looked at of each queue. More is counted as "at least".
_LOOKED_AT = 200
_SHOWN = 20

_log = structlog.get_logger()


class Reachability:
    """Stands before PagerDuty and sees since when it takes nothing. Whatever it answers but "again" counts as taking."""

    def __init__(self, pagerduty: PagerDuty, clock: Callable[[], int]) -> None:
        self._pagerduty = pagerduty
        self._clock = clock
        self.failing_since = 0  # ms, 0 while it takes events
        self.failed_at = 0
        self.reason = ""

    async def send(self, body: bytes) -> Outcome:
        """Post one encoded event, and see what became of it."""
        began = self._clock()
        answer = await self._pagerduty.send(body)
        if isinstance(answer, TryAgain):
            if not self.failing_since or began - self.failed_at > _STALE_MS:
                self.failing_since = began  # nothing was tried in between: nobody knows
            self.failed_at = self._clock()
            self.reason = answer.reason
        else:
            self.failing_since = 0
        telemetry.PAGERDUTY_FAILING_SINCE.set(self.failing_since / 1000)
        return answer


@dataclass(frozen=True, slots=True)
class Waiting:
    """A critical alert that waits for PagerDuty; since when it was heard of last, in ms."""

    dedup_key: str
    summary: str
    service: str
    heard_at: int


class Outage:
    """Tells the second channel once that an outage began, seldom that it goes on, and once that it is over.

    after_ms: how long PagerDuty must have taken nothing.
    ahead: how far `clock` is ahead of the time of day, in ms.
    """

    def __init__(
        self,
        store: AlertStore,
        reachability: Reachability,
        rules: Callable[[], ActiveRules],
        clock: Callable[[], int],
        webhook: SignedWebhook | None,
        mail: Mail | None,
        *,
        after_ms: int,
        instance: str,
        ahead: Callable[[], int] = lambda: 0,
    ) -> None:
        self._store = store
        self._reachability = reachability
        self._rules = rules
        self._clock = clock
        self._webhook = webhook
        self._mail = mail
        self._after_ms = after_ms
        self._instance = instance
        self._ahead = ahead
        self._told_alone = 0  # when this replica told it without Redis (ms)
        self.problem = ""

    async def watch(self) -> None:
        """Look again and again."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once, and tell what is to be told."""
        now = self._clock()
        since = self._reachability.failing_since
        is_failing = bool(since) and now - since >= self._after_ms
        if not is_failing and since:
            return  # it may become an outage: neither begun nor over
        waiting: list[Waiting] | None
        try:
            waiting = await self._waiting(now) if is_failing else []
            if waiting and now - self._reachability.failed_at > _STALE_MS:
                return  # this replica has not tried since: what waits may wait for something else
            what = await self._store.tell_of_outage(bool(waiting), now)
        except StoreUnavailable:
            waiting, what = None, self._alone(is_failing, now)
        else:
            if self._told_alone and what in ("began", "continues") and now - self._told_alone < TOLD_EVERY_MS:
                what = ""
            elif self._told_alone and not waiting:
                what = "over"
        if not what:
            return
        if await self._tell(self._message(what, since, waiting, now), now):
            self._told_alone = now if waiting is None and what != "over" else 0
            return
        with suppress(StoreUnavailable):  # then nothing was put down
            await self._store.outage_untold(what, now)

    def _alone(self, is_failing: bool, now: int) -> str:
        """What is to be told while Redis is away, too: replicas know nothing of each other, nor what waits."""
        if not is_failing or now - self._reachability.failed_at > _STALE_MS:
            return "over" if self._told_alone else ""
        if self._told_alone:
            return "continues" if now - self._told_alone >= TOLD_EVERY_MS else ""
        return "began"

    async def _waiting(self, now: int) -> list[Waiting]:
        """The critical alerts that are tried in vain, or wait before all others, oldest first."""
        active, ahead = self._rules(), self._ahead()
        found = []
        for record, queued in await self._store.unsent(int(Rank.CRITICAL) + 1, _LOOKED_AT):
            if record.alert.source == DIGEST:
                continue  # what it tells of waits, too
            if queued or _is_critical(record, active, now, ahead):
                heard = record.alert
                found.append(Waiting(heard.dedup_key, heard.event.summary, record.service, record.last_heard))
        return sorted(found, key=lambda each: each.heard_at)

    async def _tell(self, message: Message, now: int) -> bool:
        """Whether one of the channels took it."""
        attempts: dict[str, Awaitable[str]] = {}
        if self._webhook is not None:
            attempts["webhook"] = post(self._webhook, message, now)
        if self._mail is not None:
            attempts["mail"] = send_mail(self._mail, message, now)
        ends = dict(zip(attempts, await asyncio.gather(*attempts.values()), strict=True))
        for channel, problem in ends.items():
            if problem:
                _log.error("the second channel failed", channel=channel, reason=problem)
            else:
                _log.warning("told by the second channel", channel=channel, what=message.subject)
        self.problem = "; ".join(f"{channel}: {problem}" for channel, problem in ends.items() if problem)
        return not all(ends.values())

    def _message(self, what: str, since: int, waiting: Sequence[Waiting] | None, now: int) -> Message:
        """waiting: None where Redis is away, too."""
        body: dict[str, Any] = {
            "type": "pagerduty_outage",
            "state": what,
            "instance": self._instance,
            "at": _shown(now),
            "since": _shown(since) if since else None,
            "reason": self._reachability.reason if what != "over" else "",
            "waiting": None if waiting is None else len(waiting),
            "at_least": waiting is not None and len(waiting) >= _LOOKED_AT,
            "criticals": [
                {
                    "dedup_key": each.dedup_key,
                    "summary": each.summary,
                    "service": each.service,
                    "heard_at": _shown(each.heard_at),
                }
                for each in (waiting or ())[:_SHOWN]
            ],
        }
        return Message(_subject(what, body), _text(what, body), body)

    def warnings(self) -> Sequence[str]:
        """What is wrong with the second channel."""
        return [f"the second channel failed when it was last needed ({self.problem})"] if self.problem else []


def _is_critical(record: Record, active: ActiveRules, now: int, ahead: int) -> bool:
    """Whether a record in flight or to be tried again is a page that failed: critical as the rules have it."""
    if record.poisoned or not any(told.tries or told.lease_until > now for told in record.told):
        return False
    decision = decide_without_counts(record.alert, active, now, ahead)
    return decision.verdict is Verdict.DELIVER and decision.event.severity is Severity.CRITICAL


def _subject(what: str, body: Mapping[str, Any]) -> str:
    if what == "over":
        return "[alertrouter] PagerDuty takes events again, or no critical alert waits any more"
    number = "critical alerts wait" if body["waiting"] is None else _number(body)
    return f"[alertrouter] PagerDuty takes nothing since {body['since']}: {number}"


def _number(body: Mapping[str, Any]) -> str:
    count = f"{'at least ' if body['at_least'] else ''}{body['waiting']}"
    return f"{count} critical alert{' waits' if body['waiting'] == 1 else 's wait'}"


def _text(what: str, body: Mapping[str, Any]) -> str:
    if what == "over":
        return "What waited is sent now, in the order of its class. Nothing is to be done.\n"
    lines = [f"PagerDuty has taken no event of {body['instance']} since {body['since']}: {body['reason']}", ""]
    if body["waiting"] is None:
        lines += ["Redis does not answer either. Senders are asked to try again, and nobody knows what waits.", ""]
    for each in body["criticals"]:
        service = f" ({each['service']})" if each["service"] else ""
        lines.append(f"* {each['summary']}{service}, heard at {each['heard_at']}, {each['dedup_key']}")
    if body["waiting"] is not None and body["waiting"] > len(body["criticals"]):
        lines.append(f"* and {body['waiting'] - len(body['criticals'])} more")
    lines += ["", "Nobody has been paged for these. They are sent as soon as PagerDuty takes them."]
    return "\n".join(lines) + "\n"


def _shown(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")
