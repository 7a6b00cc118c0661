"""Addresses of names while nobody can be asked: a cluster whose DNS is down is about to page, and must reach PagerDuty."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiohttp.abc import AbstractResolver, ResolveResult

#: How long an answer may stand in for the next one. Certificates are verified, so an old address can only fail.
LAST_ANSWER_S = 3600.0
#: How long DNS may take where there is an answer to fall back on: less than a connection may take in all, and less than
#: the five seconds after which resolvers ask again, https://man7.org/linux/man-pages/man5/resolv.conf.5.html
PATIENCE_S = 1.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Answer:
    addresses: list[ResolveResult]
    at: float


class LastAnswers(AbstractResolver):
    """Asks `resolver`; where it fails or is slow, its last answer stands in for an hour.

    clock: seconds that never go back.
    """

    def __init__(self, resolver: AbstractResolver, clock: Callable[[], float]) -> None:
        self._resolver = resolver
        self._clock = clock
        self._answers: dict[tuple[str, int, int], _Answer] = {}
        self._standing_in: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError where there are none, and none that stand in."""
        name = (host, port, int(family))
        last = self._answers.get(name)
        if last is not None and self._clock() - last.at > LAST_ANSWER_S:
            last = None
        try:
            async with asyncio.timeout(None if last is None else PATIENCE_S):
                found = await self._resolver.resolve(host, port, family)
        except OSError:  # a TimeoutError is an OSError
            if last is None:
                raise
            if host not in self._standing_in:
                self._standing_in.add(host)
                _log.warning("a name cannot be resolved; its last addresses are used for an hour", host=host)
            return last.addresses
        self._answers[name] = _Answer(found, self._clock())
        self._standing_in.discard(host)
        return found

    async def close(self) -> None:
        """Close the resolver."""
        await self._resolver.close()
