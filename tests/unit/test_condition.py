"""The PagerDuty Condition Language: what each form says about one event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from alertrouter.rules.closures import SUBJECT_BYTES
from alertrouter.rules.condition import compile_condition
from alertrouter.rules.moment import Moment
from alertrouter.rules.syntax import Compare, Joined, Matches, Not, Path, parse

PAYLOAD: dict[str, Any] = {
    "summary": "[PROD] Disk low",
    "severity": "critical",
    "custom_details": {
        "n": 5,
        "f": 5.0,
        "big": 2**53 + 1,
        "s": "5",
        "flag": True,
        "off": False,
        "nul": None,
        "list": ["a", "B"],
        "a b": {"c": "x"},
        "namespace": "shop",
        "in": "there",
        "it's": "quoted",
        "path": "C:\\temp",
        "street": "Große Straße",
        "deep": [{"x": [1, {"y": "z"}]}],
    },
}
VIEW = {
    "event": PAYLOAD,
    "raw_event": {"payload": PAYLOAD, "another": "first\nin it", "links": [{"href": "https://a"}]},
}


def at(text: str) -> int:
    """A UTC time in ms since the epoch."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOON = at("2022-01-03 20:00:00")  # a Monday, noon in Los Angeles

VECTORS = [
    ("event.summary matches part 'prod'", True),
    ("event.summary matches part exactly 'prod'", False),
    ("event.summary matches 'disk low'", False),
    ("event.summary matches '[prod] disk low'", True),
    ("event.summary matches exactly '[prod] disk low'", False),
    ("event.summary matches exactly '[PROD] Disk low'", True),
    ("event.summary == '[prod] disk low'", False),
    ("event.custom_details.n matches '5'", True),
    ("event.custom_details.n == '5'", False),
    ("event.custom_details.n == event.custom_details.f", True),
    ("event.custom_details.s > 4", False),
    ("not event.custom_details.s > 4", True),
    ("event.custom_details.nul exists", True),
    ("event.custom_details.nul matches 'null'", False),
    ("event.custom_details.nope exists", False),
    ("event.custom_details.flag", True),
    ("event.custom_details.n and true", False),
    ("event.custom_details.list matches part 'b'", True),
    ("event.custom_details.list[1] matches exactly 'B'", True),
    ("event.custom_details['a b'].c == 'x'", True),
    ("raw_event.another matches regex '.in it'", True),
    ("raw_event.another matches regex '(?-s).in it'", False),
    ("raw_event.another matches regex '^in it'", True),
    ("raw_event.another matches regex '(?-m)^in it'", False),
    ("raw_event.another matches regex exactly '(?i)FIRST'", True),
    ("raw_event.another matches regex '(?-i)FIRST'", False),
    ("raw_event.another matches regex 'FIRST'", True),
    ("raw_event.another matches regex exactly 'FIRST'", False),
    ("false and true or true", True),
    # paths
    ("event.custom_details['namespace'] == 'shop'", True),
    ("event.custom_details.in == 'there'", True),
    (r"event.custom_details['it\'s'] == 'quoted'", True),
    (r"event.custom_details.path == 'C:\\temp'", True),
    ("event.custom_details.deep[0].x[1].y == 'z'", True),
    ("event.custom_details.list[2] exists", False),
    ("event.custom_details.list[99999999999] exists", False),
    ("event.summary[0] exists", False),
    ("event.custom_details.list.a exists", False),
    ("event.summary.x exists", False),
    ("raw_event.links[0].href == 'https://a'", True),
    ("raw_event.payload.severity == event.severity", True),
    # comparisons
    ("event.custom_details.n >= 5 and event.custom_details.n <= 5.0", True),
    ("event.custom_details.n > -1", True),
    ("event.custom_details.n > 5.5", False),
    ("event.custom_details.big == 9007199254740993", True),
    ("event.custom_details.big == 9007199254740992", False),
    ("event.custom_details.flag == true", True),
    ("event.custom_details.flag == 1", False),
    ("event.custom_details.off == 0", False),
    ("event.custom_details.flag > 0", False),
    ("event.custom_details.nul == event.custom_details.nope", False),
    ("event.custom_details.list == event.custom_details.list", False),
    ("1.5e2 == 150", True),
    # text
    ("event.custom_details.flag matches 'TRUE'", True),
    ("event.custom_details.street matches 'GROSSE STRASSE'", True),
    ("event.custom_details.street matches part exactly 'straße'", False),
    ("event.custom_details.nope matches part ''", False),
    ('event.custom_details.deep matches part \'"y":"z"\'', True),
    ("'5' matches event.custom_details.n", True),
    ("event.summary matches part event.custom_details.nope", False),
    ("event.summary matches part '\n'", False),
    ("raw_event.another matches part '\n'", True),
    # what is neither true nor false
    ("2 > 'two'", False),
    ("not 2 > 'two'", True),
    ("2 >= 'two' or 2 < 10", True),
    ("2 <= 'two' and 2 < 10", False),
    ("not raw_event.nope > 2", True),
    ("'text'", False),
    ("(2 > 'two') == false", False),
    ("not not event.custom_details.n", False),
    ("not not not event.custom_details.n", True),
    ("not not not not not event.custom_details.flag", False),
    # time
    ("now in Mon,Wed,Fri 01:00:00 to 15:00:00 America/Los_Angeles", True),
    ("now in Mon,Wed,Fri 01:00:00 to 15:00:00 etc/utc", False),
    ("now > 2022-01-03 11:59:59 America/Los_Angeles and now < 2022-01-03 12:00:01 America/Los_Angeles", True),
    ("now == 2022-01-03 20:00:00 Etc/Utc", True),
    ("now > 5", False),
    ("now matches part '2022-01-03 20:00'", True),
    ("event.severity matches 'critical' and not (now in Sat,Sun 00:00:00 to 00:00:00 Europe/London)", True),
]


@pytest.mark.parametrize(("condition", "expected"), VECTORS)
def test_says(condition: str, expected: bool) -> None:
    assert compile_condition(condition).holds(VIEW, Moment(NOON)) is expected


@pytest.mark.parametrize(("condition", "expected"), VECTORS)
def test_the_explanation_agrees(condition: str, expected: bool) -> None:
    outcome = compile_condition(condition).evaluate(VIEW, Moment(NOON))
    assert outcome.holds is expected
    assert outcome.why


PUBLIC_EXAMPLES = """\
event.summary matches part 'database'
event.source matches regex 'db[0-9]+-server'
event.severity matches 'critical'
event.source exists
not event.custom_details.errors exists
raw_event.class exists and event.summary matches part 'unstable'
event.custom_details.service_name matches part '-api' and event.custom_details.status_code matches '502'
event.severity matches 'info' and not (now in Mon,Tue,Wed,Thu,Fri 09:00:00 to 17:00:00 America/Los_Angeles)
now in Mon,Tue,Wed,Thu,Fri,Sat,Sun 06:00:00 to 07:00:00 Europe/London
trigger_count over 1 minute > 3
trigger_count over 5 minute > 10
resetting_trigger_count over 1 hour 30 minutes >= 2
cache_var.num_db_triggers >= 5
cache_var.is_maintenance == true
cache_var.host_ignore_list matches part event.custom_details.host
raw_event.TopicArn matches 'arn:aws:sns:eu-1:1:alarms' and raw_event.Subject matches part 'ALARM:'
event.custom_details.from[0] matches part 'hello@example.com'
event.custom_details.maintenance_mode matches 'true' or event.summary matches part '[MAINTENANCE]'
not event.custom_details.NewStateValue matches 'OK'
now > 2026-01-01 00:00:00 Etc/UTC and now < 2026-01-02 00:00:00 Etc/UTC"""


@pytest.mark.parametrize("condition", PUBLIC_EXAMPLES.splitlines())
def test_public_examples_can_be_read(condition: str) -> None:
    tree = parse(condition)
    assert condition[tree.span.start : tree.span.end] == condition


def test_precedence_is_parentheses_then_tests_then_not_and_or() -> None:
    tree = parse("a > 5 and not b < 6 or c == 2")
    assert isinstance(tree, Joined)
    assert tree.word == "or"
    both, last = tree.parts
    assert isinstance(both, Joined)
    assert both.word == "and"
    assert isinstance(both.parts[1], Not)
    assert isinstance(both.parts[1].part, Compare)
    assert isinstance(last, Compare)


def test_a_path_knows_its_elements() -> None:
    tree = parse("event.custom_details['alert-name'][0].x matches part exactly 'y'")
    assert isinstance(tree, Matches)
    assert (tree.part, tree.exactly) == (True, True)
    assert isinstance(tree.left, Path)
    assert (tree.left.root, tree.left.keys) == ("event", ("custom_details", "alert-name", 0, "x"))


#: Published tables for the days on which New York changes its clocks.
DAYLIGHT_SAVING = [
    ("2021-11-07 05:00", False),
    ("2021-11-07 05:30", True),
    ("2021-11-07 06:00", False),
    ("2021-11-07 06:15", False),
    ("2021-11-07 06:30", True),
    ("2021-11-07 08:00", True),
    ("2021-11-07 08:30", False),
    ("2021-03-14 06:00", False),
    ("2021-03-14 06:30", True),
    ("2021-03-14 06:59", True),
    ("2021-03-14 07:00", True),
    ("2021-03-14 07:15", True),
    ("2021-03-14 07:30", False),
    ("2021-03-14 08:30", False),
]


@pytest.mark.parametrize(("utc", "expected"), DAYLIGHT_SAVING)
def test_a_schedule_goes_by_the_clock_on_the_wall(utc: str, expected: bool) -> None:
    condition = compile_condition("now in Sun 01:30:00 to 03:15:00 America/New_York")
    assert condition.holds({}, Moment(at(f"{utc}:00"))) is expected


@pytest.mark.parametrize(
    ("schedule", "utc", "expected"),
    [
        ("Mon 22:00:00 to 06:00:00", "2027-01-04 21:59:59", False),
        ("Mon 22:00:00 to 06:00:00", "2027-01-04 22:00:00", True),
        ("Mon 22:00:00 to 06:00:00", "2027-01-05 06:00:00", True),
        ("Mon 22:00:00 to 06:00:00", "2027-01-05 06:00:01", False),
        ("Mon 22:00:00 to 06:00:00", "2027-01-04 05:00:00", False),
        ("Sun 22:00:00 to 06:00:00", "2027-01-04 05:00:00", True),
        ("Mon 09:00:00 to 09:00:00", "2027-01-04 08:59:59", False),
        ("Mon 09:00:00 to 09:00:00", "2027-01-05 08:59:59", True),
        ("Mon 09:00:00 to 09:00:00", "2027-01-05 09:00:01", False),
    ],
)
def test_a_schedule_starts_on_its_days_and_may_end_on_the_next(schedule: str, utc: str, expected: bool) -> None:
    assert compile_condition(f"now in {schedule} Etc/UTC").holds({}, Moment(at(utc))) is expected


def test_matches_looks_at_the_first_64_kib_only() -> None:
    condition = compile_condition("event.summary matches part 'needle'")
    assert condition.holds({"event": {"summary": "x" * (SUBJECT_BYTES - 6) + "needle"}}, Moment(0))
    assert not condition.holds({"event": {"summary": "x" * (SUBJECT_BYTES - 5) + "needle"}}, Moment(0))
    # cut in the middle of a character, which is then not there
    assert compile_condition("event.summary matches regex 'ä$'").holds(
        {"event": {"summary": "ä" * SUBJECT_BYTES}}, Moment(0)
    )


def test_and_and_or_stop_at_what_decides_them() -> None:
    assert compile_condition("true or 2 > 'two'").evaluate({}, Moment(0)).warnings == ()
    assert compile_condition("false and 2 > 'two'").evaluate({}, Moment(0)).warnings == ()
    assert compile_condition("true and 2 > 'two'").evaluate({}, Moment(0)).warnings == (
        "`2 > 'two'` compares a number with text",
    )


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        (
            "event.severity == 'critical' and event.custom_details.n > 9 and event.source exists",
            "`event.custom_details.n > 9` is false: it is 5",
        ),
        ("event.source exists", "`event.source exists` is false: it is not there"),
        (
            "event.summary matches 'a' or event.custom_details.nul matches 'b'",
            "`event.summary matches 'a'` is false: it is \"[PROD] Disk low\"; "
            "`event.custom_details.nul matches 'b'` is false: it is null",
        ),
        ("not event.custom_details.flag", "`event.custom_details.flag` is true: it is true"),
        (
            "'x' matches event.severity",
            "`'x' matches event.severity` is false: event.severity is \"critical\"",
        ),
        (
            "now > 2027-01-01 00:00:00 Etc/UTC",
            "`now > 2027-01-01 00:00:00 Etc/UTC` is false: now is 2022-01-03 20:00:00 Etc/UTC",
        ),
        ("false", "`false` is false"),
    ],
)
def test_names_what_decided_it_with_the_values_seen(condition: str, why: str) -> None:
    assert compile_condition(condition).evaluate(VIEW, Moment(NOON)).why == why


@pytest.mark.parametrize(
    ("condition", "warning"),
    [
        ("not raw_event.nope > 2", "`raw_event.nope > 2` compares nothing with a number"),
        ("event.custom_details.s > 4", "`event.custom_details.s > 4` compares text with a number"),
        ("event.custom_details.nope matches 'x'", "`event.custom_details.nope matches 'x'` has nothing to compare"),
        ("raw_event.nope matches regex 'x'", "`raw_event.nope matches regex 'x'` has nothing to search"),
        ("event.custom_details.n and true", "`event.custom_details.n` is a number, neither true nor false"),
        ("event.custom_details or true", "`event.custom_details` is an object, neither true nor false"),
    ],
)
def test_warns_of_what_makes_no_sense(condition: str, warning: str) -> None:
    assert compile_condition(condition).evaluate(VIEW, Moment(NOON)).warnings == (warning,)


def test_an_explanation_stays_short_and_in_one_line() -> None:
    view = {"event": {"summary": "line\n" * 10_000}}
    outcome = compile_condition(" or ".join(["event.summary == 'x'"] * 60)).evaluate(view, Moment(0))
    assert len(outcome.why) <= 400
    assert "\n" not in outcome.why
