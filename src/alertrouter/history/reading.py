"""Files of the history, read back in the order of time. What cannot be read is counted and named, never passed over."""

from __future__ import annotations

import gzip
import heapq
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import msgspec

from alertrouter.alert import Alert
from alertrouter.errors import BadPayload
from alertrouter.history.entries import (
    Differed,
    Duplicate,
    Ended,
    Happened,
    LetterMoved,
    Sent,
    SilenceAdded,
    SilenceEnded,
)
from alertrouter.sources import Parser, find_parser

STANDARD_INPUT = Path("-")
#: What was heard past Redis is put down when Redis is back, later than what came after it.
_LATE_MS = 15 * 60_000
#: At most so many lines are held to put late ones in their place.
_HELD = 20_000

T = TypeVar("T")


class Recorded(Happened, frozen=True, gc=False, omit_defaults=True, tag="heard", kw_only=True):
    """What was heard, its alert read. `news` is what it was when it was recorded; "" where nobody said."""

    alert: Alert
    id: str = ""
    news: str = ""
    version: int = 0
    outcome: str = ""
    reason: str = ""


class _Webhook(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="webhook", kw_only=True):
    """A body as a sender posted it, for recordings that are not ours."""

    at: int
    source: str
    body: Any


Line = Recorded | Duplicate | Ended | Sent | Differed | LetterMoved | SilenceAdded | SilenceEnded
_decode: Callable[[bytes], Line | _Webhook] = cast(Any, msgspec.json.Decoder(Line | _Webhook).decode)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A line that cannot be read. place: file:line."""

    place: str
    reason: str


def files_in(paths: Iterable[Path]) -> list[Path]:
    """The files behind `paths`: a folder stands for its *.jsonl and *.jsonl.gz files."""
    found: list[Path] = []
    for path in paths:
        found += sorted([*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")]) if path.is_dir() else [path]
    return found


def total_bytes(files: Iterable[Path]) -> int | None:
    """How many bytes there are to read, as they are on disk; None where nobody can tell."""
    files = list(files)
    return None if STANDARD_INPUT in files else sum(path.stat().st_size for path in files)


def read(
    files: Iterable[Path],
    damaged: Callable[[Damaged], None],
    advance: Callable[[int], None] = lambda _: None,
    parser_of: Callable[[str], Parser] = find_parser,
) -> Iterator[Line]:
    """The lines of `files`, by time, equal ones once. `advance` is told of bytes read. Raises OSError.

    Each file is taken to be in order but for lines that are up to 15 minutes late.
    """
    with ExitStack() as stack:
        streams = [_in_order(_lines(path, _open(path, stack), damaged, advance, parser_of)) for path in files]
        yield from _without_repeats(heapq.merge(*streams, key=attrgetter("at")) if len(streams) > 1 else streams[0])


def _open(path: Path, stack: ExitStack) -> tuple[BinaryIO, Callable[[], int]]:
    """The file, and how far into it on disk we are."""
    if path == STANDARD_INPUT:
        return sys.stdin.buffer, lambda: 0
    raw = stack.enter_context(path.open("rb"))
    if path.suffix == ".gz":
        return cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=raw))), raw.tell
    return raw, raw.tell


def _lines(
    path: Path,
    opened: tuple[BinaryIO, Callable[[], int]],
    damaged: Callable[[Damaged], None],
    advance: Callable[[int], None],
    parser_of: Callable[[str], Parser],
) -> Iterator[Line]:
    file, tell = opened
    name = "standard input" if path == STANDARD_INPUT else str(path)
    read = 0
    number = 0
    try:
        for number, line in enumerate(file, 1):
            if not number % 256:
                now = tell()
                advance(now - read)
                read = now
            if line.isspace():
                continue
            try:
                found = _decode(line)
                if isinstance(found, _Webhook):
                    yield from _posted(found, parser_of)
                else:
                    yield found
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, BadPayload) as error:
                damaged(Damaged(f"{name}:{number}", str(error)))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:  # what is left of a compressed file cannot be had
        damaged(Damaged(f"{name}:{number + 1}", str(error)))
    advance(tell() - read)


def _posted(webhook: _Webhook, parser_of: Callable[[str], Parser]) -> list[Recorded]:
    """The alerts of a body. Raises BadPayload, also where only some of them cannot be read."""
    payload = parser_of(webhook.source)(msgspec.json.encode(webhook.body), {}, webhook.source)
    if payload.skipped:
        raise BadPayload("; ".join(each.reason for each in payload.skipped))
    return [Recorded(at=webhook.at, id=alert.id, alert=alert) for alert in payload.alerts]


def _in_order(lines: Iterator[Line]) -> Iterator[Line]:
    held: list[tuple[int, int, Line]] = []
    newest = 0
    for number, line in enumerate(lines):
        newest = max(newest, line.at)
        heapq.heappush(held, (line.at, number, line))
        while held and (held[0][0] < newest - _LATE_MS or len(held) > _HELD):  # a time before 1970 leaves none
            yield heapq.heappop(held)[2]
    while held:
        yield heapq.heappop(held)[2]


def _without_repeats(lines: Iterable[Line]) -> Iterator[Line]:
    """Files of two replicas tell the same. What stands at the same place of the stream, and is of the same alert, is one."""
    at, seen = -1, set[tuple[str, str]]()
    for line in lines:
        if line.at != at:
            at = line.at
            seen.clear()
        if line.entry:
            key = (line.entry, line.id)
            if key in seen:
                continue
            seen.add(key)
        yield line
