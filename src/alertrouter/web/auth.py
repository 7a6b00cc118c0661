"""Who may post: bearer token, basic password or X-Alertrouter-Token, compared in constant time."""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from collections.abc import Iterable
from hashlib import sha256

from aiohttp import web
from multidict import CIMultiDictProxy


class Tokens:
    """The active tokens; several at once for rotation. Empty = open, which is allowed on loopback only."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = tuple(sha256(token.encode()).digest() for token in tokens)

    def admit(self, headers: CIMultiDictProxy[str]) -> bool:
        """True if the request carries an active token, or if none is asked for."""
        if not self._digests:
            return True
        offered = sha256(_offered(headers)).digest()
        # every digest is compared, so that the time taken tells nothing
        return sum(hmac.compare_digest(offered, digest) for digest in self._digests) > 0


def _offered(headers: CIMultiDictProxy[str]) -> bytes:
    token = headers.get("X-Alertrouter-Token")
    if token is not None:
        return token.encode("utf-8", "surrogateescape")
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer":
        return credentials.encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            return b64decode(credentials, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def unauthorized() -> web.Response:
    """The 401 for a missing or wrong token; the same for both."""
    return web.json_response(
        {"error": "missing or wrong token"},
        status=401,
        headers={"WWW-Authenticate": 'Bearer realm="alertrouter", Basic realm="alertrouter"'},
    )
