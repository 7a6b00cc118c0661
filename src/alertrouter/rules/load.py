"""A rules directory becomes one Ruleset, or the list of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alertrouter.errors import RulesInvalid
from alertrouter.rules.build import CONFIG, GLOBAL, ROUTER, Part, build_part, nothing_from
from alertrouter.rules.document import Document, Key, Problem, nothing_in, read_document
from alertrouter.rules.model import START, UNROUTED, Kind, Priority, Rule, Ruleset
from alertrouter.rules.schema import ConfigShape, did_you_mean, fit

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
    config = config_shape if isinstance(config_shape, ConfigShape) else None

    service_files = sorted(path for path in (directory / SERVICES).glob("*.yaml") if not path.name.startswith("."))
    global_part = _read_part(directory / GLOBAL, "global", config)
    router_part = _read_part(directory / ROUTER, "router", config)
    unrouted_part = _read_part(directory / UNROUTED_FILE, "unrouted", config)
    service_parts = [_read_part(path, "service", config) for path in service_files]
    parts = [global_part, router_part, unrouted_part, *service_parts]

    problems = [
        *(config_shape if isinstance(config_shape, list) else ()),
        *(problem for part in parts for problem in part.problems),
        *_unknown_services(router_part, [path.stem for path in service_files]),
        *_repeated_names(parts),
        *_stray_files(directory, entries),
    ]
    documents = MappingProxyType({CONFIG: config_document} | {part.orchestration.name: part.document for part in parts})
    if problems:
        return Reading(None, tuple(sorted(problems)), documents)
    ruleset = Ruleset(
        services=MappingProxyType({part.service.name: part.service for part in service_parts if part.service}),
        orchestrations=MappingProxyType({part.orchestration.name: part.orchestration for part in parts}),
        priorities=MappingProxyType(_priorities(config)),
        destinations=MappingProxyType(_destinations(config)),
        version=_version(directory, [config_document, *(part.document for part in parts)]),
    )
    return Reading(ruleset, (), documents)


def _read_part(path: Path, kind: Kind, config: ConfigShape | None) -> Part:
    document = read_document(path)
    if isinstance(document, Problem):
        return nothing_from(nothing_in(path), kind, path.stem, [document])
    if kind == "router" and not path.exists():
        why = "is missing; it says which service an alert goes to and ends in a catch_all"
        missing = Problem(str(path), 1, 1, why, "missing-catch-all")
        return nothing_from(document, kind, path.stem, [missing])
    return build_part(document, kind, path.stem, config)


def _read_config(path: Path) -> tuple[Document, ConfigShape | list[Problem]]:
    document = read_document(path)
    if isinstance(document, Problem):
        return nothing_in(path), [document]
    shape = fit(ConfigShape, document)
    if isinstance(shape, list):
        return document, shape
    known = _destination_names(shape)
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


def _destination_names(config: ConfigShape) -> set[str]:
    named = {f"{kind}:{name}" for kind, names in config.destinations.items() for name in names}
    return named | {"pagerduty"}


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


def _priorities(config: ConfigShape | None) -> dict[str, Priority]:
    return {
        name: Priority(name, shape.severity, shape.acknowledge_within, tuple(shape.notify), shape.escalation)
        for name, shape in (config.priorities if config else {}).items()
    }


def _destinations(config: ConfigShape | None) -> dict[str, Mapping[str, Any]]:
    return {kind: MappingProxyType(names) for kind, names in (config.destinations if config else {}).items()}


def _version(directory: Path, documents: Iterable[Document]) -> str:
    """A short hash of everything that was read. Names are part of it, the directory's own place is not."""
    parts = sorted((str(Path(document.file).relative_to(directory)), document.digest) for document in documents)
    return sha256(repr(parts).encode()).hexdigest()[:12]
