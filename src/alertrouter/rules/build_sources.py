"""The custom senders of alertrouter.yaml, or what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from alertrouter.alert import Severity, Status
from alertrouter.rules.build import offset_in
from alertrouter.rules.closures import MISSING, finder_of
from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.schema import ConfigShape, StatusShape
from alertrouter.rules.syntax import ConditionError, Path, error_at, parse
from alertrouter.sources import CUSTOM, Parser
from alertrouter.sources.bounds import bounded
from alertrouter.sources.custom import Fields, Place, Places, parser, word

#: As it stands in the path of the webhook.
_SOURCE = re.compile(rf"{CUSTOM}/[a-z0-9][a-z0-9_-]{{0,63}}")

#: Where a path begins that does not say so: at one alert of the body. Not seen by who writes it.
_ALERT = "alert"
_BODY = re.compile(r"\s*raw_event\b")

_STATUSES: Mapping[str, Status | None] = {
    "firing": Status.FIRING,
    "resolved": Status.RESOLVED,
    "acknowledged": Status.ACKNOWLEDGED,
    "ignored": None,
}


def build_sources(document: Document, config: ConfigShape | None) -> tuple[Mapping[str, Parser], list[Problem]]:
    """The parsers of the custom senders that alertrouter.yaml describes, by `custom/name`, and the problems with them."""
    built: dict[str, Parser] = {}
    problems: list[Problem] = []
    for source, shape in (config.sources if config else {}).items():
        path: tuple[Key, ...] = ("sources", source)
        fields: Any = shape.fields
        is_custom = source.partition("/")[0] == CUSTOM
        if is_custom and not _SOURCE.fullmatch(source):
            message = f"write `{CUSTOM}/` and a name of a-z, 0-9, _ and -, at most 64, such as {CUSTOM}/zabbix"
            problems.append(document.problem_with_key(path, message))
        elif is_custom and fields is None:
            message = f"`{source}` needs `fields`, which say where its bodies hold identity and status"
            problems.append(document.problem_with_key(path, message))
        elif not is_custom and fields is not None:
            message = f"only a custom sender has `fields`; write `{CUSTOM}/{source.rpartition('/')[2]}`"
            problems.append(document.problem_with_key((*path, "fields"), message))
        if fields is not None:
            builder = _Builder(document, (*path, "fields"))
            built[source] = bounded(parser(builder.fields(fields)))
            problems += builder.problems
    return MappingProxyType(built), problems


def read_place(text: str) -> Place:
    """A path into an alert, or from `raw_event` on into the whole body. Raises ConditionError."""
    lead = "" if _BODY.match(text) else _ALERT if text.lstrip().startswith("[") else f"{_ALERT}."
    try:
        node = parse(lead + text)
    except ConditionError as error:
        offset = max(0, offset_in(lead + text, error.line, error.column) - len(lead))
        raise error_at(text, offset, error.message, error.check) from None
    if not isinstance(node, Path) or not node.keys:
        raise error_at(text, 0, "write the path of a field, such as event.name, or raw_event.name from the whole body")
    find = finder_of(node)
    return Place(
        text.strip(), node.keys, node.root != _ALERT, lambda view: None if (found := find(view)) is MISSING else found
    )


@dataclass(slots=True)
class _Builder:
    """Turns the shape of one sender's fields, at `path`, into what its parser reads, and collects what is wrong."""

    document: Document
    path: tuple[Key, ...]
    problems: list[Problem] = field(default_factory=list)

    def fields(self, shape: Any) -> Fields:
        identity = self._places(("identity",), shape.identity)
        summary = self._places(("summary",), shape.summary)
        for index, place in enumerate(identity):
            if any(place.keys == other.keys for other in summary):
                message = f"`{place.path}` is the summary; identity is what never changes, such as an id"
                self._add(self._item(("identity",), index), message)
        severity, timestamps = shape.severity, shape.timestamps
        return Fields(
            identity=identity,
            status=self._places(("status", "path"), shape.status.path),
            statuses=self._words("status", shape.status, _STATUSES),
            known=_known(shape.status),
            alerts=self._place(("alerts",), shape.alerts) if shape.alerts is not None else None,
            severity=self._places(("severity", "path"), severity.path) if severity else (),
            severities=self._words("severity", severity, {each.value: each for each in Severity}) if severity else {},
            default_severity=severity.default if severity else Severity.ERROR,
            summary=summary,
            source=self._places(("source",), shape.source),
            component=self._places(("component",), shape.component),
            group=self._places(("group",), shape.group),
            class_=self._places(("class",), getattr(shape, "class")),
            episode=self._places(("episode",), shape.episode),
            started=self._places(("timestamps", "started"), timestamps.started),
            ended=self._places(("timestamps", "ended"), timestamps.ended),
            details=self._named("details", shape.details) if shape.details is not None else None,
            labels=self._places(("labels",), shape.labels),
            links=self._named("links", shape.links),
        )

    def _words(self, name: str, shape: Any, meanings: Mapping[str, Any]) -> Mapping[str, Any]:
        """What each of the sender's words means; one that is written twice is a problem."""
        words: dict[str, Any] = {}
        written: dict[str, str] = {}
        for meaning, value in meanings.items():
            for index, text in enumerate(getattr(shape, meaning) or ()):
                said = word(text)
                if said in words:
                    message = f"`{text}` stands for `{written[said]}` already; remove one of the two"
                    self._add(self._item((name, meaning), index), message)
                words.setdefault(said, value)
                written.setdefault(said, meaning)
        if words and not shape.path:
            self._add((name,), f"`{name}` needs a `path`, where the word stands in the body")
        return MappingProxyType(words)

    def _named(self, name: str, paths: Mapping[str, str]) -> Mapping[str, Place]:
        built = {key: self._place((name, key), text) for key, text in paths.items()}
        return MappingProxyType({key: place for key, place in built.items() if place})

    def _places(self, path: tuple[Key, ...], texts: Sequence[str] | None) -> Places:
        found = (self._place(self._item(path, index), text) for index, text in enumerate(texts or ()))
        return tuple(place for place in found if place)

    def _place(self, path: tuple[Key, ...], text: str) -> Place | None:
        try:
            return read_place(text)
        except ConditionError as error:
            where = (*self.path, *path)
            offset = offset_in(text, error.line, error.column)
            self.problems.append(self.document.problem_within(where, offset, error.message, error.check))
            return None

    def _item(self, path: tuple[Key, ...], index: int) -> tuple[Key, ...]:
        """Where an entry stands: alone, or in a list."""
        return (*path, index) if isinstance(self.document.value_at((*self.path, *path)), list) else path

    def _add(self, path: tuple[Key, ...], message: str) -> None:
        self.problems.append(self.document.problem((*self.path, *path), message))


def _known(shape: StatusShape) -> tuple[str, ...]:
    lists: Iterable[Sequence[str] | None] = (getattr(shape, name) for name in _STATUSES)
    return tuple(text for texts in lists for text in texts or ())
