"""Senders whose webhooks are refused: all their alerts are being lost, and no sender says so.

The request only notes it in memory; every two seconds it is put down in Redis, where replicas count together.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

import structlog

from alertrouter.alarms import REFUSED_SENDER, alarm
from alertrouter.alert import Alert
from alertrouter.errors import StoreUnavailable
from alertrouter.store.store import REFUSALS, REFUSED_WITHIN_MS, AlertStore, Refusal, Watched

_LOOK_EVERY_S = 2.0
#: One that goes on being taken is news to the other replicas only so often.
_TAKEN_EVERY_MS = 10_000
#: Some show their password only when asked for it, SNS among them: what is taken so soon afterwards was not refused.
#: https://docs.aws.amazon.com/sns/latest/dg/sns-http-https-endpoint-as-subscriber.html
_ASKED_MS = 2_000
#: Names come from outside: more of them than that within two seconds are made up.
_MOST_NAMES = 1000

_log = structlog.get_logger()


class Senders:
    """Raises an alarm for every known sender that was refused three times in five minutes, until it is taken again."""

    def __init__(self, store: AlertStore, clock: Callable[[], int], wake: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake
        self._refusals: defaultdict[str, deque[Refusal]] = defaultdict(lambda: deque(maxlen=REFUSALS))
        self._young: dict[str, list[Refusal]] = {}
        self._taken: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._watched: Sequence[Watched] = ()
        self._away = False

    def taken(self, sender: str) -> None:
        """A webhook of `sender` was answered with 2xx."""
        self._taken[sender] = self._clock()

    def refused(self, sender: str, words: str, *, known: bool) -> None:
        """A webhook of `sender` was refused, why in `words`. known: that it is the sender's needs no proof."""
        if sender in self._refusals or len(self._refusals) < _MOST_NAMES:
            self._refusals[sender].append(Refusal(sender, self._clock(), known, words))

    async def watch(self) -> None:
        """Look again and again who is refused."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                if not self._away:
                    _log.warning("refused senders cannot be counted while Redis is away", error=str(error))
                self._away = True
            else:
                self._away = False
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Put down what was heard since, and raise or end the alarms that are due. Raises StoreUnavailable."""
        now = self._clock()
        troubled = {each.name for each in self._watched}
        taken = {
            sender: at
            for sender, at in self._taken.items()
            if sender in troubled
            or sender in self._refusals
            or sender in self._young
            or at - self._told.get(sender, 0) >= _TAKEN_EVERY_MS
        }
        if not (taken or self._refusals or self._young or troubled):
            return
        settled = self._settled(now)
        try:
            self._watched = await self._store.senders(taken, settled, now)
        except StoreUnavailable:
            for refusal in reversed(settled):
                self._refusals[refusal.sender].appendleft(refusal)
            raise
        self._told.update(taken)
        for sender, at in taken.items():
            if self._taken[sender] == at:
                del self._taken[sender]
        alarms = []
        for each in self._watched:
            if each.state == "refused" and not each.alarmed:
                _log.error("a sender is refused", source=each.name, reason=each.words)
                alarms.append(_refused(each))
            elif each.state == "taken" and each.alarmed:
                _log.info("a sender is no longer refused", source=each.name)
                alarms.append(_taken_again(each.name))
        if alarms:
            await self._store.accept(alarms, now)
            self._wake()

    def _settled(self, now: int) -> list[Refusal]:
        """The refusals that are old enough to be ones. The first of the others wait; a flood does not push them out."""
        for sender, some in self._refusals.items():
            self._young[sender] = [*self._young.get(sender, ()), *some]
        self._refusals.clear()
        settled = []
        for sender, some in list(self._young.items()):
            settled += [refusal for refusal in some if now - refusal.at >= _ASKED_MS]
            self._young[sender] = [refusal for refusal in some if now - refusal.at < _ASKED_MS][:REFUSALS]
            if not self._young[sender]:
                del self._young[sender]
        return settled

    def warnings(self) -> Sequence[str]:
        """The senders that are refused."""
        return [
            f"the webhooks of {each.name} are refused ({each.words}): its alerts are lost; mend its token or its payload"
            for each in self._watched
            if each.state == "refused"
        ]


def _refused(sender: Watched) -> Alert:
    minutes = REFUSED_WITHIN_MS // 60_000
    return alarm(
        REFUSED_SENDER + sender.name,
        f"the webhooks of {sender.name} are refused, {REFUSALS} within {minutes} minutes",
        details={
            "sender": sender.name,
            "answer": sender.words,
            "what it means": "Its alerts are lost: no sender repeats what is answered with 4xx.",
            "what to do": "401: give it a token of ALERTROUTER_WEBHOOK_TOKENS. 400, 413 or 415: the log says what is "
            "wrong with its payload. This ends by itself with the next webhook that is taken.",
        },
    )


def _taken_again(sender: str) -> Alert:
    return alarm(REFUSED_SENDER + sender, f"the webhooks of {sender} are taken again", firing=False)
