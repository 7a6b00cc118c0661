"""What rules take out of an alert and write into it: references, templates, variables and extractions.

A sender's text is only ever put in. It is never read as a template or as a pattern, not even when it looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from alertrouter.rules.closures import MISSING, SUBJECT_BYTES, View, finder_of, subject_of
from alertrouter.rules.regex import Extractor
from alertrouter.rules.syntax import ConditionError, Path, error_at, parse

#: Where a reference may begin.
ROOTS = ("event", "raw_event", "variables", "cache_var")
#: Fields of an event that an extraction may write, beside the members of `custom_details`.
TARGETS = ("summary", "source", "severity", "class", "component", "group")

#: Longest template, in characters: no more of what comes of it is taken.
LONGEST_TEMPLATE = SUBJECT_BYTES
#: Most references in one template. Nobody writes a tenth of them by hand, and each may take all of an alert's body.
REFERENCES = 200

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}|\{\{", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reference:
    """A path as written: `event.source`, `raw_event.labels.pod`, `variables.host`."""

    source: str
    root: str
    keys: tuple[str | int, ...]
    find: Callable[[View], object] = field(compare=False, repr=False)

    def text(self, view: View, warnings: list[str]) -> str:
        """What is there as text, cut to 64 KiB. Where there is nothing, an empty text and a warning."""
        found = subject_of(self.find(view))
        if found is None:
            warnings.append(f"`{self.source}` is not there")
        return found or ""


@dataclass(frozen=True, slots=True)
class Template:
    """Text with references in it, each in two pairs of braces."""

    source: str
    parts: tuple[str | Reference, ...]

    def render(self, view: View, warnings: list[str]) -> str:
        """The text with what the references hold, cut to 64 Ki characters. What stands behind them is not looked at."""
        texts: list[str] = []
        room = SUBJECT_BYTES
        for part in self.parts:
            if room == 0:
                break
            text = part if isinstance(part, str) else part.text(view, warnings)
            texts.append(text[:room])
            room -= len(texts[-1])
        return "".join(texts)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern and where to look for it. Its groups, joined, are the result; without groups, all that matches."""

    source: Reference
    pattern: str
    extract: Extractor = field(compare=False, repr=False)

    def render(self, view: View, warnings: list[str]) -> str:
        """What the pattern finds; an empty text and a warning where it finds nothing."""
        found = self.extract(self.source.text(view, warnings))
        if found is None:
            warnings.append(f"`{self.source.source}` does not match `{self.pattern}`")
        return found or ""


@dataclass(frozen=True, slots=True)
class Variable:
    """A text found by a pattern, known by its name to the extractions and templates of the same rule."""

    name: str
    value: Pattern


@dataclass(frozen=True, slots=True)
class Extraction:
    """A text to write into a field of the event, or into the member `detail` of its `custom_details`."""

    target: str
    value: Template | Pattern
    detail: str = ""


def variables_of(variables: tuple[Variable, ...], view: View, warnings: list[str]) -> Mapping[str, str]:
    """The values of a rule's variables by name. A later one may be taken from an earlier one."""
    values: dict[str, str] = {}
    for variable in variables:
        values[variable.name] = variable.value.render({**view, "variables": values}, warnings)
    return values


def read_reference(text: str) -> Reference:
    """The path that a rule takes a value from. Raises ConditionError."""
    node = parse(text)
    if not isinstance(node, Path):
        raise error_at(text, 0, "write a path, such as event.summary or event.custom_details.pod")
    if node.root not in ROOTS:
        raise error_at(text, 0, "a path starts with event., raw_event., variables. or cache_var.")
    find = finder_of(node)
    return Reference(text.strip(), node.root, node.keys, lambda view: None if (at := find(view)) is MISSING else at)


def read_template(text: str) -> Template:
    """Text with references such as {{event.summary}} in it. Raises ConditionError, at the braces, or where it is too long."""
    if len(text) > LONGEST_TEMPLATE:
        message = f"write at most {LONGEST_TEMPLATE} characters: no more of a text is ever shown"
        raise error_at(text, LONGEST_TEMPLATE, message)
    parts: list[str | Reference] = []
    end = 0
    for number, placeholder in enumerate(_PLACEHOLDER.finditer(text)):
        if placeholder[1] is None:
            raise error_at(text, placeholder.start(), "`{{` has no `}}` after it; write {{event.summary}}")
        if number == REFERENCES:
            raise error_at(text, placeholder.start(), f"write at most {REFERENCES} references: {{{{...}}}}")
        try:
            reference = read_reference(placeholder[1])
        except ConditionError as error:
            raise error_at(text, placeholder.start(), f"`{placeholder[0]}`: {error.message}") from None
        parts += (text[end : placeholder.start()], reference)
        end = placeholder.end()
    return Template(text, tuple(part for part in (*parts, text[end:]) if part))


def read_target(text: str) -> tuple[str, str]:
    """The field that an extraction writes, and for `custom_details` the member. Raises ConditionError."""
    node = parse(text)
    if isinstance(node, Path) and node.root == "event":
        match node.keys:
            case (str() as name,) if name in TARGETS:
                return name, ""
            case ("custom_details", str() as detail) if detail:
                return "custom_details", detail
    known = ", ".join(TARGETS)
    raise error_at(text, 0, f"an extraction writes event.custom_details.<name>, or event. and one of {known}")
