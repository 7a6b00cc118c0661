"""What was sent while Redis was away: one file per process, each line fsynced before it counts.

The file holds routing keys, as the records in Redis do, and is for this user's eyes only.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog

from alertrouter.alert import Alert
from alertrouter.record import State
from alertrouter.store.merge import Merge

#: A day of outage at two alerts a second, of 1.5 kB each. A journal without bounds would fill the disk of the node.
MOST_BYTES = 256 * 1024 * 1024
_MOST_LINES_PER_WRITE = 512
_log = structlog.get_logger()


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """An alert heard at `at`, and where it is about to be sent. Without a destination it is kept by the rules."""

    number: int
    at: int
    alert: Alert
    destination: str = ""
    key: str = ""
    dedup_key: str = ""

    def __repr__(self) -> str:
        """Without the routing key, which is a secret."""
        return f"Begun({self.number}, {self.alert.id!r}, {self.destination!r})"


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """What PagerDuty was told by `number`; NOTHING where it surely was not. Without this line nobody knows."""

    number: int
    told: State


class Entry(msgspec.Struct, frozen=True):
    """What was begun and how it ended; None where nobody knows."""

    begun: Begun
    told: State | None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Begun | Ended).decode


class Journal:
    """The file of one process in `folder`, and those that dead processes left there."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder
        self._path = folder / f"{owner}.jsonl"
        self._file: int | None = None
        self._number = 0
        self._size = 0
        self._writing = Merge(self._append, most=_MOST_LINES_PER_WRITE)

    def next_number(self) -> int:
        """A number for what is about to be begun."""
        self._number += 1
        return self._number

    def open(self) -> None:
        """Make the file. OSError where it cannot be made; appending tries again."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # falls with the process: then the file is anybody's
            self._file = file

    async def append(self, line: Begun | Ended) -> None:
        """Write and fsync, together with whatever else waits. OSError where the disk does not take it."""
        await self._writing.put([_encode(line) + b"\n"])

    async def _append(self, lines: Sequence[bytes]) -> Sequence[None]:
        await asyncio.to_thread(self._write, b"".join(lines))
        return [None] * len(lines)

    def _write(self, data: bytes) -> None:
        self.open()
        assert self._file is not None
        if self._size + len(data) > MOST_BYTES:
            raise OSError(f"the journal {self._path} has reached its bound of {MOST_BYTES} bytes")
        try:
            written = os.write(self._file, data)
            if written < len(data):
                raise OSError(f"the disk took {written} of {len(data)} bytes")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)  # half a line would spoil the next one
            raise
        self._size += len(data)

    @property
    def size(self) -> int:
        """Bytes of this process's file: 0 when all of it has been taken in."""
        return self._size

    def read(self) -> list[Entry]:
        """What this process wrote, oldest first."""
        return _entries(self._path) if self._size else []

    def forget(self, size: int) -> bool:
        """Empty the file if it is still of that size; False if more was written meanwhile. Not while appending."""
        if self._size != size:
            return False
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.fsync(self._file)
            self._size = 0
        return True

    def others(self) -> list[Path]:
        """Files of other processes; those of the dead are to be adopted."""
        return sorted(path for path in self._folder.glob("*.jsonl") if path != self._path)

    @contextmanager
    def adopting(self, path: Path) -> Iterator[list[Entry]]:
        """The entries of a dead process's file, which is gone when the block ends well. None of a living one's."""
        try:
            file = os.open(path, os.O_RDWR)
        except OSError as error:
            _log.error("a journal cannot be read", file=str(path), error=str(error))
            yield []
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield []
        else:
            yield _entries(path)
            path.unlink(missing_ok=True)
        finally:
            os.close(file)

    def close(self) -> None:
        """Give the file up; an empty one is removed."""
        if self._file is not None:
            if not self._size:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def _entries(path: Path) -> list[Entry]:
    """What a file says. The end of a line that was cut short was never confirmed to anybody."""
    begun: dict[int, Begun] = {}
    told: dict[int, State] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                _log.error("a line of the journal cannot be read", file=str(path), line=number, error=str(error))
                continue
            if isinstance(entry, Begun):
                begun[entry.number] = entry
            else:
                told[entry.number] = entry.told
    ordered = sorted(begun.values(), key=lambda each: (each.at, each.number))
    return [Entry(each, told.get(each.number)) for each in ordered]
