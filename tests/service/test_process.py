"""alertrouter as a process: killed at the worst moment, drained, refused with a reason."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from alertrouter.sandbox import Sandbox
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.process import Process
from tests.service.conftest import write_rules
from tests.waiting import until

PATH = "/webhooks/alertmanager"


async def test_sigkill_between_accept_and_delivery(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    sandbox.fail(503, times=1000)
    async with Process(tmp_path, rules, sandbox) as process:
        assert await process.post(PATH, alertmanager_body(alertmanager_alert())) == 202
        await process.kill()
    assert sandbox.events == []
    sandbox.heal()
    async with Process(tmp_path, rules, sandbox):
        [call] = await sandbox.wait_for(lambda events: len(events) == 1, timeout_s=10)
    assert call.event["event_action"] == "trigger"


async def test_sigkill_while_the_event_is_in_flight(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    """The restarted process owns the data directory, so it need not wait for the old lease to end."""
    sandbox.fail(202, delay_ms=20_000)
    async with Process(tmp_path, rules, sandbox) as process:
        await process.post(PATH, alertmanager_body(alertmanager_alert()))
        await until(lambda: not sandbox.faults)
        await process.kill()
    async with Process(tmp_path, rules, sandbox):
        await sandbox.wait_for(lambda events: len(events) == 1, timeout_s=8)


async def test_nothing_accepted_is_lost_by_kills_under_load(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    accepted: set[str] = set()
    number = 0
    for _ in range(3):
        async with Process(tmp_path, rules, sandbox) as process, aiohttp.ClientSession() as session:

            async def sender(process: Process = process, session: aiohttp.ClientSession = session) -> None:
                nonlocal number
                while True:
                    number += 1
                    name = str(number)
                    body = alertmanager_body(alertmanager_alert(n=name))
                    try:
                        async with session.post(process.url + PATH, data=body) as response:
                            if response.status == 202:
                                accepted.add(name)
                    except aiohttp.ClientError:
                        return

            senders = [asyncio.create_task(sender()) for _ in range(8)]
            before = len(accepted)
            await until(lambda before=before: len(accepted) >= before + 200, within_s=30)  # type: ignore[misc]
            await process.kill()
            await asyncio.gather(*senders)
    async with Process(tmp_path, rules, sandbox):

        def delivered() -> set[str]:
            return {call.event["payload"]["custom_details"]["n"] for call in sandbox.events}

        await sandbox.wait_for(lambda _: delivered() >= accepted, timeout_s=30)
    assert len(accepted) >= 600


async def test_sigterm_drains(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    sandbox.fail(202, delay_ms=1000)
    async with Process(tmp_path, rules, sandbox) as process:
        await process.post(PATH, alertmanager_body(alertmanager_alert()))
        await until(lambda: not sandbox.faults)
        assert await process.terminate() == 0
    assert [call.result for call in sandbox.events] == ["opened"], "what was in flight was finished"
    async with Process(tmp_path, rules, sandbox) as process:
        await process.post(PATH, alertmanager_body(alertmanager_alert()))
        assert await process.terminate() == 0
    assert len(sandbox.calls) == 1, "and settled: the next replica does not repeat it"


async def test_sighup_reloads(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    """The key behind a service is another one: no rule file changed, so only a reload can tell."""
    key = tmp_path / "key"
    key.write_text("1" * 32)
    write_rules(rules, {"services/search-service.yaml": f"service: search-service\nrouting_key: {{file: {key}}}\n"})
    async with Process(tmp_path, rules, sandbox) as process:
        key.write_text("2" * 32)
        process.signal(signal.SIGHUP)
        posted = 0

        async def new_key_is_used() -> bool:
            nonlocal posted
            posted += 1
            await process.post(PATH, alertmanager_body(alertmanager_alert(service="search", n=str(posted))))
            return any(call.routing_key == "2" * 32 for call in sandbox.events)

        await until(new_key_is_used)


async def test_the_sandbox_run_prints_a_curl_that_works(tmp_path: Path, rules: Path) -> None:
    """What `make run` does: the printed lines, run as they are, show the forwarded event."""
    async with Process(tmp_path, rules, None, "--sandbox") as process:
        await until(lambda: sum("curl" in line for line in process.output) == 3)
        send, look, _ = [line.strip() for line in process.output if "curl" in line]
        sent = await asyncio.create_subprocess_shell(send, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        answer, _ = await sent.communicate()
        assert b'"accepted"' in answer
        url = re.findall(r"http://\S+", look)[0]
        events: list[dict[str, Any]] = []

        async def shown() -> bool:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                events[:] = await response.json()
            return bool(events)

        await until(shown, within_s=1)
        assert events[0]["event"]["payload"]["custom_details"]["team"] == "team-payments"


REFUSALS = {
    "no routing key": ({}, [], 2, "ALERTROUTER_PAGERDUTY_ROUTING_KEY"),
    "exposed without tokens": (
        {"ALERTROUTER_LISTEN": "0.0.0.0:0", "ALERTROUTER_PAGERDUTY_ROUTING_KEY": "k" * 32},
        [],
        2,
        "ALERTROUTER_WEBHOOK_TOKENS",
    ),
    "a wrong duration": ({"ALERTROUTER_DEDUP_WINDOW": "300"}, [], 2, "ALERTROUTER_DEDUP_WINDOW"),
    "a missing secret file": (
        {"ALERTROUTER_WEBHOOK_TOKENS_FILE": "/nowhere/tokens"},
        [],
        2,
        "ALERTROUTER_WEBHOOK_TOKENS_FILE",
    ),
    "no rules": ({"ALERTROUTER_PAGERDUTY_ROUTING_KEY": "k" * 32}, ["--rules", "nowhere"], 1, "ALERTROUTER_RULES"),
    "an unknown option": ({}, ["--nope"], 2, "--nope"),
}


@pytest.mark.parametrize(("environ", "options", "code", "named"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_wrong_start_says_what_to_set(
    tmp_path: Path, rules: Path, environ: dict[str, str], options: list[str], code: int, named: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "alertrouter", "serve", *(options if "--rules" in options else ["--rules", str(rules)]),
         *(option for option in options if "--rules" not in options)],
        env={"PATH": os.environ["PATH"], "ALERTROUTER_DATA_DIR": str(tmp_path / "data"), **environ},
        cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stderr
    assert named in ran.stderr
    assert "Traceback" not in ran.stderr
