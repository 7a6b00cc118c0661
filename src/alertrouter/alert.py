"""The nouns everyone shares. Imports nothing of ours and does no I/O.

The values of the hot path are msgspec structs: frozen and slotted like our dataclasses, and a third of their price to
make, to encode and to decode (`make bench`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import field

#: Longest `dedup_key` the PagerDuty Events API v2 takes, in characters.
DEDUP_KEY_LIMIT = 255
#: The sender of what comes as an Events API v2 event; with the name of its integration, "pagerduty/zabbix".
PAGERDUTY = "pagerduty"


class Status(StrEnum):
    """What the sender last said about an alert."""

    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """PagerDuty's four severities, worst first."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Link(msgspec.Struct, frozen=True, gc=False):
    """A link shown to the responder."""

    href: str
    text: str = ""


class Image(msgspec.Struct, frozen=True, gc=False):
    """An image shown to the responder."""

    src: str
    href: str = ""
    alt: str = ""


class Enqueued(msgspec.Struct, frozen=True, gc=False):
    """What an alert brings along that came as an Events API v2 event.

    dedup_key:  the client's own.
    content:    digest of what it says, so that another text is news; "" where it says nothing (an acknowledge or resolve
                without payload): what was heard of the alert before still stands.
    """

    dedup_key: str
    content: str = ""
    images: tuple[Image, ...] = ()


class CommonEvent(msgspec.Struct, frozen=True, gc=False):
    """An alert as PagerDuty would see it (PD-CEF). What rules read as `event` and may change.

    Labels, tags and annotations of the sender are in `custom_details`.
    """

    summary: str
    source: str
    severity: Severity
    timestamp: str = ""
    component: str = ""
    group: str = ""
    class_: str = ""
    custom_details: Mapping[str, Any] = field(default_factory=dict)


def alert_id(source: str, fingerprint: str) -> str:
    """Sender plus the sender's own identity of an alert, hashed only when over 255 characters.

    Bounded, because it names a Redis key and because it is what PagerDuty is given as `dedup_key`.
    """
    plain = f"{source}:{fingerprint}"
    if len(plain) <= DEDUP_KEY_LIMIT:
        return plain
    return f"{source}:sha256:{sha256(plain.encode()).hexdigest()}"


class Alert(msgspec.Struct, frozen=True, gc=False):
    """One condition, as one sender reported it once.

    source:       the sender and, for a named one, its name: "alertmanager", "datadog/team-a".
    fingerprint:  the sender's own identity of the alert; never empty, never derived from text or body.
    episode:      the sender's name for this occurrence (startsAt, cycle key); "" where it has none.
    episode_at:   when the occurrence began by the sender's clock, in ms since the epoch; 0 where unknown.
    ended_at:     for a resolve, when it ended by the sender's clock, in ms since the epoch; 0 where unknown.
    raw:          the body as received, a batch narrowed to this alert: what rules read as `raw_event`.
    notes:        what we changed or could not understand, for the responder to see.
    enqueued:     more about an Events API v2 event; None for every other sender's.
    """

    source: str
    fingerprint: str
    status: Status
    event: CommonEvent
    episode: str = ""
    episode_at: int = 0
    ended_at: int = 0
    links: tuple[Link, ...] = ()
    client: str = ""
    client_url: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    enqueued: Enqueued | None = None

    @property
    def id(self) -> str:
        """Identity of the alert's record."""
        return alert_id(self.source, self.fingerprint)

    @property
    def dedup_key(self) -> str:
        """PagerDuty's identity of the alert: the client's own key of an Events API v2 event, else that of its record."""
        return self.enqueued.dedup_key if self.enqueued else self.id
