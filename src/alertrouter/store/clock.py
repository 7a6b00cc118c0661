"""What time it is for everything that waits: the same for all replicas, and never set, whoever sets his clock.

Timers (leases, retries, windows, silence) run on *our time*: the monotonic clock plus an offset on which all replicas of
an installation agree through Redis. It is Redis' TIME as long as nobody sets that clock. Where somebody does, our time
goes on as if nothing had happened, and how far it is ahead of Redis' is remembered beside the data. Rules ask for the
time of day, which is Redis' own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from alertrouter.store.store import OWNER_DEAD_AFTER_MS, AlertStore

#: Clocks that are steered differ less than this between two looks; more is a clock that was set.
TOLERANCE_MS = 1_000
#: While our time is ahead of Redis', or behind, it goes that much slower or faster: a fiftieth. A POST that is begun
#: with 11 s left of its lease still ends before it.
SLEW = 50
#: An answer that took longer says too little about when Redis looked at its clock.
_TOO_SLOW_MS = 500
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Agreement:
    """What replicas agree on.

    ahead:  our time less Redis' TIME, in ms; not 0 only after somebody set Redis' clock.
    at:     the latest time (ms, ours) that any replica has put down: it was never later for anybody.
    """

    ahead: int = 0
    at: int = 0

    @classmethod
    def read(cls, text: str) -> Agreement:
        """From what is stored; nothing was agreed on where nothing is, or nothing that we can read."""
        ahead, _, at = text.partition(" ")
        try:
            return cls(int(ahead), int(at))
        except ValueError:
            return cls()

    def __str__(self) -> str:
        return f"{self.ahead} {self.at}"


def agree(known: Agreement, redis_time: int, mine: int | None) -> Agreement:
    """What to agree on now, from what was agreed on before, Redis' TIME, and our time by this process' own reckoning.

    All in ms; `mine` is None for a process that has not agreed on anything yet.

    | Redis' clock says                    | who asks                          | our time goes on     |
    | what was to be expected              | anybody                           | with Redis' clock    |
    | something else: it was set           | has reckoned it from before       | by that reckoning    |
    | something later                      | was stopped meanwhile: others have| with theirs          |
    |                                      | put down a later time than its own|                      |
    | something later                      | new, and nobody has been there    | with Redis' clock:   |
    |                                      | for as long as leases last        | that is how long     |
    | less than anybody has put down       | anybody                           | from what was put    |
    |                                      |                                   | down: never back     |
    """
    now = redis_time + known.ahead
    if mine is not None:
        was_set = abs(now - mine) > TOLERANCE_MS
        was_stopped = known.at > mine + TOLERANCE_MS
        if was_set and not was_stopped:
            now = mine
    elif now > known.at + OWNER_DEAD_AFTER_MS:
        now = redis_time
    now = max(now, known.at)
    ahead = now - redis_time
    passed = now - known.at if known.at else 0
    nearer = min(abs(ahead), passed // SLEW)
    return Agreement(ahead - nearer if ahead > 0 else ahead + nearer, now - nearer if ahead > 0 else now + nearer)


class RedisClock:
    """Our time, in ms. Until it is `agreed` it is this machine's own."""

    def __init__(self, monotonic: Callable[[], int] | None = None, wall: Callable[[], int] | None = None) -> None:
        """The machine's clocks, in ms; the wall clock is only compared."""
        self._monotonic = monotonic or _monotonic_ms
        self._wall = wall or _wall_ms
        self._offset = self._wall() - self._monotonic()
        self.agreed = False
        self.ahead = 0
        self.skew = 0

    def __call__(self) -> int:
        return self._monotonic() + self._offset

    async def keep(self, store: AlertStore) -> bool:
        """Agree with the other replicas; True if Redis' clock was set since the last time.

        `ahead` is then our time less Redis', `skew` how far this machine's wall clock is from Redis'.
        """
        for _ in range(_TRIES):
            known = await store.agreement()
            before = self._monotonic()
            redis_time = await store.time()
            after = self._monotonic()
            if self.agreed and after - before > _TOO_SLOW_MS:
                return False
            then = (before + after) // 2
            new = agree(Agreement.read(known), redis_time, then + self._offset if self.agreed else None)
            if await store.put_agreement(known, str(new)):
                was_set = self.agreed and abs(new.ahead - self.ahead) > TOLERANCE_MS
                self._offset = redis_time + new.ahead - then
                self.agreed, self.ahead = True, new.ahead
                self.skew = self._wall() - (self._monotonic() + self._offset - self.ahead)
                return was_set
        return False  # others were quicker each time: theirs is as good, at the next beat


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
