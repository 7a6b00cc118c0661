"""Rules change while alerts flow: in force within two seconds, nothing lost, and a broken file changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import Client, serving, write_rules
from tests.waiting import until

PATH = "/webhooks/alertmanager"
TO_SEARCH = {"router.yaml": "sets: {start: []}\ncatch_all: {route_to: search-service}\n"}


def edit(folder: Path) -> None:
    """An editor that renames a new file over the old one."""
    new = folder / ".router.yaml.swp"
    new.write_text(TO_SEARCH["router.yaml"])
    new.rename(folder / "router.yaml")


def write_in_place(folder: Path) -> None:
    write_rules(folder, TO_SEARCH)


def swap_config_map(folder: Path) -> None:
    """Kubernetes: `..data` points to the present files, and is renamed over."""
    write_rules(folder / "..second", TO_SEARCH)
    (folder / "..data_tmp").symlink_to("..second")
    (folder / "..data_tmp").rename(folder / "..data")


def swap_git_sync(folder: Path) -> None:
    """git-sync: the rules directory is itself a link that is pointed elsewhere."""
    second = write_rules(folder.parent / "rev-2", TO_SEARCH)
    (folder.parent / "tmp-link").symlink_to(second)
    (folder.parent / "tmp-link").rename(folder)


def config_map(tmp_path: Path) -> Path:
    folder = tmp_path / "mount"
    write_rules(folder / "..first")
    (folder / "..data").symlink_to("..first")
    for name in ("global.yaml", "router.yaml", "services"):
        (folder / name).symlink_to(f"..data/{name}")
    return folder


def git_sync(tmp_path: Path) -> Path:
    first = write_rules(tmp_path / "sync" / "rev-1")
    (tmp_path / "sync" / "rules").symlink_to(first)
    return tmp_path / "sync" / "rules"


def plain(tmp_path: Path) -> Path:
    return write_rules(tmp_path / "rules")


@pytest.mark.parametrize(
    ("lay", "change"),
    [(plain, write_in_place), (plain, edit), (config_map, swap_config_map), (git_sync, swap_git_sync)],
    ids=["written", "renamed over", "ConfigMap", "git-sync"],
)
async def test_a_change_is_in_force_within_two_seconds(
    settings: Settings, tmp_path: Path, sandbox: Sandbox, lay: Callable[[Path], Path], change: Callable[[Path], None]
) -> None:
    folder = lay(tmp_path)
    async with serving(settings.model_copy(update={"rules": folder})) as client:
        before = client.service.rules.ruleset.version
        for _ in range(2):  # a watch that dies after the first change would fail the second
            change(folder)
            await until(lambda: client.service.rules.ruleset.version != before, within_s=2)
            await client.post(PATH, alertmanager_body(alertmanager_alert(n=before)))
            after = client.service.rules.ruleset.version
            assert await _team_of_last(sandbox) == "team-discovery"
            if lay is not plain:
                break
            write_rules(folder)
            await until(lambda after=after: client.service.rules.ruleset.version != after, within_s=2)  # type: ignore[misc]


async def _team_of_last(sandbox: Sandbox) -> str:
    events = await sandbox.wait_for(lambda events: len(events) > 0)
    return str(events[-1].event["payload"]["custom_details"]["team"])


async def test_nothing_is_lost_while_rules_change_and_break(client: Client, sandbox: Sandbox, rules: Path) -> None:
    stop = asyncio.Event()
    accepted: set[str] = set()

    async def send() -> None:
        while not stop.is_set():
            name = str(len(accepted))
            assert (await client.post(PATH, alertmanager_body(alertmanager_alert(n=name))))[0] == 202
            accepted.add(name)

    sender = asyncio.create_task(send())
    good = client.service.rules.ruleset.version
    (rules / "global.yaml").write_text("sets: {start: [")
    await until(lambda: len(accepted) > 50)
    assert client.service.rules.ruleset.version == good, "the broken file changed nothing"
    write_rules(rules, TO_SEARCH)
    await until(lambda: client.service.rules.ruleset.version != good, within_s=2)
    enough = len(accepted) + 50
    await until(lambda: len(accepted) > enough)
    stop.set()
    await sender
    events = await sandbox.wait_for(lambda events: len(events) >= len(accepted), timeout_s=20)
    details = [call.event["payload"]["custom_details"] for call in events]
    assert {detail["n"] for detail in details} == accepted
    assert {detail["team"] for detail in details} == {"team-payments", "team-discovery"}


async def test_one_broken_service_file_is_set_aside_alone(client: Client, sandbox: Sandbox, rules: Path) -> None:
    version = client.service.rules.ruleset.version
    broken = "service: payment-service\nteam: ["
    changed = "service: search-service\nteam: team-new\n"
    write_rules(rules, {"services/payment-service.yaml": broken, "services/search-service.yaml": changed})
    await until(lambda: client.service.rules.ruleset.version != version, within_s=2)
    status, answer = await client.post("/-/reload")
    assert status == 200
    quarantined: Any = answer["quarantined"]
    assert [entry["service"] for entry in quarantined] == ["payment-service"]
    assert "services/payment-service.yaml:3:1" in quarantined[0]["errors"][0]
    assert "alertrouter_rules_quarantined_services 1.0" in (await client.get("/metrics"))[1]
    ready, text = await client.get("/-/ready")
    assert ready == 200 and "services/payment-service.yaml" in text

    await client.post(PATH, alertmanager_body(alertmanager_alert(), alertmanager_alert(service="search")))
    events = await sandbox.wait_for(lambda events: len(events) == 2)
    teams = {call.event["payload"]["custom_details"]["team"] for call in events}
    assert teams == {"team-payments", "team-new"}, "its last good version stays in force, the others are new"


@pytest.mark.parametrize("broken", ["team: [", "disabled: !!bool maybe", "tier: !!int ''", "tier: !!timestamp soon"])
async def test_a_service_file_broken_at_a_cold_start_pages_through_the_catch_all(
    settings: Settings, sandbox: Sandbox, rules: Path, broken: str
) -> None:
    write_rules(rules, {"services/payment-service.yaml": f"service: payment-service\n{broken}\n"})
    async with serving(settings) as client:
        await client.post(PATH, alertmanager_body(alertmanager_alert()))
        [call] = await sandbox.wait_for(lambda events: len(events) == 1)
    assert call.event["payload"]["custom_details"]["alertrouter"]["quarantined"] == "payment-service"


async def test_a_new_key_pages_what_the_old_one_was_refused_for(
    client: Client, sandbox: Sandbox, rules: Path, tmp_path: Path
) -> None:
    """No rule file changed, only the secret that one of them names."""
    key = tmp_path / "key"
    key.write_text("1" * 32)
    write_rules(rules, {"services/search-service.yaml": f"service: search-service\nrouting_key: {{file: {key}}}\n"})
    await client.post("/-/reload")
    sandbox.fail(400, times=100, routing_key="1" * 32)
    await client.post(PATH, alertmanager_body(alertmanager_alert(service="search")))

    async def refused() -> bool:
        return (await client.service.backlog())["dead_letters"] == 1

    await until(refused)
    key.write_text("2" * 32)
    await client.post("/-/reload")
    [call] = await sandbox.wait_for(lambda events: len(events) == 1)
    assert call.routing_key == "2" * 32
