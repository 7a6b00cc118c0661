"""A rules directory becomes one Ruleset, or the list of everything that is wrong with it.

One team's faulty file never holds up the others: it is quarantined, and what was good before stays.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alertrouter.errors import RulesInvalid
from alertrouter.rules.build import CONFIG, GLOBAL, ROUTER, Part, build_part, nothing_from
from alertrouter.rules.build_credentials import build_credentials
from alertrouter.rules.build_heartbeats import build_heartbeats
from alertrouter.rules.build_integrations import build_integrations
from alertrouter.rules.build_sources import build_sources
from alertrouter.rules.document import Document, Key, Problem, nothing_in, read_document
from alertrouter.rules.model import (
    START,
    UNROUTED,
    CredentialReferences,
    Heartbeat,
    Integration,
    Kind,
    Orchestration,
    Priority,
    Rule,
    Ruleset,
    Service,
    TopicReferences,
)
from alertrouter.rules.schema import ConfigShape, destination_names, did_you_mean, fit
from alertrouter.sources import Parser

UNROUTED_FILE = "unrouted.yaml"
SERVICES = "services"


@dataclass(frozen=True, slots=True)
class Reading:
    """A directory as read: the rules, or None where there are problems.

    documents: each file that could be read, by the name of its orchestration, and alertrouter.yaml by its own.
    """

    ruleset: Ruleset | None
    problems: tuple[Problem, ...]
    documents: Mapping[str, Document] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Files:
    """Everything in a directory: each file's part, and what is wrong with them."""

    config_document: Document
    config: ConfigShape | None
    parts: tuple[Part, ...]
    problems: tuple[Problem, ...]
    heartbeats: tuple[Heartbeat, ...] = ()
    credentials: Mapping[str, CredentialReferences] = field(default_factory=dict)
    integrations: Mapping[str, Integration] = field(default_factory=dict)
    custom: Mapping[str, Parser] = field(default_factory=lambda: MappingProxyType({}))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Rules are many small objects, all of which stay: to look for garbage among them is a third of the loading.

    So they go to the oldest generation unlooked at, or, where the process has frozen such objects, to those.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        has_frozen = gc.get_freeze_count() > 0
        gc.freeze()
        if not has_frozen:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def load_rules(directory: Path, last: Ruleset | None = None, *, now: int | None = None) -> Ruleset:
    """The rules in a directory, whole but for the services whose own file is faulty: these are quarantined.

    last: the rules in force until now. What a quarantined service had there stays; without it the service is known,
          but has no rules, and its alerts go to the router's catch-all.
    now:  ms since the epoch, against which `longest_suppression` is held; None for no such check.
    Raises RulesInvalid with every problem as file:line:col, named as `directory` was, where another file is faulty.
    """
    files = _read_files(directory, now)
    at_fault: dict[str, list[str]] = {}
    for problem in files.problems:
        if Path(problem.file).parent != directory / SERVICES:
            raise RulesInvalid([str(each) for each in files.problems])
        at_fault.setdefault(Path(problem.file).stem, []).append(str(problem))
    return _ruleset(files, {name: tuple(problems) for name, problems in at_fault.items()}, last)


def load_config(path: Path) -> Document:
    """alertrouter.yaml as a mapping that remembers its lines; empty where there is no such file. Raises RulesInvalid."""
    document, shape = _read_config(path)
    if isinstance(shape, ConfigShape):
        return document
    raise RulesInvalid([str(problem) for problem in shape])


def read_rules(directory: Path, *, now: int | None = None) -> Reading:
    """The rules in a directory, or every problem with them, in the order of files and lines. `now` as in `load_rules`."""
    files = _read_files(directory, now)
    documents = {CONFIG: files.config_document} | {part.orchestration.name: part.document for part in files.parts}
    ruleset = None if files.problems else _ruleset(files, {}, None)
    return Reading(ruleset, files.problems, MappingProxyType(documents))


@_collector_paused()
def _read_files(directory: Path, now: int | None) -> _Files:
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        problem = Problem(str(directory), 1, 1, f"cannot be read: {error.strerror}")
        return _Files(nothing_in(directory / CONFIG), None, (), (problem,))
    config_document, config_shape = _read_config(directory / CONFIG)
    config = config_shape if isinstance(config_shape, ConfigShape) else None

    service_files = sorted(path for path in (directory / SERVICES).glob("*.yaml") if not path.name.startswith("."))
    router_part = _read_part(directory / ROUTER, "router", config, now)
    parts = (
        _read_part(directory / GLOBAL, "global", config, now),
        router_part,
        _read_part(directory / UNROUTED_FILE, "unrouted", config, now),
        *(_read_part(path, "service", config, now) for path in service_files),
    )
    services = [path.stem for path in service_files]
    heartbeats, about_heartbeats = build_heartbeats(config_document, config, services)
    integrations, about_integrations = build_integrations(config_document, config, services)
    credentials, about_credentials = build_credentials(config_document, config)
    custom, about_sources = build_sources(config_document, config)
    problems = [
        *(config_shape if isinstance(config_shape, list) else ()),
        *about_heartbeats,
        *about_integrations,
        *about_credentials,
        *about_sources,
        *_stray_topics(config_document, config),
        *(problem for part in parts for problem in part.problems),
        *_unknown_services(router_part, services),
        *_repeated_names(parts),
        *_stray_files(directory, entries),
    ]
    return _Files(
        config_document, config, parts, tuple(sorted(problems)), heartbeats, credentials, integrations, custom
    )


def _ruleset(files: _Files, quarantined: Mapping[str, tuple[str, ...]], last: Ruleset | None) -> Ruleset:
    set_aside = {f"service:{name}" for name in quarantined}
    sound = [part for part in files.parts if part.orchestration.name not in set_aside]
    orchestrations = {part.orchestration.name: part.orchestration for part in sound}
    services = {part.service.name: part.service for part in sound if part.service}
    for name in quarantined:
        services[name] = last.services.get(name, Service(name)) if last else Service(name)
        if last and (known := last.orchestrations.get(f"service:{name}")):
            orchestrations[known.name] = known
    return Ruleset(
        services=MappingProxyType(dict(sorted(services.items()))),
        orchestrations=MappingProxyType(orchestrations),
        priorities=MappingProxyType(_priorities(files.config)),
        destinations=MappingProxyType(_destinations(files.config)),
        version=_version(files.config_document, orchestrations.values(), quarantined),
        quarantined=MappingProxyType(dict(quarantined)),
        heartbeats=files.heartbeats,
        credentials=files.credentials,
        integrations=MappingProxyType(dict(files.integrations)),
        custom=files.custom,
        topics=MappingProxyType(_topics(files.config)),
    )


def _read_part(path: Path, kind: Kind, config: ConfigShape | None, now: int | None) -> Part:
    document = read_document(path)
    if isinstance(document, Problem):
        return nothing_from(nothing_in(path), kind, path.stem, [document])
    if kind == "router" and not path.exists():
        why = "is missing; it says which service an alert goes to and ends in a catch_all"
        missing = Problem(str(path), 1, 1, why, "missing-catch-all")
        return nothing_from(document, kind, path.stem, [missing])
    return build_part(document, kind, path.stem, config, now)


def _read_config(path: Path) -> tuple[Document, ConfigShape | list[Problem]]:
    document = read_document(path)
    if isinstance(document, Problem):
        return nothing_in(path), [document]
    shape = fit(ConfigShape, document)
    if isinstance(shape, list):
        return document, shape
    known = destination_names(shape)
    problems = [
        document.problem(
            ("priorities", name, "notify", index),
            f"`{told}` is no destination{did_you_mean(told, known)}",
            "unknown-destination",
        )
        for name, priority in shape.priorities.items()
        for index, told in enumerate(priority.notify)
        if told not in known
    ]
    return document, problems or shape


def _unknown_services(router: Part, services: list[str]) -> list[Problem]:
    document, orchestration = router.document, router.orchestration
    targets: list[tuple[tuple[Key, ...], str]] = [
        (("sets", START, index, "then", "route_to"), rule.actions.route_to)
        for index, rule in enumerate(orchestration.sets.get(START, ()))
    ]
    targets.append((("catch_all", "route_to"), orchestration.catch_all.route_to))
    return [
        document.problem(
            path, f"there is no {SERVICES}/{target}.yaml{did_you_mean(target, services)}", "unknown-service"
        )
        for path, target in targets
        if target and target != UNROUTED and target not in services
    ]


def _repeated_names(parts: Iterable[Part]) -> list[Problem]:
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
                    repeated.append(part.document.problem(("sets", set_name, index, "rule"), message, "duplicate-rule"))
    return repeated


def _stray_files(directory: Path, entries: Iterable[Path]) -> list[Problem]:
    """Rule files that would be passed over without a word, because of their name or their place."""
    known = {CONFIG, GLOBAL, ROUTER, UNROUTED_FILE}
    strays = [
        Problem(
            str(path), 1, 1, f"no rules are read from a file of this name{did_you_mean(path.name, known)}", "stray-file"
        )
        for path in entries
        if path.suffix in (".yaml", ".yml") and path.name not in known and not path.name.startswith(".")
    ]
    return strays + [
        Problem(
            str(path), 1, 1, f"rename the file to {path.stem}.yaml: no rules are read from .yml files", "stray-file"
        )
        for path in sorted((directory / SERVICES).glob("*.yml"))
    ]


def _stray_topics(document: Document, config: ConfigShape | None) -> list[Problem]:
    """What only CloudWatch's sources have, where it stands at another, or without what makes use of it."""
    problems = []
    for source, shape in (config.sources if config else {}).items():
        for name in ("topics", "certificates"):
            if getattr(shape, name) is None:
                continue
            if source.partition("/")[0] != "cloudwatch":
                message = f"`{name}` is for `cloudwatch`, whose alarms come through SNS"
                problems.append(document.problem_with_key(("sources", source, name), message))
            elif shape.topics is None:
                message = "`certificates` proves what comes from `topics`; name these as well"
                problems.append(document.problem_with_key(("sources", source, name), message))
    return problems


def _topics(config: ConfigShape | None) -> dict[str, TopicReferences]:
    return {
        source: TopicReferences(tuple(shape.topics), shape.certificates or "")
        for source, shape in (config.sources if config else {}).items()
        if shape.topics is not None
    }


def _priorities(config: ConfigShape | None) -> dict[str, Priority]:
    return {
        name: Priority(name, shape.severity, shape.acknowledge_within, tuple(shape.notify), shape.escalation)
        for name, shape in (config.priorities if config else {}).items()
    }


def _destinations(config: ConfigShape | None) -> dict[str, Mapping[str, Any]]:
    return {kind: MappingProxyType(names) for kind, names in (config.destinations if config else {}).items()}


def _version(config: Document, orchestrations: Iterable[Orchestration], quarantined: Iterable[str]) -> str:
    """A short hash of every file that is in force, by its name; the directory's own place is no part of it."""
    parts = {f"service:{name}": "" for name in quarantined} | {each.name: each.digest for each in orchestrations}
    return sha256(repr((config.digest, sorted(parts.items()))).encode()).hexdigest()[:12]
