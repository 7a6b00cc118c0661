"""What every answer tells browsers: take it for what it says it is, run nothing, show it in no frame, keep no copy."""

from __future__ import annotations

from aiohttp import web

#: https://owasp.org/www-project-secure-headers/ for an API; a page says more of itself and keeps what it says.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


async def protect_readers(_: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on an answer that is about to be sent, where it has none of its own."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "alertrouter"  # instead of the versions of what it is made of
