"""judged and settle at their edges: what waited and is wrong now, leases that end now, and what goes on record."""

from __future__ import annotations

from dataclasses import replace

import fakeredis
import pytest
from redis.asyncio import Redis

from alertrouter.record import Outcome
from alertrouter.store.store import AlertStore, Judged, Queued, Result, Settlement
from tests.alerts import NIGHT, SECOND, make_alert
from tests.store.conftest import MakeStore
from tests.store.test_queues import PAGERDUTY, claimed, delivered, to_send


async def sent(store: AlertStore) -> list[dict[str, str]]:
    """What the history says of sends, oldest first."""
    return [fields for _, fields in await store.history_entries("-", "+", 100) if fields["kind"] == "sent"]


async def test_what_waited_is_taken_back_when_it_is_judged_otherwise(store: AlertStore, client: Redis) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record)], NIGHT)
    await client.zadd(store.keys.due, {record.id: NIGHT})  # the rules are others now
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([Judged(record, Outcome.SUPPRESSED, "mute", "", "", 0, False, ())], NIGHT)
    assert (await store.claim_sends(NIGHT, 10, 0))[0] == []


async def test_what_is_judged_under_a_running_send_is_looked_at_when_its_lease_ends(make_store: MakeStore) -> None:
    judge, sender = make_store(), make_store()
    claim = await claimed(sender)
    record = claim.record
    await judge.judged([to_send(record)], NIGHT + SECOND)
    assert (await judge.claim_due(NIGHT + SECOND, 10))[1] == claim.lease_until
    assert (await judge.claim_sends(NIGHT + SECOND, 10, 0))[0] == []


async def test_a_lease_that_ends_now_keeps_no_send_from_waiting(make_store: MakeStore) -> None:
    judge, sender = make_store(), make_store()
    claim = await claimed(sender)
    await judge.judged([to_send(claim.record)], claim.lease_until)
    assert len((await judge.claim_sends(claim.lease_until, 10, 0))[0]) == 1


async def test_every_send_is_on_record_with_its_rule_and_one_given_back_is_none(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    queued = to_send(record)
    await store.judged([Judged(record, queued.outcome, "flood", "", "payment", 0, False, queued.sends)], NIGHT)
    [claim], _ = await store.claim_sends(NIGHT, 10, 0)
    await store.settle(Settlement(claim, Result.RELEASED, Outcome.PENDING, wake_at=NIGHT), NIGHT)
    assert await sent(store) == []
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([Judged(record, queued.outcome, "flood", "", "payment", 0, False, queued.sends)], NIGHT)
    [claim], _ = await store.claim_sends(NIGHT, 10, 0)
    await store.settle(delivered(claim), NIGHT)
    [entry] = await sent(store)
    assert (entry["rule"], entry["service"], entry["result"], entry["outcome"], entry.get("rerouted")) == (
        *("flood", "payment", "delivered", "delivered"),
        None,
    )


async def test_a_send_by_another_key_says_so(store: AlertStore) -> None:
    claim = await claimed(store)
    changed = Settlement(claim, Result.CHANGED, Outcome.PENDING, wake_at=NIGHT, rerouted=True, key="f" * 32)
    await store.settle(changed, NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record, (PAGERDUTY, 0, "", ""))], NIGHT)
    [again], _ = await store.claim_sends(NIGHT, 10, 0)
    assert again.record.told_of(PAGERDUTY).key == "f" * 32
    await store.settle(delivered(again), NIGHT)
    assert [entry.get("rerouted") for entry in await sent(store)] == [None, "1"]


@pytest.mark.parametrize(("length", "entries"), [(0, 0), (1, 1)])
async def test_who_keeps_no_history_settles_without(client: Redis, length: int, entries: int) -> None:
    flags = not isinstance(client, fakeredis.FakeAsyncRedis)
    store = AlertStore(client, history_length=length, script_flags=flags)
    claim = await claimed(store)
    assert await store.settle(delivered(claim), NIGHT)
    assert len(await sent(store)) == entries


@pytest.mark.parametrize(
    ("result", "ambiguous", "doubted"),
    [
        (Result.DELIVERED, False, True),
        (Result.AGAIN, True, True),
        (Result.AGAIN, False, False),
        (Result.RELEASED, False, False),
    ],
)
async def test_what_a_late_report_casts_doubt_on(
    make_store: MakeStore, result: Result, ambiguous: bool, doubted: bool
) -> None:
    late, alive = make_store(), make_store()
    claim = await claimed(late)
    taken, now = NIGHT + 11 * SECOND, NIGHT + 12 * SECOND
    await alive.claim_due(taken, 10)
    assert not await late.settle(Settlement(claim, result, Outcome.PENDING, ambiguous=ambiguous), now)
    record = await alive.record(claim.record.id)
    assert record is not None and record.told_of(PAGERDUTY).unsure == (now if doubted else taken)


async def test_what_is_sent_after_all_is_no_longer_parked(store: AlertStore, client: Redis) -> None:
    await store.accept([make_alert()], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([Judged(record, Outcome.SUPPRESSED, "", "", "", NIGHT + 1, False, (), parked=True)], NIGHT)
    [record], _ = await store.claim_due(NIGHT + 1, 10)
    await store.judged([to_send(record)], NIGHT + 1)
    assert await client.zcard(store.keys.parked) == 0


@pytest.mark.parametrize("opens", [0, 1])
async def test_a_late_report_of_a_trigger_says_what_it_may_have_opened(make_store: MakeStore, opens: int) -> None:
    late, alive = make_store(), make_store()
    await late.accept([make_alert()], NIGHT)
    [record], _ = await late.claim_due(NIGHT, 10)
    queued = (Queued(PAGERDUTY, 0, "k" * 32, "", opens=0),)
    await late.judged([Judged(record, Outcome.PENDING, "", "", "", 0, False, queued)], NIGHT)
    [claim], _ = await late.claim_sends(NIGHT, 10, 0)
    await alive.claim_due(NIGHT + 11 * SECOND, 10)
    await late.settle(Settlement(claim, Result.DELIVERED, Outcome.DELIVERED, opens=opens), NIGHT + 12 * SECOND)
    after = await alive.record(record.id)
    assert after is not None and after.told_of(PAGERDUTY).maybe_open == opens


@pytest.mark.parametrize(("closed", "lives"), [(True, True), (False, False)])
async def test_a_record_is_forgotten_a_day_after_the_send_that_closes_it(
    store: AlertStore, client: Redis, closed: bool, lives: bool
) -> None:
    claim = await claimed(store)
    await store.settle(replace(delivered(claim), closed=closed), NIGHT)
    assert (await client.pttl(store.keys.alert + claim.record.id) > 0) is lives


@pytest.mark.parametrize(("status", "parked"), [("firing", 1), ("resolved", 0)])
async def test_what_rules_keep_back_after_a_send_is_parked_while_it_fires(
    store: AlertStore, client: Redis, status: str, parked: int
) -> None:
    """Muted while its owed resolve was under way: other rules let it page."""
    await store.accept([make_alert(status=status)], NIGHT)
    [record], _ = await store.claim_due(NIGHT, 10)
    await store.judged([to_send(record)], NIGHT)
    [claim], _ = await store.claim_sends(NIGHT, 10, 0)
    await store.settle(replace(delivered(claim), outcome=Outcome.SUPPRESSED), NIGHT)
    assert await client.zcard(store.keys.parked) == parked


async def test_the_letter_of_a_refused_resolve_is_found_though_newer_news_was_claimed(store: AlertStore) -> None:
    """What is owed is older than what fires by now: its letter is filed under what it told of."""
    claim = await claimed(store)
    await store.settle(delivered(claim), NIGHT)
    await store.accept([make_alert(status="resolved", ended=NIGHT + SECOND)], NIGHT + SECOND)
    await store.accept([make_alert(started=NIGHT + 2 * SECOND)], NIGHT + 2 * SECOND)
    [record], _ = await store.claim_due(NIGHT + 2 * SECOND, 10)
    assert (record.version, record.resolved_version) == (3, 2)
    await store.judged([to_send(record)], NIGHT + 2 * SECOND)
    [claim], _ = await store.claim_sends(NIGHT + 2 * SECOND, 10, 0)
    words = b'{"reason": "no"}'
    refusal = Settlement(claim, Result.REFUSED, Outcome.PENDING, version=2, letter=words, wake_at=NIGHT)
    await store.settle(refusal, NIGHT + 2 * SECOND)
    sight = await store.look(record.id)
    assert sight is not None and [letter for _, letter in sight.dead_letters.values()] == [words]
