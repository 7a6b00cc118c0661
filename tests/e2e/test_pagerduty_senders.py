"""Programs that page PagerDuty by themselves, given another address and nothing else."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from alertrouter.sandbox import Sandbox
from tests.process import ROUTING_KEY, Process
from tests.rig.alertmanager import alertmanager
from tests.rig.tls import self_signed, tls_front
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(120)]


async def post_alerts(ports: list[int], *pods: str, over: bool = False) -> None:
    """Give every Alertmanager the same alerts of one group, firing or over."""
    now = datetime.now(UTC)
    ends_at = now if over else now + timedelta(hours=1)
    alerts = [
        {
            "labels": {"alertname": "PaymentDown", "pod": pod, "severity": "critical"},
            "startsAt": (now - timedelta(minutes=1)).isoformat(),
            "endsAt": ends_at.isoformat(),
        }
        for pod in pods
    ]
    async with aiohttp.ClientSession() as session:
        for port in ports:
            async with session.post(f"http://127.0.0.1:{port}/api/v2/alerts", json=alerts) as response:
                assert response.status == 200, await response.text()


async def counted(router: Process, outcome: str) -> float:
    """How many events alertrouter has heard of that outcome."""
    name = f'alertrouter_alerts_received_total{{outcome="{outcome}",source="pagerduty"}} '
    async with aiohttp.ClientSession() as session, session.get(f"{router.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def test_a_pair_of_alertmanagers_with_pagerduty_configs(tmp_path: Path) -> None:
    """Two that cannot see each other, with one routing key: PagerDuty hears of each change once, and of the end once."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox())
        router = await stack.enter_async_context(Process(tmp_path, REPOSITORY / "rules", sandbox))
        receiver = f"pagerduty_configs: [{{routing_key: {ROUTING_KEY}, url: '{router.url}/v2/enqueue'}}]"
        ports = [
            await stack.enter_async_context(alertmanager(tmp_path, router.url, name, receiver=receiver))
            for name in ("am-a", "am-b")
        ]

        async def both(outcome: str, times: int) -> None:
            """Wait until news and its copy by the other member are in."""

            async def are_in() -> bool:
                return await counted(router, outcome) >= 1 and await counted(router, "duplicate") >= times

            await until(are_in, within_s=30)

        await post_alerts(ports, "payment-1")
        await both("new", 1)
        await post_alerts(ports, "payment-1", "payment-2")
        await both("content", 2)
        await post_alerts(ports, "payment-1", "payment-2", over=True)
        await both("status", 3)
        await sandbox.wait_for(lambda events: events[-1].event["event_action"] == "resolve", timeout_s=30)

        events = [call.event for call in sandbox.events]
    assert [event["event_action"] for event in events] == ["trigger", "trigger", "resolve"]
    assert [event["payload"]["summary"].split()[0] for event in events[:2]] == ["[FIRING:1]", "[FIRING:2]"]
    assert len({event["dedup_key"] for event in events}) == 1
    assert len(events[0]["dedup_key"]) == 64, "Alertmanager's own key, the SHA-256 of its group's"


async def test_pagerdutys_own_python_client(tmp_path: Path) -> None:
    """It speaks https only: there is TLS in front of alertrouter."""
    pagerduty = pytest.importorskip("pagerduty")
    certificate = self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=certificate)
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox())
        router = await stack.enter_async_context(Process(tmp_path, REPOSITORY / "rules", sandbox))
        url = await stack.enter_async_context(tls_front(router.url, certificate))

        def client_of(key: str) -> Any:
            return pagerduty.EventsApiV2Client(key, base_url=url, verify=trusting)

        with client_of("9" * 32) as stranger, pytest.raises(pagerduty.HttpError) as refused:
            await asyncio.to_thread(stranger.resolve, "disk/db-1")
        assert "Invalid routing key" in refused.value.response.text
        with client_of(ROUTING_KEY) as client:
            with pytest.raises(pagerduty.HttpError) as refused:
                await asyncio.to_thread(client.trigger, "Disk low", "db-1", severity="page")
            assert "'payload.severity' must be one of" in refused.value.response.text

            made = await asyncio.to_thread(client.trigger, "Backup failed", "backup01")
            expected = [("trigger", made)]
            await said(sandbox, expected)
            trigger = partial(client.trigger, "Disk low", "db-1")
            for action, act in (("trigger", trigger), ("acknowledge", client.acknowledge), ("resolve", client.resolve)):
                assert await asyncio.to_thread(act, dedup_key="disk/db-1") == "disk/db-1"
                expected.append((action, "disk/db-1"))
                await said(sandbox, expected)
            now = datetime.now(UTC).isoformat()
            await asyncio.to_thread(client.submit, "backup 4.2", "ci", timestamp=now)
            await until(lambda: len(sandbox.changes) == 1)
    [change] = sandbox.changes
    assert (change["routing_key"], change["payload"]["summary"]) == (ROUTING_KEY, "backup 4.2")


async def said(sandbox: Sandbox, expected: list[tuple[str, str]]) -> None:
    """Wait until PagerDuty was told just that, beside what alertrouter says of itself."""

    def heard() -> list[tuple[str, str]]:
        events = [call.event for call in sandbox.events]
        return [
            (event["event_action"], event["dedup_key"])
            for event in events
            if not event["dedup_key"].startswith("alertrouter:")
        ]

    await until(lambda: heard() == expected)
