"""An alert that its sender does not repeat any more is closed; one whose sender is away, or that is repeated, is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from alertrouter.alert import Status
from alertrouter.delivery.explained_text import as_text
from alertrouter.delivery.explaining import explain_record
from alertrouter.delivery.silence import AutoResolve
from alertrouter.delivery.worker import Worker
from alertrouter.record import Outcome
from tests.alerts import HOUR, MINUTE, SECOND, make_alert
from tests.service.conftest import SEARCH_KEY, Rig

AFTER = AutoResolve(121 * HOUR)
ID = "alertmanager:f00d"


@pytest.fixture
def quiet(rig: Rig) -> Rig:
    """A worker that resolves what is not repeated."""
    rig.worker = Worker(
        rig.store,
        rig.worker._pagerduty,
        lambda: rig.active,
        rig.clock,
        calls_per_minute=0,
        auto_resolve=AFTER,
    )
    return rig


async def pass_hours(rig: Rig, hours: int, *others: str, repeats: bool = False) -> None:
    """Hour by hour, in which the sender repeats its other alerts and perhaps this one."""
    for _ in range(hours):
        rig.clock.advance(HOUR - SECOND)
        alerts = [make_alert(other) for other in others] + ([make_alert()] if repeats else [])
        if alerts:
            await rig.store.heard_from(["alertmanager"], rig.clock())
            await rig.store.accept(alerts, rig.clock())
        await rig.settle(SECOND)


def of_it(rig: Rig) -> list[str]:
    return [str(call.event["event_action"]) for call in rig.sandbox.events if call.event["dedup_key"] == ID]


async def test_what_alertmanager_silenced_is_closed_after_121_hours(quiet: Rig) -> None:
    """It had paged; Alertmanager then forgot it, and only goes on with other alerts."""
    await quiet.store.heard_from(["alertmanager"], quiet.clock())
    await quiet.hear(make_alert(service="search"))
    await pass_hours(quiet, 120, "other")
    assert of_it(quiet) == ["trigger"]
    await pass_hours(quiet, 1, "other")
    assert of_it(quiet) == ["trigger", "resolve"]
    [resolve] = [call for call in quiet.sandbox.events if call.event["event_action"] == "resolve"]
    assert resolve.routing_key == SEARCH_KEY
    record = await quiet.store.record(ID)
    assert record is not None
    assert (record.outcome, record.reason) == (
        Outcome.DELIVERED,
        "resolved by alertrouter: its sender has not repeated it for 121 h",
    )
    explained = await explain_record(ID, quiet.store, quiet.active.ruleset, quiet.clock(), auto_resolve=AFTER)
    assert explained is not None
    text = "\n".join(as_text({**explained, "history": [], "history_complete": True}))
    assert "resolved by alertrouter: its sender has not repeated it for 121 h" in text.splitlines()[0]
    assert json.dumps(explained)


async def test_a_late_repeat_pages_again_at_once(quiet: Rig) -> None:
    await quiet.store.heard_from(["alertmanager"], quiet.clock())
    await quiet.hear(make_alert())
    await pass_hours(quiet, 121, "other")
    await quiet.hear(make_alert())
    assert of_it(quiet) == ["trigger", "resolve", "trigger"]


async def test_what_is_repeated_stays_open(quiet: Rig) -> None:
    await quiet.store.heard_from(["alertmanager"], quiet.clock())
    await quiet.hear(make_alert())
    await pass_hours(quiet, 130, repeats=True)
    assert "resolve" not in of_it(quiet)
    explained = await explain_record(ID, quiet.store, quiet.active.ruleset, quiet.clock(), auto_resolve=AFTER)
    assert explained is not None
    assert explained["record"]["auto_resolve_at"] == quiet.clock() - SECOND + 121 * HOUR
    assert "resolved by alertrouter if its sender does not repeat it before" in "\n".join(
        as_text({**explained, "history": [], "history_complete": True})
    )


async def test_a_sender_that_is_away_closes_nothing(quiet: Rig) -> None:
    """Nor does it on the day it comes back: it is given the whole time to repeat what still fires."""
    await quiet.store.heard_from(["alertmanager"], quiet.clock())
    await quiet.hear(make_alert())
    await pass_hours(quiet, 130)
    assert of_it(quiet) == ["trigger"]
    explained = await explain_record(ID, quiet.store, quiet.active.ruleset, quiet.clock(), auto_resolve=AFTER)
    assert explained is not None and explained["record"]["sender_silent"]
    await pass_hours(quiet, 120, "other")
    assert of_it(quiet) == ["trigger"]
    await pass_hours(quiet, 2, "other")
    assert of_it(quiet) == ["trigger", "resolve"]


async def test_what_was_never_told_ends_without_a_page(quiet: Rig) -> None:
    """Muted, and not repeated any more when the rule goes."""
    quiet.change_rules(
        {
            "global.yaml": "sets: {start: [{rule: mute, owner: t, "
            "then: {suppress: true, reason: maintenance, expires: 2099-01-01}}]}\n"
        }
    )
    await quiet.store.heard_from(["alertmanager"], quiet.clock())
    await quiet.hear(make_alert())
    await pass_hours(quiet, 121, "other")
    quiet.change_rules({"global.yaml": "sets: {start: []}\n"})
    quiet.worker.rejudge()
    await quiet.settle(MINUTE)
    assert of_it(quiet) == []
    record = await quiet.store.record(ID)
    assert record is not None and record.outcome is Outcome.RESOLVED_BEFORE_DELIVERY


async def test_what_was_never_told_is_forgotten_though_its_sender_goes_on(quiet: Rig) -> None:
    """For longer than it is remembered, or for ever: nobody waits for its end. What a window keeps back is awaited."""
    rules = "sets: {{start: [{{rule: mute, owner: t, then: {{suppress: true, reason: r, expires: {}}}}}]}}\n"
    for end, name in (("2099-01-01", "for ever"), (_days_later(quiet, 20), "for days")):
        quiet.change_rules({"global.yaml": rules.format(end)})
        await quiet.hear(make_alert(name))
        explained = await explain_record(
            make_alert(name).id, quiet.store, quiet.active.ruleset, quiet.clock(), auto_resolve=AFTER
        )
        assert explained is not None and bool(explained["record"]["auto_resolve_at"]) == (name == "for days"), name
    await pass_hours(quiet, 49, "other")
    await quiet.store.sweep(quiet.clock())
    assert await quiet.store.record(make_alert("for ever").id) is None
    assert await quiet.store.record(make_alert("for days").id) is not None
    await pass_hours(quiet, 73, "other")
    record = await quiet.store.record(make_alert("for days").id)
    assert record is not None and (record.status, record.outcome) == (Status.RESOLVED, Outcome.SUPPRESSED)
    assert [call for call in quiet.sandbox.events if call.event["dedup_key"] == make_alert("for days").id] == []


def _days_later(rig: Rig, days: int) -> str:
    return f"{datetime.fromtimestamp(rig.clock() / 1000, UTC) + timedelta(days=days):%Y-%m-%d}"


async def test_datadog_does_not_repeat_and_is_not_closed(quiet: Rig) -> None:
    await quiet.store.heard_from(["datadog"], quiet.clock())
    await quiet.hear(make_alert(source="datadog"))
    for _ in range(29):
        await quiet.store.heard_from(["datadog"], quiet.clock())
        await quiet.settle(24 * HOUR)
    assert quiet.sent == [("trigger", "d")]
    await quiet.settle(24 * HOUR)
    assert quiet.sent == [("trigger", "d"), ("resolve", "d")], "after 30 days anything is"
