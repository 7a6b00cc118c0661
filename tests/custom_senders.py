"""Custom senders to test with, from the text of alertrouter.yaml to their parsers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent, indent

from alertrouter.rules.load import load_rules
from alertrouter.sources import Parser

#: A sender of batches that says everything.
ACME = """
    alerts: event.problems
    identity: [id, raw_event.host.id]
    status: {path: state, firing: ["1", "true", Problem], resolved: ["0", OK], acknowledged: [ACK], ignored: [Comment]}
    severity: {path: level, critical: ["5", "4"], info: ["0"], default: warning}
    summary: [title, name]
    source: raw_event.host.name
    component: part
    group: team
    class: kind
    episode: occurrence
    timestamps: {started: since, ended: until}
    details: {why: reason}
    labels: [tags, raw_event.labels]
    links: {Problem: url}
"""
#: And one with as little as there can be.
PLAIN = "{identity: id, status: {path: state, firing: [down], resolved: [up]}}"


def write_sender(folder: Path, source: str, fields: str) -> Path:
    """A rules directory with that sender in its alertrouter.yaml."""
    fields = indent(dedent(fields).strip(), " " * 6)
    (folder / "alertrouter.yaml").write_text(f"sources:\n  {source}:\n    fields:\n{fields}\n")
    if not (folder / "router.yaml").exists():
        (folder / "router.yaml").write_text("catch_all: {route_to: unrouted}\n")
    return folder


def custom(source: str, fields: str) -> Mapping[str, Parser]:
    """The parsers of rules that describe one sender."""
    with TemporaryDirectory() as folder:
        return load_rules(write_sender(Path(folder), source, fields)).custom
