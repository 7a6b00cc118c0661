"""A client for a server of one's own on a unix socket, for whoever asks a million times and nobody else meanwhile.

It waits for each answer where it stands: the server answers in microseconds, and a turn of the event loop costs more.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Self

import hiredis
from redis.exceptions import NoScriptError, ResponseError

_READ = 256 * 1024
#: Fewer than fill the socket's buffers, or both ends would wait for each other.
_MOST_HELD = 32


class QuickClient:
    """What AlertStore asks of a client, with answers as Redis gives them. `with` closes the connection.

    expected:  while it is set, commands are held back and answered with it at once. They are sent with the next one that
               is not, and then their answers must be just that.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._reader = hiredis.Reader(replyError=_error)
        self._held: list[bytes] = []
        self._answers: list[object] = []
        self.expected: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def execute_command(self, *args: Any) -> Any:
        """The answer to one command. Raises RedisError and OSError."""
        command = hiredis.pack_command(args)
        if self.expected is not None:
            self._held.append(command)
            self._answers.append(self.expected)
            if len(self._held) >= _MOST_HELD:
                self._send_held(b"")
            return self.expected
        self._send_held(command)
        answer = self._answer()
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def _send_held(self, command: bytes) -> None:
        """Send what was held back and `command` after it, and check the answers to the former."""
        self._socket.sendall(b"".join((*self._held, command)) if self._held else command)
        for expected in self._answers:
            if (answer := self._answer()) != expected:
                raise AssertionError(f"{answer!r}, where {expected!r} was sure to come")
        self._held.clear()
        self._answers.clear()

    def _answer(self) -> Any:
        while (answer := self._reader.gets()) is False:
            data = self._socket.recv(_READ)
            if not data:
                raise ConnectionError("the throwaway server is gone")
            self._reader.feed(data)
        return answer

    async def zrange(self, key: str, first: int, last: int, *, withscores: bool = False) -> Any:
        flat = await self.execute_command("ZRANGE", key, first, last, *(("WITHSCORES",) if withscores else ()))
        return list(zip(flat[::2], flat[1::2], strict=True)) if withscores else flat

    async def hgetall(self, key: str) -> dict[bytes, bytes]:
        flat = await self.execute_command("HGETALL", key)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def mget(self, keys: list[str]) -> Any:
        return await self.execute_command("MGET", *keys)

    async def delete(self, *keys: str) -> Any:
        return await self.execute_command("DEL", *keys) if keys else 0


def _error(text: str) -> ResponseError:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)
