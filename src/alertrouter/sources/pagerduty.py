"""PagerDuty's own Events API v2: the body that a tool posts which pages PagerDuty today.

https://developer.pagerduty.com/docs/send-alert-event describes it. What PagerDuty would refuse is refused here, with all
its faults at once as PagerDuty lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alertrouter.alert import DEDUP_KEY_LIMIT, Alert, CommonEvent, Link, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources.body import read_json
from alertrouter.sources.payload import ParsedPayload
from alertrouter.sources.text import as_text, links, one_line, web_address

_STATUSES = {"trigger": Status.FIRING, "acknowledge": Status.ACKNOWLEDGED, "resolve": Status.RESOLVED}
_TEXTS = ("timestamp", "component", "group", "class")


def parse(body: bytes, source: str, new_key: Callable[[], str]) -> ParsedPayload:
    """The one alert of an event. Raises BadPayload with every fault.

    A trigger without `dedup_key` always opens an alert of its own at PagerDuty: `new_key` makes its identity. The
    routing key is a credential and does not get into the alert.
    """
    decoded = read_json(body)
    value = decoded.value
    if not isinstance(value, dict):
        raise BadPayload("wrong shape: expected an Events API v2 event, an object with `event_action` and `payload`")
    faults = _faults(value)
    if faults:
        raise BadPayload(f"not an Events API v2 event: {'; '.join(faults)}")
    payload = value.get("payload") or {}
    details, notes = _read_details(payload.get("custom_details"))
    texts = {name: as_text(payload.get(name)) for name in _TEXTS}
    key = value.get("dedup_key") or new_key()
    alert = Alert(
        source=source,
        fingerprint=key,
        status=_STATUSES[value["event_action"]],
        event=CommonEvent(
            summary=one_line(as_text(payload.get("summary"))) or f"alert {key}",
            source=as_text(payload.get("source")) or "unknown",
            severity=_read_severity(payload) or Severity.ERROR,
            timestamp=texts["timestamp"],
            component=texts["component"],
            group=texts["group"],
            class_=texts["class"],
            custom_details=details,
        ),
        links=_read_links(value.get("links")),
        client=as_text(value.get("client")),
        client_url=web_address(as_text(value.get("client_url"))),
        raw={name: member for name, member in value.items() if name != "routing_key"},
        notes=(*decoded.notes, *notes),
    )
    return ParsedPayload(alerts=(alert,), notes=decoded.notes)


def _faults(event: dict[str, Any]) -> list[str]:
    action, key, payload = event.get("event_action"), event.get("dedup_key"), event.get("payload")
    faults = []
    if not isinstance(action, str) or action not in _STATUSES:
        faults.append("'event_action' must be trigger, acknowledge or resolve")
    if key is not None and not isinstance(key, str):
        faults.append("'dedup_key' must be a string")
    elif key is not None and len(key) > DEDUP_KEY_LIMIT:
        faults.append(f"'dedup_key' is longer than {DEDUP_KEY_LIMIT} characters")
    elif not key and action in ("acknowledge", "resolve"):
        faults.append(f"'dedup_key' is missing: it names the alert to {action}")
    if payload is not None and not isinstance(payload, dict):
        faults.append("'payload' must be an object")
    elif action == "trigger":
        faults += _payload_faults(payload or {})
    return faults


def _payload_faults(payload: dict[str, Any]) -> list[str]:
    """What keeps a payload from being shown. An acknowledge or a resolve shows nothing, so it is never held to this."""
    faults = [
        f"'payload.{name}' is missing or blank"
        for name in ("summary", "source")
        if not as_text(payload.get(name)).strip()
    ]
    if _read_severity(payload) is None:
        faults.append(f"'payload.severity' must be one of {', '.join(Severity)}")
    return faults


def _read_severity(payload: dict[str, Any]) -> Severity | None:
    return next((severity for severity in Severity if severity == payload.get("severity")), None)


def _read_details(details: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    if details is None:
        return {}, ()
    if isinstance(details, dict):
        return details, ()
    return {"custom_details": details}, ("custom_details is no object: kept under a member of that name",)


def _read_links(sent: Any) -> tuple[Link, ...]:
    given = [link for link in sent if isinstance(link, dict)] if isinstance(sent, list) else []
    return links((link["href"], as_text(link.get("text"))) for link in given if isinstance(link.get("href"), str))
