"""Grafana's webhook contact point, the notification channel that dashboards had before Grafana 9, and their Test buttons.

Grafana's alerting is Alertmanager inside, and so is its body:
https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources.alertmanager import SEVERITIES, read_alerts
from alertrouter.sources.body import read_json_only
from alertrouter.sources.payload import ParsedPayload
from alertrouter.sources.text import links, quoted, web_address
from alertrouter.sources.values import details, escaped, mapping, shown, told

#: Members of an alert that Alertmanager does not know, and how responders and rules find them.
_OWN_DETAILS = {"values": "values", "valueString": "value_string", "ruleUID": "rule_uid", "orgId": "org_id"}
_OWN_LINKS = {"dashboardURL": "Dashboard", "panelURL": "Panel", "silenceURL": "Silence", "imageURL": "Image"}

#: What Grafana raises where a rule cannot be evaluated; the rule's name is in the label `rulename`.
_RULE_FAILURES = frozenset(("DatasourceError", "DatasourceNoData"))

#: `state` of a dashboard's alert. `pending` and `paused` neither open nor close one.
_LEGACY_STATES = {"alerting": Status.FIRING, "no_data": Status.FIRING, "ok": Status.RESOLVED}
_LEGACY_TEST = "Someone is testing the alert notification within Grafana."

_TEST = "a test of the contact point"


def parse(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
    """The alerts of a webhook body. Raises BadPayload when it is no such body."""
    decoded = read_json_only(body, headers)
    payload = mapping(decoded.value)
    if isinstance(payload.get("alerts"), list):
        return _read_unified(payload, source, decoded.notes, len(body))
    if "ruleId" in payload or "ruleName" in payload:
        return _read_legacy(payload, source, decoded.notes)
    if isinstance(payload.get("text"), str) and "state" not in payload and "status" not in payload:
        return ParsedPayload(ignored=(f"{_TEST}: it has only a text",), notes=decoded.notes)
    raise BadPayload(
        "wrong shape: expected Grafana's own webhook body, with a list named `alerts`, or a dashboard's with `ruleId`; "
        "a custom payload of the contact point cannot be read"
    )


def _read_unified(payload: dict[str, Any], source: str, notes: tuple[str, ...], size: int) -> ParsedPayload:
    read = read_alerts(payload, source, notes, size, client="Grafana")
    tests = [alert for alert in read.alerts if _is_test(alert)]
    return ParsedPayload(
        alerts=tuple(_with_grafanas_own(alert) for alert in read.alerts if not _is_test(alert)),
        skipped=read.skipped,
        ignored=(_TEST,) * len(tests),
        truncated=read.truncated,
        notes=read.notes,
    )


def _is_test(alert: Alert) -> bool:
    """https://github.com/grafana/grafana/blob/main/pkg/services/ngalert/notifier/receivers.go names the test alert so."""
    labels = mapping(_item(alert).get("labels"))
    return labels.get("alertname") == "TestAlert" and labels.get("instance") == "Grafana"


def _item(alert: Alert) -> dict[str, Any]:
    item: dict[str, Any] = alert.raw["alerts"][0]
    return item


def _with_grafanas_own(alert: Alert) -> Alert:
    """What Alertmanager's reading of the body has left out."""
    item = _item(alert)
    own = {ours: item.get(theirs) for theirs, ours in _OWN_DETAILS.items()}
    event = alert.event
    summary = event.summary
    if event.class_ in _RULE_FAILURES and (rule := shown(event.custom_details.get("rulename"))):
        summary = (
            f"{event.class_} of {rule}" if summary.startswith(event.class_) else f"{event.class_} of {rule}: {summary}"
        )
    found = links((url, text) for name, text in _OWN_LINKS.items() if isinstance(url := item.get(name), str))
    known = {link.href for link in alert.links}
    return replace(
        alert,
        event=replace(event, summary=summary, custom_details=details(dict(event.custom_details), own)),
        links=(*alert.links, *(link for link in found if link.href not in known)),
    )


def _read_legacy(payload: dict[str, Any], source: str, notes: tuple[str, ...]) -> ParsedPayload:
    """The one alert of a dashboard's rule: organisation and rule tell it from others."""
    if payload.get("ruleName") == "Test notification" and payload.get("message") == _LEGACY_TEST:
        return ParsedPayload(ignored=("a test of the notification channel",), notes=notes)
    state = told(payload.get("state"))
    status = _LEGACY_STATES.get(state.lower())
    if status is None:
        reason = f"the state {quoted(state)} neither opens nor closes an alert"
        return ParsedPayload(ignored=(reason,), notes=notes)
    rule_id = told(payload.get("ruleId"))
    if not rule_id:
        raise BadPayload("nothing tells this alert from others: no `ruleId`")
    org_id = told(payload.get("orgId")) or "-"
    event, doubts = _describe_legacy(payload, rule_id)
    url = web_address(told(payload.get("ruleUrl")))
    alert = Alert(
        source=source,
        fingerprint=f"legacy:{escaped(org_id)}:{rule_id}",
        status=status,
        event=event,
        links=links(((url, "Rule"), (told(payload.get("imageUrl")), "Image"))),
        client="Grafana",
        client_url=url,
        raw=payload,
        notes=(*notes, *doubts),
    )
    return ParsedPayload(alerts=(alert,), notes=notes)


def _describe_legacy(payload: dict[str, Any], rule_id: str) -> tuple[CommonEvent, tuple[str, ...]]:
    """The event, and what the responder should know about how it was read."""
    matches = payload.get("evalMatches")
    first = mapping(matches[0]) if isinstance(matches, list) and matches else {}
    tags, own_tags = mapping(payload.get("tags")), mapping(first.get("tags"))
    name, message = shown(payload.get("ruleName")), shown(payload.get("message"))
    written = told(tags.get("severity"))
    severity = SEVERITIES.get(written.lower())
    event = CommonEvent(
        summary=": ".join(filter(None, (name, message))) or f"Grafana's rule {rule_id}",
        source=told(own_tags.get("instance")) or told(own_tags.get("host")) or "grafana",
        severity=severity or Severity.ERROR,
        component=told(tags.get("service")),
        class_=told(first.get("metric")),
        custom_details=details(
            {
                "rule_id": rule_id,
                "rule_name": payload.get("ruleName"),
                "state": payload.get("state"),
                "message": payload.get("message"),
                "matches": matches,
                "org_id": payload.get("orgId"),
                "dashboard_id": payload.get("dashboardId"),
                "panel_id": payload.get("panelId"),
            },
            own_tags,
            tags,
        ),
    )
    is_doubtful = bool(written) and severity is None
    return event, (f"severity {quoted(written)} is not known: taken as error",) if is_doubtful else ()
