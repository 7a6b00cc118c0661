"""The integrations of alertrouter.yaml, or what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.model import Integration, KeyReference
from alertrouter.rules.schema import ConfigShape, did_you_mean

#: As of a named webhook sender: it becomes `pagerduty/NAME`.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
#: What the default routing key is called.
_TAKEN = "default"


def build_integrations(
    document: Document, config: ConfigShape | None, services: Sequence[str]
) -> tuple[dict[str, Integration], list[Problem]]:
    """The integrations by name, and the problems with them. `services` are those that have a file."""
    built: dict[str, Integration] = {}
    problems: list[Problem] = []
    for name, shape in (config.integrations if config else {}).items():
        path: tuple[Key, ...] = ("integrations", name)
        if not _NAME.fullmatch(name) or name == _TAKEN:
            message = f"`{name}`: a name is made of a-z, 0-9, `_` and `-`, at most 64; `{_TAKEN}` is taken"
            problems.append(document.problem_with_key(path, message, "syntax"))
        elif name in services:
            message = f"`{name}` is a service, whose own routing key is known already; choose another name"
            problems.append(document.problem_with_key(path, message, "syntax"))
        if shape.service not in services:
            message = f"there is no services/{shape.service}.yaml{did_you_mean(shape.service, services)}"
            problems.append(document.problem((*path, "service"), message, "unknown-service"))
        key = shape.routing_key
        if (key.env is None) is (key.file is None):
            message = "name one place where the key is found: `{env: ...}` or `{file: ...}`"
            problems.append(document.problem((*path, "routing_key"), message))
        built[name] = Integration(name, shape.service, KeyReference(key.env, key.file))
    return built, problems
