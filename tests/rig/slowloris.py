"""Many sockets that send one byte a second, each a request that never ends.

`python -m tests.rig.slowloris --port 9087 --sockets 2000 --addresses 10` runs it as a process, so that whoever measures
beside it does nothing else. Half of them are slow with their headers, half with their body. It ends when the server has
closed all of them, and prints what it saw as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import selectors
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

REPOSITORY = Path(__file__).parents[2]
_HEAD = b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nX-Slow: "
_BODY = b"POST /webhooks/alertmanager HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
#: The bytes of a second are sent in so many turns.
_TURNS = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of the sockets.

    opened:     how many were connected at some time.
    refused:    how many of them were answered, with a 503.
    closed:     how many the server ended.
    longest_s:  how long the one lived that lived longest.
    """

    opened: int
    refused: int
    closed: int
    longest_s: float


def attack(port: int, sockets: int, addresses: int, within_s: float) -> Seen:
    """Open the sockets from 127.0.1.1 on, and feed them until all are closed or the time is over."""
    began: dict[socket.socket, float] = {}
    lived: list[float] = []
    refused = 0
    with selectors.DefaultSelector() as selector:
        for number in range(sockets):
            made = socket.create_connection(("127.0.0.1", port), 10, (f"127.0.1.{number % addresses + 1}", 0))
            made.setblocking(False)
            began[made] = time.monotonic()
            selector.register(made, selectors.EVENT_READ)
            with suppress(OSError):
                made.send(_BODY if number % 2 else _HEAD)
        over = time.monotonic() + within_s
        turn, next_turn = 0, 0.0
        while began and (now := time.monotonic()) < over:
            if now >= next_turn:
                turn, next_turn = turn + 1, now + 1 / _TURNS
                for made in began:
                    if made.fileno() % _TURNS == turn % _TURNS:
                        with suppress(OSError):
                            made.send(b"x")
            for key, _ in selector.select(max(0.0, next_turn - time.monotonic())):
                made = cast(socket.socket, key.fileobj)
                heard = b""
                with suppress(OSError):
                    heard = made.recv(4096)
                refused += heard.startswith(b"HTTP/1.1 503")
                if not heard:
                    selector.unregister(made)
                    lived.append(time.monotonic() - began.pop(made))
                    made.close()
        opened = len(lived) + len(began)
    return Seen(opened, refused, len(lived), round(max(lived, default=0.0), 1))


class Slowloris:
    """The sockets as a process of their own."""

    def __init__(self, port: int, sockets: int, addresses: int, within_s: float) -> None:
        self._options = (f"--port={port}", f"--sockets={sockets}", f"--addresses={addresses}", f"--within={within_s}")

    async def run(self) -> Seen:
        """Open them, and wait until all are closed or the time is over."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.rig.slowloris", *self._options),
            stdout=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        found: dict[str, Any] = json.loads(output)
        return Seen(**found)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser()
    for name in ("port", "sockets", "addresses"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--within", type=float, default=60.0)
    told = parser.parse_args()
    sys.stdout.write(json.dumps(asdict(attack(told.port, told.sockets, told.addresses, told.within))) + "\n")


if __name__ == "__main__":
    main()
