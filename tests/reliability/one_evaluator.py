"""Random rules and random histories of alerts, and the four ways in which they are judged: serve, test, explain, replay.

What each way made of a history is a `Course`; `first_difference` says where two are not alike. A case is plain data, so
that it can be printed, written to files, and cut down to the part that matters.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from shutil import rmtree
from typing import Any, cast
from urllib.parse import quote

import aiohttp
import pytest
import yaml
from yarl import URL

from alertrouter.alert import Alert
from alertrouter.app import Service, _active, running
from alertrouter.delivery.explaining import as_json, explain, explain_record
from alertrouter.delivery.judging import ActiveRules, Counts
from alertrouter.delivery.reconcile import Plan
from alertrouter.delivery.shadow import Shadow
from alertrouter.delivery.worker import Worker
from alertrouter.errors import BadPayload, RulesInvalid
from alertrouter.history.entries import encode, entries_of
from alertrouter.history.reading import read
from alertrouter.record import Outcome, Record
from alertrouter.rules.build import CONFIG
from alertrouter.rules.load import load_config, load_rules
from alertrouter.rules.model import CacheQuery, Decision, Ruleset
from alertrouter.sandbox import Call, Sandbox
from alertrouter.settings import Settings, load_settings
from alertrouter.simulation.cases import Case as WrittenCase
from alertrouter.simulation.cases import read_cases
from alertrouter.simulation.play import play
from alertrouter.simulation.quick_client import QuickClient
from alertrouter.simulation.replay import Difference, Replay
from alertrouter.simulation.world import PagerDutyInMemory, WatchedStore, World, WorldClock, keys_for
from alertrouter.sources import PARSERS
from alertrouter.store.connect import Client
from alertrouter.store.store import Accepted, AlertStore, Dedup
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, Clock
from tests.unit.test_evaluate_properties import ACTIONS, CACHE_VARIABLES, COUNTING, REMEMBERING, WINDOW
from tests.waiting import until

#: How long every way goes on after the last alert: as long as `replay` does.
GO_ON_MS = HOUR
#: Closed records are forgotten after a day, by replay in the alerts' own time and by Redis in ours.
LONGEST_MS = 20 * HOUR

ENVIRON = {"PD_KEY_PAYMENT": "a" * 32, "PD_KEY_SEARCH": "5" * 32}
DEFAULT_KEY = "d" * 32

SERVICES = ("payment", "search", "shop")
NAMES = ("DiskFull", "HighLatency", "HostDown", "disk slow")
SEVERITIES = ("critical", "error", "warning", "info")
PRIORITIES = {"P1": "critical", "P2": "error", "P3": "warning", "P4": "info"}
#: What `dedup_key` makes of several alerts one incident, and what does not: every alert here has a host of its own.
_SHARED_KEYS = ("{{event.custom_details.service}}", "all", "{{event.class}}/{{event.source}}")
_OWN_KEY = "{{event.class}}/{{event.source}}"
VALUES: Sequence[Any] = ("a", "ab", "5", 5, 0.5, True, None, {"b": "a"}, ["a", 5], "ß")


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """Rules, by the names of their files, and a history: webhooks, each `at` so many ms after NIGHT, with its `source`
    and `body`.
    """

    rules: dict[str, Any]
    history: list[dict[str, Any]]

    def written(self) -> str:
        """As YAML, to be read by people."""
        return _as_yaml({"rules": self.rules, "history": self.history})

    @property
    def heard(self) -> int:
        """How many alerts its webhooks hold."""
        return sum(len(each["body"].get("alerts", "1")) for each in self.history)


def _as_yaml(value: Any) -> str:
    class Plain(yaml.CSafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(value, Dumper=Plain, sort_keys=False, allow_unicode=True)


def random_rules(rng: Random, *, sharing: bool = True) -> dict[str, Any]:
    """A rules directory: global rules, router, three services of which two have their own keys, unrouted, settings.

    sharing: rules may let alerts share an incident. Who joins one while it is being resolved is told once more, 90 s
             later: where sends go side by side over a network, that depends on which is first.
    """
    return _Rules(rng, sharing).files()


@dataclass(slots=True)
class _Rules:
    rng: Random
    sharing: bool
    names: Iterator[int] = field(default_factory=count)

    def files(self) -> dict[str, Any]:
        rng = self.rng
        config: dict[str, Any] = {
            "settings": {
                "dedup_mode": rng.choice(("rolling", "rolling", "fixed")),
                "dedup_window": rng.choice(("5m", "5m", "2m")),
                "resend_after": rng.choice(("4h", "30m")),
                "page_short": rng.random() < 0.4,
            }
        }
        if rng.random() < 0.6:
            config["priorities"] = {name: {"severity": severity} for name, severity in PRIORITIES.items()}
            config["runbook_base"] = "https://git.example.org/runbooks"
        files = {
            CONFIG: config,
            "global.yaml": self._orchestration("global"),
            "router.yaml": self._router(),
            "unrouted.yaml": self._orchestration("unrouted"),
        }
        for name in SERVICES:
            service = {"team": f"team-{name}", "tier": rng.randint(1, 3), "runbook": f"https://wiki.example.org/{name}"}
            if key := {"payment": "PD_KEY_PAYMENT", "search": "PD_KEY_SEARCH"}.get(name):
                service["routing_key"] = {"env": key}
            files[f"services/{name}.yaml"] = service | self._orchestration("service")
        return files

    def _orchestration(self, kind: str) -> dict[str, Any]:
        rng = self.rng
        remembers = kind != "unrouted" and rng.random() < 0.3
        sets = {"start": [self._rule(kind, remembers) for _ in range(rng.randint(0, 4))]}
        if sets["start"] and rng.random() < 0.4:
            sets["more"] = [self._rule(kind, remembers) for _ in range(rng.randint(0, 3))]
            rng.choice(sets["start"])["then"]["route_to"] = "more"
        made: dict[str, Any] = {"cache_variables": CACHE_VARIABLES} if remembers else {}
        made["sets"] = sets
        if rng.random() < 0.2:
            made["catch_all"] = self._actions(kind, remembers, {}) | {"owner": "me"}
        return made

    def _router(self) -> dict[str, Any]:
        rng = self.rng
        rules: list[dict[str, Any]] = []
        if rng.random() < 0.3:
            looked_up = {"source": "event.custom_details.service", "regex": rng.choice((".+", "^pay.*|shop"))}
            rules.append({"rule": self._name(), "then": {"dynamic_route_to": looked_up}})
        for name in rng.sample(SERVICES, rng.randint(1, 3)):
            when = f"event.custom_details.service matches '{name}'" if rng.random() < 0.7 else self._condition(False)
            rules.append({"rule": self._name(), "when": when, "then": {"route_to": name}})
        return {"sets": {"start": rules}, "catch_all": {"route_to": rng.choice(("unrouted", "unrouted", "shop"))}}

    def _rule(self, kind: str, remembers: bool) -> dict[str, Any]:
        rule: dict[str, Any] = {"rule": self._name(), "owner": "me"}
        conditions = [self._condition(remembers) for _ in range(self.rng.choice((0, 1, 1, 1, 2)))]
        if conditions:
            rule["when"] = conditions
        if self.rng.random() < 0.05:
            rule["disabled"] = True
        return rule | {"then": self._actions(kind, remembers, rule)}

    def _name(self) -> str:
        return f"r{next(self.names)}"

    def _condition(self, remembers: bool, depth: int = 0) -> str:
        rng = self.rng
        if depth < 2 and rng.random() < 0.3:
            one, other = self._condition(remembers, depth + 1), self._condition(remembers, depth + 1)
            return rng.choice((f"({one} and {other})", f"({one} or {other})", f"not ({one})"))
        tests = [
            f"event.custom_details.service == '{rng.choice(SERVICES)}'",
            f"event.custom_details.env matches '{rng.choice(('staging', 'production'))}'",
            f"event.severity == '{rng.choice(SEVERITIES)}'",
            f"event.class matches exactly '{rng.choice(NAMES)}'",
            rng.choice(("event.summary matches part 'disk'", "event.summary matches regex '(Full|slow)'")),
            rng.choice(("raw_event.a exists", "raw_event.a == 'a'", "raw_event.b > 3", "raw_event.a.b matches 'a'")),
            rng.choice((WINDOW, "now in Sun 04:00:00 to 05:30:00 Etc/UTC", "now > 2027-01-10 05:00:00 Etc/UTC")),
            rng.choice([*COUNTING, f"trigger_count over {rng.choice((5, 20, 90))} minutes > {rng.randint(1, 3)}"]),
        ]
        return rng.choice([*tests, rng.choice(REMEMBERING)] if remembers else tests)

    def _actions(self, kind: str, remembers: bool, rule: Mapping[str, Any]) -> dict[str, Any]:
        """Up to three actions that are allowed there."""
        rng = self.rng
        anywhere: list[dict[str, Any]] = [
            {},
            {"severity": rng.choice(SEVERITIES)},
            {"event_action": rng.choice(("resolve", "trigger"))},
            {"enrich": {"links": [{"href": "https://wiki.example.org", "text": "wiki"}], "details": {"n": 1}}},
            {
                "variables": [{"name": "v", "path": "event.summary", "value": "(\\w+)"}],
                "extractions": [
                    {"target": "event.summary", "template": "{{variables.v}} of {{event.source}}"},
                    {"target": "event.custom_details.x", "source": "raw_event.a", "regex": "."},
                ],
            },
            {"extractions": [{"target": "event.severity", "source": "event.summary", "regex": "info|warning"}]},
        ]
        if kind == "unrouted":
            return dict(rng.choice(anywhere))
        held_back = {"reason": "known", "expires": rng.choice(("2099-01-01", "2027-01-10T05:30:00Z", "2027-01-01"))}
        more: list[dict[str, Any]] = [
            {"priority": rng.choice(list(PRIORITIES))},
            {"suppress": True, **held_back},
            {"suspend": rng.choice(("90s", "5m", "20m"))},
            {"dedup_key": rng.choice(_SHARED_KEYS) if self.sharing else _OWN_KEY},
            {
                "annotate": ["seen by {{event.source}}"],
                "custom_fields": {"a": "{{event.group}}"},
                "notify": "pagerduty",
            },
            {"escalation_policy": "all", "automation": {"name": "restart", "job": "b", "parameters": {"d": 1}}},
        ]
        if kind == "global":
            more.append({"drop": True, **held_back})
        known = [each for each in ACTIONS if remembers or "cache_var" not in str(each)]
        known = [each for each in known if self.sharing or "dedup_key" not in each]
        more.append(rng.choice([each for each in known if kind == "global" or "drop" not in each]))
        actions: dict[str, Any] = {}
        for _ in range(rng.choice((1, 1, 2, 3))):
            chosen = rng.choice(anywhere + more + more)
            if not ({"drop", "suppress"} & actions.keys() and {"drop", "suppress"} & chosen.keys()):
                actions |= deepcopy(chosen)
        return actions


def random_history(rng: Random, webhooks: int, *, steady: bool = False) -> list[dict[str, Any]]:
    """Webhooks about a few alerts: they fire, repeat, change, come back, resolve; copies come late, resolves too late.

    No two at the same ms: of those a recording does not tell whether anything was sent between them.

    steady: what is a duplicate says nothing new, not even in words: a recording has no more of it than that it came.
    """
    things = [_Thing(rng, number, steady) for number in range(rng.randint(1, 9))]
    at = 0
    history: list[dict[str, Any]] = []
    for _ in range(webhooks):
        thing = rng.choice(things)
        batch = [thing, *(each for each in things if each is not thing and rng.random() < 0.7)]
        if thing.sender == "datadog":
            history.append({"at": at, "source": "datadog", "body": thing.notification(at)})
        else:
            alerts = [each.alert(at) for each in batch if each.source == thing.source]
            if rng.random() < 0.2:
                alerts.append(thing.alert(at))  # no more than a moment after it was in there before
            extra = {} if steady else _extra(rng)
            body = {"version": "4", "receiver": "r", "status": "firing", **extra, "alerts": alerts}
            history.append({"at": at, "source": thing.source, "body": body})
        at += rng.choice(
            (
                rng.randint(1, 59) * SECOND,
                rng.randint(1, 5 * MINUTE),
                rng.randint(2 * MINUTE, 5 * MINUTE),
                5 * MINUTE,
                5 * MINUTE + 15 * SECOND,
                rng.randint(6, 40) * MINUTE,
                rng.randint(1, 5) * HOUR,
            )
        )
        if at > LONGEST_MS:
            break
    return history


def _extra(rng: Random) -> dict[str, Any]:
    """Members of a body that no sender has, for conditions to look at."""
    return {name: rng.choice(VALUES) for name in "ab" if rng.random() < 0.5}


class _Thing:
    """Something that is watched, and what its sender has said of it. began, ended: ms after NIGHT."""

    def __init__(self, rng: Random, number: int, steady: bool) -> None:
        self.steady = steady
        self.extra = _extra(rng)
        self.rng = rng
        self.number = number
        self.source = rng.choice(("alertmanager", "alertmanager", "alertmanager", "alertmanager/team-a", "datadog"))
        self.name = rng.choice(NAMES)
        self.service = rng.choice((*SERVICES, "nobody"))
        self.env = rng.choice(("production", "staging"))
        self.severity = rng.choice(SEVERITIES)
        self.note = "first"
        self.began = 0
        self.ended = 0
        self.firing = False

    @property
    def sender(self) -> str:
        return self.source.partition("/")[0]

    def _go_on(self, at: int) -> tuple[bool, int, int]:
        """What is said at `at`: whether it fires, when it began and, for what is over, when it ended."""
        rng = self.rng
        if not self.firing:
            match rng.choice(("fires", "fires", "fires", "resolved again", "late copy")):
                case "fires":
                    self.firing, self.began = True, at
                case "resolved again":
                    return False, self.began, self.ended
            return True, self.began, 0
        unsteady = () if self.steady else ("other words", "earlier")
        match rng.choice(("same", "same", "same", "same", "severity", "later", "over", "over", "stale", *unsteady)):
            case "other words":
                self.note = f"{rng.randint(1, 99)} % full"
            case "severity":
                self.severity = rng.choice(SEVERITIES)
            case "later":
                self.began = at
            case "earlier":
                return True, self.began - SECOND, 0
            case "over":
                self.firing, self.ended = False, at
                return False, self.began, at
            case "stale":
                return False, self.began - MINUTE, self.began - SECOND
        return True, self.began, 0

    def alert(self, at: int) -> dict[str, Any]:
        """As Alertmanager sends it."""
        firing, began, ended = self._go_on(at)
        labels = {"alertname": self.name, "service": self.service, "env": self.env, "severity": self.severity}
        return {
            "status": "firing" if firing else "resolved",
            "labels": labels | {"instance": f"host-{self.number}"},
            "annotations": {"summary": f"{self.name}: {self.note}"},
            "startsAt": _rfc3339(began),
            "endsAt": "0001-01-01T00:00:00Z" if firing else _rfc3339(ended),
            "generatorURL": "http://prometheus.example.org/graph",
            "fingerprint": f"{self.number:016x}",
        }

    def notification(self, at: int) -> dict[str, Any]:
        """As Datadog sends it, by the template of docs/senders/datadog.md."""
        firing, began, ended = self._go_on(at)
        if self.steady:
            transition, extra, said_at = "Triggered", self.extra, began
        else:
            transition, extra, said_at = (
                self.rng.choice(("Triggered", "Re-Triggered", "Warn")),
                _extra(self.rng),
                at,
            )
        transition, said_at = (transition, said_at) if firing else ("Recovered", ended)
        return {
            "id": f"{self.number}{said_at}",
            "event_type": "metric_alert_monitor",
            "title": f"[{transition}] {self.name}",
            "text": self.note,
            "date": str(NIGHT + said_at),
            "alert": {
                "id": str(self.number),
                "title": self.name,
                "transition": transition,
                "priority": {severity: name for name, severity in PRIORITIES.items()}[self.severity],
                "cycle_key": str(began),
                "scope": f"host:host-{self.number}",
            },
            "hostname": f"host-{self.number}",
            "tags": f"service:{self.service},env:{self.env}",
            **extra,
        }


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp((NIGHT + ms) / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- what the four ways make of a case --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rules as they are in a directory, with the settings beside them."""

    folder: Path
    ruleset: Ruleset
    settings: Settings

    @property
    def dedup(self) -> Dedup:
        """What of the settings is about duplicates."""
        return Dedup(self.settings.dedup_window, self.settings.resend_after, self.settings.dedup_mode)

    @property
    def active(self) -> ActiveRules:
        """The rules with the keys that serve finds in its environment."""
        return _active(self.ruleset, self.settings, ENVIRON)


def load(folder: Path, rules: Mapping[str, Any]) -> Loaded:
    """Write rules into `folder`, in place of those that are there, and load them. Raises RulesInvalid."""
    rmtree(folder, ignore_errors=True)
    for name, content in rules.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(_as_yaml(content), encoding="utf-8")
    ruleset = load_rules(folder)
    if ruleset.quarantined:
        raise RulesInvalid([problem for each in ruleset.quarantined.values() for problem in each])
    options = {"pagerduty_routing_key": DEFAULT_KEY}
    return Loaded(folder, ruleset, load_settings({}, options, load_config(folder / CONFIG).get("settings")))


@dataclass(frozen=True, slots=True)
class Judged:
    """One decision. counts: what the rules were told of their counters and of what they remember; None if unknown."""

    at: int
    alert: Alert
    version: int
    decision: Decision
    counts: Counts | None = field(default=None, compare=False)

    @property
    def is_first(self) -> bool:
        """Whether the rules were told of nothing before this alert: `explain` with a payload alone supposes that."""
        counts = self.counts or {}
        return all(answer is None if isinstance(query, CacheQuery) else answer == 1 for query, answer in counts.items())


_SILENT = frozenset(each.value for each in Accepted)

#: One event that PagerDuty took: when, the name of its destination, and its body without the key.
Sent = tuple[int, str, Mapping[str, Any]]


@dataclass(slots=True)
class Course:
    """What one way made of a history.

    words:   what was said to each webhook of its alerts: new, duplicate, ...
    stood:   how each of its alerts stood after it, by its record.
    looked:  by `explain --alert`, after each webhook that made somebody judge, about the alert that was judged last.
    """

    judged: list[Judged] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    stood: list[list[str]] = field(default_factory=list)
    looked: list[tuple[Judged, Mapping[str, Any]]] = field(default_factory=list)


def _body(webhook: Mapping[str, Any]) -> bytes:
    return json.dumps(webhook["body"], ensure_ascii=False).encode()


def alerts_of(webhook: Mapping[str, Any]) -> Sequence[Alert]:
    source = webhook["source"]
    return PARSERS[source.partition("/")[0]](_body(webhook), {}, source).alerts


def _named(calls: Sequence[Call], keys: Mapping[str, str]) -> list[Sent]:
    """What was taken, with the names of destinations in place of their keys; `keys` by those names."""
    names = {key: name for name, key in keys.items()}
    return [
        (call.received_at, names[call.routing_key], {**call.event, "routing_key": names[call.routing_key]})
        for call in calls
    ]


def _standing(record: Record | None, now: int) -> str:
    assert record is not None
    is_held = record.outcome is Outcome.PENDING and record.suspended_until > now
    return "suspended" if is_held else record.outcome.value


async def served(client: QuickClient, instance: str, loaded: Loaded, history: Sequence[Mapping[str, Any]]) -> Course:
    """What the store and the worker of serve make of it, as `running` joins them, on a clock that is owned."""
    course = Course()
    clock = Clock(NIGHT)
    active = loaded.active
    store = WatchedStore(cast(Client, client), instance=instance, dedup=loaded.dedup)
    store.answers = {}
    pagerduty = PagerDutyInMemory(clock)

    def note(record: Record, decision: Decision, plan: Plan, now: int) -> None:
        counts, store.answers = store.answers, {}
        course.judged.append(Judged(now, record.alert, record.version, decision, counts))

    worker = Worker(
        store,
        pagerduty,
        lambda: active,
        clock,
        calls_per_minute=0,
        page_short=loaded.settings.page_short,
        on_judged=note,
    )

    async def advance_to(at: int) -> None:
        while (due := await store.next_due()) and due <= at:
            clock.now = max(clock.now, due)
            await worker.run_until_idle()
            assert await store.next_due() != due, "what is due is judged"
        clock.now = at

    for webhook in history:
        await advance_to(NIGHT + webhook["at"])
        alerts = alerts_of(webhook)
        before = len(course.judged)
        course.words.append([word.value for word in await store.accept(alerts, clock.now)])
        await worker.run_until_idle()
        standing = {each.id: _standing(await store.record(each.id), clock.now) for each in alerts}
        course.stood.append(list(standing.values()))
        if len(course.judged) > before:
            last = course.judged[-1]
            told = await explain_record(last.alert.id, store, active.ruleset, clock.now)
            assert told is not None
            course.looked.append((last, told))
            store.answers = {}
    await advance_to(clock.now + GO_ON_MS)
    course.sent = _named(list(pagerduty.api.calls), active.routing_keys)
    return course


async def recorded(client: QuickClient, instance: str, path: Path) -> None:
    """Write the history that serve put down into a file, as `alertrouter history -o jsonl` does."""
    keys = AlertStore(cast(Client, client), instance=instance).keys
    stream = await client.execute_command("XRANGE", keys.history, "-", "+")
    with path.open("wb") as file:
        for id_, flat in stream:
            texts = [each.decode() for each in flat]
            for entry in entries_of(id_.decode(), dict(zip(texts[::2], texts[1::2], strict=True))):
                file.write(encode(entry) + b"\n")


def write_test(path: Path, histories: Sequence[Sequence[Mapping[str, Any]]], courses: Sequence[Course] = ()) -> None:
    """A *_test.yaml with a test for each history, which expects what `courses` say, or nothing at all."""
    tests = []
    for number, history in enumerate(histories):
        steps: list[dict[str, Any]] = [
            {"at": f"{each['at']}ms", "source": each["source"], "body": each["body"]} for each in history
        ]
        steps.append({"at": f"{history[-1]['at'] + GO_ON_MS}ms", "expect": {}})
        if courses:
            _expect(steps, history, courses[number])
        tests.append({"name": f"history {number}", "start": "2027-01-10T03:00:00Z", "steps": steps})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_as_yaml({"tests": tests}), encoding="utf-8")


def _expect(steps: list[dict[str, Any]], history: Sequence[Mapping[str, Any]], course: Course) -> None:
    """Let each step expect how its alerts ended, and what was sent, where that is of one incident: else it has no order."""
    before = -1
    for number, step in enumerate(steps):
        at = NIGHT + int(step["at"].removesuffix("ms"))
        events = [
            {name: value for name, value in event.items() if name != "routing_key"}
            for sent_at, _, event in course.sent
            if before < sent_at <= at
        ]
        expected = {} if len({event["dedup_key"] for event in events}) > 1 else {"events": events}
        if number < len(history):
            ended = endings(history, course)[number]
            step["expect"] = [{"outcome": ended[alert.id], **expected} for alert in alerts_of(history[number])]
        else:
            step["expect"] = expected
        before = at


async def tested(
    client: QuickClient,
    instance: str,
    folder: Path,
    loaded: Loaded,
    history: Sequence[Mapping[str, Any]],
    case: WrittenCase,
) -> Course:
    """What `alertrouter test` makes of the test of a history: played by its player, in a world as its runner makes them."""
    course = Course()
    world = World(
        cast(Client, client),
        instance,
        folder,
        WorldClock(case.start),
        keys_for(loaded.ruleset),
        dedup=loaded.dedup,
        page_short=loaded.settings.page_short,
    )
    try:
        async for played in play(case, world, {}):
            for each, judgement in zip(played.judged, world.judgements, strict=True):
                version = judgement.record.version
                course.judged.append(Judged(each.at, each.alert, version, each.decision, each.counts))
            if played.step.sent is not None:
                came = [each for each in played.came if each.values["outcome"] is not None]  # else the body was empty
                course.words.append([each.news for each in came])
                heard = alerts_of(history[played.step.number])
                ended = {alert.id: str(each.values["outcome"]) for alert, each in zip(heard, came, strict=True)}
                course.stood.append(list(ended.values()))
    finally:
        world.close()
    course.sent = _named(list(world.pagerduty.api.calls), {name: key for key, name in world.destinations.items()})
    return course


async def replayed(
    client: QuickClient, instance: str, folder: Path, before: Loaded, after: Loaded, path: Path
) -> tuple[Difference, list[list[Sent]]]:
    """What `alertrouter replay` finds between the one and the other rules, and what each of its two sides sent."""
    worlds = [
        World(
            cast(Client, client),
            f"{instance}-{side}",
            folder,
            WorldClock(0),
            keys_for(loaded.ruleset),
            dedup=loaded.dedup,
            page_short=loaded.settings.page_short,
        )
        for side, loaded in (("before", before), ("after", after))
    ]
    damaged: list[object] = []
    try:
        found = await Replay(worlds[0], worlds[1], client).run(read([path], damaged.append))
    finally:
        for world in worlds:
            world.close()
    assert not damaged, damaged
    return found, [
        _named(list(world.pagerduty.api.calls), {name: key for key, name in world.destinations.items()})
        for world in worlds
    ]


def explained(judged: Judged, ruleset: Ruleset) -> Decision:
    """What `alertrouter explain` says of an alert as of then: by a payload alone, where serve was told of no more than
    that this is the first one, else with the counts that serve had.
    """
    return explain(judged.alert, ruleset, judged.at, None if judged.is_first else judged.counts).decision


def looked_at(course: Course, ruleset: Ruleset) -> tuple[list[Any], list[Any]]:
    """What `explain` says of an alert by what serve decided, and by what is on record of it, as far as that is the same:
    of its state the record knows more.
    """
    from_payload, from_record = [], []
    for judged, told in course.looked:
        whole = as_json(explain(judged.alert, ruleset, judged.at, judged.counts))
        shared = whole.keys() - {"outcome", "status", "dedup_key", "event"}
        from_payload.append({name: whole[name] for name in whole if name in shared})
        from_record.append({name: told[name] for name in whole if name in shared})
    return from_payload, from_record


# --- the service itself -----------------------------------------------------------------------------------------------


@contextmanager
def noting_judgements(course: Course) -> Iterator[None]:
    """Write down what the worker of a running service decides: it tells the shadow rules, whether there are any or not."""
    heard = Shadow.heard

    def note(self: Shadow, record: Record, decision: Decision, plan: Plan, now: int) -> None:
        course.judged.append(Judged(now, record.alert, record.version, decision))
        heard(self, record, decision, plan, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shadow, "heard", note)
        yield


@dataclass(slots=True)
class Running:
    """A service on a clock that is owned, with the same rules as its shadow, and its PagerDuty."""

    service: Service
    sandbox: Sandbox
    session: aiohttp.ClientSession
    clock: Clock
    course: Course

    async def settle(self) -> None:
        """Let everything happen that can at this time."""
        self.service.worker.wake()

        async def is_idle() -> bool:
            backlog = await self.service.backlog()
            if backlog["due"] or backlog["waiting"] or backlog["leased"] or self.service.worker._in_flight:
                return False
            assert self.service.shadow is not None
            return self.service.shadow.summary()["judged"] == len(self.course.judged)

        await until(is_idle, 30)

    async def advance_to(self, at: int) -> None:
        """Go on to `at`, and on the way do what falls due, when it does."""
        while (due := await self.service.store.next_due()) and due <= at:
            self.clock.now = max(self.clock.now, due)
            await self.settle()
        self.clock.now = at

    async def hear(self, webhook: Mapping[str, Any]) -> None:
        """Post it and let everything follow that follows at once."""
        await self.advance_to(NIGHT + webhook["at"])
        address = f"{self.service.url}/webhooks/{webhook['source']}"
        async with self.session.post(address, data=io.BytesIO(_body(webhook))) as response:
            assert response.status == 202, await response.text()
            outcomes: dict[str, int] = (await response.json())["outcomes"]
        await self.settle()
        self.course.words.append(sorted(word for word, times in outcomes.items() for _ in range(times)))
        standing = {alert.id: await self._shown(alert) for alert in alerts_of(webhook)}
        self.course.stood.append(list(standing.values()))

    async def _shown(self, alert: Alert) -> str:
        address = f"{self.service.url}/api/v1/alerts/{quote(alert.dedup_key, safe='')}"
        async with self.session.get(URL(address, encoded=True)) as response:
            shown = await response.json()
        return str(shown["outcome"])


@asynccontextmanager
async def service(loaded: Loaded, redis_url: str, folder: Path, instance: str) -> AsyncIterator[Running]:
    """`running`, as `alertrouter serve` runs it, with a sandbox for PagerDuty."""
    course, clock = Course(), Clock(NIGHT)
    async with Sandbox(clock=clock) as sandbox:
        options = {
            "listen": "127.0.0.1:0",
            "data_dir": folder / instance,
            "redis_url": redis_url,
            "instance": instance,
            "rules": loaded.folder,
            "shadow_rules": loaded.folder,
            "retention": "3650d",  # Redis' own time is another than that of the alerts
            "pagerduty_events_url": sandbox.url,
            "pagerduty_routing_key": DEFAULT_KEY,
            "pagerduty_calls_per_minute": 0,
        }
        settings = load_settings({}, options, load_config(loaded.folder / CONFIG).get("settings"))
        with noting_judgements(course):
            async with running(settings, ENVIRON, clock) as started, aiohttp.ClientSession() as session:
                shadow = started.shadow
                await until(lambda: shadow is not None and shadow.ruleset is not None)
                yield Running(started, sandbox, session, clock, course)


async def served_over_http(
    loaded: Loaded, redis_url: str, folder: Path, instance: str, history: Sequence[Mapping[str, Any]]
) -> tuple[Course, Mapping[str, Any]]:
    """What a running service makes of it, posted over HTTP, and what its shadow, the same rules, found different."""
    async with service(loaded, redis_url, folder, instance) as live:
        for webhook in history:
            await live.hear(webhook)
        await live.advance_to(live.clock.now + GO_ON_MS)
        live.course.sent = _named(live.sandbox.calls, live.service.rules.routing_keys)
        shadow = live.service.shadow_summary()
        assert shadow is not None
        return live.course, shadow


# --- comparing --------------------------------------------------------------------------------------------------------


def first_difference(what: str, one: Sequence[Any], other: Sequence[Any]) -> str:
    """Where two lists are not alike, in words; "" where they are."""
    for number in range(max(len(one), len(other))):
        left = one[number] if number < len(one) else None
        right = other[number] if number < len(other) else None
        if left != right:
            lines = [f"  {place or 'all'}: {each!r}, and not {its!r}" for place, each, its in _unlike(left, right)]
            return "\n".join([f"{what}, number {number}: {_what_is_shared(left, right)}", *lines])
    return ""


def _unlike(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each place inside at which the two differ, with what is there."""
    if is_dataclass(one) and type(one) is type(other):
        one, other = ({each.name: getattr(value, each.name) for each in fields(one)} for value in (one, other))
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if one.get(key) != other.get(key):
                yield from _unlike(one.get(key), other.get(key), f"{place}.{key}" if place else str(key))
    else:
        yield place, one, other


def _what_is_shared(one: Any, other: Any) -> str:
    """The time, name and so on with which both begin."""
    if not (isinstance(one, tuple) and isinstance(other, tuple)):
        return ""
    return ", ".join(str(left) for left, right in zip(one, other, strict=False) if left == right)


def decisions(course: Course) -> list[tuple[int, str, int, Decision]]:
    """What was decided of which version of which alert, and when."""
    return [(each.at, each.alert.id, each.version, replace(each.decision, trace=())) for each in course.judged]


def words(history: Sequence[Mapping[str, Any]], course: Course) -> list[dict[str, str]]:
    """What was said to each webhook of each of its alerts, the last time that it was in there."""
    return [
        {alert.id: word for alert, word in zip(alerts_of(webhook), said, strict=True)}
        for webhook, said in zip(history, course.words, strict=True)
    ]


def endings(history: Sequence[Mapping[str, Any]], course: Course) -> list[dict[str, str]]:
    """How each alert of each webhook had ended so far: what was said of this sighting, where that is all."""
    return [
        {id_: word if word in _SILENT else stood[number] for number, (id_, word) in enumerate(said.items())}
        for said, stood in zip(words(history, course), course.stood, strict=True)
    ]


def by_destination(sent: Sequence[Sent]) -> list[Sent]:
    """In the order of time, and of one time in that of each destination: the worker begins with another in each turn."""
    return sorted(sent, key=lambda each: each[:2])


#: What comes of a case that was cut down to nonsense.
_NO_CASE = (RulesInvalid, BadPayload, LookupError, TypeError, ValueError, AttributeError, AssertionError)


@dataclass(slots=True)
class Ways:
    """The four ways, on two servers: Debian's Redis for serve, and the embedded one that the commands use."""

    redis: QuickClient
    embedded: QuickClient
    folder: Path
    numbers: Iterator[int] = field(default_factory=count)
    judged: int = 0
    sent: int = 0

    async def difference(self, loaded: Loaded, histories: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[int, str]:
        """The number of the first history of which two ways disagree, and in what; "" where none does."""
        tests = self.folder / "one_test.yaml"
        write_test(tests, histories)
        cases = read_cases(tests)
        try:
            for number, (history, case) in enumerate(zip(histories, cases, strict=True)):
                assert isinstance(case, WrittenCase), case
                if found := await self._difference(loaded, history, case):
                    return number, found
            return 0, ""
        finally:
            await self._forget()

    async def _forget(self) -> None:
        for client in (self.redis, self.embedded):
            await client.execute_command("FLUSHDB")
        rmtree(self.folder / "worlds", ignore_errors=True)  # their journals

    async def _difference(self, loaded: Loaded, history: Sequence[Mapping[str, Any]], case: WrittenCase) -> str:
        instance, worlds = f"one-{next(self.numbers)}", self.folder / "worlds"
        serve = await served(self.redis, instance, loaded, history)
        self.judged += len(serve.judged)
        self.sent += len(serve.sent)
        test = await tested(self.embedded, f"{instance}-test", worlds, loaded, history, case)
        recording = self.folder / "one.jsonl"
        await recorded(self.redis, instance, recording)
        found, sides = await replayed(self.embedded, instance, worlds, loaded, loaded, recording)
        explain = [(each.at, replace(explained(each, loaded.ruleset), trace=())) for each in serve.judged]
        noted = [(each.at, each.decision) for each in serve.judged]
        sent = by_destination(serve.sent)
        return (
            first_difference("test decides otherwise", decisions(serve), decisions(test))
            or first_difference("test sends otherwise", sent, by_destination(test.sent))
            or first_difference("test hears otherwise", words(history, serve), words(history, test))
            or first_difference("test ends otherwise", endings(history, serve), endings(history, test))
            or first_difference("explain decides otherwise", noted, explain)
            or first_difference("explain --alert says otherwise", *looked_at(serve, loaded.ruleset))
            or first_difference("replay sends otherwise", sent, by_destination(sides[0]))
            or first_difference("replay sends otherwise on its other side", sent, by_destination(sides[1]))
            or (
                f"replay finds the same rules different: {found}" if found.counts or found.before != found.after else ""
            )
        )

    async def replay_difference(self, before: Loaded, after: Loaded, history: Sequence[Mapping[str, Any]]) -> str:
        """Where replay says otherwise than serve what changed rules would have sent; "" for nowhere.

        `history` is a steady one: what serve took for duplicates may be news under the other rules.
        """
        instance, worlds = f"one-{next(self.numbers)}", self.folder / "worlds"
        serve = [await served(self.redis, f"{instance}-{n}", each, history) for n, each in enumerate((before, after))]
        recording = self.folder / "one.jsonl"
        await recorded(self.redis, f"{instance}-0", recording)
        _, sides = await replayed(self.embedded, instance, worlds, before, after, recording)
        await self._forget()
        return first_difference(
            "replay sends otherwise by the old rules", by_destination(serve[0].sent), by_destination(sides[0])
        ) or first_difference(
            "replay sends otherwise by the new rules", by_destination(serve[1].sent), by_destination(sides[1])
        )

    async def differing_replay(self, case: Case) -> str:
        """The same as `differing` for a replay; the rules are those of two directories, before and after."""
        try:
            before, after = (
                load(
                    self.folder / "smaller" / side,
                    {name.removeprefix(side): each for name, each in case.rules.items() if name.startswith(side)},
                )
                for side in ("before/", "after/")
            )
            return await self.replay_difference(before, after, case.history) if case.history else ""
        except _NO_CASE:
            return ""

    async def differing(self, case: Case) -> str:
        """What two ways disagree in; "" for nothing, or where the case makes no sense."""
        try:
            loaded = load(self.folder / "smaller", case.rules)
            return (await self.difference(loaded, [case.history]))[1] if case.history else ""
        except _NO_CASE:
            return ""


async def cut_down(case: Case, differing: Callable[[Case], Awaitable[str]], most: int = 2_000) -> Case:
    """The case without whatever can be left out and leaves the same two ways at odds, after at most so many trials."""
    tried, again = 0, True
    kind = (await differing(case)).partition(",")[0]
    while again:
        again = False
        for path in sorted(_paths({"rules": case.rules, "history": case.history}), key=len):
            smaller = deepcopy(case)
            if tried >= most or not _leave_out({"rules": smaller.rules, "history": smaller.history}, path):
                continue
            tried += 1
            if kind and (await differing(smaller)).partition(",")[0] == kind:
                case, again = smaller, True
    return case


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of everything inside, that which comes later first: what is left keeps its place."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in reversed(list(inside)):
        yield from _paths(each, (*path, key))
        if path:
            yield (*path, key)


def _leave_out(value: Any, path: tuple[Any, ...]) -> bool:
    """Remove what is at `path`, if it is still there."""
    *above, last = path
    try:
        for key in above:
            value = value[key]
        del value[last]
    except (LookupError, TypeError):
        return False
    return True
