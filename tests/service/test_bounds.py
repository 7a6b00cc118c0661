"""What piles up is bounded: an alarm at half, then infos, warnings, errors and last criticals are asked to come again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from alertrouter.alert import Alert, Severity
from alertrouter.delivery.bounds import Bounds, fillings
from alertrouter.record import Outcome
from alertrouter.settings import Settings, load_settings
from alertrouter.store.store import FORGOTTEN_AFTER_MS
from tests.alerts import HOUR, SECOND, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import Rig, serving, write_rules
from tests.waiting import until

PENDING = "alertrouter:bound:pending"
FIVE_DAYS = """
    sets:
      start:
        - rule: maintenance
          owner: team-sre
          then: {suppress: true, reason: the move, expires: 2027-01-15}
    catch_all: {}
"""


def severities(alerts: Sequence[Alert]) -> set[str]:
    return {alert.event.severity.value for alert in alerts}


@pytest.mark.parametrize(
    ("pending", "refused"),
    [
        (79, set()),
        (80, {"info"}),
        (90, {"info", "warning"}),
        (95, {"info", "warning", "error"}),
        (100, {"info", "warning", "error", "critical"}),
    ],
)
async def test_lower_classes_are_refused_first(rig: Rig, pending: int, refused: set[str]) -> None:
    await rig.store.accept([make_alert(f"a{n}") for n in range(pending)], rig.clock())
    bounds = Bounds(rig.store, rig.clock, 100, 10)
    alerts = [make_alert(severity=severity) for severity in Severity]
    assert not any(bounds.refuses(alert) for alert in alerts), "nothing is known yet"
    await bounds.look()
    assert severities([alert for alert in alerts if bounds.refuses(alert)]) == refused
    assert not any(bounds.refuses(make_alert(status=status)) for status in ("resolved", "acknowledged"))
    assert ("503" in str(bounds.warnings())) is bool(refused)


async def test_an_alarm_at_half_gets_worse_and_ends_late(rig: Rig) -> None:
    async def look(pending: int) -> str:
        """The severity that the alarm was last told with; "" where it is not open."""
        await rig.store._client.delete(rig.store.keys.due)
        await rig.store._client.zadd(rig.store.keys.due, {f"x{n}": rig.clock() for n in range(pending)})
        await Bounds(rig.store, rig.clock, 100, 10).look()  # by another process each time
        rig.clock.advance(1)
        await rig.worker.run_until_idle()
        told = [call.event for call in rig.sandbox.calls if call.event["dedup_key"] == PENDING][-1:]
        return "".join(event["payload"]["severity"] for event in told if event["event_action"] == "trigger")

    assert [await look(pending) for pending in (50, 51, 70, 80, 60, 45)] == [
        *("", "error", "error", "critical", "critical", "critical")
    ]
    assert await look(39) == ""
    assert len([call for call in rig.sandbox.calls if call.event["dedup_key"] == PENDING]) == 3


def test_dead_letters_alarm_and_refuse_nobody() -> None:
    sizes = {"due": 0, "waiting": 0, "dead_letters": 51}
    [filling] = [each for each in fillings(sizes, (0, 0), 100, 50) if each.share > 0.5]
    assert filling.name == "dead-letters"
    assert not any(filling.refuses(severity) for severity in Severity)


async def test_the_alarm_comes_at_half_of_the_letters_that_are_kept(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"dead_letters": 10})) as client:
        store = client.service.store
        for number in range(6):
            assert (await client.post("/webhooks/alertmanager", b"{%d" % number))[0] == 400
        await client.service.bounds.look()
        record = await store.record("alertrouter:bound:dead-letters")
        assert record is not None
        assert record.alert.event.summary == "alertrouter: 6 of at most 10 dead letters"


def test_redis_memory_is_a_bound_where_it_has_one() -> None:
    sizes = {"due": 0, "waiting": 0, "dead_letters": 0}
    assert [each.share for each in fillings(sizes, (80, 100), 100, 10)] == [0, 0.8, 0]
    assert [each.share for each in fillings(sizes, (80, 0), 100, 10)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("used", "refused"), [(79, []), (80, ["info"]), (90, ["warning", "info"]), (100, ["warning", "info"])]
)
def test_a_full_redis_is_no_reason_to_refuse_what_goes_past_it(used: int, refused: list[str]) -> None:
    sizes = {"due": 0, "waiting": 0, "dead_letters": 0}
    [memory] = [each for each in fillings(sizes, (used, 100), 100, 10) if each.name == "redis-memory"]
    assert [severity.value for severity in Severity if memory.refuses(severity)] == refused


async def test_an_alarm_of_our_own_is_never_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notice about a sender is due once in 15 minutes: refused, it would be given to nobody."""
    monkeypatch.setattr("alertrouter.app._LOOK_AT_BOUNDS_EVERY_S", 3600)
    async with serving(settings) as client:
        await until(lambda: bool(client.service.bounds._fillings))
        client.service.bounds._fillings = fillings({"due": 10, "waiting": 0, "dead_letters": 0}, (0, 0), 10, 10)
        assert (await client.post("/webhooks/alertmanager", b"{"))[0] == 400
        assert await client.service.store.record("alertrouter:not-understood:alertmanager") is not None


async def test_of_a_body_that_is_refused_what_there_is_room_for_is_taken_in(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alertmanager sends all of it again: the critical pages now, and is a duplicate then."""
    body = alertmanager_body(
        {**alertmanager_alert(severity="critical", n="1"), "fingerprint": "1"},
        {**alertmanager_alert(severity="info", n="2"), "fingerprint": "2"},
    )
    monkeypatch.setattr("alertrouter.app._LOOK_AT_BOUNDS_EVERY_S", 3600)
    async with serving(settings) as client:
        service = client.service
        await until(lambda: bool(service.bounds._fillings))
        service.bounds._fillings = fillings({"due": 8, "waiting": 0, "dead_letters": 0}, (0, 0), 10, 10)
        assert (await client.post("/webhooks/alertmanager", body))[0] == 503
        assert await service.store.record("alertmanager:1") is not None
        assert await service.store.record("alertmanager:2") is None
        assert "info alerts are answered with 503" in (await client.get("/-/ready"))[1]
        await service.bounds.look()
        status, answer = await client.post("/webhooks/alertmanager", body)
        assert (status, answer["outcomes"]) == (202, {"duplicate": 1, "new": 1})
        assert "alertrouter_alerts_refused_total" in (await client.get("/metrics"))[1]


async def test_what_outlives_its_window_is_not_forgotten_though_its_sender_says_nothing_more(rig: Rig) -> None:
    """Datadog notifies once. Five days of maintenance, and then it pages."""
    rig.change_rules({"global.yaml": FIVE_DAYS})
    await rig.hear(make_alert())
    rig.clock.advance(4 * 24 * HOUR)
    await rig.store.sweep(rig.clock())
    assert rig.sent == []
    await rig.settle(2 * 24 * HOUR)
    assert rig.sent == [("trigger", "d")]


async def test_what_was_refused_or_told_long_ago_is_forgotten_after_a_month(rig: Rig) -> None:
    """Whether somebody has dropped its letter, or it was moved to a file, or not."""
    refused, muted = (make_alert(name, source="datadog") for name in ("refused", "muted"))
    await rig.hear(muted, make_alert("over", source="datadog"))
    await rig.hear(make_alert("muted", "resolved", source="datadog", ended=rig.clock.advance(SECOND)))
    await rig.hear(make_alert("muted", source="datadog", env="staging", started=rig.clock.advance(SECOND)))
    await rig.hear(make_alert("open", source="datadog"))
    await rig.hear(make_alert("open", source="datadog", severity="error", env="staging"))
    rig.sandbox.fail(400, times=4)
    await rig.hear(refused)
    await rig.hear(make_alert("over", "resolved", source="datadog", ended=rig.clock.advance(SECOND)))
    ids = [refused.id, muted.id, "datadog:over"]
    for _ in range(29):
        await rig.store.sweep(rig.clock.advance(24 * HOUR))
    assert None not in [await rig.store.record(id_) for id_ in ids]
    for _ in range(3):
        await rig.store.sweep(rig.clock.advance(24 * HOUR))
    assert [await rig.store.record(id_) for id_ in ids] == [None] * 3
    assert await rig.store._client.zrange(rig.store.keys.parked, 0, -1) == [b"datadog:open"]
    ended = [entry for entry in await rig.store.history(10) if "forgotten" in entry["reason"]]
    assert {entry["id"]: entry["outcome"] for entry in ended} == {
        refused.id: "dead_lettered",
        muted.id: "suppressed",
        "datadog:over": "dead_lettered",
    }
    assert {each.standing for each in await rig.store.letters.page(rig.clock())} == {"gone"}


async def test_what_was_never_sent_and_not_heard_again_is_forgotten_on_record(rig: Rig) -> None:
    muted, heard_again, paged = (make_alert(name, env="staging") for name in ("muted", "again", "paged"))
    await rig.hear(muted, heard_again, make_alert("paged"))
    await rig.hear(make_alert("paged", severity="error", env="staging"))
    rig.clock.advance(FORGOTTEN_AFTER_MS - HOUR)
    await rig.store.accept([heard_again], rig.clock())
    await rig.store.sweep(rig.clock())
    assert await rig.store.record(muted.id) is not None
    await rig.store.sweep(rig.clock.advance(HOUR))
    assert await rig.store.record(muted.id) is None
    for alert in (heard_again, paged):
        assert await rig.store.record(alert.id) is not None
    [end] = [entry for entry in await rig.store.history(20) if "forgotten" in entry.get("reason", "")]
    assert (end["id"], end["outcome"]) == (muted.id, Outcome.SUPPRESSED)
    assert [word.value for word in await rig.hear(muted)] == ["new"]


def test_the_bound_is_a_setting(tmp_path: Path) -> None:
    assert load_settings({"ALERTROUTER_MAX_PENDING": "5000"}, {"rules": write_rules(tmp_path)}).max_pending == 5000
