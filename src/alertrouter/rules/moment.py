"""The instant at which conditions are judged: the clock they see, the counts they ask for, and what they made of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from alertrouter.rules.syntax import Threshold


@dataclass(frozen=True, slots=True)
class CountQuery:
    """How many triggers one threshold of one rule has seen within `window_ms`, the current one included.

    key:       orchestration/set/rule/number of the condition/place of the threshold in it; the same after a reload.
    resetting: the count starts anew once the condition it stands in holds.
    peek:      the current trigger is not counted, and so not included.

    For a cache variable the key is that of a CacheQuery.
    """

    key: str
    window_ms: int
    resetting: bool
    peek: bool = False


@dataclass(frozen=True, slots=True)
class CacheQuery:
    """What rules remember under `key`: orchestration/cache/name."""

    key: str


@dataclass(frozen=True, slots=True)
class CacheWrite:
    """What rules are to remember under `key`, for the next CacheQuery."""

    key: str
    value: str


class Wanted(Exception):
    """Evaluation cannot go on without the answers to these. Never leaves `evaluate`."""

    def __init__(self, *queries: CountQuery | CacheQuery) -> None:
        super().__init__(*queries)
        self.queries = queries


@dataclass(slots=True)
class Moment:
    """One evaluation's clock and counts, and what has been looked at.

    ms:      the instant, since the epoch.
    counts:  the answers that are known; None where every count is 1, and nothing is remembered.
    counted: whether this is a trigger. Of anything else every threshold is 0, and none is asked for.
    until:   the first instant at which a time that was looked at changes its answer; 0 = never.
    asker:   whose thresholds are being asked: orchestration/set/rule/number of the condition.
    asked:   what they have asked for.
    resets:  resetting counts whose condition held.
    """

    ms: int
    counts: Mapping[CountQuery | CacheQuery, int | str | None] | None = None
    counted: bool = True
    until: int = 0
    asker: str = ""
    asked: list[CountQuery] = field(default_factory=list)
    resets: list[CountQuery] = field(default_factory=list)

    def changes_at(self, ms: int) -> None:
        """Note that a time looked at changes its answer then; 0 = never."""
        if ms and (not self.until or ms < self.until):
            self.until = ms

    def ask_for(self, asker: str) -> None:
        """What is counted from here on is counted for `asker`."""
        self.asker = asker
        self.asked.clear()

    def start_anew(self) -> None:
        """Note that the asker's condition holds: the resetting counts it looked at begin anew."""
        self.resets += (query for query in self.asked if query.resetting)

    def count(self, threshold: Threshold) -> int:
        """The count for a threshold. Raises Wanted where it is needed and not known."""
        if not self.counted:
            return 0
        resetting = threshold.function == "resetting_trigger_count"
        query = CountQuery(f"{self.asker}/{threshold.span.start}", threshold.seconds * 1000, resetting)
        self.asked.append(query)
        if not self.knows(query):
            raise Wanted(query)
        return self.number(query)

    def knows(self, query: CountQuery | CacheQuery) -> bool:
        """Whether the answer need not be asked for."""
        return self.counts is None or query in self.counts

    def number(self, query: CountQuery) -> int:
        """A count that is known."""
        answer = 1 if self.counts is None else self.counts[query]
        return answer if isinstance(answer, int) else 0

    def remembered(self, query: CacheQuery) -> str | None:
        """What is known to be remembered; None for nothing."""
        answer = None if self.counts is None else self.counts[query]
        return answer if isinstance(answer, str) else None
