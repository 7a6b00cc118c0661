"""The world that tests and replays run in: its clock, its PagerDuty, and what it remembers of each decision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from alertrouter.alert import Status
from alertrouter.errors import StoreUnavailable
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import CountQuery, Ruleset
from alertrouter.simulation.world import World, WorldClock, keys_for, throwaway_redis
from tests.alerts import MINUTE, NIGHT, make_alert
from tests.rules.test_wrong_files import fill

OFTEN = """\
sets:
  start:
    - rule: often
      when: trigger_count over 10 minutes >= 2
      then: {priority: P1}
"""


def rules(folder: Path, **files: str) -> Ruleset:
    fill(folder, {"router.yaml": "catch_all: {route_to: unrouted}\n", **files})
    return load_rules(folder)


@asynccontextmanager
async def world_of(ruleset: Ruleset) -> AsyncIterator[World]:
    async with throwaway_redis() as (client, folder):
        world = World(client, "main", folder, WorldClock(NIGHT), keys_for(ruleset))
        try:
            yield world
        finally:
            world.close()


def sent(world: World) -> list[str]:
    return [call.event["event_action"] for call in world.pagerduty.calls]


async def test_a_decision_can_be_come_to_again(tmp_path: Path) -> None:
    ruleset = rules(tmp_path, **{"global.yaml": OFTEN})
    async with world_of(ruleset) as world:
        await world.hear(make_alert("one"))
        await world.hear(make_alert("two"))
        first, second = world.judgements
        assert (first.decision.matched, second.decision.matched) == ((), ("often",))
        query = CountQuery("global/start/often/0/0", 10 * MINUTE, resetting=False)
        assert (first.counts[query], second.counts[query]) == (1, 2)
        for each in (first, second):
            again = evaluate(each.record.alert, ruleset, each.at, counts=each.counts)
            assert again == each.decision


async def test_what_rules_did_not_ask_is_nothing(tmp_path: Path) -> None:
    async with world_of(rules(tmp_path)) as world:
        await world.hear(make_alert("one"))
        (judgement,) = world.judgements
        query = CountQuery("another", MINUTE, resetting=False)
        assert query in judgement.counts
        assert judgement.counts[query] == 0


async def test_a_key_is_the_same_under_other_rules(tmp_path: Path) -> None:
    own_key = "routing_key: {env: KEY}"
    before = keys_for(rules(tmp_path / "before", **{"services/shop.yaml": own_key}))
    after = keys_for(rules(tmp_path / "after", **{"services/desk.yaml": own_key, "services/shop.yaml": own_key}))
    assert before.routing_keys.items() <= after.routing_keys.items()
    assert len(set(after.routing_keys.values())) == 3


async def test_what_is_due_happens_when_it_is_due(tmp_path: Path) -> None:
    held = "sets: {start: [{rule: held, then: {suspend: 5m}}]}"
    async with world_of(rules(tmp_path, **{"global.yaml": held})) as world:
        await world.hear(make_alert("one"))
        await world.advance_to(NIGHT + 60 * MINUTE)
        (call,) = world.pagerduty.calls
        assert call.received_at == NIGHT + 5 * MINUTE
        assert world.clock.now == NIGHT + 60 * MINUTE


async def test_another_process_takes_over_what_was_sent_past_redis(tmp_path: Path) -> None:
    async with world_of(rules(tmp_path)) as world:
        world.redis_is_away = True
        await world.hear(make_alert("one"))
        world.restart()
        await world.bring_redis_back()
        record = await world.store.record(make_alert("one").id)
        assert record is not None
        assert [told.is_open for told in record.told] == [True]
        await world.hear(make_alert("one", Status.RESOLVED, ended=NIGHT + 1))
        assert sent(world) == ["trigger", "resolve"]


async def test_nobody_waits_where_pagerduty_and_redis_both_fail(tmp_path: Path) -> None:
    """The direct path tries for five seconds; a minute of tests would be gone after twelve such steps."""
    async with world_of(rules(tmp_path)) as world:
        world.redis_is_away = True
        world.pagerduty.answer = 500
        for number in range(40):
            with pytest.raises(StoreUnavailable):
                await world.hear(make_alert(f"{number}"))
        assert sent(world) == []


async def test_the_names_behind_keys_are_kept_when_rules_change(tmp_path: Path) -> None:
    own_key = {"services/shop.yaml": "routing_key: {env: KEY}"}
    async with world_of(rules(tmp_path / "before", **own_key)) as world:
        other_key = {"services/desk.yaml": "routing_key: {env: KEY}"}
        await world.change_rules(keys_for(rules(tmp_path / "after", **other_key)))
        assert set(world.destinations.values()) == {"pagerduty:default", "pagerduty:shop", "pagerduty:desk"}
