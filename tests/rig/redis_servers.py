"""Several redis-servers together: a master with replicas and Sentinels, and a Cluster."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis

from tests.rig.servers import RedisServer, _Server, free_port
from tests.waiting import until

#: Options of a server that takes a millisecond for each key when it loads its data, and answers LOADING meanwhile.
SLOW_TO_LOAD = (
    *("--enable-debug-command", "yes", "--key-load-delay", "1000"),
    *("--loading-process-events-interval-bytes", "1024"),
)
MASTER = "mymaster"
#: Who Redis servers and Sentinels are to each other, and who clients are: so that a server can be cut off from its like
#: and still serve clients. No proxy can do that: Sentinel tells clients the very address that it watches itself.
_PEER, _CLIENT, _PASSWORD = "peer", "client", "sesame"
_NODES = 3
_SLOTS = 16384


class _Sentinel(_Server):
    """One Sentinel. It writes down what it learns in its own configuration."""

    def __init__(self, program: str, folder: Path, master: RedisServer, *, guarded: bool) -> None:
        folder.mkdir(parents=True)
        super().__init__(folder / "sentinel.log", dict(os.environ))
        self._program = program
        self.port = free_port()
        self._configuration = folder / "sentinel.conf"
        self._configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
            f"sentinel auth-user {MASTER} {_PEER}\n"
            f"sentinel auth-pass {MASTER} {_PASSWORD}\n"
            + (
                f"user default off\nuser {_CLIENT} on >{_PASSWORD} &* +@all\n"
                f"sentinel sentinel-user {_CLIENT}\nsentinel sentinel-pass {_PASSWORD}\n"
                if guarded
                else ""
            )
        )
        self._login: dict[str, Any] = {"username": _CLIENT, "password": _PASSWORD} if guarded else {}

    async def __aenter__(self) -> Self:
        await self._run(self._program, str(self._configuration), "--sentinel")
        return self

    async def state(self) -> dict[bytes, bytes]:
        """What it knows of the master."""
        flat = await _ask(self.port, "SENTINEL", "MASTER", MASTER, **self._login)
        return dict(zip(flat[::2], flat[1::2], strict=True))


class _Guarded(RedisServer):
    """A server that takes nothing from strangers."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        users = [
            word for name in (_PEER, _CLIENT) for word in ("--user", name, "on", f">{_PASSWORD}", "~*", "&*", "+@all")
        ]
        as_replica = ("--masteruser", _PEER, "--masterauth", _PASSWORD, "--repl-diskless-sync-delay", "0")
        super().__init__(program, folder, "--user", "default", "off", *users, *as_replica, *options)

    @property
    def url(self) -> str:
        """Its address for redis-py."""
        return f"redis://{_CLIENT}:{_PASSWORD}@127.0.0.1:{self.port}/0"


class SentinelSet:
    """A master, its replicas and three Sentinels: `async with` waits until a failover would succeed.

    `url` is for alertrouter. Sentinels that are `guarded` ask for a password, too. The servers are `servers[0]`, the master at first, and the replicas.
    """

    def __init__(self, program: str, folder: Path, *, replicas: int = 1, guarded: bool = False) -> None:
        master = _Guarded(program, folder / "master")
        follow = ("--replicaof", "127.0.0.1", str(master.port))
        self.servers: list[RedisServer] = [
            master,
            *(_Guarded(program, folder / f"replica-{n}", *follow) for n in range(1, replicas + 1)),
        ]
        self._sentinels = [_Sentinel(program, folder / f"sentinel-{n}", master, guarded=guarded) for n in range(3)]
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Its address for `connect`."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels)
        return f"redis+sentinel://{_CLIENT}:{_PASSWORD}@{hosts}/{MASTER}"

    async def __aenter__(self) -> Self:
        for server in self.servers:
            await self._stack.enter_async_context(server)
        for sentinel in self._sentinels:
            await self._stack.enter_async_context(sentinel)
        await until(self._is_ready, 30)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def master(self) -> RedisServer:
        """The server that Sentinel names."""
        port = int((await self._sentinels[0].state())[b"port"])
        return next(server for server in self.servers if server.port == port)

    async def cut_off(self, server: RedisServer) -> None:
        """Partition: no other server and no Sentinel reaches it any more. Clients do, and it takes what they write."""
        assert await server.command("ACL", "SETUSER", _PEER, "off") is not None
        assert await server.command("CLIENT", "KILL", "USER", _PEER) is not None

    async def heal(self, server: RedisServer) -> None:
        """Let the others reach it again, and wait until it is a replica of the one that took its place."""
        assert await server.command("ACL", "SETUSER", _PEER, "on") is not None
        await until(lambda: self._follows(server), 60)

    async def _follows(self, server: RedisServer) -> bool:
        info = await server.command("INFO", "replication")
        return isinstance(info, dict) and info["role"] == "slave" and info["master_link_status"] == "up"

    async def _is_ready(self) -> bool:
        if not all([await self._follows(replica) for replica in self.servers[1:]]):
            return False
        states = [await sentinel.state() for sentinel in self._sentinels]
        return all(
            int(state[b"num-slaves"]) >= len(self.servers) - 1 and int(state[b"num-other-sentinels"]) >= 2
            for state in states
        )


class Cluster:
    """Three masters that share the slots. `async with` waits until all agree."""

    def __init__(self, program: str, folder: Path) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port")
        self._buses = [free_port() for _ in range(_NODES)]
        self.nodes = [
            RedisServer(program, folder / f"node-{n}", *options, str(bus)) for n, bus in enumerate(self._buses)
        ]
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """Its address for `connect`."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    async def __aenter__(self) -> Self:
        for number, node in enumerate(self.nodes):
            await self._stack.enter_async_context(node)
            first, last = _SLOTS * number // _NODES, _SLOTS * (number + 1) // _NODES - 1
            await _ask(node.port, "CLUSTER", "ADDSLOTSRANGE", first, last)
            await _ask(node.port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node, bus in zip(self.nodes[1:], self._buses[1:], strict=True):
            await _ask(self.nodes[0].port, "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        await until(self._is_ready, 30)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def owner(self, slot: int) -> RedisServer:
        """The node that serves a slot."""
        for first, last, (_, port, *_), *_ in await _ask(self.nodes[0].port, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody serves slot {slot}")

    async def give(self, slot: int, node: RedisServer) -> None:
        """Let another node serve a slot; what the present one has there must have been moved."""
        identity = await _ask(node.port, "CLUSTER", "MYID")
        await asyncio.gather(
            *(_ask(other.port, "CLUSTER", "SETSLOT", slot, "NODE", identity) for other in self.nodes),
        )

    async def begin_to_move(self, slot: int, node: RedisServer) -> None:
        """Move the first key of a slot to another node and stop there: each node has a part of it."""
        owner = await self.owner(slot)
        identities = [await _ask(server.port, "CLUSTER", "MYID") for server in (owner, node)]
        await _ask(node.port, "CLUSTER", "SETSLOT", slot, "IMPORTING", identities[0])
        await _ask(owner.port, "CLUSTER", "SETSLOT", slot, "MIGRATING", identities[1])
        await self._move_keys(slot, owner, node, most=1)

    async def end_moving(self, slot: int, node: RedisServer) -> None:
        """Move the rest of it."""
        await self._move_keys(slot, await self.owner(slot), node, most=1000)
        await self.give(slot, node)

    async def _move_keys(self, slot: int, owner: RedisServer, node: RedisServer, most: int) -> None:
        keys = await _ask(owner.port, "CLUSTER", "GETKEYSINSLOT", slot, most)
        await _ask(owner.port, "MIGRATE", "127.0.0.1", node.port, "", 0, 5000, "KEYS", *keys)

    async def _is_ready(self) -> bool:
        for node in self.nodes:
            state = (await _ask(node.port, "CLUSTER", "INFO")).decode()
            if "cluster_state:ok" not in state or f"cluster_known_nodes:{_NODES}" not in state:
                return False
        return True


async def _ask(port: int, *words: str | int | bytes, **login: Any) -> Any:
    """The answer to one command as it comes, on a connection of its own."""
    async with Redis(host="127.0.0.1", port=port, socket_timeout=5, protocol=2, **login) as client:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]
