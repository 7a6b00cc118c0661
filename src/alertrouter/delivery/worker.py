"""The worker: claims what is due, judges it, sends what is missing, settles how it ended.

Joins store, rules, enrich and destinations. A crash at any line leaves the record to its lease: another worker, or
this one after a restart, judges it again, and PagerDuty's dedup_key makes a repeated send harmless.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, assert_never

import msgspec
import structlog
from msgspec.structs import replace

from alertrouter import telemetry
from alertrouter.alarms import CANARY, DIGEST, OUR_OWN, alarm
from alertrouter.alert import Alert, Link, Status
from alertrouter.delivery.backoff import delay_ms, pause_ms
from alertrouter.delivery.digest import Digests, Limits
from alertrouter.delivery.flapping import FlappingLimit, flaps, look, note, plan_for
from alertrouter.delivery.judging import ActiveRules, decide, plain_decision, show
from alertrouter.delivery.reconcile import Action, Plan, Send, after
from alertrouter.delivery.silence import AutoResolve, Silence, resolved_by_us, silence
from alertrouter.destinations.pagerduty import (
    FALLBACK,
    SUMMARY_LIMIT,
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
from alertrouter.errors import StoreUnavailable
from alertrouter.letter import LARGEST_EVENT, NOT_KEPT, Letter, kept_alert
from alertrouter.letter import encode as encode_letter
from alertrouter.record import News, Outcome, Record, State, Told
from alertrouter.rules.model import CacheQuery, CountQuery, Decision, Ruleset, Verdict
from alertrouter.store.store import AWAITED_FOR_MS, AlertStore, Claim, Judged, Queued, Result, Settlement, Threshold

#: A POST may take 10 s; one is not begun with less than this left of its lease.
_LEASE_NEEDED_MS = 11_000
#: Judging more in one script would keep Redis from accepting for milliseconds.
_JUDGE_AT_ONCE = 32
#: How long the worker sleeps when nothing tells it more: bounds how late a dead replica's work is noticed.
_IDLE_S = 1.0
#: The same for who knows when the next call is allowed: until then only another worker's end can make work.
_LIMITED_S = 5.0
_STORE_AWAY_S = 0.5
_HELD_S = 0.1
_FAULT_PAUSE_S = 1.0
#: Others take a worker's leases when it has not been heard of for ten seconds.
_BEAT_S = 2.0
_LOOK_AT_STORMS_S = 5.0
#: Under load, what comes due within this goes in one round trip; a script call costs as much as judging two alerts.
_PACE_S = 0.005
#: The rest of the time is left to accepting: what is accepted is safe, what still knocks is not.
_JUDGING_SHARE = 0.4
_KEPT_BY_RULES = frozenset({Outcome.SUPPRESSED, Outcome.DROPPED, Outcome.DEAD_LETTERED})


class Worker:
    """Judges and sends until stopped. `clock` gives ms since the epoch; `rules` the rules in force now."""

    def __init__(
        self,
        store: AlertStore,
        pagerduty: PagerDuty,
        rules: Callable[[], ActiveRules],
        clock: Callable[[], int],
        *,
        calls_per_minute: int = 110,
        max_in_flight: int = 64,
        page_short: bool = False,
        held: Callable[[], bool] = lambda: False,
        on_away: Callable[[], None] = lambda: None,
        on_judged: Callable[[Record, Decision, Plan, int], None] = lambda *_: None,
        auto_resolve: AutoResolve | None = None,
        flapping: FlappingLimit | None = None,
        ahead: Callable[[], int] = lambda: 0,
        keep_time: Callable[[], Awaitable[None]] | None = None,
        changes: Callable[[str], Sequence[Link]] = lambda _: (),
    ) -> None:
        """`held` says when what waits in the store may be out of date, and nothing is to be sent.

        `on_away` is called whenever the store did not answer.
        `on_judged` is told of every record that was claimed, what was decided about it, and when.
        `auto_resolve` says after what silence an alert is over, `flapping` what flaps; None for never.
        `ahead` says how far `clock` is ahead of the time of day (ms); `keep_time` is asked at each heartbeat to keep it right.
        `changes` says what was changed of a service lately.
        """
        self._store = store
        self._pagerduty = pagerduty
        self._rules = rules
        self._clock = clock
        self._calls_per_minute = calls_per_minute
        self._max_in_flight = max_in_flight
        self._page_short = page_short
        self._held = held
        self._on_away = on_away
        self._on_judged = on_judged
        self._auto_resolve = auto_resolve
        self._flapping = flapping
        self._ahead = ahead
        self._keep_time = keep_time
        self._changes = changes
        self._in_flight: set[asyncio.Task[None]] = set()
        self._due = asyncio.Event()
        self._waiting = asyncio.Event()
        self._storming = asyncio.Event()
        # what is being judged may be critical: nothing else is claimed to be sent meanwhile
        self._claiming = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._drain_s = 0.0
        self._began: dict[asyncio.Event, float] = {}
        # destinations whose own key PagerDuty took last: the alarm about it, if there was one, is over
        self._keys_taken: set[str] = set()
        self._rules_changed = self._keys_changed = False
        self._digests = Digests(store)
        self._log = structlog.get_logger()

    def wake(self) -> None:
        """Something was accepted, or the rules or the clock changed: look now."""
        self._due.set()
        self._waiting.set()

    def rejudge(self, *, refused: bool = True) -> None:
        """The rules are others now: what they kept from being sent is to be judged again.

        refused: what PagerDuty refused is tried again, too; not where keys and events are what they were.
        """
        self._rules_changed = True
        self._keys_changed = self._keys_changed or refused
        self.wake()

    async def run(self) -> None:
        """Judge and send until `stop`, then finish what is in flight. Redis being away is waited out."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._judge_due, self._due, share=_JUDGING_SHARE))
            tasks.create_task(self._repeat(self._begin_sends, self._waiting))
            tasks.create_task(self._repeat(self._beat, self._stopping))
            tasks.create_task(self._repeat(self._look_at_storms, self._storming))
        with suppress(StoreUnavailable):
            await self._beat()  # what is in flight takes ten seconds at most, and that long nobody takes it over
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=self._drain_s)
        for task in self._in_flight:
            task.cancel()
        try:
            await self._store.leave()
        except StoreUnavailable as error:
            self._log.warning("leases left to expire", error=str(error))

    def stuck_for(self) -> float:
        """For how many seconds the slowest of its loops has been in one step. Each step is bounded: long is a fault."""
        now = asyncio.get_running_loop().time()
        return max((now - began for began in self._began.values()), default=0.0)

    def stop(self, drain_s: float) -> None:
        """Claim nothing more; what is in flight gets `drain_s` to end, the rest is left to the next worker."""
        self._drain_s = drain_s
        self._stopping.set()
        self._storming.set()
        self.wake()

    async def run_until_idle(self) -> None:
        """Judge and send everything that can be at the clock's present time. For a clock that somebody owns."""
        while True:
            self._due.clear()
            self._waiting.clear()
            await self._judge_due()
            await self._begin_sends()
            if self._in_flight:
                await asyncio.wait(self._in_flight)
            await self._look_at_storms()
            if not (self._due.is_set() or self._waiting.is_set()):
                return

    async def _repeat(
        self, step: Callable[[], Coroutine[Any, Any, float]], woken: asyncio.Event, *, share: float = 1.0
    ) -> None:
        """Do `step` when woken or when its pause is over: at once after a rest, then no oftener than the pace.

        `share` is how much of the time it may take.
        """
        away = False
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = self._began[woken] = loop.time()
            if woken is not self._stopping:
                woken.clear()
            # in a task of its own, so that a fault ends the step and not this loop, nor the other one with it
            done = asyncio.create_task(step())
            await asyncio.wait([done])
            error = done.exception()
            if error is None:
                pause = done.result()
                if away:
                    self._log.info("Redis is back")
                away = False
            elif isinstance(error, StoreUnavailable):
                if away:
                    self._on_away()
                if not away:
                    self._log.error("Redis is away; accepted alerts wait in it", error=str(error))
                away, pause = True, _STORE_AWAY_S
            else:
                self._log.error("the worker failed and goes on; its leases end by themselves", exc_info=error)
                pause = _FAULT_PAUSE_S
            took = loop.time() - began
            try:
                async with asyncio.timeout(pause):
                    await woken.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(began + max(_PACE_S, took / share) - loop.time())

    async def _beat(self) -> float:
        if self._keep_time is not None:
            await self._keep_time()
        await self._store.beat(self._clock())
        return _BEAT_S

    async def _look_at_storms(self) -> float:
        """Tell of what waits too long, in a digest for each service. Returns how long to sleep, in seconds."""
        if not self._held() and await self._digests.look(self._clock(), self._limits()):
            self._due.set()
        return _LOOK_AT_STORMS_S

    def _limits(self) -> Limits:
        return Limits(self._calls_per_minute, self._rules().own_limits)

    async def _judge_due(self) -> float:
        """Judge one batch of due records. Returns how long to sleep, in seconds."""
        if self._held():
            return _HELD_S
        now = self._clock()
        if self._rules_changed:
            keys_changed = self._keys_changed
            self._rules_changed = self._keys_changed = False
            try:
                await self._store.recall(now, keys_changed)
            except StoreUnavailable:
                self._rules_changed = True
                self._keys_changed = self._keys_changed or keys_changed
                raise
        async with self._claiming:
            records, next_due = await self._store.claim_due(now, _JUDGE_AT_ONCE)
            judged = []
            for record in records:
                silent = await self._silence(record, now)
                if silent.over:
                    await self._resolve_unheard(record, silent.reason, now)
                else:
                    judged.append(await self._judge(record, now, silent.look_at))
            if judged:
                await self._store.judged(judged, now)
        if records:
            self._waiting.set()
            self._due.set()  # there may be more, or something due at once
        return _pause(next_due, now)

    async def _silence(self, record: Record, now: int) -> Silence:
        """Whether its sender has ceased to repeat it."""
        if self._auto_resolve is None:
            return Silence()
        source = record.alert.source
        after_ms = self._auto_resolve.of(source)
        is_unheard = after_ms and now >= record.last_heard + after_ms  # else its sender need not be known
        return silence(record, await self._store.source(source) if is_unheard else None, after_ms, now)

    async def _resolve_unheard(self, record: Record, reason: str, now: int) -> None:
        """Resolve it, unless it is heard at this very moment: then it is judged once more."""
        if await self._store.resolve_unheard(record, resolved_by_us(record.alert, reason), reason, now):
            telemetry.AUTO_RESOLVED.inc()
            self._log.info("alert resolved for its silence", dedup_key=record.alert.dedup_key, reason=reason)

    async def _look_at_flapping(self, record: Record, limit: FlappingLimit, now: int) -> Record:
        """The record with what there is to say about its flapping, put down where that has changed."""
        found = look(record, limit, now)
        if found == record.flapping:
            return record
        await self._store.put_flapping(record, found)
        if bool(found.since) != bool(record.flapping.since):
            self._log.info("alert flaps" if found.since else "alert flaps no more", dedup_key=record.alert.dedup_key)
        return replace(record, flapping=found)

    async def _judge(self, record: Record, now: int, look_at: int = 0) -> Judged:
        """What to put down about it; `look_at` is when to look again even if nothing else asks for it."""
        active = self._rules()
        decision = await self._decide(record, active, now)
        if decision.cache_writes:
            await self._store.remember({write.key: write.value for write in decision.cache_writes})
        if decision.resets:
            await self._store.reset_counts(query.key for query in decision.resets)
        if self._flapping is not None:
            record = await self._look_at_flapping(record, self._flapping, now)
        plan = plan_for(record, decision, now, page_short=self._page_short)
        self._on_judged(record, decision, plan, now)
        for rule in decision.matched:
            telemetry.count_rule_match(rule)
        if plan.outcome not in (Outcome.PENDING, record.outcome) and record.id != CANARY:
            telemetry.ALERTS_ENDED.labels(plan.outcome.value).inc()
            self._log.info(
                "alert ended",
                dedup_key=record.alert.dedup_key,
                source=record.alert.source,
                outcome=plan.outcome.value,
                rule=decision.rule,
                reason=decision.reason,
            )
        return Judged(
            record=record,
            outcome=plan.outcome,
            rule=decision.rule or (decision.matched[-1] if decision.matched else ""),
            reason=record.reason if record.news is News.SILENT else decision.reason,
            service=decision.service,
            wake_at=plan.wake_at if _is_kept(record, plan) else min(filter(None, (plan.wake_at, look_at)), default=0),
            closed=_is_closed(record, plan),
            parked=record.status is not Status.RESOLVED and (plan.outcome in _KEPT_BY_RULES or decision.suspend_ms > 0),
            suspended_until=plan.suspended_until,
            sends=tuple(
                Queued(
                    send.destination,
                    int(send.rank),
                    "" if send.pinned else active.key_of(send.destination),
                    decision.dedup_key,
                    send.opens,
                    is_ahead=record.alert.source == DIGEST,
                )
                for send in plan.sends
            ),
        )

    async def _decide(self, record: Record, active: ActiveRules, now: int) -> Decision:
        """What is to be done, and under which dedup_key an Events API v2 event is told."""
        decision = await self._evaluate(record, active.ruleset, now)
        if record.alert.enqueued is None or decision.dedup_key or decision.verdict is not Verdict.DELIVER:
            return decision
        told, is_over = record.told_of(decision.destinations[0]), record.status is Status.RESOLVED
        if told.is_open and not is_over:
            return dataclasses.replace(decision, dedup_key=told.dedup_key)
        # two integrations that share a routing key must not close each other's alerts, nor an incident that rules share
        key = told.key if told.is_open else active.key_of(told.destination)
        same = [destination for destination, each in active.routing_keys.items() if each == key]
        is_free = await self._store.claim_dedup_key(
            key, record.alert.dedup_key, record.id, is_over=is_over, destinations=same
        )
        pinned = told.dedup_key if told.is_open else "" if is_free else record.id
        return dataclasses.replace(decision, dedup_key=pinned)

    async def _evaluate(self, record: Record, ruleset: Ruleset, now: int) -> Decision:
        """What the rules say, with the counts and remembered values they ask for fetched as they come up.

        An alert that they do not survive is not shown to them.
        """
        if record.poisoned:
            return plain_decision(record.alert)
        counts: dict[CountQuery | CacheQuery, int | str | None] = {}
        while True:
            decision = decide(record.alert, ruleset, now, counts, ahead=self._ahead())
            if not decision.wants:
                return decision
            counted = [query for query in decision.wants if isinstance(query, CountQuery)]
            thresholds = [Threshold(query.key, query.window_ms, query.peek) for query in counted]
            if counted:
                counts.update(zip(counted, await self._store.count(record, thresholds, now), strict=True))
            remembered = [query for query in decision.wants if isinstance(query, CacheQuery)]
            if remembered:
                values = await self._store.remembered([query.key for query in remembered])
                counts.update(zip(remembered, values, strict=True))

    async def _begin_sends(self) -> float:
        """Lease waiting sends for every free slot and begin them. Returns how long to sleep, in seconds."""
        free = self._max_in_flight - len(self._in_flight)
        if free <= 0:
            return _IDLE_S  # the end of any send wakes us
        if self._held():
            return _HELD_S
        async with self._claiming:
            now, own_limits = self._clock(), self._rules().own_limits
            claims, next_call = await self._store.claim_sends(now, free, self._calls_per_minute, own_limits)
        for claim in claims:
            task = asyncio.create_task(self._send(claim))
            self._in_flight.add(task)
            task.add_done_callback(self._sent)
        return _pause(next_call, now, _LIMITED_S)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("send not settled; its lease will end", error=repr(error))
        self._waiting.set()

    async def _send(self, claim: Claim) -> None:
        """Send one leased message, if it is still missing, and settle it."""
        now = self._clock()
        active = self._rules()
        # the lease is our own: it must not keep us from seeing the send as missing
        told = replace(claim.record.told_of(claim.destination), lease_until=0)
        record = claim.record.with_told(told)
        try:
            decision = await self._decide(record, active, now)
        except StoreUnavailable:
            await self._release(claim, now)
            return
        plan = plan_for(record, decision, now, page_short=self._page_short)
        send = _missing_at(claim.destination, plan)
        if send is None or not self._may_send(claim, told, send, decision, active):
            await self._release(claim, now)
            return
        try:
            others_open = await self._share(record, told, send)
        except StoreUnavailable:
            await self._release(claim, now)
            return
        if others_open:
            await self._settle(_delivered(claim, record, told, send, decision, now, page_short=self._page_short), now)
            return
        enriched = show(record.alert, decision, active.ruleset, self._changes(decision.service))
        body = encode_event(
            build_event(
                EventAction(send.action.value),
                told.key,
                told.dedup_key or record.alert.dedup_key,
                enriched,
                Rung(min(told.rung, Rung.MINIMAL)) if told.refused == record.version else Rung.WHOLE,
                _notes(record, told, now),
            )
        )
        began = perf_counter()
        answer = await self._pagerduty.send(body)
        telemetry.SEND_SECONDS.observe(perf_counter() - began)
        now = self._clock()
        log = self._log.bind(
            dedup_key=record.alert.dedup_key,
            source=record.alert.source,
            destination=claim.destination,
            action=send.action.value,
            rule=decision.matched[-1] if decision.matched else "",
        )
        match answer:
            case Delivered():
                log.info("event delivered", service=decision.service, severity=decision.event.severity.value)
                telemetry.SENDS.labels(claim.destination, "delivered").inc()
                _measure(record, now)
                settlement = _delivered(claim, record, told, send, decision, now, page_short=self._page_short)
            case TryAgain(reason=reason, throttled=True):
                paused_until = now + pause_ms(answer.retry_after_ms)
                log.warning("routing key throttled: left alone", reason=reason, for_ms=paused_until - now)
                telemetry.SENDS.labels(claim.destination, "again").inc()
                settlement = Settlement(  # it keeps its place in the queue, which waits as a whole
                    claim, Result.AGAIN, plan.outcome, wake_at=now, paused_until=paused_until, detail=reason
                )
            case TryAgain(reason=reason):
                not_before = now + delay_ms(told.tries + 1, answer.retry_after_ms, random.random())
                log.warning("event not delivered yet", reason=reason, again_in_ms=not_before - now)
                telemetry.SENDS.labels(claim.destination, "again").inc()
                settlement = Settlement(
                    claim,
                    Result.AGAIN,
                    plan.outcome,  # a repair that fails does not undo what was delivered
                    wake_at=not_before,
                    not_before=not_before,
                    ambiguous=answer.ambiguous,
                    opens=send.opens,
                    detail=reason,
                )
            case Refused():
                telemetry.SENDS.labels(claim.destination, "refused").inc()
                said = {"status": answer.status, "objection": answer.objection.value, "reason": answer.reason}
                named = told.destination in decision.destinations
                changed = _in_another_form(claim, record, told, send, answer, plan, active, now, named=named)
                if changed is not None:
                    log.warning("event refused; sent again in another form", rung=changed.rung, **said)
                    settlement = changed
                else:
                    log.error("event refused; kept as a dead letter", **said)
                    settlement = _refused(
                        claim, record, told, send, answer, body, decision, now, page_short=self._page_short
                    )
            case _:
                assert_never(answer)
        await self._settle(settlement, now)
        if record.shares(told.dedup_key):
            # it did not get in there, and may be over before it is tried again
            kept_out = isinstance(answer, Refused) or (isinstance(answer, TryAgain) and not answer.ambiguous)
            result = Result.REFUSED if kept_out else settlement.result
            await self._after_sharing(record, told, send, result, now)
        if told.key == active.key_of(claim.destination) and record.alert.source not in OUR_OWN:
            await self._watch_key(claim.destination, answer, now)

    async def _watch_key(self, destination: str, answer: Delivered | TryAgain | Refused, now: int) -> None:
        """Raise an alarm when PagerDuty refuses a destination's own key, and end it when it takes the key again.

        Redis remembers whether it was raised: this worker is asked after a restart, and may not be who raised it.
        """
        try:
            if isinstance(answer, Refused) and answer.objection is Objection.KEY:
                self._keys_taken.discard(destination)
                await self._store.accept([_key_alarm(destination, answer)], now)
                self._due.set()
            elif isinstance(answer, Delivered) and destination not in self._keys_taken:
                over = _key_alarm(destination, None)
                if await self._store.record(over.id) is not None:
                    await self._store.accept([over], now)
                    self._due.set()
                self._keys_taken.add(destination)
        except StoreUnavailable as error:
            self._log.warning("the alarm about a routing key waits", destination=destination, error=str(error))

    async def _release(self, claim: Claim, now: int) -> None:
        """Give the lease back unused: the record is judged again at once, and its outcome stays what it is."""
        await self._settle(Settlement(claim, Result.RELEASED, claim.record.outcome, wake_at=now), now)

    async def _after_sharing(self, record: Record, told: Told, send: Send, result: Result, now: int) -> None:
        """Keep the members of a shared incident true to what became of the send."""
        try:
            if result is Result.DELIVERED and send.action is Action.RESOLVE:
                await self._store.repair_members(told, now)
            elif result is Result.REFUSED and not told.is_open:
                await self._store.leave_incident(record, told)  # it never was in there
        except StoreUnavailable as error:
            self._log.warning("a shared incident may stay open", dedup_key=told.dedup_key, error=str(error))

    def _may_send(self, claim: Claim, told: Told, send: Send, decision: Decision, active: ActiveRules) -> bool:
        """Whether the lease lasts long enough and the keys put down for this send are still the right ones."""
        if claim.lease_until - self._clock() < _LEASE_NEEDED_MS or send.opens != told.opens:
            return False
        if send.pinned:
            return told.key != ""
        return (told.key, told.dedup_key) == (active.key_of(send.destination), decision.dedup_key)

    async def _share(self, record: Record, told: Told, send: Send) -> int:
        """Join or leave the incident that a rule makes this alert share; how many others keep it open."""
        if not record.shares(told.dedup_key):
            return 0
        if send.action is Action.RESOLVE:
            return await self._store.leave_incident(record, told)
        await self._store.join_incident(record, told)
        return 0

    async def _settle(self, settlement: Settlement, now: int) -> None:
        """Put the settlement down, waiting for Redis while the lease lasts; after that the lease speaks for us."""
        while True:
            try:
                await self._store.settle(settlement, now)
            except StoreUnavailable as error:
                if self._clock() > settlement.claim.lease_until:
                    self._log.warning(
                        "settlement lost; the send will be repeated",
                        dedup_key=settlement.claim.record.alert.dedup_key,
                        error=str(error),
                    )
                    return
                await asyncio.sleep(0.1)
            else:
                break
        if settlement.outcome not in (Outcome.PENDING, settlement.claim.record.outcome):
            telemetry.ALERTS_ENDED.labels(settlement.outcome.value).inc()
        if 0 < settlement.wake_at <= now:
            self._due.set()


def _pause(next_at: int, now: int, most_s: float = _IDLE_S) -> float:
    """Seconds until `next_at`, at most `most_s`; the idle time where it is 0, for never."""
    return min(max(next_at - now, 1) / 1000, most_s) if next_at else _IDLE_S


def _measure(record: Record, now: int) -> None:
    """How long delivery took since it was heard, where it was."""
    if record.news is not News.SILENT:
        telemetry.DELIVERY_SECONDS.observe(max(now - record.last_heard, 0) / 1000)


def _missing_at(destination: str, plan: Plan) -> Send | None:
    return next((send for send in plan.sends if send.destination == destination), None)


def _is_kept(record: Record, plan: Plan) -> bool:
    """True if rules keep it from everybody for longer than it is remembered unheard: it is forgotten, not closed."""
    is_awaited = 0 < plan.wake_at < record.last_heard + AWAITED_FOR_MS
    return plan.outcome in (Outcome.SUPPRESSED, Outcome.DROPPED) and not record.told and not is_awaited


def _is_closed(record: Record, plan: Plan) -> bool:
    """True if nothing is left to do for it: it may be forgotten. A dead letter waits for somebody."""
    ended = plan.outcome not in (Outcome.PENDING, Outcome.DEAD_LETTERED)
    return record.status is Status.RESOLVED and ended and not plan.wake_at


def _delivered(
    claim: Claim,
    record: Record,
    told: Told,
    send: Send,
    decision: Decision,
    now: int,
    *,
    page_short: bool = False,
) -> Settlement:
    record = after(record, told, send, now)
    told = record.told_of(told.destination)
    plan = plan_for(record, decision, now, page_short=page_short)
    return Settlement(
        claim,
        Result.DELIVERED,
        plan.outcome,
        state=told.state,
        version=told.version,
        opens=send.opens,
        closed=_is_closed(record, plan),
        wake_at=now if plan.sends else plan.wake_at,
    )


def _in_another_form(
    claim: Claim,
    record: Record,
    told: Told,
    send: Send,
    answer: Refused,
    plan: Plan,
    active: ActiveRules,
    now: int,
    *,
    named: bool,
) -> Settlement | None:
    """What was refused, to be sent at once by another key or a rung lower; None where nothing else can be tried.

    named:  the rules name the destination. To one that they no longer do, nothing is opened by another key.

    Only triggers have other forms. An acknowledge or resolve has nothing to leave out, and no other key closes what
    this one opened.
    """
    if send.action is not Action.TRIGGER:
        return None
    rung, rerouted, key = (told.rung, told.rerouted, "") if told.refused == record.version else (0, False, "")
    if answer.objection is Objection.KEY:
        is_repair = told.state is not State.NOTHING and send.version == told.version
        key = "" if rerouted or is_repair or not named else _other_key(told, active)
        if not key:
            return None
        rerouted = True
    elif rung < Rung.MINIMAL:
        rung += 1
    else:
        return None
    return Settlement(
        claim,
        Result.CHANGED,
        plan.outcome,  # a repair that is refused does not undo what was delivered
        wake_at=now,
        rung=rung,
        rerouted=rerouted,
        key=key,
        detail=f"HTTP {answer.status}: {answer.reason}",
    )


def _other_key(told: Told, active: ActiveRules) -> str:
    """Where a page goes whose key was refused: its own key if it used an older one, else the fallback; "" for nowhere."""
    own = active.key_of(told.destination)
    other = own if told.key != own else active.key_of(FALLBACK)
    return other if other != told.key else ""


def _notes(record: Record, told: Told, now: int) -> list[str]:
    """What the responder should know about the way this event came."""
    notes = [note(record)] if flaps(record, now) else []
    if told.refused != record.version:
        return notes
    if told.rung:
        notes.append("not the whole alert: PagerDuty refused it with what the sender wrote in it")
    if told.rerouted:
        notes.append(f"through another routing key: PagerDuty refused that of {told.destination}")
    return [*notes, f"PagerDuty said: {told.refusal}"]


def _key_alarm(destination: str, refused: Refused | None) -> Alert:
    """The alarm about a destination's own routing key: raised by a refusal, over without one."""
    return alarm(
        f"routing-key-refused:{destination}",
        f"PagerDuty refuses the routing key of {destination}",
        firing=refused is not None,
        details={"destination": destination, "status": refused.status, "reason": refused.reason} if refused else {},
    )


def _kept_event(body: bytes) -> msgspec.Raw:
    """What was refused as a dead letter keeps it: without the key, and not where it is too large."""
    if len(body) > LARGEST_EVENT:
        return NOT_KEPT
    return msgspec.Raw(msgspec.json.encode({**msgspec.json.decode(body), "routing_key": "[redacted]"}))


def _refused(
    claim: Claim,
    record: Record,
    told: Told,
    send: Send,
    answer: Refused,
    body: bytes,
    decision: Decision,
    now: int,
    *,
    page_short: bool = False,
) -> Settlement:
    record = record.with_told(replace(told, dead=send.version, tries=0))
    plan = plan_for(record, decision, now, page_short=page_short)
    was_changed = told.refused == record.version
    letter = Letter(
        at=now,
        id=record.id,
        source=record.alert.source,
        service=decision.service,
        severity=decision.event.severity.value,
        summary=decision.event.summary[:SUMMARY_LIMIT],
        destination=told.destination,
        action=send.action.value,
        dedup_key=told.dedup_key or record.alert.dedup_key,
        version=send.version,
        first_heard=record.first_heard,
        status=answer.status,
        objection=answer.objection.value,
        reason=answer.reason,
        before=told.refusal if was_changed else "",
        attempts=told.tries + 1 + (told.rung + told.rerouted if was_changed else 0),
        event=_kept_event(body),
        alert=NOT_KEPT if record.poisoned else kept_alert(record.alert),
    )
    return Settlement(
        claim,
        Result.REFUSED,
        plan.outcome,
        state=told.state,
        version=send.version,
        closed=_is_closed(record, plan),
        wake_at=now if plan.sends else plan.wake_at,
        detail=f"HTTP {answer.status}: {answer.reason}",
        letter=encode_letter(letter),
        bad_key=answer.objection is Objection.KEY or send.action is Action.RESOLVE,
    )
