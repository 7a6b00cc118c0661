"""Whether enough replicas have what is accepted. No I/O: answers of WAIT and the time come in as arguments."""

from __future__ import annotations

from typing import Final

#: A failover takes seconds; what is missing for longer will not come back by itself, and refusing loses pages, too.
MISSING_FOR_MS: Final = 30_000


class Replicas:
    """Counts on `wanted` replicas, until they have been missing at one and the same master for half a minute.

    waived:  nobody waits for them now; they are counted on again as soon as they confirm.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.waived = False
        self._missing_since: int | None = None
        self._master = ""

    @property
    def needed(self) -> int:
        """How many must confirm now."""
        return 0 if self.waived else self.wanted

    def heard(self, stored_on: int, master: str, now: int) -> bool:
        """Take in how many confirmed to `master` (host:port, or ""). True if that is enough."""
        if stored_on >= self.wanted:
            self.waived, self._missing_since = False, None
        elif self._missing_since is None or master != self._master:
            # another master has replicas of its own to come: what the old one was forgiven says nothing about it
            self.waived, self._missing_since = False, now
        elif now - self._missing_since >= MISSING_FOR_MS:
            self.waived = True
        self._master = master
        return stored_on >= self.needed
