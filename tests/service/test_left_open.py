"""The incidents that other products leave open. Here each is closed: by its key, whatever happened since it was paged."""

from __future__ import annotations

from pathlib import Path

from alertrouter.delivery.worker import Worker
from alertrouter.destinations.pagerduty import PagerDutyClient
from alertrouter.sandbox import Sandbox
from alertrouter.store.connect import connect
from alertrouter.store.store import AlertStore, Dedup
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.process import Process
from tests.service.conftest import Rig
from tests.waiting import until

TRIGGER, RESOLVE = ("trigger", "d"), ("resolve", "d")
PATH = "/webhooks/alertmanager"


def muted(when: str = "") -> dict[str, str]:
    condition = f"\n                      when: {when}" if when else ""
    return {
        "global.yaml": f"""
                sets:
                  start:
                    - rule: maintenance
                      owner: team-sre{condition}
                      then: {{suppress: true, reason: maintenance, expires: 2099-01-01}}
        """
    }


def nothing_open(sandbox: Sandbox) -> bool:
    return not sandbox._api.alerts


async def resolve(rig: Rig, **fields: str) -> None:
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE), **fields))  # type: ignore[arg-type]
    await rig.settle(HOUR)


async def test_silenced_after_it_paged(rig: Rig) -> None:
    await rig.hear(make_alert())
    rig.change_rules(muted())
    rig.worker.rejudge()
    await rig.hear(make_alert(severity="error"))
    assert rig.sent == [TRIGGER], "news of it is muted"
    await resolve(rig, severity="error")
    assert rig.sent == [TRIGGER, RESOLVE]
    assert nothing_open(rig.sandbox)


async def test_its_severity_changed(rig: Rig) -> None:
    for severity in ("warning", "critical", "info"):
        await rig.hear(make_alert(severity=severity))
    await resolve(rig, severity="info")
    assert rig.sent == [TRIGGER, TRIGGER, TRIGGER, RESOLVE]
    assert len({call.event["dedup_key"] for call in rig.sandbox.events}) == 1
    assert nothing_open(rig.sandbox)


async def test_the_rules_sent_it_elsewhere(rig: Rig) -> None:
    await rig.hear(make_alert())
    rig.change_rules({"router.yaml": "sets: {start: []}\ncatch_all: {route_to: search-service}\n"})
    rig.worker.rejudge()
    await rig.hear(make_alert(severity="error"))
    assert {key for _, key in rig.sent} == {"d", "5"}, "who has it and who should have it hear the news"
    await resolve(rig, severity="error")
    assert nothing_open(rig.sandbox)


async def test_its_routing_key_was_rotated(rig: Rig) -> None:
    await rig.hear(make_alert())
    rig.change_rules({}, **{"pagerduty:default": "n" * 32})
    rig.worker.rejudge()
    await resolve(rig)
    assert rig.sent == [TRIGGER, RESOLVE]
    assert nothing_open(rig.sandbox)


async def test_a_maintenance_window_began(rig: Rig) -> None:
    """NIGHT is Sunday, 3:00 UTC; the window opens five minutes after the page and is open when it resolves."""
    rig.change_rules(muted("now in Sun 03:05:00 to 04:00:00 UTC"))
    await rig.hear(make_alert())
    await rig.settle(10 * MINUTE)
    await rig.hear(make_alert(started=NIGHT + 10 * MINUTE))
    assert rig.sent == [TRIGGER], "the window is open"
    await resolve(rig, started=NIGHT + 10 * MINUTE)  # type: ignore[arg-type]
    assert rig.sent == [TRIGGER, RESOLVE]
    assert nothing_open(rig.sandbox)


async def test_prometheus_was_restarted(rig: Rig) -> None:
    """It forgot since when the alert fires: another startsAt, the same alert."""
    await rig.hear(make_alert())
    await rig.hear(make_alert(started=NIGHT + MINUTE))
    await rig.hear(make_alert(started=NIGHT - MINUTE))
    await resolve(rig, started=NIGHT + MINUTE)  # type: ignore[arg-type]
    assert rig.sent == [TRIGGER, TRIGGER, RESOLVE]
    assert nothing_open(rig.sandbox)


async def test_the_process_was_restarted(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    async with Process(tmp_path, rules, sandbox) as process:
        await process.post(PATH, alertmanager_body(alertmanager_alert()))
        await sandbox.wait_for(lambda events: len(events) == 1)
        await process.kill()
    async with Process(tmp_path, rules, sandbox) as process:
        await process.post(PATH, alertmanager_body(alertmanager_alert(status="resolved")))
        await sandbox.wait_for(lambda events: len(events) == 2)
    assert [call.result for call in sandbox.events] == ["opened", "resolved"]


async def test_the_replica_that_paged_is_lost(rig: Rig, redis_url: str) -> None:
    """It took the alert up, sent it and was gone before it could say so; another one hears the resolve."""
    client, pagerduty = connect(redis_url), PagerDutyClient(rig.sandbox.url)
    lost = AlertStore(client, owner="lost", dedup=Dedup())
    sender = Worker(lost, pagerduty, lambda: rig.active, rig.clock, calls_per_minute=0)
    await lost.accept([make_alert()], rig.clock())
    await sender._judge_due()
    rig.sandbox.fail(202, delay_ms=200)
    await sender._begin_sends()
    await until(lambda: not rig.sandbox.faults)
    for task in sender._in_flight:
        task.cancel()
    await rig.sandbox.wait_for(lambda events: len(events) == 1)
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(SECOND)))
    assert rig.sent == [TRIGGER], "its lease still holds"
    await rig.settle(16 * SECOND)
    assert rig.sent == [TRIGGER, RESOLVE]
    await rig.settle(HOUR)
    assert nothing_open(rig.sandbox)
    await pagerduty.close()
    await client.aclose()
