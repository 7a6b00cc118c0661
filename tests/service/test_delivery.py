"""From what was heard to what PagerDuty got, on a clock that the test owns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from alertrouter.errors import StoreUnavailable
from alertrouter.record import Outcome
from alertrouter.store.store import Dedup
from tests.alerts import HOUR, MINUTE, SECOND, make_alert
from tests.service.conftest import SEARCH_KEY, Rig
from tests.waiting import until

TRIGGER, RESOLVE = ("trigger", "d"), ("resolve", "d")


async def test_an_alert_pages_and_closes_under_one_key(rig: Rig) -> None:
    await rig.hear(make_alert())
    await rig.settle(MINUTE)
    await rig.hear(make_alert(status="resolved", ended=rig.clock()))
    trigger, resolve = rig.sandbox.events
    assert (trigger.event["event_action"], resolve.event["event_action"]) == ("trigger", "resolve")
    assert trigger.event["dedup_key"] == resolve.event["dedup_key"] == "alertmanager:f00d"
    assert trigger.routing_key == resolve.routing_key
    assert (trigger.result, resolve.result) == ("opened", "resolved")


async def test_the_responder_sees_team_tier_and_runbook(rig: Rig) -> None:
    await rig.hear(make_alert())
    [call] = rig.sandbox.events
    details = call.event["payload"]["custom_details"]
    assert details["team"] == "team-payments"
    assert {"href": "https://runbooks.example.org/payment", "text": "Runbook"} in call.event["links"]


async def test_unchanged_every_five_minutes_pages_once_in_four_hours(rig: Rig) -> None:
    sent_at = []
    for tick in range(60):
        before = len(rig.sandbox.events)
        await rig.hear(make_alert())
        if len(rig.sandbox.events) > before:
            sent_at.append(tick * 5 * MINUTE)
        await rig.settle(5 * MINUTE)
    assert sent_at == [0, 4 * HOUR]


async def test_unchanged_after_the_window_is_forwarded_again(rig: Rig) -> None:
    await rig.hear(make_alert())
    await rig.settle(5 * MINUTE + 16 * SECOND)
    await rig.hear(make_alert())
    assert [call.result for call in rig.sandbox.events] == ["opened", "updated"]


@pytest.mark.parametrize("rig", [Dedup(mode="fixed")], indirect=True)
async def test_fixed_mode_forwards_once_per_window(rig: Rig) -> None:
    for _ in range(11):
        await rig.hear(make_alert())
        await rig.settle(MINUTE)
    assert rig.sent == [TRIGGER] * 3


@pytest.mark.parametrize(
    ("news", "sent"),
    [
        (make_alert(status="resolved", ended=make_alert().episode_at + 1), [TRIGGER, RESOLVE]),
        (make_alert(started=make_alert().episode_at + 1), [TRIGGER, TRIGGER]),
        (make_alert(severity="warning"), [TRIGGER, TRIGGER]),
    ],
    ids=["resolve", "new episode", "severity"],
)
async def test_news_inside_the_window_is_always_forwarded(rig: Rig, news: object, sent: list[tuple[str, str]]) -> None:
    await rig.hear(make_alert())
    await rig.settle(SECOND)
    await rig.hear(news)  # type: ignore[arg-type]
    assert rig.sent == sent


async def test_suppressed_is_on_record_and_judged_afresh(rig: Rig) -> None:
    muted = make_alert(service="payment", env="staging")
    await rig.hear(muted)
    record = await rig.store.record(muted.id)
    assert record is not None and rig.sent == []
    assert (record.outcome, record.rule, record.reason) == (
        Outcome.SUPPRESSED,
        "staging-noise",
        "nobody is paged for staging",
    )
    [entry] = await rig.store.history(10)
    assert (entry["outcome"], entry["rule"]) == ("suppressed", "staging-noise")

    rig.change_rules({"global.yaml": "sets: {start: []}\ncatch_all: {}\n"})
    await rig.settle(SECOND)
    assert rig.sent == [], "nothing was heard yet"
    await rig.hear(muted)
    assert rig.sent == [TRIGGER]


ROUTE_ALL_TO_SEARCH = {"router.yaml": "sets: {start: []}\ncatch_all: {route_to: search-service}\n"}
MUTE_ALL = {
    "global.yaml": """
        sets:
          start:
            - rule: mute-all
              owner: team-sre
              then: {suppress: true, reason: maintenance, expires: 2099-01-01}
        catch_all: {}
    """
}


@pytest.mark.parametrize(
    ("files", "keys"),
    [(ROUTE_ALL_TO_SEARCH, {}), (MUTE_ALL, {}), ({}, {"pagerduty:default": "n" * 32})],
    ids=["rerouted", "muted", "key rotated"],
)
async def test_a_resolve_goes_where_its_trigger_went(rig: Rig, files: dict[str, str], keys: dict[str, str]) -> None:
    await rig.hear(make_alert())
    rig.change_rules(files, **keys)
    await rig.settle(MINUTE)
    await rig.hear(make_alert(status="resolved", ended=rig.clock()))
    assert rig.sent == [TRIGGER, RESOLVE]


async def test_a_new_episode_uses_the_key_of_its_own_time(rig: Rig) -> None:
    await rig.hear(make_alert())
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    rig.change_rules({}, **{"pagerduty:default": "n" * 32})
    await rig.hear(make_alert(started=rig.clock.advance(MINUTE)))
    assert rig.sent == [TRIGGER, RESOLVE, ("trigger", "n")]


async def test_a_service_with_its_own_key_is_paged_there(rig: Rig) -> None:
    await rig.hear(make_alert(service="search"))
    assert [call.routing_key for call in rig.sandbox.events] == [SEARCH_KEY]


async def test_an_outage_costs_at_most_one_resolve_and_one_trigger(rig: Rig) -> None:
    await rig.hear(make_alert())
    rig.sandbox.fail(500, times=1000)
    for flap in range(50):
        await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(SECOND)))
        await rig.hear(make_alert(started=rig.clock.advance(SECOND + flap)))
    rig.sandbox.heal()
    await rig.settle(2 * MINUTE)
    assert rig.sent == [TRIGGER, RESOLVE, TRIGGER]
    assert [call.result for call in rig.sandbox.events] == ["opened", "resolved", "opened"]


async def test_what_fired_and_resolved_unseen_is_recorded_not_paged(rig: Rig) -> None:
    await rig.store.accept([make_alert()], rig.clock())
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(SECOND)))
    record = await rig.store.record(make_alert().id)
    assert record is not None and record.outcome is Outcome.RESOLVED_BEFORE_DELIVERY
    assert rig.sandbox.calls == []


async def test_a_resolve_of_the_unknown_is_forwarded(rig: Rig) -> None:
    await rig.hear(make_alert(status="resolved", ended=rig.clock()))
    assert rig.sent == [RESOLVE]


async def test_a_5xx_is_tried_again_and_the_retry_after_honoured(rig: Rig) -> None:
    rig.sandbox.fail(503, retry_after=120)
    await rig.hear(make_alert())
    await rig.settle(119 * SECOND)
    assert rig.sent == []
    await rig.settle(SECOND)
    assert rig.sent == [TRIGGER]


async def test_a_400_is_a_dead_letter_with_pagerdutys_words_and_no_duplicate(rig: Rig) -> None:
    rig.sandbox.fail(
        400, times=3, body={"status": "invalid event", "message": "Event object is invalid", "errors": ["no"]}
    )
    await rig.hear(make_alert())
    record = await rig.store.record(make_alert().id)
    assert record is not None and record.outcome is Outcome.DEAD_LETTERED
    assert (await rig.store.backlog(rig.clock()))["dead_letters"] == 1
    assert "Event object is invalid" in (await rig.store.history(1))[0]["reason"]
    await rig.settle(HOUR)
    assert rig.sent == [], "the same bytes are not tried again"
    await rig.hear(make_alert())
    assert rig.sent == [TRIGGER], "heard again is judged afresh"


async def test_an_answer_lost_after_processing_is_repaired(rig: Rig) -> None:
    rig.sandbox.fail(504)
    await rig.hear(make_alert())
    await rig.settle(MINUTE)
    assert rig.sent == [TRIGGER]
    await rig.settle(MINUTE)
    assert rig.sent == [TRIGGER, TRIGGER], "what the lost attempt may still do is overwritten"
    await rig.settle(HOUR)
    assert len(rig.sent) == 2


async def test_a_late_copy_waits_for_its_own_resolve(rig: Rig) -> None:
    await rig.hear(make_alert())
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    await rig.hear(make_alert())
    await rig.settle(29 * SECOND)
    assert rig.sent == [TRIGGER, RESOLVE]
    await rig.settle(SECOND)
    assert rig.sent == [TRIGGER, RESOLVE, TRIGGER]


async def test_a_fault_of_ours_pages_rather_than_loses_the_page(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("alertrouter.delivery.judging.evaluate", broken)
    monkeypatch.setattr("alertrouter.delivery.judging.enrich", broken)
    await rig.hear(make_alert(service="search"))
    assert rig.sent == [TRIGGER], "through the default key, as it was received"


async def test_a_refused_key_is_not_where_the_next_page_goes(rig: Rig) -> None:
    """The key of an open incident was deleted at PagerDuty: its resolve is lost, the next episode must page."""
    await rig.hear(make_alert())
    rig.sandbox.fail(400, times=10, routing_key="d" * 32)
    rig.change_rules({}, **{"pagerduty:default": "n" * 32})
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    await rig.hear(make_alert(started=rig.clock.advance(MINUTE)))
    assert rig.sent == [TRIGGER, ("trigger", "n")]


async def test_a_resolve_follows_an_attempt_that_may_have_opened(rig: Rig) -> None:
    """A 504 may have opened it; the 403 of a proxy after that does not undo it."""
    rig.sandbox.fail(504)
    rig.sandbox.fail(403)
    await rig.hear(make_alert())
    await rig.settle(MINUTE)
    await rig.hear(make_alert(status="resolved", ended=rig.clock()))
    about_it = [call for call in rig.sandbox.events if call.event["dedup_key"] == make_alert().dedup_key]
    assert [call.event["event_action"] for call in about_it] == ["resolve"]


async def test_a_repair_that_fails_does_not_undo_the_delivery(rig: Rig) -> None:
    rig.sandbox.fail(504)
    await rig.hear(make_alert())
    await rig.settle(MINUTE)
    rig.sandbox.fail(503)
    await rig.settle(MINUTE)
    await rig.settle(MINUTE)
    outcomes = [entry["outcome"] for entry in await rig.store.history(10)]
    assert outcomes == ["delivered"]
    assert rig.sent == [TRIGGER, TRIGGER]


async def test_what_waited_goes_to_the_key_in_force_when_it_leaves(rig: Rig) -> None:
    await rig.store.accept([make_alert()], rig.clock())
    await rig.worker._judge_due()
    rig.change_rules({}, **{"pagerduty:default": "n" * 32})
    await rig.settle()
    assert rig.sent == [("trigger", "n")]


async def test_redis_away_for_a_threshold_is_not_an_unsure_attempt(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    flood = "sets: {start: [{rule: f, when: trigger_count over 5 minutes > 0, then: {annotate: x}}]}\ncatch_all: {}\n"
    rig.change_rules({"global.yaml": flood})
    await rig.store.accept([make_alert()], rig.clock())
    await rig.worker._judge_due()

    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(rig.store, "count", away)
        await rig.worker._begin_sends()
        await asyncio.gather(*rig.worker._in_flight)
    await rig.settle()
    record = await rig.store.record(make_alert().id)
    assert record is not None and rig.sent == [TRIGGER]
    assert record.told_of("pagerduty:default").unsure == 0


async def test_a_fault_in_one_step_stops_neither_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    judged, failures = rig.store.judged, iter(range(2))

    async def faulty(batch: Any, now: int) -> None:
        for _ in failures:
            raise ZeroDivisionError
        await judged(batch, now)

    monkeypatch.setattr(rig.store, "judged", faulty)
    running = asyncio.create_task(rig.worker.run())
    await rig.store.accept([make_alert()], rig.clock())
    rig.worker.wake()

    def pass_time() -> bool:
        rig.clock.advance(SECOND)
        return rig.sent == [TRIGGER]

    await until(pass_time)
    rig.worker.stop(1)
    await running


async def test_a_repair_goes_where_what_it_repairs_went(rig: Rig) -> None:
    """The late trigger of a lost answer opens with the old key: only a resolve there closes it."""
    rig.sandbox.fail(504)
    await rig.hear(make_alert())
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(SECOND)))
    assert rig.sent == [RESOLVE]
    rig.change_rules({}, **{"pagerduty:default": "n" * 32})
    await rig.settle(2 * MINUTE)
    assert rig.sent == [RESOLVE, RESOLVE]


ACKNOWLEDGE = ("acknowledge", "d")


async def test_an_acknowledged_alert_stays_one_incident(rig: Rig) -> None:
    await rig.hear(make_alert())
    await rig.hear(make_alert(status="acknowledged"))
    await rig.settle(MINUTE)
    assert [str(word) for word in await rig.hear(make_alert())] == ["duplicate"]
    await rig.hear(make_alert(status="resolved", ended=rig.clock()))
    assert rig.sent == [TRIGGER, ACKNOWLEDGE, RESOLVE]


async def test_an_acknowledgement_overtakes_no_trigger(rig: Rig) -> None:
    await rig.store.accept([make_alert()], rig.clock())
    await rig.hear(make_alert(status="acknowledged"))
    assert rig.sent == [TRIGGER, ACKNOWLEDGE]


async def test_an_acknowledgement_of_nothing_is_passed_on_and_opens_nothing(rig: Rig) -> None:
    await rig.hear(make_alert(status="acknowledged", episode=""))
    assert rig.sent == [ACKNOWLEDGE]
    assert rig.sandbox.events[0].result == "dropped"
    await rig.hear(make_alert())
    assert rig.sent == [ACKNOWLEDGE, TRIGGER]


async def test_a_late_acknowledgement_does_not_open_what_was_resolved(rig: Rig) -> None:
    await rig.hear(make_alert())
    await rig.hear(make_alert(status="resolved", ended=rig.clock()))
    await rig.hear(make_alert(status="acknowledged"))
    await rig.settle(HOUR)
    assert [call.result for call in rig.sandbox.events] == ["opened", "resolved", "dropped"]


async def test_a_short_alert_pages_where_that_is_asked_for(rig: Rig) -> None:
    rig.worker._page_short = True
    await rig.store.accept([make_alert()], rig.clock())
    await rig.hear(make_alert(status="resolved", ended=rig.clock() + SECOND))
    assert rig.sent == [TRIGGER, RESOLVE]
    await rig.settle(HOUR)
    assert rig.sent == [TRIGGER, RESOLVE]
