"""Silences as somebody on call uses them: against a running service, its replicas, and PagerDuty's stand-in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from alertrouter.app import running
from alertrouter.delivery.judging import ActiveRules
from alertrouter.delivery.silencing import Silences
from alertrouter.errors import StoreUnavailable
from alertrouter.record import Outcome
from alertrouter.rules.load import load_rules
from alertrouter.rules.silences import Silence
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from alertrouter.simulation.world import World, WorldClock, keys_for, throwaway_redis
from alertrouter.store.clock import Agreement
from tests.alerts import HOUR, MINUTE, NIGHT, Clock, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.process import Process
from tests.service.conftest import ENVIRON, Client, Rig, serving
from tests.service.test_history import entries, run
from tests.service.test_http import PATH, idle
from tests.waiting import until

JSON = {"Content-Type": "application/json"}
PROD = "event.custom_details.env == 'prod'"
WISH = {"owner": "anna", "reason": "load test", "when": PROD, "for": "2h"}


async def wish(client: Client, **said: Any) -> tuple[int, dict[str, Any]]:
    return await client.post("/api/v1/silences", json.dumps({**WISH, **said}).encode(), JSON)


async def hear(client: Client, *alerts: dict[str, Any]) -> None:
    status, _ = await client.post(PATH, alertmanager_body(*alerts))
    assert status == 202
    await idle(client)


def actions(sandbox: Sandbox) -> list[str]:
    return [str(call.event["event_action"]) for call in sandbox.events]


async def cli(url: str, *arguments: str) -> tuple[int, str, str]:
    return await run(*arguments, ALERTROUTER_LISTEN=url.removeprefix("http://"), USER="anna")


# --- as somebody on call uses it -------------------------------------------------------------------------------------


async def test_a_night_with_a_silence(tmp_path: Path, rules: Path, sandbox: Sandbox) -> None:
    """Paged; silenced; its news keeps quiet, its resolve goes out; another keeps quiet too; the end pages that one."""
    paged, kept = alertmanager_alert(env="prod", n="1"), alertmanager_alert(env="prod", n="2")
    async with Process(tmp_path, rules, sandbox, PD_KEY_SEARCH="5" * 32) as process:
        await process.post(PATH, alertmanager_body(paged))
        await sandbox.wait_for(lambda events: len(events) == 1)
        code, output, errors = await cli(process.url, "silence", "add", PROD, "--reason", "load test", "--for", "2h")
        assert (code, errors) == (0, "")
        assert output.startswith("Silence ") and f"keeps back {PROD}, until " in output
        id_ = output.split()[1]
        code, output, _ = await cli(process.url, "silence", "list")
        assert code == 0 and id_ in output and "anna: load test" in output and PROD in output

        await process.post(PATH, alertmanager_body(kept, alertmanager_alert(env="prod", n="1", status="resolved")))
        await sandbox.wait_for(lambda events: len(events) == 2)
        assert actions(sandbox) == ["trigger", "resolve"], "what was paged is closed"
        kept_id = await kept_id_of(process.url)
        code, output, _ = await cli(process.url, "explain", "--alert", kept_id)
        assert output.startswith(f"Nobody was told: it is silenced (silence {id_} of anna until ")
        assert f"yes silence:{id_}" in output

        code, output, _ = await cli(process.url, "silence", "end", id_, "--by", "bob")
        assert code == 0
        events = await sandbox.wait_for(lambda events: len(events) == 3)
        assert (events[2].event["event_action"], events[2].event["dedup_key"]) == ("trigger", kept_id)
        code, output, _ = await cli(process.url, "history", "--alert", kept_id)
        assert code == 0 and f"silence {id_} of anna" in output and "PAGED: pagerduty:default took it" in output
        code, output, errors = await cli(process.url, "silence", "end", id_)
        assert (code, output) == (1, "") and f"no silence {id_} is in force" in errors
        code, output, _ = await cli(process.url, "history", "--kind", "silence_added,silence_ended", "-o", "jsonl")
        added, ended = (json.loads(line) for line in output.splitlines())
        assert (added["kind"], added["owner"], added["reason"], added["when"]) == (
            "silence_added",
            "anna",
            "load test",
            PROD,
        )
        assert (ended["kind"], ended["owner"], ended["by"]) == ("silence_ended", "anna", "bob")
        code, output, _ = await cli(process.url, "silence", "list")
        assert (code, output) == (0, "no silences\n")


async def kept_id_of(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/history?outcome=suppressed") as response:
        [entry] = await response.json()
        return str(entry["id"])


async def test_the_command_points_at_what_is_wrong(client: Client) -> None:
    url = client.service.url
    code, output, errors = await cli(url, "silence", "add", "event.class contains 'x'", "--reason", "r")
    assert (code, output) == (1, "")
    assert errors.splitlines()[0].startswith("when:1:13: there is no `contains`; write `a matches part 'text'`")
    assert errors.splitlines()[1:] == ["  event.class contains 'x'", "              ^"]
    for arguments, message in (
        (("--reason", "r"), "write a condition, or name one alert with --alert"),
        ((PROD, "--alert", "a:b", "--reason", "r"), "write a condition, or name one alert with --alert"),
        ((PROD,), "Missing option '--reason'"),
        ((PROD, "--reason", "r", "--for", "soon"), "write a duration such as 90s, 5m or 4h"),
        ((PROD, "--reason", "r", "--for", "1h", "--until", "2027-01-10"), "--for or --until, not both"),
    ):
        code, output, errors = await cli(url, "silence", "add", *arguments)
        assert (code, output) == (2, "") and message in errors
    code, _, errors = await cli(url, "silence", "add", PROD, "--reason", "r", "--for", "25h")
    assert code == 1 and "24h at most" in errors
    code, _, errors = await run("silence", "list", "--url", "http://127.0.0.1:1")
    assert code == 1 and "is `alertrouter serve` running there?" in errors
    assert (await client.get("/api/v1/silences"))[1] == "[]"


async def test_a_broad_one_is_taken_with_a_warning(client: Client) -> None:
    code, _, errors = await cli(client.service.url, "silence", "add", "event.severity == 'warning'", "--reason", "r")
    assert code == 0 and errors.startswith("warning: it takes alerts of all kinds")


# --- the API ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status", "message"),
    [
        ({"owner": " "}, 400, "owner: "),
        ({"reason": ""}, 400, "reason: "),
        ({"when": ""}, 400, "write a condition as `when`, or the id of one alert as `alert`"),
        ({"alert": "a:b"}, 400, "write a condition as `when`, or the id of one alert as `alert`"),
        ({"when": "event.severity = 'x'"}, 400, "when:1:16: "),
        ({"when": "trigger_count over 5 minutes > 3"}, 400, "when:1:1: a silence cannot count"),
        ({"for": "24h"}, 201, ""),
        ({"for": "86401s"}, 201, ""),  # clocks differ; it is cut to a day
        ({"for": "25h"}, 400, "24h at most"),
        ({"for": "2 hours"}, 400, "for: write a duration"),
        ({"for": ""}, 400, "write how long"),
        ({"until": "2027-01-10T05:00"}, 400, "write how long"),
        ({"for": "", "until": "tomorrow"}, 400, "until: "),
        ({"for": "", "until": "2020-01-10T05:00"}, 400, "over already"),
        ({"for": "", "until": 10**18}, 400, "24h at most"),
        ({"ends": "2h"}, 400, "unknown field `ends`"),
        ({"when": "", "alert": "alertmanager:0000"}, 404, "no alert alertmanager:0000 was heard"),
        ({"when": "", "alert": "alertrouter:state-lost"}, 400, "cannot be silenced"),
    ],
)
async def test_what_is_asked_for_is_checked(client: Client, said: dict[str, Any], status: int, message: str) -> None:
    answered, answer = await wish(client, **said)
    assert answered == status, answer
    assert message in answer.get("error", "")
    if status == 201:
        assert answer["ends_at"] - answer["added_at"] == 24 * HOUR
    listed = json.loads((await client.get("/api/v1/silences"))[1])
    assert len(listed) == (status == 201)


async def test_an_alert_with_a_slip_is_answered_with_the_one_that_is_meant(client: Client) -> None:
    await hear(client, alertmanager_alert())
    [entry] = await entries(client, "kind=heard")
    status, answer = await wish(client, when="", alert=entry["id"][:-1])
    assert (status, answer["closest"]) == (404, [entry["id"]])
    status, answer = await wish(client, when="", alert=entry["id"])
    assert (status, answer["alert"]) == (201, entry["id"])


async def test_only_who_may_post_may_silence_and_no_web_page_may(settings: Settings) -> None:
    settings = settings.model_copy(update={"webhook_tokens": (SecretStr("s3cret"),)})
    body, token = json.dumps(WISH).encode(), {"X-Alertrouter-Token": "s3cret"}
    async with serving(settings) as client:
        for path in ("/api/v1/silences", "/api/v1/page-tests", "/api/v1/page-tests/page-test:x/resolve"):
            assert (await client.post(path, body, JSON))[0] == 401
        assert (await client.post("/api/v1/silences", body, {**token, "Content-Type": "text/plain"}))[0] == 415
        assert (await client.get("/api/v1/silences"))[0] == 401
        async with client.session.delete(f"{client.service.url}/api/v1/silences/x?by=bob") as response:
            assert response.status == 401
        assert (await client.post("/api/v1/silences", body, {**JSON, **token}))[0] == 201
        assert (await client.post("/api/v1/silences", b"x" * 70_000, {**JSON, **token}))[0] == 413
        code, output, _ = await run(
            "silence", "list", ALERTROUTER_LISTEN=client.service.url[7:], ALERTROUTER_WEBHOOK_TOKENS="s3cret"
        )
        assert code == 0 and "load test" in output


async def test_ending_names_who(client: Client) -> None:
    _, answer = await wish(client)
    url = f"{client.service.url}/api/v1/silences/{answer['id']}"
    async with client.session.delete(url) as response:
        assert response.status == 400 and "?by=" in (await response.json())["error"]
    async with client.session.delete(f"{url}?by=bob") as response:
        assert response.status == 200 and (await response.json())["id"] == answer["id"]


async def test_what_cannot_be_read_keeps_nothing_back_and_is_told(client: Client, sandbox: Sandbox) -> None:
    store = client.service.store
    await store.add_silence("later", b'{"id": "later", "when": "event shall be"}', {"kind": "x"}, most=9)
    await client.service.silences.refresh()
    _, text = await client.get("/-/ready")
    [warning] = json.loads(text)["warnings"]
    assert warning.startswith("silence later cannot be read") and "`alertrouter silence end later`" in warning
    await hear(client, alertmanager_alert(env="prod"))
    assert actions(sandbox) == ["trigger"]
    code, _, _ = await cli(client.service.url, "silence", "end", "later")
    assert code == 0
    assert json.loads((await client.get("/-/ready"))[1])["warnings"] == []


async def test_bytes_that_are_no_text_are_refused_and_end_nothing(client: Client, sandbox: Sandbox) -> None:
    body = json.dumps(WISH).encode().replace(b"anna", b"\xff")
    for path in ("/api/v1/silences", "/api/v1/page-tests"):
        assert (await client.post(path, body, JSON))[0] == 400
    await client.service.store.add_silence("odd", body, {"kind": "x"}, most=9)
    _, answer = await wish(client)
    await until(lambda: client.service.silences.in_force != ())
    assert [silence.id for silence in client.service.silences.in_force] == [answer["id"]]


async def test_foreign_data_in_its_place_holds_up_no_page(settings: Settings, sandbox: Sandbox) -> None:
    async with serving(settings) as client:
        await client.service.store._client.set(client.service.store.keys.silences, "foreign")
    async with serving(settings) as client:
        await hear(client, alertmanager_alert(env="prod"))
        assert actions(sandbox) == ["trigger"]
        assert "silences cannot be read" in (await client.get("/-/ready"))[1]
        assert (await wish(client))[0] == 503


# --- its time, its replicas, its restarts ----------------------------------------------------------------------------


async def test_what_it_kept_back_is_judged_again_at_its_end(settings: Settings, sandbox: Sandbox) -> None:
    clock = Clock()
    async with running(settings, ENVIRON, clock) as service, aiohttp.ClientSession() as session:
        client = Client(service, session)
        await wish(client, **{"for": "30m"})
        await hear(client, alertmanager_alert(env="prod"))
        clock.advance(29 * MINUTE)
        service.worker.wake()
        await idle(client)
        assert actions(sandbox) == []
        clock.advance(MINUTE)
        service.worker.wake()
        await sandbox.wait_for(lambda events: len(events) == 1)
        await until(lambda: not service.silences.in_force, within_s=5)

        async def is_on_record() -> bool:
            return bool(await entries(client, "kind=silence_ended"))

        await until(is_on_record, within_s=5)
        [ended] = await entries(client, "kind=silence_ended")
        assert (ended["owner"], ended.get("by", "")) == ("anna", ""), "nobody ended it"


async def test_it_ends_by_the_time_of_day_though_timers_are_ahead_of_it(client: Client, sandbox: Sandbox) -> None:
    """As after Redis' clock was set back by two hours: an end that was said is that of people's clocks."""
    service = client.service
    while abs(service._ahead() - 2 * HOUR) > MINUTE:
        known = await service.store.agreement()
        await service.store.put_agreement(known, str(Agreement(2 * HOUR, service._clock() + 2 * HOUR)))
        await service.keep_time()
    _, said = await wish(client, **{"for": "1h"})
    assert abs(said["ends_at"] - service._clock() + HOUR) < MINUTE
    await hear(client, alertmanager_alert(env="prod"))
    [record] = [each for id_ in await service.store.some_ids() if (each := await service.store.record(id_))]
    assert record.outcome is Outcome.SUPPRESSED
    sight = await service.store.look(record.id)
    assert sight is not None and sight.due_at < service._clock() + 11 * MINUTE, "as the two come nearer"
    _, over = await wish(client, **{"for": "", "until": said["ends_at"] - 2 * HOUR})
    assert "over already" in over["error"]


async def test_every_replica_knows_within_a_second_or_so(
    tmp_path: Path, rules: Path, sandbox: Sandbox, redis_url: str
) -> None:
    environ = {"ALERTROUTER_REDIS_URL": redis_url, "ALERTROUTER_INSTANCE": tmp_path.name[:60]}
    async with (
        Process(tmp_path, rules, sandbox, **environ) as one,
        Process(tmp_path / "other", rules, sandbox, **environ) as other,
    ):
        _, output, _ = await cli(one.url, "silence", "add", PROD, "--reason", "load test", "-o", "json")
        id_ = json.loads(output)["id"]

        async def both_know() -> bool:
            async with aiohttp.ClientSession() as session:
                for replica in (one, other):
                    async with session.get(f"{replica.url}/metrics") as response:
                        if "alertrouter_silences 1.0" not in await response.text():
                            return False
            return True

        await until(both_know, within_s=5)
        for number in range(20):
            for replica in (one, other):
                await replica.post(PATH, alertmanager_body(alertmanager_alert(env="prod", n=str(number))))
        await replica_idle(one)
        assert actions(sandbox) == []
        # another one ends it: whoever judged it, each pages once
        code, _, _ = await cli(other.url, "silence", "end", id_)
        assert code == 0
        await sandbox.wait_for(lambda events: len(events) == 20, timeout_s=10)
        assert len({call.event["dedup_key"] for call in sandbox.events}) == 20


async def replica_idle(process: Process) -> None:
    async def nothing_left() -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{process.url}/metrics") as response:
            text = await response.text()
        return all(f'alertrouter_queue_records{{queue="{each}"}} 0.0' in text for each in ("due", "waiting", "leased"))

    await until(nothing_left)


async def test_a_restart_knows_it_before_it_judges(settings: Settings, sandbox: Sandbox) -> None:
    async with serving(settings) as client:
        await wish(client)
        await client.service.worker._store.accept([make_alert(env="prod")], client.service._clock())
    async with serving(settings) as client:
        assert [silence.when for silence in client.service.silences.in_force] == [PROD]
        await hear(client, alertmanager_alert(env="prod"))
        await idle(client)
        assert actions(sandbox) == []


async def test_its_end_tries_nothing_again_that_was_refused(client: Client, sandbox: Sandbox) -> None:
    """PagerDuty would only refuse it once more, into another dead letter."""
    sandbox.fail(400, times=3)
    await hear(client, alertmanager_alert(n="refused"))
    _, answer = await wish(client)
    await hear(client, alertmanager_alert(n="muted", env="prod"))
    async with client.session.delete(f"{client.service.url}/api/v1/silences/{answer['id']}?by=bob") as response:
        assert response.status == 200
    await sandbox.wait_for(lambda events: len(events) == 1)
    await idle(client)
    assert [call.event["payload"]["custom_details"].get("n") for call in sandbox.events] == ["muted"]
    await client.service.reload()
    assert len(sandbox.calls) == 4
    client.service.worker.rejudge()
    await sandbox.wait_for(lambda events: len(events) == 2)


async def test_a_reload_of_the_rules_keeps_it(client: Client, sandbox: Sandbox) -> None:
    await wish(client)
    rules = client.service._settings.rules
    (rules / "unrouted.yaml").write_text("catch_all: {severity: error}\n")
    status, _ = await client.post("/-/reload")
    assert status == 200
    await hear(client, alertmanager_alert(env="prod"))
    assert actions(sandbox) == []


async def test_the_shadow_rules_know_it_too(settings: Settings, rules: Path) -> None:
    async with serving(settings.model_copy(update={"shadow_rules": rules})) as client:
        await until(lambda: client.service.shadow is not None and client.service.shadow.ruleset is not None)
        await wish(client)
        await hear(client, alertmanager_alert(env="prod"))
        assert client.service.shadow is not None

        async def judged() -> bool:
            return bool(json.loads((await client.get("/api/v1/shadow"))[1])["judged"])

        await until(judged)
        assert json.loads((await client.get("/api/v1/shadow"))[1])["differing"] == 0


async def test_past_redis_it_holds_and_lets_resolves_through(client: Client, sandbox: Sandbox) -> None:
    """While Redis is away: what is silenced is not sent, what resolves is."""
    await wish(client)
    service = client.service
    direct = service.intake._direct
    kept, paged = make_alert("a", env="prod"), make_alert("b", env="dev")
    assert [word.value for word in await direct.accept([kept, paged])] == ["suppressed", "sent_directly"]
    over = [make_alert("a", "resolved", env="prod"), make_alert("b", "resolved", env="prod")]
    await direct.accept(over)
    assert actions(sandbox)[0] == "trigger" and sorted(actions(sandbox)[1:]) == ["resolve", "resolve"]


async def test_nothing_is_judged_before_it_is_known_what_is_silenced(rig: Rig) -> None:
    async def known(_: str) -> bool:
        return True

    async def closest(_: str) -> list[str]:
        return []

    silences = Silences(rig.store, rig.clock, lambda _: None, known=known, closest=closest)
    assert silences.holds_sends()
    await silences.refresh()
    assert not silences.holds_sends()


async def test_what_waits_in_redis_waits_for_its_silences_too(
    client: Client, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is back, and silences are not read yet: what is silenced must not page in between."""
    service = client.service
    await wish(client)

    asked = asyncio.Event()

    async def away() -> dict[str, bytes]:
        asked.set()
        raise StoreUnavailable("Redis is away")

    with monkeypatch.context() as patched:
        patched.setattr(service.store, "silences", away)
        await asked.wait()  # nobody reads them any more who asked before
        service.silences.in_force = ()
        service.silences._was_read = False
        service._silence(())
        await client.post(PATH, alertmanager_body(alertmanager_alert(env="prod")))
        await service.worker._judge_due()
        await service.worker._begin_sends()
        assert (await service.backlog())["due"] == 1
    await until(lambda: len(service.silences.in_force) == 1)
    await idle(client)
    assert actions(sandbox) == []


# --- with any silence, a resolve of what was opened goes out ---------------------------------------------------------

NAMES = ("a", "b")
CONDITIONS = ("event.summary exists", "event.severity == 'warning'", PROD, "now > 2027-01-10 03:20:00 Etc/UTC")
_silences = st.builds(
    lambda when, alert, minutes: (when, alert, minutes),
    st.sampled_from(["", *CONDITIONS]),
    st.sampled_from([make_alert(name).id for name in NAMES]),
    st.integers(1, 40),
)
_steps = st.one_of(
    st.tuples(
        st.just("hear"),
        st.sampled_from(NAMES),
        st.sampled_from(["firing", "firing", "resolved", "acknowledged"]),
        st.sampled_from(["critical", "warning"]),
    ),
    st.tuples(st.just("silence"), _silences),
    st.tuples(st.just("end")),
    st.tuples(st.just("wait"), st.integers(1, 30)),
    st.tuples(st.just("pagerduty"), st.sampled_from([0, 0, 500])),
    st.tuples(st.just("redis"), st.booleans()),
)


@pytest.fixture
def worlds(rules: Path) -> Iterator[Any]:
    """What makes a new world on one server, and runs what is done in it."""
    ruleset = load_rules(rules)
    with asyncio.Runner() as runner:
        manager = throwaway_redis()
        client, folder = runner.run(manager.__aenter__())
        number = 0

        def play(act: Any) -> None:
            nonlocal number
            number += 1
            world = World(client, f"w{number}", folder, WorldClock(NIGHT), keys_for(ruleset))
            try:
                runner.run(act(world))
            finally:
                world.close()

        yield play
        runner.run(manager.__aexit__(None, None, None))


async def silenced(world: World, silences: list[Silence]) -> None:
    active: ActiveRules = world.active
    await world.change_rules(replace(active, ruleset=replace(active.ruleset, silences=tuple(silences))))


async def do(world: World, silences: list[Silence], heard: dict[str, str], step: tuple[Any, ...]) -> None:
    match step:
        case ("hear", name, status, severity):
            alert = make_alert(name, status, severity=severity, env="prod", service="payment", started=world.clock.now)
            try:
                await world.hear(alert)
                heard[name] = status
            except StoreUnavailable:
                heard[name] = ""  # its sender was told to try again, and it may have been sent all the same
        case ("silence", (when, alert, minutes)):
            silences.append(
                Silence(
                    id=f"s{len(silences)}",
                    owner="anna",
                    reason="r",
                    added_at=world.clock.now,
                    ends_at=world.clock.now + minutes * MINUTE,
                    when=when,
                    alert="" if when else alert,
                )
            )
            await silenced(world, silences)
        case ("end",):
            if silences:
                silences.pop()
                await silenced(world, silences)
        case ("wait", minutes):
            await world.advance_to(world.clock.now + minutes * MINUTE)
        case ("pagerduty", answer):
            world.pagerduty.answer = answer
        case ("redis", away):
            if world.redis_is_away and not away:
                await world.bring_redis_back()
            world.redis_is_away = away


def test_whatever_is_silenced_what_was_opened_is_closed_and_what_still_fires_pages(worlds: Any) -> None:
    resolved = 0

    @settings(max_examples=300)
    @given(st.lists(_steps, min_size=3, max_size=20), st.booleans())
    def holds(steps: list[tuple[Any, ...]], ends: bool) -> None:
        async def act(world: World) -> None:
            nonlocal resolved
            silences: list[Silence] = []
            heard: dict[str, str] = {}
            for step in steps:
                await do(world, silences, heard, step)
            await do(world, silences, heard, ("pagerduty", 0))
            await do(world, silences, heard, ("redis", False))
            if ends:  # everything is as it was, but for the silences that are over
                await world.advance_to(world.clock.now + 2 * HOUR)
                open_ids = {alert.dedup_key for alert in world.pagerduty.api.alerts.values()}
                firing = {make_alert(name).id for name, status in heard.items() if status == "firing"}
                assert firing <= open_ids, "what still fires when its silence is over pages"
            # a silence of everything, for as long as it may be: whatever is open is closed all the same
            await do(world, silences, heard, ("silence", ("event.summary exists", "", 24 * 60)))
            opened = len(world.pagerduty.api.alerts)
            for name in heard:
                await do(world, silences, heard, ("hear", name, "resolved", "critical"))
            await world.advance_to(world.clock.now + 2 * HOUR)
            assert not world.pagerduty.api.alerts, "with any silence a resolve of what was opened goes out"
            resolved += opened

        worlds(act)

    holds()
    assert resolved > 50, "something was open"
