"""Azure Monitor's common alert schema: one payload is one alert instance that fired or was resolved.

https://learn.microsoft.com/azure/azure-monitor/alerts/alerts-common-schema describes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources.body import read_json_only
from alertrouter.sources.payload import ParsedPayload
from alertrouter.sources.text import quoted
from alertrouter.sources.values import details, mapping, moment, shown, told

_CONDITIONS = {"fired": Status.FIRING, "resolved": Status.RESOLVED}
_SEVERITIES = {
    "sev0": Severity.CRITICAL,
    "sev1": Severity.ERROR,
    "sev2": Severity.WARNING,
    "sev3": Severity.INFO,
    "sev4": Severity.INFO,
}

_RESOURCE_GROUP = re.compile(r"/resourcegroups/([^/]+)", re.IGNORECASE)

#: The subscription in whose name the "Test" button of an action group posts.
_TEST_SUBSCRIPTION = "/subscriptions/11111111-1111-1111-1111-111111111111/"

#: Members of `essentials` that responders and rules find in `custom_details`.
_DETAILS = {
    "alertRule": "alert_rule",
    "severity": "severity",
    "signalType": "signal_type",
    "monitorCondition": "monitor_condition",
    "monitoringService": "monitoring_service",
    "alertTargetIDs": "target_ids",
    "configurationItems": "configuration_items",
    "originAlertId": "origin_alert_id",
    "description": "description",
}


def parse(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
    """The one alert of a payload, or why it must not page. Raises BadPayload when it is no such body."""
    decoded = read_json_only(body, headers)
    payload = mapping(decoded.value)
    data = mapping(payload.get("data"))
    essentials = mapping(data.get("essentials"))
    if not essentials:
        raise BadPayload(
            "wrong shape: expected Azure Monitor's common alert schema, with `data.essentials`; "
            "enable it in the action group"
        )
    condition = told(essentials.get("monitorCondition"))
    status = _CONDITIONS.get(condition.lower())
    if status is None:
        reason = f"the condition {quoted(condition)} neither opens nor closes an alert"
        return ParsedPayload(ignored=(reason,), notes=decoded.notes)
    # in Azure the case of an id tells nothing: https://learn.microsoft.com/azure/azure-resource-manager/management/overview
    fingerprint = told(essentials.get("alertId")).lower()
    if not fingerprint:
        raise BadPayload("nothing tells this alert from others: no `essentials.alertId`")

    fired = moment(essentials.get("firedDateTime"))
    doubts = ("a test of the action group",) if fingerprint.startswith(_TEST_SUBSCRIPTION) else ()
    alert = Alert(
        source=source,
        fingerprint=fingerprint,
        status=status,
        event=_describe(essentials, data, fired.text),
        episode=fired.text,
        episode_at=fired.ms,
        ended_at=moment(essentials.get("resolvedDateTime")).ms if status is Status.RESOLVED else 0,
        client="Azure Monitor",
        raw=payload,
        notes=(*decoded.notes, *doubts),
    )
    return ParsedPayload(alerts=(alert,), notes=decoded.notes)


def _describe(essentials: dict[str, Any], data: dict[str, Any], timestamp: str) -> CommonEvent:
    items, targets = _texts(essentials.get("configurationItems")), _texts(essentials.get("alertTargetIDs"))
    item = items[0] if items else targets[0].rpartition("/")[2] if targets else ""
    rule, description = shown(essentials.get("alertRule")), shown(essentials.get("description"))
    resource_group = _RESOURCE_GROUP.search(targets[0]) if targets else None
    return CommonEvent(
        summary=": ".join(filter(None, (rule, description or item))) or "an alert of Azure Monitor",
        source=item or "azure",
        severity=_SEVERITIES.get(told(essentials.get("severity")).lower(), Severity.ERROR),
        timestamp=timestamp,
        component=told(essentials.get("monitoringService")),
        group=resource_group[1] if resource_group else "",
        class_=told(essentials.get("signalType")),
        custom_details=details(
            {
                **{ours: essentials.get(theirs) for theirs, ours in _DETAILS.items()},
                "alert_context": data.get("alertContext"),
            },
            mapping(data.get("alertContext")).get("properties"),
            data.get("customProperties"),
        ),
    )


def _texts(value: Any) -> list[str]:
    return [text for item in value if (text := told(item))] if isinstance(value, list) else []
