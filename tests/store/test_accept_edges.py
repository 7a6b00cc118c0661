"""accept at its edges: episodes without dates, times that are equal, and what news takes away from a record."""

from __future__ import annotations

import fakeredis
import pytest
from redis.asyncio import Redis

from alertrouter.alert import Alert
from alertrouter.record import News, Outcome
from alertrouter.store.store import Accepted, AlertStore, Judged
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.store.test_accept import deliver

RESOLVED = make_alert(status="resolved", ended=NIGHT + MINUTE)


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        (make_alert(episode="a"), make_alert(episode="b", started=0), News.EPISODE),
        (make_alert(episode="a", started=0), make_alert(episode="b"), News.EPISODE),
        (make_alert(episode="a"), make_alert(episode="b"), Accepted.DUPLICATE),
        (make_alert(), make_alert(status="resolved", ended=1), Accepted.STALE),
        (make_alert(), make_alert(status="resolved", ended=NIGHT), News.STATUS),
        (make_alert(), make_alert(status="resolved", ended=0), News.STATUS),
    ],
    ids=["undated now", "undated before", "same start", "ended in 1970", "ended as it began", "ended at no time"],
)
async def test_what_is_another_episode(store: AlertStore, first: Alert, then: Alert, expected: News | Accepted) -> None:
    await store.accept([first], NIGHT)
    await deliver(store, NIGHT)
    assert await store.accept([then], NIGHT + SECOND) == [expected]


async def test_an_undated_episode_is_news_once(store: AlertStore) -> None:
    names = ["a", "b", "b", "b"]
    heard = []
    for second, name in enumerate(names):
        heard += await store.accept([make_alert(episode=name, started=0)], NIGHT + second * SECOND)
        await deliver(store, NIGHT + second * SECOND)
    assert heard == [News.NEW, News.EPISODE, Accepted.DUPLICATE, Accepted.DUPLICATE]


async def test_what_is_heard_by_a_clock_that_is_behind_counts_all_the_same(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    assert await store.accept([RESOLVED], NIGHT - MINUTE) == [News.STATUS]


async def test_a_new_episode_is_not_blamed_for_the_workers_of_the_last(store: AlertStore, client: Redis) -> None:
    key = store.keys.alert + RESOLVED.id
    await store.accept([make_alert()], NIGHT)
    await client.hset(key, mapping={"poisoned": "1", "takeovers": "5"})
    await store.accept([RESOLVED], NIGHT + MINUTE)
    assert await client.hmget(key, ["poisoned", "takeovers"]) == [b"1", b"5"], "still the same episode"
    await store.accept([make_alert(started=NIGHT + HOUR)], NIGHT + HOUR)
    assert await client.hmget(key, ["poisoned", "takeovers"]) == [None, None]


async def test_a_record_that_was_to_be_forgotten_stays_when_it_is_heard_again(store: AlertStore, client: Redis) -> None:
    key = store.keys.alert + RESOLVED.id
    await store.accept([RESOLVED], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([Judged(record, Outcome.DELIVERED, "", "", "", 0, closed=True, sends=())], NIGHT)
    assert await client.ttl(key) > 0
    await store.accept([make_alert(started=NIGHT + HOUR)], NIGHT + HOUR)
    assert await client.ttl(key) == -1


async def test_news_is_no_longer_parked(store: AlertStore, client: Redis) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([Judged(record, Outcome.SUPPRESSED, "", "", "", 0, False, (), parked=True)], NIGHT)
    assert await client.zcard(store.keys.parked) == 1
    await store.accept([make_alert()], NIGHT + SECOND)
    assert await client.zcard(store.keys.parked) == 0


async def test_what_is_told_of_later_is_older_only_than_what_was_heard_after_it(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    await store.adopt(RESOLVED, NIGHT - 1, None, NIGHT + MINUTE)
    assert (await heard(store))[-1]["news"] == "older"
    await store.adopt(RESOLVED, NIGHT, None, NIGHT + MINUTE)
    assert (await heard(store))[-1]["news"] == "status"


async def test_what_is_heard_is_in_the_history_and_repetitions_once(store: AlertStore) -> None:
    await store.accept([make_alert("a")], NIGHT)
    await store.accept([make_alert("a"), make_alert("a"), make_alert("b")], NIGHT)
    await store.accept([make_alert("b")], NIGHT)
    kinds = [(entry["kind"], entry.get("news"), entry.get("heard")) for entry in await heard(store)]
    assert kinds == [
        ("heard", "new", None),
        ("duplicate", None, '["firing alertmanager:a","firing alertmanager:a"]'),
        ("heard", "new", None),
        ("duplicate", None, '["firing alertmanager:b"]'),
    ]


async def test_who_keeps_no_history_has_none(client: Redis) -> None:
    for length, entries in ((0, 0), (1, 1)):
        store = AlertStore(client, history_length=length, script_flags=not isinstance(client, fakeredis.FakeAsyncRedis))
        await store.accept([make_alert(str(length))], NIGHT)
        assert len(await heard(store)) == entries


async def heard(store: AlertStore) -> list[dict[str, str]]:
    return [fields for _, fields in await store.history_entries("-", "+", 100)]
