"""The dead letters of one installation: read, bounded, put back, let go of. Every method is one script.

Settling, taking leases back and burying write them; see those scripts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from alertrouter.letter import Found, Letter, Standing, encode, read
from alertrouter.store.keys import Keys

#: Letters in one script: putting back a hundred takes Redis about a millisecond.
MOST_PER_CALL = 100
#: Of one sender. One that is broken sends the same over and over; it must not push out the letters of others.
MOST_BODIES = 100
#: One notice per sender and so long.
NOTICE_EVERY_MS = 15 * 60_000
_TOO_MANY_AT_ONCE = 50

_Argument = str | int | bytes
_Run = Callable[[str, list[str], Sequence[_Argument]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much there is, and what is too much of it.

    oldest:    when the oldest was written (ms); 0 for none.
    too_many:  numbers of the letters over the bounds, oldest first; not all at once.
    """

    letters: int
    bytes: int
    oldest: int
    too_many: tuple[int, ...] = ()


class Letters:
    """Reads and moves dead letters. Raises StoreUnavailable when Redis did not confirm."""

    def __init__(self, run: _Run, keys: Keys, history_length: int) -> None:
        self._run = run
        self._keys = keys
        self._history_length = history_length

    async def page(self, now: int, *, before: int = 0, since: int = 0, most: int = MOST_PER_CALL) -> list[Found]:
        """Up to `most` letters, the newest first, each with its standing at `now`; `before` that number."""
        keys = self._keys
        highest = f"({before}" if before else "+inf"
        page = await self._run("letters", [keys.dead, keys.letters], [highest, since or "-inf", most])
        letters = [(int(number), about, read(letter)) for number, about, letter in page]
        standing = await self._redrive("look", letters, now)
        return [Found(*each, word) for each, word in zip(letters, standing, strict=True)]

    async def find(self, number: int, now: int) -> Found | None:
        """The letter with that number, or None."""
        keys = self._keys
        page = await self._run("letters", [keys.dead, keys.letters], [number, number, 1])
        if not page:
            return None
        letter = (int(page[0][0]), page[0][1], read(page[0][2]))
        [standing] = await self._redrive("look", [letter], now)
        return Found(*letter, standing)

    async def redrive(self, letters: Sequence[Found], now: int, *, force: bool = False) -> list[str]:
        """Put letters about alerts back; one word for each: "redriven", "unknown", or the standing that forbids it."""
        mode = "force" if force else "redrive"
        return await self._redrive(mode, [(each.number, each.about, each.letter) for each in letters], now)

    async def _redrive(self, mode: str, letters: Sequence[tuple[int, bytes, Letter]], now: int) -> list[str]:
        keys = self._keys
        if not letters:
            return []
        arguments: list[_Argument] = [now, keys.alert, mode, self._history_length]
        for number, about, letter in letters:
            arguments += [number, about, letter.action, *_to_make_anew(letter, mode)]
        words = await self._run("redrive", [keys.due, keys.parked, keys.dead, keys.letters, keys.history], arguments)
        # a body is about no record: the alerts in it are told apart when they are taken in again
        return [
            Standing.STANDS.value if mode == "look" and about.startswith(b"body\n") else word.decode()
            for (_, about, _), word in zip(letters, words, strict=True)
        ]

    async def drop(self, letters: Sequence[Found], now: int, result: str = "dropped", why: str = "") -> list[bool]:
        """Let go of letters; False for each that is gone or another one by now."""
        keys = self._keys
        if not letters:
            return []
        arguments: list[_Argument] = [now, keys.bodies, self._history_length, result, why]
        for each in letters:
            arguments += [each.number, each.about]
        dropped = await self._run("drop_letters", [keys.dead, keys.letters, keys.history], arguments)
        return [bool(each) for each in dropped]

    async def extent(self, most: int, most_bytes: int) -> Extent:
        """How much there is, and what is too much of it."""
        keys = self._keys
        letters, size, oldest, *too_many = await self._run(
            "letters_extent", [keys.dead, keys.letters], [most, most_bytes, _TOO_MANY_AT_ONCE]
        )
        return Extent(letters, size, int(oldest or 0), tuple(map(int, too_many)))

    async def keep_body(self, letter: Letter, body: bytes, now: int) -> tuple[bool, list[bytes]]:
        """Keep a body that was not understood.

        Returns whether somebody is to be told of its sender now, and the letters that had to go for it.
        """
        keys = self._keys
        about = f"body\n{letter.source}\n\n{sha256(body).hexdigest()[:32]}"
        notice, *lost = await self._run(
            "keep_body",
            [keys.dead, keys.letters, keys.noticed, keys.bodies + letter.source],
            [now, letter.source, about, encode(letter), MOST_BODIES, NOTICE_EVERY_MS],
        )
        return bool(notice), list(lost)

    async def notice(self, sender: str, now: int) -> bool:
        """Whether somebody is to be told of this sender now: of each once in so long."""
        return bool(await self._run("notice", [self._keys.noticed], [now, sender, NOTICE_EVERY_MS]))

    async def noticed_before(self, before: int) -> list[str]:
        """Senders about whom somebody was last told before then (ms), who are forgotten by asking."""
        return [sender.decode() for sender in await self._run("forget_noticed", [self._keys.noticed], [before])]


def _to_make_anew(letter: Letter, mode: str) -> tuple[str, str, int, bytes]:
    """What a record is made of that is gone: severity, episode, its begin, alert."""
    alert = letter.heard_alert() if mode == "force" else None
    if alert is None:
        return "", "", 0, b""
    return alert.event.severity.value, alert.episode, alert.episode_at, msgspec.json.encode(alert)
