"""YAML with its places: where things stand, and what is refused."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alertrouter.rules.document import ALIASED_NODES, DEPTH, FILE_BYTES, Document, Problem, read_document


def read(tmp_path: Path, text: str | bytes) -> Document | Problem:
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_document(path)


def document(tmp_path: Path, text: str) -> Document:
    found = read(tmp_path, text)
    assert isinstance(found, Document)
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("# nothing but a comment\n", {}),
        ("a: {b: [1, 2.5, true, null, 'x', \"y\"]}\n", {"a": {"b": [1, 2.5, True, None, "x", "y"]}}),
        ("\ufeffa: 1\n", {"a": 1}),
        ("größe: 'žluťoučký'\n", {"größe": "žluťoučký"}),
        ("on: yes\n", {"on": True}),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: &x {b: 1}\nd: {<<: [*x, {c: 2}]}\n", {"a": {"b": 1}, "d": {"b": 1, "c": 2}}),
    ],
)
def test_reads(tmp_path: Path, text: str, value: dict[str, object]) -> None:
    assert document(tmp_path, text).root.value == value


def test_is_a_mapping_that_knows_its_places(tmp_path: Path) -> None:
    found = document(tmp_path, "a:\n  - x\n  - b: deep\n")
    assert dict(found) == {"a": ["x", {"b": "deep"}]}
    assert found.place(("a", 1, "b")).endswith("x.yaml:3:8")
    assert found.place(("a", 1, "not there")).endswith("x.yaml:3:5")
    problem = found.problem_with_key(("a", 1, "b"), "no")
    assert (problem.line, problem.column, problem.message) == (3, 5, "no")


def test_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    found = read_document(tmp_path / "none.yaml")
    assert isinstance(found, Document)
    assert dict(found) == {}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

REFUSED: list[tuple[str | bytes, str]] = [
    ("a: 1\na: 2\n", "2:1: `a` is here a second time; the first is on line 1"),
    ("x: {a: 1, b: 2, a: 3}\n", "1:17: `a` is here a second time; the first is on line 1"),
    ("- a\n", "1:1: must be a mapping: `key: value`"),
    ("text\n", "1:1: must be a mapping: `key: value`"),
    ("a: [\n", "2:1: is not YAML: while parsing a flow node, did not find expected node content"),
    ("a: 'x\n", "2:1: is not YAML: while scanning a quoted scalar, found unexpected end of stream"),
    ("a:\n\tb: 1\n", "2:1: is not YAML: indent with blanks, not with tabs"),
    ("a: 1\n---\nb: 2\n", "2:1: must hold one document; remove the second `---`"),
    ("a: *nope\n", "1:4: there is no anchor &nope above, or it holds this alias"),
    ("a: &a [*a]\n", "1:8: there is no anchor &a above, or it holds this alias"),
    (BOMB, f"5:8: aliases add more than {ALIASED_NODES} values; write fewer of them"),
    ("? [a, b]\n: 1\n", "1:3: a key must be a word"),
    ("? \n: 1\n", "1:2: a key must be a word"),
    (
        "a: !!python/object/apply:os.system [ls]\n",
        "1:4: the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed",
    ),
    ("a: !secret x\n", "1:4: the tag !secret is not allowed; put the text in quotes"),
    ("a: !!binary aGk=\n", "1:4: the tag tag:yaml.org,2002:binary is not allowed; put the text in quotes"),
    ("a: 2027-13-01\n", "1:4: `2027-13-01` looks like a timestamp but is none: month must be in 1..12"),
    ("a: {<<: 5}\n", "1:4: `<<` merges mappings only"),
    ("a: " + "[" * 100_000, f"1:{3 + DEPTH}: is nested deeper than {DEPTH} levels"),
    ("a: " + "{b: " * 100_000, f"1:{4 + 4 * (DEPTH - 1)}: is nested deeper than {DEPTH} levels"),
    ("a: 1\nb: \0", "2:4: is not YAML: control characters are not allowed"),
    (b"a: 1\nb: \xff\n", "2:4: is not UTF-8 text"),
    (b" " * (FILE_BYTES + 1), f"1:1: is larger than {FILE_BYTES} bytes; split it into several services"),
    ("a: " + "9" * 5000, "1:4: the number is too long; put it in quotes if it is a text"),
]


#: Scalars with a tag whose form they have not. PyYAML's constructors of them raise KeyError, IndexError, AttributeError.
NOT_OF_THEIR_TAG = [
    *("!!bool maybe", "!!bool ''", "!!bool 1", '!!bool "yes\\n"', "!!bool |\n  yes\n"),
    *("!!int ''", "!!int _", "!!int '-'", "!!int +_", "!!int five", "!!int 5.5", "!!int 09", "!!int 0x"),
    *("!!float ''", "!!float _", "!!float '-'", "!!float five", "!!float 1e3", '!!float ".inf\\n"'),
    *("!!timestamp soon", "!!timestamp ''", "!!timestamp 2027-1-1", "!!timestamp 2027"),
    *("!!null none", "!<tag:yaml.org,2002:bool> maybe"),
]


@pytest.mark.parametrize("scalar", NOT_OF_THEIR_TAG)
def test_a_tag_is_refused_over_what_has_not_its_form(tmp_path: Path, scalar: str) -> None:
    problem = read(tmp_path, f"x: 1\na: {scalar}\n")
    assert isinstance(problem, Problem)
    assert (problem.line, problem.column) == (2, 4)
    assert re.fullmatch(r"`.*` is no (\w+); leave out its tag !!\1, or write what is one", problem.message)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("!!str 5", "5"),
        ("!!bool Yes", True),
        ('!!bool "off"', False),
        ("!!int 0x1f", 31),
        ("!!int '-1_000'", -1000),
        ("!!float 5", 5.0),
        ("!!float 2.5", 2.5),
        ("!!float .inf", float("inf")),
        ("!!null ''", None),
        ("!!null ~", None),
        ("!!timestamp 2027-01-10", date(2027, 1, 10)),
    ],
)
def test_a_tag_over_what_has_its_form_is_kept(tmp_path: Path, scalar: str, value: object) -> None:
    found = document(tmp_path, f"a: {scalar}\n")["a"]
    assert (found, type(found)) == (value, type(value))


@given(
    tag=st.sampled_from(["", "!!bool", "!!int", "!!float", "!!null", "!!timestamp", "!!merge", "!!value"]),
    text=st.text("019+-_:.xbeE Tzyesno~<=\n٣", max_size=8) | st.text(max_size=8),
)
def test_no_scalar_is_too_strange_to_be_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tag: str, text: str
) -> None:
    quoted = json.dumps(text) if tag else text
    assert isinstance(read(tmp_path_factory.getbasetemp(), f"a: {tag} {quoted}\n"), Document | Problem)


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=lambda value: str(value)[:30])
def test_refuses_with_place_and_reason(tmp_path: Path, text: str | bytes, expected: str) -> None:
    problem = read(tmp_path, text)
    assert isinstance(problem, Problem)
    assert str(problem).removeprefix(f"{tmp_path}/x.yaml:").startswith(expected)


def test_refuses_what_cannot_be_opened(tmp_path: Path) -> None:
    problem = read_document(tmp_path)
    assert isinstance(problem, Problem)
    assert problem.message == "cannot be read: Is a directory"
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "nowhere")
    assert isinstance(read_document(tmp_path / "dangling.yaml"), Problem)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: one two X three\n", 1, 12),
        ("a: 'one two X'\n", 1, 13),
        ("a: 'it''s X'\n", 1, 11),
        ('a: "one \\"two\\" X"\n', 1, 17),
        ('a: "one\\n\\ttwo X"\n', 1, 16),
        ("a: |\n  one\n    two X\n", 3, 9),
        ("a: >-\n  one\n  two\n\n  X\n", 5, 3),
        ("a: one\n  two\n  X\n", 3, 3),
        ("a: 'one\n\n  X'\n", 3, 3),
        ("ž: 'ž ž X'\n", 1, 9),
        ("a: &x one X\n", 1, 11),
        ("a: !!str 'one X'\n", 1, 15),
    ],
)
def test_finds_the_place_inside_a_text_however_it_is_written(tmp_path: Path, text: str, line: int, column: int) -> None:
    found = document(tmp_path, text)
    (key,) = found
    problem = found.problem_within((key,), found[key].index("X"), "here")
    assert (problem.line, problem.column) == (line, column)
