"""Broken bodies, in process and through all of a running alertrouter; and rules that break while it runs."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import monotonic, process_time

import pytest

from alertrouter.app import Service
from tests.conftest import program
from tests.fuzz.bodies import BODIES
from tests.fuzz.inputs import find
from tests.fuzz.reloads import FILES, reload_mutations
from tests.fuzz.wire import ROUND, post
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.reliability.conftest import Figure, first_seed
from tests.service.conftest import Client, client, sandbox, settings
from tests.waiting import until

__all__ = ["client", "sandbox", "settings"]  # fixtures


#: `make reliability` says how many; without it they are as many as tests have time for.
_OVER_HTTP = int(os.environ.get("ALERTROUTER_RELIABILITY_BODIES") or 5_000)


@pytest.mark.takes_minutes
@pytest.mark.timeout(4 * 3600)
async def test_broken_bodies_through_all_of_it(long: bool, figure: Figure, tmp_path: Path) -> None:
    count, seed = (1_000_000 if long else _OVER_HTTP), first_seed(long)
    statuses: Counter[int] = Counter()
    alerts, faults, began = 0, list[str](), monotonic()
    redis_server, loop = program("redis-server"), asyncio.get_running_loop()
    # for as long as it takes it leaves the processor to the runs beside it, which look at the clock
    with ProcessPoolExecutor(1, get_context("spawn"), os.nice, (15,)) as pool:
        for first in range(0, count, ROUND):
            some = min(ROUND, count - first)
            found = await loop.run_in_executor(pool, post, tmp_path / str(first), redis_server, seed, first, some)
            statuses += found.statuses
            alerts += found.alerts
            faults += found.faults
    shown = (
        f"{statuses.total():,} posted in {monotonic() - began:.0f} s, {alerts:,} alerts accepted, {len(faults)} faults"
    )
    held = not faults and statuses.total() == count
    figure("G14", "broken bodies over HTTP", "0 crashes, 5xx, lost, poisoned, unencodable", shown, held)
    assert held, f"seed {seed}: {faults}"
    assert statuses[202] > count // 4 and statuses[400] > count // 4, statuses


def test_broken_bodies_in_process(long: bool, figure: Figure) -> None:
    count, seed = (10_000_000 if long else 20_000), first_seed(long)
    began = process_time()
    crasher = find(BODIES, seed, 0, count)
    shown = f"{count:,} at {count / (process_time() - began):,.0f} a second, {int(crasher is not None)} faults"
    figure("G14", "broken bodies in process", "0 crashes, 0 unencodable", shown, crasher is None)
    assert crasher is None, str(crasher)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A directory of rules to be broken."""
    folder = tmp_path / "rules"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of rules are not looked at until somebody asks for it."""

    async def nothing(_: Service) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Service, "keep_rules", nothing)


@pytest.mark.takes_minutes
async def test_rules_that_break_under_a_running_service(
    long: bool, figure: Figure, unwatched: None, client: Client, rules: Path
) -> None:
    count, seed = (200_000 if long else 5_000), first_seed(long)
    statuses: Counter[int] = Counter()
    sending = asyncio.create_task(_send_for_ever(client, statuses))
    began = monotonic()
    found = await reload_mutations(client.service, rules, seed, count)
    took = monotonic() - began
    sending.cancel()
    await asyncio.wait([sending])
    shown = (
        f"{count:,} in {took:.0f} s: {found.outcomes['refused']:,} refused, {found.outcomes['quarantined']:,} quarantined, "
        f"{found.outcomes['taken']:,} taken; {statuses.total():,} alerts meanwhile, {statuses.total() - statuses[202]} not accepted"
    )
    held = not found.faults and set(statuses) == {202}
    figure("G18", "mutated rules reloaded", "0 decisions changed by invalid rules, 0 not accepted", shown, held)
    assert held, f"seed {seed}: {found.faults}, {statuses}"
    assert found.outcomes["refused"] > count // 10 and found.outcomes["taken"] > count // 20, found.outcomes

    async def is_idle() -> bool:
        queues = await client.service.backlog()
        return not queues["due"] and not queues["waiting"] and not queues["dead_letters"]

    await until(is_idle, within_s=30)


async def _send_for_ever(client: Client, statuses: Counter[int]) -> None:
    for number in range(1_000_000):
        body = alertmanager_body(
            alertmanager_alert(n=str(number % 500), service=("payment", "search", "x")[number % 3])
        )
        status, _ = await client.post("/webhooks/alertmanager", body)
        statuses[status] += 1
        await asyncio.sleep(0.02)
