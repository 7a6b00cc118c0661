"""Amazon SNS: which of its envelopes are genuine, and the subscriptions that are confirmed.

An envelope is signed with the key of a certificate that SNS serves itself; what is fetched is fetched from SNS alone,
and for a topic that is allowed alone:
https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from yarl import URL

from alertrouter.alarms import alarm
from alertrouter.alert import Alert, Severity
from alertrouter.errors import BadPayload, NotAdmitted
from alertrouter.sources.body import read_json
from alertrouter.sources.text import quoted

#: SNS itself waits 15 s for an answer.
_FETCH_S = 5.0
#: A certificate has some 2 kB, the answer to a confirmation some 500 bytes of XML.
_FETCH_BYTES = 65_536
_FETCHES_AT_ONCE = 4
#: SNS has one certificate per region and year.
_CERTIFICATES = 64
#: For so long a certificate that could not be fetched is not asked for again.
_FAILED_S = 5.0
_CONFIRMED = 1000

_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):\d+:[A-Za-z0-9_.-]+", re.ASCII)
_HOST = re.compile(r"sns\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?", re.ASCII)
_CERTIFICATE_PATH = re.compile(r"/SimpleNotificationService-[0-9a-f]{1,64}\.pem", re.ASCII)

#: What is signed, in this order; `Subject` only where there is one.
_SIGNED_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SIGNED_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_KINDS = {
    "Notification": _SIGNED_NOTIFICATION,
    "SubscriptionConfirmation": _SIGNED_CONFIRMATION,
    "UnsubscribeConfirmation": _SIGNED_CONFIRMATION,
}
#: https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html: version 1 is still the default.
_HASHES: Mapping[str, Callable[[], hashes.HashAlgorithm]] = {"1": hashes.SHA1, "2": hashes.SHA256}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Topics:
    """What a source may hear of SNS.

    allowed:       ARNs of topics.
    certificates:  a PEM file to be used in place of those that SNS serves, for where SNS cannot be reached; "" for none.
    """

    allowed: frozenset[str]
    certificates: str = ""


@dataclass(frozen=True, slots=True)
class _Envelope:
    """`members` as they were signed, of a known kind."""

    kind: str
    topic: str
    members: Mapping[str, Any]


class Sns:
    """Lets genuine envelopes in, and answers to confirmations.

    topics_of:  what is configured for a source; None where nothing is.
    say:        raises an alarm, or ends it where it was raised. Raises StoreUnavailable.
    now:        the time of day (ms), by which a certificate is valid.
    connector:  how an address is reached.
    proxy_for:  by which proxy; None for none.
    """

    def __init__(
        self,
        topics_of: Callable[[str], Topics | None],
        say: Callable[[Alert], Awaitable[None]],
        now: Callable[[], int],
        *,
        connector: Callable[[URL], aiohttp.BaseConnector] = lambda _: aiohttp.TCPConnector(),
        proxy_for: Callable[[URL], URL | None] = lambda _: None,
    ) -> None:
        self._topics_of = topics_of
        self._say = say
        self._now = now
        self._fetcher = _Fetcher(connector, proxy_for)
        self._certificates = _Certificates(self._fetcher)
        self._confirmed: OrderedDict[str, None] = OrderedDict()

    async def admit(self, source: str, headers: Mapping[str, str], body: bytes) -> None:
        """Let a body of `source` pass, and do what a confirmation asks for. Raises NotAdmitted, StoreUnavailable.

        What has no envelope has no signature: then the sender's credentials count alone. So they do for notifications
        where no topics are configured; nothing is fetched for those, and no subscription confirmed.
        """
        topics = self._topics_of(source)
        envelope = await asyncio.to_thread(_read_envelope, body, is_checked=topics is not None)
        topic = envelope.topic if envelope else headers.get("x-amz-sns-topic-arn", "")
        if topics is not None and topic and topic not in topics.allowed:
            raise NotAdmitted(f"the topic {quoted(topic)} is not among `topics` of {source} in alertrouter.yaml")
        if envelope is None:
            return
        if topics is not None:
            await self._verify(envelope, topics)
        if envelope.kind == "SubscriptionConfirmation":
            if topics is None:
                raise NotAdmitted(
                    f"a subscription is confirmed only for a topic of `topics`: write {quoted(topic)} there, under "
                    f"`sources: {{{source}: ...}}` in alertrouter.yaml, and have SNS ask again"
                )
            await self._confirm(envelope, source)
        elif envelope.kind == "UnsubscribeConfirmation":
            _log.error("a subscription has ended; its URL, which would begin it again, is not visited", topic=topic)
            await self._say(_unsubscribed(topic, source))

    async def _verify(self, envelope: _Envelope, topics: Topics) -> None:
        """Raises NotAdmitted where the signature is not SNS's."""
        version = envelope.members.get("SignatureVersion")
        algorithm = _HASHES.get(version) if isinstance(version, str) else None
        if algorithm is None:
            raise NotAdmitted(f"the signature version {quoted(version)} is not known; 1 and 2 are")
        if topics.certificates:
            certificates = await asyncio.to_thread(_read_certificates, topics.certificates)
        else:
            url = _sns_url(envelope, "SigningCertURL")
            if not _CERTIFICATE_PATH.fullmatch(url.raw_path) or url.raw_query_string:
                raise NotAdmitted(f"{quoted(str(url))} is no certificate of SNS")
            certificates = [await self._certificates.get(url)]
        signed, signature = _signed_text(envelope), _signature(envelope)
        now = datetime.fromtimestamp(self._now() / 1000, UTC)
        if not any(_is_signed(signed, signature, each, algorithm(), now) for each in certificates):
            raise NotAdmitted(f"the signature of the {envelope.kind} does not fit it")

    async def _confirm(self, envelope: _Envelope, source: str) -> None:
        """Visit the address that confirms the subscription, once. Raises NotAdmitted: 503 where SNS should ask again."""
        url = _sns_url(envelope, "SubscribeURL")
        if url.raw_path != "/" or (url.query.get("Action"), url.query.get("TopicArn")) != (
            "ConfirmSubscription",
            envelope.topic,
        ):
            raise NotAdmitted("`SubscribeURL` is not the one that confirms a subscription to this topic")
        token = url.query.get("Token", "")
        if token in self._confirmed:
            return
        try:
            await self._fetcher.get(url)
        except _NotFetched as error:
            raise NotAdmitted(f"the subscription could not be confirmed: {error}", status=503) from None
        _log.info("subscription confirmed", topic=envelope.topic, source=source)
        await self._say(_unsubscribed(envelope.topic, source, over=True))
        self._confirmed[token] = None  # last: until then SNS is to ask again
        if len(self._confirmed) > _CONFIRMED:
            self._confirmed.popitem(last=False)


def _read_envelope(body: bytes, *, is_checked: bool) -> _Envelope | None:
    """The envelope; None where the body has none. Raises NotAdmitted where `is_checked` and what was signed cannot be told.

    What parsers read was made fit to be kept; what was signed is read from the body itself.
    """
    try:
        value = read_json(body).value
    except BadPayload:
        return None
    kind, topic = (value.get("Type"), value.get("TopicArn")) if isinstance(value, dict) else (None, None)
    if not isinstance(kind, str) or kind not in _KINDS or not isinstance(topic, str):
        return None
    try:
        members = json.loads(body)
    except ValueError:
        if is_checked:
            raise NotAdmitted("what was signed cannot be told: the body is no JSON in UTF-8") from None
        members = value
    return _Envelope(kind, topic, members)


def _sns_url(envelope: _Envelope, member: str) -> URL:
    """An address of SNS in the topic's own region. Raises NotAdmitted for any other."""
    text = envelope.members.get(member)
    topic = _TOPIC.fullmatch(envelope.topic)
    try:
        url = URL(text, encoded=True) if isinstance(text, str) else URL()
        host = _HOST.fullmatch(url.raw_host or "")
        is_bare = url.explicit_port is None and url.user is None and url.password is None
    except ValueError:
        url, host, is_bare = URL(), None, False
    if url.scheme != "https" or not is_bare or host is None or topic is None or host[1] != topic[1]:
        raise NotAdmitted(f"`{member}` is no address of SNS in the region of the topic")
    return url


def _signed_text(envelope: _Envelope) -> bytes:
    lines = []
    for name in _KINDS[envelope.kind]:
        value = envelope.members.get(name)
        if value is None and name == "Subject":
            continue
        if not isinstance(value, str):
            raise NotAdmitted(f"`{name}` is no text, so the signature cannot be checked")
        lines.append(f"{name}\n{value}\n")
    try:
        return "".join(lines).encode()
    except UnicodeEncodeError:
        raise NotAdmitted("the envelope holds what is no text, so the signature cannot be checked") from None


def _signature(envelope: _Envelope) -> bytes:
    text = envelope.members.get("Signature")
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _is_signed(
    signed: bytes, signature: bytes, certificate: x509.Certificate, algorithm: hashes.HashAlgorithm, now: datetime
) -> bool:
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return False
    try:
        key = certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            return False
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)
    except (InvalidSignature, UnsupportedAlgorithm):  # OpenSSL may be set up to know no SHA-1
        return False
    return True


def _read_certificates(path: str) -> list[x509.Certificate]:
    """The certificates of a file, read anew each time: it may be replaced. Raises NotAdmitted."""
    try:
        return x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise NotAdmitted(f"`certificates` cannot be read: {error}", status=503) from None


def _unsubscribed(topic: str, source: str, *, over: bool = False) -> Alert:
    return alarm(
        f"sns-unsubscribed:{topic}",
        f"the subscription of {source} to {topic} has ended" if not over else f"{source} is subscribed to {topic}",
        severity=Severity.ERROR,
        firing=not over,
        details={}
        if over
        else {
            "topic": topic,
            "what it means": "Alarms that notify this topic are no longer heard.",
            "what to do": "Were it not meant to end: subscribe again in SNS. This ends with the confirmation.",
        },
    )


# --- what is fetched -------------------------------------------------------------------------------------------------


class _NotFetched(Exception):
    """Why an address gave nothing."""


class _Fetcher:
    """Fetches from SNS: a few at once, in a bounded time, bounded bytes, and never from where an answer points to."""

    def __init__(
        self, connector: Callable[[URL], aiohttp.BaseConnector], proxy_for: Callable[[URL], URL | None]
    ) -> None:
        self._connector = connector
        self._proxy_for = proxy_for
        self._free = asyncio.Semaphore(_FETCHES_AT_ONCE)

    async def get(self, url: URL) -> bytes:
        """The body at `url`. Raises _NotFetched."""
        try:
            async with asyncio.timeout(_FETCH_S), self._free:
                return await self._get(url)
        except TimeoutError:
            raise _NotFetched(f"no answer of {url.host} within {_FETCH_S:g} s") from None
        except aiohttp.ClientError as error:
            raise _NotFetched(f"{url.host}: {error}") from None

    async def _get(self, url: URL) -> bytes:
        async with (
            aiohttp.ClientSession(connector=self._connector(url), proxy=self._proxy_for(url)) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise _NotFetched(f"{url.host} answers {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _FETCH_BYTES:
                    raise _NotFetched(f"{url.host} answers more than {_FETCH_BYTES} bytes")
            return bytes(body)


class _Certificates:
    """Certificates by their addresses, which never change what they lead to. Fetched once, whoever asks meanwhile."""

    def __init__(self, fetcher: _Fetcher) -> None:
        self._fetcher = fetcher
        self._known: OrderedDict[URL, asyncio.Task[x509.Certificate]] = OrderedDict()

    async def get(self, url: URL) -> x509.Certificate:
        """Raises NotAdmitted with 503 where it cannot be had now."""
        task = self._known.get(url)
        if task is None:
            task = self._known[url] = asyncio.create_task(self._fetch(url))
            task.add_done_callback(lambda done: self._fetched(url, done))
            if len(self._known) > _CERTIFICATES:
                self._known.popitem(last=False)
        self._known.move_to_end(url)
        try:
            return await asyncio.shield(task)  # others may wait for it
        except _NotFetched as error:
            raise NotAdmitted(f"the certificate of the signature cannot be had: {error}", status=503) from None

    async def _fetch(self, url: URL) -> x509.Certificate:
        body = await self._fetcher.get(url)
        try:
            return x509.load_pem_x509_certificate(body)
        except ValueError:
            raise _NotFetched(f"{url.host} answers what is no certificate") from None

    def _fetched(self, url: URL, task: asyncio.Task[x509.Certificate]) -> None:
        if task.cancelled() or task.exception() is not None:
            asyncio.get_running_loop().call_later(_FAILED_S, self._forget, url, task)

    def _forget(self, url: URL, task: asyncio.Task[x509.Certificate]) -> None:
        if self._known.get(url) is task:
            del self._known[url]
