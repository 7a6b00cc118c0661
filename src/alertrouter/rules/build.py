"""One file of rules becomes an orchestration, and a service if it is one's.

Each file is read on its own, so that a faulty one can be set aside on its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType

from alertrouter.alert import Link
from alertrouter.rules.build_texts import TextBuilder, unknown_cache_variable
from alertrouter.rules.cache import CacheVariable, RecentValue, TriggerCount
from alertrouter.rules.condition import Condition, compile_condition
from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.model import (
    START,
    UNROUTED,
    Actions,
    KeyReference,
    Kind,
    Orchestration,
    Rule,
    Service,
    Suppression,
)
from alertrouter.rules.schema import (
    ActionsShape,
    CacheVariableShape,
    ConfigShape,
    LinkShape,
    OrchestrationShape,
    RememberingShape,
    RouterShape,
    RuleShape,
    ServiceShape,
    destination_names,
    did_you_mean,
    fit,
)
from alertrouter.rules.syntax import ConditionError, Path, walk

CONFIG = "alertrouter.yaml"
GLOBAL = "global.yaml"
ROUTER = "router.yaml"

#: More sets than this in one orchestration are a mistake.
SETS = 1000

_UNROUTED = frozenset({"severity", "event_action", "variables", "extractions", "enrich"})
_SERVICE = (
    _UNROUTED
    | {"priority", "suppress", "suspend", "escalation_policy", "annotate", "custom_fields"}
    | {"notify", "automation", "dedup_key"}
)
_GLOBAL = _SERVICE | {"drop"}
#: Which actions a rule may take, and which a catch-all, by kind of orchestration: PagerDuty's own table.
ALLOWED: Mapping[Kind, tuple[frozenset[str], frozenset[str]]] = {
    "global": (_GLOBAL | {"route_to"}, _GLOBAL),
    "router": (frozenset({"route_to", "dynamic_route_to"}), frozenset({"route_to"})),
    "service": (_SERVICE | {"route_to"}, _SERVICE),
    "unrouted": (_UNROUTED | {"route_to"}, _UNROUTED),
}
_ACTIONS = _GLOBAL | {"route_to", "dynamic_route_to"}


_SHAPES: Mapping[Kind, type[OrchestrationShape | RouterShape]] = {
    "global": RememberingShape,
    "router": RouterShape,
    "service": ServiceShape,
    "unrouted": OrchestrationShape,
}


@dataclass(slots=True)
class Part:
    """What one file gives to the ruleset. Where it has problems, the rest of it is not to be used."""

    document: Document
    orchestration: Orchestration
    service: Service | None = None
    problems: list[Problem] = field(default_factory=list)


def nothing_from(document: Document, kind: Kind, stem: str, problems: list[Problem]) -> Part:
    """A file that cannot be used at all."""
    return Part(document, Orchestration(_name(kind, stem), kind), problems=problems)


def build_part(document: Document, kind: Kind, stem: str, config: ConfigShape | None, now: int | None) -> Part:
    """What a file gives, or its problems. `stem` names a service; without `config` its priorities stay unchecked.

    `now`, in ms since the epoch, is what the end of a suppression is held against; None leaves that unchecked.
    """
    shape = fit(_SHAPES[kind], document)
    if isinstance(shape, list):
        return nothing_from(document, kind, stem, shape)
    builder = _Builder(document, kind, _name(kind, stem), config, now)
    part = Part(document, builder.orchestration(shape), problems=builder.problems)
    if isinstance(shape, ServiceShape):
        part.service = builder.service(stem, shape)
    return part


def _name(kind: Kind, stem: str) -> str:
    return f"service:{stem}" if kind == "service" else kind


class _Builder:
    """Turns the shape of one file into what the evaluator reads, and collects what is wrong on the way."""

    def __init__(self, document: Document, kind: Kind, name: str, config: ConfigShape | None, now: int | None) -> None:
        self.document = document
        self.kind = kind
        self.name = name
        self.config = config
        self.now = now
        self.problems: list[Problem] = []
        self.cached: list[str] = []  # names of cache variables

    def orchestration(self, shape: OrchestrationShape | RouterShape) -> Orchestration:
        sets = shape.sets if shape.sets is not None else {START: []}
        self._check_sets(sets)
        cache_variables = shape.cache_variables if isinstance(shape, RememberingShape) else ()
        remembered = tuple(self._cache_variables(cache_variables))
        catch_all = self._actions(("catch_all",), shape.catch_all, shape.catch_all.owner, in_catch_all=True)
        if self.kind == "router" and not catch_all.route_to:
            remedy = "write `catch_all: {route_to: unrouted}`"
            self._add(("catch_all",), f"the router's catch_all must route: {remedy}", "missing-catch-all")
        built = {
            set_name: tuple(self._rule(set_name, index, rule) for index, rule in enumerate(rules))
            for set_name, rules in sets.items()
        }
        return Orchestration(self.name, self.kind, MappingProxyType(built), catch_all, self.document.digest, remembered)

    def service(self, stem: str, shape: ServiceShape) -> Service:
        if shape.service is not None and shape.service != stem:
            remedy = f"write `service: {stem}`, or rename the file to {shape.service}.yaml"
            self._add(("service",), f"the service is named by its file, {stem}.yaml; {remedy}")
        if stem == UNROUTED:
            self._add((), f"no service can be named {UNROUTED}: the router sends there what no rule wants")
        key = shape.routing_key
        if key is not None and (key.env is None) is (key.file is None):
            self._add(("routing_key",), "name one place where the key is found: `{env: ...}` or `{file: ...}`")
        return Service(
            name=stem,
            team=shape.team or "",
            tier=shape.tier,
            on_call=shape.on_call or "",
            runbook=_runbook(shape.runbook or "", self.config),
            links=_links(shape.links),
            routing_key=KeyReference(key.env, key.file) if key else None,
            calls_per_minute=key.calls_per_minute if key else None,
        )

    def _add(self, path: tuple[Key, ...], message: str, check: str = "syntax") -> None:
        self.problems.append(self.document.problem(path, message, check))

    def _check_sets(self, sets: Mapping[str, list[RuleShape]]) -> None:
        if START not in sets:
            self._add(("sets",), f"there is no set `{START}`, in which evaluation begins")
        if len(sets) > SETS:
            self._add(("sets",), f"{len(sets)} sets; at most {SETS} are allowed")
        if self.kind == "router":
            for name in sets.keys() - {START}:
                self.problems.append(
                    self.document.problem_with_key(
                        ("sets", name), f"the router has one set, `{START}`; remove `{name}`"
                    )
                )
            return
        routes = {
            (name, rule.then.route_to): ("sets", name, index, "then", "route_to")
            for name, rules in sets.items()
            for index, rule in enumerate(rules)
            if rule.then.route_to is not None
        }
        for (_, target), path in routes.items():
            if target not in sets:
                self._add(path, f"there is no set `{target}` in this file{did_you_mean(target, sets)}", "unknown-set")
        if cycle := _cycle(routes):
            self._add(
                routes[cycle[0], cycle[1]],
                f"sets lead back to themselves: {' -> '.join(cycle)}; break the circle",
                "set-circle",
            )

    def _rule(self, set_name: str, index: int, shape: RuleShape) -> Rule:
        path: tuple[Key, ...] = ("sets", set_name, index)
        if shape.then.dynamic_route_to and self.kind == "router":
            self._check_dynamic_route(path, shape, index)
        return Rule(
            name=shape.rule,
            conditions=tuple(self._conditions(path, shape.when or [])),
            actions=self._actions((*path, "then"), shape.then, shape.owner, in_catch_all=False),
            owner=shape.owner or "",
            disabled=shape.disabled,
            place=self.document.place((*path, "rule")),
            key=f"{self.name}/{set_name}/{shape.rule}",
        )

    def _cache_variables(self, shapes: Iterable[CacheVariableShape]) -> Iterable[CacheVariable]:
        """Each may read those before it."""
        for index, shape in enumerate(shapes):
            path: tuple[Key, ...] = ("cache_variables", index)
            variable = self._cache_variable(path, shape)
            if shape.name in self.cached:
                self._add((*path, "name"), f"the cache variable `{shape.name}` is there already; choose another name")
            else:
                self.cached.append(shape.name)
            if variable:
                yield variable

    def _cache_variable(self, path: tuple[Key, ...], shape: CacheVariableShape) -> CacheVariable | None:
        conditions = tuple(self._conditions(path, shape.when or []))
        if any(condition.counts for condition in conditions):
            remedy = "write a variable of the type `trigger_count`"
            self._add((*path, "when"), f"the condition of a cache variable cannot count; {remedy}")
        looks_back = any(node.root == "cache_var" for each in conditions for node in paths_in(each))
        key = f"{self.name}/cache/{shape.name}"
        out_of_place = ("over",) if shape.type == "recent_value" else ("source", "regex")
        for name in out_of_place:
            if getattr(shape, name) is not None:
                self.problems.append(
                    self.document.problem_with_key((*path, name), f"a {shape.type} has no `{name}`; remove it")
                )
        if shape.type == "trigger_count":
            if shape.over is None:
                self._add(path, "a trigger_count needs its time: write `over: 10m`")
                return None
            return TriggerCount(shape.name, key, conditions, looks_back, in_ms(shape.over))
        pattern = TextBuilder(self.document, path, self.problems, self.cached).recent_value(shape)
        if pattern is None:
            return None
        return RecentValue(shape.name, key, conditions, looks_back or pattern.source.root == "cache_var", pattern)

    def _check_dynamic_route(self, path: tuple[Key, ...], shape: RuleShape, index: int) -> None:
        at = (*path, "then", "dynamic_route_to")
        if index > 0:
            self.problems.append(
                self.document.problem_with_key(at, "only the router's first rule may look a service up")
            )
        if shape.when is not None or shape.then.route_to is not None:
            message = "a rule that looks a service up has neither `when` nor `route_to`; the next rules have their turn"
            self.problems.append(self.document.problem_with_key(at, f"{message} where there is no such service"))

    def _conditions(self, path: tuple[Key, ...], texts: Iterable[str]) -> Iterable[Condition]:
        for index, text in enumerate(texts):
            where: tuple[Key, ...] = (*path, "when")
            if isinstance(self.document.value_at(where), list):
                where = (*where, index)
            try:
                condition = compile_condition(text)
            except ConditionError as error:
                offset = offset_in(text, error.line, error.column)
                self.problems.append(self.document.problem_within(where, offset, error.message, error.check))
                continue
            if "cache_var" in text:  # few have one, and to walk through all is dear
                for node in paths_in(condition):
                    if node.root == "cache_var" and (unknown := unknown_cache_variable(node.keys, self.cached)):
                        self.problems.append(self.document.problem_within(where, node.span.start, unknown))
            yield condition

    def _actions(self, path: tuple[Key, ...], shape: ActionsShape, owner: str | None, *, in_catch_all: bool) -> Actions:
        self._check_actions(path, shape, in_catch_all=in_catch_all)
        enrich = shape.enrich
        ended = self._suppression(path, shape, owner, in_catch_all=in_catch_all)
        texts = TextBuilder(self.document, path, self.problems, self.cached)
        return Actions(
            route_to=shape.route_to or "",
            variables=tuple(texts.variables(shape.variables or ())),
            extractions=tuple(texts.extractions(shape.extractions or ())),
            dynamic_route_to=texts.dynamic_route(shape.dynamic_route_to),
            severity=shape.severity,
            priority=shape.priority or "",
            suppress=ended if shape.suppress else None,
            drop=ended if shape.drop else None,
            suspend_ms=in_ms(shape.suspend) if shape.suspend else 0,
            event_action=shape.event_action or "",
            escalation_policy=shape.escalation_policy or "",
            annotate=tuple(texts.notes(shape.annotate or ())),
            links=_links(enrich.links) if enrich else (),
            details=MappingProxyType(dict(enrich.details) if enrich else {}),
            custom_fields=texts.custom_fields(shape.custom_fields or {}),
            notify=tuple(shape.notify or ()),
            automation=texts.automation(shape.automation),
            dedup_key=texts.dedup_key(shape.dedup_key),
        )

    def _check_actions(self, path: tuple[Key, ...], shape: ActionsShape, *, in_catch_all: bool) -> None:
        given = {name for name in _ACTIONS if getattr(shape, name) is not None}
        for name in sorted(given - ALLOWED[self.kind][in_catch_all]):
            message = f"the action `{name}` is not allowed here; {_where_instead(self.kind, name)}"
            self.problems.append(self.document.problem_with_key((*path, name), message, "misplaced-action"))
        if self.kind == "router" and not in_catch_all:
            if shape.route_to is None and shape.dynamic_route_to is None:
                self._add(path, "a router rule must route: write `then: {route_to: <service>}`")
            elif shape.route_to == UNROUTED:
                self._add((*path, "route_to"), f"only the catch_all may route to `{UNROUTED}`; name a service")
        known = self.config.priorities if self.config else {}
        if shape.priority is not None and known and shape.priority not in known:
            message = f"`{shape.priority}` is no priority of {CONFIG}{did_you_mean(shape.priority, known)}"
            self._add((*path, "priority"), message, "unknown-priority")
        destinations = destination_names(self.config) if self.config else set(shape.notify or ())
        for index, told in enumerate(shape.notify or ()):
            if told not in destinations:
                message = f"`{told}` is no destination of {CONFIG}{did_you_mean(told, destinations)}"
                self._add((*path, "notify", index), message, "unknown-destination")

    def _suppression(
        self, path: tuple[Key, ...], shape: ActionsShape, owner: str | None, *, in_catch_all: bool
    ) -> Suppression | None:
        """Whose the suppression or the drop is, why, and to when; None where the rule has neither."""
        if shape.suppress is None and shape.drop is None:
            for name in ("reason", "expires"):
                if getattr(shape, name) is not None:
                    message = f"`{name}` belongs to a suppression; add `suppress: true` or remove it"
                    self.problems.append(self.document.problem_with_key((*path, name), message))
            return None
        if shape.suppress and shape.drop:
            message = "a rule drops or suppresses; write one, `suppress` to judge the alert again when it is over"
            self.problems.append(self.document.problem_with_key((*path, "drop"), message))
        action, what = ("suppress", "a suppression") if shape.suppress else ("drop", "a drop")
        if owner is None:
            beside = "in the catch_all" if in_catch_all else "beside `rule`"
            self._add((*path, action), f"{what} needs an owner: write `owner: <team>` {beside}", "bare-suppression")
        if shape.reason is None:
            self._add(
                (*path, action),
                f"{what} needs a reason: write `reason: <why, with a ticket>`",
                "bare-suppression",
            )
        if shape.expires is None:
            self._add(
                (*path, action),
                f"{what} needs an end: write `expires: <date>`, such as 2027-03-31",
                "bare-suppression",
            )
        longest = self.config.limits.longest_suppression if self.config else None
        if longest and shape.expires and self.now is not None and shape.expires - self.now > in_ms(longest):
            message = f"it lasts longer than `longest_suppression` in {CONFIG} allows; choose an earlier end"
            self._add((*path, "expires"), message, "endless-suppression")
        return Suppression(owner or "", shape.reason or "", shape.expires or 0)


def _where_instead(kind: Kind, action: str) -> str:
    if action == "dynamic_route_to":
        return f"only the first rule of {ROUTER} may look a service up"
    if kind == "router":
        return f"the router only routes; move it to {GLOBAL} or to the service's file"
    if action == "route_to":
        return "a catch_all is the end of its rules"
    if action == "drop":
        return f"only {GLOBAL} may drop an alert; write `suppress` instead"
    return f"unrouted alerts may be changed in {GLOBAL}, or given a service in {ROUTER}"


def _cycle(routes: Iterable[tuple[str, str]]) -> list[str]:
    """The sets of a circle, the first one again at its end; empty where there is none."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for origin, target in routes:
        sorter.add(target, origin)
    try:
        sorter.prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def _links(shapes: Iterable[LinkShape]) -> tuple[Link, ...]:
    return tuple(Link(shape.href, shape.text) for shape in shapes)


def _runbook(written: str, config: ConfigShape | None) -> str:
    base = config.runbook_base if config else None
    if not written or "://" in written or not base:
        return written
    return f"{base.rstrip('/')}/{written}"


def in_ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def paths_in(condition: Condition) -> Iterable[Path]:
    return (node for node in walk(condition.tree) if isinstance(node, Path))


def offset_in(text: str, line: int, column: int) -> int:
    """Where a line and column of a condition are in its text."""
    lines = text.split("\n")
    return sum(len(each) + 1 for each in lines[: line - 1]) + column - 1
