"""One file per sender: the body of a webhook becomes alerts. No clock, no environment, no network, no log.

A new sender is one file with a `parse` function and one line in PARSERS. A sender that needs no code is described in
alertrouter.yaml and read by `custom`: its parser is the rules'.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from alertrouter.errors import BadPayload
from alertrouter.sources import alertmanager, azure, cloudevents, cloudwatch, datadog, gcp, grafana, sentry
from alertrouter.sources.bounds import bounded
from alertrouter.sources.payload import ParsedPayload, Parser, Skipped
from alertrouter.sources.text import quoted

__all__ = ["CUSTOM", "PARSERS", "SENDERS", "ParsedPayload", "Parser", "Skipped", "find_parser"]

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

#: The sender whose names are senders of their own: custom/zabbix.
CUSTOM = "custom"
SENDERS = (*PARSERS, CUSTOM)


def find_parser(source: str, custom: Mapping[str, Parser] = MappingProxyType({})) -> Parser:
    """The parser for a sender, or a sender and its name; `custom` are those of alertrouter.yaml by `custom/name`.

    Raises BadPayload with the status 404 and what there is instead.
    """
    sender = source.partition("/")[0]
    if parse := custom.get(source) or PARSERS.get(sender):
        return parse
    if sender != CUSTOM:
        there = ", ".join([*sorted(PARSERS), f"{CUSTOM}/name"])
        raise BadPayload(f"unknown sender {quoted(source)}; one of: {there}", status=404)
    there = f"one of: {', '.join(sorted(custom))}" if custom else "alertrouter.yaml describes none under `sources`"
    raise BadPayload(f"unknown custom sender {quoted(source)}; {there}", status=404)
