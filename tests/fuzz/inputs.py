"""One input, and what is done with a series of them: made from a seed, checked, made smaller, kept.

Input number n of a seed is always the same, and is made without those of other blocks: a run can go on where one ended.
"""

from __future__ import annotations

import json
import random
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

CRASHERS = Path(__file__).parent / "crashers"

#: Inputs that come from one Random. To repeat one is to make at most so many.
_BLOCK = 500
#: Of so many inputs, one is checked in full where there is a cheaper check.
_LOOKED_AT_ONE_IN = 16
#: How often a crasher is tried with less of it.
_MOST_TRIES = 2_000


@dataclass(frozen=True, slots=True)
class Input:
    """What a reader is given. what: which reader, or which form, as its target knows it."""

    what: str
    data: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads. `check` raises AssertionError where a promise is broken; anything else it raises is a crash.

    glance:  a cheaper check, for all but one in 16 of the inputs.
    """

    name: str
    make: Callable[[random.Random], Input]
    check: Callable[[Input], None]
    glance: Callable[[Input], None] | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """How a target fails. place: the last line of code, and the error's type; two faults of one place are one."""

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Crasher:
    """An input that breaks what its target promises. number: its place in the run of `seed`."""

    target: str
    seed: int
    number: int
    input: Input
    fault: Fault

    def __str__(self) -> str:
        kept = self.save()
        return (
            f"{self.target}, input {self.number} of seed {self.seed}:\n{self.fault.text}\nkept as {kept}; repeat it with\n"
            f"    make fuzz TARGET={self.target} SEED={self.seed} FIRST={self.number} COUNT=1"
        )

    def save(self) -> Path:
        """Keep it where `test_crashers` finds it. Its name is that of its contents."""
        kept = {"target": self.target, "what": self.input.what, "headers": dict(self.input.headers)}
        data = self.input.data
        try:
            kept["text"] = data.decode()
        except UnicodeDecodeError:
            kept["base64"] = b64encode(data).decode()
        path = CRASHERS / f"{self.target}-{sha256(repr(self.input).encode()).hexdigest()[:12]}.json"
        path.write_text(json.dumps(kept, indent=1, ensure_ascii=True) + "\n")
        return path


def read_crasher(path: Path) -> tuple[str, Input]:
    """The target of a kept crasher, and the input."""
    kept = json.loads(path.read_text())
    data = b64decode(kept["base64"]) if "base64" in kept else kept["text"].encode()
    return kept["target"], Input(kept["what"], data, kept["headers"])


def inputs(target: Target, seed: int, first: int, count: int) -> Iterator[tuple[int, Input]]:
    """Inputs `first` to `first + count` of a seed, each with its number."""
    number = first - first % _BLOCK
    while number < first + count:
        chance = random.Random(f"{target.name}/{seed}/{number}")
        for _ in range(min(_BLOCK, first + count - number)):
            made = target.make(chance)
            if number >= first:
                yield number, made
            number += 1


def find(target: Target, seed: int, first: int, count: int, known: Container[str] = frozenset()) -> Crasher | None:
    """The first of `count` inputs that breaks a promise, as small as it can be made; at another place than the known ones."""
    glance = target.glance or target.check
    for number, each in inputs(target, seed, first, count):
        check = glance if number % _LOOKED_AT_ONE_IN else target.check
        if _fault_of(check, each) and (fault := fault_of(target, each)) and fault.place not in known:
            return Crasher(target.name, seed, number, shrunk(target, each, fault), fault)
    return None


def fault_of(target: Target, given: Input) -> Fault | None:
    """How the target fails; None if it does not."""
    return _fault_of(target.check, given)


def _fault_of(check: Callable[[Input], None], given: Input) -> Fault | None:
    try:
        check(given)
    except Exception as error:  # noqa: BLE001 - to find any is what this is for
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno}: {type(error).__name__}"
        return Fault(place, "".join(traceback.format_exception(error)))
    return None


def shrunk(target: Target, given: Input, fault: Fault) -> Input:
    """The input with everything left out without which it fails alike: with the same error at the same line."""
    data = given.data
    tries = 0
    size = len(data)
    while size and tries < _MOST_TRIES:
        at = 0
        while at < len(data) and tries < _MOST_TRIES:
            tries += 1
            less = data[:at] + data[at + size :]
            found = fault_of(target, Input(given.what, less, given.headers))
            if found is not None and found.place == fault.place:
                data = less
            else:
                at += size
        size //= 2
    return Input(given.what, data, given.headers)
