"""Findings as people, scripts and code hosts read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from alertrouter.rules.finding import Finding, Gravity
from alertrouter.shown import escaped

#: GitHub's escapes for workflow commands, in the order in which they are made:
#: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
_ESCAPES = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
_PROPERTY_ESCAPES = (*_ESCAPES, (":", "%3A"), (",", "%2C"))

_COMMANDS = {Gravity.ERROR: "error", Gravity.WARNING: "warning", Gravity.NOTE: "notice"}

_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_json(findings: Iterable[Finding], version: str | None) -> str:
    """`version` is that of the rules, None where they do not load."""
    return _dump({"version": version, "problems": [asdict(finding) for finding in findings]})


def as_github(findings: Iterable[Finding]) -> str:
    """Workflow commands, which GitHub shows beside the lines of a pull request."""
    return "\n".join(map(_annotation, findings))


def as_sarif(findings: Sequence[Finding], pages: Mapping[str, str], version: str) -> str:
    """SARIF 2.1.0 for code scanning. `pages` describes each check, `version` is the program's."""
    used = sorted({finding.check for finding in findings})
    driver = {
        "name": "alertrouter",
        "version": version,
        "rules": [_described(check, pages.get(check, "")) for check in used],
    }
    results = [_result(finding, used.index(finding.check)) for finding in findings]
    runs = [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}]
    return _dump({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": runs})


def _annotation(finding: Finding) -> str:
    properties = {
        "file": finding.file,
        "line": str(finding.line),
        "col": str(finding.column),
        "title": f"alertrouter {finding.check}",
    }
    written = ",".join(f"{name}={_escape(value, _PROPERTY_ESCAPES)}" for name, value in properties.items())
    return escaped(f"::{_COMMANDS[finding.severity]} {written}::{_escape(finding.text, _ESCAPES)}")


def _escape(text: str, escapes: Iterable[tuple[str, str]]) -> str:
    for plain, escape in escapes:
        text = text.replace(plain, escape)
    return text


def _described(check: str, page: str) -> dict[str, Any]:
    return {
        "id": check,
        "shortDescription": {"text": page.partition("\n")[0] or check},
        "fullDescription": {"text": page or check},
    }


def _result(finding: Finding, rule_index: int) -> dict[str, Any]:
    place = {
        "artifactLocation": {"uri": quote(finding.file, errors="replace")},
        "region": {"startLine": finding.line, "startColumn": finding.column},
    }
    return {
        "ruleId": finding.check,
        "ruleIndex": rule_index,
        "level": finding.severity.value,
        "message": {"text": finding.text},
        "locations": [{"physicalLocation": place}],
    }


def _dump(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
