"""The bytes of a request: bounded, decompressed, and always answered."""

from __future__ import annotations

import asyncio
import math
import zlib

from aiohttp import HttpVersion11, hdrs, web

from alertrouter.errors import BadPayload

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
#: Bytes that may take noticeable time to decompress: they may be some 16 MB then.
_LARGE_PACKED = 16 * 1024
_BODY = web.RequestKey("body", bytes)
_CONTINUED = web.RequestKey("continued", bool)


class Room:
    """So many bytes at once for bodies that are being read."""

    def __init__(self, size: float) -> None:
        self._left = size

    def take(self, size: int) -> None:
        """Raises BadPayload, 503, where there is no room."""
        if size > self._left:
            raise BadPayload(
                "too many bodies are on their way from senders that are not known yet, try again", status=503
            )
        self._left -= size

    def give_back(self, size: int) -> None:
        """There is room for that again."""
        self._left += size


#: For those who have shown their token.
NO_END = Room(math.inf)


async def read_body(request: web.Request, limit: int, unproven: Room = NO_END) -> bytes:
    """The decompressed body, at most `limit` bytes before and after decompression. unproven: as for `read_raw`.

    Raises BadPayload with the status to answer: 413 too large, 415 unknown encoding, 400 corrupt, 503 without room.
    The server runs with `auto_decompress=False`: aiohttp answers a corrupt or unknown encoding with no status at all.
    """
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity") and encoding not in _WINDOW_BITS:
        raise BadPayload("unknown Content-Encoding; send gzip, deflate or none", status=415)
    body = await read_raw(request, limit, unproven)
    if encoding not in _WINDOW_BITS:
        return body
    # others are not to wait for what becomes a large body
    return (
        await asyncio.to_thread(decompress, body, encoding, limit)
        if len(body) > _LARGE_PACKED
        else decompress(body, encoding, limit)
    )


async def continue_when_read(_: web.Request) -> None:
    """The expect handler of every route with a body: who is refused is never told to send it; `read_raw` says it to others."""


def is_awaited(request: web.Request) -> bool:
    """Whether the client waits to be told to send its body, and may not send it any more."""
    return hdrs.EXPECT in request.headers and _CONTINUED not in request


async def read_raw(request: web.Request, limit: int, unproven: Room = NO_END) -> bytes:
    """The body as it came over the wire, which is what its sender signed.

    unproven:  the room for bodies of those who show who they are in the body only.

    Raises BadPayload: 413 over `limit` bytes, 503 without room. A body is read once and kept.
    """
    if _BODY in request:
        return request[_BODY]
    if request.content_length is not None and request.content_length > limit:
        raise too_large(limit)
    # https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1: an interim answer, once, and only where they are known
    if hdrs.EXPECT in request.headers and request.version >= HttpVersion11 and _CONTINUED not in request:
        request[_CONTINUED] = True
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = bytearray()
    try:
        while chunk := await request.content.readany():
            if len(body) + len(chunk) > limit:
                raise too_large(limit)
            unproven.take(len(chunk))
            body += chunk
    finally:
        unproven.give_back(len(body))
    request[_BODY] = bytes(body)
    return request[_BODY]


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
