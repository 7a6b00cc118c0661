"""Amazon SNS as tests stand it in: a certificate of its own, envelopes signed with it, and a server that answers for it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

HOST = "sns.eu-central-1.amazonaws.com"
TOPIC = "arn:aws:sns:eu-central-1:210987654321:pages"
CERTIFICATE_URL = f"https://{HOST}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
SUBSCRIBE_URL = f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t0k3n"


class Signer:
    """A key and a certificate for SNS's host, valid from 2020 until 2040, signed by itself."""

    def __init__(self, *, until: int = 2040) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(until, 1, 1, tzinfo=UTC) - timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)

    def envelope(self, message: Any, *, version: str = "2", **members: Any) -> dict[str, Any]:
        """A signed envelope. Members replace what it would have; None leaves one out."""
        envelope = {
            "Type": "Notification",
            "MessageId": "3f0c2a51-7a1e-5c1b-9d2e-11aa22bb33cc",
            "TopicArn": TOPIC,
            "Subject": "ALARM: ä",
            "Message": message if isinstance(message, str) else json.dumps(message),
            "Timestamp": "2027-02-03T04:05:07.012Z",
            "SignatureVersion": version,
            "SigningCertURL": CERTIFICATE_URL,
        } | members
        envelope = {name: value for name, value in envelope.items() if value is not None}
        return envelope | {"Signature": self.sign(envelope)}

    def confirmation(self, kind: str = "SubscriptionConfirmation", **members: Any) -> dict[str, Any]:
        """The first message of a subscription, or the last."""
        more = {"Type": kind, "Subject": None, "Token": "t0k3n", "SubscribeURL": SUBSCRIBE_URL}
        return self.envelope("You have chosen ...", **(more | members))

    def sign(self, envelope: dict[str, Any]) -> str:
        """As https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html says, written down once more."""
        if envelope["Type"] == "Notification":
            names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
        else:
            names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        text = "".join(f"{name}\n{envelope[name]}\n" for name in names if name in envelope)
        algorithm = hashes.SHA1() if envelope["SignatureVersion"] == "1" else hashes.SHA256()  # noqa: S303
        return b64encode(self.key.sign(text.encode(), padding.PKCS1v15(), algorithm)).decode()


@dataclass
class Server:
    """What was asked of it, and what it answers by path. hangs: it never does."""

    requests: list[str] = field(default_factory=list)
    answers: dict[str, Callable[[], web.StreamResponse]] = field(default_factory=dict)
    port: int = 0
    hangs: bool = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"https://{request.headers['Host']}{request.raw_path}")
        if self.hangs:
            await asyncio.Event().wait()
        return self.answers.get(request.path, lambda: web.Response(status=404))()


class _Here(AbstractResolver):
    """Every name leads to one port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=self._port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def serving(signer: Signer, folder: Path) -> AsyncIterator[tuple[Server, Callable[[], aiohttp.TCPConnector]]]:
    """A server under SNS's name, and the connector that finds it."""
    (folder / "sns.pem").write_bytes(signer.pem)
    key = signer.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "sns.key").write_bytes(key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "sns.pem", folder / "sns.key")
    server = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server.port = runner.addresses[0][1]
    server.answers["/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"] = lambda: web.Response(
        body=signer.pem
    )
    server.answers["/"] = lambda: web.Response(text="<ConfirmSubscriptionResponse/>")

    def connector() -> aiohttp.TCPConnector:
        trusting = ssl.create_default_context(cadata=signer.pem.decode())
        return aiohttp.TCPConnector(resolver=_Here(server.port), ssl=trusting, force_close=True)

    try:
        yield server, connector
    finally:
        await runner.cleanup()
