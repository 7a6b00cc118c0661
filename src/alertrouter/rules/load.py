"""A rules directory becomes one Ruleset, or the list of everything that is wrong with it. The only room of rules that reads files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from alertrouter.alert import Link
from alertrouter.errors import RulesInvalid
from alertrouter.rules.condition import Condition, compile_condition
from alertrouter.rules.document import Document, Key, Problem, nothing_in, read_document
from alertrouter.rules.model import (
    START,
    UNROUTED,
    Actions,
    KeyReference,
    Kind,
    Orchestration,
    Priority,
    Rule,
    Ruleset,
    Service,
    Suppression,
)
from alertrouter.rules.schema import (
    ActionsShape,
    ConfigShape,
    LinkShape,
    OrchestrationShape,
    RouterShape,
    RuleShape,
    ServiceShape,
    Shape,
    did_you_mean,
    fit,
)
from alertrouter.rules.syntax import ConditionError

CONFIG = "alertrouter.yaml"
GLOBAL = "global.yaml"
ROUTER = "router.yaml"
UNROUTED_FILE = "unrouted.yaml"
SERVICES = "services"

#: More sets than this in one orchestration are a mistake.
SETS = 1000

_GENERAL = frozenset({"severity", "priority", "suppress", "annotate", "enrich"})
#: Which actions a rule may take, and which a catch-all, by kind of orchestration: PagerDuty's own table.
_ALLOWED: Mapping[Kind, tuple[frozenset[str], frozenset[str]]] = {
    "global": (_GENERAL | {"route_to"}, _GENERAL),
    "router": (frozenset({"route_to"}), frozenset({"route_to"})),
    "service": (_GENERAL | {"route_to"}, _GENERAL),
    "unrouted": (frozenset({"route_to", "severity", "enrich"}), frozenset({"severity", "enrich"})),
}
_ACTIONS = _GENERAL | {"route_to"}

ShapeT = TypeVar("ShapeT", bound=Shape)


@dataclass(frozen=True, slots=True)
class Reading:
    """A directory as read: the rules, or None where there are problems."""

    ruleset: Ruleset | None
    problems: tuple[Problem, ...]


def load_rules(directory: Path) -> Ruleset:
    """The rules in a directory. Raises RulesInvalid with every problem as file:line:col, named as `directory` was."""
    reading = read_rules(directory)
    if reading.ruleset is None:
        raise RulesInvalid([str(problem) for problem in reading.problems])
    return reading.ruleset


def load_config(path: Path) -> Document:
    """alertrouter.yaml as a mapping that remembers its lines; empty where there is no such file. Raises RulesInvalid."""
    document, shape = _read_config(path)
    if isinstance(shape, ConfigShape):
        return document
    raise RulesInvalid([str(problem) for problem in shape])


def read_rules(directory: Path) -> Reading:
    """The rules in a directory, or every problem with them, in the order of files and lines."""
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        return Reading(None, (Problem(str(directory), 1, 1, f"cannot be read: {error.strerror}"),))
    config_document, config_shape = _read_config(directory / CONFIG)
    problems = [] if isinstance(config_shape, ConfigShape) else config_shape
    config = config_shape if isinstance(config_shape, ConfigShape) else None

    service_files = sorted(path for path in (directory / SERVICES).glob("*.yaml") if not path.name.startswith("."))
    global_part = _read_part(directory / GLOBAL, OrchestrationShape, "global", config)
    router_part = _read_part(directory / ROUTER, RouterShape, "router", config)
    unrouted_part = _read_part(directory / UNROUTED_FILE, OrchestrationShape, "unrouted", config)
    service_parts = [_read_part(path, ServiceShape, "service", config) for path in service_files]
    parts = [global_part, router_part, unrouted_part, *service_parts]

    for part in parts:
        problems += part.problems
    problems += _unknown_services(router_part, [path.stem for path in service_files])
    problems += _repeated_names(parts)
    problems += _stray_files(directory, entries)
    if problems:
        return Reading(None, tuple(sorted(problems)))
    ruleset = Ruleset(
        services=MappingProxyType({part.service.name: part.service for part in service_parts if part.service}),
        orchestrations=MappingProxyType({part.orchestration.name: part.orchestration for part in parts}),
        priorities=MappingProxyType(_priorities(config)),
        destinations=MappingProxyType(_destinations(config)),
        version=_version(directory, [config_document, *(part.document for part in parts)]),
    )
    return Reading(ruleset, ())


@dataclass(slots=True)
class _Part:
    """What one file gives to the ruleset. Where it has problems, the rest of it is not to be used."""

    document: Document
    orchestration: Orchestration
    service: Service | None = None
    problems: list[Problem] = field(default_factory=list)


def _read_config(path: Path) -> tuple[Document, ConfigShape | list[Problem]]:
    document = read_document(path)
    if isinstance(document, Problem):
        return nothing_in(path), [document]
    shape = fit(ConfigShape, document)
    if isinstance(shape, list):
        return document, shape
    problems = [
        document.problem(
            ("priorities", name, "notify", index), f"`{notified}` is no destination{did_you_mean(notified, known)}"
        )
        for known in [_destination_names(shape)]
        for name, priority in shape.priorities.items()
        for index, notified in enumerate(priority.notify)
        if notified not in known
    ]
    return document, problems or shape


def _destination_names(config: ConfigShape) -> set[str]:
    named = {f"{kind}:{name}" for kind, names in config.destinations.items() for name in names}
    return named | {"pagerduty"}


def _read_part(path: Path, shape_type: type[ShapeT], kind: Kind, config: ConfigShape | None) -> _Part:
    """One file of rules. It is read on its own, so that a faulty one can be set aside on its own."""
    name = f"service:{path.stem}" if kind == "service" else kind
    document = read_document(path)
    if isinstance(document, Problem):
        return _Part(nothing_in(path), Orchestration(name, kind), problems=[document])
    if kind == "router" and not path.exists():
        missing = Problem(str(path), 1, 1, "is missing; it says which service an alert goes to and ends in a catch_all")
        return _Part(document, Orchestration(name, kind), problems=[missing])
    shape = fit(shape_type, document)
    if isinstance(shape, list):
        return _Part(document, Orchestration(name, kind), problems=shape)
    assert isinstance(shape, OrchestrationShape | RouterShape)
    builder = _Builder(document, kind, config)
    part = _Part(document, builder.orchestration(name, shape), problems=builder.problems)
    if isinstance(shape, ServiceShape):
        part.service = builder.service(path.stem, shape)
    return part


class _Builder:
    """Turns the shape of one file into what the evaluator reads, and collects what is wrong on the way."""

    def __init__(self, document: Document, kind: Kind, config: ConfigShape | None) -> None:
        self.document = document
        self.kind = kind
        self.config = config
        self.problems: list[Problem] = []

    def orchestration(self, name: str, shape: OrchestrationShape | RouterShape) -> Orchestration:
        sets = shape.sets if shape.sets is not None else {START: []}
        self._check_sets(sets)
        catch_all = self._actions(("catch_all",), shape.catch_all, shape.catch_all.owner, in_catch_all=True)
        if self.kind == "router" and not catch_all.route_to:
            self._add(("catch_all",), "the router's catch_all must route: write `catch_all: {route_to: unrouted}`")
        built = {
            set_name: tuple(self._rule(("sets", set_name, index), rule) for index, rule in enumerate(rules))
            for set_name, rules in sets.items()
        }
        return Orchestration(name, self.kind, MappingProxyType(built), catch_all)

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
        )

    def _add(self, path: tuple[Key, ...], message: str) -> None:
        self.problems.append(self.document.problem(path, message))

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
                self._add(path, f"there is no set `{target}` in this file{did_you_mean(target, sets)}")
        if cycle := _cycle(routes):
            self._add(
                routes[cycle[0], cycle[1]], f"sets lead back to themselves: {' -> '.join(cycle)}; break the circle"
            )

    def _rule(self, path: tuple[Key, ...], shape: RuleShape) -> Rule:
        return Rule(
            name=shape.rule,
            conditions=tuple(self._conditions(path, shape.when or [])),
            actions=self._actions((*path, "then"), shape.then, shape.owner, in_catch_all=False),
            owner=shape.owner or "",
            disabled=shape.disabled,
            place=self.document.place((*path, "rule")),
        )

    def _conditions(self, path: tuple[Key, ...], texts: Iterable[str]) -> Iterable[Condition]:
        for index, text in enumerate(texts):
            try:
                yield compile_condition(text)
            except ConditionError as error:
                offset = _offset(text, error.line, error.column)
                where: tuple[Key, ...] = (*path, "when")
                if isinstance(self.document.value_at(where), list):
                    where = (*where, index)
                self.problems.append(self.document.problem_within(where, offset, error.message))

    def _actions(self, path: tuple[Key, ...], shape: ActionsShape, owner: str | None, *, in_catch_all: bool) -> Actions:
        self._check_actions(path, shape, in_catch_all=in_catch_all)
        enrich = shape.enrich
        return Actions(
            route_to=shape.route_to or "",
            severity=shape.severity,
            priority=shape.priority or "",
            suppress=self._suppression(path, shape, owner, in_catch_all=in_catch_all),
            annotate=tuple(shape.annotate or ()),
            links=_links(enrich.links) if enrich else (),
            details=MappingProxyType(dict(enrich.details) if enrich else {}),
        )

    def _check_actions(self, path: tuple[Key, ...], shape: ActionsShape, *, in_catch_all: bool) -> None:
        given = {name for name in _ACTIONS if getattr(shape, name) is not None}
        for name in sorted(given - _ALLOWED[self.kind][in_catch_all]):
            message = f"the action `{name}` is not allowed here; {_where_instead(self.kind, name)}"
            self.problems.append(self.document.problem_with_key((*path, name), message))
        if self.kind == "router" and not in_catch_all:
            if shape.route_to is None:
                self._add(path, "a router rule must route: write `then: {route_to: <service>}`")
            elif shape.route_to == UNROUTED:
                self._add((*path, "route_to"), f"only the catch_all may route to `{UNROUTED}`; name a service")
        known = self.config.priorities if self.config else {}
        if shape.priority is not None and known and shape.priority not in known:
            message = f"`{shape.priority}` is no priority of {CONFIG}{did_you_mean(shape.priority, known)}"
            self._add((*path, "priority"), message)

    def _suppression(
        self, path: tuple[Key, ...], shape: ActionsShape, owner: str | None, *, in_catch_all: bool
    ) -> Suppression | None:
        if shape.suppress is None:
            for name in ("reason", "expires"):
                if getattr(shape, name) is not None:
                    message = f"`{name}` belongs to a suppression; add `suppress: true` or remove it"
                    self.problems.append(self.document.problem_with_key((*path, name), message))
            return None
        if owner is None:
            beside = "in the catch_all" if in_catch_all else "beside `rule`"
            self._add((*path, "suppress"), f"a suppression needs an owner: write `owner: <team>` {beside}")
        if shape.reason is None:
            self._add((*path, "suppress"), "a suppression needs a reason: write `reason: <why, with a ticket>`")
        if shape.expires is None:
            self._add((*path, "suppress"), "a suppression needs an end: write `expires: <date>`, such as 2027-03-31")
        return Suppression(owner or "", shape.reason or "", shape.expires or 0)


def _where_instead(kind: Kind, action: str) -> str:
    if kind == "router":
        return f"the router only routes; move it to {GLOBAL} or to the service's file"
    if action == "route_to":
        return "a catch_all is the end of its rules"
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


def _unknown_services(router: _Part, services: list[str]) -> list[Problem]:
    document, orchestration = router.document, router.orchestration
    targets: list[tuple[tuple[Key, ...], str]] = [
        (("sets", START, index, "then", "route_to"), rule.actions.route_to)
        for index, rule in enumerate(orchestration.sets.get(START, ()))
    ]
    targets.append((("catch_all", "route_to"), orchestration.catch_all.route_to))
    return [
        document.problem(path, f"there is no {SERVICES}/{target}.yaml{did_you_mean(target, services)}")
        for path, target in targets
        if target and target != UNROUTED and target not in services
    ]


def _repeated_names(parts: Iterable[_Part]) -> list[Problem]:
    """Every use but the first of each rule name: it stands alone in logs and metrics, without its file."""
    first: dict[str, Rule] = {}
    repeated = []
    for part in parts:
        for set_name, rules in part.orchestration.sets.items():
            for index, rule in enumerate(rules):
                if first.setdefault(rule.name, rule) is not rule:
                    message = (
                        f"the rule name `{rule.name}` is used already, at {first[rule.name].place}; choose another"
                    )
                    repeated.append(part.document.problem(("sets", set_name, index, "rule"), message))
    return repeated


def _stray_files(directory: Path, entries: Iterable[Path]) -> list[Problem]:
    """Rule files that would be passed over without a word, because of their name or their place."""
    known = {CONFIG, GLOBAL, ROUTER, UNROUTED_FILE}
    strays = [
        Problem(str(path), 1, 1, f"no rules are read from a file of this name{did_you_mean(path.name, known)}")
        for path in entries
        if path.suffix in (".yaml", ".yml") and path.name not in known and not path.name.startswith(".")
    ]
    return strays + [
        Problem(str(path), 1, 1, f"rename the file to {path.stem}.yaml: no rules are read from .yml files")
        for path in sorted((directory / SERVICES).glob("*.yml"))
    ]


def _priorities(config: ConfigShape | None) -> dict[str, Priority]:
    return {
        name: Priority(name, shape.severity, shape.acknowledge_within, tuple(shape.notify), shape.escalation)
        for name, shape in (config.priorities if config else {}).items()
    }


def _destinations(config: ConfigShape | None) -> dict[str, Mapping[str, Any]]:
    return {kind: MappingProxyType(names) for kind, names in (config.destinations if config else {}).items()}


def _links(shapes: Iterable[LinkShape]) -> tuple[Link, ...]:
    return tuple(Link(shape.href, shape.text) for shape in shapes)


def _runbook(written: str, config: ConfigShape | None) -> str:
    base = config.runbook_base if config else None
    if not written or "://" in written or not base:
        return written
    return f"{base.rstrip('/')}/{written}"


def _offset(text: str, line: int, column: int) -> int:
    """Where a line and column of a condition are in its text."""
    lines = text.split("\n")
    return sum(len(each) + 1 for each in lines[: line - 1]) + column - 1


def _version(directory: Path, documents: Iterable[Document]) -> str:
    """A short hash of everything that was read. Names are part of it, the directory's own place is not."""
    parts = sorted((str(Path(document.file).relative_to(directory)), document.digest) for document in documents)
    return sha256(repr(parts).encode()).hexdigest()[:12]
