"""What is done with dead letters: found, put back, let go of, kept within bounds, and told of."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import msgspec
import structlog

from alertrouter import telemetry
from alertrouter.alarms import OVERSIZED, alarm
from alertrouter.alert import PAGERDUTY, Alert, Severity, Status
from alertrouter.errors import BadPayload, StoreUnavailable
from alertrouter.letter import LARGEST_EVENT, Filter, Found, Kind, Letter, Standing, number_of, of_body
from alertrouter.sources import ParsedPayload, Parser, find_parser, pagerduty
from alertrouter.store.letters import MOST_PER_CALL, Extent
from alertrouter.store.store import CLOSED_LIFETIME_MS, AlertStore

#: All letters together. A thousand take some 5 MB of Redis.
MOST_BYTES = 64 * 1024 * 1024
_LOOK_EVERY_S = 10.0
#: Somebody is told of a letter that nobody has looked after for so long.
_WAITED_MS = 10 * 60_000
#: A sender of whom no notice was due for so long has been understood since.
_UNDERSTOOD_AFTER_MS = 60 * 60_000
#: The sender waits for its answer, and what cannot be kept now comes again.
_KEEP_WITHIN_S = 2.0
#: How much of a body that is let go of is shown in the log.
_LOGGED = 2_000

_log = structlog.get_logger()

Accept = Callable[[Sequence[Alert]], Awaitable[Sequence[StrEnum]]]


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of one letter. result: redriven, dropped, or why not, in one word; `reason` says it in many."""

    letter: str
    result: str
    reason: str = ""
    id: str = ""


_WHY_NOT = {
    "newer": "newer news was heard or told since; it stands",
    "resolved": "the alert is over; --force tells it all the same, and resolves it",
    "gone": "there is no record of the alert any more",
    "unknown": "there is no such dead letter",
}


class DeadLetters:
    """The dead letters of a running service. Every method raises StoreUnavailable.

    redriven:   called when something was put back.
    parser_of:  how the bodies of a sender are read now; raises BadPayload where there is no such sender.
    """

    def __init__(
        self,
        store: AlertStore,
        clock: Callable[[], int],
        redriven: Callable[[], None],
        parser_of: Callable[[str], Parser] = find_parser,
    ) -> None:
        self._store = store
        self._clock = clock
        self._redriven = redriven
        self._parser_of = parser_of

    async def find(self, wanted: Filter, most: int, before: int = 0) -> tuple[list[Found], int]:
        """Up to `most` letters, the newest first, and the number to go on before; 0 when there are no others."""
        found: list[Found] = []
        while True:
            page = await self._store.letters.page(self._clock(), before=before, since=wanted.since)
            for each in page:
                if wanted.takes(each):
                    found.append(each)
                    if len(found) == most:
                        return found, each.number
            if len(page) < MOST_PER_CALL:
                return found, 0
            before = page[-1].number

    async def show(self, name: str) -> Found | None:
        """The letter of that name, or None."""
        number = number_of(name)
        return None if number is None else await self._store.letters.find(number, self._clock())

    async def redrive(self, names: Sequence[str], *, force: bool = False) -> list[Handled]:
        """Put letters back, in that order. What cannot be put back stays as it is."""
        now = self._clock()
        letters = [await self.show(name) for name in names]
        about_alerts = [each for each in letters if each is not None and each.letter.kind != Kind.BODY]
        words = await self._store.letters.redrive(about_alerts, now, force=force)
        said = {each.number: word for each, word in zip(about_alerts, words, strict=True)}
        handled = []
        for name, found in zip(names, letters, strict=True):
            if found is None:
                handled.append(Handled(name, "unknown", _WHY_NOT["unknown"]))
            elif found.letter.kind == Kind.BODY:
                handled.append(await self._redrive_body(name, found, now, force=force))
            else:
                word = said[found.number]
                handled.append(Handled(name, word, _why_not(word, found.letter, force=force), found.letter.id))
        for each in handled:
            _log.info(
                "dead letter redriven" if each.result == "redriven" else "dead letter not redriven", **_said(each)
            )
        self._redriven()
        return handled

    async def _redrive_body(self, name: str, found: Found, now: int, *, force: bool) -> Handled:
        """Parse a body once more and take its alerts in as heard when it came: what was heard since stands."""
        letter = found.letter
        body = letter.original_body()
        if body is None:
            return Handled(name, "gone", f"only the first part of its {letter.size} bytes was kept")
        if now - letter.at > CLOSED_LIFETIME_MS and not force:
            return Handled(name, "gone", "it is over a day old: whether its alerts are over is not known; see --force")
        try:
            payload = self._parsed(letter, body)
        except BadPayload as bad:
            return Handled(name, "refused", f"still not understood: {bad.reason}")
        if payload.skipped:
            return Handled(name, "refused", f"still not understood: {payload.skipped[0].reason}")
        words = Counter([await self._store.adopt(alert, letter.at, None, now) for alert in payload.alerts])
        heard = ", ".join(f"{count} {word}" for word, count in words.items()) or "no alerts in it"
        await self._store.letters.drop([found], now, "redriven", heard)
        return Handled(name, "redriven", heard)

    def _parsed(self, letter: Letter, body: bytes) -> ParsedPayload:
        """What there is in a body by now. Raises BadPayload, also where its sender is none any more."""
        if letter.source.partition("/")[0] == PAGERDUTY:
            return pagerduty.parse(body, letter.source, new_key=lambda: uuid4().hex)
        headers = {"content-type": letter.content_type, **letter.headers}
        return self._parser_of(letter.source)(body, headers, letter.source)

    async def drop(self, names: Sequence[str]) -> list[Handled]:
        """Let go of letters. Alerts stay as they are: still firing and heard again, they are tried again."""
        letters = [await self.show(name) for name in names]
        there = [each for each in letters if each is not None]
        dropped = await self._store.letters.drop(there, self._clock())
        gone = {each.number for each, is_dropped in zip(there, dropped, strict=True) if is_dropped}
        handled = [
            Handled(name, "dropped", "", found.letter.id)
            if found is not None and found.number in gone
            else Handled(name, "unknown", _WHY_NOT["unknown"])
            for name, found in zip(names, letters, strict=True)
        ]
        for each in handled:
            _log.info("dead letter dropped" if each.result == "dropped" else "dead letter not dropped", **_said(each))
        return handled


def _why_not(word: str, letter: Letter, *, force: bool) -> str:
    if word == Standing.GONE:
        may_force = letter.heard_alert() is not None and not force
        return _WHY_NOT[word] + ("; --force tells it all the same, and resolves it" if may_force else "")
    return _WHY_NOT.get(word, "")


def _said(handled: Handled) -> dict[str, str]:
    return {"letter": handled.letter, "dedup_key": handled.id, "result": handled.result, "reason": handled.reason}


# --- what no alert could be made of ----------------------------------------------------------------------------------


class Unreadable:
    """Keeps bodies that were not understood, and tells of their senders."""

    def __init__(self, store: AlertStore, accept: Accept, clock: Callable[[], int]) -> None:
        self._store = store
        self._accept = accept
        self._clock = clock

    async def keep(
        self,
        source: str,
        body: bytes,
        content_type: str,
        status: int,
        reason: str,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Keep a body of an authenticated sender; no sender repeats what was answered with 400.

        `headers` are those its parser reads besides the Content-Type.
        Raises StoreUnavailable where it cannot be kept now: then the sender is to try again.
        """
        if not body.strip():
            return  # nothing was in it
        now = self._clock()
        letter = of_body(source, body, content_type, status, reason, now, headers)
        try:
            async with asyncio.timeout(_KEEP_WITHIN_S):
                is_due, lost = await self._store.letters.keep_body(letter, body, now)
        except TimeoutError:
            raise StoreUnavailable("a body that was not understood cannot be kept in time") from None
        for each in lost:
            telemetry.DEAD_LETTERS_LET_GO.labels("sender").inc()
            _log.error(
                "the oldest unreadable body of a sender is let go of for a newer one",
                source=source,
                letter=each[:_LOGGED].decode(errors="replace"),
            )
        if is_due:
            await self._accept([_not_understood(source, reason, status)])

    async def oversized(self, source: str, reason: str) -> None:
        """Tell of an authenticated sender whose body is over a limit: nothing of it is kept, and no sender makes it less.

        Raises StoreUnavailable where that cannot be told now: then the sender is to try again.
        """
        try:
            async with asyncio.timeout(_KEEP_WITHIN_S):
                is_due = await self._store.letters.notice(OVERSIZED + source, self._clock())
        except TimeoutError:
            raise StoreUnavailable("an oversized body cannot be told of in time") from None
        if is_due:
            await self._accept([_oversized(source, reason)])

    async def look_back(self) -> None:
        """End the notices about senders that have been understood for long. Raises StoreUnavailable."""
        now = self._clock()
        for name in await self._store.letters.noticed_before(now - _UNDERSTOOD_AFTER_MS):
            source = name.removeprefix(OVERSIZED)
            await self._accept([_not_understood(source) if source == name else _oversized(source)])


def _not_understood(source: str, reason: str = "", status: int = 0) -> Alert:
    """The notice about a sender: begun by a reason, over without one."""
    details = {
        "sender": source,
        "what it means": "Alerts in it page nobody: no sender repeats what was answered with 400.",
        "what to do": f"alertrouter dead-letters list --source {source} shows what it sent. Mend its template; "
        "alertrouter dead-letters redrive takes in what can be read by then.",
        "reason": reason,
        "answered": status,
    }
    return alarm(
        f"not-understood:{source}",
        f"what {source} sends is not understood: {reason}"[:500],
        severity=Severity.ERROR,
        firing=bool(reason),
        details=details if reason else {},
    )


def _oversized(source: str, reason: str = "") -> Alert:
    """The notice about a sender whose body was over a limit: begun by a reason, over without one."""
    details = {
        "sender": source,
        "what it means": "All alerts in it are lost, again and again: it was answered with 413.",
        "what to do": "Let it send less at once: Alertmanager by group_by and max_alerts. Or raise "
        "ALERTROUTER_MAX_BODY_BYTES.",
        "reason": reason,
    }
    return alarm(
        OVERSIZED + source,
        f"oversized webhook from {source}: {reason}" if reason else f"no more oversized webhooks from {source}",
        firing=bool(reason),
        details=details if reason else {},
    )


# --- bounds ----------------------------------------------------------------------------------------------------------


class LetterKeeper:
    """Keeps dead letters within their bounds, and tells of those that nobody looks after, until it is cancelled.

    most:    letters in Redis. The oldest over that are moved to a file of the day in `folder`; were that not writable,
             to the log.
    """

    def __init__(
        self,
        store: AlertStore,
        unreadable: Unreadable,
        accept: Accept,
        clock: Callable[[], int],
        *,
        folder: Path,
        most: int,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._store = store
        self._unreadable = unreadable
        self._accept = accept
        self._clock = clock
        self._folder = folder
        self._most = most
        self._most_bytes = most_bytes
        self._extent = Extent(0, 0, 0)
        self._raised: set[str] = set()
        self.spilled = ""  # the newest file of those that were too many

    async def run(self) -> None:
        """Look again and again."""
        while True:
            with suppress(StoreUnavailable):  # /-/ready says it
                await self.step()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def step(self) -> None:
        """Move what is too much, and tell of what there is. Raises StoreUnavailable."""
        spilled = 0
        while (extent := await self._store.letters.extent(self._most, self._most_bytes)).too_many:
            spilled += await self._spill(extent.too_many)
        self._extent = extent
        self.spilled = await asyncio.to_thread(_newest_in, self._folder)
        waits = bool(extent.oldest) and self._clock() - extent.oldest >= _WAITED_MS
        await self._tell("dead-letters", waits, _waiting(extent) if waits else None)
        if spilled or self._is_over_half(extent) is False:
            await self._tell("dead-letters-full", spilled > 0, self._full() if spilled else None)
        await self._unreadable.look_back()

    def warnings(self) -> list[str]:
        """What is to be done, for /-/ready."""
        extent = self._extent
        if not extent.letters:
            return []
        count = f"{extent.letters} dead letter{'s' * (extent.letters != 1)}"
        if self._is_over_half(extent):
            return [
                f"{count}, of {self._most} that are kept in Redis: `alertrouter dead-letters redrive` or `drop` them, "
                f"or the oldest move to {self._folder}"
            ]
        return [f"{count}: `alertrouter dead-letters list` says why, `redrive` sends them again"]

    def _is_over_half(self, extent: Extent) -> bool:
        return extent.letters * 2 > self._most or extent.bytes * 2 > self._most_bytes

    async def _spill(self, numbers: Sequence[int]) -> int:
        now = self._clock()
        found = [each for number in numbers if (each := await self._store.letters.find(number, now)) is not None]
        lines = [msgspec.json.encode(each.as_json(whole=True)) for each in found]
        try:
            await asyncio.to_thread(_append, self._folder, now, lines)
            where = "file"
        except OSError as error:
            where = "log"
            for each in found:
                _log.error(
                    "a dead letter is let go of, and the file for it cannot be written",
                    error=str(error),
                    letter=_logged(each),
                )
        dropped = await self._store.letters.drop(found, now, "spilled", f"to the {where}")
        telemetry.DEAD_LETTERS_LET_GO.labels(where).inc(sum(dropped))
        _log.error("there are too many dead letters; the oldest are moved", to=where, letters=sum(dropped))
        return len(numbers)

    async def _tell(self, name: str, firing: bool, details: Mapping[str, object] | None) -> None:
        """Raise an alarm or end it; Redis remembers whether it is raised, by any replica, this process what it raised."""
        about = alarm(name, _SUMMARIES[name], severity=Severity.ERROR, firing=firing, details=details or {})
        if firing:
            if name not in self._raised:
                await self._accept([about])
                self._raised.add(name)
            return
        record = await self._store.record(about.id)
        if record is not None and record.status is Status.FIRING:
            await self._accept([about])
        self._raised.discard(name)

    def _full(self) -> Mapping[str, object]:
        return {
            "kept in Redis": self._most,
            "moved to": str(self._folder),
            "what to do": "alertrouter dead-letters list says why; mend that, then redrive or drop them.",
        }


_SUMMARIES = {
    "dead-letters": "there are dead letters that nobody has looked after for ten minutes",
    "dead-letters-full": "there are too many dead letters; the oldest are moved to a file",
}


def _waiting(extent: Extent) -> Mapping[str, object]:
    return {
        "dead letters": extent.letters,
        "oldest": f"{datetime.fromtimestamp(extent.oldest / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC",
        "what it means": "PagerDuty refused events, or bodies were not understood: of these nobody was paged.",
        "what to do": "alertrouter dead-letters list says why. Mend that, then alertrouter dead-letters redrive --all, "
        "or drop them.",
    }


def _logged(found: Found) -> str:
    """The letter as JSON for the log, its body cut to what is kept of an event: that of a sender may be four times it."""
    letter = msgspec.structs.replace(found.letter, body=found.letter.body[:LARGEST_EVENT])
    return msgspec.json.encode(replace(found, letter=letter).as_json(whole=True)).decode()


def _newest_in(folder: Path) -> str:
    """The newest file of letters, whoever wrote it; "" for none."""
    return max(map(str, folder.glob("dead-letters-*.jsonl")), default="")


def _append(folder: Path, now: int, lines: Sequence[bytes]) -> None:
    """Add lines to the file of the day (UTC), and have them on the disk. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    day = datetime.fromtimestamp(now / 1000, UTC).date().isoformat()
    file = os.open(folder / f"dead-letters-{day}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        data = memoryview(b"".join(line + b"\n" for line in lines))
        while data:
            data = data[os.write(file, data) :]
        os.fsync(file)
    finally:
        os.close(file)
