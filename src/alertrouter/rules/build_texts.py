"""The part of a rule's actions that takes text from an alert: variables, extractions, templates, the dynamic route."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.model import Automation, KeyReference
from alertrouter.rules.regex import BadPattern, compile_extractor
from alertrouter.rules.schema import (
    AutomationShape,
    CacheVariableShape,
    DynamicRouteShape,
    ExtractionShape,
    VariableShape,
    did_you_mean,
)
from alertrouter.rules.syntax import ConditionError
from alertrouter.rules.templates import (
    Extraction,
    Pattern,
    Reference,
    Template,
    Variable,
    read_reference,
    read_target,
    read_template,
)

Path = tuple[Key, ...]
Read = TypeVar("Read")

#: Headers whose value lets somebody in.
_SECRET_HEADER = re.compile(r"(?i)auth|token|secret|passw|credential|cookie|signature|key$")


def unknown_cache_variable(keys: Sequence[Key], known: Collection[str]) -> str:
    """What is wrong with the path `cache_var` and these keys; "" where it leads to a variable that is known."""
    if not keys:
        return "write the name of a cache variable too: cache_var.name"
    name = str(keys[0])
    return "" if name in known else f"there is no cache variable `{name}` here{did_you_mean(name, known)}"


class TextBuilder:
    """Reads the texts of one rule's actions, at `path` of the document. What is wrong goes to `problems`.

    cached: the names of cache variables that they may read.
    """

    def __init__(self, document: Document, path: Path, problems: list[Problem], cached: Collection[str]) -> None:
        self.document = document
        self.path = path
        self.problems = problems
        self.cached = cached
        self.variable_names: list[str] = []

    def variables(self, shapes: Iterable[VariableShape]) -> Iterable[Variable]:
        """To be read before all else: the other texts may name them."""
        for index, shape in enumerate(shapes):
            path: Path = ("variables", index)
            if shape.name in self.variable_names:
                self._add((*path, "name"), f"the variable `{shape.name}` is there already; choose another name")
            pattern = self._pattern((*path, "path"), shape.path, (*path, "value"), shape.value)
            self.variable_names.append(shape.name)
            if pattern:
                yield Variable(shape.name, pattern)

    def extractions(self, shapes: Iterable[ExtractionShape]) -> Iterable[Extraction]:
        for index, shape in enumerate(shapes):
            path: Path = ("extractions", index)
            target = self._read((*path, "target"), shape.target, read_target)
            value = self._extracted(path, shape)
            if target and value:
                field, detail = target
                yield Extraction(field, value, detail)

    def dynamic_route(self, shape: DynamicRouteShape | None) -> Pattern | None:
        if shape is None:
            return None
        path: Path = ("dynamic_route_to",)
        return self._pattern((*path, "source"), shape.source, (*path, "regex"), shape.regex)

    def recent_value(self, shape: CacheVariableShape) -> Pattern | None:
        if shape.source is None or shape.regex is None:
            self._add((), "a recent_value needs a `source` and a `regex`")
            return None
        return self._pattern(("source",), shape.source, ("regex",), shape.regex)

    def notes(self, texts: Iterable[str]) -> Iterable[Template]:
        for index, text in enumerate(texts):
            if note := self._template(("annotate", index), text):
                yield note

    def custom_fields(self, fields: Mapping[str, Any]) -> Mapping[str, Template | Any]:
        """Texts among them may hold references."""
        return self._values(("custom_fields",), fields)

    def dedup_key(self, text: str | None) -> Template | None:
        return self._template(("dedup_key",), text) if text is not None else None

    def automation(self, shape: AutomationShape | None) -> Automation | None:
        """Texts among its parameters may hold references; its address may not: no sender chooses whom we call."""
        if shape is None:
            return None
        path: Path = ("automation",)
        if (shape.url is None) is (shape.job is None):
            self._add(path, "an automation has a `url` or a `job`, and not both")
        (trigger_type,) = shape.trigger_types
        if trigger_type != "alert_triggered" and not shape.auto_send:
            self._add((*path, "trigger_types"), f"`{trigger_type}` needs `auto_send: true`: nobody is asked then")
        for name, value in shape.headers.items():
            if isinstance(value, str) and _SECRET_HEADER.search(name):
                # Never repeat what stands there: it may be the secret.
                remedy = f"name where it is found: `{name}: {{env: ...}}` or `{name}: {{file: ...}}`"
                self._add((*path, "headers", name), f"`{name}` holds a secret; {remedy}", "secret")
        return Automation(
            name=shape.name,
            url=shape.url or "",
            job=shape.job or "",
            auto_send=shape.auto_send,
            trigger_type=trigger_type,
            parameters=self._values((*path, "parameters"), shape.parameters),
            headers=MappingProxyType(
                {
                    name: value if isinstance(value, str) else KeyReference(value.env, value.file)
                    for name, value in shape.headers.items()
                }
            ),
        )

    def _values(self, path: Path, values: Mapping[str, Any]) -> Mapping[str, Template | Any]:
        return MappingProxyType(
            {
                name: self._template((*path, name), value) if isinstance(value, str) else value
                for name, value in values.items()
            }
        )

    def _extracted(self, path: Path, shape: ExtractionShape) -> Template | Pattern | None:
        if shape.template is not None and (shape.regex, shape.source) == (None, None):
            return self._template((*path, "template"), shape.template)
        if shape.template is None and shape.regex is not None and shape.source is not None:
            return self._pattern((*path, "source"), shape.source, (*path, "regex"), shape.regex)
        self._add(path, "an extraction has a `template`, or a `source` and a `regex`")
        return None

    def _template(self, path: Path, text: str) -> Template | None:
        template = self._read(path, text, read_template)
        for part in template.parts if template else ():
            if isinstance(part, Reference):
                self._check_names(path, part)
        return template

    def _pattern(self, source_path: Path, source: str, pattern_path: Path, pattern: str) -> Pattern | None:
        reference = self._read(source_path, source, read_reference)
        if reference:
            self._check_names(source_path, reference)
        try:
            extract = compile_extractor(pattern)
        except BadPattern as bad:
            self._add(pattern_path, str(bad), "bad-regex")
            return None
        return Pattern(reference, pattern, extract) if reference else None

    def _check_names(self, path: Path, reference: Reference) -> None:
        if reference.root == "cache_var" and (unknown := unknown_cache_variable(reference.keys, self.cached)):
            self._add(path, f"`{reference.source}`: {unknown}")
        if reference.root != "variables":
            return
        name = str(reference.keys[0]) if reference.keys else ""
        if name not in self.variable_names:
            known = did_you_mean(name, self.variable_names)
            self._add(path, f"`{reference.source}`: this rule has no such variable{known}")

    def _read(self, path: Path, text: str, read: Callable[[str], Read]) -> Read | None:
        try:
            return read(text)
        except ConditionError as error:
            self._add(path, f"`{self.document.written_at((*self.path, *path))}`: {error.message}")
            return None

    def _add(self, path: Path, message: str, check: str = "syntax") -> None:
        self.problems.append(self.document.problem((*self.path, *path), message, check))
