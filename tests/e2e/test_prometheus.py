"""Debian's Prometheus fires a real rule, Debian's Alertmanager posts it, alertrouter pages the sandbox once and closes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from alertrouter.sandbox import Sandbox
from tests.process import Process
from tests.rig.alertmanager import TOKEN, alertmanager, server
from tests.rig.servers import free_port
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(120)]


@dataclass
class Application:
    """Something to be monitored."""

    port: int = 0
    up: int = 1

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=f'payment_up{{service="payment",pod="payment-7d9f"}} {self.up}\n')


@asynccontextmanager
async def application() -> AsyncIterator[Application]:
    app, application = web.Application(), Application()
    app.add_routes([web.get("/metrics", application.metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    application.port = runner.addresses[0][1]
    yield application
    await runner.cleanup()


@asynccontextmanager
async def prometheus(folder: Path, application: Application, alertmanagers: list[int]) -> AsyncIterator[None]:
    """A Prometheus that watches the application and fires PaymentDown."""
    port = free_port()
    targets = json.dumps([f"127.0.0.1:{port}" for port in alertmanagers])
    (folder / "prometheus.yml").write_text(
        f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{cluster: test}}}}
rule_files: [{folder}/rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: {targets}}}]}}]}}
scrape_configs: [{{job_name: payment, static_configs: [{{targets: ["127.0.0.1:{application.port}"]}}]}}]
"""
    )
    (folder / "rules.yml").write_text(
        """
groups:
  - name: payment
    rules:
      - alert: PaymentDown
        expr: payment_up == 0
        labels: {severity: critical}
        annotations: {summary: "{{ $labels.pod }} is down"}
"""
    )
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--rules.alert.resend-delay=1s",
    ]
    async with server(folder, f"http://127.0.0.1:{port}/-/ready", "prometheus", *arguments):
        yield


@pytest.mark.parametrize("replicas", [1, 2])
async def test_one_trigger_then_one_resolve(tmp_path: Path, replicas: int) -> None:
    """Two Alertmanagers that cannot see each other both send everything; PagerDuty hears it once."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox())
        demo = await stack.enter_async_context(application())
        router = await stack.enter_async_context(
            Process(tmp_path, REPOSITORY / "rules", sandbox, ALERTROUTER_WEBHOOK_TOKENS=TOKEN)
        )
        ports = [await stack.enter_async_context(alertmanager(tmp_path, router.url, f"am{n}")) for n in range(replicas)]
        await stack.enter_async_context(prometheus(tmp_path, demo, ports))

        demo.up = 0
        [trigger] = await sandbox.wait_for(lambda events: len(events) == 1, timeout_s=30)
        assert trigger.event["event_action"] == "trigger"
        payload = trigger.event["payload"]
        assert (payload["summary"], payload["severity"]) == ("payment-7d9f is down", "critical")
        assert payload["custom_details"]["team"] == "team-payments"
        await _heard(router.url, "duplicate" if replicas == 2 else "new", 1)

        demo.up = 1
        await sandbox.wait_for(lambda events: events[-1].event["event_action"] == "resolve", timeout_s=30)
        await _heard(router.url, "status", 1)
        if replicas == 2:  # the second Alertmanager's resolve has come as well
            await _heard(router.url, "duplicate", 2)
        events = sandbox.events
        assert [call.event["event_action"] for call in events] == ["trigger", "resolve"]
        assert len({call.event["dedup_key"] for call in events}) == 1
        assert len({call.routing_key for call in events}) == 1


async def _heard(url: str, outcome: str, times: int) -> None:
    """Wait until alertrouter has counted `times` alerts of that outcome."""
    name = f'alertrouter_alerts_received_total{{outcome="{outcome}",source="alertmanager"}} '

    async def counted() -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
            counts = [line.removeprefix(name) for line in (await response.text()).splitlines() if name in line]
        return bool(counts) and float(counts[0]) >= times

    await until(counted, within_s=30)
