"""What PagerDuty refuses: shown less of, or sent by another key, and never the same bytes twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from alertrouter.alarms import SELF
from alertrouter.alert import Alert, Status
from alertrouter.delivery.worker import Worker
from alertrouter.destinations.pagerduty import FALLBACK, MINIMAL_MARK
from alertrouter.errors import SettingsInvalid
from alertrouter.record import Outcome, Told
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings, load_settings
from tests.alerts import HOUR, MINUTE, SECOND, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import DEFAULT_KEY, SEARCH_KEY, Rig, serving

FALLBACK_KEY = "f" * 32
INVALID = {"status": "invalid event", "message": "Event object is invalid", "errors": ["'payload' is bad"]}
BAD_KEY = {"status": "invalid event", "message": "Event object is invalid", "errors": ["Invalid routing key"]}
SEARCH = "pagerduty:search-service"
SHARED = """
    sets:
      start:
        - {rule: one-incident, then: {dedup_key: payment-outage}}
    catch_all: {}
"""


def search(status: Status | str = Status.FIRING, fingerprint: str = "5ea4", **changed: Any) -> Alert:
    """An alert of the service with a key of its own."""
    return make_alert(fingerprint, status, service="search", **changed)


def resolved(rig: Rig, alert: Alert) -> Alert:
    return msgspec.structs.replace(alert, status=Status.RESOLVED, ended_at=rig.clock())


def refuse_key(rig: Rig, routing_key: str = SEARCH_KEY, status: int = 400, times: int = 1_000) -> None:
    rig.sandbox.fail(status, times=times, routing_key=routing_key, body=BAD_KEY)


def calls(rig: Rig, *, about_us: bool = False) -> list[tuple[str, str, int]]:
    """Action, first character of the key and status of each call; alarms about ourselves apart."""
    return [
        (str(call.event["event_action"]), call.routing_key[0], call.status)
        for call in rig.sandbox.calls
        if str(call.event["dedup_key"]).startswith(f"{SELF}:") is about_us
    ]


def details(rig: Rig, at: int) -> Mapping[str, Any]:
    shown: Mapping[str, Any] = rig.sandbox.calls[at].event["payload"]["custom_details"]
    return shown


def open_alerts(rig: Rig) -> set[tuple[str, str]]:
    """First character of the key, and dedup_key."""
    return {(key[0], dedup_key) for key, dedup_key in rig.sandbox._api.alerts}


async def told(rig: Rig, alert: Alert, destination: str = "pagerduty:default") -> Told:
    record = await rig.store.record(alert.id)
    assert record is not None
    return record.told_of(destination)


async def outcome(rig: Rig, alert: Alert) -> Outcome:
    record = await rig.store.record(alert.id)
    assert record is not None
    return record.outcome


# --- for its size or its content -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_is_refused_goes_at_once_without_what_the_sender_wrote(rig: Rig, status: int) -> None:
    rig.sandbox.fail(status, body=INVALID)
    alert = make_alert(service="payment", log="x" * 1_000)
    await rig.hear(alert)
    whole, bare = rig.sandbox.calls
    assert (whole.status, bare.status) == (status, 202)
    assert "log" in whole.event["payload"]["custom_details"]
    assert details(rig, 1) == {
        "alertrouter": {
            "service": "payment-service",
            "team": "team-payments",
            "tier": "1",
            "runbook": "https://runbooks.example.org/payment",
        },
        "alertrouter_delivery": [
            "not the whole alert: PagerDuty refused it with what the sender wrote in it",
            f"PagerDuty said: HTTP {status}: Event object is invalid: 'payload' is bad",
        ],
    }
    assert "links" in whole.event
    assert "links" not in bare.event
    assert await outcome(rig, alert) is Outcome.DELIVERED


async def test_the_last_rung_is_minimal_and_after_it_comes_the_dead_letter(rig: Rig) -> None:
    rig.sandbox.fail(400, times=2, body=INVALID)
    await rig.hear(make_alert())
    assert [call.status for call in rig.sandbox.calls] == [400, 400, 202]
    assert rig.sandbox.calls[-1].event["payload"]["summary"] == "payment is down" + MINIMAL_MARK

    rig.sandbox.fail(400, times=1_000, body=INVALID)
    other = make_alert("beef")
    await rig.hear(other)
    await rig.settle(HOUR)
    refused = [call for call in rig.sandbox.calls if call.event["dedup_key"] == other.id]
    assert [call.status for call in refused] == [400, 400, 400]
    assert len({msgspec.json.encode(call.event) for call in refused}) == 3, "never the same bytes twice"
    assert await outcome(rig, other) is Outcome.DEAD_LETTERED
    assert (await rig.store.backlog(rig.clock()))["dead_letters"] == 1


async def test_the_next_news_is_shown_whole_again(rig: Rig) -> None:
    rig.sandbox.fail(400, body=INVALID)
    await rig.hear(make_alert())
    await rig.hear(make_alert(severity="warning"))
    assert [call.status for call in rig.sandbox.calls] == [400, 202, 202]
    assert "alertrouter_delivery" not in details(rig, 2)
    assert "service" in details(rig, 2)


async def test_the_next_news_has_the_whole_ladder_before_it(rig: Rig) -> None:
    rig.sandbox.fail(400, times=2, body=INVALID)
    await rig.hear(make_alert())
    rig.sandbox.fail(400, times=2, body=INVALID)
    await rig.hear(make_alert(severity="warning"))
    assert [call.status for call in rig.sandbox.calls] == [400, 400, 202] * 2


async def test_a_retry_and_a_repair_stay_on_the_rung_that_was_taken(rig: Rig) -> None:
    rig.sandbox.fail(400, body=INVALID)
    rig.sandbox.fail(503)
    rig.sandbox.fail(504)
    await rig.hear(make_alert())
    await rig.settle(2 * SECOND)
    await rig.settle(4 * SECOND)
    await rig.settle(2 * MINUTE)
    assert [call.status for call in rig.sandbox.calls] == [400, 503, 504, 202, 202]
    assert len({msgspec.json.encode(call.event) for call in rig.sandbox.calls[1:]}) == 1


async def test_a_resolve_has_nothing_to_leave_out(rig: Rig) -> None:
    alert = make_alert()
    await rig.hear(alert)
    rig.sandbox.fail(400, times=1_000, body=INVALID)
    await rig.hear(resolved(rig, alert))
    await rig.settle(HOUR)
    assert calls(rig) == [("trigger", "d", 202), ("resolve", "d", 400)]
    assert await outcome(rig, alert) is Outcome.DEAD_LETTERED


async def test_each_rung_counts_against_the_call_limit(rig: Rig) -> None:
    limited = Worker(rig.store, rig.worker._pagerduty, lambda: rig.active, rig.clock, calls_per_minute=2)
    rig.sandbox.fail(400, times=2, body=INVALID)
    await rig.store.accept([make_alert()], rig.clock())
    await limited.run_until_idle()
    rig.clock.advance(59 * SECOND)
    await limited.run_until_idle()
    assert [call.status for call in rig.sandbox.calls] == [400, 400]
    rig.clock.advance(2 * SECOND)
    await limited.run_until_idle()
    assert [call.status for call in rig.sandbox.calls] == [400, 400, 202]


async def test_a_worker_that_dies_on_the_ladder_is_followed_by_one_on_the_same_rung(rig: Rig) -> None:
    rig.sandbox.fail(400, body=INVALID)
    await rig.store.accept([make_alert()], rig.clock())
    await rig.worker._judge_due()
    await rig.worker._begin_sends()
    await asyncio.gather(*rig.worker._in_flight)
    assert [call.status for call in rig.sandbox.calls] == [400]
    assert (await told(rig, make_alert())).rung == 1
    await Worker(rig.store, rig.worker._pagerduty, lambda: rig.active, rig.clock, calls_per_minute=0).run_until_idle()
    assert [call.status for call in rig.sandbox.calls] == [400, 202]
    assert "alertrouter_delivery" in details(rig, 1)


async def test_a_settlement_that_comes_too_late_changes_nothing(rig: Rig) -> None:
    """Its lease was taken away: whoever has it now decides on what it hears itself."""
    rig.sandbox.fail(400, body=INVALID)
    await rig.store.accept([make_alert()], rig.clock())
    await rig.worker._judge_due()
    claims, _ = await rig.store.claim_sends(rig.clock(), 1, 0)
    await rig.store._client.hset(rig.store.keys.alert + make_alert().id, "t:pagerduty:default:lease", "another")
    await rig.worker._send(claims[0])
    left = await told(rig, make_alert())
    assert (left.rung, left.refused, left.unsure) == (0, 0, 0)


async def test_a_record_from_before_reads_as_never_refused(rig: Rig) -> None:
    await rig.hear(make_alert())
    written = await rig.store._client.hgetall(rig.store.keys.alert + make_alert().id)
    assert not [name for name in written if b"refus" in name or b"rung" in name or b"rerouted" in name]
    found = await told(rig, make_alert())
    assert (found.refused, found.rung, found.rerouted, found.refusal) == (0, 0, False, "")


async def test_one_alert_that_is_refused_holds_up_no_other(rig: Rig) -> None:
    refuse = {"times": 3, "routing_key": SEARCH_KEY, "body": INVALID}
    rig.sandbox.fail(400, **refuse)  # type: ignore[arg-type]
    await rig.hear(search(), make_alert("a"), make_alert("b"))
    assert open_alerts(rig) == {("d", "alertmanager:a"), ("d", "alertmanager:b")}
    assert await outcome(rig, search()) is Outcome.DEAD_LETTERED


@pytest.mark.parametrize("status", [400, 503])
async def test_what_was_refused_keeps_no_shared_incident_open(rig: Rig, status: int) -> None:
    """It is over before another form, or another try, was sent."""
    rig.change_rules({"global.yaml": SHARED})
    await rig.hear(make_alert("1"))
    rig.sandbox.fail(status, body=INVALID)
    await rig.store.accept([make_alert("2")], rig.clock())
    await rig.worker._judge_due()
    await rig.worker._begin_sends()
    await asyncio.gather(*rig.worker._in_flight)
    await rig.hear(make_alert("2", "resolved", ended=rig.clock.advance(SECOND)))
    assert len(open_alerts(rig)) == 1
    await rig.hear(make_alert("1", "resolved", ended=rig.clock.advance(SECOND)))
    assert open_alerts(rig) == set()


# --- for its key -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_page_whose_key_is_refused_goes_to_the_fallback_and_so_does_its_resolve(rig: Rig, status: int) -> None:
    rig.change_rules({}, **{FALLBACK: FALLBACK_KEY})
    refuse_key(rig, status=status)
    await rig.hear(search())
    assert calls(rig) == [("trigger", "5", status), ("trigger", "f", 202)]
    page = next(call for call in rig.sandbox.events if call.routing_key == FALLBACK_KEY)
    assert page.event["payload"]["custom_details"]["alertrouter_delivery"] == [
        f"through another routing key: PagerDuty refused that of {SEARCH}",
        f"PagerDuty said: HTTP {status}: Event object is invalid: Invalid routing key",
    ]
    assert page.event["payload"]["custom_details"]["service"] == "search", "the alert is shown whole"

    await rig.settle(MINUTE)
    await rig.hear(resolved(rig, search()))
    assert calls(rig)[2:] == [("resolve", "f", 202)]
    assert await outcome(rig, search()) is Outcome.DELIVERED


async def test_without_a_fallback_key_the_default_key_is_it(rig: Rig) -> None:
    refuse_key(rig)
    await rig.hear(search())
    assert calls(rig) == [("trigger", "5", 400), ("trigger", "d", 202)]


async def test_repeats_and_repairs_of_a_rerouted_page_stay_with_it(rig: Rig) -> None:
    refuse_key(rig)
    rig.sandbox.fail(504, routing_key=DEFAULT_KEY)
    await rig.store.accept([search()], rig.clock())
    await rig.settle()
    await rig.settle(2 * MINUTE)
    await rig.settle(2 * MINUTE)
    await rig.settle(2 * MINUTE)
    await rig.hear(search())
    assert {key for _, key, _ in calls(rig)[1:]} == {"d"}
    assert open_alerts(rig) >= {("d", search().id)}
    await rig.hear(resolved(rig, search()))
    assert ("d", search().id) not in open_alerts(rig)


async def test_the_next_episode_tries_the_own_key_first(rig: Rig) -> None:
    refuse_key(rig, times=1)
    await rig.hear(search())
    await rig.hear(resolved(rig, search(started=rig.clock.advance(MINUTE))))
    await rig.hear(search(started=rig.clock.advance(MINUTE)))
    assert calls(rig)[-1] == ("trigger", "5", 202)


async def test_many_refusals_of_one_key_are_one_alarm_which_ends_when_it_is_taken_again(rig: Rig) -> None:
    refuse_key(rig)
    await rig.hear(*(search(fingerprint=str(n)) for n in range(20)))
    alarm = ("d", f"{SELF}:routing-key-refused:{SEARCH}")
    assert alarm in open_alerts(rig)
    assert calls(rig, about_us=True) == [("trigger", "d", 202)]

    rig.sandbox.heal()
    await rig.hear(make_alert())
    assert alarm in open_alerts(rig), "another key says nothing about this one"
    await rig.hear(search(fingerprint="new"))
    assert alarm not in open_alerts(rig)
    refuse_key(rig, times=1)
    await rig.hear(search(fingerprint="newer"))
    assert alarm in open_alerts(rig)
    await rig.hear(search(fingerprint="newest"))
    assert calls(rig, about_us=True) == [("trigger", "d", 202), ("resolve", "d", 202)] * 2


async def test_a_key_that_was_never_refused_has_no_alarm_to_end(rig: Rig) -> None:
    await rig.hear(search(), make_alert())
    assert calls(rig, about_us=True) == []


async def test_a_rerouted_page_counts_against_the_limit_of_the_key_it_goes_to(rig: Rig) -> None:
    limited = Worker(rig.store, rig.worker._pagerduty, lambda: rig.active, rig.clock, calls_per_minute=2)
    refuse_key(rig)
    await rig.store.accept([make_alert("a"), make_alert("b")], rig.clock())
    await limited.run_until_idle()
    await rig.store.accept([search()], rig.clock())
    await limited.run_until_idle()
    assert calls(rig)[2:] == [("trigger", "5", 400)]
    rig.clock.advance(MINUTE)
    await limited.run_until_idle()
    assert calls(rig)[3:] == [("trigger", "d", 202)]


async def test_an_alarm_outlives_the_worker_that_raised_it_and_ends_all_the_same(rig: Rig) -> None:
    refuse_key(rig)
    await rig.hear(search())
    rig.sandbox.heal()
    after_restart = Worker(rig.store, rig.worker._pagerduty, lambda: rig.active, rig.clock, calls_per_minute=0)
    await rig.store.accept([search(fingerprint="new")], rig.clock())
    await after_restart.run_until_idle()
    assert calls(rig, about_us=True) == [("trigger", "d", 202), ("resolve", "d", 202)]


async def test_when_the_fallback_is_refused_too_there_is_a_dead_letter_and_no_end_of_alarms(rig: Rig) -> None:
    rig.change_rules({}, **{FALLBACK: FALLBACK_KEY})
    rig.sandbox.fail(403, times=1_000)
    with capture_logs() as log:
        await rig.hear(search())
        await rig.settle(HOUR)
    assert calls(rig) == [("trigger", "5", 403), ("trigger", "f", 403)]
    assert calls(rig, about_us=True) == [("trigger", "d", 403), ("trigger", "f", 403)]
    assert await outcome(rig, search()) is Outcome.DEAD_LETTERED
    dead = [entry for entry in log if entry["event"] == "event refused; kept as a dead letter"]
    assert {(entry["log_level"], entry["objection"]) for entry in dead} == {("error", "key")}
    assert not any(FALLBACK_KEY in repr(entry) for entry in log)


async def test_the_default_key_has_no_fallback_but_the_setting(rig: Rig) -> None:
    refuse_key(rig, DEFAULT_KEY)
    await rig.hear(make_alert())
    assert calls(rig) == [("trigger", "d", 400)]
    assert await outcome(rig, make_alert()) is Outcome.DEAD_LETTERED

    rig.change_rules({}, **{FALLBACK: FALLBACK_KEY})
    await rig.hear(make_alert("beef"))
    assert open_alerts(rig) == {("f", "alertmanager:beef"), ("f", f"{SELF}:routing-key-refused:pagerduty:default")}


async def test_no_other_key_closes_what_a_refused_one_opened(rig: Rig) -> None:
    await rig.hear(search())
    refuse_key(rig)
    await rig.hear(resolved(rig, search()))
    await rig.settle(HOUR)
    assert calls(rig) == [("trigger", "5", 202), ("resolve", "5", 400)]
    assert await outcome(rig, search()) is Outcome.DEAD_LETTERED


async def test_a_repair_by_a_refused_key_pages_nobody_else(rig: Rig) -> None:
    rig.sandbox.fail(504, routing_key=SEARCH_KEY)
    await rig.hear(search())
    await rig.settle(MINUTE)
    refuse_key(rig)
    await rig.settle(2 * MINUTE)
    await rig.settle(HOUR)
    assert calls(rig) == [("trigger", "5", 504), ("trigger", "5", 202), ("trigger", "5", 400)]
    assert await outcome(rig, search()) is Outcome.DELIVERED


async def test_news_of_what_an_older_key_opened_goes_to_the_present_one(rig: Rig) -> None:
    """The key was rotated and the old one deleted while the alert was open."""
    await rig.hear(search())
    refuse_key(rig)
    rig.change_rules({}, **{SEARCH: "n" * 32, FALLBACK: FALLBACK_KEY})
    await rig.hear(search(severity="warning"))
    assert calls(rig)[1:] == [("trigger", "5", 400), ("trigger", "n", 202)]
    assert calls(rig, about_us=True) == [], "the key in force is fine"


async def test_a_rerouted_page_can_still_be_shortened(rig: Rig) -> None:
    rig.change_rules({}, **{FALLBACK: FALLBACK_KEY})
    refuse_key(rig)
    rig.sandbox.fail(413, routing_key=FALLBACK_KEY)
    await rig.hear(search())
    assert calls(rig) == [("trigger", "5", 400), ("trigger", "f", 413), ("trigger", "f", 202)]
    page = next(call for call in rig.sandbox.events if call.routing_key == FALLBACK_KEY)
    assert page.event["payload"]["custom_details"]["alertrouter_delivery"] == [
        "not the whole alert: PagerDuty refused it with what the sender wrote in it",
        f"through another routing key: PagerDuty refused that of {SEARCH}",
        "PagerDuty said: HTTP 413: The sandbox was told to answer 413",
    ]


# --- the setting -----------------------------------------------------------------------------------------------------


async def test_the_fallback_key_is_a_setting(settings: Settings, sandbox: Sandbox) -> None:
    sandbox.fail(403, times=1_000, routing_key=DEFAULT_KEY)
    chosen = settings.model_copy(update={"pagerduty_fallback_routing_key": SecretStr(FALLBACK_KEY)})
    async with serving(chosen) as client:
        await client.post("/webhooks/alertmanager", alertmanager_body(alertmanager_alert()))
        await sandbox.wait_for(lambda events: len(events) == 2)
    assert {call.routing_key for call in sandbox.events} == {FALLBACK_KEY}


def test_the_fallback_key_is_a_secret_of_32_characters(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{FALLBACK_KEY}\n")
    found = load_settings({"ALERTROUTER_PAGERDUTY_FALLBACK_ROUTING_KEY_FILE": str(tmp_path / "key")}, {})
    assert found.pagerduty_fallback_routing_key is not None
    assert found.pagerduty_fallback_routing_key.get_secret_value() == FALLBACK_KEY
    assert FALLBACK_KEY not in repr(found)
    with pytest.raises(SettingsInvalid, match="32 letters and digits") as wrong:
        load_settings({"ALERTROUTER_PAGERDUTY_FALLBACK_ROUTING_KEY": "too-short"}, {})
    assert "too-short" not in str(wrong.value)
    with pytest.raises(SettingsInvalid, match="secrets do not belong there"):
        load_settings({}, {}, {"pagerduty_fallback_routing_key": FALLBACK_KEY})
