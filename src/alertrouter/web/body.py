"""The bytes of a request: bounded, decompressed, and always answered."""

from __future__ import annotations

import zlib

from aiohttp import HttpVersion11, hdrs, web

from alertrouter.errors import BadPayload

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_CONTINUED = web.RequestKey("continued", bool)


async def read_body(request: web.Request, limit: int) -> bytes:
    """The decompressed body, at most `limit` bytes before and after decompression.

    Raises BadPayload with the status to answer: 413 too large, 415 unknown encoding, 400 corrupt.
    The server runs with `auto_decompress=False`: aiohttp answers a corrupt or unknown encoding with no status at all.
    """
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity") and encoding not in _WINDOW_BITS:
        raise BadPayload("unknown Content-Encoding; send gzip, deflate or none", status=415)
    body = await read_raw(request, limit)
    return decompress(body, encoding, limit) if encoding in _WINDOW_BITS else body


async def continue_when_read(_: web.Request) -> None:
    """The expect handler of every route with a body: who is refused is never told to send it; `read_raw` says it to others."""


async def read_raw(request: web.Request, limit: int) -> bytes:
    """The body as it came over the wire, which is what its sender signed. Raises BadPayload, 413, over `limit` bytes."""
    if request.content_length is not None and request.content_length > limit:
        raise too_large(limit)
    # https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1: an interim answer, once, and only where they are known
    if hdrs.EXPECT in request.headers and request.version >= HttpVersion11 and _CONTINUED not in request:
        request[_CONTINUED] = True
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large(limit) from None


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """`body` decoded from gzip or deflate. Raises BadPayload if it is corrupt, cut short or larger than `limit`."""
    inflate = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = inflate.decompress(body, limit + 1)
    except zlib.error:
        raise BadPayload(f"the body is not {encoding}, as its Content-Encoding says") from None
    if len(plain) > limit:
        raise too_large(limit)
    if not inflate.eof:
        raise BadPayload(f"the {encoding} body ends too early")
    return plain


def too_large(limit: int) -> BadPayload:
    """The 413 for a body over `limit` bytes."""
    return BadPayload(f"the body is over {limit} bytes (ALERTROUTER_MAX_BODY_BYTES)", status=413)
