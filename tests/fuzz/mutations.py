"""What is done to a sound text to break whoever reads it: its grammar, its bytes, its encoding. Pure, and fast.

A text is taken apart once; a mutation of it is then a few slices. All chance comes from the Random handed in.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: Start and end of a part of a text.
Span = tuple[int, int]

#: JSON values that no sender should send, and some do.
VALUES: tuple[bytes, ...] = (
    *(
        b"null",
        b"true",
        b"false",
        b"{}",
        b"[]",
        b'""',
        b'" "',
        b'"\\t\\n"',
        b"[[]]",
        b"[null]",
        b'{"":""}',
        b"[[[{}]]]",
    ),
    # numbers without end, without sense, and just past what 32, 53 and 64 bits hold
    *(b"0", b"-0", b"-1", b"1e400", b"-1e400", b"1e-400", b"0.1e1", b"1E+2", b"NaN", b"Infinity", b"-Infinity"),
    *(b"2147483648", b"9007199254740993", b"9223372036854775808", b"18446744073709551616", b"-9223372036854775809"),
    *(b"1" + b"0" * 30, b"9" * 400, b"9" * 5000, b"01", b"+1", b"0x10", b"1_000", b"1.", b".5", b"--1"),
    # times: s, ms, us, ns, as texts, before and after all calendars
    *(b"1799550000", b"1799550000000", b"1799550000000000", b"1799550000000000000", b"1799550000.123", b"-62135596800"),
    *(b'"1799550000"', b'"1799550000000"', b'"-1"', b'"1.5e9"', b'"253402300800"', b'"0001-01-01T00:00:00Z"'),
    *(b'"0000-00-00T00:00:00Z"', b'"9999-12-31T23:59:59.999999999Z"', b'"10000-01-01T00:00:00Z"'),
    *(
        b'"2027-02-30T25:61:61Z"',
        b'"2027-01-10T03:00:00"',
        b'"2027-01-10T03:00:00+99:99"',
        b'"2027-01-10 03:00:00 UTC"',
    ),
    *(b'"2027-01-10T03:00:00.123456789123Z"', b'"2027-W02-7T03:00:00Z"', b'"0001-01-01T00:00:00-23:59"'),
    *(
        b'"9999-12-31T23:59:59-23:59"',
        '"\uff12\uff10\uff12\uff17-01-10T03:00:00Z"'.encode(),
        b'"Sun, 10 Jan 2027 03:00:00 GMT"',
    ),
    # what templates leave behind
    *(
        b'"null"',
        b'"None"',
        b'"undefined"',
        b'"$ALERT_ID"',
        b'"$ALERT_TRANSITION"',
        b'"{{ .Labels }}"',
        b'"[no value]"',
    ),
    *(b'"<no value>"', b'"%s%n%x"', b'"${jndi:ldap://x/}"', b'"{{ 7 * 7 }}"', b'"&lt;b&gt;&amp;#0;&quot;"', b'"=1+1"'),
    # characters: lone halves, wrong order, controls, orders of direction, zero width, those whose case changes their length
    *(
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\u0000"',
        b'"\\u001b[2J"',
        b'"\\u202e\\u2066"',
        b'"\\ufeff"',
        b'"\\uffff"',
    ),
    *(
        '"İßŉﬃ"'.encode(),
        '"\U0001f469\u200d\U0001f692"'.encode(),
        b'"' + "e\u0301".encode() * 300 + b'"',
        b'"\\r\\nX: y"',
    ),
    *(
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\x00"',
        b'"\x1b"',
        b'"\\x"',
        b'"\\u12"',
    ),
    # addresses
    *(
        b'"javascript:alert(1)"',
        b'"http://[::1"',
        b'"http://u:p@h/"',
        b'"https://h:99999/"',
        b'"//h"',
        b'"http://\\u0130/"',
    ),
    *(b'"http://h/\\ud800?%zz#\\u0000"', b'"http://' + b"a" * 300 + b'.example/"', b'"https://xn--/"', b'"http:// h/"'),
    # around the limits of a key, a summary, a body
    *(b'"' + b"k" * size + b'"' for size in (64, 241, 242, 243, 254, 255, 256, 1023, 1024, 1025)),
    *(b'"' + "é".encode() * 255 + b'"', b'"' + "\U0001f4a5".encode() * 1025 + b'"'),
    # words that mean something to somebody
    *(
        b'"firing"',
        b'"resolved"',
        b'"FIRING "',
        b'"Triggered"',
        b'"Recovered"',
        b'"critical"',
        b'"P1"',
        b'"ok"',
        b'"OK"',
    ),
    *(
        b'"acknowledge"',
        b'"test"',
        b'"__proto__"',
        b'"constructor"',
        b'"a:b"',
        b'"a=b"',
        b'","',
        b'"self"',
        b'"digest"',
    ),
)

#: The same, but each costs as much as a hundred of the others, so they are drawn more seldom.
LARGE: tuple[bytes, ...] = (
    *(b'"' + b"x" * 10_000 + b'"', b'"' + "ж".encode() * 10_000 + b'"', b'"' + b"\\u0001" * 2_000 + b'"'),
    *(b'"' + b"a " * 20_000 + b'"', b'"' + b"<b>" * 3_000 + b'"', b'"' + b"x" * 600_000 + b'"'),
    *(b"[" * depth + b"]" * depth for depth in (19, 20, 21, 61, 62, 63, 64, 65, 1_000, 10_000)),
    *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (20, 62, 64, 1_000)),
    *(b"[" + b"{}," * 500 + b"{}]", b"{" + b",".join(b'"k%d":%d' % (n, n) for n in range(500)) + b"}", b"9" * 20_000),
    *(b"[" * 100_000, b'{"a":' * 50_000),
)

#: Bytes to put into the middle of anything.
FRAGMENTS: tuple[bytes, ...] = (
    *(
        b"\x00",
        b"\xff",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xf5",
        b"\x1b[31m",
        b"\r\n",
        b"\r",
    ),
    *(
        b'"',
        b"'",
        b"\\",
        b"\\u",
        b"\\u0000",
        b"\\ud800",
        b"\\udfff",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"&",
        b"=",
        b";",
    ),
    *(
        b"%00",
        b"%",
        b"%ED%A0%80",
        b"+",
        b"#",
        b"//",
        b"/*",
        b"$",
        b"${",
        b"{{",
        b"&amp;",
        b"<",
        b"\xe2\x80\xae",
        b"\xc2\x85",
    ),
    *(b"\xe2\x80\xa8", b" " * 100, b"\t", b"\n\n", b"NaN", b"-", b"0", b"e9", b"9" * 20, b"A" * 300),
)

_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_FIELD = re.compile(rb"[^&=\s]+")
_WORD = re.compile(rb"'(?:[^'\\]|\\.)*'|[\w.]+|[^\w\s]+")
_LINE = re.compile(rb"[^\n]*\n")
_YAML_KEY = re.compile(rb"[\w-]+(?=:)")
_YAML_VALUE = re.compile(rb"(?<=: )[^\n#]+|[^\s:{}\[\],]+")
_ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "utf-7")


@dataclass(frozen=True, slots=True)
class Parts:
    """A text, and where its parts are. Lists and objects are values, and members of theirs are with their name.

    removable:  each member or item with one comma beside it.
    comma:      what stands between two members.
    """

    text: bytes
    values: tuple[Span, ...]
    keys: tuple[Span, ...]
    members: tuple[Span, ...]
    removable: tuple[Span, ...]
    comma: bytes = b","


def take_apart(text: bytes) -> Parts:
    """The parts of a JSON text, or of anything else that is made of fields."""
    if text.lstrip()[:1] not in (b"{", b"["):
        fields = _spans(_FIELD, text)
        return Parts(text, fields, fields, fields, fields, b"&")
    reader = _Reader(text)
    reader.value(0)
    return Parts(text, tuple(reader.values), tuple(reader.keys), tuple(reader.members), tuple(reader.removable))


def take_apart_condition(text: bytes) -> Parts:
    """The words of a condition."""
    words = _spans(_WORD, text)
    return Parts(text, words, words, words, words, b" and ")


def take_apart_yaml(text: bytes) -> Parts:
    """The words, keys and lines of a YAML file."""
    lines = _spans(_LINE, text)
    return Parts(text, _spans(_YAML_VALUE, text), _spans(_YAML_KEY, text), lines, lines, b"")


def _spans(pattern: re.Pattern[bytes], text: bytes) -> tuple[Span, ...]:
    return tuple(match.span() for match in pattern.finditer(text))


class _Reader:
    """Walks over the tokens of a sound JSON text."""

    def __init__(self, text: bytes) -> None:
        self.tokens = [match.span() for match in _JSON_TOKEN.finditer(text)]
        self.text = text
        self.values: list[Span] = []
        self.keys: list[Span] = []
        self.members: list[Span] = []
        self.removable: list[Span] = []

    def value(self, at: int) -> int:
        """Note the value whose first token is at `at`, and all in it; returns the token after it."""
        start, end = self.tokens[at]
        opening = self.text[start:end]
        if opening not in (b"{", b"["):
            self.values.append((start, end))
            return at + 1
        at += 1
        inside: list[Span] = []
        while self._word(at) not in (b"}", b"]"):
            begins = self.tokens[at][0]
            if opening == b"{":
                self.keys.append(self.tokens[at])
                at += 2
            at = self.value(at)
            inside.append((begins, self.tokens[at - 1][1]))
            if self._word(at) == b",":
                at += 1
        self._note(inside)
        self.values.append((start, self.tokens[at][1]))
        return at + 1

    def _note(self, inside: list[Span]) -> None:
        self.members += inside
        for number, (begins, ends) in enumerate(inside):
            if number:
                self.removable.append((inside[number - 1][1], ends))
            else:
                self.removable.append((begins, inside[1][0] if len(inside) > 1 else ends))

    def _word(self, at: int) -> bytes:
        start, end = self.tokens[at]
        return self.text[start:end]


class Mutator:
    """Makes mutations of texts. `values` and `keys` of all of them may turn up in each of them.

    nasty:  what a value is replaced by; `large` seldom.
    """

    def __init__(
        self,
        texts: Iterable[Parts],
        nasty: Sequence[bytes] = VALUES,
        large: Sequence[bytes] = LARGE,
        fragments: Sequence[bytes] = FRAGMENTS,
    ) -> None:
        seeds = list(texts)
        self._values = sorted(
            {seed.text[start:end] for seed in seeds for start, end in seed.values if end - start < 500}
        )
        self._keys = sorted({seed.text[start:end] for seed in seeds for start, end in seed.keys})
        self._nasty = nasty
        self._large = large
        self._fragments = fragments

    def mutate(self, chance: random.Random, parts: Parts) -> bytes:
        """One mutation: mostly of the grammar, often of bytes too, seldom of the encoding of all of it."""
        draw = chance.random()
        text = parts.text
        if draw < 0.8:
            text = self._with_edits(chance, parts)
        if draw > 0.65:
            text = self._with_bytes_changed(chance, text)
        if draw > 0.98:
            text = _encoded_otherwise(chance, text)
        return text

    def _with_edits(self, chance: random.Random, parts: Parts) -> bytes:
        edits = [self._edit(chance, parts) for _ in range(1 + int(3 * chance.random() ** 2))]
        text = parts.text
        before = len(text)
        for start, end, instead in sorted(edits, reverse=True):
            if end <= before:  # an edit within another one is left out
                text = text[:start] + instead + text[end:]
                before = start
        return text

    def _edit(self, chance: random.Random, parts: Parts) -> tuple[int, int, bytes]:
        draw = chance.random()
        text = parts.text
        if draw < 0.5 or not parts.keys:
            start, end = _one(chance, parts.values)
            return start, end, self._value(chance, text[start:end])
        if draw < 0.65:
            return (*_one(chance, parts.removable), b"")
        if draw < 0.8:  # a name or an item twice, the second time perhaps with something else
            start, end = _one(chance, parts.members)
            member = text[start:end]
            name, colon, value = member.partition(b":")
            again = name + colon + self._value(chance, value) if colon and chance.random() < 0.5 else member
            return end, end, parts.comma + again
        if draw < 0.9:
            return (*_one(chance, parts.keys), self._key(chance))
        start, end = _one(chance, parts.members)
        return end, end, parts.comma + self._key(chance) + b":" + self._value(chance, b"1")

    def _value(self, chance: random.Random, value: bytes) -> bytes:
        draw = chance.random()
        if draw < 0.4:
            return _one(chance, self._nasty)
        if draw < 0.42 and self._large:
            return _one(chance, self._large)
        if draw < 0.6:
            return _one(chance, self._values)
        if draw < 0.65:
            return b"[" + value + b"]"
        if draw < 0.7:
            return b'{"a":' + value + b"}"
        if draw < 0.75:
            return value.strip(b'"')
        if draw < 0.8:
            return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
        at = int(chance.random() * (len(value) + 1))
        return value[:at] + _one(chance, self._fragments) + value[at:]

    def _key(self, chance: random.Random) -> bytes:
        return _one(chance, self._keys) if chance.random() < 0.7 else _one(chance, self._nasty)

    def _with_bytes_changed(self, chance: random.Random, text: bytes) -> bytes:
        for _ in range(1 + int(4 * chance.random() ** 2)):
            draw = chance.random()
            at = int(chance.random() * (len(text) + 1))
            if draw < 0.3:
                text = text[:at] + _one(chance, self._fragments) + text[at:]
            elif draw < 0.5:
                text = text[:at] + bytes((int(chance.random() * 256),)) + text[at + 1 :]
            elif draw < 0.65:
                text = text[:at] + text[at + int(chance.random() ** 3 * 60) :]
            elif draw < 0.8:
                text = text[: at + int(chance.random() * 40)] + text[at:]
            elif draw < 0.9:
                text = (
                    text[:at] + bytes((text[at] ^ 1 << int(chance.random() * 8),)) + text[at + 1 :]
                    if text[at:]
                    else text
                )
            else:
                text = text[:at]
        return text


def _encoded_otherwise(chance: random.Random, text: bytes) -> bytes:
    if chance.random() < 0.2:
        return b"\xef\xbb\xbf" + text
    encoding = _one(chance, _ENCODINGS)
    return text.decode(errors="replace").encode(encoding, errors="replace")


def _one(chance: random.Random, among: Sequence[T]) -> T:
    return among[int(chance.random() * len(among))]
