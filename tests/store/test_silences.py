"""What the store keeps of silences and of test pages."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from alertrouter.errors import StoreUnavailable
from alertrouter.store.store import AlertStore
from tests.alerts import NIGHT
from tests.store.conftest import MakeStore

ADDED = {"kind": "silence_added", "id": "silence:a", "at": str(NIGHT), "owner": "anna"}
ENDED = {"kind": "silence_ended", "id": "silence:a", "at": str(NIGHT), "owner": "anna", "by": "bob"}


async def noted(store: AlertStore) -> list[dict[str, str]]:
    return [fields for _, fields in await store.history_entries("-", "+", 100)]


async def test_a_silence_is_there_for_everybody_until_it_is_ended(store: AlertStore, make_store: MakeStore) -> None:
    other = make_store()
    assert await other.silences() == {}
    assert await store.add_silence("a", b"{}", ADDED, most=5)
    assert await store.add_silence("b", b'{"b":1}', {**ADDED, "id": "silence:b"}, most=5)
    assert await other.silences() == {"a": b"{}", "b": b'{"b":1}'}
    assert await other.end_silence("a", ENDED)
    assert await store.silences() == {"b": b'{"b":1}'}
    assert await noted(store) == [ADDED, {**ADDED, "id": "silence:b"}, ENDED]


async def test_it_ends_once_and_is_noted_once_however_many_end_it(store: AlertStore, make_store: MakeStore) -> None:
    await store.add_silence("a", b"{}", ADDED, most=5)
    stores = [store, *(make_store() for _ in range(4))]
    ended = await asyncio.gather(*(each.end_silence("a", ENDED) for each in stores))
    assert sorted(ended) == [False, False, False, False, True]
    assert await noted(store) == [ADDED, ENDED]
    assert not await store.end_silence("never", ENDED)


async def test_there_are_no_more_than_so_many(store: AlertStore) -> None:
    assert await store.add_silence("a", b"{}", ADDED, most=1)
    assert not await store.add_silence("b", b"{}", ADDED, most=1)
    assert await store.silences() == {"a": b"{}"}
    assert await noted(store) == [ADDED], "what is refused is not on record"
    await store.end_silence("a", ENDED)
    assert await store.add_silence("b", b"{}", ADDED, most=1)


async def test_what_is_not_ours_stays_as_it_is(store: AlertStore, client: Redis) -> None:
    await client.set(store.keys.silences, "foreign")
    for wrong in (store.silences(), store.add_silence("a", b"{}", ADDED, most=5), store.end_silence("a", ENDED)):
        with pytest.raises(StoreUnavailable):
            await wrong
    assert await client.get(store.keys.silences) == b"foreign"
    assert await noted(store) == []


async def test_a_strange_name_keeps_nobody_from_the_others(store: AlertStore, client: Redis) -> None:
    await client.hset(store.keys.silences, b"\xff", "?")
    await store.add_silence("a", b"{}", ADDED, most=5)
    assert (await store.silences())["a"] == b"{}"


async def test_without_a_history_silences_work_all_the_same(client: Redis, store: AlertStore) -> None:
    bare = AlertStore(client, history_length=0, script_flags=store._scripts["beat"].source.startswith("#!lua"))
    assert await bare.add_silence("a", b"{}", ADDED, most=5)
    assert await bare.end_silence("a", ENDED)
    assert await noted(bare) == []


async def test_a_test_page_is_to_be_resolved_when_its_time_is_over(store: AlertStore, make_store: MakeStore) -> None:
    await store.resolve_test_at("page-test:a", NIGHT + 60_000)
    await store.resolve_test_at("page-test:b", NIGHT + 90_000)
    other = make_store()
    assert await other.tests_to_resolve(NIGHT + 59_999) == []
    assert await other.tests_to_resolve(NIGHT + 60_000) == ["page-test:a"]
    await other.forget_test("page-test:a")
    assert await store.tests_to_resolve(NIGHT + 90_000) == ["page-test:b"]
