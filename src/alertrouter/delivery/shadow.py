"""A second rule set beside the live one: it judges what the live one judged, nothing is sent, differences are on record.

It works on its own queue and counts in its own name: whatever becomes of it, the live rules never wait for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from alertrouter import telemetry
from alertrouter.alarms import OUR_OWN
from alertrouter.delivery.judging import decide
from alertrouter.delivery.reconcile import Plan
from alertrouter.errors import StoreUnavailable
from alertrouter.history.entries import Differed
from alertrouter.record import Record
from alertrouter.rules.model import CacheQuery, CountQuery, Decision, Ruleset
from alertrouter.store.store import AlertStore, Threshold

#: Before the names of what the shadow rules count and remember.
_APART = "shadow:"
#: Records that wait to be judged; each holds its alert, about 10 kB.
_MOST_WAITING = 5_000
_AT_ONCE = 16
#: Differences that are shown, and those that are remembered so that each is put down once.
_SHOWN = 100
_MOST_REMEMBERED = 10_000

_log = structlog.get_logger()


class Shadow:
    """Judges by the shadow rules what it is told of. `ruleset` is None while none could be loaded.

    problems:  why the rules that are in the files now are not in force.
    """

    def __init__(self, store: AlertStore, ahead: Callable[[], int] = lambda: 0) -> None:
        self._store = store
        self._ahead = ahead
        self._waiting: deque[tuple[Record, Decision, int]] = deque()
        self._woken = asyncio.Event()
        self._away = False
        self.ruleset: Ruleset | None = None
        self.problems: Sequence[str] = ()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._judged = self._differing = self._skipped = 0
        self._by_field: Counter[str] = Counter()
        self._by_service: Counter[str] = Counter()
        self._latest: deque[Differed] = deque(maxlen=_SHOWN)
        self._known: OrderedDict[str, Mapping[str, tuple[str, str]]] = OrderedDict()

    def put_in_force(self, ruleset: Ruleset) -> None:
        """Judge by these from now on; what was counted of others is forgotten."""
        telemetry.SHADOW_RULES_LOADED.set(1)
        self.problems = [problem for problems in ruleset.quarantined.values() for problem in problems]
        if self.ruleset is None or self.ruleset.version != ruleset.version:
            _log.info("shadow rules loaded", version=ruleset.version)
            self._begin_anew()
        self.ruleset = ruleset

    def refuse(self, problems: Sequence[str]) -> None:
        """The rules in the files are faulty: those that are in force stay."""
        telemetry.SHADOW_RULES_LOADED.set(0)
        self.problems = problems
        _log.error("shadow rules not loaded", errors=problems)

    def heard(self, record: Record, decision: Decision, plan: Plan, now: int) -> None:
        """Take up what the live rules decided about `record` at `now` (ms). Costs the live ones no more than this."""
        if self.ruleset is None or record.poisoned or record.alert.source in OUR_OWN:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._skip(1)
            return
        self._waiting.append((record, decision, now))
        self._woken.set()

    def _skip(self, count: int) -> None:
        self._skipped += count
        telemetry.SHADOW_SKIPPED.inc(count)

    async def run(self) -> None:
        """Judge what waits, until cancelled."""
        while True:
            await self._woken.wait()
            await self.step()
            await asyncio.sleep(0)

    async def step(self) -> None:
        """Judge a few of those that wait."""
        for _ in range(min(_AT_ONCE, len(self._waiting))):
            record, live, now = self._waiting.popleft()
            ruleset = self.ruleset
            assert ruleset is not None  # or nothing would wait
            try:
                shadow = await self._decide(record, ruleset, now)
                await self._compare(record, live, shadow, ruleset, now)
            except StoreUnavailable as error:
                self._skip(1)
                if not self._away:
                    _log.warning("shadow rules cannot be asked while Redis is away", error=str(error))
                self._away = True
            else:
                self._away = False
        if not self._waiting:
            self._woken.clear()

    async def _decide(self, record: Record, ruleset: Ruleset, now: int) -> Decision:
        counts: dict[CountQuery | CacheQuery, int | str | None] = {}
        while (decision := decide(record.alert, ruleset, now, counts, ahead=self._ahead())).wants:
            counted = [query for query in decision.wants if isinstance(query, CountQuery)]
            if counted:
                thresholds = [Threshold(_APART + query.key, query.window_ms, query.peek) for query in counted]
                counts.update(zip(counted, await self._store.count(record, thresholds, now), strict=True))
            remembered = [query for query in decision.wants if isinstance(query, CacheQuery)]
            if remembered:
                values = await self._store.remembered([_APART + query.key for query in remembered])
                counts.update(zip(remembered, values, strict=True))
        if decision.cache_writes:
            await self._store.remember({_APART + write.key: write.value for write in decision.cache_writes})
        if decision.resets:
            await self._store.reset_counts(_APART + query.key for query in decision.resets)
        return decision

    async def _compare(self, record: Record, live: Decision, shadow: Decision, ruleset: Ruleset, now: int) -> None:
        self._judged += 1
        telemetry.SHADOW_JUDGED.inc()
        found = differences(live, shadow)
        if not found:
            self._known.pop(record.id, None)
            return
        self._differing += 1
        self._by_field.update(found.keys())
        self._by_service[live.service] += 1
        for field in found:
            telemetry.SHADOW_DIFFERENCES.labels(field).inc()
        if self._known.get(record.id) == found:
            return  # it is judged each time it is heard again while it is kept from being sent
        self._known[record.id] = found
        self._known.move_to_end(record.id)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        difference = Differed(
            at=now,
            id=record.id,
            version=record.version,
            differences=found,
            service=live.service,
            rule=_deciding_rule(live),
            shadow_rule=_deciding_rule(shadow),
            shadow_version=ruleset.version,
        )
        self._latest.append(difference)
        await self._store.note(_fields(difference))

    def summary(self) -> dict[str, object]:
        """What these rules did otherwise than the live ones, as this process saw it since they are in force."""
        return {
            "version": self.ruleset.version if self.ruleset else None,
            "problems": list(self.problems),
            "judged": self._judged,
            "differing": self._differing,
            "skipped": self._skipped,
            "by_field": dict(self._by_field),
            "by_service": {service or "unrouted": count for service, count in self._by_service.items()},
            "latest": list(reversed(self._latest)),
        }


def differences(live: Decision, shadow: Decision) -> dict[str, tuple[str, str]]:
    """What two decisions about one alert disagree in: per field, the live one's word and the shadow one's."""
    sides = [
        {
            "verdict": decision.verdict.value,
            "service": decision.service or "unrouted",
            "severity": decision.event.severity.value,
            "priority": decision.priority,
            "destinations": ", ".join(decision.destinations),
            "dedup_key": decision.dedup_key,
        }
        for decision in (live, shadow)
    ]
    return {field: (sides[0][field], sides[1][field]) for field in sides[0] if sides[0][field] != sides[1][field]}


def _deciding_rule(decision: Decision) -> str:
    """The rule that set the verdict, or else the last one that matched."""
    return decision.rule or (decision.matched[-1] if decision.matched else "")


def _fields(difference: Differed) -> dict[str, str]:
    return {
        "kind": "shadow",
        "at": str(difference.at),
        "id": difference.id,
        "version": str(difference.version),
        "differences": msgspec.json.encode(difference.differences).decode(),
        "service": difference.service,
        "rule": difference.rule,
        "shadow_rule": difference.shadow_rule,
        "shadow_version": difference.shadow_version,
    }
