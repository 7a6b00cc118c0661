"""Webhook bodies as the senders write them."""

from __future__ import annotations

import json
from typing import Any


def alertmanager_alert(name: str = "HighErrorRate", status: str = "firing", **labels: str) -> dict[str, Any]:
    """One alert of Alertmanager's webhook; the label `n` makes it another one."""
    return {
        "status": status,
        "labels": {"alertname": name, "service": "payment", "severity": "critical", **labels},
        "annotations": {"summary": f"{name} of payment"},
        "startsAt": "2027-01-10T03:00:00Z",
        "endsAt": "2027-01-10T03:04:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus.example.org/graph",
    }


def alertmanager_body(*alerts: Any) -> bytes:
    """Alertmanager's webhook, version 4."""
    return json.dumps(
        {"version": "4", "receiver": "alertrouter", "status": "firing", "alerts": list(alerts), "truncatedAlerts": 0}
    ).encode()
