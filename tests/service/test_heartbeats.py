"""Dead-man's switches: who stops sending is paged for, once, and not before it had its time."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import pytest

from alertrouter.alert import Alert
from alertrouter.delivery.heartbeats import Heard, Heartbeats
from alertrouter.errors import StoreUnavailable
from alertrouter.record import News, Source
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from alertrouter.store.connect import connect
from alertrouter.store.store import AlertStore
from tests.alerts import MINUTE, SECOND, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.process import Process
from tests.service.conftest import Rig, serving, write_rules
from tests.waiting import until

CONFIG = {
    "alertrouter.yaml": """
        heartbeats:
          - name: prometheus
            when: event.custom_details.alertname == 'Watchdog'
            interval: 5m
            grace: 1m
            service: search-service
          - {name: datadog, source: datadog, interval: 10m}
    """
}
FAST = {
    "alertrouter.yaml": """
        heartbeats:
          - name: prometheus
            when: event.custom_details.alertname == 'Watchdog'
            interval: 2s
            grace: 1s
            service: search-service
    """
}
STEP = 2 * SECOND
PATH = "/webhooks/alertmanager"
SILENT = "alertrouter:heartbeat:prometheus"


class Replica:
    """A replica of the rig's service: it notes heartbeats, and watches whenever the clock moves."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.heartbeats = Heartbeats(rig.store, lambda: rig.active, rig.clock, lambda: None)

    async def hear(self, *alerts: Alert) -> Sequence[StrEnum]:
        async def accept(others: Sequence[Alert]) -> Sequence[StrEnum]:
            return await self.rig.store.accept(others, self.rig.clock())

        return await self.heartbeats.take(alerts, accept)

    async def look(self) -> None:
        await self.heartbeats.look()
        await self.rig.worker.run_until_idle()


async def watch(ms: int, *replicas: Replica) -> None:
    """Let time go by, with all replicas watching."""
    for _ in range(ms // STEP):
        replicas[0].rig.clock.advance(STEP)
        for replica in replicas:
            await replica.look()


@pytest.fixture
async def replica(rig: Rig) -> Replica:
    """One that begins to watch now."""
    rig.change_rules(CONFIG)
    replica = Replica(rig)
    await replica.look()
    return replica


def watchdog(status: str = "firing") -> Alert:
    return make_alert("watchdog", status, alertname="Watchdog")


def pages(rig: Rig) -> list[tuple[str, str, str]]:
    """What PagerDuty took: (action, first character of the key, dedup_key)."""
    return [
        (str(call.event["event_action"]), call.routing_key[0], str(call.event["dedup_key"]))
        for call in rig.sandbox.events
    ]


async def test_what_comes_in_time_pages_nobody(rig: Rig, replica: Replica) -> None:
    for _ in range(3):
        assert await replica.hear(watchdog()) == [Heard.HEARTBEAT]
        await watch(6 * MINUTE - STEP, replica)
    assert [page for page in pages(rig) if page[2] != "alertrouter:heartbeat:datadog"] == []
    assert await rig.store.record("alertmanager:watchdog") is None


async def test_silence_pages_the_service_once_and_ends_when_it_is_heard(rig: Rig, replica: Replica) -> None:
    await replica.hear(watchdog())
    await watch(6 * MINUTE, replica)
    assert pages(rig) == [("trigger", "5", SILENT)]
    [call] = rig.sandbox.events
    assert call.event["payload"]["severity"] == "critical"
    assert call.event["payload"]["custom_details"]["team"] == "team-discovery"
    assert call.event["payload"]["custom_details"]["last heard"] == "2027-01-10T03:00:00+00:00"
    await watch(20 * MINUTE, replica)
    record = await rig.store.record(SILENT)
    assert record is not None and record.count == 1, "said once, not at every look"
    await replica.hear(watchdog())
    await watch(STEP, replica)
    assert pages(rig)[1:] == [("trigger", "d", "alertrouter:heartbeat:datadog"), ("resolve", "5", SILENT)]
    await watch(6 * MINUTE - STEP, replica)
    assert pages(rig)[3:] == [("trigger", "5", SILENT)], "a second silence is another one"


async def test_a_sender_as_a_whole_is_a_heartbeat_and_its_alerts_page_all_the_same(rig: Rig, replica: Replica) -> None:
    assert await replica.hear(make_alert(source="datadog")) == [News.NEW]
    await watch(8 * MINUTE, replica)
    await replica.hear(make_alert("f00d", "resolved", source="datadog"))
    await watch(3 * MINUTE, replica)
    datadog = [page for page in pages(rig) if "heartbeat:prometheus" not in page[2]]
    assert datadog == [
        ("trigger", "d", "datadog:f00d"),
        ("resolve", "d", "datadog:f00d"),
        ("trigger", "d", "alertrouter:heartbeat:datadog"),
    ], "a resolve is no sign of life"


async def test_in_one_webhook_heartbeats_are_noted_and_the_others_accepted(rig: Rig, replica: Replica) -> None:
    heard = await replica.hear(make_alert("1"), watchdog(), make_alert("2"), make_alert("1"))
    assert [str(each) for each in heard] == ["new", "heartbeat", "new", "duplicate"]


async def test_a_sender_of_heartbeats_alone_is_not_silent(rig: Rig, replica: Replica) -> None:
    """What it does not repeat while its heartbeat comes may be over; see `silence`."""
    await replica.hear(watchdog())
    rig.clock.advance(5 * MINUTE)
    await replica.hear(watchdog())
    assert await rig.store.source("alertmanager") == Source(rig.clock(), rig.clock() - 5 * MINUTE)


async def test_the_resolve_of_a_heartbeat_is_no_sign_of_life(rig: Rig, replica: Replica) -> None:
    await replica.hear(watchdog())
    await watch(5 * MINUTE, replica)
    assert await replica.hear(watchdog("resolved")) == [News.STATUS]
    await watch(MINUTE, replica)
    assert ("trigger", "5", SILENT) in pages(rig)


async def test_what_was_open_before_it_became_a_heartbeat_is_resolved(rig: Rig) -> None:
    await rig.hear(watchdog())
    rig.change_rules(CONFIG)
    replica = Replica(rig)
    await replica.hear(watchdog("resolved"))
    await replica.look()
    assert pages(rig) == [("trigger", "d", "alertmanager:watchdog"), ("resolve", "d", "alertmanager:watchdog")]


async def test_replicas_page_once_and_hear_for_each_other(rig: Rig, replica: Replica) -> None:
    other = Replica(rig)
    await other.hear(watchdog())
    await watch(6 * MINUTE, replica, other)
    assert pages(rig) == [("trigger", "5", SILENT)]
    await other.hear(watchdog())
    await watch(STEP, replica, other)
    assert pages(rig)[1:] == [("resolve", "5", SILENT)]


async def test_what_a_slow_replica_says_too_late_pages_nobody(rig: Rig, replica: Replica) -> None:
    await replica.hear(watchdog())
    await watch(6 * MINUTE, replica)
    said = await rig.store.record(SILENT)
    assert said is not None
    await replica.hear(watchdog())
    await watch(STEP, replica)
    await rig.store.accept([said.alert], rig.clock())
    await rig.settle()
    await watch(MINUTE, replica)
    assert pages(rig) == [("trigger", "5", SILENT), ("resolve", "5", SILENT)]


async def test_after_a_restart_it_has_its_time_again(rig: Rig, replica: Replica) -> None:
    await replica.hear(watchdog())
    await watch(5 * MINUTE, replica)
    rig.clock.advance(5 * MINUTE)  # down
    restarted = Replica(rig)
    await watch(6 * MINUTE, restarted)
    assert pages(rig) == []
    await watch(STEP, restarted)
    assert pages(rig) == [("trigger", "5", SILENT)]


async def test_after_a_restart_an_open_page_stays_open_until_it_is_heard(rig: Rig, replica: Replica) -> None:
    await watch(6 * MINUTE + STEP, replica)
    rig.clock.advance(5 * MINUTE)
    restarted = Replica(rig)
    await watch(8 * MINUTE, restarted)
    assert [page for page in pages(rig) if page[2] == SILENT] == [("trigger", "5", SILENT)]
    await restarted.hear(watchdog())
    await watch(STEP, restarted)
    assert [page for page in pages(rig) if page[2] == SILENT][1:] == [("resolve", "5", SILENT)]


async def test_a_crash_between_noticing_and_paging_loses_nothing(
    rig: Rig, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise StoreUnavailable("the process ended here")

    await watch(6 * MINUTE - STEP, replica)
    rig.clock.advance(STEP)
    with monkeypatch.context() as patched:
        patched.setattr(rig.store, "accept", crash)
        with pytest.raises(StoreUnavailable):
            await replica.look()
    await watch(STEP, Replica(rig))
    assert pages(rig) == [("trigger", "5", SILENT)]


async def test_one_that_leaves_the_rules_is_no_longer_missed(rig: Rig, replica: Replica) -> None:
    await watch(6 * MINUTE + STEP, replica)
    assert pages(rig) == [("trigger", "5", SILENT)]
    rig.change_rules({"alertrouter.yaml": ""})
    await watch(8 * MINUTE, replica)
    assert pages(rig) == [("trigger", "5", SILENT), ("resolve", "5", SILENT)]


async def test_while_redis_is_away_heartbeats_are_kept_and_told_later(rig: Rig, replica: Replica) -> None:
    await replica.hear(watchdog())
    await watch(5 * MINUTE, replica)
    away = AlertStore(connect("unix:///nowhere"), owner="away")
    store, replica.heartbeats._store = replica.heartbeats._store, away
    assert await replica.hear(watchdog()) == [Heard.HEARTBEAT]
    with pytest.raises(StoreUnavailable):
        await replica.look()
    replica.heartbeats._store = store
    await watch(5 * MINUTE, replica)
    assert pages(rig) == []
    await away._client.aclose()


async def test_without_the_direct_path_a_sender_repeats_it(rig: Rig, replica: Replica) -> None:
    away = AlertStore(connect("unix:///nowhere"), owner="away")
    heartbeats = Heartbeats(away, lambda: rig.active, rig.clock, lambda: None, fail_open=False)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await heartbeats.take([watchdog()], rig.store.accept)  # type: ignore[arg-type]
    await away._client.aclose()


# --- over HTTP, in real time -----------------------------------------------------------------------------------------


async def test_a_service_pages_for_a_watchdog_that_stops(settings: Settings, rules: Path, sandbox: Sandbox) -> None:
    write_rules(rules, FAST)
    body = alertmanager_body(alertmanager_alert("Watchdog", severity="none"))
    async with serving(settings) as client:
        status, answer = await client.post(PATH, body)
        assert (status, answer["outcomes"]) == (202, {"heartbeat": 1})
        await sandbox.wait_for(lambda events: len(events) == 1, timeout_s=15)
        _, ready = await client.get("/-/ready")
        assert "the heartbeat prometheus is silent" in ready
        _, metrics = await client.get("/metrics")
        assert "alertrouter_heartbeats_silent 1.0" in metrics
        await client.post(PATH, body)
        first, last = await sandbox.wait_for(lambda events: len(events) == 2, timeout_s=15)
    assert (first.event["event_action"], first.event["dedup_key"]) == ("trigger", SILENT)
    assert (last.event["event_action"], last.routing_key) == ("resolve", first.routing_key)


async def test_a_killed_service_remembers_the_page_it_opened(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    write_rules(rules, FAST)
    body = alertmanager_body(alertmanager_alert("Watchdog", severity="none"))
    keys = {"PD_KEY_SEARCH": "5" * 32}
    async with Process(tmp_path, rules, sandbox, **keys) as process:
        await sandbox.wait_for(lambda events: len(events) == 1, timeout_s=15)
        await until(process.has_put_down)  # killed before that, it would send the page once more
        await process.kill()
    async with Process(tmp_path, rules, sandbox, **keys) as process:
        assert await process.post(PATH, body) == 202
        events = await sandbox.wait_for(lambda events: events[-1].event["event_action"] == "resolve", timeout_s=30)
    assert {call.event["event_action"] for call in events[:-1]} == {"trigger"}
    assert {call.event["dedup_key"] for call in events} == {SILENT}
    assert len(sandbox.events) == 2
