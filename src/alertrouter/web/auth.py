"""Who may call which route. Secrets are compared as digests, in constant time, over all that are in force.

Every handler carries a mark, `@access(...)`; the middleware of a `Guard` holds callers to it, and lets nobody to a
handler that carries none.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from alertrouter.loopback import is_loopback
from alertrouter.web.signatures import Secret, Signing

Handler = Callable[..., Awaitable[web.StreamResponse]]
HandlerT = TypeVar("HandlerT", bound=Handler)

#: A token in an address is in the log of every proxy on the way: https://www.rfc-editor.org/rfc/rfc6750#section-5.3
_NOT_IN_A_QUERY = frozenset({"token", "access_token", "auth_token", "api_key", "apikey", "x-alertrouter-token"})
_CHANGES_NOTHING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


class Access(StrEnum):
    """Who may call a route."""

    ANYONE = "anyone"  # health and metrics, which hold no secret: what asks for them has no token
    SENDER = "sender"  # who may send alerts: its handler asks for the sender's own credentials
    READ = "read"  # who may look at alerts and their history
    OPERATE = "operate"  # who may silence, redrive, reload, page; and look


def access(who: Access) -> Callable[[HandlerT], HandlerT]:
    """Marks a handler with who may call it."""

    def mark(handler: HandlerT) -> HandlerT:
        handler.access = who  # type: ignore[attr-defined]
        return handler

    return mark


def access_of(handler: object) -> Access | None:
    """Who may call a handler; None where it carries no mark."""
    found = getattr(handler, "access", None)
    return found if isinstance(found, Access) else None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller must show: one of the tokens, a signature, or, where both are asked for, both.

    None asks for nothing. Tokens are digests; without one in force (an empty tuple) nobody is admitted.
    header: carries the token, beside the usual ones; "" for none.
    """

    tokens: tuple[Secret, ...] | None = None
    header: str = ""
    signing: Signing | None = None


OPEN = Credentials()
CLOSED = Credentials(tokens=())


def digest_of(token: str) -> bytes:
    """What is kept of a token."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def numbered(tokens: Iterable[str]) -> tuple[Secret, ...]:
    """Tokens that have no names, by their places in the setting; metrics show `global:1`."""
    return tuple(Secret(f"global:{place}", digest_of(token)) for place, token in enumerate(tokens, 1))


def token_shown(headers: Mapping[str, str], tokens: Sequence[Secret], header: str = "") -> str | None:
    """The name of the token that a request carries; None where it carries none of these."""
    offered = digest_of(_offered(headers, header))
    found = None
    for token in tokens:  # every digest is compared, so that the time taken tells nothing
        if hmac.compare_digest(offered, token.value):
            found = token.name
    return found


def _offered(headers: Mapping[str, str], header: str) -> str:
    """The token in a header of the sender's own, in ours, as a bearer's, or as a basic password; "" for none."""
    token = headers.get(header) if header else None
    if token is None:
        token = headers.get("X-Alertrouter-Token")
    if token is not None:
        return token
    scheme, _, credentials = headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer":
        return credentials
    if scheme.lower() == "basic":
        try:
            return b64decode(credentials, validate=True).partition(b":")[2].decode("utf-8", "surrogateescape")
        except (binascii.Error, ValueError):
            return ""
    return ""


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may look, and who may change something.

    read, operate: digests of the tokens; one that may operate may read.
    is_open:       no token is asked for. Only a service that nobody else can reach may be.
    """

    read: tuple[Secret, ...] = ()
    operate: tuple[Secret, ...] = ()
    is_open: bool = False

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse who may not call the route. What there is no route for is answered as ever."""
        if request.match_info.http_exception is not None:
            return await handler(request)
        refusal = self._refusal(request, access_of(request.match_info.handler))
        return await handler(request) if refusal is None else refusal

    def _refusal(self, request: web.Request, who: Access | None) -> web.Response | None:
        if who is Access.ANYONE:
            return None
        changes = request.method not in _CHANGES_NOTHING
        if changes and _is_from_another_site(request.headers):
            return _forbidden("a web page of another site may not do this")
        if who is Access.SENDER:
            is_page = hdrs.ORIGIN in request.headers and not _names_this_machine(request.headers)
            return _forbidden("a web page may not send alerts") if is_page else None
        if who is None or has_token_in_query(request):
            return unauthorized()
        if self.is_open:
            if not _names_this_machine(request.headers):
                return _forbidden(
                    "without tokens only this machine is served, by the name of localhost or 127.0.0.1; "
                    "set ALERTROUTER_API_OPERATE_TOKENS"
                )
        else:
            may_operate = token_shown(request.headers, self.operate) is not None
            may_read = token_shown(request.headers, self.read) is not None
            if not (may_operate or may_read):
                return unauthorized()
            if who is Access.OPERATE and not may_operate:
                return _forbidden("this token may look, not change; one of ALERTROUTER_API_OPERATE_TOKENS may")
        # a browser asks before it posts this type across origins
        if changes and request.body_exists and request.content_type != "application/json":
            return web.json_response({"error": "send Content-Type: application/json"}, status=415)
        return None


def has_token_in_query(request: web.Request) -> bool:
    """Whether somebody put a token into the address, where it is no secret any more."""
    return bool(request.query_string) and any(name.lower() in _NOT_IN_A_QUERY for name in request.query)


def _is_from_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser sends this for the page of another site. No sender has these headers.

    https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get(hdrs.ORIGIN)
    return origin is not None and origin.partition("://")[2] != headers.get(hdrs.HOST)


def _names_this_machine(headers: Mapping[str, str]) -> bool:
    """Whether the caller knows us by a name of this machine; a page whose own name is made to lead here does not."""
    host = headers.get(hdrs.HOST)
    try:
        return host is None or is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def unauthorized() -> web.Response:
    """The 401 for a missing or wrong token; the same for both, and for a name that nobody has. The connection ends."""
    response = web.json_response(
        {"error": "missing or wrong token, or one in the address instead of a header"}, status=401
    )
    for scheme in (
        "Basic",
        "Bearer",
    ):  # a line each: SNS shows its password only when asked, and may read the first alone
        response.headers.add(hdrs.WWW_AUTHENTICATE, f'{scheme} realm="alertrouter"')
    return _ends(response)


def _forbidden(reason: str) -> web.Response:
    return _ends(web.json_response({"error": reason}, status=403))


def _ends(response: web.Response) -> web.Response:
    response.force_close()  # the body was not read, and is not going to be
    return response
