"""Datadog's webhook: our template, the payload Datadog sends where there is none, and other people's templates.

https://docs.datadoghq.com/integrations/webhooks/ lists the variables; docs/senders/datadog.md has the template to paste. One
payload is one notification about one group of one monitor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources.body import is_form, read_form, read_json
from alertrouter.sources.datadog_fields import Fields, plain, read_fields, split_tags
from alertrouter.sources.datadog_markup import MonitorLink, Title, read_monitor_link, read_title, readable
from alertrouter.sources.instant import Instant, read_epoch
from alertrouter.sources.payload import ParsedPayload
from alertrouter.sources.text import first_line, links, quoted, web_address
from alertrouter.sources.values import escaped

#: $ALERT_TRANSITION, made plain. Whatever is not here neither pages nor resolves.
_TRANSITIONS: Mapping[str, Status] = {
    "triggered": Status.FIRING,
    "retriggered": Status.FIRING,
    "renotify": Status.FIRING,
    "warn": Status.FIRING,
    "rewarn": Status.FIRING,
    "nodata": Status.FIRING,
    "renodata": Status.FIRING,
    "recovered": Status.RESOLVED,
}
_WARNINGS = frozenset(("warn", "rewarn"))

_PRIORITIES: Mapping[str, Severity] = {
    "P1": Severity.CRITICAL,
    "P2": Severity.ERROR,
    "P3": Severity.WARNING,
    "P4": Severity.INFO,
    "P5": Severity.INFO,
}
_ALERT_TYPES: Mapping[str, Severity] = {
    "error": Severity.ERROR,
    "warning": Severity.WARNING,
    "info": Severity.INFO,
    "success": Severity.INFO,
}

#: What responders and rules find in `custom_details` besides the tags. A tag of such a name is in the list `tags` only.
_DETAILS = (
    "monitor_id",
    "transition",
    "event_type",
    "alert_type",
    "priority",
    "scope",
    "hostname",
    "metric",
    "metric_namespace",
    "query",
    "status_text",
    "text",
    "event_id",
    "org_id",
    "org_name",
    "cycle_key",
    "aggreg_key",
    "user",
    "username",
    "email",
)
_RESERVED = frozenset((*_DETAILS, "tags"))

#: One of these makes an object a notification.
_TELLING = frozenset(("event_title", "alert_title", "text", "monitor_id", "cycle_key", "aggreg_key"))

#: What stands in for an unknown monitor: keys that a recovery shares with its alert, and last the id of this one message.
_SUBSTITUTES = ("aggreg_key", "cycle_key", "event_id")

#: https://app.datadoghq.com/event/event?id=... : the site is before the path.
_EVENT_LINK = re.compile(r"(https?://[^/?#]+)/event[/?]")

_ADVICE = "use the payload template of docs/senders/datadog.md"


def parse(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
    """The one alert of a notification, or why it must not page. Raises BadPayload where a page could be lost by that."""
    decoded = read_form(body) if is_form(headers.get("content-type", ""), body) else read_json(body)
    payload = decoded.value
    fields = read_fields(payload if isinstance(payload, dict) else {})
    if not fields.has_transition and _TELLING.isdisjoint(fields.texts):
        raise BadPayload(f"wrong shape: expected an object or form with a Datadog monitor's variables; {_ADVICE}")

    title = _read_titles(fields)
    link = read_monitor_link(fields["text"])
    values = _complete(fields, title, link)
    if "transition" not in values:
        if "monitor_id" in values:
            raise BadPayload(f"neither a field nor the title says whether the monitor fires or recovers; {_ADVICE}")
        return ParsedPayload(ignored=("no notification of a monitor",), notes=decoded.notes)
    status = _TRANSITIONS.get(plain(values["transition"]))
    if status is None:
        reason = f"the transition {quoted(values['transition'])} neither opens nor closes an alert"
        return ParsedPayload(ignored=(reason,), notes=decoded.notes)
    fingerprint = _identify(values)
    if not fingerprint:
        raise BadPayload(f"nothing tells this alert from others: no monitor, no key, no event id; {_ADVICE}")

    date = read_epoch(values.get("date", ""))
    alert = Alert(
        source=source,
        fingerprint=fingerprint,
        status=status,
        event=_describe(values, title, fields.tags, date),
        episode=values.get("cycle_key", ""),
        episode_at=date.ms,
        ended_at=date.ms if status is Status.RESOLVED else 0,
        links=links(
            (
                (values.get("link", ""), "Datadog event"),
                (values.get("snapshot", ""), "Snapshot"),
                (_monitor_address(values, link), "Monitor"),
            )
        ),
        client="Datadog",
        client_url=web_address(values.get("link", "")),
        raw=payload,
        notes=(*decoded.notes, *_doubts(fields, title, values)),
    )
    return ParsedPayload(alerts=(alert,), notes=decoded.notes)


def _read_titles(fields: Fields) -> Title:
    """The event's title has more brackets, the alert's title fewer accidents: brackets from both, text from the latter."""
    event = read_title(fields["event_title"], _TRANSITIONS)
    alert = read_title(fields["alert_title"], _TRANSITIONS)
    return Title(
        text=alert.text or event.text,
        transition=event.transition or alert.transition,
        priority=event.priority or alert.priority,
        is_test=event.is_test or alert.is_test,
    )


def _complete(fields: Fields, title: Title, link: MonitorLink) -> dict[str, str]:
    """The variables by our names, what the payload lacks taken from the title's brackets and the Monitor Status link.

    "transition" is missing where nothing tells it, and "" where the template names it and Datadog had none.
    """
    values = dict(fields.texts)
    if fields.has_transition:
        values.setdefault("transition", "")
    elif plain(fields["status_text"]) in _TRANSITIONS:
        values["transition"] = values.pop("status_text")
    elif title.transition:
        values["transition"] = title.transition
    if link.monitor_id:
        values.setdefault("monitor_id", link.monitor_id)
    if link.group and values["monitor_id"] == link.monitor_id:
        values.setdefault("scope", link.group)
    # $PRIORITY, the event's, is easily mistaken for $ALERT_PRIORITY; its "normal" and "low" say nothing here
    spoken = (values.pop("alert_priority", ""), values.pop("priority", ""), title.priority)
    if priority := next((word.upper() for word in spoken if word.upper() in _PRIORITIES), ""):
        values["priority"] = priority
    return values


def _describe(values: Mapping[str, str], title: Title, tags: tuple[str, ...], date: Instant) -> CommonEvent:
    details = _read_details(values, tags)
    service = details.get("service", "")
    return CommonEvent(
        summary=title.text or first_line(details.get("text", "")) or f"Datadog: {values['transition']}",
        source=_read_source(values),
        severity=_read_severity(values),
        timestamp=date.text,
        component=service if isinstance(service, str) else service[0],
        group=values.get("scope", ""),
        class_=values.get("event_type") or values.get("metric", ""),
        custom_details=details,
    )


def _identify(values: Mapping[str, str]) -> str:
    """`<org>:<monitor>:<group>`; severity, title and text are no part of it. "" where nothing identifies the alert.

    The group is the aggregation key, else the scope, whose order may change, else the host.
    """
    org = escaped(values.get("org_id", "-"))
    if monitor_id := values.get("monitor_id"):
        scope = ",".join(sorted(split_tags(values.get("scope", ""))))
        group = values.get("aggreg_key") or scope or values.get("hostname") or "-"
        return f"{org}:{escaped(monitor_id)}:{group}"
    for field in _SUBSTITUTES:
        if value := values.get(field):
            return f"{org}:%{field}:{value}"  # no escaped id of a monitor looks like it
    return ""


def _read_severity(values: Mapping[str, str]) -> Severity:
    """Warnings are warnings, whatever the monitor's priority; then the priority decides, then the colour of the event."""
    transition = plain(values["transition"])
    alert_type = values.get("alert_type", "").lower()
    if transition in _WARNINGS or (transition == "renotify" and alert_type == "warning"):
        return Severity.WARNING
    priority = values.get("priority", "")
    return _PRIORITIES.get(priority) or _ALERT_TYPES.get(alert_type, Severity.ERROR)


def _read_source(values: Mapping[str, str]) -> str:
    scope = [part for part in split_tags(values.get("scope", "")) if part != "*"]
    host = next((part[5:] for part in scope if part.startswith("host:")), "")
    return values.get("hostname") or host or (scope[0] if scope else "") or "datadog"


def _read_details(values: Mapping[str, str], tags: tuple[str, ...]) -> dict[str, Any]:
    """The known variables, then every tag by its key: a text, or a list of texts where the key is repeated."""
    details: dict[str, Any] = {name: values[name] for name in _DETAILS if values.get(name)}
    if text := readable(values.get("text", "")):
        details["text"] = text
    if tags:
        details["tags"] = list(tags)
    by_key: dict[str, dict[str, None]] = {}  # the values as names: in order, and each once, however many there are
    for tag in (*tags, *split_tags(values.get("scope", ""))):
        key, colon, value = (part.strip() for part in tag.partition(":"))
        if key and colon and key not in _RESERVED:
            by_key.setdefault(key, {})[value] = None
    return details | {key: next(iter(found)) if len(found) == 1 else list(found) for key, found in by_key.items()}


def _monitor_address(values: Mapping[str, str], link: MonitorLink) -> str:
    """The message's own link, else the monitor's page on the site of the event's link."""
    site = _EVENT_LINK.match(values.get("link", ""))
    monitor_id = values.get("monitor_id", "")
    if link.href or site is None or not monitor_id.isdecimal():
        return link.href
    return f"{site[1]}/monitors/{monitor_id}"


def _doubts(fields: Fields, title: Title, values: Mapping[str, str]) -> list[str]:
    """What the responder should know about how this was read."""
    doubts = []
    if title.is_test:
        doubts.append("a test notification of the monitor")
    if not fields.has_transition and plain(fields["status_text"]) not in _TRANSITIONS:
        doubts.append(f"the payload does not name the transition, its title does: {_ADVICE}")
    if "monitor_id" not in values and "aggreg_key" not in values and "cycle_key" not in values:
        doubts.append(f"the payload names no monitor, so its recovery cannot close this alert: {_ADVICE}")
    return doubts
