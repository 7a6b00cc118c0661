"""When an alert that its sender would repeat has not been heard for so long that it is over. Pure; no clock, no I/O.

Alertmanager repeats what fires and forgets what was silenced before it resolved: no resolve ever comes for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from msgspec.structs import replace

from alertrouter.alarms import OUR_OWN, PAGE_TEST
from alertrouter.alert import Alert, Status
from alertrouter.record import SOURCE_SILENT_AFTER_MS, Record, Source

#: Alertmanager repeats at least that often: it remembers what it has sent for 120 h and sends what it does not remember.
#: https://prometheus.io/docs/alerting/latest/configuration/ (repeat_interval), --data.retention
AUTO_RESOLVE_AFTER_MS = 121 * 3600 * 1000
#: The senders that repeat what still fires. Grafana's alerting is Alertmanager inside.
REPEATING = frozenset({"alertmanager", "grafana"})
#: What nobody has mentioned for that long is closed, whoever sent it.
FORGOTTEN_AFTER_MS = 30 * 24 * 3600 * 1000
#: What we send ourselves nobody repeats, and whoever began it ends it.
_ENDED_BY_US = OUR_OWN | {PAGE_TEST}
#: How soon an alert is looked at again whose sender is silent altogether.
_LOOK_AGAIN_MS = 10 * 60 * 1000


@dataclass(frozen=True, slots=True)
class AutoResolve:
    """After how long a silence an alert is over, in ms; 0 for never.

    after_ms:   for the senders that repeat.
    by_source:  for one sender, or one sender/name.
    """

    after_ms: int = AUTO_RESOLVE_AFTER_MS
    by_source: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_setting(cls, after_ms: Mapping[str, int]) -> AutoResolve:
        """From the setting: by sender, with "" for all that repeat."""
        return cls(after_ms[""], MappingProxyType({name: each for name, each in after_ms.items() if name}))

    def of(self, source: str) -> int:
        """For alerts of `source`."""
        sender = source.partition("/")[0]
        for name in (source, sender):
            if name in self.by_source:
                return self.by_source[name]
        return self.after_ms if sender in REPEATING else 0


@dataclass(frozen=True, slots=True)
class Silence:
    """over: the alert is, for `reason`.  look_at: else when to look again (ms), 0 for never.

    sender_silent: it would be over, were not its sender silent altogether.
    """

    over: bool = False
    look_at: int = 0
    reason: str = ""
    sender_silent: bool = False


def silence(record: Record, source: Source | None, after_ms: int, now: int) -> Silence:
    """Whether `record` has been silent for too long at `now` (ms), given what was heard of its sender.

    | the alert                      | its sender                              | then                               |
    | is resolved                    |                                         | nothing                            |
    | is one of our own, a test page |                                         | nothing                            |
    | unheard for 30 days            | whatever                                | over, if somebody was told of it   |
    | its sender does not repeat     |                                         | looked at after 30 days            |
    | unheard for less than after_ms |                                         | looked at when that is over        |
    | unheard for after_ms           | was heard within the last hour, and not | over                               |
    |                                | silent for an hour at any time since    |                                    |
    | unheard for after_ms           | back from a silence                     | its time begins anew with that     |
    | unheard for after_ms           | silent for over an hour                 | looked at again                    |
    """
    if record.status is Status.RESOLVED or record.alert.source in _ENDED_BY_US:
        return Silence()
    forgotten_at = record.last_heard + FORGOTTEN_AFTER_MS
    if now >= forgotten_at and any(told.is_open for told in record.told):
        return Silence(over=True, reason=_reason(now - record.last_heard))
    if not after_ms:
        return Silence(look_at=forgotten_at if now < forgotten_at else 0)
    heard_since = max(record.last_heard, source.since if source else 0)
    over_at = heard_since + after_ms
    if now < over_at:
        return Silence(look_at=over_at)
    if source is None or now > source.last + SOURCE_SILENT_AFTER_MS:
        return Silence(look_at=now + _LOOK_AGAIN_MS, sender_silent=True)
    return Silence(over=True, reason=_reason(now - record.last_heard))


def resolved_by_us(alert: Alert, reason: str) -> Alert:
    """The alert as it is put down once it is over by silence."""
    return replace(alert, status=Status.RESOLVED, ended_at=0, notes=(*alert.notes, reason))


def _reason(silent_ms: int) -> str:
    minutes = silent_ms // 60_000
    hours, rest = divmod(minutes, 60)
    span = f"{hours} h" if hours and not rest else f"{hours} h {rest} min" if hours else f"{rest} min"
    return f"resolved by alertrouter: its sender has not repeated it for {span}"
