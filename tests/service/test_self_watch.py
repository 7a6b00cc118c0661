"""We watch ourselves: senders that are refused, and alerts that are accepted and not judged."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from alertrouter.alarms import CANARY, alarm
from alertrouter.alert import Alert
from alertrouter.delivery import canary as canary_module
from alertrouter.delivery.canary import Canary
from alertrouter.delivery.dead_letters import Unreadable
from alertrouter.delivery.fallback import DirectPath
from alertrouter.delivery.journal import Journal
from alertrouter.delivery.senders import Senders
from alertrouter.destinations.pagerduty import PagerDutyClient
from alertrouter.record import Outcome, Record
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings, load_settings
from alertrouter.store.store import AlertStore
from tests.alerts import MINUTE, SECOND
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import Client, Rig, serving
from tests.waiting import until

SELF_KEY = "e" * 32
GOOD = {"X-Alertrouter-Token": "good"}
BAD = {"X-Alertrouter-Token": "old"}
BODY = alertmanager_body(alertmanager_alert())


@pytest.fixture
async def guarded(settings: Settings, sandbox: Sandbox, rules: Path, tmp_path: Path) -> AsyncIterator[Client]:
    """A service that asks for a token, and has a routing key for its own alarms."""
    told = {
        "listen": "127.0.0.1:0",
        "data_dir": tmp_path / "data",
        "rules": rules,
        "pagerduty_events_url": sandbox.url,
        "pagerduty_routing_key": "d" * 32,
        "pagerduty_self_routing_key": SELF_KEY,
        "pagerduty_calls_per_minute": 0,
        "webhook_tokens": "good",
    }
    async with serving(load_settings({}, told)) as client:
        yield client


def about(sandbox: Sandbox, sender: str) -> list[str]:
    """What PagerDuty was told of the refusal of a sender."""
    return [
        str(call.event["event_action"])
        for call in sandbox.events
        if call.event["dedup_key"] == f"alertrouter:sender-refused:{sender}" and call.routing_key == SELF_KEY
    ]


# --- refused senders -------------------------------------------------------------------------------------------------


async def hear_of(guarded: Client, sender: str) -> None:
    """Take a webhook of the sender, without an alert in it: anybody can be refused, and it counts for who was heard."""
    assert (await guarded.post(f"/webhooks/{sender}", alertmanager_body(), GOOD))[0] == 202
    heard = guarded.service._time_of_day()
    await until(
        lambda: guarded.service._time_of_day() > heard + 1
    )  # in the same millisecond it would be no later refusal


async def test_three_refusals_page_and_one_webhook_that_is_taken_ends_it(guarded: Client, sandbox: Sandbox) -> None:
    await hear_of(guarded, "alertmanager")
    for _ in range(3):
        assert (await guarded.post("/webhooks/alertmanager", BODY, BAD))[0] == 401
    await until(lambda: about(sandbox, "alertmanager") == ["trigger"], within_s=10)
    _, ready = await guarded.get("/-/ready")
    assert "the webhooks of alertmanager are refused (401: missing or wrong token)" in json.loads(ready)["warnings"][-1]
    assert (await guarded.post("/webhooks/alertmanager", BODY, GOOD))[0] == 202
    await until(lambda: about(sandbox, "alertmanager") == ["trigger", "resolve"], within_s=10)
    assert "refused" not in (await guarded.get("/-/ready"))[1]


@pytest.mark.parametrize("body", [b"{", alertmanager_body("no alert")])
async def test_payloads_that_are_not_understood_count_too(guarded: Client, sandbox: Sandbox, body: bytes) -> None:
    for _ in range(3):
        assert (await guarded.post("/webhooks/alertmanager/shop", body, GOOD))[0] == 400
    await until(lambda: about(sandbox, "alertmanager/shop") == ["trigger"], within_s=10)


OVERSIZED = {
    "large": (b" " * (16 * 1024 * 1024 + 1), {}),
    "large inside": (gzip.compress(b" " * (16 * 1024 * 1024 + 1)), {"Content-Encoding": "gzip"}),
    "too many alerts": (b'{"alerts":[' + b"1," * 10_000 + b"1]}", {}),
}


@pytest.mark.parametrize(("body", "headers"), OVERSIZED.values(), ids=OVERSIZED.keys())
async def test_an_oversized_webhook_pages_at_once_and_once(
    guarded: Client, sandbox: Sandbox, body: bytes, headers: dict[str, str]
) -> None:
    for _ in range(4):
        assert (await guarded.post("/webhooks/alertmanager/shop", body, {**GOOD, **headers}))[0] == 413
    [call] = await sandbox.wait_for(lambda events: len(events) == 1)
    assert call.routing_key == SELF_KEY
    assert call.event["dedup_key"] == "alertrouter:oversized:alertmanager/shop"
    assert call.event["payload"]["summary"].startswith("alertrouter: oversized webhook from alertmanager/shop: ")
    # what is told after it is told when it is: nothing was told twice, and not as refused, too
    await hear_of(guarded, "alertmanager")
    for _ in range(3):
        await guarded.post("/webhooks/alertmanager", BODY, BAD)
    await until(lambda: about(sandbox, "alertmanager") == ["trigger"], within_s=10)
    assert len(sandbox.calls) == 2


async def test_who_is_not_known_tells_of_no_oversized_webhook(guarded: Client, sandbox: Sandbox) -> None:
    body, _ = OVERSIZED["large"]
    await hear_of(guarded, "alertmanager")
    for _ in range(3):
        assert (await guarded.post("/webhooks/alertmanager", body, BAD))[0] == 401
    await until(lambda: about(sandbox, "alertmanager") == ["trigger"], within_s=10)
    assert [call.event["dedup_key"] for call in sandbox.calls] == ["alertrouter:sender-refused:alertmanager"]


async def test_the_page_about_oversized_webhooks_ends_when_they_do(rig: Rig) -> None:
    async def accept(alerts: Sequence[Alert]) -> Sequence[StrEnum]:
        return await rig.store.accept(alerts, rig.clock())

    unreadable = Unreadable(rig.store, accept, rig.clock)
    for minutes in (0, 10, 10, 10):  # told of at 0 and at 20 minutes
        await rig.settle(minutes * MINUTE)
        await unreadable.oversized("alertmanager", "the body is over 7 bytes")
        await unreadable.look_back()
        await rig.settle()
    assert [action for action, _ in rig.sent] == ["trigger", "trigger"]
    await rig.settle(51 * MINUTE)
    await unreadable.look_back()
    await rig.settle()
    assert [action for action, _ in rig.sent] == ["trigger", "trigger", "resolve"]


async def test_two_refusals_and_names_that_anybody_may_make_up_page_nobody(guarded: Client, sandbox: Sandbox) -> None:
    assert (await guarded.post("/webhooks/datadog/known", b"{}", GOOD))[0] == 400
    await hear_of(guarded, "alertmanager/shop")
    await hear_of(guarded, "alertmanager")
    for path in (
        *["alertmanager/shop"] * 2,
        *["datadog"] * 5,
        *["datadog/made-up"] * 5,
        *["nagios"] * 5,
        *["datadog/B%20D"] * 5,
    ):
        assert (await guarded.post(f"/webhooks/{path}", BODY, BAD))[0] == 401
    # what is told after them is told when they are
    for _ in range(3):
        await guarded.post("/webhooks/alertmanager", BODY, BAD)
    await until(lambda: about(sandbox, "alertmanager") == ["trigger"], within_s=10)
    keys = [call.event["dedup_key"] for call in sandbox.events]
    assert keys == ["alertrouter:not-understood:datadog/known", "alertrouter:sender-refused:alertmanager"]


async def test_a_named_sender_is_known_once_it_was_taken(guarded: Client, sandbox: Sandbox) -> None:
    assert (await guarded.post("/webhooks/alertmanager/shop", BODY, GOOD))[0] == 202
    for _ in range(3):
        assert (await guarded.post("/webhooks/alertmanager/shop", BODY, BAD))[0] == 401
    await until(lambda: about(sandbox, "alertmanager/shop") == ["trigger"], within_s=10)


async def test_replicas_count_together_and_any_of_them_ends_it(rig: Rig) -> None:
    replicas = [Senders(rig.store, rig.clock, lambda: None) for _ in range(3)]

    async def look() -> None:
        rig.clock.advance(2 * SECOND)
        for replica in replicas:
            await replica.look()
        await rig.worker.run_until_idle()

    for replica in replicas:
        replica.refused("alertmanager", "401", known=True)
    await look()
    assert [action for action, _ in rig.sent] == ["trigger"]
    rig.clock.advance(SECOND)
    replicas[1].taken("alertmanager")
    await look()
    assert [action for action, _ in rig.sent] == ["trigger", "resolve"]
    assert replicas[1].warnings() == []


async def test_a_name_that_one_replica_took_is_known_to_all(rig: Rig) -> None:
    one, other = (Senders(rig.store, rig.clock, lambda: None) for _ in range(2))
    one.taken("alertmanager/shop")
    await one.look()
    for _ in range(3):
        rig.clock.advance(SECOND)
        other.refused("alertmanager/shop", "401", known=False)
    rig.clock.advance(2 * SECOND)
    await other.look()
    await rig.worker.run_until_idle()
    assert [action for action, _ in rig.sent] == ["trigger"]


async def test_who_shows_the_token_only_when_asked_is_not_refused(rig: Rig) -> None:
    """Each webhook is answered 401 first, and comes again with its password at once: so does SNS's."""
    senders = Senders(rig.store, rig.clock, lambda: None)
    for _ in range(5):
        for _ in range(3):
            senders.refused("cloudwatch", "401", known=True)
        await senders.look()
        rig.clock.advance(SECOND)
        senders.taken("cloudwatch")
        rig.clock.advance(SECOND)
        await senders.look()
    await rig.worker.run_until_idle()
    assert rig.sent == []


async def test_a_flood_of_refusals_is_told_of_while_it_lasts(rig: Rig) -> None:
    senders = Senders(rig.store, rig.clock, lambda: None)
    for _ in range(3):
        for _ in range(20):
            senders.refused("cloudwatch", "401", known=True)
            rig.clock.advance(SECOND // 10)
        await senders.look()
    await rig.worker.run_until_idle()
    assert [action for action, _ in rig.sent] == ["trigger"]


# --- the canary ------------------------------------------------------------------------------------------------------


@dataclass
class Lost:
    """A canary beside a rig whose worker works when the test says so."""

    canary: Canary
    direct: DirectPath
    rig: Rig

    async def tell_redis(self) -> None:
        """What was sent past Redis is put down in it, as the intake does."""
        await self.direct.replay(self.rig.store)


@pytest.fixture
async def lost(rig: Rig, tmp_path: Path) -> AsyncIterator[Lost]:
    pagerduty = PagerDutyClient(rig.sandbox.url)
    journal = Journal(tmp_path / "journal", "me")
    direct = DirectPath(pagerduty, lambda: rig.active, rig.clock, journal)
    yield Lost(Canary(rig.store, direct, rig.clock, lambda: None), direct, rig)
    await pagerduty.close()
    journal.close()


async def test_a_canary_that_is_judged_is_seen_by_nobody(rig: Rig, lost: Lost) -> None:
    for _ in range(3):
        await lost.canary.send()
        assert not await lost.canary.is_through()
        await rig.settle(SECOND)
        assert await lost.canary.is_through()
        rig.clock.advance(29 * SECOND)
    record = await rig.store.record(CANARY)
    assert record is not None and record.outcome is Outcome.DROPPED and record.version == 3
    assert rig.sent == []
    assert await rig.store.history_entries("-", "+", 10) == []


async def test_a_queue_that_nobody_takes_up_is_said_past_it_and_ends_when_it_moves(rig: Rig, lost: Lost) -> None:
    await lost.canary.send()
    rig.clock.advance(20 * SECOND - 1)
    assert not await lost.canary.is_through()
    assert rig.sent == []
    rig.clock.advance(1)
    assert not await lost.canary.is_through()
    assert not await lost.canary.is_through(), "said once"
    [call] = rig.sandbox.events
    assert call.event["dedup_key"] == "alertrouter:canary-lost"
    await lost.tell_redis()
    await rig.settle()
    assert await lost.canary.is_through()
    await rig.settle()
    assert [action for action, _ in rig.sent] == ["trigger", "resolve"]


async def test_in_a_storm_the_canary_waits_its_turn_but_not_for_ever(rig: Rig, lost: Lost) -> None:
    await lost.canary.send()
    for _ in range(29):
        rig.clock.advance(10 * SECOND)
        lost.canary.judged()
        assert not await lost.canary.is_through()
    assert rig.sent == []
    rig.clock.advance(10 * SECOND)
    lost.canary.judged()
    assert not await lost.canary.is_through()
    assert [action for action, _ in rig.sent] == ["trigger"]


async def test_what_could_not_be_said_is_said_when_pagerduty_is_back(rig: Rig, lost: Lost) -> None:
    rig.sandbox.fail(429, times=1)
    await lost.canary.send()
    rig.clock.advance(20 * SECOND)
    for _ in range(2):
        assert not await lost.canary.is_through()
    assert [action for action, _ in rig.sent] == ["trigger"]


async def test_redis_that_stays_away_is_said_past_it_and_ends_when_it_is_back(rig: Rig, lost: Lost) -> None:
    for now in (0, 20 * SECOND - 1):
        rig.clock.advance(now)
        await lost.canary.cannot_get_in("no connection")
    assert rig.sent == []
    rig.clock.advance(1)
    for _ in range(2):
        await lost.canary.cannot_get_in("no connection")
    [call] = rig.sandbox.events
    assert call.event["dedup_key"] == "alertrouter:redis-away"
    await lost.tell_redis()
    await lost.canary.send()
    await rig.settle()
    assert [action for action, _ in rig.sent] == ["trigger", "resolve"]
    await lost.canary.cannot_get_in("no connection")
    assert len(rig.sent) == 2, "it was back in between"


async def test_what_an_earlier_process_said_is_taken_back(rig: Rig, lost: Lost) -> None:
    await rig.hear(alarm("canary-lost", "stuck"))
    rig.clock.advance(MINUTE)
    await lost.canary.send()
    await rig.settle()
    assert await lost.canary.is_through()
    await rig.settle()
    assert [action for action, _ in rig.sent] == ["trigger", "resolve"]


async def test_a_running_service_raises_the_alarm_when_its_worker_is_stuck_and_ends_it(
    settings: Settings, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary_module, "_EVERY_S", 0.1)
    monkeypatch.setattr(canary_module, "_STUCK_MS", 500)
    stuck = asyncio.Event()
    claim_due = AlertStore.claim_due

    async def claim(store: AlertStore, now: int, most: int) -> tuple[list[Record], int]:
        await stuck.wait()
        return await claim_due(store, now, most)

    monkeypatch.setattr(AlertStore, "claim_due", claim)
    async with serving(settings) as client:
        [call] = await sandbox.wait_for(lambda events: len(events) == 1, timeout_s=10)
        assert call.event["dedup_key"] == "alertrouter:canary-lost"
        assert "alertrouter_canary_lost 1.0" in (await client.get("/metrics"))[1]
        stuck.set()
        await sandbox.wait_for(lambda events: len(events) == 2, timeout_s=10)
        await until(lambda: not client.service.intake.holds_sends())
    assert [call.event["event_action"] for call in sandbox.events] == ["trigger", "resolve"]
