"""An alert that flaps pages once and stays open, says so, and is closed when it is over."""

from __future__ import annotations

import pytest

from alertrouter.alert import Status
from alertrouter.delivery.explained_text import as_text
from alertrouter.delivery.explaining import explain_record
from alertrouter.delivery.flapping import FlappingLimit
from alertrouter.delivery.worker import Worker
from alertrouter.record import Outcome
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from tests.alerts import MINUTE, SECOND, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import Rig, serving
from tests.service.test_http import idle

ID = "alertmanager:f00d"


@pytest.fixture
def flapping(rig: Rig) -> Rig:
    """A worker to which more than four changes in ten minutes are flapping."""
    rig.worker = Worker(
        rig.store,
        rig.worker._pagerduty,
        lambda: rig.active,
        rig.clock,
        calls_per_minute=0,
        flapping=FlappingLimit(4, 10 * MINUTE),
    )
    return rig


async def flap(rig: Rig, changes: int, fires: bool = True) -> bool:
    """So many changes, half a minute apart; returns whether it would fire next."""
    for _ in range(changes):
        now = rig.clock.advance(30 * SECOND)
        await rig.hear(make_alert(started=now) if fires else make_alert(status=Status.RESOLVED, ended=now))
        fires = not fires
    return fires


def actions(rig: Rig) -> list[str]:
    return [action for action, _ in rig.sent]


async def said(rig: Rig) -> str:
    explained = await explain_record(ID, rig.store, rig.active.ruleset, rig.clock())
    assert explained is not None
    return "\n".join(as_text({**explained, "history": [], "history_complete": True}))


async def test_off_each_change_is_told(rig: Rig) -> None:
    await flap(rig, 20)
    assert actions(rig) == ["trigger", "resolve"] * 10


async def test_as_often_as_it_may_it_is_told_each_time(flapping: Rig) -> None:
    await flap(flapping, 5)
    assert actions(flapping) == ["trigger", "resolve", "trigger", "resolve", "trigger"]
    assert "flapping" not in str(flapping.sandbox.events[-1].event)


async def test_then_one_note_and_nothing_more(flapping: Rig) -> None:
    """The fifth change is a resolve: it is held, and PagerDuty is told once why."""
    fires = await flap(flapping, 6)
    assert actions(flapping)[5:] == ["trigger"]
    assert "flapping: it changed 5 times within" in str(flapping.sandbox.events[-1].event["payload"])
    record = await flapping.store.record(ID)
    assert record is not None and record.outcome is Outcome.PENDING
    assert (await said(flapping)).startswith("Over, and its resolve is held because it flaps (it changed 5 times")
    await flap(flapping, 20, fires)
    assert actions(flapping)[6:] == [], "it stays open, and nobody is told more"


async def test_it_is_closed_when_it_is_over(flapping: Rig) -> None:
    await flap(flapping, 8)
    before = len(flapping.sent)
    record = await flapping.store.record(ID)
    assert record is not None and record.status is Status.RESOLVED
    flapping.clock.now = record.flapping.until - 1
    await flapping.settle()
    assert len(flapping.sent) == before
    await flapping.settle(1)
    assert actions(flapping)[before:] == ["resolve"]
    record = await flapping.store.record(ID)
    assert record is not None and record.outcome is Outcome.DELIVERED
    assert "flaps" not in await said(flapping)


async def test_if_it_fires_at_the_end_the_page_stays_and_no_second_one_comes(flapping: Rig) -> None:
    await flap(flapping, 9)
    before = len(flapping.sent)
    await flapping.settle(11 * MINUTE)
    assert actions(flapping)[before:] == ["trigger"], "PagerDuty folds it: its text flaps no more"
    assert "flapping" not in str(flapping.sandbox.events[-1].event)
    await flapping.hear(make_alert(status=Status.RESOLVED, ended=flapping.clock.advance(MINUTE)))
    assert actions(flapping)[before:] == ["trigger", "resolve"]


async def test_a_page_of_its_own_follows_once_it_has_been_quiet(flapping: Rig) -> None:
    await flap(flapping, 8)
    await flapping.settle(20 * MINUTE)
    before = len(flapping.sent)
    await flap(flapping, 2)
    assert actions(flapping)[before:] == ["trigger", "resolve"]


async def test_it_is_a_setting(settings: Settings, sandbox: Sandbox) -> None:
    """Through the door, and with the service's own clock."""
    async with serving(settings.model_copy(update={"flapping_transitions": 1})) as client:
        for minute, status in enumerate(("firing", "resolved", "firing", "resolved", "firing")):
            starts = f"2027-01-10T03:{minute:02}:00Z"
            body = alertmanager_body({**alertmanager_alert(status=status), "startsAt": starts, "endsAt": starts})
            assert (await client.post("/webhooks/alertmanager", body))[0] == 202
            await idle(client)
    told = [str(call.event["event_action"]) for call in sandbox.events]
    assert told == ["trigger", "resolve", "trigger"]
    assert "flapping" in str(sandbox.events[-1].event)


async def test_another_worker_knows_that_it_flaps(flapping: Rig) -> None:
    """After a restart what is held is held still."""
    await flap(flapping, 8)
    before = len(flapping.sent)
    other = Worker(
        flapping.store,
        flapping.worker._pagerduty,
        lambda: flapping.active,
        flapping.clock,
        calls_per_minute=0,
        flapping=FlappingLimit(4, 10 * MINUTE),
    )
    other.rejudge()
    await other.run_until_idle()
    assert len(flapping.sent) == before
    flapping.clock.advance(10 * MINUTE)
    await other.run_until_idle()
    assert actions(flapping)[before:] == ["resolve"]
