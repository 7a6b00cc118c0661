"""accept: what is a duplicate, what is news. Each case seeds a history, hears one more alert and reads the record back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from alertrouter.alert import Alert, Enqueued, Severity, Status
from alertrouter.errors import StoreUnavailable
from alertrouter.record import News, Outcome, State
from alertrouter.store.store import Accepted, AlertStore, Dedup, Judged, Queued, Result, Settlement, limited_as
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.store.conftest import MakeStore

PAGERDUTY = "pagerduty:default"
TWO, THREE = Enqueued("disk", content="[FIRING:2]"), Enqueued("disk", content="[FIRING:3]")


def event(enqueued: Enqueued, status: str = "firing") -> Alert:
    """An Events API v2 event; such have no episode."""
    return replace(make_alert(status=status, episode="", started=0), enqueued=enqueued)


KEY = "k" * 32


async def deliver(store: AlertStore, now: int, outcome: Outcome = Outcome.DELIVERED) -> None:
    """Take everything due through to its end, as a worker would."""
    records, _ = await store.claim_due(now, 100)
    sends = (Queued(PAGERDUTY, 0, KEY),) if outcome is not Outcome.SUPPRESSED else ()
    await store.judged(
        [
            Judged(record, Outcome.PENDING if sends else outcome, "rule", "because", "payment", 0, False, sends)
            for record in records
        ],
        now,
    )
    claims, _ = await store.claim_sends(now, 100, 0)
    for claim in claims:
        result = Result.REFUSED if outcome is Outcome.DEAD_LETTERED else Result.DELIVERED
        state = State.RESOLVED if claim.record.status is Status.RESOLVED else State.TRIGGERED
        assert await store.settle(
            Settlement(claim, result, outcome, state=state, version=claim.record.version, detail="{}"), now
        )


@dataclass(frozen=True)
class Case:
    """`then` is heard `after` ms after `first` was delivered (or ended as `outcome`)."""

    name: str
    then: Alert
    after: int
    expected: News | Accepted
    first: Alert = make_alert()
    outcome: Outcome = Outcome.DELIVERED


RESOLVED = make_alert(status="resolved", ended=NIGHT + MINUTE)

CASES = [
    Case("unchanged in the window", make_alert(), 5 * MINUTE + 14 * SECOND, Accepted.DUPLICATE),
    Case("unchanged after the window and its slack", make_alert(), 5 * MINUTE + 16 * SECOND, News.REFRESH),
    Case("severity changed in the window", make_alert(severity="warning"), SECOND, News.SEVERITY),
    Case("a later start", make_alert(started=NIGHT + 1), SECOND, News.EPISODE),
    Case("an earlier start is the same episode", make_alert(started=NIGHT - HOUR), SECOND, Accepted.DUPLICATE),
    Case("no start where one was known", make_alert(started=0, episode=""), SECOND, Accepted.DUPLICATE),
    Case("a start where none was known", make_alert(), SECOND, Accepted.DUPLICATE, make_alert(started=0, episode="")),
    Case("same cycle key at a later time", make_alert(episode="c", started=NIGHT + HOUR), SECOND, Accepted.DUPLICATE,
         make_alert(episode="c")),
    Case("another cycle key, undated", make_alert(episode="b", started=0), SECOND, News.EPISODE,
         make_alert(episode="a", started=0)),
    Case("resolved in the window", RESOLVED, SECOND, News.STATUS),
    Case("a resolve older than the episode", make_alert(status="resolved", ended=NIGHT - 1), SECOND, Accepted.STALE),
    Case("resolved twice", RESOLVED, SECOND, Accepted.DUPLICATE, RESOLVED),
    Case("resolved again after the first was refused", RESOLVED, SECOND, News.AGAIN, RESOLVED, Outcome.DEAD_LETTERED),
    Case("firing again after a resolve", make_alert(started=NIGHT + HOUR), SECOND, News.NEW, RESOLVED),
    Case("suppressed is judged afresh", make_alert(), SECOND, News.AGAIN, outcome=Outcome.SUPPRESSED),
    Case("dead-lettered is judged afresh", make_alert(), SECOND, News.AGAIN, outcome=Outcome.DEAD_LETTERED),
    Case("acknowledged", make_alert(status="acknowledged"), SECOND, News.STATUS),
    Case("acknowledged after it was resolved", make_alert(status="acknowledged"), SECOND, News.STATUS, RESOLVED),
    Case("acknowledged twice", make_alert(status="acknowledged"), SECOND, Accepted.DUPLICATE,
         make_alert(status="acknowledged")),
    Case("firing after an acknowledgement of nothing", make_alert(), SECOND, News.NEW,
         make_alert(status="acknowledged", episode="")),
    Case("an event of the same text", event(TWO), SECOND, Accepted.DUPLICATE, event(TWO)),
    Case("an event of another text", event(THREE), SECOND, News.CONTENT, event(TWO)),
    Case("an event after its resolve", event(TWO), SECOND, News.NEW, event(Enqueued("disk"), "resolved")),
    Case("another text of other senders is none", make_alert(summary="else"), SECOND, Accepted.DUPLICATE),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_is_news(case: Case, store: AlertStore) -> None:
    first = await store.accept([case.first], NIGHT)
    assert first == [News.NEW if case.first.status is Status.FIRING else News.STATUS]
    await deliver(store, NIGHT, case.outcome)

    assert await store.accept([case.then], NIGHT + case.after) == [case.expected]

    record = await store.record(case.then.id)
    assert record is not None
    due = (await store.backlog(2 * NIGHT))["due"]
    if isinstance(case.expected, News):
        assert (record.version, record.outcome, due) == (2, Outcome.PENDING, 1)
        assert record.alert == case.then
        assert record.news is case.expected
    else:
        assert (record.version, record.outcome, due) == (1, case.outcome, 0)
        assert record.alert == case.first


async def test_a_duplicate_is_counted_and_rearms_the_window(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    await deliver(store, NIGHT)
    for sighting in range(1, 12):
        assert await store.accept([make_alert()], NIGHT + sighting * 5 * MINUTE) == [Accepted.DUPLICATE]
    record = await store.record(make_alert().id)
    assert record is not None
    assert (record.count, record.last_heard) == (12, NIGHT + 55 * MINUTE)


async def test_fixed_mode_forwards_once_per_window(make_store: MakeStore) -> None:
    store = make_store(Dedup(mode="fixed"))
    heard = []
    for minute in range(11):
        [kind] = await store.accept([make_alert()], NIGHT + minute * MINUTE)
        heard.append(kind)
        await deliver(store, NIGHT + minute * MINUTE)
    assert [minute for minute, kind in enumerate(heard) if isinstance(kind, News)] == [0, 5, 10]


async def test_resend_after_counts_from_the_last_delivery(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    await deliver(store, NIGHT)
    forwarded = []
    for tick in range(1, 12 * 9):
        now = NIGHT + tick * 5 * MINUTE
        [kind] = await store.accept([make_alert()], now)
        if kind is News.REFRESH:
            forwarded.append(now - NIGHT)
            await deliver(store, now)
    assert forwarded == [4 * HOUR, 8 * HOUR]


async def test_a_late_copy_of_a_resolved_episode_is_held(store: AlertStore) -> None:
    await store.accept([make_alert()], NIGHT)
    await deliver(store, NIGHT)
    await store.accept([RESOLVED], NIGHT + MINUTE)
    await deliver(store, NIGHT + MINUTE)
    assert await store.accept([make_alert()], NIGHT + 2 * MINUTE) == [News.NEW]
    record = await store.record(make_alert().id)
    assert record is not None and record.hold_until == NIGHT + 2 * MINUTE + 30 * SECOND


async def test_an_undated_cycle_that_is_another_is_not_held(store: AlertStore) -> None:
    first = make_alert(episode="a", started=0)
    await store.accept([first, make_alert(status="resolved", episode="a", started=0)], NIGHT)
    await store.accept([make_alert(episode="b", started=0)], NIGHT + 1)
    record = await store.record(first.id)
    assert record is not None and (record.version, record.hold_until) == (3, 0)


async def test_a_sender_without_episodes_is_not_held(store: AlertStore) -> None:
    firing = make_alert(episode="", started=0)
    await store.accept([firing, make_alert(status="resolved", episode="", started=0), firing], NIGHT)
    record = await store.record(firing.id)
    assert record is not None
    assert (record.version, record.hold_until, record.status) == (3, 0, Status.FIRING)


async def test_one_batch_tells_its_own_duplicates(store: AlertStore) -> None:
    batch = [make_alert(str(n % 100)) for n in range(1000)]
    kinds = await store.accept(batch, NIGHT)
    assert kinds[:100] == [News.NEW] * 100
    assert kinds[100:] == [Accepted.DUPLICATE] * 900
    assert (await store.backlog(2 * NIGHT))["due"] == 100


async def test_the_same_fingerprint_of_two_senders_is_two_alerts(store: AlertStore) -> None:
    kinds = await store.accept([make_alert(), make_alert(source="alertmanager/team-b")], NIGHT)
    assert kinds == [News.NEW, News.NEW]


async def test_foreign_data_under_a_key_refuses_that_alert_alone(store: AlertStore, client: Redis) -> None:
    await client.set(store.keys.alert + make_alert("theirs").id, "not ours")
    with pytest.raises(StoreUnavailable, match="foreign"):
        await store.accept([make_alert("theirs"), make_alert("ours")], NIGHT)
    assert await store.record(make_alert("ours").id) is not None
    assert await client.get(store.keys.alert + make_alert("theirs").id) == b"not ours"


async def test_any_text_survives_the_round_trip(store: AlertStore) -> None:
    alert = make_alert("a b\nc\x00:{}'\"\\é🚨", summary="größer als 90 % — 🚨", severity=Severity.INFO)
    await store.accept([alert], NIGHT)
    record = await store.record(alert.id)
    assert record is not None and record.alert == alert and record.id == alert.id
    [claimed], _ = await store.claim_due(NIGHT, 10)
    assert claimed.alert == alert


async def test_an_event_that_says_nothing_leaves_what_was_heard(make_store: MakeStore) -> None:
    store = make_store()
    fired = event(TWO)
    await store.accept([fired], NIGHT)
    await store.accept(
        [replace(event(Enqueued("disk"), "acknowledged"), event=make_alert(severity="info").event)], NIGHT
    )
    record = await store.record(fired.id)
    assert record is not None
    assert (record.status, record.severity) == (Status.ACKNOWLEDGED, Severity.CRITICAL)
    assert record.alert == replace(fired, status=Status.ACKNOWLEDGED)
    assert await store.accept([fired], NIGHT + SECOND) == [Accepted.DUPLICATE], "its text is the one heard before"


async def test_a_dedup_key_is_the_first_ones(make_store: MakeStore, client: Redis) -> None:
    store = make_store()
    taken = [await store.claim_dedup_key(KEY, "17", alert, is_over=False) for alert in ("a:17", "b:17", "a:17")]
    assert taken == [True, False, True]
    assert await store.claim_dedup_key("j" * 32, "17", "b:17", is_over=False)
    assert await store.told_under("17", [KEY]) == "a:17"
    assert await store.told_under("18", [KEY]) == ""
    [name] = [key async for key in client.scan_iter(f"{store.keys.claimed}{limited_as(KEY)}:*")]
    assert await client.pttl(name) > 30 * 24 * HOUR
    await store.claim_dedup_key(KEY, "17", "a:17", is_over=True)
    assert await client.pttl(name) <= 24 * HOUR, "no longer than the record of what is over"
