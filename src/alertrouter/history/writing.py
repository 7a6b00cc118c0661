"""The history as files: a new one each day, and when one is full; old ones are removed. Off the hot path.

The stream in Redis is the queue: it is bounded, it outlives a kill, and what one process does not write the next one
does. Nothing that accepts or sends waits for a disk.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from alertrouter import telemetry
from alertrouter.errors import StoreUnavailable
from alertrouter.history.entries import encode, entries_of

#: Bytes after which a day's file is full and the next one is begun.
MOST_BYTES = 64 * 1024 * 1024
_BATCH = 256
_LOOK_EVERY_S = 0.5
#: Writing may take this share of the time: what is accepted comes first, and the stream waits.
_SHARE = 0.1
_TRY_AGAIN_S = 2.0
_DAY_MS = 24 * 3600 * 1000
#: The tail of a file in which its last whole line is looked for: longer than any entry.
_TAIL = 16 * 1024 * 1024

_log = structlog.get_logger()


class Extent(Protocol):
    """How much is in the stream, and how much ever was."""

    @property
    def length(self) -> int: ...

    @property
    def added(self) -> int: ...


class HistoryFiles:
    """The files of one folder, of which this process is the only writer while it holds the lock.

    They are named history-<day, UTC>.<number>.jsonl, so that their names sort by time.
    """

    def __init__(self, folder: Path, *, retention_ms: int, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._retention_ms = retention_ms
        self._most_bytes = most_bytes
        self._lock = -1

    def own(self) -> bool:
        """Take the folder, or say that another process writes there. Raises OSError."""
        if self._lock < 0:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            self._lock = lock
        return True

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def all(self) -> list[Path]:
        """The files, oldest first."""
        return sorted(self._folder.glob("history-*.jsonl"))

    def last_entry(self) -> str:
        """Where in the stream the last whole line stands; "" for nowhere. What a kill left of a line is cut off."""
        for path in reversed(self.all()):
            with path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(0, size - _TAIL)
                file.seek(start)
                tail = file.read()
                whole = tail.rfind(b"\n") + 1
                if whole < len(tail):
                    file.truncate(start + whole)
            for line in reversed(tail[:whole].splitlines()):
                with suppress(msgspec.MsgspecError):
                    return msgspec.json.decode(line, type=_Place).entry
        return ""

    def append(self, lines: Iterable[tuple[str, bytes]]) -> None:
        """Write lines, each with the day (UTC) it belongs to. All or none of a day's. Raises OSError."""
        for day, group in groupby(lines, key=lambda each: each[0]):
            path = self._file_for(day)
            data = b"".join(line + b"\n" for _, line in group)
            with path.open("ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                try:
                    written = 0
                    while written < len(data):
                        written += file.write(data[written:])
                except OSError:
                    file.truncate(size)
                    raise

    def _file_for(self, day: str) -> Path:
        of_day = sorted(self._folder.glob(f"history-{day}.*.jsonl"))
        if of_day and of_day[-1].stat().st_size < self._most_bytes:
            return of_day[-1]
        return self._folder / f"history-{day}.{len(of_day):04d}.jsonl"

    def remove_old(self, now: int) -> int:
        """Remove the files of days that ended before `now` (ms) less the retention; returns how many."""
        oldest = f"history-{_day_of(now - self._retention_ms)}"
        old = [path for path in self.all() if path.name < oldest]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)


class HistoryWriter:
    """Writes what comes into the stream to files, until it is cancelled.

    read:     entries after an id ("-" for the first), oldest first, at most so many.  extent: of the stream.
    problem:  why it cannot write now; "" where it can.
    """

    def __init__(
        self,
        files: HistoryFiles,
        read: Callable[[str, int], Awaitable[Sequence[tuple[str, Mapping[str, str]]]]],
        extent: Callable[[], Awaitable[Extent]],
        clock: Callable[[], int],
    ) -> None:
        self._files = files
        self._read = read
        self._extent = extent
        self._clock = clock
        self._last: str | None = None
        self._number: int | None = None  # of the last one written, counted since the stream began
        self._removed_on = ""
        self._has_lost = False
        self.problem = ""

    async def run(self) -> None:
        """Write for as long as the service runs, then let the folder go."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                try:
                    behind = await self.step()
                    self._went_well()
                    pause = (loop.time() - began) * (1 / _SHARE - 1) if behind else _LOOK_EVERY_S
                except StoreUnavailable:
                    pause = _TRY_AGAIN_S
                except OSError as error:
                    self._failed(error)
                    pause = _TRY_AGAIN_S
                await asyncio.sleep(pause)
        finally:
            self._files.close()

    async def step(self) -> bool:
        """Write what is there, up to a batch; whether there may be more. Raises StoreUnavailable, and OSError."""
        if self._last is None and not await self._begin():
            return False
        extent = await self._extent()
        self._count_lost(extent)
        entries = await self._read(f"({self._last}" if self._last else "-", _BATCH)
        if entries:
            await asyncio.to_thread(self._write, entries)
            self._last = entries[-1][0]
            if self._number is not None:
                self._number += len(entries)
        behind = len(entries) == _BATCH
        if not behind:
            self._number = max(self._number or 0, extent.added)
        day = _day_of(self._clock())
        if day != self._removed_on:
            await asyncio.to_thread(self._files.remove_old, self._clock())
            self._removed_on = day
        return behind

    async def _begin(self) -> bool:
        if not await asyncio.to_thread(self._files.own):
            return False  # another replica writes; should it end, this one goes on
        last = await asyncio.to_thread(self._files.last_entry)
        extent = await self._extent()
        if last and not extent.added:
            last = ""  # another Redis than the one that was written about
        if not last:
            self._number = extent.added - extent.length
        self._last = last
        return True

    def _write(self, entries: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        self._files.append(
            (_day_of(int(id_.partition("-")[0])), encode(entry))
            for id_, fields in entries
            for entry in entries_of(id_, fields)
        )
        telemetry.HISTORY_WRITTEN.inc(len(entries))

    def _count_lost(self, extent: Extent) -> None:
        """Count what was trimmed before it was written: the disk was full for too long, or more came than fits."""
        if self._number is None:
            return
        lost = extent.added - extent.length - self._number
        if lost <= 0:
            return
        self._number += lost
        telemetry.HISTORY_LOST.inc(lost)
        if not self._has_lost:
            self._has_lost = True
            _log.error("history was trimmed before it could be written to a file", entries=lost)

    def _failed(self, error: OSError) -> None:
        if not self.problem:
            _log.error("the history cannot be written; it stays in Redis as long as there is room", error=str(error))
        self.problem = error.strerror or str(error)

    def _went_well(self) -> None:
        if self.problem:
            _log.info("the history is written again")
        self.problem = ""


class _Place(msgspec.Struct):
    entry: str


def _day_of(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat()
