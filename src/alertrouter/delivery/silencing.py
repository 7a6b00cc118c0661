"""Silences of a running installation: added and ended by people on call, the same in every replica within a second.

The worker never asks Redis for them: they are in the rules in force, which are replaced as one when silences change.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import structlog

from alertrouter import telemetry
from alertrouter.alarms import SELF
from alertrouter.errors import ForeignData, NotDone, StoreUnavailable
from alertrouter.history.entries import SilenceAdded, SilenceEnded
from alertrouter.rules.checks.broad_suppression import is_broad
from alertrouter.rules.schema import read_duration
from alertrouter.rules.silences import LONGEST_MS, Silence, compile_silence
from alertrouter.rules.syntax import ConditionError
from alertrouter.store.store import AlertStore

_LOOK_EVERY_S = 1.0
#: Each is asked about every alert that the rules would deliver.
_MOST = 100
_MOST_CHARACTERS = 500
#: Clocks of those who ask may be off by that much.
_CLOCKS_DIFFER_MS = 60_000
_BROAD = "it takes alerts of all kinds: its condition asks for nothing that tells them apart"

_log = structlog.get_logger()


class Wish(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody asks to be silenced: `when` (a condition) or `alert` (an id), for a time or until one."""

    owner: str
    reason: str
    when: str = ""
    alert: str = ""
    duration: str = msgspec.field(name="for", default="")
    until: int | str = 0


class Silences:
    """The silences in force.

    changed:  called with all of them whenever they are others than before.
    known:    the id an alert is known by, or is shared under, or None; then `closest` to it may be meant.
    """

    def __init__(
        self,
        store: AlertStore,
        clock: Callable[[], int],
        changed: Callable[[tuple[Silence, ...]], None],
        *,
        known: Callable[[str], Awaitable[bool]],
        closest: Callable[[str], Awaitable[Sequence[str]]],
        ahead: Callable[[], int] = lambda: 0,
    ) -> None:
        """`ahead` says how far `clock` is ahead of the time of day, by which silences end, as people said (ms)."""
        self._store = store
        self._clock = clock
        self._ahead = ahead
        self._changed = changed
        self._known = known
        self._closest = closest
        self._was_read = False
        self._unreadable: Mapping[str, str] = {}
        self.in_force: tuple[Silence, ...] = ()

    def holds_sends(self) -> bool:
        """Whether it is not known yet what is silenced. Where Redis does not tell, nothing waits in it either."""
        return not self._was_read

    def warnings(self) -> list[str]:
        """What is wrong with those in Redis, and what to do."""
        return [
            f"silence {id_} cannot be read and keeps nothing back ({problem}); `alertrouter silence end {id_}`"
            if id_
            else problem
            for id_, problem in self._unreadable.items()
        ]

    async def watch(self) -> None:
        """Take over what any replica added or ended."""
        while True:
            with suppress(StoreUnavailable):  # those that are known stay in force until their end
                await self.refresh()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def refresh(self) -> None:
        """Read them anew, and put away those that are over. Raises StoreUnavailable."""
        try:
            stored = await self._store.silences()
        except ForeignData as error:
            self._was_read = True  # or a key that is not ours would hold up every page
            self._unreadable = {"": f"silences cannot be read: Redis {error}"}
            return
        self._was_read = True
        found, self._unreadable = _read(stored)
        now = self._clock()
        time_of_day = now - self._ahead()
        self._take_over(silence for silence in found if silence.ends_at > time_of_day)
        for silence in found:
            if silence.ends_at <= time_of_day:
                await self._put_away(silence, "", now)

    def _take_over(self, silences: Any) -> None:
        # the longest first: what several keep back is judged again when the last of them ends
        in_force = tuple(sorted(silences, key=lambda each: (-each.ends_at, each.id)))
        telemetry.SILENCES.set(len(in_force))
        if in_force != self.in_force:
            self.in_force = in_force
            self._changed(in_force)

    async def add(self, body: bytes) -> dict[str, Any]:
        """Put one into force, here at once. Returns it as JSON. Raises NotDone with what to write, StoreUnavailable."""
        now = self._clock()
        silence = await self._asked(body, now - self._ahead())
        entry = SilenceAdded(
            at=now,
            id=silence.rule,
            owner=silence.owner,
            reason=silence.reason,
            ends_at=silence.ends_at,
            when=silence.when,
            of_alert=silence.alert,
        )
        if not await self._store.add_silence(silence.id, msgspec.json.encode(silence), _fields(entry), most=_MOST):
            raise NotDone(f"there are {_MOST} silences; end one, or write a rule", status=409)
        _log.warning("silence added", **msgspec.to_builtins(silence))
        await self.refresh()
        condition = silence.condition
        return {
            **_shown(silence),
            "warnings": [_BROAD] if condition and is_broad(condition.tree, of_service=False) else [],
        }

    async def end(self, id_: str, by: str) -> dict[str, Any]:
        """End one before its time, here at once. Returns it as JSON. Raises NotDone, StoreUnavailable."""
        by = by.strip()
        if not by:
            raise NotDone("who ends it? write ?by=<name>")
        stored = await self._store.silences()
        found, unreadable = _read(stored)
        silence = next((each for each in found if each.id == id_), None)
        if silence is None and id_ in unreadable:
            silence = Silence(id=id_, owner="", reason="", added_at=0, ends_at=0)
        if silence is None or not await self._put_away(silence, by[:_MOST_CHARACTERS], self._clock()):
            raise NotDone(f"no silence {id_} is in force", status=404, silences=sorted(stored))
        await self.refresh()
        return _shown(silence)

    async def listed(self) -> list[dict[str, Any]]:
        """All in force, the one that ends first first, as JSON. Raises StoreUnavailable."""
        await self.refresh()
        return [_shown(silence) for silence in reversed(self.in_force)]

    async def _put_away(self, silence: Silence, by: str, now: int) -> bool:
        entry = SilenceEnded(
            at=now, id=silence.rule, owner=silence.owner, by=by, when=silence.when, of_alert=silence.alert
        )
        ended = await self._store.end_silence(silence.id, _fields(entry))
        if ended:
            _log.warning("silence ended", id=silence.id, owner=silence.owner, by=by or "its time")
        return ended

    async def _asked(self, body: bytes, now: int) -> Silence:
        try:
            wish = msgspec.json.decode(body, type=Wish)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise NotDone(f"{error}; write {{owner, reason, when or alert, for or until}}") from None
        owner, reason, alert = wish.owner.strip(), wish.reason.strip(), wish.alert.strip()
        for name, text in (("owner", owner), ("reason", reason)):
            if not 0 < len(text) <= _MOST_CHARACTERS:
                raise NotDone(f"{name}: write who it is or why, in up to {_MOST_CHARACTERS} characters")
        if bool(wish.when.strip()) is bool(alert):
            raise NotDone("write a condition as `when`, or the id of one alert as `alert`")
        if alert:
            await self._check_alert(alert)
        else:
            _check_condition(wish.when)
        ends_at = _end_of(wish, now)
        return Silence(
            id=secrets.token_hex(3),
            owner=owner,
            reason=reason,
            added_at=now,
            ends_at=ends_at,
            when=wish.when if not alert else "",
            alert=alert,
        )

    async def _check_alert(self, alert: str) -> None:
        if alert.startswith(f"{SELF}:"):
            raise NotDone("alertrouter's alarms about itself cannot be silenced; mend what they tell of")
        if not await self._known(alert):
            closest = await self._closest(alert)
            near = f"; perhaps {' or '.join(closest)}" if closest else ""
            raise NotDone(f"no alert {alert} was heard{near}", status=404, closest=list(closest))


def _check_condition(text: str) -> None:
    try:
        compile_silence(text)
    except ConditionError as error:
        place = {"line": error.line, "column": error.column}
        raise NotDone(f"when:{error.line}:{error.column}: {error.message}", **place) from None


def _end_of(wish: Wish, now: int) -> int:
    """When it is to end, in ms. Raises NotDone."""
    if bool(wish.duration) is bool(wish.until):
        raise NotDone("write how long: `for`, such as 2h, or `until`, such as 2027-01-10T05:00:00Z")
    try:
        ends_at = (
            now + read_duration(wish.duration) // timedelta(milliseconds=1) if wish.duration else _moment(wish.until)
        )
    except (ValueError, OverflowError) as error:
        raise NotDone(f"{'for' if wish.duration else 'until'}: {error}") from None
    if ends_at <= now:
        raise NotDone("it would be over already; write a later end")
    if ends_at > now + LONGEST_MS + _CLOCKS_DIFFER_MS:
        raise NotDone("a silence lasts 24h at most; for longer write a rule with `suppress`, which somebody reviews")
    return min(ends_at, now + LONGEST_MS)


def _moment(written: int | str) -> int:
    if isinstance(written, int):
        return written
    moment = datetime.fromisoformat(written)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _read(stored: Mapping[str, bytes]) -> tuple[list[Silence], dict[str, str]]:
    """The silences, and why others cannot be read: a later version may have written them."""
    found, unreadable = [], {}
    for id_, text in stored.items():
        try:
            silence = msgspec.json.decode(text, type=Silence)
            if silence.when:
                compile_silence(silence.when)
        except (msgspec.MsgspecError, UnicodeDecodeError, ConditionError) as error:
            unreadable[id_] = str(error)
        else:
            found.append(msgspec.structs.replace(silence, id=id_))
    return found, unreadable


def _shown(silence: Silence) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(silence)
    return shown


def _fields(entry: SilenceAdded | SilenceEnded) -> dict[str, str]:
    """An entry as fields of the history's stream."""
    return {name: str(value) for name, value in msgspec.to_builtins(entry).items()}
