"""Test files as they are read: every problem with its place, and what is left when there is none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from alertrouter.errors import BadPayload
from alertrouter.rules.document import Document, Key, Node, Problem, read_document
from alertrouter.rules.schema import did_you_mean, fit
from alertrouter.rules.syntax import ConditionError, parse
from alertrouter.rules.syntax import Path as Reference
from alertrouter.rules.times import Instant
from alertrouter.simulation.schema import ExpectShape, TestFileShape, span_text
from alertrouter.sources import CUSTOM, PARSERS, SENDERS, Parser
from alertrouter.sources.body import FORM

#: When a test begins that does not say so: long ago, so that what expires has not.
DEFAULT_START = 1_767_225_600_000  # 2026-01-01T00:00:00Z

#: The style of a list that is none in the file.
_ALONE = "alone"

_TEMPLATE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_SENDER = re.compile(r"[a-z0-9]+(/[a-z0-9][a-z0-9_-]{0,63})?")
#: What can be read of an earlier step. `of` only says whose it is.
KNOWN = tuple(name for name in ExpectShape.model_fields if name != "of")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a sender posts: bodies as they are, or short forms of alerts that go in one body.

    body:   None for short forms.
    forms:  what each says, as written.
    """

    source: str
    body: bytes | None = None
    content_type: str = "application/json"
    forms: tuple[Mapping[str, Any], ...] = ()

    @property
    def sender(self) -> str:
        """The source without its name."""
        return self.source.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What should come of a step, by name, and where that stands in the document. of: the step that heard the alert."""

    path: tuple[Key, ...]
    wanted: Mapping[str, Any]
    of: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One step. At `at` (ms since the epoch) one thing happens, or only time passes.

    one_for_each:  `expect` is a list with one entry for each alert.
    """

    number: int
    path: tuple[Key, ...]
    at: int
    words: str
    sent: Sent | None = None
    pagerduty: int = 0
    redis: Literal["up", "down", ""] = ""
    restart: bool = False
    rules: Path | None = None
    expect: tuple[Expectation, ...] = ()
    one_for_each: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One test."""

    name: str
    start: int
    document: Document
    path: tuple[Key, ...]
    steps: tuple[Step, ...]
    expect_none: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, int, int]:
        """File, line and column."""
        return place(self.document, self.path)


def place(document: Document, path: tuple[Key, ...]) -> tuple[str, int, int]:
    """File, line and column of what stands at `path`."""
    found = document.problem(path, "")
    return found.file, found.line, found.column


def find_files(rules: Path) -> list[Path]:
    """The test files of a rules directory."""
    return sorted(path for path in (rules / "tests").rglob("*_test.yaml") if path.is_file())


def read_cases(path: Path, custom: Mapping[str, Parser] = MappingProxyType({})) -> list[Case] | list[Problem]:
    """The tests of a file, or everything that is wrong with it. `custom` are the senders of alertrouter.yaml."""
    document = read_document(path)
    if isinstance(document, Problem):
        return [document]
    alone = _list_what_stands_alone(document)
    shape = fit(TestFileShape, document)
    if isinstance(shape, list):
        return sorted(shape)
    reader = _Reader(document, path.parent, alone, custom)
    cases = [reader.case(number, each) for number, each in enumerate(shape.tests)]
    return sorted(reader.problems) or cases


def _list_what_stands_alone(document: Document) -> frozenset[tuple[Key, ...]]:
    """Make a list of one of each alert and expectation that stands alone; returns the paths of those lists."""
    alone: list[tuple[Key, ...]] = []
    for test, case in _children(document.root, "tests"):
        for number, step in _children(case, "steps"):
            for name in (*PARSERS, "expect"):
                node = step.children.get(name)
                if node is not None and isinstance(node.value, dict):
                    node = Node([node.value], node.line, node.column, style=_ALONE, size=node.size, children={0: node})
                    step.children[name] = node
                    step.value[name] = node.value
                if node is not None and node.style == _ALONE:  # an alias may have brought it in a second time
                    alone.append(("tests", test, "steps", number, name))
    return frozenset(alone)


def _children(node: Node, name: str) -> Iterable[tuple[Key, Node]]:
    return node.children[name].children.items() if name in node.children else ()


@dataclass(slots=True)
class _Reader:
    """Turns the shape of one file into tests, and collects what is wrong on the way. alone: see above."""

    document: Document
    folder: Path
    alone: frozenset[tuple[Key, ...]]
    custom: Mapping[str, Parser]
    problems: list[Problem] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    begun: dict[str, bool] = field(default_factory=dict)  # who has sent in this test, and whether a body last

    def case(self, number: int, shape: Any) -> Case:
        path: tuple[Key, ...] = ("tests", number)
        if shape.name in self.names:
            line = self.document.problem(("tests", self.names[shape.name], "name"), "").line
            self._add((*path, "name"), f"this name is used already, on line {line}; choose another")
        self.names.setdefault(shape.name, number)
        start = shape.start.ms if shape.start else DEFAULT_START
        self.begun.clear()
        steps: list[Step] = []
        for index, each in enumerate(shape.steps):
            steps.append(self._step((*path, "steps", index), each, start, steps))
        if not shape.expect_none and not any(step.expect for step in steps):
            message = "the test expects nothing; write `expect: {}` in a step, and `alertrouter test --update` fills it"
            self._add((*path, "steps"), message)
        none = tuple(each.value for each in shape.expect_none or ())
        return Case(shape.name, start, self.document, path, tuple(steps), none)

    def _add(self, path: tuple[Key, ...], message: str) -> None:
        self.problems.append(self.document.problem(path, message))

    def _add_at_key(self, path: tuple[Key, ...], message: str) -> None:
        self.problems.append(self.document.problem_with_key(path, message))

    def _step(self, path: tuple[Key, ...], shape: Any, start: int, before: list[Step]) -> Step:
        given = [name for name in _HAPPENINGS if getattr(shape, name) is not None]
        for name, value in self.document.value_at(path).items():
            if value is None:
                self._add_at_key((*path, name), f"`{name}` says nothing; leave it out")
        for name in given[1:]:
            message = f"a step does one thing, here `{given[0]}`; write another step for `{name}`"
            self._add_at_key((*path, name), message)
        return Step(
            number=len(before),
            path=path,
            at=self._time(path, shape, start, before[-1].at if before else start),
            words=given[0] if given else "time passes",
            sent=self._sent(path, shape),
            pagerduty=shape.pagerduty.status if shape.pagerduty else 0,
            redis=shape.redis or "",
            restart=bool(shape.restart),
            rules=self._folder((*path, "rules"), shape.rules) if shape.rules else None,
            expect=tuple(self._expectations(path, before, has_alert=bool(given) and given[0] in _SENDING)),
            one_for_each=shape.expect is not None and (*path, "expect") not in self.alone,
        )

    def _time(self, path: tuple[Key, ...], shape: Any, start: int, last: int) -> int:
        if shape.advance is not None:
            if shape.at is not None:
                self._add((*path, "advance"), "write `at` or `advance`, not both")
            return last + int(shape.advance)
        match shape.at:
            case None:
                return last
            case Instant(ms=at):
                pass
            case span:
                at = start + span
        if at < last:
            self._add((*path, "at"), f"the step before is later, {span_text(last - start)} after the start")
        return max(at, last)

    def _sent(self, path: tuple[Key, ...], shape: Any) -> Sent | None:
        sender = next((name for name in PARSERS if getattr(shape, name) is not None), "")
        if shape.source is not None and not sender and shape.body is None:
            self._add((*path, "source"), "`source` says who posts; add an alert or a `body`")
        if sender:
            sent = self._alerts((*path, sender), shape, sender)
        elif shape.body is not None:
            sent = self._body((*path, "body"), shape.body, self._source(path, shape.source, ""))
        else:
            return None
        self.begun[sent.source] = sent.body is not None
        return sent

    def _source(self, path: tuple[Key, ...], written: str | None, sender: str) -> str:
        if written is None:
            return sender
        own = written.partition("/")[0]
        if own not in SENDERS or not _SENDER.fullmatch(written):
            self._add((*path, "source"), f"`{own}` is no sender{did_you_mean(own, SENDERS)}")
            return sender
        if own == CUSTOM and written not in self.custom:
            known = did_you_mean(written, self.custom) or "; describe it under `sources` in alertrouter.yaml"
            self._add((*path, "source"), f"`{written}` is no custom sender of these rules{known}")
            return sender
        if sender and own != sender:
            self._add((*path, "source"), f"this alert is {sender}'s; write `{sender}/<name>`")
            return sender
        return written

    def _alerts(self, path: tuple[Key, ...], shape: Any, sender: str) -> Sent:
        """The alerts of a step in their short form, or the one body that stands there."""
        source = self._source(path[:-1], shape.source, sender)
        forms = getattr(shape, sender)
        bodies = [number for number, form in enumerate(forms) if form.body is not None]
        for number, form in enumerate(forms):
            at = (*path, number)
            if form.same and source not in self.begun:
                self._add((*at, "same"), f"no alert of {source} stands before this one in the test")
            elif form.same and self.begun[source] and form.model_fields_set != {"same"}:
                self._add((*at, "same"), "the one before is a body, which cannot be changed here; write another body")
        if bodies:
            at = (*path, bodies[0])
            others = forms[bodies[0]].model_fields_set - {"body"}
            if len(forms) > 1 or others:
                self._add((*at, "body"), "a body stands alone: it holds all that is sent")
            return self._body((*at, "body"), forms[bodies[0]].body, source)
        return Sent(source, forms=tuple(form.model_dump(exclude_none=True) for form in forms))

    def _body(self, path: tuple[Key, ...], written: Any, source: str) -> Sent:
        content_type = "application/json"
        if isinstance(written, str):
            file = self.folder / written
            try:
                body = file.read_bytes()
            except OSError as error:
                self._add(path, f"{file} cannot be read: {error.strerror}")
                return Sent(source or next(iter(PARSERS)), b"")
            if file.suffix == ".form":
                content_type = FORM
        else:
            body = msgspec.json.encode(written, enc_hook=str)
        return Sent(source or self._guess(path, body, content_type), body, content_type)

    def _guess(self, path: tuple[Key, ...], body: bytes, content_type: str) -> str:
        """Who posts such bodies: whoever makes alerts of them, else whoever knows that there are none in them."""
        payloads = {}
        for sender, read in PARSERS.items():
            with suppress(BadPayload):
                payloads[sender] = read(body, {"content-type": content_type}, sender)
        takers = [sender for sender, payload in payloads.items() if payload.alerts] or list(payloads)
        if "alertmanager" in takers and "grafana" in takers:
            # which has Alertmanager inside, and is the only one to say of which organisation an alert is
            takers.remove("alertmanager" if b'"orgId"' in body else "grafana")
        if len(takers) != 1:
            self._add(
                path, f"say who posts it: write `source: {takers[0] if takers else next(iter(PARSERS))}` beside it"
            )
        return takers[0] if takers else next(iter(PARSERS))

    def _folder(self, path: tuple[Key, ...], written: str) -> Path:
        folder = self.folder / written
        if not folder.is_dir():
            self._add(path, f"there is no directory {folder}")
        return folder

    def _expectations(self, path: tuple[Key, ...], before: list[Step], *, has_alert: bool) -> Iterator[Expectation]:
        at = (*path, "expect")
        for number, each in enumerate(self.document.value_at(path).get("expect") or ()):
            here = (*at, number)
            wanted = {name: value for name, value in each.items() if name != "of"}
            of = each.get("of")
            if of is not None and (of >= len(before) or before[of].sent is None):
                self._add((*here, "of"), f"steps[{of}] is no earlier step with an alert")
            if of is None and not has_alert and not any(step.sent for step in before):
                for name in wanted.keys() - {"events", "open"}:
                    message = f"no alert was heard yet whose `{name}` this could be"
                    self._add_at_key((*here, name), message)
            self._check_templates(here, wanted, len(before))
            yield Expectation(here, MappingProxyType(wanted), of)

    def _check_templates(self, path: tuple[Key, ...], value: Any, steps: int) -> None:
        match value:
            case str():
                for found in _TEMPLATE.finditer(value):
                    if problem := _template_problem(found[1], steps):
                        self.problems.append(self.document.problem_within(path, found.start(), problem))
            case dict():
                for key, each in value.items():
                    self._check_templates((*path, key), each, steps)
            case list():
                for number, each in enumerate(value):
                    self._check_templates((*path, number), each, steps)


_SENDING = (*PARSERS, "body")
_HAPPENINGS = (*_SENDING, "pagerduty", "redis", "restart", "rules")


def _template_problem(text: str, steps: int) -> str:
    """What is wrong with a reference to an earlier step; "" if nothing is."""
    example = "write {{steps[0].event.dedup_key}}"
    try:
        node = parse(text)
    except ConditionError as error:
        return f"`{text}`: {error.message}; {example}"
    match node:
        case Reference(root="steps", keys=(int() as number, str() as name, *_)):
            if number >= steps:
                return f"steps[{number}] is no earlier step; they are counted from 0"
            return "" if name in KNOWN else f"nothing is known as `{name}`{did_you_mean(name, KNOWN)}"
    return f"only what came of earlier steps can be read here; {example}"


def fill(value: Any, steps: list[Mapping[str, Any]]) -> Any:
    """What is expected, with what came of earlier steps put in. A reference that stands alone keeps its type."""
    match value:
        case str():
            if (whole := _TEMPLATE.fullmatch(value)) and value.count("{{") == 1:
                return _look_up(whole[1], steps)
            return _TEMPLATE.sub(lambda found: _as_text(_look_up(found[1], steps)), value)
        case Mapping():
            return {key: fill(each, steps) for key, each in value.items()}
        case list():
            return [fill(each, steps) for each in value]
    return value


def _look_up(text: str, steps: list[Mapping[str, Any]]) -> Any:
    node = parse(text)
    assert isinstance(node, Reference)
    value: Any = steps
    for key in node.keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
