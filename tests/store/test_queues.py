"""Claiming, leases and settling: at most one send in flight, nothing lost with a worker, news before all."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from alertrouter.alert import Status
from alertrouter.errors import StoreUnavailable
from alertrouter.record import News, Outcome, Record, State
from alertrouter.store.store import (
    FAILURES_IN_A_ROW,
    MOST_TAKEOVERS,
    TRY_EVERY_MS,
    AlertStore,
    Claim,
    Judged,
    Queued,
    Result,
    Settlement,
    limited_as,
)
from tests.alerts import MINUTE, NIGHT, SECOND, make_alert
from tests.store.conftest import MakeStore

PAGERDUTY = "pagerduty:default"
SEARCH = "pagerduty:search-service"
KEY = "k" * 32
QUEUE = limited_as(KEY)
OTHER_KEY = "o" * 32


def to_send(record: Record, *sends: tuple[str, int, str, str]) -> Judged:
    """The record with triggers to queue, each as (destination, rank, routing key, key of a shared incident)."""
    queued = tuple(Queued(*send, opens=record.version) for send in sends or ((PAGERDUTY, 0, KEY, ""),))
    return Judged(record, Outcome.PENDING, "", "", "payment", 0, False, queued)


def delivered(claim: Claim) -> Settlement:
    state = State.RESOLVED if claim.record.status is Status.RESOLVED else State.TRIGGERED
    return Settlement(claim, Result.DELIVERED, Outcome.DELIVERED, state=state, version=claim.record.version)


async def claimed(store: AlertStore, now: int = NIGHT) -> Claim:
    """The one alert, accepted, judged and leased for its send."""
    await store.accept([make_alert()], now)
    [record], _ = await store.claim_due(now, 10)
    await store.judged([to_send(record)], now)
    [claim], _ = await store.claim_sends(now, 10, 0)
    return claim


async def test_a_claimed_record_is_nobody_elses(make_store: MakeStore) -> None:
    mine, theirs = make_store(), make_store()
    await mine.accept([make_alert()], NIGHT)
    assert len((await mine.claim_due(NIGHT, 10))[0]) == 1
    assert (await theirs.claim_due(NIGHT, 10))[0] == []


async def test_a_dead_workers_judging_is_taken_back(make_store: MakeStore) -> None:
    dead, alive = make_store(), make_store()
    await dead.accept([make_alert()], NIGHT)
    await dead.claim_due(NIGHT, 10)
    assert (await alive.claim_due(NIGHT + 9 * SECOND, 10))[0] == []
    [record], _ = await alive.claim_due(NIGHT + 10 * SECOND, 10)
    assert record.told == ()


async def test_a_dead_workers_send_is_taken_back_as_unsure(make_store: MakeStore) -> None:
    dead, alive = make_store(), make_store()
    await claimed(dead)
    [record], _ = await alive.claim_due(NIGHT + 10 * SECOND, 10)
    told = record.told_of(PAGERDUTY)
    assert (told.unsure, told.lease_until, told.tries, told.key) == (NIGHT + 10 * SECOND, 0, 1, KEY)
    assert told.is_open, "the trigger may have reached PagerDuty"
    assert told.maybe_open == record.version


async def test_a_worker_that_beats_keeps_its_leases(make_store: MakeStore) -> None:
    mine, theirs = make_store(), make_store()
    claim = await claimed(mine)
    for second in range(1, 15):
        await mine.claim_due(NIGHT + second * SECOND, 10)
        assert (await theirs.claim_due(NIGHT + second * SECOND, 10))[0] == []
    assert await mine.settle(delivered(claim), NIGHT + 14 * SECOND)


async def test_a_lease_ends_even_for_a_worker_that_beats(store: AlertStore) -> None:
    await claimed(store)
    assert (await store.claim_due(NIGHT + 15 * SECOND, 10))[0][0].told_of(PAGERDUTY).unsure


async def test_void_leases_fall_at_once(make_store: MakeStore) -> None:
    dead, alive = make_store(), make_store()
    await claimed(dead)
    await alive.void_leases()
    assert len((await alive.claim_due(NIGHT + 1, 10))[0]) == 1


async def test_a_late_settlement_is_fenced_and_leaves_the_state_unsure(make_store: MakeStore) -> None:
    zombie, alive = make_store(), make_store()
    claim = await claimed(zombie)
    [record], _ = await alive.claim_due(NIGHT + 11 * SECOND, 10)
    await alive.judged([to_send(record)], NIGHT + 11 * SECOND)
    [second], _ = await alive.claim_sends(NIGHT + 11 * SECOND, 10, 0)
    assert await alive.settle(delivered(second), NIGHT + 11 * SECOND)
    assert not await zombie.settle(delivered(claim), NIGHT + 12 * SECOND)
    after = await alive.record(claim.record.id)
    assert after is not None
    assert after.told_of(PAGERDUTY).unsure == NIGHT + 12 * SECOND
    assert (await alive.backlog(2 * NIGHT))["due"] == 1, "it has to be repaired"


async def test_news_while_judging_is_judged_again(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.accept([make_alert(status="resolved")], NIGHT + 1)
    await store.judged([to_send(record)], NIGHT + 2)
    assert (await store.claim_sends(NIGHT + 2, 10, 0))[0] == []
    [again], _ = await store.claim_due(NIGHT + 2, 10)
    assert again.version == 2


async def test_news_takes_a_waiting_send_back(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record)], NIGHT)
    await store.accept([make_alert(status="resolved")], NIGHT + 1)
    assert (await store.claim_sends(NIGHT + 1, 10, 0))[0] == []
    assert await store.backlog(2 * NIGHT) == {"due": 1, "scheduled": 0, "waiting": 0, "leased": 0, "dead_letters": 0}


async def test_news_while_sending_makes_the_record_due_when_settled(store: AlertStore) -> None:
    claim = await claimed(store)
    await store.accept([make_alert(status="resolved")], NIGHT + 1)
    [record], _ = await store.claim_due(NIGHT + 1, 10)
    assert record.told_of(PAGERDUTY).lease_until > NIGHT
    await store.judged([Judged(record, Outcome.PENDING, "", "", "", record.told[0].lease_until, False, ())], NIGHT + 1)
    assert await store.settle(delivered(claim), NIGHT + 2)
    [after], _ = await store.claim_due(NIGHT + 2, 10)
    assert (after.told_of(PAGERDUTY).version, after.told_of(PAGERDUTY).state) == (1, State.TRIGGERED)
    assert after.outcome is Outcome.PENDING


async def test_a_failed_send_is_due_at_its_time(store: AlertStore) -> None:
    claim = await claimed(store)
    later = NIGHT + 30 * SECOND
    settlement = Settlement(
        claim, Result.AGAIN, Outcome.PENDING, wake_at=later, not_before=later, ambiguous=True, detail="time-out"
    )
    await store.settle(settlement, NIGHT + 1)
    records, next_due = await store.claim_due(NIGHT + 2, 10)
    assert (records, next_due) == ([], later)
    [record], _ = await store.claim_due(later, 10)
    told = record.told_of(PAGERDUTY)
    assert (told.tries, told.not_before, told.unsure) == (1, later, NIGHT + 1)


async def test_a_success_long_after_an_unsure_attempt_needs_no_repair(store: AlertStore) -> None:
    claim = await claimed(store)
    again = Settlement(claim, Result.AGAIN, Outcome.PENDING, wake_at=NIGHT + 1, not_before=NIGHT + 1, ambiguous=True)
    await store.settle(again, NIGHT)
    for now, unsure in ((NIGHT + MINUTE, NIGHT), (NIGHT + 90 * SECOND, 0)):
        await store.accept([make_alert(severity="info" if unsure else "error")], now)
        [record], _ = await store.claim_due(now, 10)
        await store.judged([to_send(record)], now)
        [claim], _ = await store.claim_sends(now, 10, 0)
        await store.settle(delivered(claim), now)
        found = await store.record(claim.record.id)
        assert found is not None and found.told_of(PAGERDUTY).unsure == unsure


async def test_a_refused_send_is_kept_with_its_words(store: AlertStore) -> None:
    claim = await claimed(store)
    words = '{"reason":"Event object is invalid"}'
    await store.settle(Settlement(claim, Result.REFUSED, Outcome.DEAD_LETTERED, version=1, detail=words), NIGHT)
    record = await store.record(claim.record.id)
    assert record is not None
    assert (record.outcome, record.told_of(PAGERDUTY).dead) == (Outcome.DEAD_LETTERED, 1)
    assert await store.backlog(2 * NIGHT) == {"due": 0, "scheduled": 0, "waiting": 0, "leased": 0, "dead_letters": 1}
    assert (await store.history(1))[0]["reason"] == words


async def test_sends_leave_by_rank_then_age(store: AlertStore) -> None:
    ranks = {"info": 4, "old-error": 2, "critical": 0, "error": 2}
    for age, name in enumerate(ranks):
        await store.accept([make_alert(name)], NIGHT + age)
    records, _ = await store.claim_due(NIGHT + 9, 10)
    await store.judged([to_send(r, (PAGERDUTY, ranks[r.alert.fingerprint], KEY, "")) for r in records], NIGHT + 9)
    claims, _ = await store.claim_sends(NIGHT + 9, 10, 0)
    assert [claim.record.alert.fingerprint for claim in claims] == ["critical", "old-error", "error", "info"]


async def test_the_call_limit_slides(store: AlertStore) -> None:
    await store.accept([make_alert(str(n)) for n in range(10)], NIGHT)
    records, _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record) for record in records], NIGHT)
    assert len((await store.claim_sends(NIGHT, 2, 3))[0]) == 2
    claims, next_call = await store.claim_sends(NIGHT + 10 * SECOND, 5, 3)
    assert (len(claims), next_call) == (1, NIGHT + MINUTE)
    assert await store.claim_sends(NIGHT + 20 * SECOND, 5, 3) == ([], NIGHT + MINUTE)
    assert len((await store.claim_sends(NIGHT + MINUTE, 5, 3))[0]) == 2
    assert len((await store.claim_sends(NIGHT + MINUTE, 5, 0))[0]) == 5, "0 means no limit"


async def test_two_destinations_with_one_routing_key_share_its_limit(store: AlertStore) -> None:
    await store.accept([make_alert(str(n)) for n in range(4)], NIGHT)
    records, _ = await store.claim_due(NIGHT, 10)
    sends = [(PAGERDUTY, 0, KEY, ""), (SEARCH, 0, KEY, ""), (SEARCH, 0, KEY, ""), ("pagerduty:other", 0, "o" * 32, "")]
    await store.judged([to_send(record, send) for record, send in zip(records, sends, strict=True)], NIGHT)
    claims, next_call = await store.claim_sends(NIGHT, 10, 2)
    assert sum(claim.destination != "pagerduty:other" for claim in claims) == 2
    assert (len(claims), next_call) == (3, NIGHT + MINUTE)


async def test_one_destinations_backlog_does_not_starve_another(store: AlertStore) -> None:
    await store.accept([make_alert(str(n)) for n in range(101)], NIGHT)
    records, _ = await store.claim_due(NIGHT, 200)
    lonely = to_send(records[0], (SEARCH, 4, OTHER_KEY, ""))
    await store.judged([lonely, *(to_send(record) for record in records[1:])], NIGHT)
    claims, _ = await store.claim_sends(NIGHT, 10, 0)
    assert sum(claim.destination == SEARCH for claim in claims) == 1
    assert len(claims) >= 6


async def test_a_worker_that_leaves_gives_its_work_up_at_once(make_store: MakeStore) -> None:
    leaving, staying = make_store(), make_store()
    await leaving.accept([make_alert()], NIGHT)
    await leaving.claim_due(NIGHT, 10)
    await leaving.leave()
    assert len((await staying.claim_due(NIGHT + 1, 10))[0]) == 1


async def test_history_says_how_alerts_ended(store: AlertStore) -> None:
    await store.accept([make_alert("muted"), make_alert("paged")], NIGHT)
    records, _ = await store.claim_due(NIGHT, 10)
    muted, paged = sorted(records, key=lambda record: record.id)
    await store.judged(
        [Judged(muted, Outcome.SUPPRESSED, "staging-noise", "OPS-1", "payment", 0, False, ()), to_send(paged)], NIGHT
    )
    [claim], _ = await store.claim_sends(NIGHT, 10, 0)
    await store.settle(delivered(claim), NIGHT)
    newest, oldest = await store.history(10)
    assert (newest["id"], newest["outcome"], newest["destination"]) == (paged.id, "delivered", PAGERDUTY)
    assert (oldest["id"], oldest["outcome"], oldest["rule"], oldest["reason"]) == (
        muted.id,
        "suppressed",
        "staging-noise",
        "OPS-1",
    )
    assert KEY not in str(await store.history(10)), "routing keys stay in the record"


async def test_two_workers_that_judged_the_same_never_both_send(make_store: MakeStore) -> None:
    """w2 read the record before w1 leased its send: what w2 decides must not make a second one."""
    w1, w2 = make_store(), make_store()
    await w1.accept([make_alert()], NIGHT)
    [stale], _ = await w2.claim_due(NIGHT, 10)
    await w1.accept([make_alert(severity="error")], NIGHT)
    [fresh], _ = await w1.claim_due(NIGHT, 10)
    await w2.judged([to_send(stale)], NIGHT)
    [fresh_too], _ = await w2.claim_due(NIGHT, 10)
    await w1.judged([to_send(fresh)], NIGHT)
    [sending], _ = await w1.claim_sends(NIGHT, 10, 0)

    await w2.judged([to_send(fresh_too, (PAGERDUTY, 0, "other key" * 3, ""))], NIGHT)
    assert (await w2.claim_sends(NIGHT, 10, 0))[0] == []
    record = await w1.record(sending.record.id)
    assert record is not None and record.told_of(PAGERDUTY).key == KEY, "the key under the running send stays"
    assert await w1.settle(delivered(sending), NIGHT)


async def test_a_send_that_waits_is_not_leased_under_a_running_one(make_store: MakeStore, client: Redis) -> None:
    mine, theirs = make_store(), make_store()
    claim = await claimed(mine)
    await client.zadd(mine.keys.wait + QUEUE, {f"{PAGERDUTY}\tpayment\t{claim.record.id}": 0})
    await client.sadd(mine.keys.waiting, QUEUE)
    assert (await theirs.claim_sends(NIGHT, 10, 0))[0] == []
    assert (await theirs.claim_due(NIGHT, 10))[1] == claim.lease_until, "looked at again when that lease has ended"


async def test_a_lease_is_found_though_its_owner_never_claimed_to_judge(make_store: MakeStore) -> None:
    judge, sender, alive = make_store(), make_store(), make_store()
    await judge.accept([make_alert()], NIGHT)
    [record], _ = await judge.claim_due(NIGHT, 10)
    await judge.judged([to_send(record)], NIGHT)
    assert len((await sender.claim_sends(NIGHT, 10, 0))[0]) == 1
    assert len((await alive.claim_due(NIGHT + 10 * SECOND, 10))[0]) == 1


async def test_a_heartbeat_keeps_leases(make_store: MakeStore) -> None:
    mine, theirs = make_store(), make_store()
    await claimed(mine)
    await mine.beat(NIGHT + 9 * SECOND)
    assert (await theirs.claim_due(NIGHT + 12 * SECOND, 10))[0] == []


@pytest.mark.parametrize("field", ["version", "alert", "severity", "id"])
async def test_a_record_that_cannot_be_read_keeps_no_other_waiting(
    store: AlertStore, client: Redis, field: str
) -> None:
    await store.accept([make_alert("bad"), make_alert("good")], NIGHT)
    await client.hset(store.keys.alert + make_alert("bad").id, field, "?" if field != "id" else b"\xff")
    records, _ = await store.claim_due(NIGHT, 10)
    assert [record.alert.fingerprint for record in records] == ["good"]
    assert (await store.backlog(NIGHT))["dead_letters"] == 1
    assert (await store.claim_due(NIGHT + MINUTE, 10))[0] == records, "it does not come again"


async def test_words_of_a_later_version_are_read(store: AlertStore, client: Redis) -> None:
    await store.accept([make_alert()], NIGHT)
    await client.hset(store.keys.alert + make_alert().id, mapping={"outcome": "unheard_of", "news": "unheard_of"})
    [record], _ = await store.claim_due(NIGHT, 10)
    assert (record.outcome, record.news) == (Outcome.PENDING, News.AGAIN)


async def test_a_refusal_does_not_forget_an_unsure_attempt(store: AlertStore) -> None:
    claim = await claimed(store)
    again = Settlement(
        claim, Result.AGAIN, Outcome.PENDING, wake_at=NIGHT + 1, not_before=NIGHT + 1, ambiguous=True, opens=1
    )
    await store.settle(again, NIGHT)
    [record], _ = await store.claim_due(NIGHT + 1, 10)
    await store.judged([to_send(record)], NIGHT + 1)
    [claim], _ = await store.claim_sends(NIGHT + 1, 10, 0)
    await store.settle(Settlement(claim, Result.REFUSED, Outcome.DEAD_LETTERED, version=1, detail="{}"), NIGHT + 1)
    record_now = await store.record(claim.record.id)
    assert record_now is not None and record_now.told_of(PAGERDUTY).is_open


async def test_a_server_that_forgot_the_scripts_is_taught_them_again(store: AlertStore, client: Redis) -> None:
    await store.accept([make_alert("1")], NIGHT)
    await client.script_flush()
    assert await store.accept([make_alert("2")], NIGHT) == [News.NEW]


async def test_a_suspect_is_judged_alone(make_store: MakeStore) -> None:
    """Of what was claimed together one may have ended the worker: the others must not be taken for it."""
    dead, alive = make_store(), make_store()
    await dead.accept([make_alert(str(n)) for n in range(3)], NIGHT)
    assert len((await dead.claim_due(NIGHT, 10))[0]) == 3
    await alive.accept([make_alert("new")], NIGHT + 1)
    batches = []
    for _ in range(4):
        records, _ = await alive.claim_due(NIGHT + 10 * SECOND, 10)
        batches.append([record.alert.fingerprint for record in records])
        await alive.judged([to_send(record) for record in records], NIGHT + 10 * SECOND)
    assert sorted(map(len, batches)) == [1, 1, 1, 1]
    assert ["new"] in batches


async def test_a_suspect_that_ends_its_worker_again_waits_for_the_others(make_store: MakeStore) -> None:
    now = NIGHT
    store = make_store()
    await store.accept([make_alert()], now)
    for takeovers in range(1, 4):
        dead = make_store()
        assert len((await dead.claim_due(now, 10))[0]) == 1
        now += 10 * SECOND
        assert len((await store.claim_due(now, 0))[0]) == 0
        assert await store.next_due() == now + (takeovers - 1) * SECOND
        now += takeovers * SECOND


async def test_who_kills_every_worker_is_told_in_a_minimal_form_and_then_set_aside(make_store: MakeStore) -> None:
    now = NIGHT
    store = make_store()
    await store.accept([make_alert(summary="deadly")], now)
    for takeovers in range(1, 2 * MOST_TAKEOVERS + 1):
        records, _ = await make_store().claim_due(now, 10)
        [record] = records
        assert record.poisoned is (takeovers > MOST_TAKEOVERS)
        assert ("deadly" in record.alert.event.summary) is not record.poisoned
        assert record.alert.dedup_key == make_alert().dedup_key
        now += 30 * SECOND
        await store.claim_due(now, 0)
        now += 30 * SECOND
    assert await store.next_due() == 0
    found = await store.record(make_alert().id)
    assert found is not None and found.outcome is Outcome.DEAD_LETTERED
    assert (await store.backlog(now))["dead_letters"] == 1
    await store.accept([make_alert(status="resolved", ended=now), make_alert(started=now)], now)
    [record], _ = await store.claim_due(now, 10)
    assert not record.poisoned, "its next episode may be another matter"


async def test_what_is_judged_and_kept_is_no_suspect_any_more(make_store: MakeStore) -> None:
    dead, alive = make_store(), make_store()
    await dead.accept([make_alert()], NIGHT)
    await dead.claim_due(NIGHT, 10)
    [record], _ = await alive.claim_due(NIGHT + 10 * SECOND, 10)
    await alive.judged([Judged(record, Outcome.SUPPRESSED, "", "", "", 0, False, ())], NIGHT + 10 * SECOND)
    assert await alive._client.hget(alive.keys.alert + record.id, "takeovers") is None


async def test_a_call_counts_from_when_it_arrived(store: AlertStore) -> None:
    """PagerDuty counts it then, which may be ten seconds after it was claimed."""
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record)], NIGHT)
    [claim], _ = await store.claim_sends(NIGHT, 10, 1)
    await store.settle(delivered(claim), NIGHT + 9 * SECOND)
    await store.accept([make_alert("next")], NIGHT + MINUTE)
    records, _ = await store.claim_due(NIGHT + MINUTE, 10)
    await store.judged([to_send(record) for record in records], NIGHT + MINUTE)
    claims, next_call = await store.claim_sends(NIGHT + MINUTE, 10, 1)
    assert (claims, next_call) == ([], NIGHT + MINUTE + 9 * SECOND)


async def test_where_everything_fails_alerts_keep_their_places_and_one_is_tried(store: AlertStore) -> None:
    await store.accept([make_alert(str(n)) for n in range(FAILURES_IN_A_ROW + 2)], NIGHT)
    records, _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record) for record in records], NIGHT)
    claims, _ = await store.claim_sends(NIGHT, 10, 0)
    later = NIGHT + MINUTE
    for claim in claims:
        await store.settle(Settlement(claim, Result.AGAIN, Outcome.PENDING, wake_at=later, not_before=later), NIGHT)
    records, next_due = await store.claim_due(NIGHT, 10)
    assert ([record.told[0].not_before for record in records], next_due) == ([0] * 3, later)
    await store.judged([to_send(record) for record in records], NIGHT)
    [tried], next_call = await store.claim_sends(NIGHT, 10, 0)
    assert next_call == NIGHT + TRY_EVERY_MS
    assert await store.claim_sends(NIGHT + TRY_EVERY_MS - 1, 10, 0) == ([], next_call)
    await store.settle(delivered(tried), NIGHT + TRY_EVERY_MS - 1)
    assert len((await store.claim_sends(NIGHT + TRY_EVERY_MS - 1, 10, 0))[0]) == 2, "it is back"


async def test_a_key_that_is_throttled_is_left_alone_though_an_earlier_call_gets_through(store: AlertStore) -> None:
    await store.accept([make_alert(str(n)) for n in range(FAILURES_IN_A_ROW + 3)], NIGHT)
    records, _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record) for record in records], NIGHT)
    claims, _ = await store.claim_sends(NIGHT, FAILURES_IN_A_ROW + 2, 0)
    *failed, throttled, slow = claims
    for claim in failed:
        await store.settle(Settlement(claim, Result.AGAIN, Outcome.PENDING, wake_at=NIGHT), NIGHT)
    until = NIGHT + 2 * MINUTE
    await store.settle(Settlement(throttled, Result.AGAIN, Outcome.PENDING, wake_at=NIGHT, paused_until=until), NIGHT)
    await store.settle(delivered(slow), NIGHT)
    assert await store.claim_sends(until - 1, 10, 0) == ([], until)
    assert len((await store.claim_sends(until, 10, 0))[0]) == 1


async def test_a_call_that_was_not_made_does_not_count(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    for _ in range(3):
        [record], _ = await store.claim_due(NIGHT, 10)
        await store.judged([to_send(record)], NIGHT)
        [claim], _ = await store.claim_sends(NIGHT, 10, 1)
        await store.settle(Settlement(claim, Result.RELEASED, Outcome.PENDING, wake_at=NIGHT), NIGHT)


async def test_calls_are_kept_for_as_long_as_they_may_count(store: AlertStore, client: Redis) -> None:
    """Redis' own clock sweeps them up, and must not be what ends them."""
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record)], NIGHT)
    await store.claim_sends(NIGHT, 10, 1)
    assert await client.pttl(store.keys.calls + QUEUE) > MINUTE + 15 * SECOND


async def test_a_send_whose_key_has_changed_waits_for_the_other_keys_turn(store: AlertStore, client: Redis) -> None:
    """It was told past us by another key while it waited: it is judged again, and no call is spent."""
    await store.accept([make_alert("moved"), make_alert("stays")], NIGHT)
    records, _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record) for record in records], NIGHT)
    await client.hset(store.keys.alert + make_alert("moved").id, f"t:{PAGERDUTY}:limited_as", limited_as(OTHER_KEY))
    claims, _ = await store.claim_sends(NIGHT, 10, 5)
    assert [claim.record.alert.fingerprint for claim in claims] == ["stays"]
    assert await client.zcard(store.keys.calls + QUEUE) == 1
    [again], _ = await store.claim_due(NIGHT, 10)
    assert again.alert.fingerprint == "moved"


async def test_queues_of_an_older_version_are_judged_again(store: AlertStore, client: Redis) -> None:
    """They were named by destination, and held nothing but ids."""
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([Judged(record, Outcome.PENDING, "", "", "", 0, False, ())], NIGHT)
    await client.hset(store.keys.alert + record.id, mapping={"waits": PAGERDUTY, f"t:{PAGERDUTY}:limited_as": QUEUE})
    await client.zadd(store.keys.wait + PAGERDUTY, {record.id: 0})
    await client.sadd(store.keys.waiting, PAGERDUTY)
    assert (await store.claim_sends(NIGHT, 10, 5))[0] == []
    [again], _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(again)], NIGHT)
    assert len((await store.claim_sends(NIGHT, 10, 5))[0]) == 1


async def test_what_is_not_critical_waits_for_what_is_still_to_be_judged(store: AlertStore) -> None:
    """Where calls are short, and a minute at most."""
    await store.accept([make_alert(str(n)) for n in range(6)], NIGHT)
    records, _ = await store.claim_due(NIGHT, 4)
    await store.judged(
        [to_send(record, (PAGERDUTY, 4 if n else 0, KEY, "")) for n, record in enumerate(records)], NIGHT
    )
    claims, _ = await store.claim_sends(NIGHT, 10, 5)
    assert [claim.record.id for claim in claims] == [records[0].id], "two are due, and calls are left for four"
    assert len((await store.claim_sends(NIGHT, 10, 6))[0]) == 3, "there is room for all of them"


async def test_it_waits_for_that_no_longer_than_a_minute(store: AlertStore) -> None:
    await store.accept([make_alert(str(n)) for n in range(6)], NIGHT)
    records, _ = await store.claim_due(NIGHT, 4)
    await store.judged([to_send(record, (PAGERDUTY, 4, KEY, "")) for record in records], NIGHT)
    assert (await store.claim_sends(NIGHT + MINUTE - 1, 10, 2))[0] == []
    assert len((await store.claim_sends(NIGHT + MINUTE, 10, 2))[0]) == 2


async def test_foreign_data_in_a_wait_queue_loses_nothing(store: AlertStore, client: Redis) -> None:
    await client.lpush(store.keys.wait + QUEUE, "foreign")
    await store.accept([make_alert("a"), make_alert("b")], NIGHT)
    records, _ = await store.claim_due(NIGHT, 10)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.judged([to_send(record) for record in records], NIGHT)
    await client.delete(store.keys.wait + QUEUE)
    later = NIGHT + 20 * SECOND
    names = set()
    for _ in range(3):
        records, _ = await store.claim_due(later, 10)
        names |= {record.alert.fingerprint for record in records}
        await store.judged([to_send(record) for record in records], later)
    assert names == {"a", "b"}


async def test_news_that_cannot_leave_its_queue_is_heard_again(store: AlertStore, client: Redis) -> None:
    await claimed(store)
    await store.accept([make_alert(severity="error")], NIGHT + 1)
    [record], _ = await store.claim_due(NIGHT + 1, 10)
    await store.judged([to_send(record, (SEARCH, 0, OTHER_KEY, ""))], NIGHT + 1)
    await client.delete(store.keys.wait + limited_as(OTHER_KEY))
    await client.lpush(store.keys.wait + limited_as(OTHER_KEY), "foreign")
    with pytest.raises(StoreUnavailable):
        await store.accept([make_alert(severity="info")], NIGHT + 2)
    await client.delete(store.keys.wait + limited_as(OTHER_KEY))
    assert await store.next_due() == NIGHT + 2, "half heard, it is looked at all the same"


async def test_what_is_parked_is_recalled_and_what_was_refused_only_where_that_is_asked_for(
    store: AlertStore, client: Redis
) -> None:
    muted, refused = ([f"{kind}{n}" for n in range(600)] for kind in ("muted", "refused"))
    for names, outcome in ((muted, Outcome.SUPPRESSED), (refused, Outcome.DEAD_LETTERED)):
        for first in range(0, 600, 100):
            await store.accept([make_alert(name) for name in names[first : first + 100]], NIGHT)
            records, _ = await store.claim_due(NIGHT, 100)
            judged = [Judged(record, outcome, "", "", "payment", 0, False, (), parked=True) for record in records]
            await store.judged(judged, NIGHT)
    parked = store.keys.parked
    await client.zadd(parked, {make_alert("muted0").id: NIGHT + 1000 * MINUTE})  # whenever it is to be looked at
    await store.recall(NIGHT, False)
    assert set(await client.zrange(store.keys.due, 0, -1)) == {make_alert(name).id.encode() for name in muted}
    assert await client.zcard(parked) == 600
    await store.recall(NIGHT)
    assert await client.zcard(store.keys.due) == 1200
    assert not await client.exists(parked)
