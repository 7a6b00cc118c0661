"""The alert record: what we heard from the sender, and what we told each destination. Pure data, no I/O.

All times are milliseconds since the epoch; 0 means never.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from alertrouter.alert import Alert, Severity, Status

#: After an attempt without a definite answer PagerDuty may still process it; by then it surely has or never will.
#: The current state is sent once more at that time. (Found by simulation: without it 32 of 5,000 keys ended wrong.)
REPAIR_AFTER_MS = 90_000
#: A sender that was silent for longer was away; hearing it again says nothing yet about each of its alerts.
SOURCE_SILENT_AFTER_MS = 3600 * 1000


class State(StrEnum):
    """What a destination believes about an alert, as far as it has confirmed."""

    NOTHING = ""
    TRIGGERED = "triggered"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Outcome(StrEnum):
    """How an accepted alert ended, or PENDING while it is on its way."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    SUPPRESSED = "suppressed"
    DROPPED = "dropped"
    CANCELLED_IN_SUSPEND = "cancelled_in_suspend"
    STALE = "stale"
    RESOLVED_BEFORE_DELIVERY = "resolved_before_delivery"
    DEAD_LETTERED = "dead_lettered"
    IGNORED = "ignored"


class News(StrEnum):
    """Why a sighting was not a duplicate."""

    NEW = "new"  # no record, or firing again after a resolve
    EPISODE = "episode"  # a later start than any heard in this episode
    SEVERITY = "severity"
    CONTENT = "content"  # an Events API v2 event of another text
    STATUS = "status"  # resolved, acknowledged
    REFRESH = "refresh"  # unchanged, but the window or resend_after has passed
    AGAIN = "again"  # unchanged, but what was heard before did not get through
    SILENT = "silent"  # not repeated for so long that we resolved it


class Source(msgspec.Struct, frozen=True, gc=False):
    """A sender: when it was last heard, whatever it said, and since when it was never silent for long."""

    last: int
    since: int


class Told(msgspec.Struct, frozen=True, gc=False):
    """One destination's half of the record.

    version:      the heard version last confirmed by the destination.
    key:          the literal routing key in use for the present episode; a resolve goes there and nowhere else.
    dedup_key:    the key of an incident that rules make this alert share with others, or the record's id where the
                  client's own key would not tell it from another integration's alert; "" for its own.
    not_before:   when the next attempt is allowed, after `tries` failed ones.
    dead:         the heard version that was dead-lettered.
    bad_key:      it was so for `key`, or it was a resolve: what opens next is not opened there.
    unsure:       when an attempt ended without a definite answer: it may still be processed.
    lease_until:  until then a send is in flight and nothing else may be sent.
    opens:        the heard version that the send waiting or in flight triggers; 0 if it opens nothing.
    maybe_open:   the heard version of a trigger that was tried, with no definite answer and nothing confirmed since.
    refused:      the heard version that was refused and goes out in another form; the next three are of it alone.
    rung:         how many rungs lower, each showing less of the alert.
    rerouted:     `key` stands in for one that was refused.
    refusal:      the destination's own words.
    """

    destination: str
    state: State = State.NOTHING
    version: int = 0
    key: str = ""
    dedup_key: str = ""
    at: int = 0
    tries: int = 0
    not_before: int = 0
    dead: int = 0
    bad_key: bool = False
    unsure: int = 0
    lease_until: int = 0
    opens: int = 0
    maybe_open: int = 0
    refused: int = 0
    rung: int = 0
    rerouted: bool = False
    refusal: str = ""

    def __repr__(self) -> str:
        """Without the routing key, which is a secret."""
        return f"Told({self.destination!r}, {self.state!r}, version={self.version})"

    @property
    def is_open(self) -> bool:
        """True if the destination has, or may have, an open alert of ours."""
        return self.state in (State.TRIGGERED, State.ACKNOWLEDGED) or self.maybe_open > 0

    @property
    def heard_version(self) -> int:
        """The heard version that the destination knows of, or may know of."""
        return max(self.version, self.maybe_open)


class Flapping(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What was found when the record was last judged, as far as flapping goes.

    version:   the version that was looked at; 0 for never.
    over:      it was resolved then.
    times:     when it last changed between firing and resolved, oldest first; one more than it may.
    since:     the version at which it was found to flap; 0 while it does not.
    until:     it flaps until then.
    forgiven:  a resolve heard up to this version was held, and is not owed to what fires again.
    """

    version: int = 0
    over: bool = False
    times: tuple[int, ...] = ()
    since: int = 0
    until: int = 0
    forgiven: int = 0


class Record(msgspec.Struct, frozen=True, gc=False):
    """One alert's record. `version` grows with every piece of news.

    fired_version:     the version at which the present episode was first heard firing; 0 if it never was.
    resolved_version:  the version at which a resolve was last heard; a destination that was told an older
                       version and is open is owed that resolve before anything else.
    outcome, rule,
    reason, service:   how the newest heard alert ended so far, and by which rule: the one that kept it back, else the
                       last one that matched.
    suspended_until:   the rules held this episode back until then; set once per episode.
    hold_until:        a late copy of an episode already resolved is held until then.
    is_forced:         somebody wants it told though it is over.
    poisoned:          the alert cannot be worked with: every worker that tried has died of it. `alert` stands in for it.
    """

    id: str
    version: int
    status: Status
    severity: Severity
    news: News
    alert: Alert
    fired_version: int = 1
    resolved_version: int = 0
    hold_until: int = 0
    suspended_until: int = 0
    first_heard: int = 0
    last_heard: int = 0
    count: int = 1
    outcome: Outcome = Outcome.PENDING
    rule: str = ""
    reason: str = ""
    service: str = ""
    is_forced: bool = False
    poisoned: bool = False
    told: tuple[Told, ...] = ()
    flapping: Flapping = Flapping()

    def shares(self, dedup_key: str) -> bool:
        """Whether that is the key of an incident which others may have open as well."""
        return dedup_key not in ("", self.id)

    def with_told(self, told: Told) -> Record:
        """The record with another half for `told`'s destination."""
        others = (other for other in self.told if other.destination != told.destination)
        return msgspec.structs.replace(self, told=(*others, told))

    def told_of(self, destination: str) -> Told:
        """What `destination` was told; an empty Told when it never was."""
        return next((told for told in self.told if told.destination == destination), Told(destination))
