"""What the store keeps for rules: counts of thresholds, suspensions, and what other rules may let through."""

from __future__ import annotations

from dataclasses import replace as changed

from msgspec.structs import replace
from redis.asyncio import Redis

from alertrouter.record import News, Outcome, Record
from alertrouter.store.store import AlertStore, Judged, Result, Settlement, Threshold
from tests.alerts import MINUTE, NIGHT, SECOND, make_alert
from tests.store.conftest import MakeStore
from tests.store.test_queues import claimed

FLOOD = Threshold("global/start/flood/0/0", 5 * MINUTE)
WINDOW = [FLOOD]


async def heard(store: AlertStore, fingerprint: str, now: int = NIGHT) -> Record:
    await store.accept([make_alert(fingerprint)], now)
    while True:  # what was claimed earlier and never judged comes back by and by, each alone
        records, _ = await store.claim_due(now, 10)
        for record in records:
            if record.alert.fingerprint == fingerprint:
                return record


async def test_a_threshold_counts_each_version_once_the_present_one_included(store: AlertStore) -> None:
    counts: list[int] = []
    for number in range(4):
        record = await heard(store, str(number), NIGHT + number * SECOND)
        for _ in range(2):  # a retry, or the look before sending
            counts += await store.count(record, WINDOW, NIGHT + number * SECOND)
    assert counts == [1, 1, 2, 2, 3, 3, 4, 4]
    again = replace(await heard(store, "again", NIGHT + MINUTE), version=2)
    assert await store.count(again, WINDOW, NIGHT + MINUTE) == [5]
    assert await store.count(replace(again, version=3), WINDOW, NIGHT + MINUTE) == [6]


async def test_a_threshold_forgets_what_left_its_window(store: AlertStore) -> None:
    for number in range(3):
        await store.count(await heard(store, str(number)), WINDOW, NIGHT)
    late = await heard(store, "late", NIGHT + 5 * MINUTE)
    assert await store.count(late, WINDOW, NIGHT + 5 * MINUTE - 1) == [4]
    later = await heard(store, "later", NIGHT + 10 * MINUTE)
    assert await store.count(later, WINDOW, NIGHT + 10 * MINUTE) == [1]


async def test_an_answer_outlives_its_window(store: AlertStore) -> None:
    """A page that waits out an outage is judged again before it leaves: it must not be counted anew and muted."""
    for number in range(3):
        await store.count(await heard(store, str(number)), WINDOW, NIGHT)
    fourth = await heard(store, "fourth")
    assert await store.count(fourth, WINDOW, NIGHT) == [4]
    assert await store.count(fourth, WINDOW, NIGHT + 60 * MINUTE) == [4]
    assert await store.count(await heard(store, "later", NIGHT + 60 * MINUTE), WINDOW, NIGHT + 60 * MINUTE) == [1]


async def test_a_reset_starts_again_and_keeps_answers_given(store: AlertStore) -> None:
    first, second = await heard(store, "1"), await heard(store, "2")
    await store.count(first, WINDOW, NIGHT)
    assert await store.count(second, WINDOW, NIGHT) == [2]
    await store.reset_counts([FLOOD.key])
    assert await store.count(second, WINDOW, NIGHT) == [2], "judged again, it decides the same"
    assert await store.count(await heard(store, "3"), WINDOW, NIGHT) == [1]


async def test_two_thresholds_count_apart(store: AlertStore) -> None:
    record = await heard(store, "1")
    other = Threshold("service:search/start/flood/0/0", MINUTE)
    assert await store.count(record, WINDOW, NIGHT) == [1]
    assert await store.count(await heard(store, "2"), [FLOOD, other], NIGHT) == [2, 1]


async def test_what_would_be_counted_is_told_without_counting(store: AlertStore, client: Redis) -> None:
    """`explain` is told what `serve` will be, before and after: within the window, beyond it, and asked again."""
    await store.count(await heard(store, "before"), [Threshold("looked at", MINUTE)], NIGHT)
    thresholds = [FLOOD, Threshold("looked at", MINUTE, only_look=True), Threshold("other", MINUTE)]
    for number, at in enumerate((NIGHT, NIGHT, NIGHT + 2 * MINUTE, NIGHT + 6 * MINUTE)):
        record = await heard(store, str(number), at)
        for _ in range(2):
            keys = sorted(await client.keys())
            foretold = [await store.look_at_counts(record, thresholds, at) for _ in range(2)]
            assert sorted(await client.keys()) == keys
            assert foretold == [await store.count(record, thresholds, at)] * 2


def kept(record: Record, outcome: Outcome, *, parked: bool) -> Judged:
    return Judged(record, outcome, "rule", "because", "", 0, False, (), parked=parked)


async def test_other_rules_judge_what_the_old_ones_kept(store: AlertStore) -> None:
    muted, done = await heard(store, "muted"), await heard(store, "done")
    await store.judged(
        [kept(muted, Outcome.SUPPRESSED, parked=True), kept(done, Outcome.DELIVERED, parked=False)], NIGHT
    )
    assert await store.claim_due(NIGHT, 10) == ([], 0)
    await store.recall(NIGHT + 1)
    [record], _ = await store.claim_due(NIGHT + 1, 10)
    assert (record.id, record.version) == (muted.id, 1)
    await store.recall(NIGHT + 1)
    assert await store.claim_due(NIGHT + 1, 10) == ([], 0), "recalled once"


async def test_a_refused_version_is_recalled_as_a_new_one(store: AlertStore) -> None:
    claim = await claimed(store)
    await store.settle(Settlement(claim, Result.REFUSED, Outcome.DEAD_LETTERED, version=1, detail="{}"), NIGHT)
    await store.recall(NIGHT + 1)
    [record], _ = await store.claim_due(NIGHT + 1, 10)
    assert (record.version, record.news, record.outcome) == (2, News.AGAIN, Outcome.PENDING)
    assert record.told[0].dead == 1


async def test_news_is_no_longer_kept(store: AlertStore) -> None:
    muted = await heard(store, "muted")
    await store.judged([kept(muted, Outcome.SUPPRESSED, parked=True)], NIGHT)
    await store.accept([make_alert("muted", status="resolved")], NIGHT + 1)
    [record], _ = await store.claim_due(NIGHT + 1, 10)
    await store.judged([kept(record, Outcome.SUPPRESSED, parked=False)], NIGHT + 1)
    await store.recall(NIGHT + 2)
    assert await store.claim_due(NIGHT + 2, 10) == ([], 0)


async def test_everything_kept_is_recalled_however_much_it_is(store: AlertStore) -> None:
    await store.accept([make_alert(str(n)) for n in range(700)], NIGHT)
    records, _ = await store.claim_due(NIGHT, 700)
    await store.judged([kept(record, Outcome.SUPPRESSED, parked=True) for record in records], NIGHT)
    await store.recall(NIGHT + 1)
    assert (await store.backlog(2 * NIGHT))["due"] == 700


async def test_a_suspension_is_remembered_until_the_next_episode(make_store: MakeStore) -> None:
    store = make_store()
    record = await heard(store, "held")
    until = NIGHT + 5 * MINUTE
    await store.judged(
        [changed(kept(record, Outcome.PENDING, parked=True), suspended_until=until, wake_at=until)], NIGHT
    )
    await store.accept([make_alert("held", severity="info")], NIGHT + 1)
    [record], _ = await store.claim_due(NIGHT + 1, 10)
    assert record.suspended_until == until, "news neither extends nor restarts it"
    await store.accept([make_alert("held", started=NIGHT + MINUTE)], NIGHT + 2)
    found = await store.record(record.id)
    assert found is not None and found.suspended_until == 0


async def test_looking_at_a_threshold_counts_nothing(store: AlertStore) -> None:
    look = Threshold(FLOOD.key, FLOOD.window_ms, only_look=True)
    assert await store.count(await heard(store, "1"), [look], NIGHT) == [0]
    await store.count(await heard(store, "2"), WINDOW, NIGHT)
    assert await store.count(await heard(store, "3"), [look], NIGHT + 5 * MINUTE - 1) == [1]
    assert await store.count(await heard(store, "4"), [look], NIGHT + 5 * MINUTE) == [0]


async def test_rules_remember_text(store: AlertStore) -> None:
    await store.remember({"global/cache/host": "web-1", "global/cache/ünïcode": "ja 🚨"})
    assert await store.remembered(["global/cache/host", "nothing", "global/cache/ünïcode"]) == ["web-1", None, "ja 🚨"]
