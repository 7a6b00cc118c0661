"""The whole path in one process: real Redis, real HTTP to the sandbox, rules from files, and a clock that is owned."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType

import aiohttp
import pytest

from alertrouter.alert import Alert
from alertrouter.app import Service, running
from alertrouter.delivery.judging import ActiveRules
from alertrouter.delivery.worker import Worker
from alertrouter.destinations.pagerduty import PagerDutyClient
from alertrouter.rules.evaluate import DEFAULT_DESTINATION
from alertrouter.rules.load import load_rules
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings, load_settings
from alertrouter.store.connect import connect
from alertrouter.store.store import AlertStore, Dedup
from tests.alerts import Clock

DEFAULT_KEY = "d" * 32
SEARCH_KEY = "5" * 32
ENVIRON = {"PD_KEY_SEARCH": SEARCH_KEY}

RULES = {
    "global.yaml": """
        sets:
          start:
            - rule: staging-noise
              owner: team-sre
              when: event.custom_details.env == 'staging'
              then: {suppress: true, reason: nobody is paged for staging, expires: 2099-01-01}
        catch_all: {}
    """,
    "router.yaml": """
        sets:
          start:
            - rule: payments
              when: event.custom_details.service matches 'payment'
              then: {route_to: payment-service}
            - rule: search
              when: event.custom_details.service matches 'search'
              then: {route_to: search-service}
        catch_all: {route_to: unrouted}
    """,
    "services/payment-service.yaml": """
        service: payment-service
        team: team-payments
        tier: 1
        runbook: https://runbooks.example.org/payment
        sets: {start: []}
        catch_all: {}
    """,
    "services/search-service.yaml": """
        service: search-service
        team: team-discovery
        tier: 2
        routing_key: {env: PD_KEY_SEARCH}
        sets: {start: []}
        catch_all: {}
    """,
}


def write_rules(folder: Path, files: dict[str, str] | None = None) -> Path:
    """Put rule files into `folder`; `files` replaces or adds to the usual ones."""
    for name, text in {**RULES, **(files or {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return folder


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A rules directory with two services, one with its own routing key, and muted staging."""
    return write_rules(tmp_path / "rules")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@dataclass
class Rig:
    """Store, worker and sandbox on a clock that the test owns: nothing happens until `settle`."""

    store: AlertStore
    worker: Worker
    sandbox: Sandbox
    clock: Clock
    rules: Path
    active: ActiveRules

    async def hear(self, *alerts: Alert) -> Sequence[StrEnum]:
        """Accept alerts and let everything that follows from them happen."""
        heard = await self.store.accept(alerts, self.clock())
        await self.worker.run_until_idle()
        return heard

    async def settle(self, advance_ms: int = 0) -> None:
        """Move the clock and let everything due happen."""
        self.clock.advance(advance_ms)
        await self.worker.run_until_idle()

    def change_rules(self, files: dict[str, str] | None = None, **keys: str) -> None:
        """Replace the rules, and the keys that destinations have now."""
        self.active = ActiveRules(
            load_rules(write_rules(self.rules, files)),
            MappingProxyType({DEFAULT_DESTINATION: DEFAULT_KEY, "pagerduty:search-service": SEARCH_KEY, **keys}),
        )

    @property
    def sent(self) -> list[tuple[str, str]]:
        """What PagerDuty accepted, as (action, first character of the key)."""
        return [(str(call.event["event_action"]), call.routing_key[0]) for call in self.sandbox.events]


@pytest.fixture
async def rig(redis_url: str, sandbox: Sandbox, rules: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """The worker on a real Redis. Parametrize indirectly with a Dedup for other windows."""
    client = connect(redis_url)
    await client.flushall()
    clock = Clock()
    store = AlertStore(client, dedup=getattr(request, "param", None) or Dedup())
    pagerduty = PagerDutyClient(sandbox.url)
    worker = Worker(store, pagerduty, lambda: built.active, clock, calls_per_minute=0)
    built = Rig(store, worker, sandbox, clock, rules, ActiveRules(load_rules(rules)))
    built.change_rules()
    yield built
    await pagerduty.close()
    await client.aclose()


@pytest.fixture
def settings(sandbox: Sandbox, rules: Path, tmp_path: Path) -> Settings:
    """Settings of a service on a free port, with an embedded Redis of its own."""
    return load_settings(
        {},
        {
            "listen": "127.0.0.1:0",
            "data_dir": tmp_path / "data",
            "rules": rules,
            "pagerduty_events_url": sandbox.url,
            "pagerduty_routing_key": DEFAULT_KEY,
            "pagerduty_calls_per_minute": 0,
        },
    )


@dataclass
class Client:
    """HTTP to a running service."""

    service: Service
    session: aiohttp.ClientSession

    async def post(
        self, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        """Status and JSON answer of one POST."""
        async with self.session.post(
            self.service.url + path,
            data=io.BytesIO(body),
            headers={"Content-Type": "application/json", **(headers or {})},
        ) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of one GET."""
        async with self.session.get(self.service.url + path) as response:
            return response.status, await response.text()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Client]:
    """A running service and a client of it."""
    async with running(settings, ENVIRON) as service, aiohttp.ClientSession(auto_decompress=False) as session:
        yield Client(service, session)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with serving(settings) as client:
        yield client
