"""One file per sender: the body of a webhook becomes alerts. No clock, no environment, no network, no log.

A new sender is one file with a `parse` function and one line in PARSERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from alertrouter.sources import alertmanager, azure, cloudevents, cloudwatch, datadog, gcp, grafana, sentry
from alertrouter.sources.bounds import bounded
from alertrouter.sources.payload import ParsedPayload, Parser, Skipped

__all__ = ["PARSERS", "ParsedPayload", "Parser", "Skipped"]

PARSERS: Mapping[str, Parser] = MappingProxyType(
    {
        name: bounded(parse)
        for name, parse in (
            ("alertmanager", alertmanager.parse),
            ("datadog", datadog.parse),
            ("grafana", grafana.parse),
            ("cloudwatch", cloudwatch.parse),
            ("gcp", gcp.parse),
            ("azure", azure.parse),
            ("sentry", sentry.parse),
            ("cloudevents", cloudevents.parse),
        )
    }
)
