"""Sentry's webhooks of an internal integration: issues, the alert rules about them, and metric alerts.

https://docs.sentry.io/organization/integrations/integration-platform/webhooks/ describes them. The header
`Sentry-Hook-Resource` says what a body is about; where a proxy has lost it, the body does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources.body import header, read_json_only
from alertrouter.sources.instant import Instant
from alertrouter.sources.payload import ParsedPayload
from alertrouter.sources.text import links, quoted, web_address
from alertrouter.sources.values import details, escaped, mapping, moment, shown, told

_LEVELS = {
    "fatal": Severity.CRITICAL,
    "error": Severity.ERROR,
    "warning": Severity.WARNING,
    "info": Severity.INFO,
    "debug": Severity.INFO,
}

#: What each `action` means. Any other, `assigned` among them, neither opens nor closes: who is assigned may be asleep.
_EVENT_ACTIONS = {"triggered": Status.FIRING}
_ISSUE_ACTIONS = {
    "created": Status.FIRING,
    "unresolved": Status.FIRING,
    "resolved": Status.RESOLVED,
    "archived": Status.RESOLVED,
    "ignored": Status.RESOLVED,  # as `archived` was called before
}
_METRIC_ACTIONS = {"critical": Status.FIRING, "warning": Status.FIRING, "resolved": Status.RESOLVED}


def parse(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
    """The one alert of a webhook, or why it must not page. Raises BadPayload when it is no such body."""
    decoded = read_json_only(body, headers)
    payload = mapping(decoded.value)
    data = mapping(payload.get("data"))
    resource = header(headers, "sentry-hook-resource") or _guess_resource(data)
    known = _RESOURCES.get(resource)
    if not data or not resource:
        raise BadPayload("wrong shape: expected a webhook of a Sentry integration, with `action` and `data`")
    if known is None:
        return ParsedPayload(ignored=(f"the resource {quoted(resource)} is no alert",), notes=decoded.notes)
    actions, read = known
    action = told(payload.get("action"))
    status = actions.get(action.lower())
    if status is None:
        reason = f"the action {quoted(action)} of {quoted(resource)} neither opens nor closes an alert"
        return ParsedPayload(ignored=(reason,), notes=decoded.notes)
    return ParsedPayload(alerts=(read(payload, data, source, status, decoded.notes),), notes=decoded.notes)


def _guess_resource(data: dict[str, Any]) -> str:
    members = {"event": "event_alert", "issue": "issue", "metric_alert": "metric_alert"}
    return next((resource for member, resource in members.items() if member in data), "")


def _read_event(
    payload: dict[str, Any], data: dict[str, Any], source: str, status: Status, notes: tuple[str, ...]
) -> Alert:
    """An alert rule that an event of an issue set off. It is the issue's alert: resolving the issue closes it."""
    event = mapping(data.get("event"))
    issue_id = told(event.get("issue_id"))
    if not issue_id:
        raise BadPayload("nothing tells this alert from others: no `data.event.issue_id`")
    tags = _read_tags(event.get("tags"))
    project = told(event.get("project"))
    at = moment(event.get("datetime") or event.get("timestamp"))
    url = web_address(told(event.get("web_url")))
    return Alert(
        source=source,
        fingerprint=f"issue:{issue_id}",
        status=status,
        event=CommonEvent(
            summary=shown(event.get("title")) or shown(event.get("message")) or f"issue {issue_id}",
            source=told(tags.get("server_name")) or "sentry",
            severity=_LEVELS.get(told(event.get("level")).lower(), Severity.ERROR),
            timestamp=at.text,
            component=shown(event.get("culprit")),
            group=project,
            class_=told(event.get("type")),
            custom_details=details(
                {
                    "issue_id": issue_id,
                    "event_id": event.get("event_id"),
                    "rule": data.get("triggered_rule"),
                    "level": event.get("level"),
                    "culprit": event.get("culprit"),
                    "message": event.get("message"),
                    "platform": event.get("platform"),
                    "project": project,
                    "action": payload.get("action"),
                },
                tags,
            ),
        ),
        links=links(((url, "Event"),)),
        client="Sentry",
        client_url=url,
        raw=payload,
        notes=notes,
    )


def _read_issue(
    payload: dict[str, Any], data: dict[str, Any], source: str, status: Status, notes: tuple[str, ...]
) -> Alert:
    issue = mapping(data.get("issue"))
    issue_id = told(issue.get("id"))
    if not issue_id:
        raise BadPayload("nothing tells this alert from others: no `data.issue.id`")
    project = mapping(issue.get("project"))
    name = told(project.get("slug")) or told(project.get("name"))
    url = web_address(told(issue.get("web_url")) or told(issue.get("permalink")))
    return Alert(
        source=source,
        fingerprint=f"issue:{issue_id}",
        status=status,
        event=CommonEvent(
            summary=shown(issue.get("title")) or f"issue {told(issue.get('shortId')) or issue_id}",
            source=name or "sentry",
            severity=_LEVELS.get(told(issue.get("level")).lower(), Severity.ERROR),
            timestamp=moment(issue.get("lastSeen")).text,
            component=shown(issue.get("culprit")),
            group=name,
            class_=told(issue.get("type")),
            custom_details=details(
                {
                    "issue_id": issue_id,
                    "short_id": issue.get("shortId"),
                    "level": issue.get("level"),
                    "culprit": issue.get("culprit"),
                    "platform": issue.get("platform"),
                    "project": name,
                    "first_seen": issue.get("firstSeen"),
                    "last_seen": issue.get("lastSeen"),
                    "count": issue.get("count"),
                    "action": payload.get("action"),
                }
            ),
        ),
        links=links(((url, "Issue"),)),
        client="Sentry",
        client_url=url,
        raw=payload,
        notes=notes,
    )


def _read_metric(
    payload: dict[str, Any], data: dict[str, Any], source: str, status: Status, notes: tuple[str, ...]
) -> Alert:
    """One incident of a metric alert rule; a worse or a milder severity is the same incident."""
    incident = mapping(data.get("metric_alert"))
    rule = mapping(incident.get("alert_rule"))
    incident_id = told(incident.get("id"))
    if not incident_id:
        raise BadPayload("nothing tells this alert from others: no `data.metric_alert.id`")
    organization = told(incident.get("organization_id")) or told(rule.get("organization_id")) or "-"
    projects = incident.get("projects")
    project = told(projects[0]) if isinstance(projects, list) and projects else ""
    action = told(payload.get("action")).lower()
    began, ended = _read_span(incident, status)
    url = web_address(told(data.get("web_url")))
    # Sentry writes the two lines of its text with a backslash and an n between them
    text = shown(told(data.get("description_text")).partition("\\n")[0])
    name = shown(rule.get("name")) or shown(data.get("description_title")) or f"metric alert {incident_id}"
    return Alert(
        source=source,
        fingerprint=f"metric:{escaped(organization)}:{incident_id}",
        status=status,
        event=CommonEvent(
            summary=f"{name}: {text}" if text else name,
            source=project or "sentry",
            severity=Severity.WARNING if action == "warning" else Severity.CRITICAL,
            timestamp=began.text,
            group=project,
            class_=told(rule.get("aggregate")),
            custom_details=details(
                {
                    "metric_alert_id": incident_id,
                    "rule": rule.get("name"),
                    "query": rule.get("query"),
                    "environment": rule.get("environment"),
                    "projects": projects,
                    "description": data.get("description_text"),
                    "action": action,
                }
            ),
        ),
        episode=began.text,
        episode_at=began.ms,
        ended_at=ended,
        links=links(((url, "Metric alert"),)),
        client="Sentry",
        client_url=url,
        raw=payload,
        notes=notes,
    )


def _read_span(incident: dict[str, Any], status: Status) -> tuple[Instant, int]:
    """When an incident began, and when it ended (ms); 0 while it goes on, or where that is not said."""
    began = moment(incident.get("date_started") or incident.get("date_created"))
    return began, moment(incident.get("date_closed")).ms if status is Status.RESOLVED else 0


def _read_tags(value: Any) -> dict[str, Any]:
    """Sentry's list of pairs as an object."""
    if not isinstance(value, list):
        return mapping(value)
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2]
    return {key: tag for name, tag in pairs if (key := told(name))}


_Read = Callable[[dict[str, Any], dict[str, Any], str, Status, tuple[str, ...]], Alert]
#: By the header: the actions that mean something, and how the body is read.
_RESOURCES: Mapping[str, tuple[Mapping[str, Status], _Read]] = {
    "event_alert": (_EVENT_ACTIONS, _read_event),
    "issue": (_ISSUE_ACTIONS, _read_issue),
    "metric_alert": (_METRIC_ACTIONS, _read_metric),
}
