"""What alertrouter has acknowledged, on disk before it counts: what may not be lost.

One line per alert: identity, status, episode, severity, first posted at, acknowledged at; times in ms since the epoch.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from alertrouter.alert import Severity, Status


class Heard(NamedTuple):
    """One acknowledged alert.

    identity:  its number; the next of the same identity was posted only after this one was acknowledged.
    episode:   `startsAt`, ms since the epoch.
    posted:    when it was first posted: it may have been stored at any time from then until `acked`.
    """

    identity: int
    status: Status
    episode: int
    severity: Severity
    posted: int
    acked: int

    @property
    def dedup_key(self) -> str:
        """What alertrouter calls it towards PagerDuty."""
        return dedup_key_of(self.identity)


def fingerprint_of(identity: int) -> str:
    """The fingerprint the load generator gives it."""
    return f"{identity:016x}"


def dedup_key_of(identity: int) -> str:
    """The identity's `dedup_key` at PagerDuty."""
    return f"alertmanager:{fingerprint_of(identity)}"


def read_ledger(path: Path) -> Iterator[Heard]:
    """The acknowledged alerts, per identity in the order they were heard. A last line cut short did not count."""
    with path.open() as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            identity, status, episode, severity, posted, acked = line.split()
            yield Heard(int(identity), _STATUS[status], int(episode), _SEVERITY[severity], int(posted), int(acked))


_STATUS = {word.value: word for word in Status}
_SEVERITY = {word.value: word for word in Severity}


def line_of(heard: Heard) -> str:
    """The alert as a line of the ledger."""
    return (
        f"{heard.identity} {heard.status.value} {heard.episode} {heard.severity.value} {heard.posted} {heard.acked}\n"
    )


class Ledger:
    """The file being written. `put` returns once the alerts are on the disk; several wait for the same fsync."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._waiting: list[tuple[Sequence[Heard], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.accepted = 0

    async def put(self, alerts: Sequence[Heard]) -> None:
        """Write the alerts down; `accepted` counts them once they are safe."""
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((alerts, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            self._file.write(_encode(alert for alerts, _ in group for alert in alerts))
            await asyncio.to_thread(os.fsync, self._file.fileno())
            for alerts, done in group:
                self.accepted += len(alerts)
                done.set_result(None)
        self._writing = None

    def close(self) -> None:
        """Close the file; nothing may be waiting."""
        self._file.close()


def _encode(alerts: Iterable[Heard]) -> bytes:
    return "".join(map(line_of, alerts)).encode()
