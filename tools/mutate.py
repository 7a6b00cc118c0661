"""Mutation testing of what decides about pages: reconcile, and the scripts that keep the records.

    python -m tools.mutate [--only PART_OF_A_FILE_NAME] [--list]

Each mutant is one change in one place of one file; one that no test notices is a survivor, and shows what no test
holds. The kinds:

* a comparison: == and != (~=), < and <=, > and >=, `is` and `is not`, `in` and `not in`
* `and` and `or`, a `not` left out, min and max
* 0 and 1, where they are compared or stand in a condition
* in Lua, a statement `redis.call(...)` or `redis.pcall(...)` left out

Package and tests are copied first, and the copy is mutated: the tree stays as it is, and may change meanwhile. The tests that may kill a mutant are the quick ones of the parts,
then thirty runs of the random model; the first failure ends them. Exit code 1 where a mutant survives.
"""

# ruff: noqa: S603, T201, TID251 - a program that starts tests and prints a table

from __future__ import annotations

import argparse
import compileall
import io
import os
import re
import shutil
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
PACKAGE = "src/alertrouter"
FILES = (
    "delivery/reconcile.py",
    *(f"store/scripts/{name}.lua" for name in ("accept", "judged", "settle", "claim_sends", "claim_due")),
)
#: What is most likely to fail comes first.
TESTS = (
    "tests/store/test_accept.py",
    "tests/store/test_accept_edges.py",
    "tests/store/test_queues.py",
    "tests/store/test_settle_edges.py",
    "tests/store/test_rules_state.py",
    "tests/service/test_delivery.py",
    "tests/reliability/test_model.py",
)
#: One kind of server is enough to see a wrong script.
SELECTED = "not fakeredis and not valkey"
MODEL_RUNS = "30"
#: A mutant that makes the tests hang is noticed as well.
LONGEST_S = 300

_SWAPS = {
    "==": "!=", "!=": "==", "~=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">",
    "and": "or", "or": "and", "min": "max", "max": "min",
}  # fmt: skip
_COMPARISONS = frozenset({"==", "~=", "!=", "<", "<=", ">", ">="})
_LUA_TOKEN = re.compile(
    r"--\[\[.*?\]\]|--[^\n]*|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[A-Za-z_][\w.]*|\d+|[=~<>]=|\S", re.DOTALL
)
#: After one of these a call is an expression, whose value is used.
_EXPECTS_VALUE = _COMPARISONS | {*"=(,{[+-*/%#", "..", "and", "or", "not", "return", "in", "if", "elseif", "until"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of source, with where it begins and ends."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mutant:
    """`file` with the characters from `start` to `end` replaced."""

    file: str
    start: int
    end: int
    new: str
    source: str

    @property
    def text(self) -> str:
        """The mutated source."""
        return self.source[: self.start] + self.new + self.source[self.end :]

    def __str__(self) -> str:
        line = self.source.count("\n", 0, self.start) + 1
        old = " ".join(self.source[self.start : self.end].split())
        shown = self.source.splitlines()[line - 1].strip()
        return f"{self.file}:{line}: {old[:60]} -> {self.new or 'nothing'}   in: {shown[:100]}"


def lua_tokens(source: str) -> list[Token]:
    """Everything but comments."""
    found = (Token(match[0], match.start(), match.end()) for match in _LUA_TOKEN.finditer(source))
    return [token for token in found if not token.text.startswith("--")]


def python_tokens(source: str) -> list[Token]:
    """Names, numbers and operators within functions; `is not` and `not in` are one token."""
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    tokens: list[Token] = []
    in_function = False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.start[1] == 0:
            in_function = token.string == "def"
        if token.type not in (tokenize.NAME, tokenize.NUMBER, tokenize.OP) or not in_function:
            continue
        start, end = (lines[row - 1] + column for row, column in (token.start, token.end))
        if tokens and (tokens[-1].text, token.string) in (("is", "not"), ("not", "in")):
            first = tokens.pop()
            tokens.append(Token(f"{first.text} {token.string}", first.start, end))
        else:
            tokens.append(Token(token.string, start, end))
    return tokens


def mutants_of(file: str, source: str) -> Iterator[Mutant]:
    """Every mutant of one file, in the order of its text."""
    lua = file.endswith(".lua")
    tokens = lua_tokens(source) if lua else python_tokens(source)
    loops_over = False
    for at, token in enumerate(tokens):
        before = tokens[at - 1].text if at else ""
        after = tokens[at + 1].text if at + 1 < len(tokens) else ""
        loops_over = token.text == "for" or (loops_over and before != "in")
        new: str | None = None
        if token.text in _SWAPS:
            new = "~=" if lua and token.text == "==" else _SWAPS[token.text]
        elif lua and token.text in ("math.min", "math.max"):
            new = "math.max" if token.text == "math.min" else "math.min"
        elif token.text in ("is", "is not", "not in"):
            new = {"is": "is not", "is not": "is", "not in": "in"}[token.text]
        elif token.text == "in" and not lua and not loops_over:
            new = "not in"
        elif token.text == "not":
            new = ""
        elif token.text.strip("'") in ("0", "1") and (before in _COMPARISONS or after in _COMPARISONS | {"<"}):
            quote = "'" if token.text.startswith("'") else ""
            new = f"{quote}{1 - int(token.text.strip(quote or ' '))}{quote}"
        if new is not None:
            yield Mutant(file, token.start, token.end, new, source)
        if lua and token.text in ("redis.call", "redis.pcall") and before not in _EXPECTS_VALUE:
            yield Mutant(file, token.start, _end_of_call(tokens, at), "do end", source)


def _end_of_call(tokens: list[Token], at: int) -> int:
    depth = 0
    for token in tokens[at + 1 :]:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0:
            return token.end
    raise ValueError("a call without an end")


def complaint(copy: Path, file: str) -> str:
    """What the tests say about the package of this copy, of which `file` may be mutated; "" where they notice nothing."""
    unit = () if file.endswith(".lua") else ("tests/unit/test_reconcile.py", "tests/unit/test_reconcile_edges.py")
    with TemporaryDirectory() as scratch:
        try:
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider"),
                    *("-k", SELECTED, "--basetemp", f"{scratch}/pytest", *unit, *TESTS),
                ],
                cwd=copy,
                env={
                    **os.environ,
                    "PYTHONPATH": str(copy / "src"),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/hypothesis",
                    "ALERTROUTER_RELIABILITY_RUNS": MODEL_RUNS,
                    "ALERTROUTER_RELIABILITY_SHRINK": "0",
                },
                capture_output=True,
                timeout=LONGEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "they do not end"
    return "" if done.returncode == 0 else done.stdout.decode()[-2000:] or "they do not run"


def main() -> int:
    """Try every mutant and print those that survive. 0 if none does, 1 if one does, 2 if the tests fail without any."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="PART", help="only files whose name contains PART")
    parser.add_argument("--list", action="store_true", help="show the mutants and try none")
    options = parser.parse_args()
    files = [file for file in FILES if options.only in file]
    mutants = [
        mutant for file in files for mutant in mutants_of(file, (ROOT / PACKAGE / file).read_text(encoding="utf-8"))
    ]
    if options.list:
        print(*mutants, f"{len(mutants)} mutants", sep="\n")
        return 0
    with TemporaryDirectory(prefix="mutate-") as folder:
        copy = Path(folder)
        for part in ("src", "tests", "rules", "runbooks"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        for part in ("src", "tests"):
            compileall.compile_dir(copy / part, quiet=1)
        for stale in copy.rglob("reconcile*.pyc"):
            stale.unlink()  # its source changes faster than the time stamp that it is compared by
        if failure := complaint(copy, ""):
            print(f"the tests fail without any mutant:\n{failure}")
            return 2
        return _try_all(mutants, copy)


def _try_all(mutants: list[Mutant], copy: Path) -> int:
    survivors: list[Mutant] = []
    began = time.monotonic()
    for number, mutant in enumerate(mutants, 1):
        path = copy / PACKAGE / mutant.file
        path.write_text(mutant.text, encoding="utf-8")
        survived = not complaint(copy, mutant.file)
        path.write_text(mutant.source, encoding="utf-8")
        if survived:
            survivors.append(mutant)
        word = "SURVIVED" if survived else "killed"
        print(f"{number}/{len(mutants)} {time.monotonic() - began:.0f} s {word}: {mutant}", flush=True)
    print(f"\n{'file':32} {'mutants':>8} {'killed':>8} {'share':>7}")
    for file in dict.fromkeys(mutant.file for mutant in mutants):
        of_file = [mutant for mutant in mutants if mutant.file == file]
        killed = len(of_file) - sum(mutant.file == file for mutant in survivors)
        print(f"{file:32} {len(of_file):8} {killed:8} {killed / len(of_file):7.1%}")
    killed = len(mutants) - len(survivors)
    print(f"{'together':32} {len(mutants):8} {killed:8} {killed / max(len(mutants), 1):7.1%}")
    print(*(f"survivor: {mutant}" for mutant in survivors), sep="\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
