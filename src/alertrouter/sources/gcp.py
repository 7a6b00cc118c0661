"""Google Cloud Monitoring's webhook channel: one payload is one incident that opened or closed.

https://cloud.google.com/monitoring/support/notification-options#webhooks describes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources.body import read_json_only
from alertrouter.sources.payload import ParsedPayload
from alertrouter.sources.text import links, quoted, web_address
from alertrouter.sources.values import details, mapping, moment, shown, told

_STATES = {"open": Status.FIRING, "closed": Status.RESOLVED}

#: "No severity", and a payload of before there were any: an error.
_SEVERITIES = {"critical": Severity.CRITICAL, "error": Severity.ERROR, "warning": Severity.WARNING}

#: Members of an incident that responders and rules find in `custom_details` as they are.
_DETAILS = (
    "policy_name",
    "condition_name",
    "observed_value",
    "threshold_value",
    "resource_name",
    "resource_display_name",
    "resource_type_display_name",
    "scoping_project_id",
    "severity",
)


def parse(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
    """The one alert of an incident, or why it must not page. Raises BadPayload when it is no such body."""
    decoded = read_json_only(body, headers)
    payload = mapping(decoded.value)
    incident = mapping(payload.get("incident"))
    if not incident:
        raise BadPayload("wrong shape: expected Cloud Monitoring's webhook body, an object with an `incident`")
    if told(payload.get("version")).lower() == "test":
        return ParsedPayload(ignored=("a test of the notification channel",), notes=decoded.notes)
    state = told(incident.get("state"))
    status = _STATES.get(state.lower())
    if status is None:
        reason = f"the state {quoted(state)} neither opens nor closes an incident"
        return ParsedPayload(ignored=(reason,), notes=decoded.notes)
    fingerprint = told(incident.get("incident_id"))
    if not fingerprint:
        raise BadPayload("nothing tells this alert from others: no `incident_id`")

    url = web_address(told(incident.get("url")))
    started = moment(incident.get("started_at"))
    alert = Alert(
        source=source,
        fingerprint=fingerprint,
        status=status,
        event=_describe(incident, fingerprint, started.text),
        episode=fingerprint,
        episode_at=started.ms,
        ended_at=moment(incident.get("ended_at")).ms if status is Status.RESOLVED else 0,
        links=links(((url, "Incident"), *_links_of_the_author(incident))),
        client="Google Cloud Monitoring",
        client_url=url,
        raw=payload,
        notes=decoded.notes,
    )
    return ParsedPayload(alerts=(alert,), notes=decoded.notes)


def _describe(incident: dict[str, Any], fingerprint: str, timestamp: str) -> CommonEvent:
    resource, metric = mapping(incident.get("resource")), mapping(incident.get("metric"))
    names = filter(None, (shown(incident.get("policy_name")), shown(incident.get("condition_name"))))
    return CommonEvent(
        summary=shown(incident.get("summary")) or ": ".join(names) or f"incident {fingerprint}",
        source=told(incident.get("resource_display_name"))
        or told(incident.get("resource_name"))
        or told(incident.get("scoping_project_id"))
        or "gcp",
        severity=_SEVERITIES.get(told(incident.get("severity")).lower(), Severity.ERROR),
        timestamp=timestamp,
        component=told(resource.get("type")),
        group=told(incident.get("scoping_project_id")) or told(mapping(resource.get("labels")).get("project_id")),
        class_=told(metric.get("type")) or told(incident.get("condition_name")),
        custom_details=_read_details(incident, resource, metric, fingerprint),
    )


def _read_details(
    incident: dict[str, Any], resource: dict[str, Any], metric: dict[str, Any], fingerprint: str
) -> dict[str, Any]:
    """All labels by their names, those that people gave the policy last; then what is known of the incident."""
    documentation = incident.get("documentation")
    written = mapping(documentation)
    return details(
        {
            **{name: incident.get(name) for name in _DETAILS},
            "incident_id": fingerprint,
            "documentation": written.get("content") if written else documentation,
            "documentation_subject": written.get("subject"),
        },
        resource.get("labels"),
        metric.get("labels"),
        mapping(incident.get("metadata")).get("user_labels"),
        incident.get("policy_user_labels"),
    )


def _links_of_the_author(incident: dict[str, Any]) -> list[tuple[str, str]]:
    given = mapping(incident.get("documentation")).get("links")
    each = [mapping(link) for link in given] if isinstance(given, list) else []
    return [(told(link.get("url")), shown(link.get("display_name"))) for link in each]
