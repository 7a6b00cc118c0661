"""Bytes to values: what is refused and with which words, what is repaired, what is left alone."""

from __future__ import annotations

import codecs
import json
from typing import Any

import msgspec
import pytest

from alertrouter.errors import BadPayload
from alertrouter.limits import LIMITS
from alertrouter.sources.body import DEPTH_LIMIT, FORM_FIELDS_LIMIT, REPLACED, is_form, read_form, read_json, read_text

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty body"),
        (b" \r\n\t", "empty body"),
        (codecs.BOM_UTF8, "empty body"),
        (codecs.BOM_UTF16_LE, "empty body"),
        (b"hello", "not JSON: Expecting value at byte 0"),
        (b'{"title": "x" "y"}', "not JSON: Expecting ',' delimiter at byte 14"),
        (b'{"alerts": [1, 2', "not JSON: Expecting ',' delimiter at byte 16"),
        (b'{"x": "{"a":1}"}', "not JSON: Expecting ',' delimiter at byte 9"),
        ('{"ü": 1, "ö"}'.encode(), "not JSON: Expecting ':' delimiter at byte 14"),
        (codecs.BOM_UTF8 + b'{"a" 1}', "not JSON: Expecting ':' delimiter at byte 8"),
        (b'{"\xff\xff": 1 2}', "not JSON: Expecting ',' delimiter at byte 9"),
        (codecs.BOM_UTF16_LE + '{"a" 1}'.encode("utf-16-le"), "not JSON: Expecting ':' delimiter at byte 12"),
        (
            codecs.BOM_UTF16_BE + '["\ud800" "\ud800"]'.encode("utf-16-be", "surrogatepass"),
            "not JSON: Expecting ',' delimiter at byte 12",
        ),
        (
            codecs.BOM_UTF16_LE + '["\ud800" "\ud800"]'.encode("utf-16-le", "surrogatepass"),
            "not JSON: Expecting ',' delimiter at byte 12",
        ),
        (b"{} {}", "not JSON: Extra data at byte 3"),
        (b'{"a": "two\nlines"}', "not JSON: Invalid control character at byte 10"),
        (b'{"a": "\x00"}', "not JSON: Invalid control character at byte 7"),
        (b"\x00" * 100, "not JSON: Expecting value at byte 0"),
        (b'{"a": NaN}', "not JSON: NaN is no JSON number"),
        (b'{"a": -Infinity}', "not JSON: -Infinity is no JSON number"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper than 64 levels"),
        (b"[" * 200_000, "nested deeper than 64 levels"),
        (b"[" * 200_000 + b"]" * 200_000, "nested deeper than 64 levels"),
        (b'["\\ud800",' + b"[" * 70 + b"]" * 71, "nested deeper than 64 levels"),
    ],
)
def test_refused_with_a_short_reason(body: bytes, reason: str) -> None:
    with pytest.raises(BadPayload) as refused:
        read_json(body)
    assert refused.value.reason == reason
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, null, true, "x"]}\n', {"a": [1, 2.5, None, True, "x"]}),
        (codecs.BOM_UTF8 + b'{"a": "x"}', {"a": "x"}),
        (codecs.BOM_UTF16_LE + '{"a": "ü"}'.encode("utf-16-le"), {"a": "ü"}),
        (codecs.BOM_UTF16_BE + '{"a": "ü"}'.encode("utf-16-be"), {"a": "ü"}),
        (codecs.BOM_UTF16_BE + "[]".encode("utf-16-be") + b"\x00", []),
        (codecs.BOM_UTF16_LE + "[]".encode("utf-16-le") + b"]", []),
        (b'"\\ud83d\\udd25"', "🔥"),
        (b'"\\t\\n\\r\\u000a"', "\t\n\r\n"),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"[" * DEPTH_LIMIT + b"]" * DEPTH_LIMIT, None),
        (b'{"id": 7716548234011234582}', {"id": 7716548234011234582}),
    ],
)
def test_taken_as_it_is(body: bytes, value: Any) -> None:
    read = read_json(body)
    assert value is None or read.value == value
    assert read.notes == ()


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": "caf\xe9"}', {"a": r"caf\xe9"}),
        (b'{"\xff": "x"}', {r"\xff": "x"}),
        (b'["\xed\xa0\x80"]', [r"\xed\xa0\x80"]),
        (b'{"a": ["\\ud800"], "\\udc00": 1}', {"a": [r"\ud800"], r"\udc00": 1}),
        (b'["\\ud83d \\udd25"]', [r"\ud83d \udd25"]),
        (b'["a\\u0000b"]', [r"a\x00b"]),
        (b'["\\u001b[31mred"]', [r"\x1b[31mred"]),
        (codecs.BOM_UTF16_LE + '["'.encode("utf-16-le") + b"\x00\xd8" + '"]'.encode("utf-16-le"), [r"\ud800"]),
    ],
)
def test_broken_text_is_replaced_and_marked(body: bytes, value: Any) -> None:
    read = read_json(body)
    assert read.value == value
    assert read.notes == (REPLACED,)


def test_texts_that_differ_in_what_is_broken_stay_different() -> None:
    raw = [b"\xff" + bytes([byte]) for byte in range(0x80, 0x100)]
    unfit = [*map(chr, (*range(0x20), 0x7F)), *map(chr, range(0xD800, 0xDC80))]
    bodies = [b'"%s"' % each for each in raw] + [json.dumps(each).encode() for each in unfit]
    values = [read_json(body).value for body in bodies]
    assert len(set(values)) == len(bodies)
    forms = [b"a=%" + b"%02X" % byte for byte in range(0x100) if byte not in b"&;"]
    assert len({read_form(form).value["a"] for form in forms}) == len(forms)


@pytest.mark.parametrize(
    ("body", "value", "is_marked"),
    [
        (b"caf\xe9", r"caf\xe9", True),
        ("café".encode(), "café", False),
        (codecs.BOM_UTF8 + b"x", "x", False),
        (codecs.BOM_UTF16_LE + "ü".encode("utf-16-le"), "ü", False),
    ],
)
def test_plain_text(body: bytes, value: str, is_marked: bool) -> None:
    read = read_text(body)
    assert read.value == value
    assert read.notes == ((REPLACED,) if is_marked else ())


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 5000, "-" + "9" * 5000, "9" * 5000 + ".5"])
def test_a_number_without_end_becomes_text(number: str) -> None:
    assert read_json(b'{"a": ' + number.encode() + b"}").value == {"a": number}


@pytest.mark.parametrize("number", ["9" * 30, "9" * 4300, "-" + "9" * 4300, "1e308", "5e-324", "-0.0"])
def test_a_large_number_can_be_encoded_again(number: str) -> None:
    value = read_json(number.encode()).value
    assert msgspec.json.decode(msgspec.json.encode(value)) == value


def test_the_reason_does_not_repeat_a_long_body() -> None:
    with pytest.raises(BadPayload) as refused:
        read_json(b"secret " * 1_000_000)
    assert len(refused.value.reason) < 80
    assert "secret" not in refused.value.reason


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (FORM, b"a=1", True),
        (f"{FORM.upper()} ; charset=utf-8", b"a=1", True),
        (FORM, b' {"a": 1}', False),
        (FORM, b"[1]", False),
        ("application/json", b"a=1", False),
        ("", b"a=1", False),
    ],
)
def test_what_is_a_form(content_type: str, body: bytes, expected: bool) -> None:
    assert is_form(content_type, body) is expected


@pytest.mark.parametrize(
    ("body", "value", "is_marked"),
    [
        (b"a=1&b=&c=x%20y+z&d=%C3%BC", {"a": "1", "b": "", "c": "x y z", "d": "ü"}, False),
        ("a=ü".encode(), {"a": "ü"}, False),
        (b"a=1&a=2", {"a": "2"}, False),
        (b"nonsense", {"nonsense": ""}, False),
        (b"a=%FF&b=%00&c=\xff", {"a": r"\xff", "b": r"\x00", "c": r"\xff"}, True),
    ],
)
def test_forms(body: bytes, value: dict[str, str], is_marked: bool) -> None:
    read = read_form(body)
    assert read.value == value
    assert read.notes == ((REPLACED,) if is_marked else ())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty body"),
        (b"  ", "empty body"),
        (b"&".join(b"%d=1" % n for n in range(FORM_FIELDS_LIMIT + 1)), "not a form of at most 1000 fields"),
    ],
)
def test_refused_forms(body: bytes, reason: str) -> None:
    with pytest.raises(BadPayload) as refused:
        read_form(body)
    assert refused.value.reason == reason


def test_a_form_at_the_limit() -> None:
    assert len(read_form(b"&".join(b"%d=1" % n for n in range(FORM_FIELDS_LIMIT))).value) == FORM_FIELDS_LIMIT


@pytest.mark.parametrize(
    "body", [b"[" + b"[]," * LIMITS.containers + b"[]]", b'{"a":[' + b"{}," * LIMITS.containers + b"1]}"]
)
def test_lists_and_objects_without_end_are_refused_before_they_are_made(body: bytes) -> None:
    with pytest.raises(BadPayload, match="more than 500,000 lists and objects in one body") as refused:
        read_json(body)
    assert refused.value.status == 413
