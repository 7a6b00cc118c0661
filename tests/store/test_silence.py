"""What is not repeated is resolved, unless it is heard at that very moment; and what is known of senders."""

from __future__ import annotations

from alertrouter.alert import Status
from alertrouter.delivery.silence import resolved_by_us
from alertrouter.record import News, Outcome, Source, State
from alertrouter.store.store import Accepted, AlertStore, Judged, Queued, Result, Settlement
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.store.conftest import MakeStore

LATER = NIGHT + HOUR


async def resolve(store: AlertStore, now: int = LATER) -> bool:
    """Claim the one alert and resolve it for its silence."""
    [record], _ = await store.claim_due(now, 10)
    return await store.resolve_unheard(record, resolved_by_us(record.alert, "silent"), "silent", now)


async def told(store: AlertStore) -> None:
    """The one alert, delivered at night, and to be looked at in an hour."""
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    send = Queued("pagerduty:default", 0, "k" * 32, opens=record.version)
    await store.judged([Judged(record, Outcome.PENDING, "", "", "payment", LATER, False, (send,))], NIGHT)
    [claim], _ = await store.claim_sends(NIGHT, 10, 0)
    await store.settle(Settlement(claim, Result.DELIVERED, Outcome.DELIVERED, state=State.TRIGGERED, version=1), NIGHT)


async def test_it_is_news_that_is_due_at_once_and_on_record(store: AlertStore) -> None:
    await told(store)
    assert await resolve(store)
    record = await store.record("alertmanager:f00d")
    assert record is not None
    assert (record.status, record.news, record.outcome, record.reason) == (
        Status.RESOLVED,
        News.SILENT,
        Outcome.PENDING,
        "silent",
    )
    assert (record.version, record.resolved_version, record.last_heard) == (2, 2, NIGHT)
    assert record.alert.status is Status.RESOLVED
    assert [each.id for each in (await store.claim_due(LATER, 10))[0]] == [record.id]
    [(_, entry)] = [each for each in await store.history_entries("-", "+", 10) if each[1].get("news") == "silent"]
    assert (entry["kind"], entry["version"], entry["reason"]) == ("heard", "2", "silent")


async def test_what_waits_to_be_sent_leaves_its_queue(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    send = Queued("pagerduty:default", 0, "k" * 32, opens=record.version)
    await store.judged([Judged(record, Outcome.PENDING, "", "", "payment", LATER, False, (send,))], NIGHT)
    assert (await store.backlog(LATER))["waiting"] == 1
    assert await resolve(store)
    assert (await store.backlog(LATER))["waiting"] == 0


async def test_heard_at_that_moment_it_stays(store: AlertStore) -> None:
    await told(store)
    [record], _ = await store.claim_due(LATER, 10)
    assert await store.accept([make_alert()], NIGHT + 2 * MINUTE) == [Accepted.DUPLICATE]
    assert not await store.resolve_unheard(record, resolved_by_us(record.alert, "silent"), "silent", LATER)
    [again], _ = await store.claim_due(LATER, 10)
    assert (again.status, again.version, again.last_heard) == (Status.FIRING, 1, NIGHT + 2 * MINUTE)


async def test_twice_is_as_good_as_once(store: AlertStore) -> None:
    await told(store)
    [record], _ = await store.claim_due(LATER, 10)
    silent = resolved_by_us(record.alert, "silent")
    assert await store.resolve_unheard(record, silent, "silent", LATER)
    assert not await store.resolve_unheard(record, silent, "silent", LATER)
    found = await store.record(record.id)
    assert found is not None and found.version == 2


async def test_a_late_repeat_is_new_and_not_held(store: AlertStore) -> None:
    """It is no late copy: it was never over."""
    await told(store)
    await resolve(store)
    assert await store.accept([make_alert()], LATER + SECOND) == [News.NEW]
    record = await store.record("alertmanager:f00d")
    assert record is not None
    assert (record.hold_until, record.fired_version, record.resolved_version) == (0, 3, 2)


async def test_the_resolve_that_came_after_all_is_a_duplicate(store: AlertStore) -> None:
    await told(store)
    await resolve(store)
    assert await store.accept([make_alert(status="resolved", ended=LATER)], LATER) == [Accepted.DUPLICATE]


async def test_what_waited_to_be_sent_does_not_wait_any_more(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    send = Queued("pagerduty:default", 0, "k" * 32, opens=record.version)
    await store.judged([Judged(record, Outcome.PENDING, "", "", "payment", LATER, False, (send,))], NIGHT)
    assert await resolve(store)
    assert (await store.claim_sends(LATER, 10, 0))[0] == []


async def test_a_sender_is_remembered_with_its_silence(make_store: MakeStore) -> None:
    one, two = make_store(), make_store()
    assert await one.source("alertmanager") is None
    await one.heard_from(["alertmanager", "datadog"], NIGHT)
    await two.heard_from(["alertmanager"], NIGHT + HOUR)
    assert await one.source("alertmanager") == Source(NIGHT + HOUR, NIGHT)
    assert await one.source("datadog") == Source(NIGHT, NIGHT)
    await one.heard_from(["alertmanager"], NIGHT + 2 * HOUR + 1)
    assert await one.source("alertmanager") == Source(NIGHT + 2 * HOUR + 1, NIGHT + 2 * HOUR + 1)


async def test_a_sender_is_put_down_once_a_minute(store: AlertStore) -> None:
    for passed in (0, MINUTE - 1):
        await store.heard_from(["alertmanager"], NIGHT + passed)
    assert await store.source("alertmanager") == Source(NIGHT, NIGHT)
    await store.heard_from(["alertmanager"], NIGHT + MINUTE)
    assert await store.source("alertmanager") == Source(NIGHT + MINUTE, NIGHT)


async def test_senders_are_forgotten_where_they_are_very_many(store: AlertStore) -> None:
    await store.heard_from([f"alertmanager/{n}" for n in range(1000)], NIGHT)
    await store.heard_from(["alertmanager/new"], NIGHT + 31 * 24 * HOUR)
    assert await store.source("alertmanager/1") is None
    assert await store.source("alertmanager/new") is not None
