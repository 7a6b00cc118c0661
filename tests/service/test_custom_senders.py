"""Senders of alertrouter.yaml on a running service: taken, refused, mended by a reload, and known to every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from tests.alerts import NIGHT
from tests.custom_senders import ACME, PLAIN, write_sender
from tests.service.conftest import Client, serving
from tests.service.test_dead_letters import API, listed
from tests.service.test_history import run
from tests.service.test_http import idle
from tests.waiting import until

PATH = "/webhooks/custom/acme"
WITH_WARM = PLAIN.replace("resolved", "ignored: [warm], resolved")


def body(state: str, number: Any = 1) -> bytes:
    return json.dumps({"id": number, "state": state}).encode()


def sent(sandbox: Sandbox) -> list[tuple[str, str]]:
    """What PagerDuty took of custom senders, as action and key."""
    taken = [(call.event["event_action"], call.event["dedup_key"]) for call in sandbox.calls if call.status == 202]
    return [(action, key) for action, key in taken if key.startswith("custom/")]


async def test_what_opens_is_closed_and_repeats_are_one(client: Client, rules: Path, sandbox: Sandbox) -> None:
    write_sender(rules, "custom/acme", PLAIN)
    await client.service.reload()
    taken = {"status": "accepted", "alerts": 1}
    assert await client.post(PATH, body("down")) == (202, {**taken, "outcomes": {"new": 1}})
    await idle(client)
    assert await client.post(PATH, body("down")) == (202, {**taken, "outcomes": {"duplicate": 1}})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert await client.post(PATH, b"id=1&state=up", form) == (202, {**taken, "outcomes": {"status": 1}})
    await idle(client)
    assert sent(sandbox) == [("trigger", "custom/acme:1"), ("resolve", "custom/acme:1")]


async def test_an_unknown_name_is_told_which_there_are_once_it_has_shown_a_token(
    settings: Settings, rules: Path
) -> None:
    write_sender(rules, "custom/acme", PLAIN)
    guarded = settings.model_copy(update={"webhook_tokens": (SecretStr("s3cret"),)})
    async with serving(guarded) as client:
        status, answer = await client.post("/webhooks/custom/acne", body("down"))
        assert (status, "acme" in json.dumps(answer)) == (401, False)
        token = {"X-Alertrouter-Token": "s3cret"}
        unknown = {"error": "unknown custom sender 'custom/acne'; one of: custom/acme"}
        assert await client.post("/webhooks/custom/acne", body("down"), token) == (404, unknown)
        status, answer = await client.post("/webhooks/custom", body("down"), token)
        assert (status, answer["error"]) == (404, "unknown custom sender 'custom'; one of: custom/acme")
        assert (await client.post(PATH, body("down"), token))[0] == 202


async def test_a_sender_that_is_no_longer_described_is_missed(client: Client, sandbox: Sandbox) -> None:
    for _ in range(3):
        assert (await client.post(PATH, body("down")))[0] == 404
    key = "alertrouter:sender-refused:custom/acme"
    await until(lambda: any(call.event["dedup_key"] == key for call in sandbox.calls))


async def test_an_unknown_status_is_kept_and_read_once_a_reload_knows_it(
    client: Client, rules: Path, sandbox: Sandbox
) -> None:
    write_sender(rules, "custom/acme", PLAIN)
    await client.service.reload()
    status, answer = await client.post(PATH, body("warm"))
    reason = "the status 'warm' at `state` is none of down, up"
    assert (status, answer["skipped"]) == (400, [{"alert": 0, "reason": reason}])
    [letter] = await listed(client)
    assert (letter["source"], reason in letter["reason"]) == ("custom/acme", True)
    await until(lambda: any("not-understood:custom/acme" in call.event["dedup_key"] for call in sandbox.calls))

    redrive = json.dumps({"action": "redrive", "letters": [letter["letter"]]}).encode()
    _, answer = await client.post(API, redrive)
    assert reason in json.dumps(answer)
    write_sender(rules, "custom/acme", PLAIN.replace("[down]", "[down, warm]"))
    await client.service.reload()
    await client.post(API, redrive)
    await idle(client)
    assert sent(sandbox) == [("trigger", "custom/acme:1")]
    assert await listed(client) == []


async def test_good_alerts_beside_a_bad_one_are_kept(client: Client, rules: Path, sandbox: Sandbox) -> None:
    write_sender(rules, "custom/acme", PLAIN)
    await client.service.reload()
    both = json.dumps([{"id": None, "state": "down"}, {"id": 2, "state": "down"}]).encode()
    status, answer = await client.post(PATH, both)
    assert (status, answer["alerts"], len(str(answer["skipped"])) > 0) == (202, 1, True)
    await idle(client)
    assert sent(sandbox) == [("trigger", "custom/acme:2")]


async def test_a_reload_with_a_fault_keeps_the_fields_of_before(client: Client, rules: Path) -> None:
    write_sender(rules, "custom/acme", PLAIN)
    await client.service.reload()
    write_sender(rules, "custom/acme", PLAIN.replace("identity: id", "identity: a..b"))
    status, answer = await client.post("/-/reload")
    assert (status, "after a dot comes a plain name" in json.dumps(answer)) == (422, True)
    assert (await client.post(PATH, body("down")))[0] == 202


# --- commands ----------------------------------------------------------------------------------------------------------


def acme(tmp_path: Path, fields: str = PLAIN) -> str:
    folder = tmp_path / "rules"
    (folder / "tests").mkdir(parents=True, exist_ok=True)
    return str(write_sender(folder, "custom/acme", fields))


async def explain(rules: str, source: str, body: Path) -> tuple[int, str, str]:
    return await run("explain", "--source", source, "--rules", rules, "-o", "json", str(body))


async def test_explain_reads_a_body_and_a_form_and_says_which_senders_there_are(tmp_path: Path) -> None:
    text, form = tmp_path / "body.json", tmp_path / "body.form"
    problem = {"id": "p", "state": 1, "title": "Disk"}
    text.write_text(json.dumps({"host": {"id": 1}, "event": {"problems": [problem]}}))
    _, explained, _ = await explain(acme(tmp_path, ACME), "custom/acme", text)
    [alert] = json.loads(explained)
    assert (alert["dedup_key"], alert["event"]["payload"]["summary"]) == ("custom/acme:p:1", "Disk")

    form.write_text("id=7&state=up")
    rules = acme(tmp_path, PLAIN)
    _, explained, _ = await explain(rules, "custom/acme", form)
    assert [each["event_action"] for each in json.loads(explained)] == ["resolve"]

    status, _, said = await explain(rules, "custom/acne", form)
    assert (status, "unknown custom sender 'custom/acne'; one of: custom/acme" in said) == (2, True)


def write_case(rules: str, source: str) -> None:
    (Path(rules) / "tests" / "acme_test.yaml").write_text(
        f"tests:\n  - name: pages\n    steps:\n      - source: {source}\n        body: {{id: 1, state: down}}\n"
        "        expect: {outcome: delivered, dedup_key: 'custom/acme:1'}\n"
        f"      - source: {source}\n        body: {{id: 1, state: warm}}\n        expect: {{outcome: refused, answer: 400}}\n"
    )


async def test_a_case_posts_as_a_custom_sender(tmp_path: Path) -> None:
    rules = acme(tmp_path)
    write_case(rules, "custom/acme")
    status, tested, said = await run("test", rules)
    assert status == 0, tested + said
    acme(tmp_path, WITH_WARM)
    status, tested, _ = await run("test", rules)
    assert (status, "ignored" in tested) == (1, True)


async def test_a_case_that_names_another_sender_is_told_which_there_is(tmp_path: Path) -> None:
    rules = acme(tmp_path)
    write_case(rules, "custom/acne")
    status, _, said = await run("test", rules)
    assert status == 2
    wrong = "acme_test.yaml:4:17: `custom/acne` is no custom sender of these rules; did you mean `custom/acme`?"
    assert wrong in said


async def test_replay_reads_recorded_bodies_by_the_new_rules(tmp_path: Path) -> None:
    rules, events = acme(tmp_path), tmp_path / "events.jsonl"
    lines = [
        {"kind": "webhook", "at": NIGHT + number, "source": "custom/acme", "body": {"id": number, "state": state}}
        for number, state in enumerate(["down", "warm"])
    ]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, replayed, said = await run("replay", "--rules", rules, "--against", rules, "-o", "json", str(events))
    assert "the status 'warm' at `state` is none of down, up" in said
    assert json.loads(replayed)["heard"] == 1
