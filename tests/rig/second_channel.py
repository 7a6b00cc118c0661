"""Who the second channel tells: an HTTP receiver that checks signatures as docs/heartbeats.md says, and a mail server."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import ssl
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from types import TracebackType
from typing import Any, Self

from aiohttp import web

_MAY_DIFFER_S = 300


def is_signed(secret: bytes, timestamp: str, signature: str, body: bytes, now_s: float) -> bool:
    """Whether the body is from whoever knows the secret, and new."""
    expected = "v1=" + hmac.digest(secret, timestamp.encode() + b"." + body, "sha256").hex()
    return hmac.compare_digest(expected, signature) and abs(now_s - int(timestamp)) <= _MAY_DIFFER_S


class Receiver:
    """An HTTP receiver. `async with` runs it at `url`; `received` holds what was signed as it should be.

    now_s:   its clock, in seconds since the epoch.
    status:  what it answers.
    """

    def __init__(self, secret: str, now_s: Any) -> None:
        self._secret = secret.encode()
        self._now_s = now_s
        self.status = 204
        self.received: list[dict[str, Any]] = []
        self.rejected: list[bytes] = []
        self.calls = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.post("/hook", self._post), web.post("/elsewhere", self._post)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        self.calls += 1
        body = await request.read()
        stamp, signature = (request.headers.get(f"X-Alertrouter-{name}", "") for name in ("Timestamp", "Signature"))
        if 200 <= self.status < 300:
            if is_signed(self._secret, stamp, signature, body, self._now_s()):
                self.received.append(json.loads(body))
            else:
                self.rejected.append(body)
        return web.Response(status=self.status, headers={"Location": "/elsewhere"} if self.status // 100 == 3 else {})


@dataclass
class Letter:
    """One mail as the server got it."""

    sender: str
    recipients: list[str]
    user: str
    encrypted: bool
    message: EmailMessage = field(repr=False)


class MailServer:
    """A mail server: SMTP with AUTH PLAIN, encrypted from the start where it is given a TLS context.

    `async with` runs it on `port`. It takes mail for anybody but `refuses`.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None) -> None:
        self._tls = tls
        self._login = login
        self.refuses: set[str] = set()
        self.letters: list[Letter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")

        sender, recipients, user = "", list[str](), ""
        say("220 test ESMTP")
        while line := (await reader.readline()).decode().strip():
            verb, _, rest = line.partition(" ")
            match verb.upper():
                case "EHLO":
                    say("250-test\r\n250 AUTH PLAIN" if self._login else "250 test")
                case "AUTH":
                    _, name, password = base64.b64decode(rest.partition(" ")[2]).decode().split("\0")
                    user = name if (name, password) == self._login else ""
                    say("235 ok" if user else "535 wrong")
                case "MAIL":
                    sender = rest.partition("<")[2].partition(">")[0]
                    say("530 who are you" if self._login and not user else "250 ok")
                case "RCPT":
                    recipient = rest.partition("<")[2].partition(">")[0]
                    if recipient in self.refuses:
                        say("550 nobody of this name")
                    else:
                        recipients.append(recipient)
                        say("250 ok")
                case "DATA":
                    say("354 go on")
                    text = await reader.readuntil(b"\r\n.\r\n")
                    message = message_from_bytes(
                        text.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n."), policy=default
                    )
                    assert isinstance(message, EmailMessage)
                    self.letters.append(Letter(sender, recipients, user, self._tls is not None, message))
                    say("250 taken")
                case "QUIT":
                    say("221 bye")
                    break
                case _:
                    say("250 ok" if verb.upper() in ("RSET", "NOOP") else "502 what")
        writer.close()
