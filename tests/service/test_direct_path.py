"""Without Redis: what cannot wait is sent inside the request, and Redis is told of it when it is back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec import structs

from alertrouter.alert import Alert, Status
from alertrouter.delivery import fallback
from alertrouter.delivery.fallback import Breaker, Direct, DirectPath, _Slots
from alertrouter.delivery.journal import Journal
from alertrouter.destinations.pagerduty import PagerDutyClient
from alertrouter.errors import StoreUnavailable
from alertrouter.record import Outcome, State
from alertrouter.sources.pagerduty import parse as parse_event
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.service.conftest import DEFAULT_KEY, SEARCH_KEY, Rig

NEW_KEY = "n" * 32


@dataclass
class Outage:
    """The direct path beside a rig whose Redis nobody asks until it is `over`."""

    rig: Rig
    path: DirectPath
    journal: Journal

    async def hear(self, *alerts: Alert) -> list[Direct]:
        return await self.path.accept(alerts)

    async def over(self) -> None:
        await self.path.replay(self.rig.store)
        await self.rig.worker.run_until_idle()

    def open(self) -> set[tuple[str, str]]:
        """What PagerDuty has open: (first character of the key, dedup_key)."""
        return {(key[0], dedup_key) for key, dedup_key in self.rig.sandbox._api.alerts}


@pytest.fixture
async def outage(rig: Rig, tmp_path: Path) -> AsyncIterator[Outage]:
    pagerduty = PagerDutyClient(rig.sandbox.url)
    journal = Journal(tmp_path / "journal", "me")
    yield Outage(rig, DirectPath(pagerduty, lambda: rig.active, rig.clock, journal), journal)
    await pagerduty.close()


def resolved(**fields: str) -> Alert:
    return make_alert(status="resolved", ended=NIGHT + HOUR, **fields)  # type: ignore[arg-type]


async def test_fired_and_resolved_within_the_outage(outage: Outage) -> None:
    assert await outage.hear(make_alert()) == [Direct.SENT]
    assert outage.open() == {("d", "alertmanager:f00d")}
    assert await outage.hear(resolved()) == [Direct.SENT]
    assert outage.open() == set()
    await outage.over()
    await outage.rig.settle(2 * MINUTE)
    record = await outage.rig.store.record("alertmanager:f00d")
    assert record is not None and record.outcome is Outcome.DELIVERED
    assert outage.open() == set(), "the repair does not open it again"
    assert outage.journal.size == 0


async def test_redis_knows_what_was_opened_without_it(outage: Outage) -> None:
    """The key is another one by the time it resolves."""
    await outage.hear(make_alert())
    await outage.over()
    outage.rig.change_rules({}, **{"pagerduty:default": NEW_KEY})
    assert [str(word) for word in await outage.rig.hear(make_alert())] == ["duplicate"]
    await outage.rig.hear(resolved())
    assert outage.rig.sent == [("trigger", "d"), ("resolve", "d")]
    assert outage.open() == set()


async def test_each_send_of_the_outage_is_repaired(outage: Outage) -> None:
    await outage.hear(make_alert())
    await outage.over()
    await outage.rig.settle(89 * SECOND)
    assert outage.rig.sent == [("trigger", "d")]
    await outage.rig.settle(2 * SECOND)
    assert outage.rig.sent == [("trigger", "d"), ("trigger", "d")]


async def test_what_is_open_under_another_key_is_closed_there(outage: Outage) -> None:
    """Paged by Redis' record, rerouted by a change of the rules, resolved while Redis was away."""
    await outage.rig.hear(make_alert())
    outage.rig.change_rules({"router.yaml": "sets: {start: []}\ncatch_all: {route_to: search-service}\n"})
    await outage.hear(resolved())
    assert outage.open() == {("d", "alertmanager:f00d")}, "nobody but Redis knows the key"
    await outage.over()
    assert outage.open() == set()


async def test_open_under_two_keys_both_are_closed(outage: Outage) -> None:
    await outage.rig.hear(make_alert())
    outage.rig.change_rules({}, **{"pagerduty:default": NEW_KEY})
    outage.rig.clock.advance(SECOND)
    await outage.hear(make_alert(severity="error"))
    assert {key for key, _ in outage.open()} == {"d", "n"}
    await outage.over()
    outage.rig.clock.advance(SECOND)
    await outage.rig.hear(resolved(severity="error"))
    assert outage.open() == set()
    await outage.rig.settle(HOUR)
    assert outage.open() == set()


async def test_what_waits_well_is_put_off_and_what_went_through_is_not_repeated(outage: Outage) -> None:
    body = [make_alert("a"), make_alert("b", severity="warning"), make_alert("c", severity="error")]
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="1 of 3 alerts wait"):
            await outage.hear(*body)
    assert sorted(call.event["dedup_key"][-1] for call in outage.rig.sandbox.calls) == ["a", "c"]
    outage.rig.clock.advance(10 * MINUTE)
    with pytest.raises(StoreUnavailable):
        await outage.hear(*body)
    assert len(outage.rig.sandbox.calls) == 4, "but only so long"


@pytest.mark.parametrize("verb", ["suppress", "drop"])
async def test_what_rules_keep_is_kept_and_on_record(outage: Outage, verb: str) -> None:
    outage.rig.change_rules(
        {
            "global.yaml": f"""
                sets:
                  start:
                    - rule: quiet
                      owner: team-sre
                      then: {{{verb}: true, reason: known, expires: 2099-01-01}}
            """
        }
    )
    [word] = await outage.hear(make_alert())
    assert word.value == {"suppress": "suppressed", "drop": "dropped"}[verb]
    await outage.over()
    record = await outage.rig.store.record("alertmanager:f00d")
    assert record is not None and record.outcome.value == word.value
    assert outage.rig.sent == []


@pytest.mark.parametrize("condition", ["> 3", "< 3"])
async def test_a_suppression_that_hangs_on_a_count_does_not_apply(outage: Outage, condition: str) -> None:
    outage.rig.change_rules(
        {
            "global.yaml": f"""
                sets:
                  start:
                    - rule: counted
                      owner: team-sre
                      when: trigger_count over 5 minutes {condition}
                      then: {{suppress: true, reason: noise, expires: 2099-01-01}}
            """
        }
    )
    assert await outage.hear(make_alert()) == [Direct.SENT]


async def test_suspension_is_left_out(outage: Outage) -> None:
    outage.rig.change_rules({"global.yaml": "sets: {start: [{rule: wait, then: {suspend: 5m}}]}\ncatch_all: {}\n"})
    assert await outage.hear(make_alert()) == [Direct.SENT]


async def test_the_severity_that_rules_give_decides(outage: Outage) -> None:
    outage.rig.change_rules({"global.yaml": "sets: {start: [{rule: up, then: {severity: critical}}]}\ncatch_all: {}\n"})
    assert await outage.hear(make_alert(severity="info")) == [Direct.SENT]


async def test_what_pagerduty_does_not_take_is_not_accepted(outage: Outage) -> None:
    outage.rig.sandbox.fail(429, retry_after=30)
    with pytest.raises(StoreUnavailable):
        await outage.hear(make_alert())
    await outage.over()
    assert await outage.rig.store.record("alertmanager:f00d") is None, "its sender was asked to repeat it"
    assert await outage.hear(make_alert()) == [Direct.SENT]


async def test_a_failure_that_passes_is_waited_out(outage: Outage) -> None:
    outage.rig.sandbox.fail(500, times=2)
    assert await outage.hear(make_alert()) == [Direct.SENT]


async def test_an_answer_that_never_came_is_made_good(outage: Outage, monkeypatch: pytest.MonkeyPatch) -> None:
    """PagerDuty opens it after we gave up; the sender hears 503, and forgets it because it is over."""
    monkeypatch.setattr(fallback, "_BUDGET_S", 0.2)
    outage.rig.sandbox.fail(202, delay_ms=400)
    with pytest.raises(StoreUnavailable, match="within"):
        await outage.hear(make_alert())
    await outage.rig.sandbox.wait_for(lambda events: len(events) == 1)
    await outage.over()
    await outage.rig.hear(resolved())
    assert outage.open() == set()


async def test_a_refused_key_gives_way_to_the_fallback(outage: Outage) -> None:
    outage.rig.sandbox.fail(400, routing_key=SEARCH_KEY, body={"message": "x", "errors": ["'routing_key' is invalid"]})
    assert await outage.hear(make_alert(service="search")) == [Direct.SENT]
    await outage.over()
    await outage.rig.hear(resolved(service="search"))
    assert outage.rig.sent == [("trigger", DEFAULT_KEY[0]), ("resolve", DEFAULT_KEY[0])]


async def test_refused_content_is_sent_in_a_smaller_form(outage: Outage) -> None:
    outage.rig.sandbox.fail(400, times=2)
    assert await outage.hear(make_alert()) == [Direct.SENT]
    assert not outage.rig.sandbox.events[0].event["payload"].get("custom_details")


async def test_without_a_journal_pages_go_out_and_resolves_are_asked_for_again(outage: Outage) -> None:
    broken = outage.journal._path.parent
    broken.write_text("no directory")
    assert await outage.hear(make_alert()) == [Direct.SENT]
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await outage.hear(resolved())
    assert outage.open() == set(), "sent all the same"
    assert "File exists" in outage.path.journal_problem
    broken.unlink()
    assert await outage.hear(resolved()) == [Direct.SENT]
    assert outage.path.journal_problem == ""


async def test_what_redis_heard_since_stands(outage: Outage) -> None:
    """Another replica still had Redis: it heard the resolve that we did not."""
    await outage.hear(make_alert())
    outage.rig.clock.advance(SECOND)
    await outage.rig.hear(resolved())
    await outage.over()
    record = await outage.rig.store.record("alertmanager:f00d")
    assert record is not None and record.status.value == "resolved"
    await outage.rig.settle(2 * MINUTE)
    assert outage.open() == set()


async def test_a_resolve_that_redis_took_for_a_duplicate_stands(outage: Outage) -> None:
    """It fired again past Redis, and resolved by way of Redis before that had been told."""
    await outage.rig.hear(make_alert())
    await outage.rig.hear(resolved())
    again = NIGHT + HOUR + MINUTE
    outage.rig.clock.now = again
    await outage.hear(make_alert(started=again))
    outage.rig.clock.advance(SECOND)
    over = make_alert(status="resolved", started=again, ended=outage.rig.clock())
    assert [str(word) for word in await outage.rig.hear(over)] == ["duplicate"]
    await outage.over()
    assert outage.open() == set()
    await outage.rig.settle(HOUR)
    assert outage.open() == set()


async def test_what_came_back_without_redis_pages_again(outage: Outage) -> None:
    """Its resolve was heard and not sent; past Redis the new trigger only added to the page that was open."""
    await outage.rig.hear(make_alert())
    outage.rig.clock.advance(MINUTE)
    await outage.rig.store.accept([make_alert(status="resolved", ended=outage.rig.clock())], outage.rig.clock())
    outage.rig.clock.advance(MINUTE)
    await outage.hear(make_alert(started=outage.rig.clock()))
    assert outage.rig.sandbox.events[-1].result == "updated"
    await outage.over()
    assert [call.result for call in outage.rig.sandbox.events] == ["opened", "updated", "resolved", "opened"]


async def test_replaying_twice_changes_nothing(outage: Outage) -> None:
    await outage.hear(make_alert())
    [entry] = outage.journal.read()
    await outage.over()
    before = await outage.rig.store.record("alertmanager:f00d")
    await outage.path._adopt([entry], outage.rig.store)
    await outage.rig.worker.run_until_idle()
    after = await outage.rig.store.record("alertmanager:f00d")
    assert before is not None and after is not None
    assert (after.version, after.status, after.told[0].state) == (before.version, before.status, State.TRIGGERED)
    assert outage.rig.sent == [("trigger", "d")]


async def test_a_late_copy_of_what_was_just_resolved_does_not_page(outage: Outage) -> None:
    await outage.hear(make_alert())
    await outage.hear(resolved())
    with pytest.raises(StoreUnavailable):
        await outage.hear(make_alert())
    outage.rig.clock.advance(31 * SECOND)
    assert await outage.hear(make_alert()) == [Direct.SENT]


async def test_one_alert_at_a_time_in_the_order_it_was_heard(outage: Outage) -> None:
    outage.rig.sandbox.fail(202, delay_ms=100)
    first = asyncio.create_task(outage.hear(make_alert()))
    await asyncio.sleep(0)
    await outage.hear(resolved())
    await first
    assert [call.result for call in outage.rig.sandbox.calls] == ["opened", "resolved"]


async def test_what_a_dead_process_sent_is_told_by_the_next(outage: Outage, tmp_path: Path) -> None:
    await outage.hear(make_alert())
    outage.journal.close()
    next_path = DirectPath(
        outage.path._pagerduty, lambda: outage.rig.active, outage.rig.clock, Journal(tmp_path / "journal", "next")
    )
    await next_path.replay(outage.rig.store)
    await outage.rig.worker.run_until_idle()
    await outage.rig.hear(resolved())
    assert outage.open() == set()


async def test_a_shared_incident_is_not_closed_for_the_others(outage: Outage) -> None:
    outage.rig.change_rules({"global.yaml": "sets: {start: [{rule: one, then: {dedup_key: shared}}]}\ncatch_all: {}\n"})
    await outage.hear(make_alert("a"), make_alert("b"))
    assert await outage.hear(resolved(fingerprint="a")) == [Direct.KEPT]
    assert outage.open() == {("d", "shared")}
    await outage.over()
    assert outage.open() == {("d", "shared")}, "b is still firing"
    await outage.rig.hear(resolved(fingerprint="b"))
    await outage.rig.settle(HOUR)
    assert outage.open() == set()


async def test_the_worst_goes_first() -> None:
    slots, order = _Slots(1), list[int]()

    async def take(rank: int) -> None:
        async with slots.taken(rank):
            order.append(rank)
            await asyncio.sleep(0)

    await asyncio.gather(*(take(rank) for rank in (4, 3, 0, 2, 1, 0)))
    assert order == [4, 0, 0, 1, 2, 3]


async def test_who_gives_up_waiting_keeps_no_slot() -> None:
    slots = _Slots(1)
    async with slots.taken(0):
        waiting = asyncio.create_task(slots.taken(0).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(1), slots.taken(0):
        pass


def test_the_breaker_opens_at_the_third_failure_within_five_seconds() -> None:
    breaker = Breaker()

    def open_after(*failures: int) -> bool:
        for at in failures:
            breaker.failed(at)
        return breaker.is_open

    assert not open_after(0, 5_000, 5_001)
    assert open_after(5_002)
    breaker.close()
    assert not open_after(5_003, 5_004)
    breaker.succeeded()
    assert not open_after(5_005, 5_006), "in a row"


# --- Events API v2 events --------------------------------------------------------------------------------------------


def event(action: str = "trigger", source: str = "pagerduty", text: str = "Disk low", **details: str) -> Alert:
    """An event as it comes in; only a trigger says anything."""
    payload = {"summary": text, "source": "db-1", "severity": "critical", "custom_details": details}
    body = {"event_action": action, "dedup_key": "17", "payload": payload if action == "trigger" else None}
    [alert] = parse_event(json.dumps(body).encode(), source, new_key=str).alerts
    return alert


def knows_integrations(rig: Rig) -> None:
    """The two keys of the rig may post events."""
    known = {DEFAULT_KEY: "pagerduty", SEARCH_KEY: "pagerduty/search-service"}
    digests = tuple((sha256(key.encode()).digest(), source) for key, source in known.items())
    rig.active = replace(rig.active, integrations=digests)


async def test_an_event_goes_by_its_own_key_and_text(outage: Outage) -> None:
    knows_integrations(outage.rig)
    assert await outage.hear(event()) == [Direct.SENT]
    assert await outage.hear(event()) == [Direct.DUPLICATE]
    assert await outage.hear(event(text="Disk full")) == [Direct.SENT], "another text is news"
    assert await outage.hear(event("acknowledge"), event(source="pagerduty/search-service")) == [Direct.SENT] * 2
    assert outage.open() == {("d", "17"), ("5", "17")}
    assert await outage.hear(event("resolve")) == [Direct.SENT]
    assert outage.open() == {("5", "17")}
    await outage.over()
    assert outage.open() == {("5", "17")}


async def test_what_goes_out_by_anothers_key_is_told_apart(outage: Outage) -> None:
    """Without Redis nobody knows whether that integration has an alert of the same key."""
    knows_integrations(outage.rig)
    await outage.hear(event(service="search"), event(source="pagerduty/search-service"))
    assert outage.open() == {("5", "pagerduty:17"), ("5", "17")}
    await outage.hear(event("resolve"))
    assert outage.open() == {("5", "17")}, "a resolve that says nothing goes where its trigger went"
    await outage.over()
    await outage.rig.settle(2 * MINUTE)
    assert outage.open() == {("5", "17")}


async def test_what_redis_opened_is_closed_under_the_key_it_was_opened_with(outage: Outage) -> None:
    knows_integrations(outage.rig)
    await outage.rig.hear(event(service="search"))
    assert outage.open() == {("5", "17")}
    alert = event(service="search")
    await outage.hear(structs.replace(alert, status=Status.RESOLVED))
    assert outage.open() == {("5", "17")}, "the direct path cannot know that key"
    await outage.over()
    assert outage.open() == set()
    await outage.rig.settle(2 * MINUTE)
    assert outage.open() == set()
