"""The call limit: per routing key, for all replicas; what waits goes in the order of its class, and a digest says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

import pytest

from alertrouter.alert import Severity
from alertrouter.app import _active
from alertrouter.delivery.worker import Worker
from alertrouter.destinations.pagerduty import Outcome, PagerDuty, TryAgain
from alertrouter.settings import load_settings
from alertrouter.store.store import limited_as
from tests.alerts import MINUTE, SECOND, make_alert
from tests.service.conftest import DEFAULT_KEY, SEARCH_KEY, Rig

NEW_KEY = "n" * 32
DIGEST = "digest:payment-service"


def limit(rig: Rig, calls_per_minute: int, **own: int) -> None:
    """Work with a limit; `own` are those of single keys, by their first letter."""
    keys = {key[0]: key for key in (DEFAULT_KEY, SEARCH_KEY, NEW_KEY)}
    limits = {keys[letter.lstrip("_")]: calls for letter, calls in own.items()}
    rig.active = replace(rig.active, own_limits=MappingProxyType(limits))
    rig.worker = another(rig, calls_per_minute)


def another(rig: Rig, calls_per_minute: int) -> Worker:
    """One more replica."""
    return Worker(rig.store, rig.worker._pagerduty, lambda: rig.active, rig.clock, calls_per_minute=calls_per_minute)


def calls(rig: Rig, *, digests: bool = False) -> list[tuple[str, str, str]]:
    """What was sent, as (action, first character of the key, dedup_key)."""
    return [
        (str(call.event["event_action"]), call.routing_key[0], dedup_key)
        for call in rig.sandbox.calls
        if (dedup_key := str(call.event["dedup_key"])).startswith("digest:") is digests
    ]


def digests(rig: Rig) -> list[tuple[str, int | None]]:
    """The digests of payment-service, as (action, how many wait)."""
    return [
        (str(call.event["event_action"]), details(call.event).get("waiting"))
        for call in rig.sandbox.calls
        if call.event["dedup_key"] == DIGEST
    ]


def details(event: Mapping[str, Any]) -> Mapping[str, Any]:
    payload = event.get("payload")
    return payload["custom_details"] if payload else {}


async def minutes(rig: Rig, number: float) -> None:
    """Let time pass in steps of five seconds."""
    for _ in range(int(number * 12)):
        await rig.settle(5 * SECOND)


# --- the limit -------------------------------------------------------------------------------------------------------


async def test_what_is_pinned_to_an_old_key_is_counted_under_it(rig: Rig) -> None:
    """One destination, two keys: neither takes more than its own limit, and neither waits for the other."""
    limit(rig, 0)
    old = [make_alert(f"old-{n}", severity="info") for n in range(4)]
    await rig.hear(*old)
    rig.change_rules({}, **{"pagerduty:default": NEW_KEY})
    limit(rig, 3)
    before = len(rig.sandbox.calls)
    await rig.hear(
        *(make_alert(f"old-{n}", "resolved", ended=rig.clock()) for n in range(4)),
        *(make_alert(f"new-{n}", severity="info") for n in range(4)),
    )
    made = Counter((action, key) for action, key, _ in calls(rig)[before:])
    assert made == {("resolve", "d"): 3, ("trigger", "n"): 3}
    await rig.settle(MINUTE - 1)
    assert len(calls(rig)) == before + 6
    await rig.settle(1)
    made = Counter((action, key) for action, key, _ in calls(rig)[before:])
    assert made == {("resolve", "d"): 4, ("trigger", "n"): 4}


async def test_no_key_is_written_in_the_name_of_a_queue(rig: Rig) -> None:
    limit(rig, 1)
    await rig.hear(
        make_alert("a"), make_alert("b"), make_alert("c", service="search"), make_alert("d", service="search")
    )
    names = [name.decode() for name in await rig.store._client.keys("*")]
    assert any(":wait:" in name for name in names)
    assert not any(key in name for name in names for key in (DEFAULT_KEY, SEARCH_KEY))


async def test_a_key_may_have_a_limit_of_its_own(rig: Rig) -> None:
    limit(rig, 2, _5=4)
    await rig.hear(
        *(make_alert(f"p{n}") for n in range(6)),
        *(make_alert(f"s{n}", service="search") for n in range(6)),
    )
    assert Counter(key for _, key, _ in calls(rig)) == {"d": 2, "5": 4}
    limit(rig, 2, _5=0)
    await rig.settle(1)
    assert Counter(key for _, key, _ in calls(rig)) == {"d": 2, "5": 6}


@pytest.mark.parametrize(
    ("payment", "expected"),
    [
        ("", {SEARCH_KEY: 600}),
        (", calls_per_minute: 40", {SEARCH_KEY: 40}),
        (", calls_per_minute: 0", {SEARCH_KEY: 600}),
    ],
)
async def test_the_limit_of_a_key_is_written_beside_it(rig: Rig, payment: str, expected: Mapping[str, int]) -> None:
    """Where services share a key, the strictest of them holds."""
    rig.change_rules(
        {
            "services/payment-service.yaml": f"routing_key: {{env: PD_KEY_SEARCH{payment}}}\n",
            "services/search-service.yaml": "routing_key: {env: PD_KEY_SEARCH, calls_per_minute: 600}\n",
        }
    )
    settings = load_settings({}, {"pagerduty_routing_key": DEFAULT_KEY})
    assert _active(rig.active.ruleset, settings, {"PD_KEY_SEARCH": SEARCH_KEY}).own_limits == expected


async def test_classes_go_in_strict_order_over_all_services_of_a_key(rig: Rig) -> None:
    """Critical, what resolves, error, warning, info, and last what is only told again."""
    await rig.hear(make_alert("old"), make_alert("older"))
    limit(rig, 1)
    await rig.settle(4 * 60 * MINUTE)
    await rig.store.accept([make_alert("older")], rig.clock())  # forwarded again after four hours: a refresh
    for severity in ("info", "warning", "error"):
        await rig.store.accept([make_alert(severity, severity=severity, service="unknown")], rig.clock.advance(1))
    await rig.store.accept([make_alert("old", "resolved", ended=rig.clock.advance(1))], rig.clock())
    await rig.hear(make_alert("critical-1"), make_alert("critical-2"))
    await minutes(rig, 7)
    assert [key.removeprefix("alertmanager:") for _, _, key in calls(rig)[2:]] == [
        *("critical-1", "critical-2", "old", "error", "warning", "info", "older")
    ]


# --- a key that PagerDuty throttles ----------------------------------------------------------------------------------


async def test_a_throttled_key_is_left_alone_by_all_replicas_and_the_others_flow(rig: Rig) -> None:
    rig.sandbox.fail(429, routing_key=SEARCH_KEY)
    await rig.hear(make_alert("first", service="search"))
    other = another(rig, 0)
    await rig.store.accept([make_alert("second", service="search"), make_alert("third")], rig.clock())
    await other.run_until_idle()
    assert [key for _, key, _ in calls(rig)] == ["5", "d"]
    rig.clock.advance(30 * SECOND - 1)
    await other.run_until_idle()
    assert len(calls(rig)) == 2
    rig.clock.advance(1)
    await other.run_until_idle()
    assert [key for _, _, key in calls(rig)[2:]] == ["alertmanager:first", "alertmanager:second"]
    assert await rig.store.next_due() == 0


async def test_what_was_throttled_keeps_its_place(rig: Rig) -> None:
    """A critical that was refused for now goes before what came meanwhile and is worth less."""
    rig.sandbox.fail(429)
    await rig.hear(make_alert("critical"))
    await rig.hear(make_alert("info", severity="info"), make_alert("error", severity="error"))
    await rig.settle(30 * SECOND)
    assert [key for _, _, key in calls(rig)[1:]] == [f"alertmanager:{name}" for name in ("critical", "error", "info")]


@pytest.mark.parametrize(("asked", "pause_ms"), [(0, SECOND), (45, 45 * SECOND), (86_400, 10 * MINUTE)])
async def test_the_pause_is_bounded(rig: Rig, asked: int, pause_ms: int) -> None:
    rig.sandbox.fail(429, retry_after=asked)
    await rig.hear(make_alert())
    await rig.settle(pause_ms - 1)
    assert len(rig.sandbox.calls) == 1
    await rig.settle(1)
    assert [call.status for call in rig.sandbox.calls] == [429, 202]


# --- a PagerDuty that is down ----------------------------------------------------------------------------------------


async def test_when_pagerduty_is_back_the_most_urgent_goes_first_and_within_seconds(rig: Rig) -> None:
    limit(rig, 20)
    rig.sandbox.fail(503, times=1_000_000)
    severities = ("info", "warning", "error", "critical")
    await rig.hear(*(make_alert(f"{severity}-{n}", severity=severity) for n in range(8) for severity in severities))
    await minutes(rig, 10)
    assert len(rig.sandbox.calls) < 20 + 10 * 12 + 5, "one try every five seconds"
    failed = len(calls(rig))
    rig.sandbox.heal()
    await rig.settle(5 * SECOND)
    assert len(calls(rig)[failed:]) >= 7, "what failed took few of the calls"
    await minutes(rig, 4)
    sent = [key.removeprefix("alertmanager:").split("-")[0] for _, _, key in calls(rig)[failed:]]
    assert sorted(sent, key=severities.index, reverse=True) == sent
    assert Counter(sent) == dict.fromkeys(severities, 8)


async def test_an_alert_that_only_fails_itself_keeps_no_other_waiting(rig: Rig) -> None:
    """It is the most urgent of all; what is behind it gets through, by another try."""
    poison = make_alert("poison")
    client = rig.worker._pagerduty

    class Line:
        """Fails for the one alert, and lets the others through."""

        async def send(self, body: bytes) -> Outcome:
            return TryAgain("HTTP 500", None, ambiguous=False) if b"poison" in body else await client.send(body)

    rig.worker = Worker(rig.store, cast(PagerDuty, Line()), lambda: rig.active, rig.clock)
    await rig.hear(poison)
    await minutes(rig, 5)
    await rig.hear(*(make_alert(f"a{n}", severity="info") for n in range(6)))
    await minutes(rig, 1)
    assert {key for (_, key) in rig.sandbox._api.alerts} == {f"alertmanager:a{n}" for n in range(6)}


# --- digests ---------------------------------------------------------------------------------------------------------


async def test_a_digest_says_what_waits_and_goes_ahead_of_its_class(rig: Rig) -> None:
    limit(rig, 4)
    storm = [make_alert(f"a{n}", severity="critical" if n == 11 else "warning", summary=f"s{n}") for n in range(16)]
    await rig.hear(*storm, make_alert("other", "firing", severity="info", service="search"))
    sent = [key for _, key_, key in calls(rig) if key_ == "d"]
    assert sent[0] == "alertmanager:a11"
    await minutes(rig, 1)
    [told] = [call.event for call in rig.sandbox.calls if call.event["dedup_key"] == DIGEST]
    payload = told["payload"]
    assert payload["severity"] == "warning", "its one critical is not waiting any more"
    assert payload["summary"] == "payment-service: 12 alerts wait for PagerDuty's call limit, the worst warning"
    assert payload["custom_details"]["waiting_by_severity"] == {"warning": 12}
    assert len(payload["custom_details"]["first"]) == 10
    assert payload["custom_details"]["team"] == "team-payments"
    sent = [str(call.event["dedup_key"]) for call in rig.sandbox.calls if call.routing_key == DEFAULT_KEY]
    assert sent.index(DIGEST) == 4, "the first call of the next minute"
    assert calls(rig, digests=True) == [("trigger", "d", DIGEST)], "search has room"


async def test_digests_leave_most_of_the_calls_to_their_members(rig: Rig) -> None:
    """More services in the storm than the limit has calls: one digest a minute, three members."""
    names = [f"shop-{n}" for n in range(6)]
    router = [
        f"{{rule: {name}, when: event.custom_details.service == '{name}', then: {{route_to: {name}}}}}"
        for name in names
    ]
    rig.change_rules(
        {f"services/{name}.yaml": f"service: {name}\n" for name in names}
        | {"router.yaml": f"sets: {{start: [{', '.join(router)}]}}\ncatch_all: {{route_to: unrouted}}\n"}
    )
    limit(rig, 4)
    await rig.hear(*(make_alert(f"{name}-{n}", service=name) for name in names for n in range(5)))
    await minutes(rig, 3)
    assert (len(calls(rig)), len(calls(rig, digests=True))) == (4 + 3 * 3, 3)
    assert len({key for _, _, key in calls(rig, digests=True)}) == 3, "by turns"


async def test_whose_digest_was_never_told_leaves_nothing_behind(rig: Rig) -> None:
    """Two services, and one digest a minute: the second is over before its turn."""
    search = "service: search-service\nsets: {start: []}\ncatch_all: {}\n"
    rig.change_rules({"services/search-service.yaml": search})
    limit(rig, 4)
    await rig.hear(*(make_alert(f"{name}{n}", service=name) for name in ("payment", "search") for n in range(5)))
    await minutes(rig, 0.5)
    assert len([name async for name in rig.store._client.scan_iter("*gathered*")]) == 1
    await minutes(rig, 5)
    for name in ("payment", "search"):
        await rig.hear(*(make_alert(f"{name}{n}", "resolved", service=name, ended=rig.clock()) for n in range(5)))
        await minutes(rig, 5)
    assert not [name async for name in rig.store._client.scan_iter("*gathered*")]


async def test_an_alert_that_cannot_be_read_keeps_no_digest_back(rig: Rig) -> None:
    """Another version of this program may have written it, and be the one that sends it."""
    limit(rig, 4)
    await rig.hear(*(make_alert(f"a{n}") for n in range(12)))
    [last] = await rig.store._client.zrange(rig.store.keys.wait + limited_as(DEFAULT_KEY), -1, -1)
    await rig.store._client.hset(rig.store.keys.alert + last.decode().rpartition("\t")[2], "alert", "of another make")
    await minutes(rig, 2)
    assert [waiting for _, waiting in digests(rig)] == [8, 5]


async def test_a_digest_is_told_anew_at_most_once_a_minute_and_ends_with_its_members(rig: Rig) -> None:
    limit(rig, 6)
    storm = [make_alert(f"a{n}") for n in range(18)]
    await rig.hear(*storm)
    await minutes(rig, 5)
    # 18 less the 6 that went at once; a digest takes one call of each minute; below 2 (20 s) it is not told any more
    assert digests(rig) == [("trigger", 12), ("trigger", 7)]
    assert Counter(key for _, _, key in calls(rig)) == {alert.id: 1 for alert in storm}
    told = len(digests(rig))
    await rig.hear(*(make_alert(f"a{n}", "resolved", ended=rig.clock()) for n in range(17)))
    await minutes(rig, 10)
    assert len(digests(rig)) == told, "one is open"
    await rig.hear(make_alert("a17", "resolved", ended=rig.clock()))
    await minutes(rig, 1)
    assert digests(rig)[told:] == [("resolve", None)]
    assert not rig.sandbox._api.alerts
    assert not [name async for name in rig.store._client.scan_iter("*digests*")]
    assert not [name async for name in rig.store._client.scan_iter("*gathered*")]


async def test_a_second_storm_has_a_digest_of_its_own(rig: Rig) -> None:
    limit(rig, 4)
    for name in ("a", "b"):
        storm = [make_alert(f"{name}{n}") for n in range(10)]
        await rig.hear(*storm)
        await minutes(rig, 5)
        await rig.hear(*(make_alert(f"{name}{n}", "resolved", ended=rig.clock()) for n in range(10)))
        await minutes(rig, 5)
    opened = [call for call in rig.sandbox.calls if call.result.value == "opened" and call.event["dedup_key"] == DIGEST]
    assert len(opened) == 2
    assert not rig.sandbox._api.alerts


@pytest.mark.parametrize("calls_per_minute", [0, 20, 3])
async def test_there_is_no_digest_where_nothing_waits_for_a_minute(rig: Rig, calls_per_minute: int) -> None:
    """Nor where it would take more than a quarter of the calls."""
    limit(rig, calls_per_minute)
    await rig.hear(*(make_alert(f"a{n}") for n in range(40)))
    await minutes(rig, 3)
    assert calls(rig, digests=True) == []


async def test_resolves_that_wait_make_no_page(rig: Rig) -> None:
    await rig.hear(*(make_alert(f"a{n}") for n in range(10)))
    limit(rig, 4)
    await rig.hear(*(make_alert(f"a{n}", "resolved", ended=rig.clock()) for n in range(10)))
    await minutes(rig, 6)
    assert calls(rig, digests=True) == []
    assert not rig.sandbox._api.alerts


async def test_a_digest_left_by_a_worker_with_a_limit_ends_without_one(rig: Rig) -> None:
    limit(rig, 4)
    await rig.hear(*(make_alert(f"a{n}") for n in range(10)))
    await minutes(rig, 1)
    assert digests(rig)
    limit(rig, 0)
    await rig.hear(*(make_alert(f"a{n}", "resolved", ended=rig.clock()) for n in range(10)))
    await minutes(rig, 1)
    assert not rig.sandbox._api.alerts


async def test_what_reached_only_the_catch_all_has_a_digest_too(rig: Rig) -> None:
    limit(rig, 4)
    await rig.hear(*(make_alert(f"a{n}", severity=Severity.ERROR, service="unknown") for n in range(10)))
    await minutes(rig, 1)
    assert calls(rig, digests=True) == [("trigger", "d", "digest:unrouted")]
