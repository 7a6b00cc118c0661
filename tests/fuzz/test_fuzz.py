"""A short run of every target, and all that ever broke one."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from alertrouter.rules.document import Problem, read_document
from tests.fuzz.inputs import CRASHERS, Input, Target, fault_of, find, inputs, read_crasher, shrunk
from tests.fuzz.targets import TARGETS
from tests.growth import MOST_GROWTH, growth

#: Inputs of each target, about a second's worth.
_COUNTS = {"bodies": 4_000, "rules": 250, "cases": 400, "conditions": 4_000, "journals": 500, "recordings": 500}
_SEED = 20_261_123


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks_what_it_promises(name: str) -> None:
    crasher = find(TARGETS[name], _SEED, 0, _COUNTS.get(name, 2_000))
    assert crasher is None, str(crasher)


@pytest.mark.parametrize("path", sorted(CRASHERS.glob("*.json")), ids=lambda path: path.stem)
def test_what_broke_it_once_does_so_no_more(path: Path) -> None:
    name, given = read_crasher(path)
    fault = fault_of(TARGETS[name], given)
    assert fault is None, fault.text


# --- the harness -----------------------------------------------------------------------------------------------------


def _fail_on_x(given: Input) -> None:
    assert b"x" not in given.data, given


BROKEN = Target("broken", lambda chance: Input("", chance.randbytes(300)), _fail_on_x)


def test_a_crasher_is_found_made_small_kept_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.inputs.CRASHERS", tmp_path)
    crasher = find(BROKEN, 7, 0, 1_000)
    assert crasher is not None and crasher.input.data == b"x"
    assert f"TARGET=broken SEED=7 FIRST={crasher.number} COUNT=1" in str(crasher)
    [kept] = tmp_path.iterdir()
    assert read_crasher(kept) == ("broken", crasher.input)
    assert find(BROKEN, 7, 0, crasher.number) is None
    again = find(BROKEN, 7, crasher.number, 1)
    assert again is not None and again.input == crasher.input


def test_bytes_that_are_no_text_are_kept_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.inputs.CRASHERS", tmp_path)
    binary = Target("broken", lambda _: Input("a", b"\xff\x00x", {"h": "\udcff"}), _fail_on_x)
    given = next(inputs(binary, 1, 0, 1))[1]
    fault = fault_of(binary, given)
    assert fault is not None and shrunk(binary, given, fault).data == b"x"
    crasher = find(Target("broken", binary.make, _fail_on_ff), 1, 0, 1)
    assert crasher is not None
    assert read_crasher(crasher.save())[1].data == b"\xff"


def _fail_on_ff(given: Input) -> None:
    assert b"\xff" not in given.data


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_are_the_same_for_the_same_seed_wherever_a_run_begins(name: str) -> None:
    target = TARGETS[name]
    some = [given for _, given in inputs(target, 3, 0, 700)]
    assert [given for _, given in inputs(target, 3, 600, 100)] == some[600:]
    assert [given for _, given in inputs(target, 4, 0, 100)] != some[:100]


# --- cost ------------------------------------------------------------------------------------------------------------

#: What is read when a file is one of these over and over: nesting, anchors, quotes, and what a scanner looks ahead for.
_UNITS = (
    *(
        b"[",
        b"{",
        b"{a: ",
        b"- ",
        b"? ",
        b"a: b\n",
        b"- a\n",
        b"'",
        b"'' ",
        b'"\\x41',
        b"&a ",
        b"*a ",
        b"!",
        b"# ",
        b" ",
        b"\n",
    ),
    *(
        b"a: &a [x]\n",
        b"x ",
        b"x: ",
        b"|\n ",
        b">\n a\n",
        b"%a\n",
        b"--- ",
        b"\t",
        b"1:59",
        b"1_",
        b"0x",
        b"\xff",
        b"\xe2\x80\xa8",
    ),
)


@pytest.mark.parametrize("unit", _UNITS, ids=repr)
def test_a_rule_file_costs_no_more_than_its_size(unit: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    wrapped = (b"", b"") if unit.strip() != b"1:59" else (b"a: 1", b"")

    def read(times: int) -> None:
        path.write_bytes(wrapped[0] + unit * times + wrapped[1])
        read_document(path)

    assert growth(read, 4_000) < MOST_GROWTH, "four times as much of it took more than twelve times as long"


def test_a_billion_laughs_are_refused_early(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    names = "abcdefghijklmnop"
    path.write_text(
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(names))
    )
    found = read_document(path)
    assert isinstance(found, Problem) and "aliases add more than" in found.message


def test_mutations_are_mutations() -> None:
    """Neither all refused nor all as they were: both would look at nothing."""
    chance = random.Random(5)
    for target in TARGETS.values():
        made = {(each.what, each.data, repr(each.headers)) for each in (target.make(chance) for _ in range(300))}
        assert len(made) > 60, target.name
