"""/-/ready: what is wrong though alerts are accepted, each with what to do."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from alertrouter.settings import Settings
from alertrouter.store.clock import RedisClock
from alertrouter.store.health import find_faults
from tests.alerts import NIGHT
from tests.service.conftest import Client, Rig, serving, write_rules
from tests.waiting import until

#: What a warning tells whoever reads it to do: the words after its last semicolon begin so.
TO_DO = ("bring ", "make ", "put ", "look ", "wait", "install ", "find ", "set ", "mend ", "`alertrouter ", "delete ")


def says_what_to_do(warning: str) -> bool:
    """Whether it ends in something to do."""
    return any(part.strip().startswith(TO_DO) for part in warning.split(";")[1:])


async def warnings(client: Client) -> list[str]:
    status, text = await client.get("/-/ready")
    assert status == 200
    found: list[str] = json.loads(text)["warnings"]
    assert all(says_what_to_do(each) for each in found), found
    return found


@pytest.mark.parametrize(
    "info",
    [
        {"redis_version": "6.2.1"},
        {"loading": 1},
        {"maxmemory_policy": "allkeys-lru"},
        {"aof_enabled": 0},
        {"aof_last_write_status": "err"},
        {"used_memory": 60, "maxmemory": 100},
        {"used_memory": 90, "maxmemory": 100},
    ],
)
def test_each_fault_of_redis_says_what_to_do(info: dict[str, object]) -> None:
    [fault] = find_faults({"aof_enabled": 1, **info}, "always").values()
    assert says_what_to_do(fault), fault


@pytest.mark.parametrize("fsync", ["everysec", "no"])
def test_a_loose_fsync_says_what_to_do(fsync: str) -> None:
    [fault] = find_faults({"aof_enabled": 1}, fsync).values()
    assert says_what_to_do(fault), fault


async def test_what_the_store_warns_of_says_what_to_do(rig: Rig) -> None:
    rig.store._lost_at = NIGHT
    rig.store._replicas.waived = True
    found = rig.store.warnings()
    assert len(found) == 2 and all(says_what_to_do(each) for each in found), found


async def test_redis_away_and_a_full_disk_say_what_to_do(client: Client) -> None:
    assert await warnings(client) == []
    client.service.intake._away = True
    client.service.intake._direct.journal_problem = "No space left on device"
    found = client.service.warnings()  # before anything looks at Redis again
    assert len(found) == 2 and all(says_what_to_do(each) for each in found), found


async def test_faulty_rules_are_told_until_they_are_mended(client: Client) -> None:
    rules = client.service._settings.rules
    good = (rules / "global.yaml").read_text()
    (rules / "global.yaml").write_text("sets: {start: [{rule: x, when: event.class = 'x'}]}\n")
    assert (await client.post("/-/reload"))[0] == 422
    [warning] = await warnings(client)
    assert f"({rules / 'global.yaml'}:1:" in warning and f"`alertrouter check {rules}` lists all" in warning
    (rules / "global.yaml").write_text(good)
    assert (await client.post("/-/reload"))[0] == 200
    assert await warnings(client) == []


async def test_a_quarantined_service_is_told(client: Client) -> None:
    write_rules(client.service._settings.rules, {"services/payment-service.yaml": "sets: 3\n"})
    assert (await client.post("/-/reload"))[0] == 200
    [warning] = await warnings(client)
    assert warning.startswith("services/payment-service.yaml is faulty")


async def test_faulty_shadow_rules_are_told(settings: Settings, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "router.yaml").write_text("catch_all: {route_to: nowhere}\n")
    async with serving(settings.model_copy(update={"shadow_rules": shadow})) as client:
        await until(lambda: bool(client.service.shadow and client.service.shadow.problems))
        [warning] = await warnings(client)
        assert warning.startswith(f"the shadow rules in {shadow} are faulty")


async def test_a_clock_that_is_off_is_told(client: Client) -> None:
    clock = client.service._clock
    assert isinstance(clock, RedisClock)
    client.service.worker._keep_time = None  # which measures it anew
    await client.service.keep_time()
    for skew_ms, where in ((2500, "2.5 s ahead of Redis'"), (-2500, "2.5 s behind Redis'")):
        clock.skew = skew_ms
        [warning] = await warnings(client)
        assert where in warning
    clock.skew = 900
    assert await warnings(client) == []


async def test_a_history_that_cannot_be_written_is_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("alertrouter.history.writing.HistoryFiles.own", full)
    async with serving(settings.model_copy(update={"history_path": tmp_path / "history"})) as client:
        await until(lambda: bool(client.service.history_writer and client.service.history_writer.problem))
        [warning] = await warnings(client)
        assert "ALERTROUTER_HISTORY_PATH (No space left on device)" in warning
