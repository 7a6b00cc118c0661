"""Bytes to values: JSON as lenient as is safe, and flat forms.

Whatever is returned can be encoded by msgspec again, however broken it arrived: no lone surrogate, no NaN, no number
without end, nothing nested deeper than DEPTH_LIMIT.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import msgspec

from alertrouter.errors import BadPayload
from alertrouter.limits import LIMITS

#: Lists and objects inside one another. Senders need six; encoders and rules recurse, so there is an end.
DEPTH_LIMIT = LIMITS.depth

#: Datadog knows some 60 variables; a form with a thousand fields is no alert.
FORM_FIELDS_LIMIT = 1000

#: CPython converts no longer text to int or back (sys.set_int_max_str_digits).
_INT_DIGITS_LIMIT = 4300

FORM = "application/x-www-form-urlencoded"

REPLACED = "some characters of the body were not valid text and were replaced by their codes, such as \\xff"

#: Lone surrogates cannot be encoded; NUL ends strings in C and is refused by databases; the others, ESC above all,
#: are commands to a terminal. Tab, newline and return are text.
_UNFIT = re.compile("[\x00-\x07\x0b\x0e-\x1f\ud800-\udfff]")
#: Each by a code of its own, for identities are made of texts: what differs in them must differ in these, too.
_CODES = {
    **{code: f"\\x{code:02x}" for code in (*range(0x08), 0x0B, *range(0x0E, 0x20))},
    **{code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)},
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)},  # so Python decodes a byte that is not UTF-8
}

LONGEST_CODE = max(map(len, _CODES.values()))

_CONTAINERS = frozenset((dict, list))

_TOO_DEEP = f"nested deeper than {DEPTH_LIMIT} levels"


@dataclass(frozen=True, slots=True)
class Body:
    """A decoded body. `value` is what JSON can say: dict, list, str, int, float, bool or None."""

    value: Any
    notes: tuple[str, ...] = ()


def read_json(body: bytes) -> Body:
    r"""The value of a JSON body. Raises BadPayload with the reason and the place.

    Bytes that are not UTF-8 and lone surrogates become codes, such as \xff; a byte order mark of UTF-8 or UTF-16 is heeded.
    """
    # in strings they are counted, too, and in UTF-16 each of them is one such byte
    containers = body.count(b"{") + body.count(b"[")
    if containers > LIMITS.containers:
        raise BadPayload(f"more than {LIMITS.containers:,} lists and objects in one body", status=413)
    try:
        value = msgspec.json.decode(body)
        # control characters can hide only in escapes of these two forms: raw ones are not JSON
        is_clean = b"\\u000" not in body and b"\\u001" not in body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _read_json_leniently(body)
        is_clean = False
    if containers > DEPTH_LIMIT and _is_deeper(value, DEPTH_LIMIT):
        raise BadPayload(_TOO_DEEP)
    return Body(value) if is_clean else _fit(value)


def is_form(content_type: str, body: bytes) -> bool:
    """True for a form. `curl -d '{...}'` claims to be one, so a body that starts like JSON is not."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == FORM and body.lstrip()[:1] not in (b"{", b"[")


def read_json_only(body: bytes, headers: Mapping[str, str]) -> Body:
    """`read_json`, of a sender that posts nothing else: a form is refused as what it is."""
    if is_form(headers.get("content-type", ""), body):
        raise BadPayload("a form; this sender posts JSON")
    return read_json(body)


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value, fit to be kept: bytes that are no text arrive as lone surrogates. "" where there is none."""
    return fit_text(headers.get(name, "")).strip()


def fit_text(text: str) -> str:
    r"""The text with codes, such as \x1b, for what encoders refuse and terminals obey."""
    return text.translate(_CODES) if _UNFIT.search(text) else text


def read_text(body: bytes) -> Body:
    """A body that is plain text; codes and byte order marks as in `read_json`."""
    return _fit(_decode(body)[2])


def read_form(body: bytes) -> Body:
    """The fields of a flat form as a dict of texts; of a repeated field the last. Raises BadPayload."""
    if not body.strip():
        raise BadPayload("empty body")
    try:
        fields = parse_qsl(
            body.decode("utf-8", "surrogateescape"),
            keep_blank_values=True,
            errors="surrogateescape",
            max_num_fields=FORM_FIELDS_LIMIT,
        )
    except ValueError as error:
        raise BadPayload(f"not a form of at most {FORM_FIELDS_LIMIT} fields") from error
    return _fit(dict(fields))


def _read_json_leniently(body: bytes) -> Any:
    encoding, errors, text = _decode(body)
    if not text or text.isspace():
        raise BadPayload("empty body")
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_int_or_text, parse_float=_float_or_text)
    except json.JSONDecodeError as error:
        place = len(body) - len(text[error.pos :].encode(encoding, errors))
        reason = error.msg.removesuffix(" at")
        raise BadPayload(f"not JSON: {reason} at byte {place}") from error
    except RecursionError as error:
        raise BadPayload(_TOO_DEEP) from error


def _decode(body: bytes) -> tuple[str, str, str]:
    """The encoding, its way with errors, and the text, in which lone surrogates stand for what was broken."""
    if body.startswith(BOM_UTF16_LE):
        return "utf-16-le", "surrogatepass", body[2 : len(body) // 2 * 2].decode("utf-16-le", "surrogatepass")
    if body.startswith(BOM_UTF16_BE):
        return "utf-16-be", "surrogatepass", body[2 : len(body) // 2 * 2].decode("utf-16-be", "surrogatepass")
    return "utf-8", "surrogateescape", body.removeprefix(BOM_UTF8).decode("utf-8", "surrogateescape")


def _refuse_constant(name: str) -> NoReturn:
    raise BadPayload(f"not JSON: {name} is no JSON number")


def _int_or_text(digits: str) -> int | str:
    return int(digits) if len(digits) <= _INT_DIGITS_LIMIT else digits


def _float_or_text(digits: str) -> float | str:
    number = float(digits)
    return digits if number in (float("inf"), float("-inf")) else number


def _fit(value: Any) -> Body:
    fitted = _without_unfit(value)
    return Body(value) if fitted == value else Body(fitted, (REPLACED,))


def _without_unfit(value: Any) -> Any:
    if isinstance(value, str):
        return fit_text(value)
    if isinstance(value, list):
        return [_without_unfit(item) for item in value]
    if isinstance(value, dict):
        return {fit_text(key): _without_unfit(item) for key, item in value.items()}
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    """True if more than `limit` lists and objects lie inside one another. Level by level, so no recursion."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) in _CONTAINERS
        ]
    return bool(level)
