"""What a sender posts for an alert that a test writes in its short form: the rest is as the sender would have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from zlib import crc32

import msgspec

from alertrouter.simulation.cases import Sent
from alertrouter.sources.alertmanager import fingerprint_of

_NO_TIME = "0001-01-01T00:00:00Z"
_COLOURS = {"recovered": "success", "warn": "warning", "re-warn": "warning"}


@dataclass(slots=True)
class Senders:
    """What the senders of one test remember.

    last:   what each source said last.
    began:  when each of its alerts last began to fire (ms), and whether it still does.
    """

    last: dict[str, Sent] = field(default_factory=dict)
    began: dict[tuple[str, str], tuple[int, bool]] = field(default_factory=dict)

    def post(self, sent: Sent, now: int) -> Sequence[tuple[bytes, str]]:
        """The bodies that are posted at `now` (ms), each with its content type."""
        before = self.last.get(sent.source)
        if sent.body is not None:
            self.last[sent.source] = sent
            return [(sent.body, sent.content_type)]
        if before is not None and before.body is not None and "same" in sent.forms[0]:
            return [(before.body, before.content_type)]
        forms = []
        last = before.forms[-1] if before and before.forms else {}
        for form in sent.forms:
            last = _changed(last, form) if form.get("same") else form
            forms.append(last)
        self.last[sent.source] = Sent(sent.source, forms=tuple(forms))
        return [(body, "application/json") for body in _WRITERS[sent.sender](self, sent.source, forms, now)]

    def since(self, source: str, identity: str, now: int, *, firing: bool) -> int:
        """Since when an alert fires, or fired until now."""
        began, fires = self.began.get((source, identity), (now, firing))
        if firing and not fires:
            began = now
        self.began[source, identity] = (began, firing)
        return began


def _changed(last: Mapping[str, Any], form: Mapping[str, Any]) -> Mapping[str, Any]:
    """The alert before, with what is written now in place of what was; labels and annotations one by one."""
    merged = {
        name: {**last[name], **value} if isinstance(value, dict) and isinstance(last.get(name), dict) else value
        for name, value in form.items()
    }
    return {**last, **merged}


def _alertmanager(senders: Senders, source: str, forms: Sequence[Mapping[str, Any]], now: int) -> list[bytes]:
    """https://prometheus.io/docs/alerting/latest/configuration/#webhook_config"""
    alerts = [_alertmanager_alert(senders, source, form, now) for form in forms]
    body = {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing" if any(alert["status"] == "firing" for alert in alerts) else "resolved",
        "receiver": "alertrouter",
        "groupLabels": {},
        "commonLabels": _common([alert["labels"] for alert in alerts]),
        "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
        "externalURL": "http://alertmanager.example.org",
        "alerts": alerts,
    }
    return [msgspec.json.encode(body)]


def _alertmanager_alert(senders: Senders, source: str, form: Mapping[str, Any], now: int) -> dict[str, Any]:
    labels = form.get("labels", {})
    status = form.get("status", "firing")
    fingerprint = form.get("fingerprint") or fingerprint_of(labels)
    since = senders.since(source, fingerprint, now, firing=status == "firing")
    return {
        "status": status,
        "labels": labels,
        "annotations": form.get("annotations", {}),
        "startsAt": form.get("startsAt") or _rfc3339(since),
        "endsAt": form.get("endsAt") or (_NO_TIME if status == "firing" else _rfc3339(now)),
        "generatorURL": form.get("generatorURL", ""),
        "fingerprint": fingerprint,
    }


def _common(each: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *others = each
    return {name: text for name, text in first.items() if all(other.get(name) == text for other in others)}


def _datadog(senders: Senders, source: str, forms: Sequence[Mapping[str, Any]], now: int) -> list[bytes]:
    """The template of docs/senders/datadog.md; one body for each notification."""
    return [msgspec.json.encode(_notification(senders, source, form, now)) for form in forms]


def _notification(senders: Senders, source: str, form: Mapping[str, Any], now: int) -> dict[str, Any]:
    title = form.get("title", "")
    transition = form.get("transition", "Triggered")
    monitor = form.get("monitor_id") or str(crc32(title.encode()))
    group = form.get("aggreg_key") or form.get("scope", "")
    firing = transition.lower() != "recovered"
    since = senders.since(source, f"{monitor}:{group}", now, firing=firing)
    alert = {
        "id": monitor,
        "title": title,
        "transition": transition,
        "type": form.get("type") or _COLOURS.get(transition.lower(), "error"),
        "priority": form.get("priority", ""),
        "cycle_key": form.get("cycle_key") or str(since),
        "aggreg_key": form.get("aggreg_key", ""),
        "scope": form.get("scope", ""),
        "status": "",
        "metric": form.get("metric", ""),
        "metric_namespace": "",
        "query": form.get("query", ""),
    }
    return {
        "schema": "alertrouter-datadog/1",
        "id": f"{monitor}{now}",
        "event_type": form.get("event_type", "metric_alert_monitor"),
        "title": f"[{transition}] {title}",
        "text": form.get("text", ""),
        "date": str(now),
        "last_updated": str(now),
        "org": {"id": form.get("org_id", "1"), "name": ""},
        "alert": alert,
        "hostname": form.get("hostname", ""),
        "priority": "normal",
        "tags": ",".join(form.get("tags", ())),
        "link": form.get("link", ""),
        "snapshot": form.get("snapshot", ""),
        "user": "",
        "username": "",
        "email": "",
    }


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_Writer = Callable[[Senders, str, Sequence[Mapping[str, Any]], int], list[bytes]]
_WRITERS: Mapping[str, _Writer] = MappingProxyType({"alertmanager": _alertmanager, "datadog": _datadog})
