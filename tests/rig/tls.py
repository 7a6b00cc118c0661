"""TLS in front of a server that has none, as a reverse proxy puts it there."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import program


def self_signed(folder: Path) -> Path:
    """A certificate of localhost that nobody knows, and its key beside it."""
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", "cert", "-keyout", "key"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "cert"


@asynccontextmanager
async def tls_front(url: str, certificate: Path) -> AsyncIterator[str]:
    """An https address whose requests reach `url`."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key"))

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(_pass_on(reader, behind_writer), _pass_on(behind_reader, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # whoever ended the connection wants nothing more
    finally:
        writer.close()
