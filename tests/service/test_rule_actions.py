"""What rules do over time: drop, suspend, thresholds, windows that end, and rules that change."""

from __future__ import annotations

import asyncio

import pytest

from alertrouter.record import Outcome, Record, Told
from tests.alerts import HOUR, MINUTE, SECOND, make_alert
from tests.service.conftest import Rig
from tests.waiting import until

TRIGGER, RESOLVE = ("trigger", "d"), ("resolve", "d")


MUTE = "then: {suppress: true, reason: m, expires: 2099-01-01}"


def globally(*rules: str) -> dict[str, str]:
    """A global.yaml with these rules, each written as the members of a mapping."""
    written = "".join(f"    - {{rule: r{number}, owner: o, {rule}}}\n" for number, rule in enumerate(rules))
    return {"global.yaml": f"sets:\n  start:\n{written or '    []'}\ncatch_all: {{}}\n"}


async def outcome_of(rig: Rig, fingerprint: str = "f00d") -> Outcome:
    record = await rig.store.record(make_alert(fingerprint).id)
    assert record is not None
    return record.outcome


async def test_dropped_is_on_record_and_not_sent(rig: Rig) -> None:
    rig.change_rules(globally("then: {drop: true, reason: noise, expires: 2099-01-01}"))
    await rig.hear(make_alert())
    assert (await outcome_of(rig), rig.sent) == (Outcome.DROPPED, [])
    assert (await rig.store.history(1))[0]["reason"] == "noise"


async def test_a_rule_can_close_what_was_opened(rig: Rig) -> None:
    await rig.hear(make_alert())
    rig.change_rules(globally("when: event.severity == 'info', then: {event_action: resolve}"))
    await rig.hear(make_alert(severity="info"))
    assert rig.sent == [TRIGGER, RESOLVE]


async def test_suspended_waits_and_then_pages(rig: Rig) -> None:
    rig.change_rules(globally("then: {suspend: 5m}"))
    await rig.hear(make_alert())
    await rig.settle(4 * MINUTE)
    await rig.hear(make_alert(severity="error"))
    await rig.settle(59 * SECOND)
    assert rig.sent == []
    await rig.settle(SECOND)
    assert rig.sent == [TRIGGER], "news did not restart the wait"


async def test_resolved_in_suspension_pages_nobody(rig: Rig) -> None:
    rig.change_rules(globally("then: {suspend: 5m}"))
    await rig.hear(make_alert())
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    await rig.settle(HOUR)
    assert (rig.sent, await outcome_of(rig)) == ([], Outcome.CANCELLED_IN_SUSPEND)


async def test_a_threshold_pages_from_its_count_on(rig: Rig) -> None:
    rig.change_rules(globally("when: trigger_count over 5 minutes > 3, then: {annotate: flood}", MUTE))
    for number in range(6):
        await rig.hear(make_alert(str(number)))
        await rig.hear(make_alert(str(number)))  # a suppressed one heard again is another version, counted
        rig.clock.advance(SECOND)
    outcomes = [await outcome_of(rig, str(number)) for number in range(6)]
    assert outcomes == [Outcome.SUPPRESSED, Outcome.DELIVERED] + [Outcome.DELIVERED] * 4


async def test_a_resetting_threshold_is_true_once_per_count(rig: Rig) -> None:
    rig.change_rules(globally("when: resetting_trigger_count over 5 minutes >= 3, then: {annotate: third}", MUTE))
    for number in range(9):
        await rig.hear(make_alert(str(number)))
    sent = [str(call.event["dedup_key"]).removeprefix("alertmanager:") for call in rig.sandbox.events]
    assert sent == ["2", "5", "8"]


async def test_what_still_fires_when_its_window_ends_is_paged(rig: Rig) -> None:
    # the clock stands at Sunday 03:00 UTC
    rig.change_rules(globally(f"when: 'now in Sun 02:00:00 to 04:00:00 Etc/UTC', {MUTE}"))
    await rig.hear(make_alert())
    await rig.settle(59 * MINUTE)
    assert rig.sent == []
    await rig.settle(2 * MINUTE)
    assert rig.sent == [TRIGGER]


async def test_a_suppression_that_expires_lets_what_still_fires_page(rig: Rig) -> None:
    rig.change_rules(globally("then: {suppress: true, reason: m, expires: 2027-01-10T05:00:00Z}"))
    await rig.hear(make_alert())
    await rig.settle(HOUR)
    assert rig.sent == []
    await rig.settle(HOUR + MINUTE)
    assert rig.sent == [TRIGGER]


async def test_other_rules_page_what_the_old_ones_kept(rig: Rig) -> None:
    rig.change_rules(globally(MUTE))
    await rig.hear(make_alert("muted"))
    rig.change_rules(globally("then: {suspend: 1h}"))
    await rig.hear(make_alert("held"))
    rig.change_rules(globally())
    rig.worker.rejudge()
    await rig.settle(SECOND)
    assert sorted(str(call.event["dedup_key"]) for call in rig.sandbox.events) == [
        "alertmanager:held",
        "alertmanager:muted",
    ]


async def test_a_maintenance_window_after_the_page_does_not_keep_the_resolve(rig: Rig) -> None:
    await rig.hear(make_alert())
    rig.change_rules(globally("then: {drop: true, reason: m, expires: 2099-01-01}"))
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    assert rig.sent == [TRIGGER, RESOLVE]


def told(rig: Rig) -> list[tuple[str, str]]:
    return [(str(call.event["event_action"]), str(call.event["dedup_key"])) for call in rig.sandbox.events]


SHARED = "then: {dedup_key: payment-outage}"
OUTAGE = "payment-outage"


async def test_a_shared_incident_closes_with_its_last_member(rig: Rig) -> None:
    rig.change_rules(globally(SHARED))
    await rig.hear(make_alert("1"), make_alert("2"))
    await rig.hear(make_alert("1", status="resolved", ended=rig.clock.advance(MINUTE)))
    assert told(rig) == [("trigger", OUTAGE)] * 2
    assert await outcome_of(rig, "1") is Outcome.DELIVERED
    rig.change_rules(globally("then: {dedup_key: another since then}"))
    await rig.hear(make_alert("2", status="resolved", ended=rig.clock.advance(MINUTE)))
    assert told(rig)[2:] == [("resolve", OUTAGE)]


async def test_a_member_that_was_refused_keeps_nothing_open(rig: Rig) -> None:
    rig.change_rules(globally(SHARED))
    rig.sandbox.fail(400, times=3)
    await rig.hear(make_alert("1"))
    await rig.hear(make_alert("2"))
    await rig.hear(make_alert("2", status="resolved", ended=rig.clock.advance(MINUTE)))
    assert told(rig) == [("trigger", OUTAGE), ("resolve", OUTAGE)]


async def test_who_joined_while_the_incident_was_closing_is_told_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.change_rules(globally(SHARED))
    await rig.hear(make_alert("1"))
    leave = rig.store.leave_incident

    async def leave_and_let_another_in(record: Record, told: Told) -> int:
        left = await leave(record, told)
        await rig.store.accept([make_alert("2")], rig.clock())
        await rig.worker._judge_due()
        await rig.worker._begin_sends()
        await until(lambda: len(rig.sandbox.events) == 2)
        return left

    monkeypatch.setattr(rig.store, "leave_incident", leave_and_let_another_in)
    await rig.hear(make_alert("1", status="resolved", ended=rig.clock.advance(MINUTE)))
    assert [action for action, _ in told(rig)] == ["trigger", "trigger", "resolve"], "closed under a firing alert"
    await rig.settle(2 * MINUTE)
    assert [action for action, _ in told(rig)][3:] == ["trigger"]


async def test_a_changed_key_of_a_waiting_page_is_noticed(rig: Rig) -> None:
    rig.change_rules(globally(SHARED))
    await rig.store.accept([make_alert()], rig.clock())
    await rig.worker._judge_due()
    rig.change_rules(globally("then: {dedup_key: new}"))
    await rig.settle()
    assert told(rig) == [("trigger", "new")]


def remembering(variable: str, *rules: str) -> dict[str, str]:
    [(name, written)] = globally(*rules).items()
    return {name: f"cache_variables: [{{{variable}}}]\n{written}"}


async def test_rules_remember_a_value_from_one_alert_to_the_next(rig: Rig) -> None:
    deploying = "name: deploying, type: recent_value, source: event.custom_details.deploying, regex: '.+'"
    mute = "when: cache_var.deploying == event.custom_details.host, " + MUTE
    rig.change_rules(remembering(deploying, mute))
    await rig.hear(make_alert("deployment", deploying="web-1", host="ci"))
    await rig.hear(make_alert("a", host="web-1"), make_alert("b", host="web-2"))
    outcomes = [await outcome_of(rig, fingerprint) for fingerprint in ("deployment", "a", "b")]
    assert outcomes == [Outcome.DELIVERED, Outcome.SUPPRESSED, Outcome.DELIVERED]


async def test_what_shares_an_incident_and_what_is_remembered_drain_from_a_full_redis(rig: Rig) -> None:
    deploying = "name: deploying, type: recent_value, source: event.custom_details.deploying, regex: '.+'"
    rig.change_rules(remembering(deploying, SHARED))
    await rig.store.accept([make_alert(deploying="web-1")], rig.clock())
    await rig.store._client.config_set("maxmemory", 1)
    try:
        async with asyncio.timeout(10):
            await rig.worker.run_until_idle()
    finally:
        await rig.store._client.config_set("maxmemory", 0)
    assert told(rig) == [("trigger", OUTAGE)]


async def test_rules_count_what_a_condition_matched(rig: Rig) -> None:
    failures = "name: failures, type: trigger_count, over: 10m, when: event.custom_details.kind == 'db'"
    rig.change_rules(remembering(failures, "when: not cache_var.failures >= 2, " + MUTE))
    await rig.hear(make_alert("web", kind="web"))
    await rig.hear(make_alert("db-1", kind="db"))
    await rig.hear(make_alert("db-2", kind="db"))
    await rig.hear(make_alert("web-2", kind="web"))
    rig.clock.advance(11 * MINUTE)
    await rig.hear(make_alert("web-3", kind="web"))
    outcomes = [await outcome_of(rig, fingerprint) for fingerprint in ("web", "db-1", "db-2", "web-2", "web-3")]
    assert [outcome is Outcome.DELIVERED for outcome in outcomes] == [False, False, True, True, False]
