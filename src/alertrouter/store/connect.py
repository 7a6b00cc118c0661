"""The client of Redis: one server, whichever is in charge now, asked within two seconds.

An installation's keys share one hash tag, so on a Cluster too they live on one server. That server is the one the
address names, the master that Sentinel names, or the owner of the tag's slot; it is looked for anew when a connection
breaks or the server says that it is not the one to ask.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from alertrouter.errors import SettingsInvalid
from alertrouter.store.keys import keys_of

#: One command with all that it takes: a free connection, finding the server, connecting, asking a second time.
COMMAND_S: Final = 2.0
_CONNECT_S = 1.0
_CONNECTIONS = 32
#: How long replicas get to confirm. They answer when they have it, which takes a round trip.
_WAIT_MS = 1000
#: Sentinels or nodes that did not answer this long after most did are not waited for.
_STRAGGLERS_S = 0.1
#: How often it is asked whether the server in use is still the one in charge: nobody tells a client of a partition.
_LOOK_AGAIN_S = 2.0
_TRY_AGAIN_S = 0.05
_DEFAULT_PORT = {"sentinel": 26379, "cluster": 6379}
#: What of the options in an address is for Sentinels and nodes, too.
_FOR_ALL = ("ssl_",)
_HOW_TO_WRITE = (
    "write redis://host:6379/0, rediss:// for TLS, unix:///path, "
    "redis+sentinel://host1:26379,host2:26379/mymaster or redis+cluster://host1:6379,host2:6379"
)
#: Told instead of the part of the address that is wrong: that may be a part of the password.
_HOW_TO_ENCODE = "in a password / is written %2F, ? %3F, # %23, @ %40"

Address = tuple[str, int]
T = TypeVar("T")


def connect(url: str, *, instance: str = "main") -> Client:
    """A client for the server at `url`, which may name Sentinels or nodes of a Cluster.

    Short time-outs, at most one retry, and it waits for a free connection: redis-py would by default retry for up to a
    minute and raise at the 101st concurrent command. `instance` decides the slot on a Cluster. Connects when first
    used. Raises SettingsInvalid, with what to write, for what is no address of a Redis.
    """
    try:
        pool = _pool(url, instance)
    except (ValueError, TypeError, RedisError) as error:
        raise SettingsInvalid(f"ALERTROUTER_REDIS_URL: {error}; {_HOW_TO_WRITE}") from None
    return cast(Client, Client.from_pool(pool))


class Client(Redis):
    """Commands for the server in charge. Each takes two seconds at most.

    A command is sent a second time where the connection broke or the server was not the one to ask; all that is asked
    of Redis here may happen twice. One that timed out is not: its time is over.
    """

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """The answer to one command. Raises RedisError, OSError or TimeoutError."""
        execute: Callable[..., Awaitable[Any]] = super().execute_command
        return await self._at_most_twice(lambda: execute(*args, **options))

    async def execute_on_replicas(self, replicas: int, *command: Any) -> tuple[Any, int]:
        """The answer to one command, and how many replicas have what it wrote: `replicas`, or fewer after a second.

        One round trip: WAIT speaks of what was written on the same connection, https://redis.io/docs/latest/commands/wait/
        """

        async def attempt() -> tuple[Any, int]:
            pipeline = self.pipeline(transaction=False)
            pipeline.execute_command(*command)
            pipeline.execute_command("WAIT", replicas, _WAIT_MS)
            answers = await pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, RedisError):
                    raise answer
            return answers[0], answers[1]

        return await self._at_most_twice(attempt)

    @property
    def server(self) -> str:
        """The server in charge as last heard, as host:port; "" where it is always the one that the address names."""
        address = self._pool.found
        return f"{address[0]}:{address[1]}" if address else ""

    def forget(self) -> None:
        """Look for the server in charge anew; no connection there is is used again."""
        self._pool.forget()

    @property
    def _pool(self) -> Pool:
        return cast(Pool, self.connection_pool)

    async def _at_most_twice(self, attempt: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(COMMAND_S):
                try:
                    return await _tell_losses(attempt)
                except BusyLoadingError:
                    raise  # it takes longer than we have
                except _ELSEWHERE:
                    self.forget()
                except TryAgainError:
                    await asyncio.sleep(_TRY_AGAIN_S)
                return await _tell_losses(attempt)
        except TimeoutError as error:
            self.forget()
            raise RedisTimeoutError(f"no answer within {COMMAND_S:.0f} s") from error
        except (*_ELSEWHERE, RedisTimeoutError):
            self.forget()
            raise


async def _tell_losses(attempt: Callable[[], Awaitable[T]]) -> T:
    """The attempt, with the one error for a lost connection that uvloop has of its own as the usual one."""
    try:
        return await attempt()
    except RuntimeError as error:
        if "the handler is closed" not in str(error):
            raise
        raise RedisConnectionError(str(error)) from error


#: Another server may be the one to ask by now. AskError is MovedError's base: a slot on its way is not followed.
_ELSEWHERE = (RedisConnectionError, ReadOnlyError, AskError, ClusterDownError, OSError)


class Pool(BlockingConnectionPool):
    """Connections to the server in charge. `locate` finds it; None where the address in use is the only one."""

    def __init__(self, *, locate: Callable[[], Coroutine[Any, Any, Address]] | None, **options: Any) -> None:
        super().__init__(**options)
        self._locate = locate
        self._search = 0
        self._of_search: dict[AbstractConnection, int] = {}
        self._locating = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self.found: Address | None = None

    def forget(self) -> None:
        """Look for the server anew; connections made so far are made anew before they are used again."""
        self._search += 1
        self.found = None

    async def address(self) -> Address:
        """Of the server in charge. Raises RedisConnectionError where nobody can tell."""
        assert self._locate is not None
        async with self._locating:  # many connections, one search
            if self.found is None:
                self.found = await self._locate()
                self._looked_at = asyncio.get_running_loop().time()
            return self.found

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect it, or connect it anew where it leads to what has been forgotten."""
        if self._of_search.get(connection) != self._search:
            await connection.disconnect(nowait=True)
            self._of_search[connection] = self._search
        await super().ensure_connection(connection)
        now = asyncio.get_running_loop().time()
        if self._locate is not None and now > self._looked_at + _LOOK_AGAIN_S:
            self._looked_at = now
            self._looking = asyncio.create_task(self._look_again(self._locate))

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections."""
        if self._looking is not None:
            self._looking.cancel()
        await super().disconnect(inuse_connections)

    async def _look_again(self, locate: Callable[[], Coroutine[Any, Any, Address]]) -> None:
        with suppress(RedisError, OSError, TimeoutError):
            address = await locate()
            if address != self.found:
                self.forget()
                self.found = address


class _LocatedConnection(Connection):
    """A connection to whichever server is in charge when it connects."""

    def __init__(self, *, address: Callable[[], Awaitable[Address]], **options: Any) -> None:
        super().__init__(**options)
        self._address = address

    async def _connect(self) -> None:
        self.host, self.port = await self._address()
        await super()._connect()  # type: ignore[no-untyped-call]


class _LocatedSSLConnection(_LocatedConnection, SSLConnection):
    pass


#: Every command has a time-out of ours. For its own redis-py would send each by asyncio.wait_for, which costs a task, and
#: until Python 3.12 forgets that its caller was cancelled: https://github.com/python/cpython/issues/86296
_OURS = {"socket_timeout": None}


def _pool(url: str, instance: str) -> Pool:
    options: dict[str, Any] = {
        "max_connections": _CONNECTIONS,
        "timeout": COMMAND_S,
        "socket_connect_timeout": _CONNECT_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # no HELLO: one round trip less until the first command
    }
    scheme, _, rest = url.partition("://")
    plain, _, topology = scheme.partition("+")
    if not topology:
        _check_path(url)
        return _tried(Pool(locate=None, **{**options, **parse_url(url), **_OURS}))
    if plain not in ("redis", "rediss") or topology not in _DEFAULT_PORT:
        raise ValueError("it begins with something else")
    credentials, hosts, path, query = _parts(rest, _DEFAULT_PORT[topology])
    given: dict[str, Any] = {**parse_url(f"{plain}://{credentials}localhost{query}")}
    for_all = {name: value for name, value in given.items() if name.startswith(_FOR_ALL)} | {"ssl": plain == "rediss"}
    login: dict[str, Any] = {name: given[name] for name in ("username", "password") if name in given}
    if topology == "sentinel":
        name, database = _master_and_database(path)
        locate: Callable[[], Coroutine[Any, Any, Address]] = _Sentinels(hosts, name, for_all, login).master
        given["db"] = database
    else:
        if path.strip("/") not in ("", "0"):
            raise ValueError(f"a Cluster has no database but 0, leave it out; {_HOW_TO_ENCODE}")
        slot = key_slot(keys_of(instance).due.encode())
        locate = _Cluster(hosts, slot, {**for_all, **login}).owner
    for name in ("host", "port", "connection_class"):
        given.pop(name, None)
    pool = Pool(
        locate=locate,
        connection_class=_LocatedSSLConnection if plain == "rediss" else _LocatedConnection,
        **{**options, **given, **_OURS},
    )
    # not the method itself: the pool shows its options, and that would show the pool
    pool.connection_kwargs["address"] = lambda: pool.address()
    return _tried(pool)


def _tried(pool: Pool) -> Pool:
    """The pool, if its options make a connection: a misspelt one shows only then."""
    pool.connection_class(**pool.connection_kwargs)
    return pool


def _check_path(url: str) -> None:
    """Refuse what redis-py would read as database 0."""
    parts = urlsplit(url)
    if parts.scheme in ("redis", "rediss"):
        if not parts.hostname:
            raise ValueError("it names no host")
        _port(parts)
        if not re.fullmatch(r"/?\d*/?", parts.path):
            raise ValueError(f"what follows the host is no database number; {_HOW_TO_ENCODE}")
    elif parts.scheme == "unix" and not parts.path:
        raise ValueError("it names no path")


def _parts(rest: str, default_port: int) -> tuple[str, Sequence[Address], str, str]:
    """Credentials with their "@" (or ""), hosts, path and query with its "?" (or "") of what follows "://"."""
    found = re.fullmatch(r"([^/?#]*@)?([^/?#@]*)([^?#]*)(\?[^#]*)?", rest)
    if not found or not found[2]:
        raise ValueError("it names no host")
    hosts = []
    for text in found[2].split(","):
        host = urlsplit(f"//{text.strip()}")
        if not host.hostname:
            raise ValueError("a host is missing between the commas")
        hosts.append((host.hostname, _port(host) or default_port))
    return found[1] or "", hosts, found[3], found[4] or ""


def _port(parts: SplitResult) -> int | None:
    """The port, if one is named. Raises ValueError without showing it: it may be the beginning of a password."""
    try:
        return parts.port
    except ValueError:
        raise ValueError(f"what follows the host's colon is no port; {_HOW_TO_ENCODE}") from None


def _master_and_database(path: str) -> tuple[str, int]:
    name, _, database = path.strip("/").partition("/")
    if not name:
        raise ValueError("the name of the master is missing after the hosts")
    if "@" in path or (database and not database.isdecimal()):
        raise ValueError(f"what follows the name of the master is no database number; {_HOW_TO_ENCODE}")
    return unquote(name), int(database or 0)


@dataclass(frozen=True, slots=True)
class View:
    """One Sentinel's view of the master.

    epoch:    of the election that it won.
    doubted:  this Sentinel does not reach it.
    down:     enough of them do not.
    """

    address: Address
    epoch: int
    doubted: bool = False
    down: bool = False


def choose_master(views: Sequence[View]) -> Address | None:
    """The winner of the newest election that any Sentinel knows of; None where it is held for dead.

    The first answer will not do: a Sentinel that was split off together with the old master still names that. And what
    is written to a master that is about to be replaced is lost.
    """
    address = max(views, key=lambda view: view.epoch).address
    same = [view for view in views if view.address == address]
    if any(view.down for view in same) or sum(view.doubted for view in same) > len(views) / 2:
        return None
    return address


class _Sentinels:
    """Sentinels, and the name of the master they watch."""

    def __init__(
        self, hosts: Sequence[Address], name: str, options: Mapping[str, Any], login: Mapping[str, Any]
    ) -> None:
        self._hosts = hosts
        self._name = name
        self._options = options
        self._login = login

    async def master(self) -> Address:
        """Where the master is. Raises RedisConnectionError where there is none, or nobody knows."""
        views = [view for view in await _ask_all(self._hosts, self._ask) if view is not None]
        if not views:
            raise RedisConnectionError(f"no Sentinel that answers knows a master named {self._name!r}")
        address = choose_master(views)
        if address is None:
            raise RedisConnectionError(f"Sentinel holds the master {self._name!r} for dead and has no other yet")
        return address

    async def _ask(self, host: Address) -> View | None:
        try:
            return await self._view(host, {})
        except (AuthenticationError, ResponseError):
            if not self._login:
                raise
            return await self._view(host, self._login)  # it asks for a password: the same one

    async def _view(self, host: Address, login: Mapping[str, Any]) -> View | None:
        async with _briefly(host, {**self._options, **login}) as sentinel:
            address = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
            if address is None:
                return None
            flat = await sentinel.execute_command("SENTINEL", "MASTER", self._name)
        state = dict(zip(flat[::2], flat[1::2], strict=True))
        # amid a failover the address is already the new one, while the state still speaks of the old one
        flags = state[b"flags"].split(b",") if [state[b"ip"], state[b"port"]] == address else []
        return View(
            address=(address[0].decode(), int(address[1])),
            epoch=int(state[b"config-epoch"]),
            doubted=b"s_down" in flags,
            down=b"o_down" in flags,
        )


class _Cluster:
    """Some nodes of a Cluster, and the slot whose owner is wanted."""

    def __init__(self, hosts: Sequence[Address], slot: int, options: Mapping[str, Any]) -> None:
        self._hosts = hosts
        self._slot = slot
        self._options = options

    async def owner(self) -> Address:
        """Which server owns the slot, by what most nodes say."""
        answers = [answer for answer in await _ask_all(self._hosts, self._ask) if answer is not None]
        if not answers:
            raise RedisConnectionError(f"no node of the Cluster that answers knows who serves slot {self._slot}")
        return Counter(answers).most_common(1)[0][0]

    async def _ask(self, host: Address) -> Address | None:
        async with _briefly(host, self._options) as node:
            slots = await node.execute_command("CLUSTER", "SLOTS")
        for first, last, (name, port, *_), *_ in slots:
            if first <= self._slot <= last:
                return (name.decode() if name else host[0]), port  # no name: the one it was asked under
        return None


def _briefly(host: Address, options: Mapping[str, Any]) -> Any:
    """A connection to ask one question with, as a context."""
    return Redis(
        host=host[0],
        port=host[1],
        single_connection_client=True,
        socket_timeout=_CONNECT_S,
        socket_connect_timeout=_CONNECT_S,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        **options,
    )


async def _ask_all(hosts: Sequence[Address], ask: Callable[[Address], Coroutine[Any, Any, T]]) -> list[T]:
    """The answers of those that answer, without waiting for stragglers. Raises the first error if nobody does."""
    asking = {asyncio.create_task(ask(host)) for host in hosts}
    most = len(hosts) // 2 + 1
    answers: list[T] = []
    errors: list[BaseException] = []
    pending = set(asking)
    try:
        while pending:
            enough = len(answers) >= most
            done, pending = await asyncio.wait(
                pending, timeout=_STRAGGLERS_S if enough else _CONNECT_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    answers.append(task.result())
                else:
                    errors.append(error)
            if not done:
                break
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    for error in errors:
        if not isinstance(error, (RedisError, OSError, TimeoutError)):
            raise error
    if not answers:
        raise errors[0] if errors else RedisTimeoutError(f"none of {len(hosts)} hosts answers")
    return answers
