"""Senders' times and texts."""

from __future__ import annotations

import pytest

from alertrouter.alert import Link
from alertrouter.sources.instant import UNKNOWN, Instant, read_epoch, read_rfc3339
from alertrouter.sources.text import first_line, links, one_line, quoted, web_address

MOMENT = 1_801_800_000_000  # 2027-02-05T04:00:00Z


@pytest.mark.parametrize(
    ("text", "canonical", "ms"),
    [
        ("2027-02-05T04:00:00Z", "2027-02-05T04:00:00Z", MOMENT),
        ("2027-02-05T04:00Z", "2027-02-05T04:00:00Z", MOMENT),
        ("2027-02-05T04:00:00.000Z", "2027-02-05T04:00:00Z", MOMENT),
        ("2027-02-05T04:00:00.12Z", "2027-02-05T04:00:00.12Z", MOMENT + 120),
        ("2027-02-05T04:00:00.1234567Z", "2027-02-05T04:00:00.1234567Z", MOMENT + 123),
        ("2027-02-05T04:00:00.999999999Z", "2027-02-05T04:00:00.999999999Z", MOMENT + 999),
        ("2027-02-05T04:00:00.1200000000009Z", "2027-02-05T04:00:00.12Z", MOMENT + 120),
        ("2027-02-05T04:00:00.1234567899Z", "2027-02-05T04:00:00.123456789Z", MOMENT + 123),
        ("2027-02-05T11:00:00+07:00", "2027-02-05T04:00:00Z", MOMENT),
        ("2027-02-04T23:00:00.5-0500", "2027-02-05T04:00:00.5Z", MOMENT + 500),
        ("2027-02-05T06:00:00+02", "2027-02-05T04:00:00Z", MOMENT),
        ("2027-02-05T04:00:00+00:00", "2027-02-05T04:00:00Z", MOMENT),
        ("9999-12-30T23:59:59-12:00", "", 0),
        ("9999-12-31T23:59:59-23:59", "", 0),
        ("0001-01-01T00:00:00Z", "", 0),
        ("0001-01-01T00:00:00+14:00", "", 0),
        ("1969-12-31T23:59:59Z", "", 0),
        ("1970-01-01T00:00:00Z", "", 0),
        ("2027-02-05T04:00:00", "", 0),
        ("2027-02-05 04:00:00Z", "", 0),
        ("20270205T040000Z", "", 0),
        ("2027-W05-5T04:00:00Z", "", 0),
        ("2027-02-30T04:00:00Z", "", 0),
        ("2027-02-05T25:00:00Z", "", 0),
        ("2027-02-05T04:00:00+99:99", "", 0),
        ("2027-02-05T04:00:00Z\n", "", 0),
        ("٢٠٢٧-02-05T04:00:00Z", "", 0),
        ("2027-02-05T04:00:00." + "1" * 100 + "Z", "", 0),
        ("1801800000000", "", 0),
        ("yesterday", "", 0),
        ("", "", 0),
    ],
)
def test_rfc3339(text: str, canonical: str, ms: int) -> None:
    assert read_rfc3339(text) == Instant(canonical, ms)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1801800000000", Instant("2027-02-05T04:00:00Z", MOMENT)),
        ("1801800000007", Instant("2027-02-05T04:00:00.007Z", MOMENT + 7)),
        ("1801800000", Instant("2027-02-05T04:00:00Z", MOMENT)),
        ("1801800000.25", Instant("2027-02-05T04:00:00.250Z", MOMENT + 250)),
        ("99999999999", Instant("5138-11-16T09:46:39Z", 99_999_999_999_000)),
        ("100000000000", Instant("1973-03-03T09:46:40Z", 100_000_000_000)),
        ("0", UNKNOWN),
        ("-1801800000", UNKNOWN),
        ("1e12", UNKNOWN),
        ("nan", UNKNOWN),
        ("Infinity", UNKNOWN),
        ("999999999999999", UNKNOWN),
        ("1" * 400, UNKNOWN),
        ("٣٣٣٣٣٣٣٣٣٣", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_epoch(text: str, expected: Instant) -> None:
    assert read_epoch(text) == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Disk full", "Disk full"),
        ("  Disk\n\t full \u00a0 now ", "Disk full now"),
        ("a  b", "a b"),
        ("支付 🔥 не", "支付 🔥 не"),
        ("👩\u200d🚒", "👩\u200d🚒"),
        ("\x1b[31mred\x07\x9b", "[31mred"),
        ("user\u202egpj.exe\u2066", "usergpj.exe"),
        ("\x1b \x1b", ""),
        ("", ""),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a"), ("\n \n\x1b\n b \nc", "b"), ("", ""), ("\u2028x", "x")],
)
def test_first_line(text: str, shown: str) -> None:
    assert first_line(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("kritisch", "'kritisch'"),
        ("x" * 80, f"'{'x' * 80}'"),
        ("x" * 81, f"'{'x' * 79}…'"),
        ("a\n\x1b[2J", "'a [2J'"),
        ([1, None], "'[1, None]'"),
    ],
)
def test_quoted(value: object, shown: str) -> None:
    assert quoted(value) == shown


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://example.org/a?b=c#d", "https://example.org/a?b=c#d"),
        (" http://[::1]:9090/\n", "http://[::1]:9090/"),
        ("javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        ("//example.org", ""),
        ("example.org", ""),
        ("ftp://example.org", ""),
        ("null", ""),
        ("", ""),
    ],
)
def test_web_address(text: str, address: str) -> None:
    assert web_address(text) == address


def test_links_leave_out_what_is_no_link() -> None:
    assert links([("https://a.example.org", "A"), ("", "B"), ("javascript:x", "C"), ("http://d", "D")]) == (
        Link("https://a.example.org", "A"),
        Link("http://d", "D"),
    )
