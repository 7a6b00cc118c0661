"""The history of a running service: by the API, by the command, and in files."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from alertrouter.history.entries import Ended, Filter
from alertrouter.history.reading import Line, read
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from alertrouter.store.store import AlertStore
from tests.alerts import MINUTE, NIGHT, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import Client, Rig, serving
from tests.service.test_http import PATH, idle
from tests.waiting import until


async def entries(client: Client, query: str) -> list[dict[str, Any]]:
    status, text = await client.get(f"/api/v1/history?{query}")
    assert status == 200, text
    found = json.loads(text)
    assert isinstance(found, list)
    return found


async def run(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """`alertrouter` with those arguments: its exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alertrouter", *arguments),
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_the_history_tells_what_was_heard_decided_and_sent(client: Client, sandbox: Sandbox) -> None:
    page, muted = alertmanager_alert(n="1"), alertmanager_alert(n="2", env="staging")
    await client.post(PATH, alertmanager_body(page, muted))
    await idle(client)
    await client.post(PATH, alertmanager_body(page))  # a duplicate
    all_ = await entries(client, "kind=all&order=oldest")
    assert sorted(entry["kind"] for entry in all_) == ["duplicate", "ended", "heard", "heard", "sent"]
    heard = [entry for entry in all_ if entry["kind"] == "heard"]
    assert [entry["alert"]["event"]["custom_details"]["n"] for entry in heard] == ["1", "2"]
    paged_id, muted_id = (entry["id"] for entry in heard)
    [sent] = [entry for entry in all_ if entry["kind"] == "sent"]
    assert (sent["id"], sent["destination"], sent["result"], sent["state"], sent["outcome"]) == (
        paged_id,
        "pagerduty:default",
        "delivered",
        "triggered",
        "delivered",
    )
    [ended] = [entry for entry in all_ if entry["kind"] == "ended"]
    assert (ended["id"], ended["outcome"], ended["rule"]) == (muted_id, "suppressed", "staging-noise")
    [duplicate] = [entry for entry in all_ if entry["kind"] == "duplicate"]
    assert (duplicate["id"], duplicate["status"]) == (paged_id, "firing")
    assert "alert" not in duplicate, "a duplicate costs no body"
    assert "d" * 32 not in json.dumps(all_), "routing keys stay in the record"


async def test_entries_are_found_by_what_they_are_about(client: Client) -> None:
    await client.post(PATH, alertmanager_body(alertmanager_alert(n="1"), alertmanager_alert(n="2", env="staging")))
    await client.post("/webhooks/alertmanager/team-a", alertmanager_body(alertmanager_alert(n="3")))
    await idle(client)
    [muted] = await entries(client, "outcome=suppressed")
    assert muted["outcome"] == "suppressed"
    assert {entry["id"] for entry in await entries(client, f"kind=all&alert={muted['id']}")} == {muted["id"]}
    assert {entry["id"].partition(":")[0] for entry in await entries(client, "source=alertmanager/team-a")} == {
        "alertmanager/team-a"
    }
    assert await entries(client, "service=nobody") == []
    assert len(await entries(client, "kind=heard")) == 3
    at = int(muted["entry"].partition("-")[0])
    assert await entries(client, f"kind=all&since={at + 60_000}") == []
    assert await entries(client, f"kind=all&until={at - 60_000}") == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=٣",
        "since=yesterday",
        "since=" + "9" * 26,
        "kind=strange",
        "order=random",
        "cursor=x",
        "cursor=٣-٣",
    ],
)
async def test_a_strange_question_is_answered_with_what_to_write(client: Client, query: str) -> None:
    status, text = await client.get(f"/api/v1/history?{query}")
    assert status == 400
    assert query.partition("=")[0] in json.loads(text)["error"]


@pytest.mark.parametrize("order", ["newest", "oldest"])
async def test_pages_of_the_history_join_without_gap_or_repeat(client: Client, order: str) -> None:
    for number in range(7):
        await client.post(PATH, alertmanager_body(alertmanager_alert(n=str(number))))
    await idle(client)
    whole = await entries(client, f"kind=all&order={order}&limit=1000")
    assert len(whole) == 14
    pages: list[dict[str, Any]] = []
    query = f"/api/v1/history?kind=all&order={order}&limit=4"
    cursor = ""
    while True:
        async with client.session.get(f"{client.service.url}{query}{cursor}") as response:
            page = await response.json()
            assert len(page) <= 4
            pages += page
            if "X-Alertrouter-Cursor" not in response.headers:
                break
            cursor = f"&cursor={response.headers['X-Alertrouter-Cursor']}"
    assert pages == whole


async def test_the_command_reads_from_the_service_with_its_token(settings: Settings) -> None:
    tokens = settings.model_copy(update={"webhook_tokens": (SecretStr("s3cret"),)})
    async with serving(tokens) as client:
        await client.post(PATH, alertmanager_body(alertmanager_alert()), {"X-Alertrouter-Token": "s3cret"})
        await idle(client)
        listen = client.service.url.removeprefix("http://")
        code, output, errors = await run("history", ALERTROUTER_LISTEN=listen)
        assert code == 1 and "401" in errors
        environ = {"ALERTROUTER_LISTEN": listen, "ALERTROUTER_WEBHOOK_TOKENS": "s3cret"}
        code, output, errors = await run("history", "--since", "1h", "-o", "jsonl", **environ)
        assert (code, errors) == (0, "")
        assert [json.loads(line)["kind"] for line in output.splitlines()] == ["heard", "sent"]
        code, output, _ = await run("history", "--since", "1h", "--outcome", "delivered", **environ)
        assert code == 0
        assert "delivered pagerduty:default: triggered" in output
        code, output, errors = await run("history", "--since", "1h", "--service", "nobody", **environ)
        assert (code, output, errors) == (1, "", "nothing found\n")


async def test_what_happens_is_written_to_files_and_goes_on_after_a_restart(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "history"
    settings = settings.model_copy(update={"history_path": folder})

    def lines() -> list[Line]:
        files = sorted(folder.glob("*.jsonl"))
        return list(read(files, lambda damaged: pytest.fail(str(damaged)))) if files else []

    async with serving(settings) as client:
        await client.post(PATH, alertmanager_body(alertmanager_alert(n="1")))
        await until(lambda: len(lines()) == 2)
    async with serving(settings) as client:
        await client.post(PATH, alertmanager_body(alertmanager_alert(n="2")))
        await until(lambda: len(lines()) == 4)
        told = await entries(client, "kind=all&order=oldest")
    assert [line.entry for line in lines()] == [entry["entry"] for entry in told], (
        "each once, in the order of the stream"
    )


async def test_a_command_reads_the_files(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "history"
    async with serving(settings.model_copy(update={"history_path": folder})) as client:
        await client.post(PATH, alertmanager_body(alertmanager_alert(n="1"), alertmanager_alert(n="2", env="staging")))
        await idle(client)
        told = await entries(client, "kind=all&order=oldest")
        await until(lambda: sum(len(path.read_bytes().splitlines()) for path in folder.glob("*.jsonl")) == len(told))
    code, output, _ = await run("history", "--path", str(folder), "--outcome", "suppressed")
    assert code == 0 and "suppressed" in output and len(output.splitlines()) == 1
    (folder / "history-2027-01-01.0000.jsonl").write_text('{"kind":"ended"\n')
    code, output, errors = await run("history", "--path", str(folder), "-o", "jsonl")
    assert code == 1 and "history-2027-01-01.0000.jsonl:1" in errors
    assert len(output.splitlines()) == len(told)


async def test_duplicates_of_one_call_are_one_entry_between_the_news(rig: Rig) -> None:
    known = [make_alert(f"f{number}") for number in range(5)]
    await rig.hear(*known)
    before = len(await rig.store.history_entries("-", "+", 1000))
    await rig.hear(known[0], known[1], make_alert("new"), known[2], known[3])
    heard = [fields for _, fields in (await rig.store.history_entries("-", "+", 1000))[before:]]
    kinds = [fields["kind"] for fields in heard]
    assert kinds[:3] == ["duplicate", "heard", "duplicate"], "the order in which they were heard"
    assert json.loads(heard[0]["heard"]) == ["firing alertmanager:f0", "firing alertmanager:f1"]


async def test_a_stale_resolve_is_on_record_with_all_of_it(rig: Rig) -> None:
    await rig.hear(make_alert(started=NIGHT))
    await rig.hear(make_alert(status="resolved", started=NIGHT - 9 * MINUTE, ended=NIGHT - 5 * MINUTE))
    [(_, newest)] = await rig.store.history_entries("-", "+", 1, newest_first=True)
    assert (newest["kind"], newest["news"], newest["outcome"]) == ("heard", "stale", "stale")
    assert json.loads(newest["alert"])["status"] == "resolved"


async def test_each_try_is_on_record_with_what_came_back(rig: Rig) -> None:
    rig.sandbox.fail(500, times=1)
    await rig.hear(make_alert())
    await rig.settle(MINUTE)
    sent = [fields for _, fields in await rig.store.history_entries("-", "+", 100) if fields["kind"] == "sent"]
    assert [fields["result"] for fields in sent] == ["again", "delivered"]
    assert "500" in sent[0]["reason"] and "outcome" not in sent[0]


async def test_no_history_is_kept_where_none_is_wanted(rig: Rig) -> None:
    store = AlertStore(rig.store._client, owner="other", history_length=0)
    await store.accept([make_alert("a"), make_alert("a")], NIGHT)
    await store.note({"kind": "ended"})
    assert await store.history_entries("-", "+", 10) == []


async def test_old_entries_are_let_go(rig: Rig) -> None:
    await rig.hear(*(make_alert(f"f{number}") for number in range(300)))
    now = await rig.store.time()
    await rig.store.trim_history(now - 60_000)
    assert (await rig.store.history_extent()).length >= 600
    await rig.store.trim_history(now + 60_000)
    extent = await rig.store.history_extent()
    assert extent.length < 100, "nodes of the stream go whole, the last of them may stay"
    assert extent.added >= 600


def test_a_filter_takes_named_senders_with_their_sender() -> None:
    entry = Ended(at=5, id="datadog/team-a:x", outcome="delivered", service="payment")
    assert Filter(source="datadog").takes(entry) and Filter(source="datadog/team-a").takes(entry)
    assert not Filter(source="data").takes(entry)
    assert Filter(since=5, until=6).takes(entry) and not Filter(until=5).takes(entry)


async def test_a_token_goes_nowhere_else() -> None:
    seen: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.path)
        if request.path == "/api/v1/history":
            raise web.HTTPFound(f"http://localhost:{runner.addresses[0][1]}/elsewhere")
        return web.json_response([])

    application = web.Application()
    application.router.add_get("/{path:.*}", elsewhere)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    code, _, errors = await run("history", "--url", url, ALERTROUTER_API_READ_TOKENS="s3cret")
    await runner.cleanup()
    assert code == 1 and "302" in errors
    assert seen == ["/api/v1/history"]


async def test_the_commands_show_the_apis_token_before_a_senders(settings: Settings) -> None:
    tokens = {"webhook_tokens": "sends", "api_read_tokens": "looks", "api_operate_tokens": "operates"}
    closed = settings.model_copy(update={name: (SecretStr(token),) for name, token in tokens.items()})
    async with serving(closed) as client:
        words = ("history", "--url", client.service.url)
        environ = {f"ALERTROUTER_{name.upper()}": token for name, token in tokens.items()}
        assert await run(*words, **environ) == (1, "", "nothing found\n")
        del environ["ALERTROUTER_API_OPERATE_TOKENS"]
        assert await run(*words, **environ) == (1, "", "nothing found\n")
        code, _, errors = await run(*words, ALERTROUTER_WEBHOOK_TOKENS="sends")
        assert code == 1 and "401" in errors
        code, _, errors = await run("silence", "end", "x", "--url", client.service.url, **environ)
        assert code == 1 and "this token may look, not change" in errors
