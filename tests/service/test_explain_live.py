"""`alertrouter explain --alert` and GET /api/v1/alerts/{dedup_key}: what a running service says became of an alert."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web
from msgspec.structs import replace
from pydantic import SecretStr
from redis.asyncio import Redis

from alertrouter.alarms import SELF_DESTINATION, alarm
from alertrouter.delivery.explained_text import as_text
from alertrouter.delivery.explaining import closest, explain_record
from alertrouter.record import Outcome
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import DEFAULT_KEY, Client, Rig, serving, write_rules
from tests.service.test_history import run
from tests.service.test_http import PATH, idle
from tests.service.test_rule_actions import MUTE, globally

ID = make_alert().id


async def explained(rig: Rig, alert_id: str = ID) -> dict[str, Any]:
    """What is told of an alert, and that it is fit for JSON and for text."""
    found = await explain_record(alert_id, rig.store, rig.active.ruleset, rig.clock())
    assert found is not None
    assert json.loads(json.dumps(found)) == found
    return found


async def told_first(rig: Rig, alert_id: str = ID) -> str:
    """The first line of the text."""
    return next(as_text({**await explained(rig, alert_id), "history": [], "history_complete": True}))


async def everything_in(redis: Redis, *but: str) -> dict[bytes, bytes | None]:
    """What Redis holds, key by key."""
    keys = [key async for key in redis.scan_iter()]
    return {key: await redis.dump(key) for key in keys if key.decode() not in but}


async def known_id(client: Client) -> str:
    """The id of the only alert of this service."""
    _, text = await client.get("/api/v1/history?kind=heard")
    [entry] = json.loads(text)
    return str(entry["id"])


# --- what is said ----------------------------------------------------------------------------------------------------


async def test_a_delivered_alert_says_where_it_went_when_and_why(rig: Rig) -> None:
    await rig.hear(make_alert())
    await rig.settle(2 * MINUTE)
    await rig.hear(make_alert())
    rig.clock.advance(MINUTE)
    found = await explained(rig)
    assert (found["outcome"], found["service"], found["severity"], found["dedup_key"]) == (
        "delivered",
        "payment-service",
        "critical",
        ID,
    )
    assert (found["record"]["count"], found["record"]["first_heard"]) == (2, NIGHT)
    assert found["record"]["duplicate_until"] == NIGHT + 2 * MINUTE + 5 * MINUTE + 15 * SECOND
    [told] = found["told"]
    assert (told["destination"], told["state"], told["at"], told["version"]) == (
        "pagerduty:default",
        "triggered",
        NIGHT,
        1,
    )
    assert found["event"]["routing_key"] == "[redacted]"
    assert DEFAULT_KEY not in json.dumps(found)
    lines = list(as_text({**found, "history": [], "history_complete": True}))
    assert lines[0] == (
        "Sent to pagerduty:default on 2027-01-10 03:00:00 UTC (3 min ago) as critical, "
        "because rule payments of the router gives it to payment-service."
    )
    text = "\n".join(lines)
    assert (
        "Heard 2 times\n    first 2027-01-10 03:00:00 UTC (3 min ago), last 2027-01-10 03:02:00 UTC (1 min ago)" in text
    )
    assert "it is a duplicate until 2027-01-10 03:07:15 UTC (in 4 min 15 s)" in text
    assert "pagerduty:default: triggered, 2027-01-10 03:00:00 UTC (3 min ago) (version 1)" in text
    assert (
        "  no  staging-noise                `event.custom_details.env == 'staging'` is false: it is not there" in text
    )
    assert "  yes payments                     `event.custom_details.service matches 'payment'` is true" in text


async def test_after_the_window_it_would_be_forwarded(rig: Rig) -> None:
    await rig.hear(make_alert())
    rig.clock.advance(HOUR)
    text = "\n".join(as_text({**await explained(rig), "history": [], "history_complete": True}))
    assert "heard again it is forwarded: the dedup window ended 2027-01-10 03:05:15 UTC (54 min 45 s ago)" in text


async def test_a_suppressed_alert_names_rule_and_reason(rig: Rig) -> None:
    await rig.hear(make_alert(env="staging", service="payment"))
    assert await told_first(rig) == "Nobody was told: rule staging-noise suppresses it (nobody is paged for staging)."
    found = await explained(rig)
    assert (found["outcome"], found["rule"], found["event"], found["told"]) == ("suppressed", "staging-noise", None, [])


async def test_a_muted_alert_that_paged_before_says_that_it_is_still_open(rig: Rig) -> None:
    await rig.hear(make_alert())
    rig.change_rules(globally(MUTE))
    await rig.hear(make_alert(severity="error"))
    assert await told_first(rig) == (
        "Not told anew: rule r0 suppresses it (m); pagerduty:default still has it open from before."
    )


async def test_a_failing_destination_says_how_often_and_when_next(rig: Rig) -> None:
    rig.sandbox.fail(500, times=2)
    await rig.hear(make_alert())
    record = await rig.store.record(ID)
    assert record is not None
    [told] = record.told
    found = await explained(rig)
    assert found["outcome"] == "pending"
    assert (found["told"][0]["tries"], found["told"][0]["not_before"]) == (1, told.not_before)
    first = await told_first(rig)
    assert first.startswith("NOT DELIVERED YET: pagerduty:default failed once, next try 2027-01-10 03:00:0")
    tried = {"kind": "sent", "at": NIGHT, "destination": "pagerduty:default", "result": "again", "reason": "HTTP 500"}
    text = "\n".join(as_text({**found, "history": [tried], "history_complete": True}))
    assert text.startswith("NOT DELIVERED YET: pagerduty:default failed once (HTTP 500), next try ")
    assert "      failed once, not tried again before 2027-01-10 03:00:0" in text
    assert "2027-01-10 03:00:00  sent to pagerduty:default: failed, to be tried again  HTTP 500" in text
    await rig.settle(HOUR)
    await rig.settle(HOUR)
    assert (await explained(rig))["outcome"] == "delivered"


async def test_a_refused_alert_shows_its_dead_letter(rig: Rig) -> None:
    rig.sandbox.fail(400, times=9)
    await rig.hear(make_alert())
    found = await explained(rig)
    assert found["outcome"] == "dead_lettered"
    assert found["told"][0]["dead_letter"]["status"] == 400
    assert (await told_first(rig)).startswith("NOT DELIVERED: pagerduty:default refused it (HTTP 400: ")
    assert DEFAULT_KEY not in json.dumps(found)


async def test_a_suspended_alert_says_until_when(rig: Rig) -> None:
    rig.change_rules(globally("then: {suspend: 5m}"))
    await rig.hear(make_alert())
    rig.clock.advance(MINUTE)
    assert (await explained(rig))["outcome"] == "suspended"
    assert await told_first(rig) == (
        "Held back by the rules until 2027-01-10 03:05:00 UTC (in 4 min): "
        "nobody is told before, and nobody at all if it is resolved by then."
    )
    await rig.hear(make_alert(status="resolved", ended=rig.clock()))
    assert (await explained(rig))["outcome"] == Outcome.CANCELLED_IN_SUSPEND
    assert await told_first(rig) == "Nobody was told: it was resolved while the rules held it back."


async def test_a_resolved_alert_says_where(rig: Rig) -> None:
    await rig.hear(make_alert())
    await rig.hear(make_alert(status="resolved", ended=rig.clock.advance(MINUTE)))
    assert await told_first(rig) == "Resolved at pagerduty:default on 2027-01-10 03:01:00 UTC (0 s ago)."


async def test_what_waits_to_be_judged_and_to_be_sent_says_so(rig: Rig) -> None:
    await rig.store.accept([make_alert("a"), make_alert("b")], rig.clock())
    assert await told_first(rig, make_alert("a").id) == "Not judged yet: it waits for the worker."
    await rig.worker._judge_due()
    places = [(await explained(rig, make_alert(name).id))["record"]["waiting"] for name in "ab"]
    assert places == [
        [{"destination": "pagerduty:default", "before": before, "length": 2, "paused_until": 0}] for before in (0, 1)
    ]
    assert await told_first(rig, make_alert("b").id) == (
        "Not sent yet: it waits for its turn at pagerduty:default, 1 other before it."
    )


async def test_what_waits_while_its_routing_key_is_throttled_says_until_when(rig: Rig) -> None:
    rig.sandbox.fail(429, retry_after=90)
    await rig.hear(make_alert())
    assert await told_first(rig) == (
        "Not sent yet: it waits for its turn at pagerduty:default, it is next; nothing goes by its routing key until "
        "2027-01-10 03:01:30 UTC (in 1 min 30 s)."
    )
    lines = [line.strip() for line in as_text({**await explained(rig), "history": [], "history_complete": True})]
    assert "failed once, tried in its turn" in lines
    await rig.settle(90 * SECOND)
    assert rig.sent == [("trigger", "d")]


async def test_a_send_in_flight_says_so(rig: Rig) -> None:
    await rig.store.accept([make_alert()], rig.clock())
    await rig.worker._judge_due()
    assert await told_first(rig) == "Not sent yet: it waits for its turn at pagerduty:default, it is next."
    [claim], _ = await rig.store.claim_sends(rig.clock(), 1, 0)
    found = await explained(rig)
    assert (found["told"][0]["lease_until"], found["record"]["waiting"]) == (claim.lease_until, [])
    assert await told_first(rig) == "Being sent to pagerduty:default at this moment."


async def test_an_alert_that_kills_workers_is_told_as_such(rig: Rig) -> None:
    await rig.hear(make_alert())
    await rig.store._client.hset(rig.store.keys.alert + ID, "poisoned", "1")
    found = {**await explained(rig), "history": [], "history_complete": True}
    assert (found["trace"], found["record"]["poisoned"]) == ([], True)
    assert "  NOT READABLE: every worker that tried" in "\n".join(as_text(found))


async def test_an_alarm_of_our_own_is_beyond_the_rules(rig: Rig) -> None:
    own = alarm("disk-full", "the disk is full")
    rig.change_rules(globally(MUTE), **{SELF_DESTINATION: DEFAULT_KEY})
    await rig.hear(own)
    first = await told_first(rig, own.id)
    assert first.startswith(f"Sent to {SELF_DESTINATION} on ")
    assert first.endswith(", because alerts of this kind are not judged by rules.")


async def test_what_was_sent_in_another_form_says_why(rig: Rig) -> None:
    rig.sandbox.fail(400, times=1)
    await rig.hear(make_alert())
    found = {**await explained(rig), "history": [], "history_complete": True}
    assert (found["outcome"], found["told"][0]["rung"]) == ("delivered", 1)
    assert "      it said: HTTP 400: " in "\n".join(as_text(found))


async def test_rules_that_would_do_otherwise_now_are_told(rig: Rig) -> None:
    await rig.hear(make_alert())
    rig.change_rules({"router.yaml": "catch_all: {route_to: search-service}\n"})
    text = "\n".join(as_text({**await explained(rig), "history": [], "history_complete": True}))
    assert "THE RULES ARE OTHERS NOW: it was judged for payment-service, and is search-service's now" in text
    rig.change_rules(globally(MUTE))
    found = await explained(rig)
    assert (found["outcome"], found["judged_now"]["outcome"]) == ("delivered", "suppressed")
    text = "\n".join(as_text({**found, "history": [], "history_complete": True}))
    assert "THE RULES ARE OTHERS NOW: by them rule r0 suppresses it (m)" in text


async def test_a_shared_incident_is_shown_by_its_key(rig: Rig) -> None:
    rig.change_rules(globally("then: {dedup_key: 'all of {{event.source}}'}"))
    await rig.hear(make_alert())
    found = await explained(rig)
    assert (found["dedup_key"], found["record"]["id"]) == ("all of payment-1", ID)
    assert found["told"][0]["dedup_key"] == "all of payment-1"
    assert await rig.store.sharing("all of payment-1", rig.active.routing_keys) == [ID]
    rig.change_rules(globally())
    assert (await explained(rig))["dedup_key"] == "all of payment-1", "it was opened there and is closed there"


# --- nothing is changed ----------------------------------------------------------------------------------------------


async def test_explaining_changes_nothing_in_redis_and_decides_as_the_worker_did(rig: Rig) -> None:
    rules = globally(
        "when: trigger_count over 5 minutes > 3, then: {annotate: flood}",
        "when: resetting_trigger_count over 5 minutes >= 2, then: {annotate: second}",
        "when: cache_var.last_host == event.custom_details.host and cache_var.recent > 100, then: {annotate: never}",
        MUTE,
    )
    variables = (
        "{name: last_host, type: recent_value, source: event.custom_details.host, regex: .+}, "
        "{name: recent, type: trigger_count, over: 5m}"
    )
    rules = {name: f"cache_variables: [{variables}]\n{text}" for name, text in rules.items()}
    rig.change_rules(rules)
    for number in range(6):
        await rig.hear(make_alert(str(number), service="payment", host="web-1"))
        rig.clock.advance(SECOND)
    await rig.store.accept([make_alert("new")], rig.clock())  # heard, and counted by nobody yet
    redis = rig.store._client
    for later in (0, 4 * MINUTE, 30 * MINUTE, 30 * HOUR):  # when what was counted is too old, too
        rig.clock.advance(later)
        before = await everything_in(redis)
        for number in range(6):
            found = await explained(rig, make_alert(str(number)).id)
            record = await rig.store.record(make_alert(str(number)).id)
            assert record is not None
            if later <= 4 * MINUTE:
                rule = found["rule"] or found["matched"][-1]
                assert (found["judged_now"]["outcome"], rule) == (record.outcome, record.rule), number
        await explained(rig, make_alert("new").id)
        await rig.store.some_ids()
        assert await everything_in(redis) == before


async def test_an_alert_not_counted_yet_is_explained_as_if_it_were(rig: Rig) -> None:
    rig.change_rules(globally("when: trigger_count over 5 minutes >= 3, then: {annotate: flood}", MUTE))
    for number in range(2):
        await rig.hear(make_alert(str(number)))
    await rig.store.accept([make_alert("third")], rig.clock())
    found = await explained(rig, make_alert("third").id)
    assert found["judged_now"]["outcome"] == "delivered"
    assert "it is 3" in found["trace"][0]["why"]
    await rig.settle()
    assert (await explained(rig, make_alert("third").id))["outcome"] == "delivered"


async def test_redis_itself_refuses_that_explaining_writes(rig: Rig) -> None:
    for name in ("look", "look_at_counts"):
        assert rig.store._scripts[name].source.startswith("#!lua flags=no-writes\n")


# --- by HTTP and by the command --------------------------------------------------------------------------------------


async def test_the_command_prints_what_the_service_answers(client: Client, sandbox: Sandbox) -> None:
    body = alertmanager_body(alertmanager_alert())
    await client.post(PATH, body)
    await client.post(PATH, body)
    await idle(client)
    alert_id = await known_id(client)
    redis = client.service.store._client
    keys = client.service.store.keys
    by_itself = (keys.owners, keys.senders, keys.clock, keys.storms)  # what a service writes though nothing happens
    before = await everything_in(redis, *by_itself)
    code, output, errors = await run("explain", "--alert", alert_id, "--url", client.service.url, "-o", "json")
    assert (code, errors) == (0, "")
    [by_command] = json.loads(output)
    status, text = await client.get(f"/api/v1/alerts/{alert_id}")
    by_http = json.loads(text)
    assert status == 200
    assert by_command.pop("judged_now").keys() == by_http.pop("judged_now").keys() == {"at", "outcome", "rules"}
    assert by_command == by_http
    today = {"outcome", "service", "severity", "priority", "dedup_key", "matched", "event", "trace"}
    assert by_http.keys() >= today | {"record", "told", "history"}
    assert [entry["kind"] for entry in by_http["history"]][-1] == "heard"
    assert sorted(entry["kind"] for entry in by_http["history"]) == ["duplicate", "heard", "sent"]
    assert by_http["history_complete"] is True
    assert all("alert" not in entry for entry in by_http["history"])
    [call] = sandbox.events
    assert {**by_http["event"], "routing_key": DEFAULT_KEY} == call.event, "as it was sent"
    listen = client.service.url.removeprefix("http://")
    code, output, errors = await run("explain", "--alert", alert_id, ALERTROUTER_LISTEN=listen)
    assert (code, errors) == (0, "")
    assert output.startswith("Sent to pagerduty:default on ")
    assert "heard firing critical  (new)" in output
    assert "sent to pagerduty:default: taken  triggered  → delivered" in output
    assert "heard firing again" in output
    assert await everything_in(redis, *by_itself) == before


async def test_options_win_over_the_environment(client: Client) -> None:
    await client.post(PATH, alertmanager_body(alertmanager_alert()))
    await idle(client)
    words = ("explain", "--alert", await known_id(client), "--url", client.service.url + "/")
    code, output, _ = await run(*words, ALERTROUTER_LISTEN="127.0.0.1:1", ALERTROUTER_RULES="/nowhere")
    assert code == 0 and output


async def test_the_token_is_the_services_own(settings: Settings) -> None:
    tokens = settings.model_copy(update={"webhook_tokens": (SecretStr("s3cret"),)})
    async with serving(tokens) as client:
        await client.post(PATH, alertmanager_body(alertmanager_alert()), {"X-Alertrouter-Token": "s3cret"})
        await idle(client)
        [(_, fields), *_] = await client.service.store.history_entries("-", "+", 1)
        words = ("explain", "--alert", fields["id"], "--url", client.service.url)
        code, output, errors = await run(*words)
        assert (code, output) == (1, "")
        assert errors == (
            f"alertrouter: {client.service.url} answered 401: set ALERTROUTER_API_OPERATE_TOKENS, or where it has none "
            "ALERTROUTER_WEBHOOK_TOKENS, to a token that it takes\n"
        )
        code, output, errors = await run(*words, ALERTROUTER_WEBHOOK_TOKENS="s3cret")
        assert (code, errors) == (0, "")
        assert "s3cret" not in output


async def test_an_unknown_key_names_the_closest(client: Client) -> None:
    await client.post(PATH, alertmanager_body(alertmanager_alert()))
    await client.post(PATH, alertmanager_body(alertmanager_alert(service="search", n="2")))
    await idle(client)
    _, text = await client.get("/api/v1/history?kind=heard&service=")
    known = [entry["id"] for entry in json.loads(text)]
    for wrong in (known[0][:-1] + "z", known[0].partition(":")[2], known[0][:-3], known[0].upper()):
        status, text = await client.get(f"/api/v1/alerts/{wrong}")
        assert (status, json.loads(text)) == (404, {"error": "no such alert", "closest": [known[0]]}), wrong
    code, output, errors = await run("explain", "--alert", known[0][:-1], "--url", client.service.url)
    assert (code, output) == (1, "")
    assert errors == f"alertrouter: {client.service.url} knows no alert {known[0][:-1]}; perhaps {known[0]}\n"
    code, _, errors = await run("explain", "--alert", "bad\x1b[31m\nkey", "--url", client.service.url)
    assert code == 1
    assert errors == f"alertrouter: {client.service.url} knows no alert bad\\u001b[31m\\nkey\n"


async def test_the_key_of_a_shared_incident_names_who_shares_it(client: Client, settings: Settings) -> None:
    write_rules(settings.rules, globally("then: {dedup_key: 'all of {{event.source}}'}"))
    assert (await client.post("/-/reload"))[0] == 200
    await client.post(PATH, alertmanager_body(alertmanager_alert()))
    await idle(client)
    _, text = await client.get("/api/v1/alerts/" + quote("all of " + "x", safe=""))
    assert json.loads(text)["closest"] == []
    alert_id = await known_id(client)
    shared = json.loads((await client.get(f"/api/v1/alerts/{alert_id}"))[1])["dedup_key"]
    assert shared.startswith("all of ")
    status, text = await client.get("/api/v1/alerts/" + quote(shared, safe=""))
    assert (status, json.loads(text)["closest"]) == (404, [alert_id])


HOSTILE = "línea 1\nline 2 \x1b[2J\x9b31m \u202egnp.exe \U0001f525 \\u0000"


async def test_hostile_text_and_strange_keys_are_harmless(client: Client) -> None:
    fingerprint = "a b/ü?#%2F&x=\x1b[2J"
    alert = make_alert(fingerprint, source="datadog/team-a", summary=HOSTILE, service="payment", hostile=HOSTILE)
    await client.service.accept([alert])
    await idle(client)
    code, output, errors = await run("explain", "--alert", alert.id, "--url", client.service.url)
    assert (code, errors) == (0, "")
    assert all(line.isprintable() for line in output.split("\n"))
    assert "línea 1" in output and "\U0001f525" in output and "\\u202egnp.exe" in output
    assert "heard firing critical" in output, "entries of the history are found by such a key"
    code, output, _ = await run("explain", "--alert", alert.id, "--url", client.service.url, "-o", "json")
    assert code == 0 and all(line.isprintable() for line in output.split("\n"))
    [found] = json.loads(output)
    assert (found["record"]["id"], found["summary"]) == (alert.id, HOSTILE)
    environ = {"PYTHONIOENCODING": "ascii"}
    code, output, _ = await run("explain", "--alert", alert.id, "--url", client.service.url, "-o", "json", **environ)
    assert code == 0 and output.isascii() and json.loads(output)[0]["summary"] == HOSTILE


async def test_a_huge_alert_is_cut_in_the_text_and_whole_in_json(client: Client) -> None:
    details = {f"k{number}": "v" * 1000 for number in range(3000)}
    small = make_alert(summary="s" * 100_000)
    alert = replace(small, event=replace(small.event, custom_details={"service": "payment", **details}))
    await client.service.accept([alert])
    await idle(client)
    code, output, _ = await run("explain", "--alert", alert.id, "--url", client.service.url)
    assert code == 0
    assert len(output) < 30_000 and max(map(len, output.splitlines())) <= 1_004
    assert "more lines; -o json shows them" in output
    code, output, _ = await run("explain", "--alert", alert.id, "--url", client.service.url, "-o", "json")
    assert code == 0 and len(json.loads(output)[0]["summary"]) == 100_000


async def test_only_the_newest_entries_of_the_history_are_shown(client: Client) -> None:
    alert = make_alert()
    await client.service.accept([alert])
    for _ in range(60):
        await client.service.accept([alert])
    await idle(client)
    found = json.loads((await client.get(f"/api/v1/alerts/{alert.id}"))[1])
    assert (len(found["history"]), found["history_complete"], found["record"]["count"]) == (50, False, 61)
    code, output, _ = await run("explain", "--alert", alert.id, "--url", client.service.url)
    assert code == 0 and f"(what came before: alertrouter history --since 30d --alert {alert.id})" in output
    text = "\n".join(as_text({**found, "history": []}))
    assert "History\n    (what came before: " in text
    assert "History: none on record\n" in "\n".join(as_text({**found, "history": [], "history_complete": True}))


async def test_what_redis_refuses_is_passed_on_in_one_line(client: Client) -> None:
    store = client.service.store
    await store._client.set(store.keys.alert + "x", "not ours")
    assert (await client.get("/api/v1/alerts/x"))[0] == 503
    code, output, errors = await run("explain", "--alert", "x", "--url", client.service.url)
    assert (code, output) == (1, "")
    assert errors.startswith(f"alertrouter: {client.service.url} answered 503: Redis: ")
    assert errors.count("\n") == 1 and "WRONGTYPE" in errors


@pytest.mark.parametrize("key", ["%FF", "%00", "%ED%A0%80", "a%2F..%2Fb", "x" * 4000])
async def test_strange_keys_are_unknown_and_no_fault(client: Client, key: str) -> None:
    status, text = await client.get(f"/api/v1/alerts/{key}")
    assert (status, json.loads(text)) == (404, {"error": "no such alert", "closest": []})


@pytest.fixture
async def stranger() -> AsyncIterator[str]:
    """A server that is no alertrouter: its first answer depends on the key."""

    async def answer(request: web.Request) -> web.Response:
        match request.match_info["key"]:
            case "list":
                return web.json_response([])
            case "elsewhere":
                return web.Response(status=302, headers={"Location": "/api/v1/alerts/list"})
        return web.Response(text="<html>\nnginx\n")

    application = web.Application()
    application.router.add_get("/api/v1/alerts/{key}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.mark.parametrize(("key", "status"), [("list", 200), ("elsewhere", 302), ("html", 200)])
async def test_somebody_else_at_that_address_is_told_apart(stranger: str, key: str, status: int) -> None:
    code, output, errors = await run("explain", "--alert", key, "--url", stranger)
    assert (code, output) == (1, "")
    assert errors == f"alertrouter: {stranger} answered {status}, but not as alertrouter does\n"


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("http://127.0.0.1:1", 1, "http://127.0.0.1:1 cannot be asked: "),
        ("http://no-such-host.invalid:9087", 1, "cannot be asked: "),
        ("http://[::1", 2, "write http://host:port"),
        ("http://host:port", 2, "write http://host:port"),
        ("127.0.0.1:9087", 2, "write http://host:port"),
        ("ftp://127.0.0.1", 2, "write http://host:port"),
    ],
)
async def test_a_service_that_cannot_be_asked_is_one_line(url: str, code: int, words: str) -> None:
    came, output, errors = await run("explain", "--alert", "x", "--url", url)
    assert (came, output) == (code, "")
    assert words in errors.splitlines()[-1]
    assert "Traceback" not in errors
    if code == 1:
        assert errors.count("\n") == 1


# --- near misses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("alertmanager:7be148814d8a8bd5", ["alertmanager:7be148814d8a8bd4"]),
        ("datadog:7be148814d8a8bd4", ["alertmanager:7be148814d8a8bd4"]),
        ("814d8a8b", ["alertmanager:7be148814d8a8bd4"]),
        ("DATADOG/TEAM-A:MONITOR-123", ["datadog/team-a:monitor-123"]),
        ("datadog/team-a:monitor-132", ["datadog/team-a:monitor-123"]),
        ("alertmanager:ffffffffffffffff", []),
        ("x", []),
        ("", []),
    ],
)
def test_the_closest_ids_are_those_of_a_slip(asked: str, near: list[str]) -> None:
    known = ["alertmanager:7be148814d8a8bd4", "alertmanager:0123456789abcdef", "datadog/team-a:monitor-123"]
    assert closest(asked, known) == near


def test_no_more_than_a_handful_of_near_ones_is_named() -> None:
    assert closest("a:host-00", [f"a:host-{number:02}" for number in range(50)])[0] == "a:host-00"
    assert len(closest("a:host-00", [f"a:host-{number:02}" for number in range(50)])) == 5
