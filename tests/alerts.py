"""Alerts to test with, and a clock to own."""

from __future__ import annotations

from alertrouter.alert import Alert, CommonEvent, Severity, Status

#: 2027-01-10T03:00:00Z
NIGHT = 1_799_550_000_000
SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


class Clock:
    """Time as the test sets it, in ms since the epoch."""

    def __init__(self, now: int = NIGHT) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, ms: int) -> int:
        """Move on and return the new time."""
        self.now += ms
        return self.now


def make_alert(
    fingerprint: str = "f00d",
    status: Status | str = Status.FIRING,
    *,
    source: str = "alertmanager",
    severity: Severity | str = Severity.CRITICAL,
    started: int = NIGHT,
    ended: int = 0,
    episode: str | None = None,
    summary: str = "payment is down",
    **details: str,
) -> Alert:
    """An alert as a parser would make it; `started` names its episode."""
    return Alert(
        source=source,
        fingerprint=fingerprint,
        status=Status(status),
        event=CommonEvent(
            summary=summary,
            source="payment-1",
            severity=Severity(severity),
            custom_details=details or {"service": "payment"},
        ),
        episode=str(started) if episode is None else episode,
        episode_at=started,
        ended_at=ended,
    )
