"""One file per sender: the body of a webhook becomes alerts. No clock, no environment, no network, no log.

A new sender is one file with a `parse` function and one line in PARSERS.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from alertrouter.sources import alertmanager, datadog
from alertrouter.sources.bounds import bounded
from alertrouter.sources.payload import ParsedPayload, Parser, Skipped

__all__ = ["PARSERS", "ParsedPayload", "Parser", "Skipped"]

PARSERS: Mapping[str, Parser] = MappingProxyType(
    {
        "alertmanager": bounded(alertmanager.parse),
        "datadog": bounded(datadog.parse),
    }
)
