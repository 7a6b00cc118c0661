"""The credentials of senders in alertrouter.yaml, by where they are found, or what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.model import CredentialReferences, KeyReference, NamedReference, SigningReferences
from alertrouter.rules.schema import ConfigShape, NamedSecretShape, SourceShape
from alertrouter.shown import without_secrets
from alertrouter.sources import CUSTOM

_SOURCE = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]{0,63})?")
_SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def is_source(text: str) -> bool:
    """Whether it can be a source: a sender, or `sender/name`."""
    return _SOURCE.fullmatch(text) is not None


def is_secret_name(text: str) -> bool:
    """Whether a credential can be called that."""
    return _SECRET_NAME.fullmatch(text) is not None and without_secrets(text) == text


def build_credentials(
    document: Document, config: ConfigShape | None
) -> tuple[Mapping[str, CredentialReferences], list[Problem]]:
    """The sources that have credentials of their own, and the problems with `sources`."""
    built: dict[str, CredentialReferences] = {}
    problems: list[Problem] = []
    for source, shape in (config.sources if config else {}).items():
        path: tuple[Key, ...] = ("sources", source)
        if not is_source(source) and source.partition("/")[0] != CUSTOM:  # whose names build_sources looks at
            message = "a source is a sender or `sender/name`, such as alertmanager/team-a, as in its /webhooks/ address"
            problems.append(document.problem_with_key(path, message))
        if shape.header is not None and shape.tokens is None:
            problems.append(document.problem((*path, "header"), "`header` carries a token: name `tokens` too"))
        if shape.tokens is not None or shape.signature is not None:
            built[source] = _built(document, path, shape, problems)
    return MappingProxyType(built), problems


def _built(
    document: Document, path: tuple[Key, ...], shape: SourceShape, problems: list[Problem]
) -> CredentialReferences:
    signature = shape.signature
    return CredentialReferences(
        tokens=None if shape.tokens is None else _named(document, (*path, "tokens"), shape.tokens, problems),
        header=shape.header or "",
        signing=None
        if signature is None
        else SigningReferences(
            scheme=signature.scheme,
            secrets=_named(document, (*path, "signature", "secrets"), signature.secrets, problems),
            header=signature.header or "",
            timestamp_header=signature.timestamp_header or "",
        ),
    )


def _named(
    document: Document, path: tuple[Key, ...], shapes: Sequence[NamedSecretShape], problems: list[Problem]
) -> tuple[NamedReference, ...]:
    seen: set[str] = set()
    for index, shape in enumerate(shapes):
        if not is_secret_name(shape.name):
            message = (
                "a name is made of letters, digits, `-`, `_` and `.`, at most 64, and is no token: metrics show it"
            )
            problems.append(document.problem((*path, index, "name"), message))
        if shape.name in seen:
            message = f"the name `{shape.name}` is there already; choose another, so that metrics tell them apart"
            problems.append(document.problem((*path, index, "name"), message))
        if (shape.env is None) is (shape.file is None):
            message = "name one place where the secret is found: `file: ...` or `env: ...`"
            problems.append(document.problem((*path, index), message))
        seen.add(shape.name)
    return tuple(NamedReference(shape.name, KeyReference(shape.env, shape.file)) for shape in shapes)
