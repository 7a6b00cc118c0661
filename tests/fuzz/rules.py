"""What people write and git brings: conditions, rule files, test files. Anything is read, or refused with its place."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from alertrouter.errors import RulesInvalid
from alertrouter.rules.condition import Condition, compile_condition
from alertrouter.rules.document import Problem
from alertrouter.rules.evaluate import evaluate, view_of
from alertrouter.rules.load import load_rules, read_rules
from alertrouter.rules.moment import Moment, Wanted
from alertrouter.rules.syntax import ConditionError
from alertrouter.rules.wording import MESSAGE_LIMIT
from alertrouter.simulation.cases import read_cases
from tests.alerts import NIGHT, make_alert
from tests.fuzz.inputs import Input, Target
from tests.fuzz.mutations import FRAGMENTS, Mutator, Parts, take_apart_condition, take_apart_yaml
from tests.rules.test_wrong_files import FINE, PLACES, WRONG, fill

RULES = Path(__file__).parents[2] / "rules"
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_ALERT = make_alert(service="payment", env="staging", n="5", text="x" * 2_000)

# --- conditions ------------------------------------------------------------------------------------------------------

#: Every construct of the language, for what the shipped rules do not use.
_CONDITIONS = (
    "event.summary matches part 'DNS' and not (event.severity == 'info' or event.class exists)",
    "raw_event.alerts[0].labels['a.b'] matches regex exactly '^(a|b)+$' or event.custom_details.n >= 5.5e3",
    "trigger_count over 5 minutes > 3 and resetting_trigger_count over 1 hour 2 minutes >= 100",
    "now in Mon,Tue,Sun 09:00:00 to 17:30:00 Europe/Berlin and now > 2027-01-10T03:00:00 America/New_York",
    "cache_var.host matches exactly event.source and event.custom_details.list matches 'it\\'s'",
    "(((event.group == true) or event.component == -18446744073709551616))",
)
WORDS = (
    *(b"and", b"or", b"not", b"exists", b"matches", b"part", b"exactly", b"regex", b"now", b"in", b"over", b"now in"),
    *(
        b"trigger_count",
        b"event",
        b"raw_event",
        b"cache_var",
        b"event.custom_details",
        b"event.class",
        b"true",
        b"null",
    ),
    *(
        b"==",
        b">=",
        b"<",
        b"=",
        b"!=",
        b"&&",
        b"||",
        b"!",
        b"(",
        b")",
        b"[",
        b"]",
        b"[0]",
        b"['a']",
        b"[-1]",
        b".",
        b"..",
    ),
    *(b"''", b"'", b"'a", b"'\\'", b"'\\\\'", b"'(a+)+$'", b"'[[:alpha:]]{1000}'", b"'(?P<a>'", b"'\\C'", b"'a{1001}'"),
    *(
        b"'(((a{100}){100}){100})'",
        b"'\xff'",
        "'İ'".encode(),
        b"'\x00'",
        b"0",
        b"-0",
        b"9" * 400,
        b"1e999",
        b"0.1e-999",
    ),
    *(b"2027-02-30", b"2027-13-45T99:99:99 Mars/Base", b"0000-01-01T00:00:00Z", b"9999-12-31T23:59:59 Etc/GMT+14"),
    *(
        b"Mon 24:00:00 to 00:00:00",
        b"Xyz 1 to 2",
        b"Mon,Mon 25:61:61 to 1:1:1 ../../etc/passwd",
        b"5 fortnights",
        b"0 minutes",
    ),
    *(b"99999999999999999999 hours", b"5 minutes 5 minutes", b"#", b"/*", b";", b"--", b"\\", b"`", b"$", b"{{x}}"),
)
_LARGE_WORDS = (
    *(b"(" * depth for depth in (31, 32, 33, 500, 2_000)),
    *(b"not " * 500, b"a." * 600 + b"a", b"[0]" * 500, b"'" + b"x" * 1_100 + b"'", b"x" * 5_000, b"1" * 5_000),
    *(b"event.source == 'a' or " * 100, b"'" + b"(" * 900 + b"'", b"'" + b".*" * 400 + b"'", b" " * 100_000),
)


def _whens(value: Any) -> Iterator[str]:
    """Every condition of a rule file."""
    if isinstance(value, dict):
        when = value.get("when", ())
        yield from [when] if isinstance(when, str) else filter(lambda each: isinstance(each, str), when or ())
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _whens(each)


@cache
def _conditions() -> tuple[tuple[Parts, ...], Mutator]:
    written = [text for path in RULES.rglob("*.yaml") for text in _whens(yaml.safe_load(path.read_text()))]
    parts = tuple(take_apart_condition(text.encode()) for text in sorted({*_CONDITIONS, *written}))
    return parts, Mutator(parts, WORDS, _LARGE_WORDS, (*FRAGMENTS, *WORDS))


def make_condition(chance: random.Random) -> Input:
    """A mutation of a condition."""
    parts, mutator = _conditions()
    return Input("condition", mutator.mutate(chance, chance.choice(parts)))


def check_condition(given: Input) -> None:
    """It is compiled or refused with its place, and what is compiled says yes or no of an alert, with words."""
    text = given.data.decode(errors="replace")
    condition = _compiled(text)
    if isinstance(condition, ConditionError):
        lines = text.split("\n")
        assert 1 <= condition.line <= len(lines), (condition, len(lines))
        assert 1 <= condition.column <= len(lines[condition.line - 1]) + 1, condition
        assert 0 < len(condition.message) <= MESSAGE_LIMIT and condition.message.isprintable(), condition
        return
    view = view_of(_ALERT)
    try:
        holds = condition.holds(view, Moment(NIGHT))
        assert condition.evaluate(view, Moment(NIGHT)).holds is holds
    except Wanted:
        raise AssertionError("no count is asked for where none is kept") from None


def _compiled(text: str) -> Condition | ConditionError:
    try:
        return compile_condition.__wrapped__(text)
    except ConditionError as error:
        return error


# --- files -----------------------------------------------------------------------------------------------------------

YAML = (
    *(b"&a [*a]", b"&a", b"*a", b"<<: *a", b"<<: [*a, *a]", b"!!python/object/apply:os.system [id]", b"!!binary aGk="),
    *(
        b"!!set {a}",
        b"!x",
        b"!!str",
        b"!!int x",
        b"!!int ''",
        b"!!int _",
        b"!!float ''",
        b"!!bool maybe",
        b'!!bool "yes\\n"',
        b"!!null none",
        b"!!timestamp soon",
        b"---",
        b"...",
        b"%YAML 9.9",
        b"%TAG ! x",
        b"? ",
        b"? [a]: b",
        b"- - - -",
    ),
    *(
        b"2027-13-45",
        b"2027-01-10T99:99:99Z",
        b"0o17",
        b"1:60:60",
        b".inf",
        b".nan",
        b"~",
        b"yes",
        b"on",
        b"=",
        b"|",
        b">-",
    ),
    *(
        b"|9\n x",
        b"\t",
        b"'",
        b'"',
        b'"\\x',
        b'"\\ud800"',
        b'"\\0"',
        b"{",
        b"}",
        b"[",
        b"]",
        b"{a: b",
        b"[,]",
        b"{? a}",
        b"@",
        b"`",
    ),
    *(
        b"[]",
        b"{}",
        b"null",
        b"true",
        b"-1",
        b"1e400",
        b"9" * 5_000,
        b"0x" + b"f" * 4_000,
        b"''",
        b"' '",
        b"a: b: c",
        b"#",
    ),
    *(
        b"99999999999h",
        b"-5m",
        b"5",
        b"{{event.summary}}",
        b"{{",
        b"{{event.x.y[0]}}",
        b"../../etc/passwd",
        b"/dev/zero",
        b"\x00",
    ),
    *("\u2028".encode(), "\x85".encode(), b"\xef\xbb\xbf", b"\xff\xfe", "ключ".encode(), b"(a+)+$", b"[", b"(?P<x>.*)"),
    *(
        b"route_to: unrouted",
        b"suppress: true",
        b"drop: true",
        b"when: 'x'",
        b"sets:",
        b"start:",
        b"catch_all: {}",
        b"- rule: x",
    ),
)
_BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (n, n, *(n - 1,) * 9) for n in range(98, 108)
)
_LARGE_YAML = (
    *(
        _BOMB,
        b"- " * 10_000,
        b"[" * 10_000,
        b"{a: " * 10_000,
        b"? " * 2_000,
        b"x" * 100_000,
        b"a: b\n" * 2_000,
        b"\n" * 20_000,
    ),
    *(
        b" " * 50_000,
        b"&x " * 1_000,
        b"'" + b"''" * 10_000 + b"'",
        b"# " + b"x" * 100_000,
        b"- a\n" * 5_000,
        b"!" * 5_000,
    ),
)
_CASES = Path("tests") / "shop_test.yaml"


@cache
def _files() -> tuple[tuple[tuple[str, Parts], ...], Mutator]:
    """Rule files that are sound, and those of tests/rules/wrong, each with the name of its place."""
    sound = [(path.relative_to(RULES), path) for path in sorted(RULES.rglob("*.yaml")) if path.parent.name != "tests"]
    wrong = [(Path(PLACES[path.name.partition("-")[0]]), path) for path in sorted(WRONG.glob("*.yaml"))]
    found = [
        ("services/shop.yaml" if place.parts[0] == "services" else str(place), take_apart_yaml(path.read_bytes()))
        for place, path in (*sound, *wrong)
    ]
    return tuple(found), Mutator([parts for _, parts in found], YAML, _LARGE_YAML, (*FRAGMENTS, *YAML, *WORDS))


def make_rules(chance: random.Random) -> Input:
    """A mutation of a rule file, with the name of its place in a directory that is fine otherwise."""
    files, mutator = _files()
    place, parts = chance.choice(files)
    return Input(place, mutator.mutate(chance, parts))


@cache
def _folder() -> Path:
    """A directory of rules that is fine; gone with this process."""
    _folder.keep = keep = tempfile.TemporaryDirectory(prefix="alertrouter-fuzz-")  # type: ignore[attr-defined]
    folder = Path(keep.name) / "rules"
    fill(folder, {**FINE, "global.yaml": "catch_all: {}\n", "unrouted.yaml": "catch_all: {}\n"})
    (folder / "tests").mkdir()
    return folder


def check_rules(given: Input) -> None:
    """The directory loads, and judges an alert; or every problem has its place in a file of it."""
    folder = _folder()
    file = folder / given.what
    fine = file.read_bytes()
    file.write_bytes(given.data)
    try:
        reading = read_rules(folder, now=NIGHT)
        for problem in reading.problems:
            _check_place(problem, folder)
        of_all = {problem.file for problem in reading.problems} - {str(folder / "services" / "shop.yaml")}
        if of_all:
            with pytest.raises(RulesInvalid):
                load_rules(folder, now=NIGHT)
            return
        ruleset = load_rules(folder, now=NIGHT)
        evaluate(_ALERT, ruleset, NIGHT, trace=True)
    finally:
        file.write_bytes(fine)


def _check_place(problem: Problem, folder: Path) -> None:
    path = Path(problem.file)
    assert path.is_relative_to(folder), problem
    text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    # YAML knows more ends of lines than those who count them otherwise
    assert 1 <= problem.line <= len(_LINE_END.split(text)) + 1, problem
    assert 1 <= problem.column <= max(map(len, text.split("\n"))) + 2, problem
    assert 0 < len(problem.message) <= MESSAGE_LIMIT and problem.message.isprintable(), problem


@cache
def _case_files() -> tuple[tuple[Parts, ...], Mutator]:
    parts = tuple(take_apart_yaml(path.read_bytes()) for path in sorted((RULES / "tests").glob("*_test.yaml")))
    return parts, Mutator(parts, YAML, _LARGE_YAML, (*FRAGMENTS, *YAML))


def make_cases(chance: random.Random) -> Input:
    """A mutation of a file of tests."""
    parts, mutator = _case_files()
    return Input(str(_CASES), mutator.mutate(chance, chance.choice(parts)))


def check_cases(given: Input) -> None:
    """The file is read as tests, or every problem has its place in it."""
    folder = _folder()
    file = folder / given.what
    file.write_bytes(given.data)
    for each in read_cases(file):
        if isinstance(each, Problem):
            _check_place(each, folder)


CONDITIONS = Target("conditions", make_condition, check_condition)
RULE_FILES = Target("rules", make_rules, check_rules)
CASES = Target("cases", make_cases, check_cases)
