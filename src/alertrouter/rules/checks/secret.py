"""Text that looks like a key, a token or a password.

Rules are in git, and annotations and links go to PagerDuty and chat. Name where the secret is found, `{env: PD_KEY_SHOP}`
or `{file: /run/secrets/pd}`; and replace a secret that was committed, because history keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from alertrouter.rules.document import Key
from alertrouter.rules.finding import Finding, RulesDirectory, finding_of

ID = "secret"

#: Keys under which a secret itself would stand, where `{env: ...}` or `{file: ...}` should.
_SECRET_KEYS = re.compile(r"(?i)(^|_)(routing|integration|service|api)_?key$|(^|_)(token|password|passwd|secret)$")
#: PagerDuty's keys: https://support.pagerduty.com/main/docs/services-and-integrations
_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
#: Tokens that tell by their form what they are, and secrets inside links and sentences.
_TOKENS = re.compile(
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|hooks\.slack\.com/services/[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]{8,}"
    r"|\bgh[opsur]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}|\bsk_live_[0-9A-Za-z]{16,}"
    r"|\balertrouter_[0-9A-Za-z_-]{43}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|(?i:\bbearer\s+[a-z0-9._~+/-]{20,})"
    r"|(?i:(?:[?&;\s]|^)(?:api_?key|routing_?key|access_?token|auth_?token|token|secret|password|passwd|pwd|sig)"
    r"\s*[=:]\s*[a-z0-9._~+/%-]{12,})"
    r"|events\.(?:eu\.)?pagerduty\.com/\S*/[A-Za-z0-9]{32}\b"
    r"|://[^/\s:@]+:[^/\s:@{}$]+@"
)


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for document in directory.documents.values():
        for path, text in _texts(document.root.value, ()):
            if _is_secret(path, text):
                # Never repeat what stands there.
                problem = document.problem(path, "this looks like a secret", ID)
                yield finding_of(
                    problem, remedy="name where it is found, `{env: ...}` or `{file: ...}`, and replace it"
                )


def _texts(value: Any, path: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], str]]:
    """Every text below, with its path."""
    match value:
        case str():
            yield path, value
        case dict():
            for key, child in value.items():
                yield from _texts(child, (*path, key))
        case list():
            for index, child in enumerate(value):
                yield from _texts(child, (*path, index))


def _is_secret(path: tuple[Key, ...], text: str) -> bool:
    names = [key for key in path if isinstance(key, str)]
    if names and _SECRET_KEYS.search(names[-1]):
        return bool(text.strip())
    in_place_of_a_name = len(names) > 1 and names[-1] in ("env", "file") and _SECRET_KEYS.search(names[-2])
    if in_place_of_a_name and _ROUTING_KEY.fullmatch(text) and not text.isupper():
        return True
    return _TOKENS.search(text) is not None
