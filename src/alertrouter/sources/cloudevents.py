"""CloudEvents 1.0 over HTTP: structured, binary and batched.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md describes the three. A
CloudEvent says what happened, not whether that is an alert: the last word of its `type`, or `status` in its data, does.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.limits import LIMITS
from alertrouter.sources.alertmanager import SEVERITIES
from alertrouter.sources.body import fit_text, header, read_json, read_text
from alertrouter.sources.payload import ParsedPayload, Skipped
from alertrouter.sources.text import links, quoted, web_address
from alertrouter.sources.values import details, escaped, mapping, moment, shown, told

#: The last word of a `type`, such as org.example.disk.resolved, and the values of `status` in the data. Words that events
#: other than alerts end in as well, such as created and opened, are none of these.
_STATUSES: Mapping[str, Status] = {
    word: status
    for status, words in {
        Status.FIRING: "firing fired triggered trigger alerting alarm raised problem active",
        Status.ACKNOWLEDGED: "acknowledged acknowledge",
        Status.RESOLVED: "resolved resolve ok recovered recovery cleared closed normal inactive",
    }.items()
    for word in words.split()
}

_ATTRIBUTES = ("id", "source", "specversion", "type", "subject", "time", "datacontenttype", "dataschema")
_PREFIX = "ce-"

#: Some producers end a type in the version of its data: org.example.disk.resolved.v2.
_VERSION = re.compile(r"v\d+", re.ASCII)

_SUMMARIES = ("summary", "title", "message", "description")


def parse(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
    """The alerts of an event or a batch of them. Raises BadPayload when it is neither."""
    if header(headers, f"{_PREFIX}specversion") or header(headers, f"{_PREFIX}id"):
        event, notes = _read_binary(body, headers)
        return _read_all([event], source, notes)
    decoded = read_json(body)
    if isinstance(decoded.value, list):
        if len(decoded.value) > LIMITS.alerts:
            raise BadPayload(f"more than {LIMITS.alerts:,} events in one body", status=413)
        return _read_all(decoded.value, source, decoded.notes)
    if not isinstance(decoded.value, dict) or "specversion" not in decoded.value:
        raise BadPayload(
            "wrong shape: expected a CloudEvent: `ce-` headers, or an object with `specversion`, or a list"
        )
    return _read_all([decoded.value], source, decoded.notes)


def _read_binary(body: bytes, headers: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The event whose attributes are headers and whose data is the body, in its structured form."""
    event: dict[str, Any] = {}
    for name in headers:
        if name.lower().startswith(_PREFIX):
            # https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#3132-http-header-values
            event[name.lower().removeprefix(_PREFIX)] = fit_text(
                unquote(header(headers, name), errors="surrogateescape")
            )
    content_type = header(headers, "content-type")
    event["datacontenttype"] = content_type
    if not body.strip():
        return event, ()
    if not content_type or "json" in content_type.lower():
        decoded = read_json(body)
        return event | {"data": decoded.value}, decoded.notes
    text = read_text(body)
    return event | {"data": text.value}, text.notes


def _read_all(events: list[Any], source: str, notes: tuple[str, ...]) -> ParsedPayload:
    alerts: list[Alert] = []
    skipped: list[Skipped] = []
    ignored: list[str] = []
    for position, event in enumerate(events):
        try:
            read = _read_event(mapping(event), source, notes)
        except BadPayload as bad:
            skipped.append(Skipped(position, bad.reason))
        else:
            if isinstance(read, Alert):
                alerts.append(read)
            else:
                ignored.append(read)
    return ParsedPayload(alerts=tuple(alerts), skipped=tuple(skipped), ignored=tuple(ignored), notes=notes)


def _read_event(event: dict[str, Any], source: str, notes: tuple[str, ...]) -> Alert | str:
    """The alert, or why the event is none. Raises BadPayload for what is no CloudEvent, and where an alert could be lost."""
    version, kind, origin = (told(event.get(name)) for name in ("specversion", "type", "source"))
    if not version.startswith("1."):
        raise BadPayload(f"`specversion` is {quoted(version)}; expected a CloudEvent of version 1.0")
    if not kind or not origin or not told(event.get("id")):
        raise BadPayload("a CloudEvent needs `id`, `source` and `type`")
    data, doubts = _read_data(event)
    members = mapping(data)
    family, last = _split_type(kind)
    status = _STATUSES.get(told(members.get("status")).lower()) or _STATUSES.get(last)
    if status is None:
        return f"neither the type {quoted(kind)} nor `status` in the data says whether an alert opens or closes"
    fingerprint = _identify(event, members, family)
    if not fingerprint:
        if status is not Status.FIRING:
            raise BadPayload("nothing tells which alert this closes: no `subject`, and no `dedup_key` in the data")
        fingerprint = f"{escaped(origin)}:%event:{told(event.get('id'))}"
        doubts = (*doubts, "neither `subject` nor `dedup_key` names the alert, so nothing can close it")

    at = moment(event.get("time"))
    severity, unknown = _read_severity(members)
    return Alert(
        source=source,
        fingerprint=fingerprint,
        status=status,
        event=CommonEvent(
            summary=next((text for name in _SUMMARIES if (text := shown(members.get(name)))), "")
            or shown(data)
            or f"{kind}: {told(event.get('subject')) or origin}",
            source=told(event.get("subject")) or origin,
            severity=severity,
            timestamp=at.text,
            component=told(members.get("component")) or told(members.get("service")),
            group=origin,
            class_=kind,
            custom_details=details(
                {f"ce_{name}": event.get(name) for name in _ATTRIBUTES} | ({} if members else {"data": data}), members
            ),
        ),
        episode_at=at.ms if status is Status.FIRING else 0,
        ended_at=at.ms if status is Status.RESOLVED else 0,
        links=links(((told(members.get("url")), "Source"),)),
        client="CloudEvents",
        client_url=web_address(told(members.get("url"))),
        raw=event,
        notes=(*notes, *doubts, *unknown),
    )


def _split_type(kind: str) -> tuple[str, str]:
    """What stays the same while an alert opens and closes, and the word that says which; "" where there is none."""
    parts = kind.split(".")
    if len(parts) > 1 and _VERSION.fullmatch(parts[-1]):
        parts.pop()
    last = parts[-1].lower()
    return (".".join(parts[:-1]), last) if last in _STATUSES else (kind, "")


def _identify(event: dict[str, Any], data: dict[str, Any], family: str) -> str:
    """Producer and its own key, else producer, type without its last word, and subject. "" where there is neither.

    `%key`, and `%event` of an event without either, stand where the type does, and no escaped type looks like them.
    """
    origin = escaped(told(event.get("source")))
    if key := told(data.get("dedup_key")):
        return f"{origin}:%key:{key}"
    subject = told(event.get("subject"))
    return f"{origin}:{escaped(family)}:{subject}" if subject else ""


def _read_data(event: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """The data as JSON can say it; in base64, it may be JSON underneath."""
    encoded = event.get("data_base64")
    if not isinstance(encoded, str):
        return event.get("data"), ()
    try:
        decoded = read_json(b64decode(encoded, validate=True))
    except (NotBase64, BadPayload, ValueError):
        return encoded, ("`data_base64` holds no JSON: left as it is",)
    return decoded.value, decoded.notes


def _read_severity(data: dict[str, Any]) -> tuple[Severity, tuple[str, ...]]:
    written = told(data.get("severity"))
    severity = SEVERITIES.get(written.lower())
    if severity or not written:
        return severity or Severity.ERROR, ()
    return Severity.ERROR, (f"severity {quoted(written)} is not known: taken as error",)
