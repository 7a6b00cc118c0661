"""What people write by mistake, and the form that the error names."""

from __future__ import annotations

import pytest

from alertrouter.rules.condition import ConditionError, compile_condition

DATE = "a date is written with its time and time zone: 2026-01-01 00:00:00 Etc/UTC"
IN_FRONT = "write `not` in front of the test: `not a matches part 'text'`"
NOT_EQUAL = "there is no `!=`; write `not a == b`"
NOT_IN_PATH = "after a dot comes a plain name; anything else is written ['any name'], and an index [0]"
QUOTES = "text goes in single quotes: 'text'"
SCHEDULE = "a schedule looks like `now in Mon,Tue 09:00:00 to 17:00:00 Europe/London`"
STOPS = "the condition stops here; something is missing after it"
MISSING = "a path, a number, true, false or text in single quotes is missing"
EXACTLY = "the order is `matches part exactly`"

MISTAKES = [
    ("event.a != 'b'", 9, NOT_EQUAL),
    ("event.a <> 'b'", 9, NOT_EQUAL),
    ("event.a contains 'x'", 9, "there is no `contains`; write `a matches part 'text'` for a text inside another"),
    (
        "event.a equals 'x'",
        9,
        "there is no `equals`; write `a == 'text'`, or `a matches 'text'` where upper and lower case are one",
    ),
    ("event.a does not match part 'x'", 9, IN_FRONT),
    ("event.a not matches 'x'", 9, IN_FRONT),
    (
        "event.a in ['x','y']",
        9,
        "`in` is for schedules; write `a matches 'x' or a matches 'y'`, or `a matches regex '^(x|y)$'`",
    ),
    ("event.a =~ /x/", 9, "there is no `=~`; write `a matches regex 'pattern'`"),
    ("event.a == 'x' && event.b", 16, "there is no `&&`; write `and`"),
    ("event.a == 'x' || event.b", 16, "there is no `||`; write `or`"),
    ("!event.a", 1, "there is no `!`; write `not`"),
    ("now <-> 2026-01-01", 5, "`now` is compared with `now > date` and `now < date`, or with `now in schedule`"),
    ("event.a == 'x' AND event.b == 'y'", 16, "keywords are lower case: write `and`"),
    ("event.a Or event.b", 9, "keywords are lower case: write `or`"),
    ("NOT event.a exists", 1, "keywords are lower case: write `not`"),
    ("event.a MATCHES 'x'", 9, "keywords are lower case: write `matches`"),
    ("event.a == True", 12, "keywords are lower case: write `true`"),
    ("event.a == null", 12, "there is no null; `a exists` tells whether a field is there"),
    (
        "service == 'payment'",
        1,
        "a path starts with event. or raw_event.; write `event.custom_details.service`",
    ),
    ("summary matches part 'x'", 1, "a path starts with event. or raw_event.; write `event.summary`"),
    (
        "event.a == payment",
        12,
        "text goes in single quotes: 'payment'; a path starts with event. or raw_event.",
    ),
    (
        "variables.x == 'a'",
        1,
        "`variables` are set by a rule's actions, after its conditions; test the field they are taken from",
    ),
    (
        "event.custom_details.namespace == 'x'",
        22,
        "`namespace` is a reserved word; write it in brackets: ['namespace']",
    ),
    (
        "event.custom_details.alert-name == 'x'",
        27,
        "a name with `-` is written in brackets: event.custom_details['alert-name']",
    ),
    ('event.a == "x"', 12, QUOTES),
    ('event.a["x"] == 1', 9, QUOTES),
    ("event.a == 'x", 12, "the text has no closing quote; a quote inside it is written \\'"),
    (r"event.a matches regex '\d'", 24, r"`\d` is no escape: there are only \' and \\; write \\d for a backslash"),
    (
        "event.a matches regex event.b",
        23,
        "a pattern stands in the rule itself, in single quotes: `a matches regex 'pattern'`",
    ),
    ("event.a matches exactly part 'x'", 25, EXACTLY),
    ("event.a matches part regex 'x'", 22, "`regex` comes right after `matches`; only `exactly` may follow it"),
    (
        "event.a starts with 'x'",
        9,
        "write `a matches regex '^text'` for the start of a text and `a matches regex 'text$'` for its end",
    ),
    ("event.a = 'x'", 9, "write `==`"),
    ("event.a >> 3", 10, "the operators are ==, >, >=, < and <="),
    ("event.a + 1 > 2", 9, "there is no arithmetic"),
    ("lower(event.a) == 1", 6, "there are no functions"),
    ("event.a == 'x' # note", 16, "there are no comments in a condition"),
    ("event.a[*] == 1", 9, NOT_IN_PATH),
    ("event.a.1st == 1", 9, NOT_IN_PATH),
    ("event..a", 7, NOT_IN_PATH),
    ("event.a[-1] == 1", 9, "an index counts from 0; there is none from the end"),
    ("'a' exists", 1, "only a path can be asked whether it exists, as in `event.component exists`"),
    ("now in Monday 9:00 to 17:00 Etc/UTC", 8, SCHEDULE),
    ("now in Mon, Tue 09:00:00 to 17:00:00 Etc/UTC", 8, SCHEDULE),
    ("now in 'x'", 8, SCHEDULE),
    ("now in Mon 9:00 to 17:00 Etc/UTC", 8, "`9:00` is no time of day; write it as 09:00:00"),
    ("now in Mon 09:00:00 to 24:00:00 Etc/UTC", 8, "`24:00:00` is no time of day; the day has 00:00:00 to 23:59:59"),
    ("now in Mon,Tux 09:00:00 to 17:00:00 Etc/UTC", 8, "`Tux` is no day; days are Mon, Tue, Wed, Thu, Fri, Sat, Sun"),
    (
        "now in Mon 09:00:00 to 17:00:00 and true",
        8,
        "a schedule ends in its time zone, with no blanks around commas: now in Mon 09:00:00 to 17:00:00 Etc/UTC",
    ),
    (
        "now in Mon 09:00:00 to 17:00:00 Mars/Olympus",
        8,
        "`Mars/Olympus` is no time zone; write a name of the tz database such as Etc/UTC or Europe/London",
    ),
    ("now > 2026-01-01", 7, DATE),
    ("now > 2026-01-01 00:00:00 and true", 7, DATE),
    ("now > 2026-01-01T00:00:00Z", 7, DATE),
    ("now > 2026-02-30 00:00:00 Etc/UTC", 7, "`2026-02-30` is no date: day is out of range for month"),
    (
        "trigger_count over 45 minuter >> 3",
        20,
        "`minuter` is no unit of time; units are day, hour, minute and second, as in `over 5 minutes`",
    ),
    ("trigger_count over 1 hour 2 hours > 3", 20, "`hour` is given twice"),
    ("trigger_count over 0 minutes > 3", 20, "`0 minutes` is no time at all; start at 1"),
    ("trigger_count > 3", 15, "a count needs its time: `trigger_count over 5 minutes > 3`"),
    ("trigger_count over x > 3", 20, "a duration looks like `over 1 hour 30 minutes`"),
    (
        "event.a == 99999999999999999999",
        12,
        "`99999999999999999999` does not fit into 64 bits; write it with a decimal point",
    ),
    ("event.a == 1.0e999", 12, "the number is too large"),
    ("event.a ==", 11, STOPS),
    ("(event.a == 1", 14, STOPS),
    ("event.a matches part", 21, STOPS),
    ("event.a == 1)", 13, "there is no `(` for this `)`"),
    ("event.a == 1 event.b == 2", 14, "`event` cannot stand here; tests are joined by `and` or `or`"),
    (
        "event.a event.b",
        9,
        "`event` cannot stand here; after a path comes `matches`, `exists`, `==`, `>`, `>=`, `<` or `<=`",
    ),
    ("event.a == )", 12, "there is no `(` for this `)`"),
    ("event.a == and", 12, f"`and` cannot stand here; {MISSING}"),
    ("or event.a", 1, f"`or` cannot stand here; {MISSING}"),
    ("event.a == -", 12, f"`-` cannot stand here; {MISSING}"),
    ("", 1, "the condition is empty; leave `when` out for a rule that always matches"),
    ("event.summary matches regex '(a'", 29, "missing ): (?ims)(a"),
    (
        "event.a matches regex 'a(?=b)'",
        23,
        "RE2 has no look-ahead or look-behind; join two tests with `and` or `and not`",
    ),
    (r"event.a matches regex '(a)\\1'", 23, "RE2 has no back-references"),
]


@pytest.mark.parametrize(("condition", "column", "message"), MISTAKES)
def test_names_the_place_and_the_right_form(condition: str, column: int, message: str) -> None:
    with pytest.raises(ConditionError) as raised:
        compile_condition(condition)
    assert (raised.value.line, raised.value.column, raised.value.message) == (1, column, message)


def test_counts_lines() -> None:
    with pytest.raises(ConditionError) as raised:
        compile_condition("event.a == 'x'\n  and event.b != 'y'")
    assert (raised.value.line, raised.value.column) == (2, 15)


TOO_MANY = "more than 64 tests joined by `and` and `or`; write several conditions under `when`, of which one is enough"

LIMITS = [
    (" and ".join(["true"] * 64), " and ".join(["true"] * 65), TOO_MANY),
    (" or ".join(["(true and true)"] * 32), " or ".join(["(true and true)"] * 33), TOO_MANY),
    ("(" * 32 + "true" + ")" * 32, "(" * 33 + "true" + ")" * 33, "parentheses nest deeper than 32"),
    ("event.a == '" + "(" * 40 + "'", "event.a == '" + "(" * 1025 + "'", "the text has 1025 bytes; 1024 are allowed"),
    ("event.a == '" + "ä" * 512 + "'", "event.a == '" + "ä" * 513 + "'", "the text has 1026 bytes; 1024 are allowed"),
    ("event" + ".a" * 31 + " exists", "event" + ".a" * 32 + " exists", "the path has 33 elements; 32 are allowed"),
    ("event.a == 9223372036854775807", "event.a == 9223372036854775808", "`9223372036854775808` does not fit"),
    ("event.a == -9223372036854775808", "event.a == -9223372036854775809", "`-9223372036854775809` does not fit"),
    ("true".ljust(2048), "true".ljust(2049), "the condition has 2049 bytes; 2048 are allowed"),
]


@pytest.mark.parametrize(("just_fits", "too_much", "message"), LIMITS)
def test_keeps_the_published_limits(just_fits: str, too_much: str, message: str) -> None:
    compile_condition(just_fits)
    with pytest.raises(ConditionError) as raised:
        compile_condition(too_much)
    assert raised.value.message.startswith(message)


def test_a_bad_pattern_writes_nothing_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConditionError):
        compile_condition("event.summary matches regex '(a'")
    assert capfd.readouterr() == ("", "")
