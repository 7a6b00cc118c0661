"""Prometheus Alertmanager's webhook, versions 3 and 4, and the tools that imitate it.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config describes the body. Every alert is read by
itself: the status of the whole body is wrong when `max_alerts` cut firing alerts off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from alertrouter.alert import Alert, CommonEvent, Link, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources.body import read_json
from alertrouter.sources.instant import UNKNOWN, Instant, read_rfc3339
from alertrouter.sources.payload import ParsedPayload, Skipped
from alertrouter.sources.text import as_text, first_line, first_shown, links, one_line, quoted, web_address

#: Values of the label `severity`, in lower case. Any other is an error: rather one page too many than one missed.
SEVERITIES: Mapping[str, Severity] = {
    word: severity
    for severity, words in {
        Severity.CRITICAL: "critical crit fatal emergency emerg panic disaster page p0 p1",
        Severity.ERROR: "error err high major p2",
        Severity.WARNING: "warning warn minor medium moderate p3",
        Severity.INFO: "info informational information notice low none debug ok p4 p5",
    }.items()
    for word in words.split()
}

_SOURCE_LABELS = ("instance", "host", "hostname", "node", "pod", "device", "service", "job", "cluster")
_COMPONENT_LABELS = ("component", "service", "job")
_GROUP_LABELS = ("group", "cluster", "namespace")

#: Annotations that make a summary: the first two as a whole, the others by their first line.
_SUMMARIES = ("summary", "title")
_DESCRIPTIONS = ("message", "description")
_LABELS_IN_SUMMARY = 3

_STATUSES = {"firing": Status.FIRING, "resolved": Status.RESOLVED}

#: Go's zero time: no time at all. Alertmanager sends it as `endsAt` while an alert fires.
_ZERO_TIME = "0001-01-01T00:00:00"

_TEXT_ONLY = frozenset((str,))

#: More than fit into the largest body we take, at the 300 bytes that the smallest real alert has.
ALERTS_LIMIT = 65_536

#: What the alerts of a body share is kept with each of them as long as all these copies stay below this many bytes.
_COPIES_LIMIT = 64 * 1024 * 1024

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3


@dataclass(frozen=True, slots=True)
class _Group:
    """What the alerts of one body share. `raw` is the body itself, `notes` what had to be done to it."""

    source: str
    raw: dict[str, Any]
    status: Any
    client: str
    client_url: str
    notes: tuple[str, ...]


def parse(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
    """The alerts of a webhook body; an empty list of them is fine. Raises BadPayload when it is no such body.

    `headers` play no part: the sender always posts JSON.
    """
    decoded = read_json(body)
    payload = decoded.value
    if not isinstance(payload, dict) or not isinstance(payload.get("alerts"), list):
        raise BadPayload(
            "wrong shape: expected Alertmanager's own webhook body, an object with a list named `alerts`; "
            "a custom `payload` in webhook_configs cannot be read"
        )
    return read_alerts(payload, source, decoded.notes, len(body))


def read_alerts(
    payload: dict[str, Any], source: str, notes: tuple[str, ...], size: int, client: str = "Alertmanager"
) -> ParsedPayload:
    """The alerts of a decoded body that has a list of them; also of a sender that has Alertmanager inside, `client`.

    `notes` are on the decoding; `size` is the body's, in bytes. Raises BadPayload where they are too many.
    """
    items = payload["alerts"]
    if len(items) > ALERTS_LIMIT:
        raise BadPayload(f"more than {ALERTS_LIMIT} alerts in one body", status=413)
    group = _read_group(payload, source, notes, size, client)
    alerts: list[Alert] = []
    skipped: list[Skipped] = []
    for position, item in enumerate(items):
        alert = _read_alert(item, group)
        if isinstance(alert, Alert):
            alerts.append(alert)
        else:
            skipped.append(Skipped(position, alert))
    return ParsedPayload(
        alerts=tuple(alerts),
        skipped=tuple(skipped),
        truncated=_count(payload.get("truncatedAlerts")),
        notes=group.notes,
    )


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Alertmanager's fingerprint of a label set: FNV-1a over the sorted names and values, as 16 hex digits.

    https://github.com/prometheus/common/blob/main/model/signature.go
    """
    digest = _FNV_OFFSET
    for byte in b"".join(part.encode() + b"\xff" for pair in sorted(labels.items()) for part in pair):
        digest = (digest ^ byte) * _FNV_PRIME & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


def _read_group(payload: dict[str, Any], source: str, notes: tuple[str, ...], size: int, client: str) -> _Group:
    raw = payload
    copies = len(payload["alerts"])
    if size * copies > _COPIES_LIMIT:
        shared = {name: value for name, value in payload.items() if name != "alerts"}
        if len(msgspec.json.encode(shared)) * copies > _COPIES_LIMIT:
            raw = {}
            notes = (*notes, "the body has so many alerts that what they share was left out of raw_event")
    external_url = payload.get("externalURL")
    return _Group(
        source=source,
        raw=raw,
        status=payload.get("status"),
        client=client,
        client_url=web_address(external_url) if isinstance(external_url, str) else "",
        notes=notes,
    )


def _read_alert(item: Any, group: _Group) -> Alert | str:
    """The alert, or why there is none."""
    if not isinstance(item, dict):
        return f"expected an object, got {quoted(item)}"
    labels = _texts(item.get("labels"))
    if labels is None:
        return f"labels: expected an object, got {quoted(item['labels'])}"
    fingerprint = _read_fingerprint(item.get("fingerprint"), labels)
    if not fingerprint:
        return "neither a fingerprint nor labels: nothing tells this alert from others"

    notes = group.notes
    annotations = _texts(item.get("annotations"))
    if annotations is None:
        annotations = {}
        notes = (*notes, f"annotations: expected an object, got {quoted(item['annotations'])}")
    status = _read_status(item.get("status"), group.status)
    if status is None:
        status = Status.FIRING
        notes = (*notes, "neither the alert nor its group has a status we know: taken as firing")
    begun = _read_time(item.get("startsAt"))
    if begun is None:
        begun = UNKNOWN
        notes = (*notes, f"startsAt: expected a date and time with a zone, got {quoted(item['startsAt'])}")
    severity_label = labels.get("severity", "")
    severity = SEVERITIES.get(severity_label.strip().lower())
    if severity is None:
        severity = Severity.ERROR
        if severity_label:
            notes = (*notes, f"severity {quoted(severity_label)} is not known: taken as error")
    ended = _read_time(item.get("endsAt")) if status is Status.RESOLVED else None

    return Alert(
        source=group.source,
        fingerprint=fingerprint,
        status=status,
        event=CommonEvent(
            summary=_summarise(labels, annotations) or f"alert {fingerprint}",
            source=first_shown(labels, _SOURCE_LABELS) or group.client.lower(),
            severity=severity,
            timestamp=begun.text,
            component=first_shown(labels, _COMPONENT_LABELS),
            group=first_shown(labels, _GROUP_LABELS),
            class_=labels.get("alertname", ""),
            custom_details=_details(labels, annotations),
        ),
        episode=begun.text,
        episode_at=begun.ms,
        ended_at=ended.ms if ended else 0,
        links=_read_links(item.get("generatorURL"), annotations),
        client=group.client,
        client_url=group.client_url,
        raw={**group.raw, "alerts": [item]},
        notes=notes,
    )


def _texts(value: Any) -> dict[str, str] | None:
    """Labels or annotations as texts; None when they are no object."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        return None
    if _TEXT_ONLY.issuperset(map(type, value.values())):
        return value
    return {name: as_text(item) for name, item in value.items()}


def _read_fingerprint(value: Any, labels: Mapping[str, str]) -> str:
    """As sent, for only the sender knows which labels it counted; computed where it is missing; "" if neither can be."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return fingerprint_of(labels) if labels else ""


def _read_status(own: Any, shared: Any) -> Status | None:
    word = shared if own is None or own == "" else own
    return _STATUSES.get(word.strip().lower()) if isinstance(word, str) else None


def _read_time(value: Any) -> Instant | None:
    """UNKNOWN where the sender says nothing, None where it says something that is no time."""
    if value is None or value == "":
        return UNKNOWN
    if not isinstance(value, str):
        return None
    instant = read_rfc3339(value)
    return None if instant is UNKNOWN and not value.startswith(_ZERO_TIME) else instant


def _summarise(labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
    """One line for the responder: the author's own words, else the labels that tell most."""
    for name in _SUMMARIES:
        if (text := annotations.get(name)) and (line := one_line(text)):
            return line
    for name in _DESCRIPTIONS:
        if (text := annotations.get(name)) and (line := first_line(text)):
            return line
    alertname = one_line(labels.get("alertname", ""))
    names = [name for name in _SOURCE_LABELS if labels.get(name)] if alertname else sorted(labels)
    pairs = ", ".join(f"{name}={labels[name]}" for name in names[:_LABELS_IN_SUMMARY])
    return one_line(f"{alertname}: {pairs}" if alertname and pairs else alertname or pairs)


def _details(labels: dict[str, str], annotations: dict[str, str]) -> dict[str, str]:
    """Annotations and labels side by side. A label keeps its name; the annotation of that name gets a longer one."""
    details = {**annotations, **labels}
    if len(details) < len(labels) + len(annotations):
        for name, text in annotations.items():
            if name in labels:
                longer = f"annotation_{name}"
                while longer in details:
                    longer = f"annotation_{longer}"
                details[longer] = text
    return details


def _read_links(generator_url: Any, annotations: Mapping[str, str]) -> tuple[Link, ...]:
    return links(
        (
            (generator_url if isinstance(generator_url, str) else "", "Source"),
            (annotations.get("runbook_url", ""), "Runbook"),
            (annotations.get("dashboard_url", ""), "Dashboard"),
            (annotations.get("dashboardURL", ""), "Dashboard"),
        )
    )


def _count(value: Any) -> int:
    """A number of alerts, where it can be one."""
    return value if type(value) is int and 0 < value < 2**53 else 0
