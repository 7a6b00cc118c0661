"""The way to people that does not lead through PagerDuty: a signed webhook, a mail, or both.

The webhook's body is JSON. Two headers prove that it is ours and new, and docs/heartbeats.md shows how to check them:

    X-Alertrouter-Timestamp: seconds since the epoch
    X-Alertrouter-Signature: v1=<HMAC-SHA256 of "<timestamp>.<body>" with the shared secret, in hex>
"""

from __future__ import annotations

import asyncio
import hmac
import smtplib
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from io import BufferedReader
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import msgspec
from yarl import URL

from alertrouter import __version__
from alertrouter.destinations.outgoing import ANSWER_LIMIT, ONLY_PUBLIC, Outgoing, connect
from alertrouter.errors import SettingsInvalid
from alertrouter.loopback import is_loopback
from alertrouter.shown import HIDDEN, escaped, escaped_lines

TIMESTAMP = "X-Alertrouter-Timestamp"
SIGNATURE = "X-Alertrouter-Signature"
_TOTAL_S = 10.0
#: A mail takes several round trips, each of which may take `_TOTAL_S`; all of them no longer than that.
_MAIL_S = 30.0
#: https://www.rfc-editor.org/rfc/rfc8314#section-3.3 and https://www.rfc-editor.org/rfc/rfc6409#section-3.1
_PORTS = {"smtps": 465, "smtp": 587}


@dataclass(frozen=True, slots=True)
class SignedWebhook:
    """Where to post, and the secret that signs it."""

    url: str = field(repr=False)
    secret: str = field(repr=False)
    allowed: Outgoing = ONLY_PUBLIC


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail server and who writes to whom. tls: "implicit", "starttls", or "" for none."""

    host: str
    port: int
    tls: str
    sender: str
    recipients: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    allowed: Outgoing = ONLY_PUBLIC

    @property
    def url(self) -> URL:
        """The server, as what may be called is listed."""
        return URL.build(scheme="https", host=self.host, port=self.port)


@dataclass(frozen=True, slots=True)
class Message:
    """What is told: `body` for programs, `subject` and `text` for people."""

    subject: str
    text: str
    body: Mapping[str, Any]


def signed_webhook(url: str, secret: str, allowed: Outgoing = ONLY_PUBLIC) -> SignedWebhook:
    """Raises SettingsInvalid for an address that must not be called, or would show the message to everyone on the way."""
    allowed.check(url, "ALERTROUTER_SECOND_CHANNEL_WEBHOOK_URL")
    if not secret:
        raise SettingsInvalid(
            "ALERTROUTER_SECOND_CHANNEL_WEBHOOK_SECRET (or ALERTROUTER_SECOND_CHANNEL_WEBHOOK_SECRET_FILE) is missing: "
            "its receiver must be able to tell our messages from others"
        )
    return SignedWebhook(url, secret, allowed)


def mail(url: str, sender: str, recipients: Sequence[str], allowed: Outgoing = ONLY_PUBLIC) -> Mail:
    """A mail server from `smtp://` (STARTTLS; none on loopback) or `smtps://`, with user and password percent-encoded.

    Raises SettingsInvalid.
    """
    setting = "ALERTROUTER_SECOND_CHANNEL_SMTP_URL"
    example = "write smtps://user:password@smtp.example.org"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SettingsInvalid(f"{setting} is not a URL; {example}") from None
    if parts.scheme not in _PORTS or not host or parts.path not in ("", "/") or parts.query:
        raise SettingsInvalid(f"{setting} is not the address of a mail server; {example}")
    if not sender or not recipients:
        raise SettingsInvalid(f"{setting} is set: set ALERTROUTER_SECOND_CHANNEL_MAIL_FROM and _MAIL_TO, too")
    tls = "implicit" if parts.scheme == "smtps" else "" if is_loopback(host) else "starttls"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    allowed = replace(allowed, proxy=None)  # it leads to web servers
    server = Mail(host, port or _PORTS[parts.scheme], tls, sender, tuple(recipients), user, password, allowed)
    allowed.check(str(server.url), setting)
    return server


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """What proves that `body` is from whoever knows `secret`, written at `timestamp` (s since the epoch)."""
    return "v1=" + hmac.new(secret.encode(), f"{timestamp}.".encode() + body, "sha256").hexdigest()


async def post(webhook: SignedWebhook, message: Message, now: int) -> str:
    """Post the message, signed at `now` (ms since the epoch). Returns what went wrong, "" for nothing."""
    body = msgspec.json.encode(message.body)
    timestamp = now // 1000
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"alertrouter/{__version__}",
        TIMESTAMP: str(timestamp),
        SIGNATURE: signature(webhook.secret, timestamp, body),
    }
    url = URL(webhook.url)
    try:
        async with (
            aiohttp.ClientSession(
                connector=webhook.allowed.connector(url),
                proxy=webhook.allowed.proxy_for(url),
                timeout=aiohttp.ClientTimeout(total=_TOTAL_S),
                trust_env=False,
            ) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            return "" if 200 <= response.status < 300 else f"HTTP {response.status}"
    except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
        return type(error).__name__  # its text may hold the address, and that a secret


async def send_mail(mail: Mail, message: Message, now: int) -> str:
    """Send the message as a mail. Returns what went wrong, "" for nothing."""
    return await asyncio.to_thread(_send_mail, mail, message, now)


class _Replies:
    """What a mail server says on one connection: so much of it, and so long, whatever it sends."""

    def __init__(self, file: BufferedReader, until: float) -> None:
        self._file = file
        self._until = until
        self._left = ANSWER_LIMIT

    def readline(self, size: int) -> bytes:
        """The next line, or `size` bytes of it. b"" where it said too much; TimeoutError where it takes too long."""
        line = b""
        while len(line) < min(size, self._left) and not line.endswith(b"\n"):
            if monotonic() > self._until:
                raise TimeoutError("the mail server takes too long")
            there = self._file.peek(1)[: size - len(line)]
            if not there:
                break
            line += self._file.read(there.find(b"\n") + 1 or len(there))
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._file.close()


class _Smtp(smtplib.SMTP):
    """A mail server at an address that may be called, which cannot hold us up."""

    def __init__(self, mail: Mail, **options: Any) -> None:
        self._mail = mail
        self._until = monotonic() + _MAIL_S
        super().__init__(mail.host, mail.port, timeout=_TOTAL_S, **options)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Replies(self.sock.makefile("rb"), self._until)
        return super().getreply()

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return connect(self._mail.url, found, self._mail.allowed, timeout)


class _ImplicitTls(_Smtp, smtplib.SMTP_SSL):
    """The same, encrypted from the first byte."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self.context.wrap_socket(super()._get_socket(host, port, timeout), server_hostname=host)


def letter_of(mail: Mail, message: Message, now: int) -> EmailMessage:
    """The message as a mail. Text of senders begins no header and no line of its own, and moves no cursor."""
    letter = EmailMessage()
    letter["Subject"] = escaped(" ".join(message.subject.split()))
    letter["From"] = mail.sender
    letter["To"] = ", ".join(mail.recipients)
    letter["Date"] = formatdate(now / 1000)
    letter["Message-ID"] = make_msgid("alertrouter", mail.sender.rpartition("@")[2].rstrip("> ") or "localhost")
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(escaped_lines(message.text))
    return letter


def _send_mail(mail: Mail, message: Message, now: int) -> str:
    letter = letter_of(mail, message, now)
    context = ssl.create_default_context()
    try:
        with _ImplicitTls(mail, context=context) if mail.tls == "implicit" else _Smtp(mail) as server:
            if mail.tls == "starttls":
                server.starttls(context=context)
            if mail.user:
                server.login(mail.user, mail.password)
            refused = server.send_message(letter)
    except smtplib.SMTPAuthenticationError as error:
        return f"the mail server refuses user and password: {error.smtp_code}"
    except (smtplib.SMTPException, OSError) as error:
        said = f"{type(error).__name__}: {error}"
        return said.replace(mail.password, HIDDEN) if mail.password else said
    return f"refused for {', '.join(refused)}" if refused else ""
