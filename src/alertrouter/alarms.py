"""Alerts of our own. Those about ourselves go through the store like any other, past the rules, to the key of `pagerduty:self`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from alertrouter.alert import Alert, CommonEvent, Severity, Status

#: The sender of alerts about ourselves: no webhook can name it, because no parser does.
SELF = "alertrouter"
#: The sender of digests, one for each service that many alerts wait for.
DIGEST = "digest"
#: What is of these senders was heard from nobody: rules do not judge it, and it is not replayed.
OUR_OWN = frozenset({SELF, DIGEST})
#: Where they go: the routing key of our own service, or the default one where it has none.
SELF_DESTINATION = "pagerduty:self"
#: The sender of test pages, which no webhook can name either; they go through the rules.
PAGE_TEST = "page-test"
#: The alert that we send ourselves, to see that alerts are judged. It pages nobody. Redis' scripts keep it out of the
#: history, by this id.
CANARY = "alertrouter:canary"
#: How the name of a heartbeat is marked: where it stands for the alarm that it is not heard, and where it stands for the
#: rule that kept its alert from being sent.
HEARTBEAT = "heartbeat:"
#: How the name of a sender is marked where it stands for the alarm that its webhooks are refused.
REFUSED_SENDER = "sender-refused:"

#: And for the alarm that its webhooks are larger than may be.
OVERSIZED = "oversized:"


def alarm(
    name: str,
    summary: str,
    *,
    severity: Severity = Severity.CRITICAL,
    firing: bool = True,
    details: Mapping[str, Any] = MappingProxyType({}),
) -> Alert:
    """The alarm called `name`, firing or over. One name is one alert: raised again while it is open it pages nobody."""
    return Alert(
        source=SELF,
        fingerprint=name,
        status=Status.FIRING if firing else Status.RESOLVED,
        event=CommonEvent(
            summary=f"alertrouter: {summary}",
            source="alertrouter",
            severity=severity,
            class_=name,
            custom_details=dict(details),
        ),
        client="alertrouter",
    )
