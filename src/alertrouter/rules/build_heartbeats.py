"""The heartbeats of alertrouter.yaml, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alertrouter.rules.build import CONFIG, in_ms, offset_in, paths_in
from alertrouter.rules.condition import Condition, compile_condition
from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.model import Heartbeat
from alertrouter.rules.schema import ConfigShape, HeartbeatShape, did_you_mean
from alertrouter.rules.syntax import ConditionError


def build_heartbeats(
    document: Document, config: ConfigShape | None, services: Sequence[str]
) -> tuple[tuple[Heartbeat, ...], list[Problem]]:
    """The heartbeats that alertrouter.yaml names, and the problems with them. `services` are those that have a file."""
    built: list[Heartbeat] = []
    problems: list[Problem] = []
    for index, shape in enumerate(config.heartbeats if config else ()):
        path: tuple[Key, ...] = ("heartbeats", index)
        if any(shape.name == other.name for other in built):
            message = f"the heartbeat `{shape.name}` is there already; choose another name"
            problems.append(document.problem((*path, "name"), message))
        if shape.when is None and shape.source is None:
            message = "a heartbeat needs `when`, a condition that names its alert, or `source`, its sender"
            problems.append(document.problem(path, message))
        if shape.service is not None and shape.service not in services:
            message = f"there is no services/{shape.service}.yaml{did_you_mean(shape.service, services)}"
            problems.append(document.problem((*path, "service"), message, "unknown-service"))
        built.append(
            Heartbeat(
                name=shape.name,
                conditions=tuple(_conditions(document, path, shape, problems)),
                sources=tuple(shape.source or ()),
                interval_ms=in_ms(shape.interval),
                grace_ms=in_ms(shape.grace),
                service=shape.service or "",
                severity=shape.severity,
            )
        )
    return tuple(built), problems


def _conditions(
    document: Document, path: tuple[Key, ...], shape: HeartbeatShape, problems: list[Problem]
) -> Iterable[Condition]:
    for index, text in enumerate(shape.when or ()):
        where: tuple[Key, ...] = (*path, "when")
        if isinstance(document.value_at(where), list):
            where = (*where, index)
        try:
            condition = compile_condition(text)
        except ConditionError as error:
            offset = offset_in(text, error.line, error.column)
            problems.append(document.problem_within(where, offset, error.message, error.check))
            continue
        if condition.counts:
            problems.append(document.problem(where, "the condition of a heartbeat cannot count; name its alert"))
        for node in paths_in(condition):
            if node.root == "cache_var":
                message = f"there are no cache variables in {CONFIG}; name the heartbeat by fields of `event`"
                problems.append(document.problem_within(where, node.span.start, message))
        yield condition
