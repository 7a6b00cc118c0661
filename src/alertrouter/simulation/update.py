"""Writes what came into the expectations of a test file. Nothing else of the file changes, no comment is lost. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from alertrouter.rules.document import Key
from alertrouter.simulation.play import Played
from alertrouter.simulation.report import shown
from alertrouter.simulation.run import Failure

#: What is written where a test asks for everything, and of an event where only its place is known.
_USUAL = ("outcome", "service", "severity", "priority", "matched")
_OF_EVENT = ("event_action", "dedup_key")


@dataclass(frozen=True, slots=True)
class Change:
    """A value to be written at `path`."""

    path: tuple[Key, ...]
    value: Any


def changes(failures: Sequence[Failure]) -> Iterator[Change]:
    """What to write so that these steps are as expected."""
    for failure in failures:
        for each in failure.differences:
            if each.name != "alerts" and "expect" in each.path:
                yield Change(each.path, _core(each.name, each.came))


def fillings(played: Played) -> Iterator[Change]:
    """What to write into the expectations of a step that say nothing yet."""
    for number, expected in enumerate(played.step.expect):
        if expected.wanted:
            continue
        if expected.of is not None:
            continue  # it names whose it is, so it is not empty to whoever wrote it
        about = played.came[number : number + 1] if played.step.one_for_each else played.came
        filled = [_usual(each.values) for each in about]
        if filled:
            yield Change(expected.path, filled[0] if len(filled) == 1 else filled)


def _usual(values: Mapping[str, Any]) -> dict[str, Any]:
    if values["outcome"] is None:
        return {"events": _core("events", values["events"])}
    return {name: values[name] for name in _USUAL if values[name] is not None}


def _core(name: str, came: Any) -> Any:
    """As much of what came as a person would write."""
    if name == "events":
        return [_core("event", each) for each in came]
    if name == "open":
        return [each["dedup_key"] for each in came]
    if name == "event" and isinstance(came, Mapping):
        return {key: came[key] for key in _OF_EVENT if key in came}
    return came


def updated(text: str, wanted: Sequence[Change]) -> str:
    """The text with the changes made. Of two for one place that differ neither is; what lies in another is part of it."""
    values: dict[tuple[Key, ...], list[Any]] = {}
    for change in wanted:
        known = values.setdefault(change.path, [])
        if change.value not in known:
            known.append(change.value)
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    plain = {path: found[0] for path, found in values.items() if len(found) == 1}
    edits = []
    for path, value in plain.items():
        if any(path[:size] in plain for size in range(len(path))):
            continue
        node = _at(root, path)
        if node is not None:
            edits.append((*_extent(node), value))
    for start, end, value in sorted(edits, key=lambda edit: edit[0], reverse=True):
        text = _replaced(text, start, end, shown(value, whole=True))
    return text


def _at(node: yaml.Node | None, path: tuple[Key, ...]) -> yaml.Node | None:
    for key in path:
        match node:
            case yaml.MappingNode() if key == 0:
                pass  # it stands alone where a list of one may stand
            case yaml.MappingNode():
                node = next((value for name, value in node.value if name.value == key), None)
            case yaml.SequenceNode() if isinstance(key, int) and key < len(node.value):
                node = node.value[key]
            case yaml.SequenceNode():
                return None
            case _:
                return node
    return node


def _extent(node: yaml.Node) -> tuple[int, int]:
    """Where a node begins and ends. A block has no end of its own: it ends with what is last in it."""
    start, end = node.start_mark, node.end_mark
    assert start is not None
    assert end is not None
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
        return start.index, _extent(last)[1]
    return start.index, end.index


def _replaced(text: str, start: int, end: int, written: str) -> str:
    """The text with something else from `start` to `end`; comments that stood there follow on lines of their own."""
    end = start + len(text[start:end].rstrip()) if text[start:end].strip() else end
    kept = _comments(text[start:end])
    if start == end and text[start - 1 : start] not in (" ", "\n"):
        written = f" {written}"  # nothing stood after the colon
    if not kept:
        return text[:start] + written + text[end:]
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    indent = " " * (start - text.rfind("\n", 0, start) - 1)
    comments = "".join(f"\n{indent}{each}" for each in kept)
    return text[:start] + written + text[end:line_end] + comments + text[line_end:]


def _comments(text: str) -> list[str]:
    """The comments in a piece of YAML: what stands after a # between two tokens."""
    comments: list[str] = []
    at = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        assert token.start_mark is not None
        assert token.end_mark is not None
        if token.start_mark.index > at:
            comments += re.findall(r"#[^\n]*", text[at : token.start_mark.index])
        at = max(at, token.end_mark.index)
    return comments
