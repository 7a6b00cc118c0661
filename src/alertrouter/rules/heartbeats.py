"""Which heartbeats an alert is a sign of."""

from __future__ import annotations

from collections.abc import Sequence

from alertrouter.alert import Alert, Status
from alertrouter.rules.evaluate import view_of
from alertrouter.rules.model import Heartbeat
from alertrouter.rules.moment import Moment


def heard_in(alert: Alert, heartbeats: Sequence[Heartbeat], now: int) -> list[Heartbeat]:
    """The heartbeats that `alert` is a sign of at `now` (ms since the epoch).

    Only what fires is one. The resolve of a heartbeat says that it ended, and is an alert like others: it closes what
    may have been opened before somebody made it a heartbeat.
    """
    if alert.status is not Status.FIRING:
        return []
    concerned = [each for each in heartbeats if not each.sources or alert.source in each.sources]
    if not concerned:
        return []
    view, moment = view_of(alert), Moment(now)
    return [
        each
        for each in concerned
        if not each.conditions or any(condition.holds(view, moment) for condition in each.conditions)
    ]
