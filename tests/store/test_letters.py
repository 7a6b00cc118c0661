"""Dead letters: kept in order and within bounds, put back by one script that never overtakes newer news."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from redis.asyncio import Redis

from alertrouter.alert import Alert, Status
from alertrouter.letter import Found, Letter, encode, kept_alert, name_of, number_of, of_body
from alertrouter.record import News, Outcome, Record
from alertrouter.store.letters import MOST_BODIES, NOTICE_EVERY_MS
from alertrouter.store.store import MOST_TAKEOVERS, AlertStore, Claim, Judged, Queued, Result, Settlement
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.store.conftest import MakeStore

PAGERDUTY = "pagerduty:default"
KEY = "k" * 32
ID = make_alert().id


async def claimed(store: AlertStore, *alerts: Alert, now: int = NIGHT) -> list[Claim]:
    """The sends of alerts that are accepted, judged and leased."""
    await store.accept(alerts, now)
    records, _ = await store.claim_due(now, 32)
    await store.judged([to_send(record) for record in records], now)
    return (await store.claim_sends(now, 32, 0))[0]


def to_send(record: Record) -> Judged:
    queued = (Queued(PAGERDUTY, 0, KEY, "", opens=record.version if record.status is Status.FIRING else 0),)
    return Judged(record, Outcome.PENDING, "", "", "payment", 0, False, queued)


def refusal(claim: Claim, now: int = NIGHT, reason: str = "Event object is invalid") -> Settlement:
    record = claim.record
    letter = Letter(
        at=now,
        id=record.id,
        source=record.alert.source,
        destination=claim.destination,
        action="resolve" if record.status is Status.RESOLVED else "trigger",
        version=record.version,
        first_heard=record.first_heard,
        status=400,
        reason=reason,
        attempts=3,
        alert=kept_alert(record.alert),
    )
    return Settlement(
        claim, Result.REFUSED, Outcome.DEAD_LETTERED, version=record.version, detail="HTTP 400", letter=encode(letter)
    )


async def refused(store: AlertStore, *alerts: Alert, now: int = NIGHT) -> list[Found]:
    """The letters of alerts that were refused, the newest first."""
    for claim in await claimed(store, *(alerts or (make_alert(),)), now=now):
        assert await store.settle(refusal(claim, now), now)
    return await store.letters.page(now)


async def of(store: AlertStore) -> Record:
    record = await store.record(ID)
    assert record is not None
    return record


# --- kept ------------------------------------------------------------------------------------------------------------


async def test_a_letter_says_what_was_refused_and_why(store: AlertStore) -> None:
    [found] = await refused(store)
    letter = found.letter
    assert (letter.reason, letter.status, letter.attempts, letter.action) == (
        "Event object is invalid",
        400,
        3,
        "trigger",
    )
    assert (found.standing, letter.id, letter.version) == ("stands", ID, 1)
    assert letter.heard_alert() == make_alert()
    assert await store.letters.find(found.number, NIGHT) == found
    assert number_of(name_of(found.number)) == found.number
    sight = await store.look(ID)
    assert sight is not None and sight.dead_letters[PAGERDUTY][0] == found.number
    assert (await store.history(1))[0]["reason"] == "HTTP 400", "the history has the words, and not the body"


async def test_letters_have_an_order_and_numbers_of_their_own_whatever_the_clock(store: AlertStore) -> None:
    await refused(store, *(make_alert(str(n)) for n in range(3)))
    await refused(store, make_alert("earlier"), now=NIGHT - HOUR)
    letters = await store.letters.page(NIGHT)
    assert [each.number - NIGHT for each in letters] == [3, 2, 1, 0]
    assert letters[0].letter.id.endswith("earlier")
    assert [each.number for each in await store.letters.page(NIGHT, most=2)] == [NIGHT + 3, NIGHT + 2]
    assert [each.number for each in await store.letters.page(NIGHT, before=NIGHT + 2)] == [NIGHT + 1, NIGHT]
    assert [each.number for each in await store.letters.page(NIGHT, since=NIGHT + 2)] == [NIGHT + 3, NIGHT + 2]
    assert await store.letters.find(NIGHT + 4, NIGHT) is None


async def test_each_refused_version_has_its_letter(store: AlertStore) -> None:
    await refused(store)
    letters = await refused(store, make_alert(), now=NIGHT + MINUTE)
    assert [(each.letter.version, each.standing) for each in letters] == [(2, "stands"), (1, "newer")]


async def test_a_letter_of_an_alert_that_was_forgotten_is_not_overwritten(store: AlertStore, client: Redis) -> None:
    """Its record is gone, and the next one counts its versions from one again."""
    await refused(store)
    await client.delete(store.keys.alert + ID)
    letters = await refused(store, now=NIGHT + HOUR)
    assert [(each.letter.version, each.standing) for each in letters] == [(1, "stands"), (1, "newer")]


@pytest.mark.parametrize("stored", [b"{}", b"not JSON", b'{"reason":7}', b"\xff\xfe", b"[" * 5000, b""])
async def test_a_letter_that_cannot_be_read_is_shown_and_can_be_dropped(
    store: AlertStore, client: Redis, stored: bytes
) -> None:
    [found] = await refused(store)
    await client.hset(store.keys.dead, found.about, stored)
    [shown] = await store.letters.page(NIGHT)
    assert shown.number == found.number
    assert msgspec.json.encode(shown.as_json(whole=True))
    assert await store.letters.redrive([shown], NIGHT) == ["redriven"], "where it stands is what matters"


# --- put back --------------------------------------------------------------------------------------------------------


async def test_a_redriven_letter_makes_its_alert_due_once(store: AlertStore, client: Redis) -> None:
    letters = await refused(store)
    assert await store.letters.redrive(letters, NIGHT + MINUTE) == ["redriven"]
    assert await store.letters.redrive(letters, NIGHT + MINUTE) == ["unknown"]
    assert await store.letters.page(NIGHT) == []
    assert (await store.backlog(NIGHT))["dead_letters"] == 0
    assert await client.zcard(store.keys.parked) == 0, "it is kept from nothing any more"
    [record], _ = await store.claim_due(NIGHT + MINUTE, 10)
    assert (record.version, record.news, record.outcome) == (2, News.AGAIN, Outcome.PENDING)
    assert record.told_of(PAGERDUTY).dead == 1, "the version that was refused stays refused"
    moved = [fields for _, fields in await store.history_entries("-", "+", 100) if fields.get("kind") == "letter"]
    assert [(fields["id"], fields["result"], fields["version"]) for fields in moved] == [(ID, "redriven", "1")]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "news", [make_alert(severity="error"), make_alert(started=NIGHT + MINUTE)], ids=["severity", "episode"]
)
async def test_a_redrive_never_overtakes_newer_news(store: AlertStore, news: Alert, force: bool) -> None:
    """The letter is read, then newer news comes, then the letter is put back: what was read does not count."""
    letters = await refused(store)
    await store.accept([news], NIGHT + MINUTE)
    before = await of(store)
    assert await store.letters.redrive(letters, NIGHT + MINUTE, force=force) == ["newer"]
    assert await of(store) == before
    assert (await store.letters.page(NIGHT))[0].standing == "newer"


@pytest.mark.parametrize("force", [False, True])
async def test_what_was_delivered_since_is_newer(store: AlertStore, force: bool) -> None:
    letters = await refused(store)
    [claim] = await claimed(store, make_alert(), now=NIGHT + MINUTE)
    await store.settle(Settlement(claim, Result.DELIVERED, Outcome.DELIVERED, version=2), NIGHT + MINUTE)
    assert await store.letters.redrive(letters, NIGHT + MINUTE, force=force) == ["newer"]


@pytest.mark.parametrize("force", [False, True])
async def test_another_life_of_the_same_alert_is_newer(store: AlertStore, client: Redis, force: bool) -> None:
    letters = await refused(store)
    await client.delete(store.keys.alert + ID)
    await refused(store, now=NIGHT + HOUR)
    assert await store.letters.redrive(letters, NIGHT + HOUR, force=force) == ["newer"]


@pytest.mark.parametrize("force", [False, True])
async def test_what_was_delivered_since_and_is_over_is_newer(store: AlertStore, force: bool) -> None:
    """It has had its page: by force it would get a second one."""
    letters = await refused(store)
    [claim] = await claimed(store, make_alert(), now=NIGHT + MINUTE)
    await store.settle(Settlement(claim, Result.DELIVERED, Outcome.DELIVERED, version=2), NIGHT + MINUTE)
    await store.accept([make_alert(status="resolved", ended=NIGHT + MINUTE)], NIGHT + MINUTE)
    assert await store.letters.redrive(letters, NIGHT + MINUTE, force=force) == ["newer"]


async def test_what_is_over_is_put_back_by_force_alone(store: AlertStore, client: Redis) -> None:
    letters = await refused(store)
    await store.accept([make_alert(status="resolved", ended=NIGHT + MINUTE)], NIGHT + MINUTE)
    await client.hset(store.keys.alert + ID, "suspended_until", str(NIGHT + HOUR))
    await client.pexpire(store.keys.alert + ID, HOUR)
    assert await store.letters.redrive(letters, NIGHT + MINUTE) == ["resolved"]
    assert (await of(store)).version == 2
    assert await store.letters.redrive(letters, NIGHT + MINUTE, force=True) == ["redriven"]
    record = await of(store)
    assert (record.fired_version, record.resolved_version, record.version, record.is_forced) == (3, 4, 4, True)
    assert record.status is Status.RESOLVED
    assert record.suspended_until == 0, "nothing holds it back"
    assert await client.ttl(store.keys.alert + ID) == -1, "nor does it end before it is told"
    await store.accept([make_alert(started=NIGHT + HOUR)], NIGHT + HOUR)
    assert not (await of(store)).is_forced, "its next episode is another matter"


async def test_what_is_gone_is_made_anew_by_force_alone(store: AlertStore, client: Redis) -> None:
    letters = await refused(store)
    await client.delete(store.keys.alert + ID)
    assert await store.letters.redrive(letters, NIGHT) == ["gone"]
    assert await store.record(ID) is None
    assert await store.letters.redrive(letters, NIGHT + HOUR, force=True) == ["redriven"]
    [record], _ = await store.claim_due(NIGHT + HOUR, 10)
    assert (record.alert, record.status, record.is_forced) == (make_alert(), Status.RESOLVED, True)
    assert (record.fired_version, record.resolved_version, record.version) == (1, 2, 2)
    assert await store.accept([make_alert(started=NIGHT + HOUR)], NIGHT + HOUR) == [News.NEW]


async def test_what_is_gone_and_was_too_large_stays_gone(store: AlertStore, client: Redis) -> None:
    [found] = await refused(store, make_alert(summary="x" * 40_000))
    assert found.letter.heard_alert() is None
    await client.delete(store.keys.alert + ID)
    assert await store.letters.redrive([found], NIGHT, force=True) == ["gone"]


async def test_a_refused_resolve_is_put_back_though_its_alert_is_over(store: AlertStore) -> None:
    [claim] = await claimed(store, make_alert())
    await store.settle(Settlement(claim, Result.DELIVERED, Outcome.DELIVERED, version=1), NIGHT)
    letters = await refused(store, make_alert(status="resolved", ended=NIGHT + SECOND), now=NIGHT + SECOND)
    assert letters[0].standing == "stands"
    assert await store.letters.redrive(letters, NIGHT + MINUTE) == ["redriven"]
    record = await of(store)
    assert (record.version, record.resolved_version, record.is_forced) == (3, 3, False)


async def test_a_refused_resolve_that_is_gone_is_a_resolve_still(store: AlertStore, client: Redis) -> None:
    letters = await refused(store, make_alert(status="resolved", ended=NIGHT))
    await client.delete(store.keys.alert + ID)
    assert await store.letters.redrive(letters, NIGHT, force=True) == ["redriven"]
    record = await of(store)
    assert (record.status, record.fired_version, record.resolved_version, record.version) == (Status.RESOLVED, 0, 1, 1)
    assert not record.is_forced, "nothing is triggered for it"


async def test_many_are_put_back_by_one_call_and_each_for_itself(store: AlertStore) -> None:
    letters = await refused(store, *(make_alert(str(n)) for n in range(5)))
    over = make_alert("3", status="resolved", ended=NIGHT + SECOND)
    await store.accept([over], NIGHT + SECOND)
    await store.letters.drop([each for each in letters if each.letter.id.endswith(":1")], NIGHT)
    words = await store.letters.redrive(letters, NIGHT + SECOND)
    assert words == ["redriven", "resolved", "redriven", "unknown", "redriven"]
    assert [each.letter.id for each in await store.letters.page(NIGHT)] == [over.id]


@pytest.mark.parametrize("first", ["redrive", "news", "together"])
async def test_of_a_redrive_and_newer_news_only_the_newest_is_sent(store: AlertStore, first: str) -> None:
    letters = await refused(store)
    news = make_alert(severity="error")
    if first == "redrive":
        await store.letters.redrive(letters, NIGHT + 1)
        await store.accept([news], NIGHT + 1)
    elif first == "news":
        await store.accept([news], NIGHT + 1)
        await store.letters.redrive(letters, NIGHT + 1)
    else:
        await asyncio.gather(store.letters.redrive(letters, NIGHT + 1), store.accept([news], NIGHT + 1))
    sent = []
    for now in (NIGHT + 1, NIGHT + 2):
        records, _ = await store.claim_due(now, 10)
        await store.judged([to_send(record) for record in records], now)
        for claim in (await store.claim_sends(now, 10, 0))[0]:
            sent.append(claim.record.alert)
            version = claim.record.version
            await store.settle(Settlement(claim, Result.DELIVERED, Outcome.DELIVERED, version=version), now)
    assert sent == [news]


async def test_a_poisoned_alert_gets_another_chance(make_store: MakeStore, store: AlertStore) -> None:
    now = NIGHT
    await store.accept([make_alert()], now)
    for _ in range(MOST_TAKEOVERS):
        await make_store().claim_due(now, 10)
        now += 30 * SECOND
        await store.claim_due(now, 0)
        now += 30 * SECOND
    [found] = await store.letters.page(now)
    assert (found.letter.kind, found.standing, found.letter.attempts) == ("poisoned", "stands", MOST_TAKEOVERS)
    assert found.letter.heard_alert() == make_alert()
    assert (await of(store)).poisoned
    assert await store.letters.redrive([found], now) == ["redriven"]
    assert not (await of(store)).poisoned
    [record], _ = await store.claim_due(now, 10)
    assert record.alert == make_alert()


async def test_a_poisoned_alert_that_came_back_is_newer(store: AlertStore, client: Redis) -> None:
    await store.accept([make_alert()], NIGHT)
    await client.hset(store.keys.dead, f"poisoned\n\n{NIGHT}\n{ID}", encode(Letter(kind="poisoned", id=ID, reason="")))
    await client.zadd(store.keys.letters, {f"poisoned\n\n{NIGHT}\n{ID}": NIGHT})
    assert await store.letters.redrive(await store.letters.page(NIGHT), NIGHT) == ["newer"]


async def test_an_unreadable_record_is_tried_again(store: AlertStore, client: Redis) -> None:
    await store.accept([make_alert()], NIGHT)
    await client.hset(store.keys.alert + ID, "severity", "unheard of")
    for number in range(2):
        assert (await store.claim_due(NIGHT + number, 10))[0] == []
        [found] = await store.letters.page(NIGHT)
        assert (found.letter.kind, found.letter.id, found.standing) == ("unreadable", ID, "stands")
        assert await store.letters.redrive([found], NIGHT + number + 1) == ["redriven"]
    await client.hset(store.keys.alert + ID, "severity", "critical")
    assert [record.id for record in (await store.claim_due(NIGHT + 5, 10))[0]] == [ID]


# --- let go of, and bounded ------------------------------------------------------------------------------------------


async def test_a_dropped_letter_is_on_record_and_its_alert_stays(store: AlertStore) -> None:
    letters = await refused(store)
    before = await of(store)
    assert await store.letters.drop(letters, NIGHT) == [True]
    assert await store.letters.drop(letters, NIGHT) == [False]
    assert await of(store) == before
    assert (await store.backlog(NIGHT))["dead_letters"] == 0
    [moved] = [fields for _, fields in await store.history_entries("-", "+", 100) if fields.get("kind") == "letter"]
    assert (moved["id"], moved["result"], moved["destination"]) == (ID, "dropped", PAGERDUTY)


async def test_a_letter_that_was_written_anew_meanwhile_is_not_dropped(store: AlertStore) -> None:
    body = b"{"
    await store.letters.keep_body(of_body("datadog", body, "", 400, "no", NIGHT), body, NIGHT)
    old = await store.letters.page(NIGHT)
    await store.letters.keep_body(of_body("datadog", body, "", 400, "no", NIGHT + 1), body, NIGHT + 1)
    assert await store.letters.drop(old, NIGHT) == [False]
    [found] = await store.letters.page(NIGHT)
    assert found.number > old[0].number


async def test_the_oldest_are_too_many(store: AlertStore) -> None:
    assert await store.letters.extent(1, 1) == await store.letters.extent(10**6, 10**9)
    letters = await refused(store, *(make_alert(str(n)) for n in range(5)))
    oldest_first = [each.number for each in reversed(letters)]
    assert (await store.letters.extent(5, 10**9)).too_many == ()
    extent = await store.letters.extent(3, 10**9)
    assert (extent.letters, extent.oldest, extent.too_many) == (5, oldest_first[0], tuple(oldest_first[:2]))
    assert (await store.letters.extent(5, extent.bytes)).too_many == ()
    assert (await store.letters.extent(5, extent.bytes - 1)).too_many == tuple(oldest_first[:1])


# --- bodies ----------------------------------------------------------------------------------------------------------


async def keep(store: AlertStore, body: bytes, now: int = NIGHT, source: str = "datadog") -> tuple[bool, list[bytes]]:
    return await store.letters.keep_body(of_body(source, body, "text/plain", 400, "not JSON", now), body, now)


async def test_a_sender_is_told_of_once_in_15_minutes(store: AlertStore) -> None:
    assert (await keep(store, b"1"))[0]
    assert not (await keep(store, b"2", NIGHT + NOTICE_EVERY_MS - 1))[0]
    assert (await keep(store, b"3", NIGHT + 1, "datadog/team-a"))[0], "another sender"
    assert (await keep(store, b"4", NIGHT + NOTICE_EVERY_MS))[0]
    assert await store.letters.noticed_before(NIGHT + NOTICE_EVERY_MS) == ["datadog/team-a"]
    assert await store.letters.noticed_before(NIGHT + NOTICE_EVERY_MS) == []
    assert (await keep(store, b"5", NIGHT + 2, "datadog/team-a"))[0]


async def test_the_same_body_takes_its_own_place(store: AlertStore) -> None:
    for second in range(3):
        await keep(store, b"same", NIGHT + second)
    [found] = await store.letters.page(NIGHT)
    assert (found.letter.at, found.standing, found.letter.original_body()) == (NIGHT + 2, "stands", b"same")


async def test_of_one_sender_a_bounded_number_is_kept_and_the_rest_is_handed_back(
    store: AlertStore, client: Redis
) -> None:
    await keep(store, b"of another", source="alertmanager")
    lost = []
    for number in range(MOST_BODIES + 3):
        lost += (await keep(store, str(number).encode(), NIGHT + number))[1]
    assert [msgspec.json.decode(each, type=Letter).body for each in lost] == ["0", "1", "2"]
    assert (await store.backlog(NIGHT))["dead_letters"] == MOST_BODIES + 1
    letters = await store.letters.page(NIGHT, most=1000)
    assert await client.zcard(store.keys.bodies + "datadog") == MOST_BODIES
    await store.letters.drop(letters, NIGHT)
    assert (await store.backlog(NIGHT))["dead_letters"] == 0
    assert await client.exists(store.keys.bodies + "datadog", store.keys.letters, store.keys.dead) == 0


BODIES = {
    "text": b'{"alerts": 7}',
    "bytes": b"\xff\xfe\x00\x01",
    "not ASCII": "größer 世界 🔥".encode(),
    "control characters": b"\x1b[2J\r\n\x00",
    "a surrogate in UTF-8": b"\xed\xa0\x80",
    "large": b"x" * 100_000,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_any_body_comes_back_as_it_was(store: AlertStore, body: bytes) -> None:
    await keep(store, body)
    [found] = await store.letters.page(NIGHT)
    assert found.letter.original_body() == body


async def test_a_huge_body_is_cut_and_says_so(store: AlertStore) -> None:
    await keep(store, b"\xff" * 8_000_000)
    [found] = await store.letters.page(NIGHT)
    assert found.letter.original_body() is None
    assert found.letter.size == 8_000_000
    assert len(encode(found.letter)) < 200_000


@pytest.mark.parametrize("name", ["", "-1", "+1", " 1", "1_0", "٣", "é", "x" * 12, "MJQ1Z8K0", "1\n"])
def test_what_is_no_name_of_a_letter(name: str) -> None:
    assert number_of(name) is None


@pytest.mark.parametrize("number", [0, 1, 35, 36, NIGHT, 2**53])
def test_names_stand_for_numbers(number: int) -> None:
    assert number_of(name_of(number)) == number


async def test_a_notice_is_due_once_in_so_long_for_each_sender(store: AlertStore) -> None:
    letters = store.letters
    assert [await letters.notice(name, NIGHT) for name in ("a", "a", "b")] == [True, False, True]
    assert [await letters.notice("a", NIGHT + NOTICE_EVERY_MS + late) for late in (-1, 0, 1)] == [False, True, False]
    assert await letters.noticed_before(NIGHT + 1) == ["b"]
    assert await letters.notice("b", NIGHT + 2), "forgotten, and so told of again"
