"""What was expected against what came. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alertrouter.rules.document import Key
from alertrouter.rules.model import UNROUTED
from alertrouter.simulation.cases import Case, Expectation, fill
from alertrouter.simulation.play import Came, Played

#: What is seen of all alerts at once.
_OF_ALL = frozenset({"events", "open"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that came otherwise than expected.

    path:   of the expected value in the test's document.
    about:  the alert; None for what is the same for each alert of the step.
    """

    name: str
    expected: Any
    came: Any
    path: tuple[Key, ...]
    about: Came | None = None


def differences(case: Case, played: Played, earlier: list[Mapping[str, Any]]) -> list[Difference]:
    """Everything that came otherwise in one step. `earlier` holds what came of the steps so far, this one included."""
    step = played.step
    found = list(_unwanted(case, played))
    of_step = [each for each in step.expect if each.of is None]
    if step.one_for_each and len(of_step) == len(step.expect) and len(of_step) != len(played.came):
        found.append(Difference("alerts", len(of_step), len(played.came), (*step.path, "expect")))
    for number, expected in enumerate(step.expect):
        wanted = fill(expected.wanted, earlier)
        for came in _about(expected, number, played):
            for each in _of_one(expected, wanted, came):
                if each not in found:
                    found.append(each)
    return found


def _about(expected: Expectation, number: int, played: Played) -> Sequence[Came]:
    """The alerts that an expectation is about: each of the body, or the one at its place in the list."""
    if expected.of is not None:
        return played.of[expected.of]
    if played.step.one_for_each:
        return played.came[number : number + 1]
    return played.came


def _unwanted(case: Case, played: Played) -> Iterator[Difference]:
    for number, ending in enumerate(case.expect_none):
        if ending in played.ended:
            about = next((each for each in played.came if each.values["outcome"] == ending), None)
            yield Difference("outcome", f"never {ending}", ending, (*case.path, "expect_none", number), about)


def _of_one(expected: Expectation, wanted: Mapping[str, Any], came: Came) -> Iterator[Difference]:
    for name, each in wanted.items():
        if name == "service" and each == "" and came.values[name] == UNROUTED:
            continue  # as `explain` has it
        for path, one, other in _compare(each, came.values[name]):
            about = None if name in _OF_ALL else came
            yield Difference(_dotted((name, *path)), one, other, (*expected.path, name, *path), about)


def _compare(expected: Any, came: Any) -> Iterator[tuple[tuple[Key, ...], Any, Any]]:
    """Path, what was expected and what came, for every difference. Of mappings only what is named is compared."""
    match expected, came:
        case Mapping(), Mapping():
            for key, each in expected.items():
                for path, one, other in _compare(each, came.get(key)):
                    yield (key, *path), one, other
        case list(), list() if len(expected) == len(came):
            for number, (each, found) in enumerate(zip(expected, came, strict=True)):
                for path, one, other in _compare(each, found):
                    yield (number, *path), one, other
        case str(), {"dedup_key": key}:  # what is open, by its name alone
            if expected != key:
                yield (), expected, key
        case _:
            if not _is_same(expected, came):
                yield (), expected, came


def _is_same(expected: Any, came: Any) -> bool:
    return isinstance(expected, bool) is isinstance(came, bool) and bool(expected == came)


def _dotted(path: tuple[Key, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")
