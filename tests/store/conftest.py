"""The store contract runs on fakeredis, on Debian's Redis and on the embedded Valkey."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import fakeredis
import pytest
from redis.asyncio import Redis

from alertrouter.store.connect import connect
from alertrouter.store.embedded import start_embedded
from alertrouter.store.store import AlertStore, Dedup

MakeStore = Callable[..., AlertStore]


@pytest.fixture(params=["fakeredis", "redis", "valkey"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Redis]:
    """An empty server of each kind."""
    if request.param == "fakeredis":
        fake = fakeredis.FakeAsyncRedis()
        yield fake
        await fake.aclose()
    elif request.param == "redis":
        client = connect(request.getfixturevalue("redis_url"))
        await client.flushall()
        yield client
        await client.aclose()
    else:
        embedded = await start_embedded(tmp_path / "data")
        client = connect(embedded.url)
        yield client
        await client.aclose()
        await embedded.stop()


@pytest.fixture
def make_store(client: Redis) -> MakeStore:
    """Another worker's store on the same server."""

    def make(dedup: Dedup | None = None, owner: str = "") -> AlertStore:
        return AlertStore(
            client,
            dedup=dedup,
            owner=owner or os.urandom(4).hex(),
            script_flags=not isinstance(client, fakeredis.FakeAsyncRedis),
        )

    return make


@pytest.fixture
def store(make_store: MakeStore) -> AlertStore:
    """A store with the default dedup window."""
    return make_store(owner="me")
