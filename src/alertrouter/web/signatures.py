"""Who signed a webhook: HMAC-SHA256 over its body, as each vendor does it. No clock, no network; `now` is an argument."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType

#: How far a signed time may be off: what is older may be a copy that somebody kept.
_TIME_WITHIN_MS = 5 * 60_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SECONDS = re.compile(r"[0-9]{1,12}")
#: PagerDuty sends one signature for each active secret; more than these are not looked at.
_MOST_SIGNATURES = 8


@dataclass(frozen=True, slots=True)
class Secret:
    """A token or a signing secret that is in force, and the name by which it is counted."""

    name: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a vendor signs.

    header:  carries the signature, lower-case hex.
    version: before each signature, where there may be several, comma-separated.
    """

    header: str
    version: str = ""


#: https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
#: https://docs.sentry.io/organization/integrations/integration-platform/webhooks/
#: https://developer.pagerduty.com/docs/verifying-webhook-signatures
SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "grafana": Scheme("X-Grafana-Alerting-Signature"),
        "sentry": Scheme("Sentry-Hook-Signature"),
        "pagerduty": Scheme("X-PagerDuty-Signature", version="v1="),
    }
)


@dataclass(frozen=True, slots=True)
class Signing:
    """How a sender signs, and the secrets that are in force.

    header:           instead of the scheme's own; "" for that.
    timestamp_header: carries when it was signed, in seconds since the epoch, which is then part of what is signed, as
                      `seconds:body`; "" where nothing says when. Without it a copy of a webhook is as good as the first.
    """

    scheme: str
    secrets: tuple[Secret, ...]
    header: str = ""
    timestamp_header: str = ""


def is_signed(signing: Signing, headers: Mapping[str, str]) -> bool:
    """Whether there is a signature to look at: without one the body need not be read."""
    return bool(_signatures(signing, headers))


def signer(signing: Signing, headers: Mapping[str, str], body: bytes, now: int) -> str | None:
    """The name of the secret by which `body`, as it came over the wire, is signed; None for none of them.

    headers: looked up without regard to case, as aiohttp's are.
    now:     ms since the epoch.
    """
    signed_at = b""
    if signing.timestamp_header:
        seconds = headers.get(signing.timestamp_header, "")
        if not _SECONDS.fullmatch(seconds) or abs(now - int(seconds) * 1000) > _TIME_WITHIN_MS:
            return None
        signed_at = f"{seconds}:".encode()
    return _match(signing.secrets, _signatures(signing, headers), signed_at + body)


def _signatures(signing: Signing, headers: Mapping[str, str]) -> list[bytes]:
    scheme = SCHEMES[signing.scheme]
    value = headers.get(signing.header or scheme.header, "")
    offered = value.split(",", _MOST_SIGNATURES)[:_MOST_SIGNATURES] if scheme.version else [value]
    digests = [each.strip().removeprefix(scheme.version) for each in offered if each.strip().startswith(scheme.version)]
    return [bytes.fromhex(digest) for digest in digests if _DIGEST.fullmatch(digest)]


def _match(secrets: Sequence[Secret], signatures: Sequence[bytes], message: bytes) -> str | None:
    found = None
    for secret in secrets:
        expected = hmac.digest(secret.value, message, sha256)
        for signature in signatures:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(expected, signature):
                found = secret.name
    return found
