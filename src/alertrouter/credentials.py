"""Who may send, look and operate: what the settings say, and what alertrouter.yaml says of single senders.

The credentials of single senders are read again every two seconds, so that a rotation needs no restart: the files are
small, and a change of the link that a Kubernetes secret hangs on is seen like any other. One that cannot be read any
more, or is empty, keeps the value it had: a half-written file locks nobody out. One that was never there admits nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import structlog

from alertrouter import telemetry
from alertrouter.rules.build import CONFIG
from alertrouter.rules.load import load_config
from alertrouter.rules.model import CredentialReferences, KeyReference, NamedReference
from alertrouter.settings import Settings
from alertrouter.web.auth import CLOSED, OPEN, Credentials, Guard, digest_of, numbered
from alertrouter.web.signatures import Secret, Signing

_LOOK_EVERY_S = 2.0

_log = structlog.get_logger()


def everybody(settings: Settings) -> Credentials:
    """What a source must show that has no credentials of its own."""
    if settings.webhook_tokens:
        return Credentials(numbered(token.get_secret_value() for token in settings.webhook_tokens))
    return CLOSED if settings.is_exposed else OPEN


def guard(settings: Settings) -> Guard:
    """Who may look and who may operate. Senders' tokens are good for that only where there are none for it.

    And beyond loopback they change nothing: who may send alerts for one team is not who may silence them for all.
    """
    senders, readers, operators = (
        numbered(token.get_secret_value() for token in tokens)
        for tokens in (settings.webhook_tokens, settings.api_read_tokens, settings.api_operate_tokens)
    )
    if readers or operators:
        return Guard(readers, operators)
    return Guard(senders, () if settings.is_exposed else senders, is_open=not senders and not settings.is_exposed)


def names_credentials(rules: Path) -> bool:
    """Whether some source has credentials of its own. Raises RulesInvalid where alertrouter.yaml is faulty."""
    sources = load_config(rules / CONFIG).get("sources") or {}
    return any(source.get("tokens") or source.get("signature") for source in sources.values())


class SourceCredentials:
    """The credentials of the sources that have their own. `read` gives a secret, or None where it is not there."""

    def __init__(self, read: Callable[[KeyReference], str | None]) -> None:
        self._read = read
        self._wanted: Mapping[str, CredentialReferences] = MappingProxyType({})
        self._values: Mapping[KeyReference, str] = MappingProxyType({})
        self._missing: Sequence[KeyReference] = ()
        self.in_force: Mapping[str, Credentials] = MappingProxyType({})

    def put_in_force(self, wanted: Mapping[str, CredentialReferences]) -> None:
        """Read these, and take them from now on."""
        self._wanted = wanted
        self._take(self._found(wanted))
        for source, named in _named(wanted):
            telemetry.WEBHOOK_CREDENTIALS.labels(source, named.name)  # shown before its first use

    async def watch(self) -> None:
        """Read them again and again."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            wanted = self._wanted
            found = await asyncio.to_thread(self._found, wanted)  # a disk may be slow, and alerts keep coming
            if wanted is self._wanted:
                self._take(found)

    def warnings(self) -> Sequence[str]:
        """The credentials that cannot be read, and what that means."""
        return [
            f"the credential {named.name} of {source} ({named.place.shown}) "
            + (
                "cannot be read any more or is empty, and what was read before stays in force; put it back, or take "
                "it out of `sources`"
                if named.place in self._values
                else "is not there, and nobody is admitted by it; put it there, it is read again every two seconds"
            )
            for source, named in _named(self._wanted)
            if named.place in self._missing
        ]

    def _found(self, wanted: Mapping[str, CredentialReferences]) -> Mapping[KeyReference, str | None]:
        return {named.place: _sound(self._read(named.place)) for _, named in _named(wanted)}

    def _take(self, found: Mapping[KeyReference, str | None]) -> None:
        before, missing = self._values, [place for place, value in found.items() if value is None]
        values = {place: known for place, value in found.items() if (known := value or before.get(place))}
        for source, named in _named(self._wanted):
            changed = before.get(named.place, "") != values.get(named.place, "")
            if changed and named.place in before:
                _log.info("a credential changed", source=source, id=named.name)
            if named.place in missing and named.place not in self._missing:
                what = "the one before stays in force" if named.place in values else "nobody is admitted by it"
                _log.warning(f"a credential cannot be read; {what}", source=source, id=named.name)
        self._values, self._missing = MappingProxyType(values), missing
        self.in_force = MappingProxyType({source: _in_force(each, values) for source, each in self._wanted.items()})
        telemetry.CREDENTIALS_MISSING.set(len(missing))


def _named(wanted: Mapping[str, CredentialReferences]) -> Iterator[tuple[str, NamedReference]]:
    for source, references in wanted.items():
        for named in (*(references.tokens or ()), *(references.signing.secrets if references.signing else ())):
            yield source, named


def _sound(value: str | None) -> str | None:
    """The value, where it can be one: a line of text. A file cut short or filled with another's bytes is none."""
    return value if value and value.isprintable() else None


def _in_force(references: CredentialReferences, values: Mapping[KeyReference, str]) -> Credentials:
    tokens, signing = references.tokens, references.signing
    return Credentials(
        tokens=None
        if tokens is None
        else tuple(Secret(each.name, digest_of(values[each.place])) for each in tokens if each.place in values),
        header=references.header,
        signing=None
        if signing is None
        else Signing(
            signing.scheme,
            tuple(Secret(each.name, values[each.place].encode()) for each in signing.secrets if each.place in values),
            signing.header,
            signing.timestamp_header,
        ),
    )
