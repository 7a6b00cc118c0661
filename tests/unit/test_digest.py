"""Storms and digests: when there is one, whose is told, and what it says."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from alertrouter.alert import Severity, Status
from alertrouter.delivery.digest import Limits, Tally, choose, digest_of, find_storms, over, tally
from alertrouter.delivery.reconcile import Rank
from alertrouter.store.store import Gathered, Storms, limited_as
from tests.alerts import MINUTE, NIGHT, make_alert

KEY = "k" * 32
QUEUE = limited_as(KEY)


def seen(sizes: dict[str, int], storms: frozenset[str] = frozenset(), digests: dict[str, int] | None = None) -> Storms:
    return Storms(sizes, storms, 0, digests or {})


@pytest.mark.parametrize(
    ("size", "was_storm", "is_storm"),
    [(60, False, False), (61, False, True), (61, True, True), (21, True, True), (20, True, False), (0, True, False)],
)
def test_a_storm_begins_above_a_minute_of_the_limit_and_ends_at_twenty_seconds(
    size: int, was_storm: bool, is_storm: bool
) -> None:
    found = find_storms(seen({"q": size}, frozenset({"q"} if was_storm else ())), Limits(60))
    assert found == ({"q": 60} if is_storm else {})


@pytest.mark.parametrize(("own", "found"), [(600, {}), (0, {}), (3, {}), (50, {QUEUE: 50})])
def test_a_keys_own_limit_decides(own: int, found: dict[str, int]) -> None:
    """No limit has no storm, and one below four leaves no room for a digest."""
    assert find_storms(seen({QUEUE: 200}), Limits(110, MappingProxyType({KEY: own}))) == found


def test_there_is_a_limit_where_any_key_has_one() -> None:
    assert not Limits(0).any
    assert not Limits(0, MappingProxyType({KEY: 0})).any
    assert Limits(0, MappingProxyType({KEY: 5})).any
    assert KEY not in repr(Limits(0, MappingProxyType({KEY: 5})))


def test_stretches_and_queues_of_one_service_are_added_up_most_urgent_first() -> None:
    critical, error = make_alert("c"), make_alert("e", severity="error")
    [found] = tally(
        [
            Gathered("shop", Rank.ERROR, 1000, (error,) * 10),
            Gathered("shop", Rank.ERROR, 5, (error,)),
            Gathered("shop", Rank.CRITICAL, 2, (critical, critical)),
        ]
    )
    assert (found.number, found.worst) == (1007, Severity.CRITICAL)
    assert found.numbers == {Severity.ERROR: 1005, Severity.CRITICAL: 2}
    assert found.first == (critical, critical, *(error,) * 8)


def test_new_then_worse_then_larger_digests_are_told_first_and_none_twice_in_a_minute() -> None:
    def waits(service: str, number: int, severity: Severity = Severity.ERROR) -> Tally:
        return Tally(service, {severity: number}, ())

    digests = {"told": NIGHT - MINUTE, "lately": NIGHT - MINUTE + 1}
    found = [
        waits("told", 99),
        waits("lately", 99),
        waits("few", 1),
        waits("many", 5),
        waits("bad", 1, Severity.CRITICAL),
    ]
    names = [each.service for each in choose(found, seen({}, digests=digests), {"q": 12, "other": 4}, NIGHT)]
    assert names == ["bad", "many", "few", "told"]
    assert len(choose(found, seen({}, digests=digests), {"q": 11}, NIGHT)) == 2


def test_a_digest_says_what_it_is_about() -> None:
    found = Tally("shop", {Severity.INFO: 1200, Severity.ERROR: 1}, (make_alert(severity="error"),))
    digest = digest_of(found, NIGHT)
    assert (digest.id, digest.status, digest.event.severity) == ("digest:shop", Status.FIRING, Severity.ERROR)
    assert digest.event.summary == "shop: 1,201 alerts wait for PagerDuty's call limit, the worst error"
    assert digest.event.custom_details["waiting_by_severity"] == {"error": 1, "info": 1200}
    assert digest.event.custom_details["first"] == [
        {"summary": "payment is down", "severity": "error", "dedup_key": "alertmanager:f00d"}
    ]
    assert digest_of(found, NIGHT + MINUTE).episode_at > digest.episode_at, "told anew, it is news"
    assert (over("shop").id, over("shop").status) == (digest.id, Status.RESOLVED)
    assert digest_of(Tally("", {Severity.INFO: 1}, ()), NIGHT).event.summary.startswith("unrouted: 1 alert waits")
