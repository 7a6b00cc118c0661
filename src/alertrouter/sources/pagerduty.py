"""PagerDuty's own Events API v2: the body that a tool posts which pages PagerDuty today.

https://developer.pagerduty.com/docs/send-alert-event describes it. What PagerDuty would refuse is refused here, with all
its faults at once as PagerDuty lists them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from alertrouter.alarms import DIGEST, PAGE_TEST, SELF
from alertrouter.alert import (
    DEDUP_KEY_LIMIT,
    PAGERDUTY,
    Alert,
    CommonEvent,
    Enqueued,
    Image,
    Link,
    Severity,
    Status,
    alert_id,
)
from alertrouter.errors import BadPayload
from alertrouter.sources import SENDERS
from alertrouter.sources.body import LONGEST_CODE, REPLACED, read_json
from alertrouter.sources.instant import Instant, read_rfc3339
from alertrouter.sources.payload import ParsedPayload
from alertrouter.sources.text import as_text, links, one_line, web_address

#: The name under which rules see the default routing key: `raw_event.routing_key`.
DEFAULT_INTEGRATION = "default"

_STATUSES = {"trigger": Status.FIRING, "acknowledge": Status.ACKNOWLEDGED, "resolve": Status.RESOLVED}
#: How the ids begin under which other senders' alerts and our own are told.
_OURS = re.compile(rf"({'|'.join((*SENDERS, PAGERDUTY, SELF, DIGEST, PAGE_TEST))})(/[^:]*)?:")
_TEXTS = ("timestamp", "component", "group", "class")
_KEY_LENGTH = 32
_DIGEST_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it was posted. The routing key is in it."""

    members: dict[str, Any]
    notes: tuple[str, ...] = ()


def parse(body: bytes, source: str, new_key: Callable[[], str]) -> ParsedPayload:
    """The one alert of an event. Raises BadPayload with every fault."""
    event = read_event(body)
    return ParsedPayload(alerts=(read_alert(event, source, new_key),), notes=event.notes)


def read_event(body: bytes) -> Event:
    """The event in a body. Raises BadPayload, without a list of faults, where the body is no JSON object."""
    decoded = read_json(body)
    if not isinstance(decoded.value, dict):
        raise BadPayload("wrong shape: expected an Events API v2 event, an object with `event_action` and `payload`")
    return Event(decoded.value, decoded.notes)


@dataclass(frozen=True, slots=True)
class Change:
    """A change event, https://developer.pagerduty.com/docs/send-change-event, without its routing key."""

    source: str
    event: dict[str, Any]

    @property
    def _payload(self) -> dict[str, Any]:
        payload: dict[str, Any] = self.event["payload"]
        return payload

    @property
    def summary(self) -> str:
        """What was changed, in one line."""
        return one_line(as_text(self._payload.get("summary")))

    @property
    def origin(self) -> str:
        """Who or what changed it."""
        return as_text(self._payload.get("source")) or "unknown"

    @property
    def made(self) -> Instant:
        """When, by the sender's clock."""
        # PagerDuty's own Python client puts a Z behind the offset that is there already
        return read_rfc3339(as_text(self._payload.get("timestamp")).replace("+00:00Z", "Z"))

    @property
    def details(self) -> dict[str, Any]:
        """More about it."""
        details = self._payload.get("custom_details")
        return details if isinstance(details, dict) else {}

    @property
    def links(self) -> tuple[Link, ...]:
        """Where to read of it."""
        return _read_links(self.event.get("links"))


def read_change(event: Event, source: str) -> Change:
    """The change event that came by the integration that `source` names. Raises BadPayload with every fault."""
    payload = event.members.get("payload")
    faults = []
    if not isinstance(payload, dict):
        payload = {}
        faults.append("'payload' is missing or no object")
    elif not as_text(payload.get("summary")).strip():
        faults.append("'payload.summary' is missing or blank")
    if faults:
        raise BadPayload(f"not a change event: {'; '.join(faults)}", faults=faults)
    texts = {name: as_text(payload[name]) for name in ("summary", "source") if name in payload}
    name = source.partition("/")[2] or DEFAULT_INTEGRATION
    return Change(source, {**event.members, "routing_key": name, "payload": {**payload, **texts}})


def routing_key_of(event: Event, headers: Mapping[str, str]) -> str:
    """The credential: in the event, or in the header of PagerDuty's older clients, https://github.com/PagerDuty/pdpyras.

    Raises BadPayload where there is none.
    """
    key = event.members.get("routing_key") or headers.get("X-Routing-Key")
    if isinstance(key, str) and key.strip():
        return key.strip()
    fault = "'routing_key' must be a string" if key else "'routing_key' is missing or blank"
    raise BadPayload(fault, faults=[fault])


def unknown_key(key: str) -> BadPayload:
    """What is wrong with a routing key that nobody has."""
    faults = []
    if len(key) != _KEY_LENGTH:
        faults.append(f"Length of 'routing_key' is incorrect (should be {_KEY_LENGTH} characters)")
    if not (key.isascii() and key.isalnum()):
        faults.append("'routing_key' cannot contain non-alphanumeric characters.")
    faults = faults or ["Invalid routing key"]
    return BadPayload("; ".join(faults), faults=faults)


def read_alert(event: Event, source: str, new_key: Callable[[], str]) -> Alert:
    """The alert of an event that came by the integration that `source` names. Raises BadPayload with every fault.

    A trigger without `dedup_key` always opens an alert of its own at PagerDuty: `new_key` makes its identity. The
    routing key is a credential and does not get into the alert: rules see the name of its integration in its place.
    """
    members = event.members
    faults = _faults(members, DEDUP_KEY_LIMIT * (LONGEST_CODE if REPLACED in event.notes else 1))
    if faults:
        raise BadPayload(f"not an Events API v2 event: {'; '.join(faults)}", faults=faults)
    payload = members.get("payload") or {}
    details, notes = _read_details(payload.get("custom_details"))
    texts = {name: as_text(payload.get(name)) for name in _TEXTS}
    key = members.get("dedup_key") or new_key()
    status = _STATUSES[members["event_action"]]
    return Alert(
        source=source,
        fingerprint=key,
        status=status,
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
        links=_read_links(members.get("links")),
        client=as_text(members.get("client")),
        client_url=web_address(as_text(members.get("client_url"))),
        raw={**members, "routing_key": source.partition("/")[2] or DEFAULT_INTEGRATION},
        notes=(*event.notes, *notes),
        enqueued=Enqueued(
            dedup_key=key if _may_be_told(key) else alert_id(source, key),
            # PagerDuty too looks at the payload of triggers only
            content=_digest(payload) if status is Status.FIRING else "",
            images=_read_images(members.get("images")),
        ),
    )


def _may_be_told(key: str) -> bool:
    """Whether PagerDuty is told the client's own key.

    It may call one of blanks missing, and one too long that has codes in place of single characters. And whoever names
    the alert of another sender must not close it.
    """
    return bool(key.strip()) and len(key) <= DEDUP_KEY_LIMIT and not _OURS.match(key)


def _digest(payload: dict[str, Any]) -> str:
    """What tells one text from another. Not the time, nor client and links: they differ between members of an HA pair."""
    content = {name: value for name, value in payload.items() if name != "timestamp"}
    return sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:_DIGEST_LENGTH]


def _faults(event: dict[str, Any], key_limit: int) -> list[str]:
    action, key, payload = event.get("event_action"), event.get("dedup_key"), event.get("payload")
    faults = []
    if not isinstance(action, str) or action not in _STATUSES:
        faults.append("'event_action' must be trigger, acknowledge or resolve")
    if key is not None and not isinstance(key, str):
        faults.append("'dedup_key' must be a string")
    elif key is not None and len(key) > key_limit:
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


def _objects(sent: Any) -> list[dict[str, Any]]:
    return [each for each in sent if isinstance(each, dict)] if isinstance(sent, list) else []


def _read_links(sent: Any) -> tuple[Link, ...]:
    return links(
        (link["href"], as_text(link.get("text"))) for link in _objects(sent) if isinstance(link.get("href"), str)
    )


def _read_images(sent: Any) -> tuple[Image, ...]:
    return tuple(
        Image(image["src"], web_address(as_text(image.get("href"))), as_text(image.get("alt")))
        for image in _objects(sent)
        if isinstance(image.get("src"), str)
    )
