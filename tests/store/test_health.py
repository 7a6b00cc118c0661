"""What is said about how Redis is set up: each fault with the line that mends it, once in the log, and never a guess."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from alertrouter.errors import StoreUnavailable
from alertrouter.store.connect import connect
from alertrouter.store.health import Health, find_faults
from tests.conftest import program
from tests.rig.servers import RedisServer

GOOD = {
    "redis_version": "7.0.15",
    "loading": 0,
    "maxmemory_policy": "noeviction",
    "maxmemory": 0,
    "used_memory": 900_000,
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
}


@pytest.mark.parametrize(
    ("info", "appendfsync", "fault", "says"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "always", "eviction", "put `maxmemory-policy noeviction` in redis.conf"),
        ({"aof_enabled": 0}, "always", "aof", "put `appendonly yes` and `appendfsync always` in redis.conf"),
        ({"aof_enabled": 0}, "everysec", "aof", "appendonly is no"),
        ({}, "everysec", "fsync", "loses the last second"),
        ({}, "no", "fsync", "put `appendfsync always` in redis.conf"),
        ({"maxmemory": 1000, "used_memory": 501}, "always", "memory", "50 % of its memory"),
        ({"maxmemory": 1000, "used_memory": 800}, "always", "memory", "put a larger `maxmemory` than 1000"),
        ({"maxmemory": 1000, "used_memory": 801}, "always", "memory_short", "at 100 % it accepts nothing"),
        ({"redis_version": "6.2.14"}, "always", "version", "needs Redis 7.0 or later, or Valkey"),
        ({"loading": 1}, "always", "loading", "loading its data"),
        ({"aof_last_write_status": "err"}, "always", "aof_write", "look at its disk"),
    ],
)
def test_each_fault_says_what_to_do(info: dict[str, Any], appendfsync: str, fault: str, says: str) -> None:
    faults = find_faults({**GOOD, **info}, appendfsync)
    assert list(faults) == [fault]
    assert says in faults[fault]


@pytest.mark.parametrize(
    ("info", "appendfsync"),
    [
        ({}, "always"),
        ({}, None),  # CONFIG is forbidden
        ({"maxmemory": 1000, "used_memory": 500}, "always"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, "always"),
        ({"redis_version": "10.0.0"}, "always"),
    ],
)
def test_nothing_is_said_without_a_fault(info: dict[str, Any], appendfsync: str | None) -> None:
    assert find_faults({**GOOD, **info}, appendfsync) == {}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(program("redis-server"), tmp_path / "redis") as server:
        yield server


async def test_a_fault_is_logged_when_it_begins_and_when_it_ends(server: RedisServer) -> None:
    async with connect(server.url) as client:
        health = Health(client)
        await health.look()
        assert health.warnings == []
        await client.config_set("maxmemory-policy", "allkeys-lru")
        await client.config_set("appendfsync", "everysec")
        with capture_logs() as log:
            await health.look()
            await health.look()
            await client.config_set("maxmemory-policy", "noeviction")
            await health.look()
        assert sorted((entry["log_level"], entry["fault"]) for entry in log) == [
            ("info", "eviction"),
            ("warning", "eviction"),
            ("warning", "fsync"),
        ]
        [warning] = health.warnings
        assert "appendfsync is everysec" in warning


async def test_where_config_is_forbidden_nothing_is_said_about_fsync(server: RedisServer) -> None:
    await server.command("CONFIG", "SET", "appendfsync", "everysec")
    await server.command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-config")
    async with connect(server.url.replace("//", "//app:pw@")) as client:
        health = Health(client)
        await health.look()
        assert health.warnings == []


async def test_the_last_look_stands_while_redis_is_away(server: RedisServer) -> None:
    async with connect(server.url) as client:
        health = Health(client)
        await client.config_set("maxmemory-policy", "allkeys-lru")
        await health.look()
        await server.kill()
        with pytest.raises(StoreUnavailable):
            await health.look()
        assert len(health.warnings) == 1
