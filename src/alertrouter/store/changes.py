"""Change events of one installation: on their way to PagerDuty, and remembered for a while. Every method is one script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from alertrouter.store.keys import Keys

#: So many wait for PagerDuty; further ones are refused. Of a kilobyte as a rule, and of 512 kB at most.
MOST_WAITING = 500
#: What is not settled by then was lost by a worker, or put off: it is tried again.
_LEASE_MS = 15_000
#: Later tries are as far apart as half of its age, and no further than this.
_LONGEST_PAUSE_MS = 10 * 60_000
#: Latest changes of one service, and how long they are worth telling.
MOST_REMEMBERED = 3
REMEMBERED_MS = 60 * 60_000

_Run = Callable[[str, list[str], Sequence[str | int | bytes]], Awaitable[Any]]


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A change event to be forwarded.

    id:      makes it another one than the same posted again.
    at:      when it was posted, in ms.
    source:  the integration that it came by, as of an alert.
    event:   as it was posted, without its routing key.
    """

    id: str
    at: int
    source: str
    event: dict[str, Any]


class Remembered(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A change to tell responders of: when it was made (ms), what it was, and where to read of it."""

    at: int
    summary: str
    href: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Waiting).decode
_decode_remembered = msgspec.json.Decoder(list[Remembered]).decode


class Changes:
    """Raises StoreUnavailable when Redis did not confirm."""

    def __init__(self, run: _Run, keys: Keys) -> None:
        self._run = run
        self._keys = keys

    async def put(self, change: Waiting) -> bool:
        """Take a change in; False where too many wait."""
        return bool(await self._run("put_change", [self._keys.changes], [change.at, _member(change), MOST_WAITING]))

    async def claim(self, now: int, most: int) -> list[Waiting]:
        """Up to `most` that are due, the oldest first. Until they are settled they come back later and later."""
        arguments = [now, _LEASE_MS, _LONGEST_PAUSE_MS, most]
        members = await self._run("claim_changes", [self._keys.changes], arguments)
        return [_decode(member.partition(b"\t")[2]) for member in members]

    async def settle(self, change: Waiting) -> None:
        """It was taken, or refused for good."""
        await self._run("settle_change", [self._keys.changes], [_member(change)])

    async def may_call(self, limited_as: str, calls_per_minute: int, now: int, call: str) -> bool:
        """Whether a change may be sent by a routing key: no page waits for it, and half of its calls are left to pages.

        Counts the call. calls_per_minute: 0 for no limit.
        """
        keys = [self._keys.wait + limited_as, self._keys.calls + limited_as]
        return bool(await self._run("may_send_change", keys, [now, calls_per_minute // 2, call]))

    async def remember(self, service: str, change: Remembered, now: int) -> None:
        """Remember a change for who is paged for the service; "" for what belongs to none."""
        arguments: list[str | int | bytes] = [service, _encode(change), MOST_REMEMBERED, now - REMEMBERED_MS]
        await self._run("remember_change", [self._keys.changed], arguments)

    async def remembered(self) -> dict[str, list[Remembered]]:
        """What is remembered, by service, the latest first."""
        flat = await self._run("remembered_changes", [self._keys.changed], [])
        return {
            service.decode(): _decode_remembered(changes)
            for service, changes in zip(flat[::2], flat[1::2], strict=True)
        }


def _member(change: Waiting) -> bytes:
    return b"%d\t%s" % (change.at, _encode(change))
