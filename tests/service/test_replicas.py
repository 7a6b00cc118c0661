"""Two replicas on one Redis: one sends what the other accepted, and a lost one is missed by nobody."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from alertrouter.sandbox import Sandbox
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.process import Process

PATH = "/webhooks/alertmanager"


async def post_all(session: aiohttp.ClientSession, replicas: list[Process], status: str, numbers: range) -> None:
    """Each alert to every replica, as two Alertmanagers would."""

    async def post(url: str, number: int) -> None:
        body = alertmanager_body(alertmanager_alert(status=status, n=str(number)))
        async with session.post(url + PATH, data=body) as response:
            assert response.status == 202

    await asyncio.gather(*(post(replica.url, number) for number in numbers for replica in replicas))


@pytest.fixture
def environ(redis_url: str, tmp_path: Path) -> dict[str, str]:
    """Settings of replicas of an installation of this test's own."""
    return {"ALERTROUTER_REDIS_URL": redis_url, "ALERTROUTER_INSTANCE": tmp_path.name[:60]}


async def test_each_alert_pages_once_and_closes_once(
    tmp_path: Path, rules: Path, sandbox: Sandbox, environ: dict[str, str]
) -> None:
    async with (
        Process(tmp_path, rules, sandbox, **environ) as one,
        Process(tmp_path, rules, sandbox, **environ) as other,
        aiohttp.ClientSession() as session,
    ):
        await post_all(session, [one, other], "firing", range(100))
        await sandbox.wait_for(lambda events: len(events) >= 100, timeout_s=20)
        await post_all(session, [one, other], "resolved", range(100))
        await sandbox.wait_for(lambda events: len(events) >= 200, timeout_s=20)
    results = Counter(call.result for call in sandbox.calls)
    assert results == {"opened": 100, "resolved": 100}


async def test_a_lost_replica_is_taken_over(
    tmp_path: Path, rules: Path, sandbox: Sandbox, environ: dict[str, str]
) -> None:
    sandbox.fail(202, times=60, delay_ms=30_000)  # what the lost one had in flight never gets an answer
    async with Process(tmp_path, rules, sandbox, **environ) as lost, aiohttp.ClientSession() as session:
        await post_all(session, [lost], "firing", range(50))
        await lost.kill()
    sandbox.heal()
    async with Process(tmp_path, rules, sandbox, **environ):
        await sandbox.wait_for(lambda events: len({call.event["dedup_key"] for call in events}) == 50, timeout_s=25)
