"""`alertrouter page-test`: can this service be paged now? Against a running service and PagerDuty's stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from alertrouter.alarms import PAGE_TEST
from alertrouter.delivery.judging import TEST_MARK
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from tests.process import Process
from tests.rig.servers import free_port
from tests.service.conftest import DEFAULT_KEY, SEARCH_KEY, Client, serving, write_rules
from tests.service.test_history import run
from tests.service.test_refusals import BAD_KEY
from tests.service.test_silences import JSON, cli
from tests.waiting import until


def sent(sandbox: Sandbox) -> list[tuple[str, str]]:
    """What PagerDuty took of test pages, and by which key."""
    return [
        (str(call.event["event_action"]), call.routing_key)
        for call in sandbox.events
        if str(call.event["dedup_key"]).startswith(f"{PAGE_TEST}:")
    ]


async def begin(client: Client, **said: Any) -> tuple[int, dict[str, Any]]:
    return await client.post("/api/v1/page-tests", json.dumps(said).encode(), JSON)


@pytest.mark.parametrize(
    ("service", "key", "by"),
    [
        ("payment-service", DEFAULT_KEY, "by the default routing key, because the service names none"),
        ("search-service", SEARCH_KEY, "by the service's own routing key (pagerduty:search-service)"),
        ("unrouted", DEFAULT_KEY, "by the default routing key, because the service names none"),
    ],
)
async def test_a_marked_page_goes_the_whole_way_and_is_resolved(
    client: Client, sandbox: Sandbox, service: str, key: str, by: str
) -> None:
    code, output, errors = await cli(client.service.url, "page-test", service, "--keep", "0s")
    assert (code, errors) == (0, ""), output
    lines = output.splitlines()
    assert lines[0].startswith(f"Test page page-test:{service}-") and lines[0].endswith(f", critical, {by}.")
    assert lines[1].startswith("PAGED: PagerDuty took it after ")
    assert lines[2] == "Resolved, and PagerDuty knows."
    assert sent(sandbox) == [("trigger", key), ("resolve", key)]
    payload = sandbox.events[0].event["payload"]
    assert payload["summary"] == f"{TEST_MARK}anna tries whether {service} can be paged"
    assert payload["custom_details"]["alertrouter"].get("service", "unrouted") == service, "the rules routed it"
    code, output, _ = await cli(client.service.url, "history", "--alert", lines[0].split()[2])
    assert code == 0 and "paged once" in output


async def test_whatever_rules_make_of_it_it_is_marked(settings: Settings, rules: Path, sandbox: Sandbox) -> None:
    write_rules(
        rules,
        {
            "services/payment-service.yaml": """
                sets: {start: []}
                catch_all: {extractions: [{target: event.summary, template: 'disk full on {{event.source}}'}]}
            """,
        },
    )
    async with serving(settings) as client:
        code, _, _ = await cli(client.service.url, "page-test", "payment-service", "--keep", "0s")
    assert code == 0
    assert sandbox.events[0].event["payload"]["summary"] == f"{TEST_MARK}disk full on alertrouter page-test"


async def test_a_service_that_is_named_by_its_alerts_is_found(
    settings: Settings, rules: Path, sandbox: Sandbox
) -> None:
    write_rules(
        rules,
        {
            "router.yaml": """
                sets:
                  start:
                    - rule: by-name
                      then: {dynamic_route_to: {source: event.custom_details.svc, regex: '.*'}}
                    - rule: old
                      when: event.custom_details.team matches regex '^(pay|cash)-.+$' and not event.group exists
                      then: {route_to: payment-service}
                catch_all: {route_to: unrouted}
            """
        },
    )
    async with serving(settings) as client:
        for service in ("search-service", "payment-service"):
            status, begun = await begin(client, service=service, by="anna")
            assert (status, begun["service"]) == (202, service)


async def test_what_no_made_up_alert_reaches_says_where_it_would_go(settings: Settings, rules: Path) -> None:
    router = """
        sets:
          start:
            - rule: first
              when: event.custom_details.kind exists
              then: {route_to: search-service}
            - rule: second
              when: event.custom_details.kind matches regex '^[a-c]{2}$'
              then: {route_to: payment-service}
        catch_all: {route_to: unrouted}
    """
    write_rules(rules, {"router.yaml": router, "services/idle.yaml": "team: t\n"})
    async with serving(settings) as client:
        url = client.service.url
        code, _, errors = await cli(url, "page-test", "payment-service")
        assert code == 1 and "would send an alert made up for payment-service to unrouted" in errors
        code, _, errors = await cli(url, "page-test", "payment-service", "--detail", "kind=ab")
        assert code == 1 and "to search-service; say what alerts of payment-service hold" in errors
        code, _, errors = await cli(url, "page-test", "idle")
        assert code == 1 and "no rule of the router leads to idle: nothing ever pages it" in errors
        code, _, errors = await cli(url, "page-test", "serch-service")
        assert code == 1 and "there is no service serch-service; did you mean `search-service`?" in errors
        code, _, errors = await cli(url, "page-test", "search-service", "--detail", "kind")
        assert code == 2 and "write NAME=VALUE" in errors


async def test_a_detail_says_what_alerts_of_the_service_hold(settings: Settings, rules: Path) -> None:
    router = """
        sets:
          start:
            - rule: only
              when: event.custom_details.kind matches regex '^[a-c]{2}$'
              then: {route_to: payment-service}
        catch_all: {route_to: unrouted}
    """
    async with serving(settings.model_copy(update={"rules": write_rules(rules, {"router.yaml": router})})) as client:
        assert (await begin(client, service="payment-service"))[0] == 409
        status, begun = await begin(client, service="payment-service", details={"kind": "ab"})
        assert (status, begun["matched"]) == (202, ["only"])


# --- what keeps a page from getting through --------------------------------------------------------------------------


async def test_pagerduty_failing_is_told_and_nobody_is_paged_later(client: Client, sandbox: Sandbox) -> None:
    sandbox.fail(500, times=100)
    code, output, _ = await cli(client.service.url, "page-test", "payment-service", "--timeout", "1s")
    assert code == 1
    assert "NOT PAGED within 1 s: pagerduty:default failed" in output and "HTTP 500" in output
    sandbox.heal()

    async def all_told() -> bool:
        backlog = await client.service.backlog()
        return backlog["due"] == backlog["waiting"] == backlog["leased"] == 0

    await until(all_told)
    assert ("trigger", DEFAULT_KEY) not in sent(sandbox)


async def test_a_refused_key_is_told_though_the_fallback_paged(settings: Settings, sandbox: Sandbox) -> None:
    sandbox.fail(400, times=100, routing_key=SEARCH_KEY, body=BAD_KEY)
    async with serving(settings) as client:
        code, output, _ = await cli(client.service.url, "page-test", "search-service", "--keep", "0s")
    assert code == 1
    assert "PAGED: " in output and "But not by its key, which PagerDuty refused (HTTP 400: " in output
    assert "Invalid routing key" in output
    assert sent(sandbox) == [("trigger", DEFAULT_KEY), ("resolve", DEFAULT_KEY)]


async def test_a_key_that_is_not_there_is_told(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    async with Process(tmp_path, rules, sandbox) as process:
        code, output, _ = await cli(process.url, "page-test", "search-service", "--keep", "0s")
        assert code == 1
        assert "by the default routing key, because its own is not there: set PD_KEY_SEARCH and restart it" in output
        assert "Resolved, and PagerDuty knows." in output
        _, ready, _ = await get(process.url + "/-/ready")
        assert "the routing key of search-service is not there" in ready and "set PD_KEY_SEARCH and restart" in ready


async def get(url: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec("curl", "-s", url, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(), ""


async def test_what_is_kept_back_names_the_rule_or_the_silence(client: Client, sandbox: Sandbox) -> None:
    url = client.service.url
    code, _, _ = await cli(url, "silence", "add", "event.custom_details.service matches 'payment'", "--reason", "why")
    assert code == 0
    code, output, _ = await cli(url, "page-test", "payment-service", "--keep", "0s")
    assert code == 1
    assert "NOT PAGED: Nobody was told: it is silenced (silence " in output and "of anna until" in output
    assert output.splitlines()[-1] == "Nothing is open; nobody is paged later on."
    code, output, _ = await cli(url, "page-test", "payment-service", "--detail", "env=staging", "-o", "json")
    told = json.loads(output)
    assert (code, told["paged"], told["resolved"]) == (1, False, False)
    assert "rule staging-noise suppresses it (nobody is paged for staging)" in " ".join(told["said"])
    assert sent(sandbox) == []


async def test_a_service_that_is_not_there_is_told() -> None:
    port = free_port()
    code, _, errors = await run("page-test", "x", "--url", f"http://127.0.0.1:{port}")
    assert code == 1 and "is `alertrouter serve` running there?" in errors


# --- nobody is left with it ------------------------------------------------------------------------------------------


async def test_it_resolves_by_itself_where_nobody_does(client: Client, sandbox: Sandbox) -> None:
    status, begun = await begin(client, service="search-service", **{"for": "1s"})
    assert (status, begun["service"]) == (202, "search-service")
    await sandbox.wait_for(lambda events: len(events) == 2)
    assert sent(sandbox) == [("trigger", SEARCH_KEY), ("resolve", SEARCH_KEY)]
    assert await client.service.store.tests_to_resolve(client.service._clock() + 60_000) == []
    assert (await begin(client, service="search-service", **{"for": "2h"}))[0] == 400
    assert (await client.post("/api/v1/page-tests/page-test:none/resolve", b"", JSON))[0] == 404
    assert (await client.post("/api/v1/page-tests/alertmanager:f00d/resolve", b"", JSON))[0] == 404


async def test_a_killed_service_resolves_it_after_its_restart(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    async with Process(tmp_path, rules, sandbox) as process:
        body = json.dumps({"service": "payment-service", "for": "1s"})
        curl = ("curl", "-s", "-H", "Content-Type: application/json", "-d", body, f"{process.url}/api/v1/page-tests")
        done = await asyncio.create_subprocess_exec(*curl, stdout=asyncio.subprocess.DEVNULL)
        assert await done.wait() == 0
        await until(process.has_put_down)
        await process.kill()
    async with Process(tmp_path, rules, sandbox):
        await sandbox.wait_for(lambda events: events[-1].event["event_action"] == "resolve", timeout_s=30)
    assert sent(sandbox) == [("trigger", DEFAULT_KEY), ("resolve", DEFAULT_KEY)]


async def test_ctrl_c_resolves_it_at_once(client: Client, sandbox: Sandbox) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alertrouter", "page-test", "payment-service", "--keep", "10m"),
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "PYTHONUNBUFFERED": "1",
            "ALERTROUTER_LISTEN": client.service.url.removeprefix("http://"),
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while b"It stays open" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        rest = (await process.stdout.read()).decode()
        await process.wait()
    assert "Resolved, and PagerDuty knows." in rest
    assert sent(sandbox) == [("trigger", DEFAULT_KEY), ("resolve", DEFAULT_KEY)]


async def test_without_redis_it_resolves_by_itself_too(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    environ = {"ALERTROUTER_REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    async with Process(tmp_path, rules, sandbox, **environ) as process:
        body = json.dumps({"service": "payment-service", "for": "1s"})
        curl = ("curl", "-s", "-H", "Content-Type: application/json", "-d", body, f"{process.url}/api/v1/page-tests")
        done = await asyncio.create_subprocess_exec(*curl, stdout=asyncio.subprocess.DEVNULL)
        assert await done.wait() == 0
        await sandbox.wait_for(lambda events: len(events) == 2, timeout_s=15)
    assert sent(sandbox) == [("trigger", DEFAULT_KEY), ("resolve", DEFAULT_KEY)]


async def test_without_redis_it_goes_the_way_that_pages_go_then(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    environ = {"ALERTROUTER_REDIS_URL": f"redis://127.0.0.1:{free_port()}"}
    async with Process(tmp_path, rules, sandbox, **environ) as process:
        code, output, _ = await cli(process.url, "page-test", "payment-service", "--keep", "0s")
    assert code == 0, output
    assert "PAGED: Redis is away; the service sent it straight to PagerDuty, which took it." in output
    assert sent(sandbox) == [("trigger", DEFAULT_KEY), ("resolve", DEFAULT_KEY)]
