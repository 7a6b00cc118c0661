"""Dead letters as an on-call engineer meets them: listed, looked at, mended, redriven, delivered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from alertrouter import telemetry
from alertrouter.alarms import SELF
from alertrouter.alert import Alert, Severity
from alertrouter.delivery.dead_letters import DeadLetters, LetterKeeper, Unreadable
from alertrouter.letter import LARGEST_BODY, LARGEST_EVENT, Filter, Found
from alertrouter.record import Outcome
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import DEFAULT_KEY, SEARCH_KEY, Client, Rig, serving
from tests.service.test_history import run
from tests.service.test_http import PATH, idle
from tests.service.test_rule_actions import globally
from tests.waiting import until

INVALID = {"status": "invalid event", "message": "Event object is invalid", "errors": ["'payload' is bad"]}
BAD_KEY = {"status": "invalid event", "message": "Event object is invalid", "errors": ["Invalid routing key"]}
API = "/api/v1/dead-letters"
TRIGGER, RESOLVE = ("trigger", "d"), ("resolve", "d")
DAY = 24 * HOUR


def desk(rig: Rig) -> DeadLetters:
    return DeadLetters(rig.store, rig.clock, rig.worker.wake)


async def letters(rig: Rig) -> list[Found]:
    found, _ = await desk(rig).find(Filter(), 1000)
    return found


async def refused(rig: Rig, *alerts: Alert) -> list[str]:
    """The names of the letters of alerts that PagerDuty refused, in whatever form, the newest first."""
    rig.sandbox.fail(400, times=3 * len(alerts), body=INVALID)
    await rig.hear(*alerts)
    return [each.as_json(whole=False)["letter"] for each in await letters(rig)]


async def redriven(rig: Rig, names: list[str], *, force: bool = False) -> list[str]:
    """What became of them, once everything that follows has happened."""
    handled = await desk(rig).redrive(names, force=force)
    await rig.worker.run_until_idle()
    return [each.result for each in handled]


async def listed(client: Client, query: str = "") -> list[dict[str, Any]]:
    status, text = await client.get(f"{API}?{query}")
    assert status == 200, text
    found = json.loads(text)
    assert isinstance(found, list)
    return found


async def refuse(client: Client, sandbox: Sandbox, *labels: dict[str, str]) -> list[dict[str, Any]]:
    """The letters once PagerDuty, which is well again, has refused alerts with these labels."""
    sandbox.fail(400, times=10_000, body=INVALID)
    await client.post(PATH, alertmanager_body(*(alertmanager_alert(**each) for each in labels)))

    async def all_are_refused() -> bool:
        return (await client.service.backlog())["dead_letters"] == len(labels)

    await until(all_are_refused, 60)
    sandbox.heal()
    return await listed(client)


# --- the story -------------------------------------------------------------------------------------------------------


async def test_a_refused_page_is_found_understood_mended_and_delivered(settings: Settings, sandbox: Sandbox) -> None:
    """PagerDuty refuses the key of a service; the page goes out once the key is mended."""
    tokens = settings.model_copy(update={"webhook_tokens": (SecretStr("s3cret"),)})
    async with serving(tokens) as client:
        url = client.service.url
        token = {"X-Alertrouter-Token": "s3cret"}
        sandbox.fail(400, times=1000, routing_key=SEARCH_KEY, body=BAD_KEY)
        sandbox.fail(400, times=1000, routing_key=DEFAULT_KEY, body=INVALID)
        alert = alertmanager_alert("SlowSearch", service="search", città="Zürich 🔥")
        await client.post(PATH, alertmanager_body(alert), token)
        await idle(client)

        environ = {"ALERTROUTER_WEBHOOK_TOKENS": "s3cret", "ALERTROUTER_LISTEN": url.removeprefix("http://")}
        code, output, errors = await run("dead-letters", "list", "--service", "search-service", **environ)
        assert (code, errors) == (0, "")
        first, second = output.splitlines()
        assert (
            "stands    trigger critical refused by pagerduty:search-service: HTTP 400: Event object is invalid" in first
        )
        assert "search-service  SlowSearch of payment" in second
        name = first.split()[0]

        code, output, _ = await run("dead-letters", "show", name, **environ)
        assert code == 0
        assert "said before HTTP 400: Event object is invalid" in output, "what it said to the first form"
        assert f"mend the reason, then `alertrouter dead-letters redrive {name}`" in output
        assert '"routing_key": "[redacted]"' in output and '"summary": "SlowSearch of payment"' in output
        assert "Zürich 🔥" in output
        assert SEARCH_KEY not in output and DEFAULT_KEY not in output

        code, output, _ = await run("dead-letters", "redrive", name, **environ)
        assert code == 0, "it is put back, and refused once more"
        await until(lambda: len(sandbox.calls) > 6)
        await idle(client)
        assert sandbox.events == []
        [again] = json.loads(
            (await run("dead-letters", "list", "--service", "search-service", "-o", "json", **environ))[1]
        )
        assert again["letter"] != name and again["version"] == 2

        sandbox.heal()
        code, output, _ = await run("dead-letters", "redrive", "--service", "search-service", "-o", "json", **environ)
        assert code == 0
        assert json.loads(output) == [
            {"letter": again["letter"], "result": "redriven", "reason": "", "id": again["id"]}
        ]
        [call] = await sandbox.wait_for(lambda events: len(events) == 1)
        assert (call.routing_key, call.event["dedup_key"]) == (SEARCH_KEY, again["id"])
        assert call.event["payload"]["custom_details"]["città"] == "Zürich 🔥", "whole, as it was meant to be"
        await idle(client)

        code, output, errors = await run("dead-letters", "list", "--service", "search-service", **environ)
        assert (code, output, errors) == (0, "", "no dead letters\n")
        code, output, _ = await run("dead-letters", "redrive", name, **environ)
        assert (code, output) == (1, f"{name}  unknown  there is no such dead letter\n")
        code, output, _ = await run("explain", "--alert", again["id"], **environ)
        assert output.startswith("Sent to pagerduty:search-service") and "dead letter redriven" in output
        code, output, _ = await run("history", "--kind", "letter", **environ)
        assert output.count("dead letter redriven (pagerduty:search-service)") == 2


#: Ends of lines to str.splitlines, parts of a text to JSON.
LINE_ENDS = "a\u2028b\u2029c\x85d"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
async def test_json_is_json_whatever_a_sender_writes(client: Client, sandbox: Sandbox, encoding: str) -> None:
    sandbox.fail(400, times=3, body=INVALID)
    incident = {"incident_id": LINE_ENDS, "state": "open", "policy_name": LINE_ENDS, "summary": LINE_ENDS}
    await client.post("/webhooks/gcp", json.dumps({"version": "1.2", "incident": incident}).encode())
    await until(lambda: len(sandbox.calls) == 3)
    await idle(client)
    [letter] = await listed(client)
    environ = {"ALERTROUTER_LISTEN": client.service.url.removeprefix("http://"), "PYTHONIOENCODING": encoding}

    async def told(*arguments: str) -> Any:
        code, output, _ = await run("dead-letters", *arguments, "-o", "json", **environ)
        assert (code, output.replace("\n", "").isprintable()) == (0, True)
        return json.loads(output)

    assert letter["id"] == f"gcp:{LINE_ENDS}"
    assert await told("list") == [letter]
    assert (await told("show", letter["letter"]))["id"] == letter["id"]
    [redriven] = await told("redrive", letter["letter"])
    assert (redriven["result"], redriven["id"]) == ("redriven", letter["id"])


async def test_what_is_shown_keeps_its_lines(client: Client, sandbox: Sandbox) -> None:
    """A line end of a sender's is shown as an escape: none of its text begins a line."""
    [letter] = await refuse(client, sandbox, {"service": "search", "note": LINE_ENDS})
    await client.post("/webhooks/alertmanager/team-a", f'{{"{LINE_ENDS}'.encode())
    [body] = await listed(client, "source=alertmanager/team-a")
    environ = {"ALERTROUTER_LISTEN": client.service.url.removeprefix("http://")}
    for each in (letter, body):
        _, output, _ = await run("dead-letters", "show", each["letter"], **environ)
        assert "a\\u2028b\\u2029c\\u0085d" in output


async def test_explain_says_how_to_redrive(client: Client, sandbox: Sandbox) -> None:
    [letter] = await refuse(client, sandbox, {})
    listen = client.service.url.removeprefix("http://")
    _, output, _ = await run("explain", "--alert", letter["id"], ALERTROUTER_LISTEN=listen)
    assert f"once that is mended: alertrouter dead-letters redrive {letter['letter']}" in output


async def test_many_are_listed_and_handled_page_by_page(client: Client, sandbox: Sandbox) -> None:
    count = 230
    await refuse(client, sandbox, *({"n": str(number)} for number in range(count)))
    whole = await listed(client, "limit=1000")
    assert len({each["letter"] for each in whole}) == count
    assert [each["letter"] for each in whole] == sorted((each["letter"] for each in whole), reverse=True)
    pages, cursor = [], ""
    while True:
        async with client.session.get(f"{client.service.url}{API}?limit=90{cursor}") as response:
            page = await response.json()
            pages += page
            if "X-Alertrouter-Cursor" not in response.headers:
                break
            cursor = f"&cursor={response.headers['X-Alertrouter-Cursor']}"
    assert pages == whole
    environ = {"ALERTROUTER_LISTEN": client.service.url.removeprefix("http://")}
    code, output, errors = await run("dead-letters", "drop", "--reason", "PAYLOAD' is bad", **environ)
    assert (code, output) == (2, "") and f"this drops {count} letters: say --yes" in errors
    code, output, _ = await run("dead-letters", "redrive", "--all", **environ)
    assert (code, output.count("redriven")) == (0, count)
    await sandbox.wait_for(lambda events: len(events) == count, 60)
    assert await listed(client) == []


# --- what is put back, and what is not -------------------------------------------------------------------------------


async def test_a_redriven_alert_is_judged_by_the_rules_of_now(rig: Rig) -> None:
    names = await refused(rig, make_alert())
    rig.change_rules({}, **{"pagerduty:default": "n" * 32})
    assert await redriven(rig, names) == ["redriven"]
    assert rig.sent == [("trigger", "n")]
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    assert rig.sent == [("trigger", "n"), ("resolve", "n")]


async def test_what_is_over_is_told_and_closed_by_force_alone(rig: Rig) -> None:
    names = await refused(rig, make_alert())
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    assert await redriven(rig, names) == ["resolved"]
    assert rig.sent == []
    assert await redriven(rig, names, force=True) == ["redriven"]
    assert rig.sent == [TRIGGER, RESOLVE], "nothing stays open"
    record = await rig.store.record(make_alert().id)
    assert record is not None and record.outcome is Outcome.DELIVERED
    await rig.hear(make_alert(started=rig.clock.advance(HOUR)))
    assert rig.sent == [TRIGGER, RESOLVE, TRIGGER]


async def test_who_forces_a_letter_does_not_wait_for_a_suspension(rig: Rig) -> None:
    names = await refused(rig, make_alert())
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    rig.change_rules(globally("then: {suspend: 5m}"))
    assert await redriven(rig, names, force=True) == ["redriven"]
    assert rig.sent == [TRIGGER, RESOLVE]


async def test_what_is_gone_is_told_and_closed_by_force_alone(rig: Rig) -> None:
    names = await refused(rig, make_alert(summary="größer als 世界"))
    await rig.store._client.delete(rig.store.keys.alert + make_alert().id)
    [handled] = await desk(rig).redrive(names)
    assert (handled.result, "--force" in handled.reason) == ("gone", True)
    assert await redriven(rig, names, force=True) == ["redriven"]
    assert rig.sent == [TRIGGER, RESOLVE]
    assert rig.sandbox.events[0].event["payload"]["summary"] == "größer als 世界"


async def test_a_refused_resolve_closes_what_is_open(rig: Rig) -> None:
    await rig.hear(make_alert())
    names = await refused(rig, make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    rig.sandbox.heal()
    assert await redriven(rig, names) == ["redriven"]
    assert rig.sent == [TRIGGER, RESOLVE]


async def test_a_muted_alert_stays_muted(rig: Rig) -> None:
    names = await refused(rig, make_alert())
    rig.change_rules(
        {
            "global.yaml": """
                sets:
                  start:
                    - {rule: mute, owner: me, then: {suppress: true, reason: m, expires: 2099-01-01}}
                catch_all: {}
            """
        }
    )
    assert await redriven(rig, names) == ["redriven"]
    assert rig.sent == []


@pytest.mark.parametrize("seed", range(6))
async def test_a_redrive_that_races_with_newer_news_never_sends_the_old(rig: Rig, seed: int) -> None:
    """Refused as critical, then heard as error or as resolved, at once with a redrive of the letter, forced or not."""
    count = 30
    alerts = [make_alert(str(number)) for number in range(count)]
    names = await refused(rig, *alerts)
    assert len(names) == count
    rig.sandbox.heal()
    newer = [
        make_alert(str(number), severity=Severity.ERROR)
        if number % 2
        else make_alert(str(number), status="resolved", ended=NIGHT + MINUTE)
        for number in range(count)
    ]
    rig.clock.advance(MINUTE)

    async def redrive() -> None:
        for start in range(0, count, 7):
            await desk(rig).redrive(names[start : start + 7], force=seed % 2 == 1)

    async def hear() -> None:
        for start in range(0, count, 5):
            for _ in range(seed):
                await asyncio.sleep(0)  # another interleaving for each seed
            await rig.store.accept(newer[start : start + 5], rig.clock())

    async def work() -> None:
        for _ in range(10):
            await rig.worker.run_until_idle()

    await asyncio.gather(redrive(), hear(), work())
    await rig.worker.run_until_idle()
    for number, alert in enumerate(alerts):
        told = [call.event for call in rig.sandbox.events if call.event["dedup_key"] == alert.id]
        steps = [(event["event_action"], event.get("payload", {}).get("severity", "")) for event in told]
        if number % 2:
            assert steps[-1] == ("trigger", "error"), "the last that is told is the last that was heard"
            assert steps.index(("trigger", "error")) == len(steps) - 1
        else:
            assert steps in ([], [("trigger", "critical"), ("resolve", "")]), "no trigger after the resolve"


# --- bodies ----------------------------------------------------------------------------------------------------------

GARBAGE = b'{"alerts": [{"status": "firing", "labels": {"alertname": "Broken '


async def test_a_body_that_is_not_understood_is_kept_and_its_sender_told_of(client: Client, sandbox: Sandbox) -> None:
    for number in range(3):
        status, _ = await client.post("/webhooks/alertmanager/team-a", GARBAGE + str(number).encode())
        assert status == 400
    [notice] = await sandbox.wait_for(lambda events: len(events) == 1)
    assert notice.event["dedup_key"] == f"{SELF}:not-understood:alertmanager/team-a"
    assert "alertmanager/team-a" in notice.event["payload"]["summary"]
    await idle(client)
    assert len(sandbox.events) == 1, "one notice per sender and 15 minutes"
    found = await listed(client, "source=alertmanager")
    assert [(each["kind"], each["source"], each["status"]) for each in found] == [
        ("body", "alertmanager/team-a", 400)
    ] * 3
    environ = {"ALERTROUTER_LISTEN": client.service.url.removeprefix("http://")}
    name = found[0]["letter"]
    code, output, _ = await run("dead-letters", "show", name, **environ)
    assert code == 0 and "Broken 2" in output and "body not understood: not JSON" in output
    code, output, _ = await run("dead-letters", "redrive", name, **environ)
    assert code == 1 and "refused  still not understood: not JSON" in output
    code, output, _ = await run("dead-letters", "drop", "--source", "alertmanager/team-a", "--yes", **environ)
    assert (code, output.count("dropped")) == (0, 3)
    assert await listed(client) == []


async def test_the_bad_part_of_a_batch_is_kept_beside_the_good(client: Client, sandbox: Sandbox) -> None:
    status, answer = await client.post(PATH, alertmanager_body(alertmanager_alert(), 7))
    assert status == 202 and answer["outcomes"] == {"new": 1}
    [letter] = await listed(client)
    assert (letter["kind"], letter["status"]) == ("body", 202)
    assert letter["reason"].startswith("1 of its alerts cannot be used: ")


async def test_what_can_be_understood_by_now_is_taken_in_as_heard_then(rig: Rig) -> None:
    """A later version of this program reads what an earlier one could not; what was heard since stands."""
    unreadable = Unreadable(rig.store, lambda alerts: rig.hear(*alerts), rig.clock)
    then = rig.clock()
    body = alertmanager_body(alertmanager_alert(n="1"), alertmanager_alert(n="2"))
    await unreadable.keep("alertmanager", body, "application/json", 400, "too modern")
    rig.clock.advance(MINUTE)
    await rig.worker.run_until_idle()
    [letter] = await letters(rig)
    [handled] = await desk(rig).redrive([letter.as_json(whole=False)["letter"]])
    await rig.worker.run_until_idle()
    assert (handled.result, handled.reason) == ("redriven", "2 new")
    assert await letters(rig) == []
    ids = [id_ for id_ in await rig.store.some_ids() if not id_.startswith(SELF)]
    records = [await rig.store.record(id_) for id_ in ids]
    assert [record.first_heard for record in records if record is not None] == [then, then]
    assert len(rig.sent) == 3, "the notice, and two pages"

    resolved = alertmanager_body(alertmanager_alert(n="1", status="resolved"))
    await unreadable.keep("alertmanager", resolved, "application/json", 400, "too modern")
    rig.clock.advance(SECOND)
    await rig.store.accept([make_alert(id_.partition(":")[2], severity="error") for id_ in ids], rig.clock())
    [letter] = await letters(rig)
    [handled] = await desk(rig).redrive([letter.as_json(whole=False)["letter"]])
    assert (handled.result, handled.reason) == ("redriven", "1 older")


async def test_an_old_body_is_taken_in_by_force_alone(rig: Rig) -> None:
    unreadable = Unreadable(rig.store, lambda alerts: rig.hear(*alerts), rig.clock)
    await unreadable.keep("alertmanager", alertmanager_body(alertmanager_alert()), "", 400, "too modern")
    rig.clock.advance(DAY + SECOND)
    [letter] = await letters(rig)
    name = letter.as_json(whole=False)["letter"]
    assert await redriven(rig, [name]) == ["gone"]
    assert await redriven(rig, [name], force=True) == ["redriven"]


async def test_the_notice_ends_when_a_sender_is_understood_again(rig: Rig) -> None:
    unreadable = Unreadable(rig.store, lambda alerts: rig.hear(*alerts), rig.clock)
    for minutes in range(0, 40, 10):
        await unreadable.keep("datadog", b"{", "", 400, "not JSON")
        await rig.settle(10 * MINUTE)
        await unreadable.look_back()
        assert [action for action, _ in rig.sent].count("trigger") == 1 + minutes // 20
    rig.clock.advance(HOUR + MINUTE)
    await unreadable.look_back()
    assert rig.sent[-1][0] == "resolve"


async def test_nothing_is_kept_of_nothing(client: Client) -> None:
    assert (await client.post(PATH, b" \n "))[0] == 400
    assert await listed(client) == []


async def test_a_body_that_cannot_be_kept_now_is_asked_for_again(client: Client) -> None:
    embedded = client.service.embedded
    assert embedded is not None
    await client.service.store._client.set(client.service.store.keys.letters, "not ours")
    assert (await client.post(PATH, GARBAGE))[0] == 503
    await client.service.store._client.delete(client.service.store.keys.letters)
    assert (await client.post(PATH, GARBAGE))[0] == 400


# --- bounds ----------------------------------------------------------------------------------------------------------


def keeper(rig: Rig, folder: Path, most: int, most_bytes: int = 10**9) -> LetterKeeper:
    unreadable = Unreadable(rig.store, lambda alerts: rig.hear(*alerts), rig.clock)
    return LetterKeeper(
        rig.store,
        unreadable,
        lambda alerts: rig.hear(*alerts),
        rig.clock,
        folder=folder,
        most=most,
        most_bytes=most_bytes,
    )


def let_go(to: str) -> float:
    return float(telemetry.DEAD_LETTERS_LET_GO.labels(to)._value.get())


async def test_too_many_move_to_a_file_oldest_first_and_page(rig: Rig, tmp_path: Path) -> None:
    names = await refused(rig, *(make_alert(str(number)) for number in range(10)))
    rig.sandbox.heal()
    kept = keeper(rig, tmp_path / "letters", 7)
    before = let_go("file")
    await kept.step()
    assert [each.as_json(whole=False)["letter"] for each in await letters(rig)] == names[:7]
    [file] = (tmp_path / "letters").iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("dead-letters-2027-01-10.jsonl", 0o600)
    moved = [json.loads(line) for line in file.read_text().splitlines()]
    assert [each["letter"] for each in moved] == names[:6:-1]
    assert moved[0]["event"]["routing_key"] == "[redacted]" and moved[0]["alert"]["source"] == "alertmanager"
    assert let_go("file") - before == 3
    assert rig.sandbox.events[-1].event["dedup_key"] == f"{SELF}:dead-letters-full"
    assert [warning.split(":")[0] for warning in kept.warnings()] == ["7 dead letters, of 7 that are kept in Redis"]
    await desk(rig).drop(names[:5])
    await kept.step()
    assert rig.sent[-1][0] == "resolve"
    assert kept.warnings()[0].startswith("2 dead letters: ")


async def test_a_list_names_the_file_of_what_was_too_many(settings: Settings) -> None:
    folder = settings.data_dir / "dead-letters"
    folder.mkdir(parents=True)
    for day in (9, 10):
        (folder / f"dead-letters-2027-01-{day:02}.jsonl").write_text("{}\n")
    async with serving(settings) as client:
        await until(lambda: client.service.letter_keeper.spilled != "")
        listen = client.service.url.removeprefix("http://")
        code, output, errors = await run("dead-letters", "list", ALERTROUTER_LISTEN=listen)
    assert (code, output) == (0, "")
    assert f"are in {folder}/dead-letters-2027-01-10.jsonl where {client.service.url} runs" in errors


async def test_the_alarm_of_a_replica_that_is_gone_ends_all_the_same(rig: Rig, tmp_path: Path) -> None:
    names = await refused(rig, *(make_alert(str(number)) for number in range(10)))
    rig.sandbox.heal()
    other = keeper(rig, tmp_path / "other", 10)
    await desk(rig).drop(names[:6])
    await other.step()
    await keeper(rig, tmp_path / "gone", 3).step()
    assert rig.sent[-1] == ("trigger", "d")
    await desk(rig).drop(names)
    await other.step()
    assert rig.sent[-1] == ("resolve", "d")


async def test_where_no_file_can_be_written_the_log_has_them(rig: Rig, tmp_path: Path) -> None:
    await refused(rig, *(make_alert(str(number)) for number in range(3)))
    rig.sandbox.heal()
    (tmp_path / "letters").write_text("a file where the folder should be")
    before = let_go("log")
    with capture_logs() as log:
        await keeper(rig, tmp_path / "letters", 1).step()
    lines = [json.loads(entry["letter"]) for entry in log if entry["event"].startswith("a dead letter is let go of")]
    assert [line["id"] for line in lines] == [make_alert("0").id, make_alert("1").id]
    assert let_go("log") - before == 2
    assert len(await letters(rig)) == 1


@pytest.mark.parametrize("body", [b'"' + b"x" * LARGEST_BODY, b"\xff" * LARGEST_BODY], ids=["text", "base64"])
async def test_the_log_has_no_more_of_a_body_than_of_an_event(rig: Rig, tmp_path: Path, body: bytes) -> None:
    reader = Unreadable(rig.store, lambda alerts: rig.hear(*alerts), rig.clock)
    await reader.keep("alertmanager", body, "text/plain", 400, "not JSON")
    (tmp_path / "letters").write_text("a file where the folder should be")
    with capture_logs() as log:
        await keeper(rig, tmp_path / "letters", 0).step()
    [line] = [json.loads(entry["letter"]) for entry in log if entry["event"].startswith("a dead letter is let go of")]
    assert (len(line["body"]), line["size"], line["reason"]) == (LARGEST_EVENT, len(body), "not JSON")


async def test_letters_that_nobody_looks_after_page_once(rig: Rig, tmp_path: Path) -> None:
    names = await refused(rig, make_alert())
    rig.sandbox.heal()
    kept = keeper(rig, tmp_path, 10)
    await kept.step()
    assert rig.sent == []
    for _ in range(3):
        rig.clock.advance(10 * MINUTE)
        await kept.step()
    [call] = rig.sandbox.events
    assert call.event["dedup_key"] == f"{SELF}:dead-letters"
    await keeper(rig, tmp_path, 10).step()  # another replica, or this one after a restart
    assert [call.result for call in rig.sandbox.events] == ["opened", "updated"], "which pages nobody"
    await desk(rig).drop(names)
    await kept.step()
    assert [call.event["event_action"] for call in rig.sandbox.events] == ["trigger", "trigger", "resolve"]


# --- the edges of API and command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=0000000019999999", "limit=²", "since=yesterday", "standing=up", "cursor=-1"],
)
async def test_a_strange_question_is_answered_with_what_to_write(client: Client, query: str) -> None:
    status, text = await client.get(f"{API}?{query}")
    assert status == 400
    assert query.partition("=")[0] in json.loads(text)["error"]


POSTS = {
    "empty": b"",
    "not JSON": b"redrive",
    "not UTF-8": b'{"action":"drop","letters":["\xff"]}',
    "a list": b"[]",
    "no letters": b'{"action":"redrive","letters":[]}',
    "another action": b'{"action":"burn","letters":["a"]}',
    "a letter that is a number": b'{"action":"drop","letters":[7]}',
    "another member": b'{"action":"drop","letters":["a"],"all":true}',
    "too many": json.dumps({"action": "drop", "letters": [str(n) for n in range(101)]}).encode(),
    "deep": b"[" * 10_000,
}


@pytest.mark.parametrize("body", POSTS.values(), ids=POSTS.keys())
async def test_a_strange_post_changes_nothing(client: Client, sandbox: Sandbox, body: bytes) -> None:
    before = await refuse(client, sandbox, {})
    status, answer = await client.post(API, body)
    assert status == 400 and answer["error"]
    assert await listed(client) == before


async def test_strange_names_are_unknown_and_huge_bodies_refused(client: Client) -> None:
    names = ["", "-1", "..", "0" * 4000, "größe", "\u0000", "a\nb", "0"]
    status, answer = await client.post(API, json.dumps({"action": "redrive", "letters": names, "force": True}).encode())
    assert status == 200
    assert [each["result"] for each in answer] == ["unknown"] * len(names)  # type: ignore[index]
    assert (await client.post(API, b'{"action":"drop","letters":["' + b"x" * 100_000 + b'"]}'))[0] == 413
    assert (await client.post(API, b'{"action":"drop","letters":["0"]}', {"Content-Type": "text/plain"}))[0] == 415
    for name in ("0", "%00", "..%2F..", "x" * 3000, "%FF"):
        assert (await client.get(f"{API}/{name}"))[0] == 404


async def test_letters_are_found_by_what_they_are_about(client: Client, sandbox: Sandbox) -> None:
    await refuse(client, sandbox, {"n": "1"}, {"n": "2", "service": "search"})
    await client.post("/webhooks/datadog", b"{")
    await idle(client)
    [search] = await listed(client, "service=search-service")
    assert [each["letter"] for each in await listed(client, f"alert={search['id']}")] == [search["letter"]]
    assert [each["letter"] for each in await listed(client, "destination=pagerduty:search-service")] == [
        search["letter"]
    ]
    assert len(await listed(client, "source=alertmanager")) == 2
    assert len(await listed(client, "source=datadog")) == 1
    assert len(await listed(client, "reason=IS%20BAD")) == 2
    assert len(await listed(client, "reason=content")) == 2
    assert len(await listed(client, "standing=stands")) == 3
    assert await listed(client, "standing=newer") == []
    assert await listed(client, f"since={search['at'] + HOUR}") == []
    assert all("event" not in each and "alert" not in each for each in await listed(client))


async def test_without_its_token_nothing_is_shown_or_done(settings: Settings) -> None:
    async with serving(settings.model_copy(update={"webhook_tokens": (SecretStr("s3cret"),)})) as client:
        assert (await client.get(API))[0] == 401
        assert (await client.get(f"{API}/0"))[0] == 401
        assert (await client.post(API, b'{"action":"drop","letters":["0"]}'))[0] == 401
        listen = client.service.url.removeprefix("http://")
        code, _, errors = await run("dead-letters", "list", ALERTROUTER_LISTEN=listen)
        assert code == 1 and "set ALERTROUTER_API_OPERATE_TOKENS" in errors


async def test_what_a_sender_wrote_cannot_move_the_cursor(client: Client, sandbox: Sandbox) -> None:
    alert = alertmanager_alert(evil="\u202e\u0085 \u2028")
    alert["annotations"]["summary"] = "down \u202ereversed\u0085 \u2028"
    sandbox.fail(400, times=3, body={**INVALID, "message": "no \u001b[2J\u009b31m"})
    await client.post(PATH, alertmanager_body(alert))
    await idle(client)
    environ = {"ALERTROUTER_LISTEN": client.service.url.removeprefix("http://")}
    for command in (["list"], ["list", "-o", "json"], ["show", (await listed(client))[0]["letter"]]):
        code, output, errors = await run("dead-letters", *command, **environ)
        assert (code, errors) == (0, "")
        assert all(character.isprintable() or character == "\n" for character in output)


@pytest.mark.parametrize(
    "arguments",
    [
        ["redrive"],
        ["drop"],
        ["redrive", "a", "--all"],
        ["drop", "a", "--service", "x"],
        ["redrive", "not a name"],
        ["show", "-"],
        ["list", "--standing", "up"],
        ["list", "--since", "long ago"],
        ["list", "--url", "ftp://x"],
        ["list", "--url", "http://["],
        ["burn"],
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_2(arguments: list[str]) -> None:
    code, output, errors = await run("dead-letters", *arguments)
    assert (code, output) == (2, "")
    assert "Usage: python -m alertrouter dead-letters" in errors


async def test_no_service_is_one_line_and_1() -> None:
    code, output, errors = await run("dead-letters", "list", "--url", "http://127.0.0.1:9")
    assert (code, output) == (1, "")
    assert len(errors.splitlines()) == 1 and "is `alertrouter serve` running there?" in errors
