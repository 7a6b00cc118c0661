"""POST /v2/enqueue: what pages PagerDuty today pages through alertrouter, by another address and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from alertrouter.store.changes import Remembered
from tests.alerts import HOUR, MINUTE, NIGHT
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service import conftest
from tests.service.conftest import DEFAULT_KEY, SEARCH_KEY, Client, serving, write_rules
from tests.service.test_http import idle
from tests.waiting import until

PATH = "/v2/enqueue"
ZABBIX_KEY, KUMA_KEY, OTHERS_KEY = "2" * 32, "3" * 32, "9" * 32
INTEGRATIONS = """
    integrations:
      zabbix: {routing_key: {env: ZABBIX_KEY}, service: payment-service}
      kuma: {routing_key: {env: KUMA_KEY}, service: payment-service}
      lost: {routing_key: {env: LOST_KEY}, service: payment-service}
"""
PAYLOAD = {"summary": "Disk low", "source": "db-1", "severity": "critical"}


@pytest.fixture(autouse=True)
def integrations(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rules(rules, {"alertrouter.yaml": INTEGRATIONS})
    monkeypatch.setitem(conftest.ENVIRON, "ZABBIX_KEY", ZABBIX_KEY)
    monkeypatch.setitem(conftest.ENVIRON, "KUMA_KEY", KUMA_KEY)


def event(action: str = "trigger", **members: Any) -> bytes:
    """An event by the default key; a payload comes with a trigger only."""
    payload = {"payload": PAYLOAD} if action == "trigger" else {}
    whole = {"routing_key": DEFAULT_KEY, "event_action": action, "dedup_key": "disk/db-1", **payload, **members}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def details(**custom_details: Any) -> dict[str, Any]:
    return {**PAYLOAD, "custom_details": custom_details}


def heard(sandbox: Sandbox) -> list[tuple[str, str, str]]:
    """What PagerDuty accepted, as (action, routing key's first character, dedup_key)."""
    return [(call.event["event_action"], call.routing_key[0], call.event["dedup_key"]) for call in sandbox.events]


async def take(client: Client, body: bytes, headers: dict[str, str] | None = None) -> str:
    """Post what is taken; returns the dedup_key of the answer, once everything that follows from it has happened."""
    status, answer = await client.post(PATH, body, headers)
    assert (status, answer["status"], answer["message"]) == (202, "success", "Event processed"), answer
    assert answer.keys() == {"status", "message", "dedup_key"}
    await idle(client)
    return str(answer["dedup_key"])


async def test_trigger_acknowledge_resolve(client: Client, sandbox: Sandbox) -> None:
    for action in ("trigger", "acknowledge", "resolve"):
        assert await take(client, event(action)) == "disk/db-1"
    assert heard(sandbox) == [(action, "d", "disk/db-1") for action in ("trigger", "acknowledge", "resolve")]


async def test_a_trigger_after_a_resolve_is_new_at_once(client: Client, sandbox: Sandbox) -> None:
    for action in ("trigger", "resolve", "trigger"):
        await take(client, event(action))
    assert [action for action, *_ in heard(sandbox)] == ["trigger", "resolve", "trigger"]


async def test_a_key_is_made_and_returned(client: Client, sandbox: Sandbox) -> None:
    made = {await take(client, event(dedup_key=missing)) for missing in (..., None, "")}
    assert len(made) == 3
    assert {key for _, _, key in heard(sandbox)} == made
    key = made.pop()
    await take(client, event("resolve", dedup_key=key))
    assert heard(sandbox)[-1] == ("resolve", "d", key)


async def test_the_pair_of_an_alertmanager_is_one_page(client: Client, sandbox: Sandbox) -> None:
    """Both members post the same group; only their addresses differ."""
    for text in ("[FIRING:2] DiskLow", "[FIRING:3] DiskLow"):
        for member in "ab":
            payload = {**PAYLOAD, "summary": text}
            await take(client, event(payload=payload, client_url=f"http://am-{member}.example.org:9093/#/alerts"))
    assert [call.event["payload"]["summary"] for call in sandbox.events] == ["[FIRING:2] DiskLow", "[FIRING:3] DiskLow"]
    _, metrics = await client.get("/metrics")
    assert 'alertrouter_alerts_received_total{outcome="content",source="pagerduty"}' in metrics


async def test_firing_again_once_acknowledged_is_a_duplicate(client: Client, sandbox: Sandbox) -> None:
    for body in (event(), event("acknowledge", payload={"summary": "another text"}), event()):
        await take(client, body)
    assert [action for action, *_ in heard(sandbox)] == ["trigger", "acknowledge"]


async def test_what_says_nothing_changes_nothing(client: Client, sandbox: Sandbox) -> None:
    """PagerDuty is down: an acknowledge without payload must not leave the page without a text, nor send it elsewhere."""
    sandbox.fail(500, times=1)
    status, _ = await client.post(PATH, event(payload=details(service="search")))
    assert status == 202
    assert (await client.post(PATH, event("acknowledge")))[0] == 202
    trigger, acknowledge = await sandbox.wait_for(lambda events: len(events) == 2, timeout_s=20)
    assert (trigger.event["payload"]["summary"], trigger.routing_key) == ("Disk low", SEARCH_KEY)
    assert (acknowledge.event["event_action"], acknowledge.routing_key) == ("acknowledge", SEARCH_KEY)


async def test_what_the_client_sent_gets_there_whole(client: Client, sandbox: Sandbox) -> None:
    payload = {
        **details(service="payment", nested={"free": [1, 2.5, None]}),
        "timestamp": "2027-01-10T03:00:00Z",
        "component": "postgres",
        "group": "prod",
        "class": "disk",
    }
    images = [{"src": "https://graphs.example.org/1.png", "href": "https://graphs.example.org/", "alt": "free space"}]
    links = [{"href": "https://wiki.example.org/disk", "text": "Disk"}]
    more: dict[str, Any] = {
        "client": "Monit",
        "client_url": "https://monit.example.org",
        "images": images,
        "links": links,
    }
    await take(client, event(payload=payload, **more))
    [call] = sandbox.events
    sent = call.event["payload"]
    assert {name: sent[name] for name in payload if name != "custom_details"} == {
        name: value for name, value in payload.items() if name != "custom_details"
    }
    assert sent["custom_details"].items() >= payload["custom_details"].items()
    assert sent["custom_details"]["alertrouter"]["team"] == "team-payments"
    assert {name: call.event[name] for name in ("client", "client_url", "images")} == {
        name: more[name] for name in ("client", "client_url", "images")
    }
    assert links[0] in call.event["links"]


async def test_half_a_megabyte_is_stored_and_forwarded(client: Client, sandbox: Sandbox) -> None:
    room = 512_000 - len(event(payload=details(log="")))
    await take(client, event(payload=details(log="x" * room)))
    [call] = sandbox.events
    assert len(call.event["payload"]["custom_details"]["log"]) > 490_000
    assert call.size <= 512_000
    status, answer = await client.post(PATH, event(payload=details(log="x" * (room + 1))))
    assert (status, answer) == (
        413,
        {
            "status": "invalid event",
            "message": "Event object is too large",
            "errors": ["Event size exceeds 512 KB (512000 bytes)"],
        },
    )


# --- whose key it is -------------------------------------------------------------------------------------------------


async def test_rules_choose_the_route_of_the_default_key(client: Client, sandbox: Sandbox) -> None:
    await take(client, event(payload=details(service="search"), dedup_key="a"))
    await take(client, event(payload=details(env="staging"), dedup_key="b"))
    assert heard(sandbox) == [("trigger", "5", "a")]


async def test_a_services_own_key_means_that_service(client: Client, sandbox: Sandbox) -> None:
    await take(client, event(routing_key=SEARCH_KEY))
    await take(client, event("resolve", routing_key=SEARCH_KEY))
    assert heard(sandbox) == [("trigger", "5", "disk/db-1"), ("resolve", "5", "disk/db-1")]
    assert sandbox.events[0].event["payload"]["custom_details"]["service"] == "search-service"


async def test_a_rule_may_send_it_elsewhere(client: Client, sandbox: Sandbox) -> None:
    await take(client, event(routing_key=SEARCH_KEY, payload=details(service="payment")))
    await take(client, event("resolve", routing_key=SEARCH_KEY))
    assert heard(sandbox) == [("trigger", "d", "disk/db-1"), ("resolve", "d", "disk/db-1")]


async def test_rules_see_the_name_of_the_key(settings: Settings, rules: Path, sandbox: Sandbox) -> None:
    router = """
        sets:
          start:
            - rule: from-zabbix
              when: raw_event.routing_key == 'zabbix'
              then: {route_to: search-service}
        catch_all: {route_to: unrouted}
    """
    write_rules(rules, {"alertrouter.yaml": INTEGRATIONS, "router.yaml": router})
    async with serving(settings) as client:
        await take(client, event(routing_key=ZABBIX_KEY))
    assert heard(sandbox) == [("trigger", "5", "disk/db-1")]
    assert ZABBIX_KEY not in json.dumps([dict(call.event) for call in sandbox.events])


@pytest.mark.parametrize("key", [" ", "\u2003", " " * 255])
async def test_a_key_of_blanks_is_a_key(client: Client, sandbox: Sandbox, key: str) -> None:
    """PagerDuty may call it missing, so it gets one that says more."""
    for action in ("trigger", "acknowledge", "resolve"):
        assert await take(client, event(action, dedup_key=key)) == key
    told = heard(sandbox)
    assert [action for action, *_ in told] == ["trigger", "acknowledge", "resolve"]
    assert len({dedup_key for _, _, dedup_key in told}) == 1
    assert told[0][2].startswith("pagerduty:") and len(told[0][2]) <= 255


@pytest.mark.parametrize("action", ["resolve", "acknowledge", "trigger"])
async def test_whoever_names_another_senders_alert_does_not_touch_it(
    client: Client, sandbox: Sandbox, action: str
) -> None:
    """A fingerprint can be computed from labels, and an integration's key has no power at PagerDuty."""
    await client.post("/webhooks/alertmanager/team-a", alertmanager_body(alertmanager_alert()))
    await until(lambda: len(sandbox.events) == 1)
    [page] = sandbox.events
    for named in (page.event["dedup_key"], "pagerduty/kuma:17", "alertrouter:canary", "digest:payment-service"):
        assert await take(client, event(action, routing_key=ZABBIX_KEY, dedup_key=named)) == named
    told = {str(call.event["dedup_key"]) for call in sandbox.events[1:]}
    assert told and all(key.startswith("pagerduty/zabbix:") for key in told)


async def test_whoever_names_an_incident_that_rules_share_does_not_touch_it(
    rules: Path, settings: Settings, sandbox: Sandbox
) -> None:
    service = rules / "services" / "payment-service.yaml"
    rule = "- {rule: share, when: event.custom_details.shared exists, then: {dedup_key: 'db c1'}}"
    service.write_text(f"service: payment-service\nsets: {{start: [{rule[2:]}]}}\ncatch_all: {{}}\n")
    async with serving(settings) as client:
        alert = alertmanager_alert(service="payment", shared="yes")
        await client.post("/webhooks/alertmanager", alertmanager_body(alert))
        await until(lambda: len(sandbox.events) == 1)
        assert sandbox.events[0].event["dedup_key"] == "db c1"
        await take(client, event("resolve", routing_key=ZABBIX_KEY, dedup_key="db c1"))
        assert [key for _, _, key in heard(sandbox)[1:]] == ["pagerduty/zabbix:db c1"]


async def test_a_large_event_without_a_key_is_not_read_to_its_end(client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65_536

    async with client.session.post(client.service.url + PATH, data=chunks()) as response:
        assert response.status == 413


async def test_one_key_of_two_integrations_is_two_alerts(client: Client, sandbox: Sandbox) -> None:
    keys = (DEFAULT_KEY, SEARCH_KEY, ZABBIX_KEY, KUMA_KEY)
    for key in keys:
        assert await take(client, event(routing_key=key, dedup_key="17")) == "17"
    assert len({(call.routing_key, call.event["dedup_key"]) for call in sandbox.events}) == 4
    for key in keys[1:]:
        await take(client, event("resolve", routing_key=key, dedup_key="17"))
    assert heard(sandbox)[:4] == [
        ("trigger", "d", "17"),
        ("trigger", "5", "17"),
        ("trigger", "d", "pagerduty/zabbix:17"),
        ("trigger", "d", "pagerduty/kuma:17"),
    ]
    assert [("resolve", *rest) for _, *rest in heard(sandbox)[1:4]] == heard(sandbox)[4:]


async def test_pagerdutys_older_client_names_the_key_in_a_header(client: Client, sandbox: Sandbox) -> None:
    await take(client, event(routing_key=...), {"X-Routing-Key": SEARCH_KEY})
    assert heard(sandbox) == [("trigger", "5", "disk/db-1")]


async def test_an_event_is_explained_by_the_key_that_pagerduty_shows(client: Client) -> None:
    await take(client, event(routing_key=SEARCH_KEY))
    for key in ("disk/db-1", "pagerduty/search-service:disk/db-1"):
        status, text = await client.get(f"/api/v1/alerts/{quote(key, safe='')}")
        explained = json.loads(text)
        assert (status, explained["outcome"], explained["service"]) == (200, "delivered", "search-service")
        assert (explained["dedup_key"], explained["source"]) == ("disk/db-1", "pagerduty/search-service")
    assert (await client.get("/api/v1/alerts/other"))[0] == 404


async def test_a_key_that_is_not_there_is_said(client: Client) -> None:
    _, ready = await client.get("/-/ready")
    assert "the routing key of the integration lost is not there" in ready
    assert "set LOST_KEY" in ready


# --- what is refused -------------------------------------------------------------------------------------------------

NO_JSON = "Unrecognized object"
INVALID = "invalid event"


@pytest.mark.parametrize(
    ("body", "said", "errors"),
    [
        (event(routing_key=OTHERS_KEY), INVALID, ["Invalid routing key"]),
        (event(routing_key=...), INVALID, ["'routing_key' is missing or blank"]),
        (event(routing_key=None), INVALID, ["'routing_key' is missing or blank"]),
        (event(routing_key=7), INVALID, ["'routing_key' must be a string"]),
        (
            event(routing_key="per cent"),
            INVALID,
            [
                "Length of 'routing_key' is incorrect (should be 32 characters)",
                "'routing_key' cannot contain non-alphanumeric characters.",
            ],
        ),
        (
            event(payload={"severity": "page"}, event_action="trigger"),
            INVALID,
            [
                "'payload.summary' is missing or blank",
                "'payload.source' is missing or blank",
                "'payload.severity' must be one of critical, error, warning, info",
            ],
        ),
        (event("resolve", dedup_key=None), INVALID, ["'dedup_key' is missing: it names the alert to resolve"]),
        (b"<event/>", NO_JSON, None),
        (b"[]", NO_JSON, None),
        (b"", NO_JSON, None),
    ],
)
async def test_refuses_in_pagerdutys_shape(
    client: Client, sandbox: Sandbox, body: bytes, said: str, errors: list[str] | None
) -> None:
    status, answer = await client.post(PATH, body)
    assert (status, answer["status"]) == (400, said)
    assert answer.keys() == {"status", "message", "errors"}
    assert errors is None or answer["errors"] == errors
    assert not [call for call in sandbox.events if call.event["dedup_key"] == "disk/db-1"]


async def test_what_a_known_key_posts_wrongly_is_kept_without_the_key(client: Client, sandbox: Sandbox) -> None:
    status, _ = await client.post(PATH, event(routing_key=SEARCH_KEY, payload={"summary": "half an alert"}))
    assert status == 400
    _, letters = await client.get("/api/v1/dead-letters")
    assert "half an alert" in letters or "pagerduty/search-service" in letters
    assert SEARCH_KEY not in letters
    await sandbox.wait_for(lambda events: len(events) == 1)  # the notice about its sender


async def test_no_token_is_asked_for(settings: Settings, sandbox: Sandbox) -> None:
    async with serving(settings.model_copy(update={"webhook_tokens": (SecretStr("t"),)})) as client:
        await take(client, event())
        assert (await client.post("/webhooks/alertmanager", b"{}"))[0] == 401
    assert len(sandbox.events) == 1


# --- change events ---------------------------------------------------------------------------------------------------

CHANGES = "/v2/change/enqueue"


def change(summary: str = "search 4.2", minutes_ago: int = 4, **members: Any) -> bytes:
    made = datetime.now(UTC) - timedelta(minutes=minutes_ago, seconds=1)
    payload = {"summary": summary, "source": "ci", "timestamp": made.isoformat(), "custom_details": {"by": "anna"}}
    return json.dumps({"routing_key": SEARCH_KEY, "payload": payload, **members}).encode()


async def test_a_change_is_forwarded_and_told_to_who_is_paged(client: Client, sandbox: Sandbox) -> None:
    link = {"href": "https://ci.example.org/42", "text": "Build 42"}
    status, answer = await client.post(CHANGES, change(links=[link]))
    assert (status, answer) == (202, {"status": "success", "message": "Change event processed"})
    await until(lambda: len(sandbox.changes) == 1)
    [sent] = sandbox.changes
    assert sent["routing_key"] == SEARCH_KEY
    assert {name: sent["payload"][name] for name in ("summary", "source", "custom_details")} == {
        "summary": "search 4.2",
        "source": "ci",
        "custom_details": {"by": "anna"},
    }
    assert sent["links"] == [link]
    await until(lambda: bool(client.service.changes.of("search-service")))
    await take(client, event(payload=details(service="search")))
    await take(client, event(dedup_key="other"))
    page, other = (call.event for call in sandbox.events)
    assert page["payload"]["custom_details"]["changes"] == ["deployed 4 minutes ago: search 4.2"]
    assert {"href": link["href"], "text": "deployed 4 minutes ago: search 4.2"} in page["links"]
    assert "changes" not in other["payload"]["custom_details"]


@pytest.mark.parametrize("summary", [False, 0, 4.2])
async def test_an_odd_change_is_made_fit(client: Client, sandbox: Sandbox, summary: object) -> None:
    payload = {"summary": summary, "source": 7}
    odd: tuple[object, ...] = (5, "https://ci.example.org", {}, [5, None, {"href": 5}])
    for links in odd:
        assert (await client.post(CHANGES, change(payload=payload, links=links)))[0] == 202
    await until(lambda: len(sandbox.changes) == 4)
    assert {each["payload"]["summary"] for each in sandbox.changes} == {json.dumps(summary)}
    assert not any(each.get("links") for each in sandbox.changes)


async def test_rules_say_whose_change_it_is(client: Client, sandbox: Sandbox) -> None:
    payload = {"summary": "flag on", "custom_details": {"service": "search"}, "timestamp": "2020-01-01T00:00:00+00:00Z"}
    await client.post(CHANGES, change(routing_key=DEFAULT_KEY, payload=payload))
    await until(lambda: len(sandbox.changes) == 1)
    assert sandbox.changes[0]["routing_key"] == SEARCH_KEY
    assert sandbox.changes[0]["payload"]["timestamp"] == "2020-01-01T00:00:00Z", "as PagerDuty's own client spells it"
    assert not client.service.changes.of("search-service"), "an old one is told to nobody"


async def test_a_change_waits_until_pagerduty_takes_it(client: Client, sandbox: Sandbox) -> None:
    sandbox.fail(503, times=1)
    assert (await client.post(CHANGES, change()))[0] == 202
    await until(lambda: not sandbox.faults)
    assert sandbox.changes == []
    [waiting] = await client.service.store.changes.claim(client.service._clock() + 15_000, 10)
    await client.service.changes._forward(waiting)
    assert len(sandbox.changes) == 1
    assert await client.service.store.changes.claim(client.service._clock() + HOUR, 10) == []


async def test_a_change_that_is_refused_is_a_dead_letter(client: Client, sandbox: Sandbox) -> None:
    sandbox.fail(400, times=1, body={"status": "invalid event", "message": "no such thing"})
    assert (await client.post(CHANGES, change()))[0] == 202

    async def is_kept() -> bool:
        return "PagerDuty refuses this change event: no such thing" in (await client.get("/api/v1/dead-letters"))[1]

    await until(is_kept)
    assert SEARCH_KEY not in (await client.get("/api/v1/dead-letters"))[1]
    assert await client.service.store.changes.claim(client.service._clock() + HOUR, 10) == []


async def test_changes_leave_room_for_pages(client: Client) -> None:
    changes, now = client.service.store.changes, client.service._clock()
    taken = [await changes.may_call("k", 10, now, str(call)) for call in range(6)]
    assert taken == [True] * 5 + [False]
    assert await changes.may_call("k", 10, now + MINUTE, "later")
    await client.service.store._client.zadd(client.service.store.keys.wait + "k", {"page": 1})
    assert not await changes.may_call("k", 0, now + MINUTE, "a page waits")


async def test_what_waits_and_what_is_remembered_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alertrouter.store.changes.MOST_WAITING", 0)
    status, answer = await client.post(CHANGES, change())
    assert (status, answer["status"]) == (429, "throttle exceeded")
    changes = client.service.store.changes
    for minute in range(5):
        await changes.remember("shop", Remembered(NIGHT + minute * MINUTE, f"shop {minute}"), NIGHT)
    await changes.remember("shop", Remembered(NIGHT + 4 * MINUTE, "shop 4"), NIGHT)
    summaries = [each.summary for each in (await changes.remembered())["shop"]]
    assert summaries == ["shop 4", "shop 3", "shop 2"], "one that is sent twice is one"
    await changes.remember("other", Remembered(NIGHT + 2 * HOUR, "other"), NIGHT + 2 * HOUR)
    assert list(await changes.remembered()) == ["other"]


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        (change(routing_key=OTHERS_KEY), ["Invalid routing key"]),
        (change(payload=None), ["'payload' is missing or no object"]),
        (change(payload={"source": "ci"}), ["'payload.summary' is missing or blank"]),
    ],
)
async def test_a_wrong_change_is_refused_in_pagerdutys_shape(client: Client, body: bytes, errors: list[str]) -> None:
    status, answer = await client.post(CHANGES, body)
    assert (status, answer["status"], answer["errors"]) == (400, "invalid event", errors)
