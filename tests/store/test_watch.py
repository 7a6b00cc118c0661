"""What is watched beside alerts: heartbeats, senders, what waits for PagerDuty, and who tells of its outage."""

from __future__ import annotations

import pytest

from alertrouter.alarms import HEARTBEAT, REFUSED_SENDER, alarm
from alertrouter.alert import Alert
from alertrouter.record import Outcome
from alertrouter.store.store import (
    OUTAGE_OVER_MS,
    REFUSED_WITHIN_MS,
    TOLD_EVERY_MS,
    AlertStore,
    Judged,
    Queued,
    Refusal,
    Result,
    Settlement,
    Watched,
)
from tests.alerts import MINUTE, NIGHT, SECOND, make_alert
from tests.store.conftest import MakeStore

EXPECTED = {"prometheus": MINUTE}
STEP = 2 * SECOND


async def watch(store: AlertStore, begin: int, end: int, heard: dict[str, int] | None = None) -> str:
    """Look every two seconds from `begin` to `end`, as a replica does; returns how the heartbeat is in the end."""
    state = ""
    for now in range(begin, end + 1, STEP):
        [each] = await store.heartbeats(EXPECTED, heard or {}, now)
        state, heard = each.state, {}
    return state


async def raise_alarm(store: AlertStore, name: str, now: int) -> None:
    await store.accept([alarm(name, "something is wrong")], now)


# --- heartbeats ------------------------------------------------------------------------------------------------------


async def test_a_heartbeat_is_silent_when_its_time_is_over_and_not_before(store: AlertStore) -> None:
    assert await watch(store, NIGHT, NIGHT + STEP, {"prometheus": NIGHT}) == "heard"
    assert await watch(store, NIGHT + 2 * STEP, NIGHT + MINUTE - STEP) == "heard"
    assert await store.heartbeats(EXPECTED, {}, NIGHT + MINUTE) == [
        Watched("prometheus", "silent", alarmed=False, at=NIGHT)
    ]


async def test_one_that_was_never_heard_has_all_its_time_first(store: AlertStore) -> None:
    assert await watch(store, NIGHT, NIGHT + MINUTE - STEP) == "waiting"
    assert await store.heartbeats(EXPECTED, {}, NIGHT + MINUTE) == [Watched("prometheus", "silent", alarmed=False)]


async def test_one_that_comes_into_the_rules_has_all_its_time_from_then_on(store: AlertStore) -> None:
    for now in range(NIGHT, NIGHT + 2 * MINUTE, STEP):
        assert await store.heartbeats({}, {}, now) == []
    added = NIGHT + 2 * MINUTE
    assert await watch(store, added, added + MINUTE - STEP) == "waiting"
    assert await watch(store, added + MINUTE, added + MINUTE) == "silent"


async def test_heard_by_one_replica_it_is_heard_for_all(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    await watch(one, NIGHT, NIGHT + 30 * SECOND)
    await other.hear_heartbeats({"prometheus": NIGHT + 30 * SECOND})
    assert await watch(one, NIGHT + 32 * SECOND, NIGHT + 80 * SECOND) == "heard"


async def test_what_is_told_late_does_not_make_it_older(store: AlertStore) -> None:
    await store.hear_heartbeats({"prometheus": NIGHT + 30 * SECOND})
    await store.hear_heartbeats({"prometheus": NIGHT})
    [each] = await store.heartbeats(EXPECTED, {"prometheus": NIGHT + SECOND}, NIGHT + 40 * SECOND)
    assert each.at == NIGHT + 30 * SECOND


async def test_after_a_pause_of_the_watch_it_has_all_its_time_again(store: AlertStore) -> None:
    await watch(store, NIGHT, NIGHT, {"prometheus": NIGHT})
    back = NIGHT + 10 * MINUTE  # nobody watched: all replicas were down, or Redis was away
    assert await watch(store, back, back + MINUTE - STEP) == "waiting"
    assert await watch(store, back + MINUTE, back + MINUTE) == "silent"


async def test_a_restart_beside_another_replica_grants_no_time(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    await watch(one, NIGHT, NIGHT + 40 * SECOND, {"prometheus": NIGHT})
    await watch(other, NIGHT + 42 * SECOND, NIGHT + MINUTE - STEP)
    assert await watch(one, NIGHT + MINUTE, NIGHT + MINUTE) == "silent"


async def test_an_open_alarm_stays_open_over_a_pause_and_ends_when_it_is_heard(store: AlertStore) -> None:
    await watch(store, NIGHT, NIGHT + MINUTE)
    await raise_alarm(store, HEARTBEAT + "prometheus", NIGHT + MINUTE)
    back = NIGHT + 10 * MINUTE
    assert await store.heartbeats(EXPECTED, {}, back) == [Watched("prometheus", "waiting", alarmed=True)]
    heard = back + STEP
    assert await store.heartbeats(EXPECTED, {"prometheus": heard}, heard) == [
        Watched("prometheus", "heard", alarmed=True, at=heard)
    ]


async def test_one_that_left_the_rules_is_gone_when_no_replica_has_it_and_its_alarm_is_over(store: AlertStore) -> None:
    await watch(store, NIGHT, NIGHT + MINUTE)
    await raise_alarm(store, HEARTBEAT + "prometheus", NIGHT + MINUTE)
    gone = 0
    for now in range(NIGHT + MINUTE, NIGHT + 20 * MINUTE, STEP):
        found = await store.heartbeats({}, {}, now)
        if found:
            assert [(each.state, each.alarmed) for each in found] == [("gone", True)]
            gone = now
            break
    assert 4 * MINUTE < gone - NIGHT < 8 * MINUTE
    await store.accept([alarm(HEARTBEAT + "prometheus", "over", firing=False)], gone)
    await store.heartbeats({}, {}, gone + STEP)
    assert await store.heartbeats({}, {}, gone + 2 * STEP) == []


async def test_one_that_another_replica_still_has_is_not_gone(make_store: MakeStore) -> None:
    """While rules are rolled out replicas have different ones."""
    old, new = make_store(), make_store()
    for now in range(NIGHT, NIGHT + 20 * MINUTE, STEP):
        await old.heartbeats(EXPECTED, {}, now)
        assert await new.heartbeats({}, {}, now + SECOND) == []


async def test_after_a_pause_one_that_others_may_have_is_not_gone_at_once(make_store: MakeStore) -> None:
    old, new = make_store(), make_store()
    await watch(old, NIGHT, NIGHT + MINUTE)
    await raise_alarm(old, HEARTBEAT + "prometheus", NIGHT + MINUTE)
    back = NIGHT + 60 * MINUTE
    assert await new.heartbeats({}, {}, back) == []
    [each] = await old.heartbeats(EXPECTED, {}, back + SECOND)
    assert (each.state, each.alarmed) == ("waiting", True)


async def test_a_clock_that_is_set_back_neither_pages_nor_hides_a_silence(store: AlertStore) -> None:
    await watch(store, NIGHT, NIGHT + 30 * SECOND, {"prometheus": NIGHT + 20 * SECOND})
    back = NIGHT - 24 * 60 * MINUTE
    assert await watch(store, back, back + MINUTE - STEP) == "heard"
    assert await watch(store, back + MINUTE, back + MINUTE) == "silent"


async def test_a_clock_that_is_set_forward_pages_nobody(store: AlertStore) -> None:
    await watch(store, NIGHT, NIGHT + 30 * SECOND, {"prometheus": NIGHT + 20 * SECOND})
    ahead = NIGHT + 24 * 60 * MINUTE
    assert await watch(store, ahead, ahead + MINUTE - STEP) == "waiting"


# --- senders ---------------------------------------------------------------------------------------------------------


def refusals(*times: int, sender: str = "alertmanager", known: bool = True) -> list[Refusal]:
    return [Refusal(sender, at, known, "401: missing or wrong token") for at in times]


async def states(
    store: AlertStore, taken: dict[str, int], refused: list[Refusal], now: int
) -> list[tuple[str, str, bool]]:
    return [(each.name, each.state, each.alarmed) for each in await store.senders(taken, refused, now)]


async def test_the_third_refusal_within_five_minutes_is_said(store: AlertStore) -> None:
    first, second, third = NIGHT, NIGHT + MINUTE, NIGHT + REFUSED_WITHIN_MS
    assert await states(store, {}, refusals(first, second), second) == [("alertmanager", "some", False)]
    [each] = await store.senders({}, refusals(third), third)
    assert (each.state, each.words) == ("refused", "401: missing or wrong token")


async def test_three_refusals_in_a_longer_time_are_not_said_until_they_come_faster(store: AlertStore) -> None:
    late = NIGHT + REFUSED_WITHIN_MS + 1
    assert await states(store, {}, refusals(NIGHT, NIGHT + 2, late), late) == [("alertmanager", "some", False)]
    assert await states(store, {}, refusals(late + 1), late + 1) == [("alertmanager", "refused", False)]


async def test_refusals_at_several_replicas_count_together(make_store: MakeStore) -> None:
    for number in range(2):
        await make_store().senders({}, refusals(NIGHT + number), NIGHT + number)
    assert await states(make_store(), {}, refusals(NIGHT + 2), NIGHT + 2) == [("alertmanager", "refused", False)]


async def test_one_that_was_taken_in_between_is_not_refused(store: AlertStore) -> None:
    await store.senders({}, refusals(NIGHT, NIGHT + 1), NIGHT + 1)
    await store.senders({"alertmanager": NIGHT + 2}, [], NIGHT + 2)
    assert await states(store, {}, refusals(NIGHT + 3), NIGHT + 3) == [("alertmanager", "some", False)]


async def test_the_alarm_is_over_when_it_is_taken_again(store: AlertStore) -> None:
    await store.senders({}, refusals(NIGHT, NIGHT + 1, NIGHT + 2), NIGHT + 2)
    await raise_alarm(store, REFUSED_SENDER + "alertmanager", NIGHT + 2)
    assert await states(store, {}, [], NIGHT + MINUTE) == [("alertmanager", "refused", True)]
    assert await states(store, {"alertmanager": NIGHT + MINUTE}, [], NIGHT + MINUTE) == [
        ("alertmanager", "taken", True)
    ]
    await store.accept([alarm(REFUSED_SENDER + "alertmanager", "over", firing=False)], NIGHT + MINUTE)
    assert await states(store, {}, [], NIGHT + MINUTE + 1) == []


@pytest.mark.parametrize(("was_taken", "expected"), [(False, []), (True, [("datadog/shop", "refused", False)])])
async def test_a_name_that_needs_proof_counts_only_when_it_was_taken_once(
    store: AlertStore, was_taken: bool, expected: list[tuple[str, str, bool]]
) -> None:
    if was_taken:
        await store.senders({"datadog/shop": NIGHT - MINUTE}, [], NIGHT - MINUTE)
    made_up = refusals(NIGHT, NIGHT + 1, NIGHT + 2, sender="datadog/shop", known=False)
    assert await states(store, {}, made_up, NIGHT + 2) == expected


# --- what waits for PagerDuty ----------------------------------------------------------------------------------------


async def judge(store: AlertStore, rank: int, *alerts: Alert) -> None:
    await store.accept(alerts, NIGHT)
    records, _ = await store.claim_due(NIGHT, 10)
    send = Queued("pagerduty:default", rank, "k" * 32, opens=1)
    judged = [Judged(record, Outcome.PENDING, "", "", "", wake_at=0, closed=False, sends=(send,)) for record in records]
    await store.judged(judged, NIGHT)


async def ids(store: AlertStore) -> list[tuple[str, bool]]:
    return sorted((record.id, queued) for record, queued in await store.unsent(1, 100))


async def test_what_waits_first_of_all_is_found_and_what_waits_behind_it_is_not(store: AlertStore) -> None:
    await judge(store, 0, make_alert("critical"))
    await judge(store, 3, make_alert("warning"))
    assert await ids(store) == [("alertmanager:critical", True)]


async def test_what_is_in_flight_and_what_is_tried_again_later_is_found_too(store: AlertStore) -> None:
    await judge(store, 0, make_alert("critical"))
    [claim], _ = await store.claim_sends(NIGHT, 10, 0)
    assert await ids(store) == [("alertmanager:critical", False)]
    later = NIGHT + MINUTE
    await store.settle(
        Settlement(claim, Result.AGAIN, Outcome.PENDING, wake_at=later, not_before=later, opens=1), NIGHT
    )
    assert await ids(store) == [("alertmanager:critical", False)]
    await store.accept([make_alert("critical", "resolved")], NIGHT + 1)
    assert await ids(store) == []


# --- who tells of an outage ------------------------------------------------------------------------------------------


async def test_replicas_tell_once_that_it_began_seldom_that_it_goes_on_and_once_that_it_is_over(
    make_store: MakeStore,
) -> None:
    one, other = make_store(), make_store()
    assert await one.tell_of_outage(True, NIGHT) == "began"
    assert await other.tell_of_outage(True, NIGHT + 1) == ""
    assert await other.tell_of_outage(True, NIGHT + TOLD_EVERY_MS - 1) == ""
    assert await other.tell_of_outage(True, NIGHT + TOLD_EVERY_MS) == "continues"
    assert await one.tell_of_outage(True, NIGHT + TOLD_EVERY_MS + 1) == ""
    over = NIGHT + TOLD_EVERY_MS + 1 + OUTAGE_OVER_MS
    assert await other.tell_of_outage(False, over - 1) == "", "another replica has just seen it"
    assert await other.tell_of_outage(False, over) == "over"
    assert await one.tell_of_outage(False, over) == ""
    assert await one.tell_of_outage(True, over + 1) == "began"


async def test_what_could_not_be_told_is_told_again(store: AlertStore) -> None:
    for now in (NIGHT, NIGHT + 5 * SECOND):
        assert await store.tell_of_outage(True, now) == "began"
        await store.outage_untold("began", now)
    assert await store.tell_of_outage(True, NIGHT + 10 * SECOND) == "began"
    over = NIGHT + 10 * SECOND + OUTAGE_OVER_MS
    assert await store.tell_of_outage(False, over) == "over"
    await store.outage_untold("over", over)
    assert await store.tell_of_outage(False, over + OUTAGE_OVER_MS) == "over"


async def test_where_nothing_was_told_nothing_is_over(store: AlertStore) -> None:
    assert await store.tell_of_outage(False, NIGHT) == ""
