"""Shadow rules: they judge what the live ones judge, nothing is sent by them, and what differs is on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alertrouter import telemetry
from alertrouter.delivery.shadow import Shadow
from alertrouter.delivery.worker import Worker
from alertrouter.rules.load import load_rules
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from tests.alerts import make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import Client, Rig, serving, write_rules
from tests.service.test_http import PATH, idle
from tests.waiting import until

MUTE_ALL = """
    sets:
      start:
        - rule: mute-all
          owner: team-sre
          when: event.custom_details.service == 'payment'
          then: {suppress: true, reason: trying, expires: 2030-01-01}
"""
SEVERAL = """
    sets:
      start:
        - rule: several
          owner: team-sre
          when: trigger_count over 5 minutes > 2
          then: {severity: info}
"""


async def shadow_of(client: Client) -> dict[str, Any]:
    status, text = await client.get("/api/v1/shadow")
    assert status == 200, text
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def shadow_rules(tmp_path: Path) -> Path:
    return write_rules(tmp_path / "shadow", {"global.yaml": MUTE_ALL})


async def test_what_shadow_rules_would_do_is_on_record_and_nothing_else_happens(
    settings: Settings, shadow_rules: Path, sandbox: Sandbox
) -> None:
    differing = telemetry.SHADOW_DIFFERENCES.labels("verdict")._value
    before = differing.get()
    async with serving(settings.model_copy(update={"shadow_rules": shadow_rules})) as client:
        await until(lambda: client.service.shadow is not None and client.service.shadow.ruleset is not None)
        await client.post(
            PATH, alertmanager_body(alertmanager_alert(n="1"), alertmanager_alert(n="2", service="other"))
        )
        await sandbox.wait_for(lambda events: len(events) == 2)
        await idle(client)

        async def has_judged() -> bool:
            return bool((await shadow_of(client))["judged"] == 2)

        await until(has_judged)
        summary = await shadow_of(client)
        assert (summary["differing"], summary["skipped"], summary["problems"]) == (1, 0, [])
        assert summary["by_field"]["verdict"] == 1
        [latest] = summary["latest"]
        assert latest["differences"]["verdict"] == ["deliver", "suppress"]
        assert latest["shadow_rule"] == "mute-all"
        [entry] = json.loads((await client.get("/api/v1/history?kind=shadow"))[1])
        assert (entry["id"], entry["differences"]) == (latest["id"], latest["differences"])
        ends = json.loads((await client.get("/api/v1/history"))[1])
        assert {end["outcome"] for end in ends} == {"delivered"}
    assert differing.get() - before == 1
    assert len(sandbox.events) == 2


async def test_without_shadow_rules_there_is_nothing_to_ask(client: Client) -> None:
    status, text = await client.get("/api/v1/shadow")
    assert status == 404 and "ALERTROUTER_SHADOW_RULES" in text


async def test_broken_shadow_rules_disturb_nobody_and_are_taken_up_when_mended(
    settings: Settings, shadow_rules: Path, sandbox: Sandbox
) -> None:
    (shadow_rules / "global.yaml").write_text("sets: [")
    async with serving(settings.model_copy(update={"shadow_rules": shadow_rules})) as client:

        async def is_refused() -> bool:
            return "global.yaml" in str((await shadow_of(client))["problems"])

        await until(is_refused)
        assert (await client.get("/-/ready"))[0] == 200
        assert (await client.post("/-/reload"))[0] == 200
        await client.post(PATH, alertmanager_body(alertmanager_alert(n="1")))
        await sandbox.wait_for(lambda events: len(events) == 1)
        assert (await shadow_of(client))["version"] is None
        write_rules(shadow_rules, {"global.yaml": MUTE_ALL})

        async def is_loaded() -> bool:
            return (await shadow_of(client))["version"] is not None

        await until(is_loaded)
        await client.post(PATH, alertmanager_body(alertmanager_alert(n="2")))
        await sandbox.wait_for(lambda events: len(events) == 2)

        async def has_judged() -> bool:
            return bool((await shadow_of(client))["differing"] == 1)

        await until(has_judged)


async def test_shadow_rules_that_are_missing_disturb_nobody(settings: Settings, tmp_path: Path) -> None:
    async with serving(settings.model_copy(update={"shadow_rules": tmp_path / "nowhere"})) as client:
        assert (await client.post(PATH, alertmanager_body(alertmanager_alert())))[0] == 202
        await idle(client)

        async def is_refused() -> bool:
            return bool((await shadow_of(client))["problems"])

        await until(is_refused)


@pytest.fixture
def shadowed(rig: Rig, tmp_path: Path) -> Shadow:
    """The rig's worker, with rules beside it that begin to differ at the third alert."""
    shadow = Shadow(rig.store)
    shadow.put_in_force(load_rules(write_rules(tmp_path / "shadow", {"global.yaml": SEVERAL})))
    rig.worker = Worker(
        rig.store,
        rig.worker._pagerduty,
        lambda: rig.active,
        rig.clock,
        calls_per_minute=0,
        on_judged=shadow.heard,
    )
    return shadow


async def test_thresholds_of_shadow_rules_count_apart(rig: Rig, shadowed: Shadow, tmp_path: Path) -> None:
    """A rule of one name at one place counts other alerts in the shadow; neither finds what the other has counted."""
    only = SEVERAL.replace("when: ", "when: event.custom_details.service == 'payment' and ")
    rig.change_rules({"global.yaml": only})
    other = only.replace("'payment'", "'invoice'")
    shadowed.put_in_force(load_rules(write_rules(tmp_path / "shadow", {"global.yaml": other})))
    for service in ("payment", "invoice", "payment", "invoice", "payment", "invoice"):
        await rig.hear(make_alert(f"f{len(rig.sandbox.events)}", service=service))
        await shadowed.step()
    severities = [call.event["payload"]["severity"] for call in rig.sandbox.events]
    assert severities == ["critical", "critical", "critical", "critical", "info", "critical"]
    assert shadowed.summary()["by_field"] == {"severity": 2}, "the third payment and the third invoice"


async def test_one_difference_is_put_down_once_however_often_it_is_judged(rig: Rig, shadowed: Shadow) -> None:
    for _ in range(3):
        for number in range(3):
            await rig.hear(make_alert(f"f{number}", env="staging"))
        await shadowed.step()
        rig.clock.advance(60_000)
    shadow_entries = [
        fields for _, fields in await rig.store.history_entries("-", "+", 1000) if fields["kind"] == "shadow"
    ]
    assert shadowed.summary()["judged"] == 9
    put_down = [(fields["id"], fields["differences"]) for fields in shadow_entries]
    assert len(put_down) == len(set(put_down)) == 5, "each alert's verdict, and two alerts' severity from the third on"


async def test_more_than_it_can_judge_is_skipped_and_counted(
    rig: Rig, shadowed: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alertrouter.delivery.shadow._MOST_WAITING", 2)
    await rig.hear(*(make_alert(f"f{number}") for number in range(5)))
    await shadowed.step()
    summary = shadowed.summary()
    assert (summary["judged"], summary["skipped"]) == (2, 3)


async def test_other_shadow_rules_begin_to_count_anew(rig: Rig, shadowed: Shadow, tmp_path: Path) -> None:
    await rig.hear(make_alert())
    await shadowed.step()
    assert shadowed.summary()["judged"] == 1
    shadowed.put_in_force(load_rules(write_rules(tmp_path / "shadow", {"global.yaml": MUTE_ALL})))
    assert shadowed.summary()["judged"] == 0
