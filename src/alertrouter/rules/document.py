"""YAML files with their line numbers: read without constructing anything but text, numbers, dates, lists and mappings."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from alertrouter.rules.wording import shown
from alertrouter.shown import without_secrets

#: Bounds on one file. Real files stay far below; a hostile one ends here instead of eating memory.
FILE_BYTES = 8 * 1024 * 1024
DEPTH = 50
ALIASED_NODES = 20_000
#: Longest number. YAML writes them to the bases 16 and 60 too: long ones take hours to read, and cannot be shown.
NUMBER_CHARACTERS = 300

#: Longest piece of a file that an error repeats, in characters.
SHOWN = 60

Key = str | int
#: Line and column, counted from 1.
Place = tuple[int, int]

_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp"))
_NUMBERS = frozenset((_TAG + "int", _TAG + "float"))
_MERGE = _TAG + "merge"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What is wrong, where (line and column count from 1), and what to write instead. `check` is the id of its page."""

    file: str
    line: int
    column: int
    message: str
    check: str = "syntax"

    def __post_init__(self) -> None:
        """Nothing that has the form of a routing key is repeated: somebody wrote it where its place belongs."""
        object.__setattr__(self, "message", shown(without_secrets(self.message)))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


@dataclass(slots=True)
class Node:
    """One value and where it stands. `size` counts the nodes below it, aliases written out."""

    value: Any
    line: int
    column: int
    start: int = 0
    end: int = 0
    style: str = ""
    size: int = 1
    children: dict[Key, Node] = field(default_factory=dict)
    key_places: dict[Key, Place] = field(default_factory=dict)


class Document(Mapping[str, Any]):
    """The mapping in a YAML file, which remembers where everything stands in it."""

    def __init__(self, file: str, text: str, root: Node) -> None:
        self.file = file
        self.text = text
        self.root = root
        self.digest = sha256(text.encode()).hexdigest()

    def __getitem__(self, key: str) -> Any:
        return self.root.value[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.root.value)

    def __len__(self) -> int:
        return len(self.root.value)

    def value_at(self, path: tuple[Key, ...]) -> Any:
        """The value at `path`, or that of the nearest thing above it that is there."""
        return self._nearest(path).value

    def written_at(self, path: tuple[Key, ...]) -> str:
        """The value at `path` as it stands in the file, cut to what an error may repeat."""
        node = self._nearest(path)
        text = " ".join((self.text[node.start : node.end] or str(node.value)).split())
        return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"

    def place(self, path: tuple[Key, ...]) -> str:
        """file:line:col of the value at `path`, or of the nearest thing above it that is there."""
        node = self._nearest(path)
        return f"{self.file}:{node.line}:{node.column}"

    def problem(self, path: tuple[Key, ...], message: str, check: str = "syntax") -> Problem:
        """A problem with the value at `path`, or with the nearest thing above it that is there."""
        node = self._nearest(path)
        return Problem(self.file, node.line, node.column, message, check)

    def problem_with_key(self, path: tuple[Key, ...], message: str, check: str = "syntax") -> Problem:
        """A problem with the key that `path` ends in, not with its value."""
        line, column = self._nearest(path[:-1]).key_places.get(path[-1], (0, 0))
        return Problem(self.file, line, column, message, check) if line else self.problem(path, message, check)

    def problem_within(self, path: tuple[Key, ...], offset: int, message: str, check: str = "syntax") -> Problem:
        """A problem at an offset in the text at `path`, whichever way YAML has quoted or folded that text."""
        node = self._nearest(path)
        if not isinstance(node.value, str):
            return self.problem(path, message, check)
        at = _place_in_source(self.text, node, offset)
        line_start = self.text.rfind("\n", 0, at) + 1
        return Problem(self.file, self.text.count("\n", 0, at) + 1, at - line_start + 1, message, check)

    def _nearest(self, path: tuple[Key, ...]) -> Node:
        node = self.root
        for key in path:
            if key not in node.children:
                break
            node = node.children[key]
        return node


def read_document(path: Path) -> Document | Problem:
    """The mapping in the file; empty for an empty file and for none. Or the first thing that keeps it from being read."""
    file = str(path)
    try:
        with path.open("rb") as opened:
            content = opened.read(FILE_BYTES + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.is_symlink():
            return nothing_in(path)
        return Problem(file, 1, 1, f"cannot be read: {error.strerror}")
    if len(content) > FILE_BYTES:
        return Problem(file, 1, 1, f"is larger than {FILE_BYTES} bytes; split it into several services")
    try:
        text = content.removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        column = len(before) - before.rfind("\n")
        return Problem(file, before.count("\n") + 1, column, "is not UTF-8 text")
    try:
        return Document(file, text, _read_mapping(text))
    except _Unreadable as unreadable:
        return Problem(file, unreadable.line, unreadable.column, unreadable.message)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        what = ", ".join(filter(None, (error.context, error.problem)))
        if mark and text[mark.index : mark.index + 1] == "\t":
            what = "indent with blanks, not with tabs"
        return Problem(file, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, f"is not YAML: {what}")
    except yaml.reader.ReaderError as error:
        before_it = text[: error.position]
        column = len(before_it) - before_it.rfind("\n")
        return Problem(file, before_it.count("\n") + 1, column, f"is not YAML: {error.reason}")


def nothing_in(path: Path) -> Document:
    """The document of a file that is not there."""
    return Document(str(path), "", Node({}, 1, 1))


class _Unreadable(Exception):
    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.line, self.column = place
        self.message = message


def _read_mapping(text: str) -> Node:
    root = _Composer().read(text)
    if root is None or root.value is None:
        return Node({}, 1, 1)
    if not isinstance(root.value, dict):
        raise _Unreadable((root.line, root.column), "must be a mapping: `key: value`")
    return root


class _Composer:
    """Builds nodes from YAML's events with a stack of its own: PyYAML's composer recurses in C, without a bound."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.open: list[_Opened] = []
        self.anchors: dict[str, Node] = {}
        self.aliased = 0
        self.resolver = Resolver()
        self.constructor = SafeConstructor()

    def read(self, text: str) -> Node | None:
        documents = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        raise _Unreadable(_place(event), "must hold one document; remove the second `---`")
                case yaml.ScalarEvent():
                    self._add(self._scalar(event), event)
                case yaml.AliasEvent():
                    self._add(self._alias(event), event)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._begin(event)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    opened = self.open.pop()
                    self._add(_finished(opened), opened.event)
        return self.root

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        if len(self.open) >= DEPTH:
            raise _Unreadable(_place(event), f"is nested deeper than {DEPTH} levels")
        if event.tag not in (None, "!", _TAG + "map", _TAG + "seq"):
            raise _Unreadable(_place(event), f"the tag {event.tag} is not allowed")
        self.open.append(_Opened(event))

    def _add(self, node: Node, event: yaml.NodeEvent) -> None:
        if event.anchor is not None and not isinstance(event, yaml.AliasEvent):
            self.anchors[event.anchor] = node
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        if not parent.is_mapping:
            parent.items.append(node)
        elif parent.key is None:
            if not isinstance(event, yaml.ScalarEvent) or not event.value:
                raise _Unreadable(_place(event), "a key must be a word")
            parent.key = event
        else:
            parent.pairs.append((parent.key, node))
            parent.key = None

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        tag = event.tag
        is_tagged = tag not in (None, "!")
        if not is_tagged:
            tag = self._tag_by_form(event.value, event.implicit)
        node = Node(event.value, *_place(event), *_extent(event), event.style or "")
        if tag in (_TAG + "str", _MERGE):
            return node
        if tag not in _SCALARS:
            raise _Unreadable(_place(event), f"the tag {tag} is not allowed; put the text in quotes")
        if tag in _NUMBERS and len(event.value) > NUMBER_CHARACTERS:
            raise _Unreadable(_place(event), "the number is too long; put it in quotes if it is a text")
        if is_tagged and not self._has_form_of(tag, event.value):
            name = tag[len(_TAG) :]
            remedy = f"leave out its tag !!{name}, or write what is one"
            raise _Unreadable(_place(event), f"`{event.value[:SHOWN]}` is no {name}; {remedy}")
        try:
            node.value = self.constructor.construct_object(yaml.ScalarNode(tag, event.value))
        except ValueError as error:
            raise _Unreadable(
                _place(event), f"`{event.value[:60]}` looks like a {tag[len(_TAG) :]} but is none: {error}"
            ) from None
        return node

    def _has_form_of(self, tag: str, value: str) -> bool:
        """Whether the value, were it written without quotes and a tag, would be read by this tag.

        On anything else PyYAML's constructors fail as they happen to: KeyError, IndexError, AttributeError.
        """
        if value.endswith("\n"):  # which the `$` of the resolver's patterns lets pass
            return False
        found = self._tag_by_form(value, (True, False))
        return found == tag or (tag, found) == (_TAG + "float", _TAG + "int")

    def _tag_by_form(self, value: str, implicit: tuple[bool, bool]) -> str:
        found: str = self.resolver.resolve(yaml.ScalarNode, value, implicit)  # type: ignore[no-untyped-call]
        return found

    def _alias(self, event: yaml.AliasEvent) -> Node:
        node = self.anchors.get(event.anchor or "")
        if node is None:
            raise _Unreadable(_place(event), f"there is no anchor &{event.anchor} above, or it holds this alias")
        self.aliased += node.size
        if self.aliased > ALIASED_NODES:
            raise _Unreadable(_place(event), f"aliases add more than {ALIASED_NODES} values; write fewer of them")
        return node


@dataclass(slots=True)
class _Opened:
    """A mapping or list that is still being read."""

    event: yaml.CollectionStartEvent
    key: yaml.ScalarEvent | None = None
    pairs: list[tuple[yaml.ScalarEvent, Node]] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.event, yaml.MappingStartEvent)


def _finished(opened: _Opened) -> Node:
    node = Node(None, *_place(opened.event))
    if opened.is_mapping:
        _fill_mapping(node, opened.pairs)
        node.value = {key: child.value for key, child in node.children.items()}
    else:
        node.children = dict(enumerate(opened.items))
        node.value = [child.value for child in opened.items]
    node.size = 1 + sum(child.size for child in node.children.values())
    return node


def _fill_mapping(node: Node, pairs: list[tuple[yaml.ScalarEvent, Node]]) -> None:
    merged: list[Node] = []
    for event, child in pairs:
        if event.value == "<<" and event.implicit[0]:
            merged += child.children.values() if isinstance(child.value, list) else [child]
            continue
        if event.value in node.children:
            line, _ = node.key_places[event.value]
            raise _Unreadable(_place(event), f"`{event.value}` is here a second time; the first is on line {line}")
        node.children[event.value] = child
        node.key_places[event.value] = _place(event)
    for source in merged:
        if not isinstance(source.value, dict):
            raise _Unreadable((node.line, node.column), "`<<` merges mappings only")
        for key, child in source.children.items():
            if key not in node.children:
                node.children[key] = child
                node.key_places[key] = source.key_places[key]


def _place(event: yaml.Event) -> Place:
    assert event.start_mark is not None
    return event.start_mark.line + 1, event.start_mark.column + 1


def _extent(event: yaml.Event) -> tuple[int, int]:
    assert event.start_mark is not None
    assert event.end_mark is not None
    return event.start_mark.index, event.end_mark.index


def _place_in_source(text: str, node: Node, offset: int) -> int:
    """Where a character of a scalar stands in the file.

    Folding, indentation and line ends change only blanks, so the same count of other characters leads to the place.
    """
    wanted = sum(1 for character in node.value[:offset] if not character.isspace())
    at = node.start
    while text[at] in "&!":  # an anchor or a tag, which no plain text begins with
        at += len(text[at:].split(maxsplit=1)[0]) + 1
    if node.style in ("|", ">"):
        at = text.find("\n", at) + 1
    elif node.style:
        at += 1
    while at < node.end:
        step = 2 if (node.style, text[at : at + 2]) == ("'", "''") or (node.style, text[at]) == ('"', "\\") else 1
        is_blank = text[at].isspace() or (step == 2 and text[at + 1] in "ntr \n")
        if not is_blank and wanted == 0:
            return at
        wanted -= not is_blank
        at += step
    return node.end - 1 if node.style in ("'", '"') else node.end
