"""Who may look and who may change something: every route, every role, and what a browser may be made to do."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from alertrouter.app import Service
from alertrouter.errors import SettingsInvalid
from alertrouter.settings import Settings, load_settings
from alertrouter.web.auth import Access, Guard, access_of
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.service.conftest import Client, serving

SENDER, READ, OPERATE = "sender-token", "read-token", "operate-token"
HEALTH = ("/-/healthy", "/-/ready", "/metrics")
CREDENTIALS_PAGE = Path(__file__).parents[2] / "docs" / "credentials.md"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def with_tokens(settings: Settings, **tokens: str) -> Settings:
    """The settings with one token each, by the name of the setting."""
    return settings.model_copy(update={name: (SecretStr(token),) for name, token in tokens.items()})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    """A service with a token for each role."""
    tokens = {"webhook_tokens": SENDER, "api_read_tokens": READ, "api_operate_tokens": OPERATE}
    async with serving(with_tokens(settings, **tokens)) as client:
        yield client


def walk(service: Service) -> list[tuple[str, str, object]]:
    """Method, path with its names as they are written, and handler of every route there is."""
    return [
        (route.method, route.resource.canonical, route.handler)
        for application in (service.routes(), service.operations_routes())
        for route in application.router.routes()
        if route.resource is not None
    ]


async def asked(
    client: Client, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None
) -> tuple[int, str]:
    async with client.session.request(method, client.service.url + path, headers=headers, data=body) as response:
        return response.status, await response.text()


async def test_every_route_says_who_may_call_it(client: Client) -> None:
    routes = walk(client.service)
    assert len(routes) > 20
    assert [(method, path) for method, path, handler in routes if access_of(handler) is None] == []


EXPECTED = {
    Access.ANYONE: {"": "in", SENDER: "in", READ: "in", OPERATE: "in"},
    Access.SENDER: {"": 401, SENDER: "in", READ: 401, OPERATE: 401},
    Access.READ: {"": 401, SENDER: 401, READ: "in", OPERATE: "in"},
    Access.OPERATE: {"": 401, SENDER: 401, READ: 403, OPERATE: "in"},
}


async def test_every_route_holds_its_callers_to_it(client: Client) -> None:
    for method, path, handler in walk(client.service):
        who, path = access_of(handler), re.sub(r"\{.*?\}", "x", path)
        answers = {
            token: (await asked(client, method, path, bearer(token)))[0] for token in ("", SENDER, READ, OPERATE)
        }
        if who is Access.SENDER and not path.startswith("/webhooks/"):
            assert min(answers.values()) >= 400, f"{path} asks for a credential in the body, and this has none"
            continue
        seen = {token: status if status in (401, 403) else "in" for token, status in answers.items()}
        assert who is not None and seen == EXPECTED[who], f"{method} {path}"


async def test_what_changes_something_is_no_get(client: Client) -> None:
    for method, path, handler in walk(client.service):
        if access_of(handler) in (Access.OPERATE, Access.SENDER):
            assert method in ("POST", "DELETE"), path
        else:
            assert method in ("GET", "HEAD"), path


async def test_the_page_about_credentials_names_every_route_with_its_role(client: Client) -> None:
    written = set(re.findall(r"(?m)^\| `(\w+) (/\S*)` \| (\w+) \|", CREDENTIALS_PAGE.read_text()))
    there = {(method, path, str(access_of(handler))) for method, path, handler in walk(client.service)}
    assert written == {each for each in there if each[0] != "HEAD"}


async def test_a_handler_without_a_mark_is_nobodys() -> None:
    async def forgotten(_: web.Request) -> web.Response:
        return web.Response(text="secrets")

    application = web.Application(middlewares=[Guard(is_open=True).middleware])
    application.router.add_get("/forgotten", forgotten)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/forgotten") as response,
    ):
        assert response.status == 401
    await runner.cleanup()


#: Which setting holds which token, the address, and what each token may then do: look, and change.
SENDERS_ONLY = {"webhook_tokens": SENDER}
ROLES: dict[str, tuple[dict[str, str], str, dict[str, tuple[bool, bool]]]] = {
    "open": ({}, "127.0.0.1:0", {"": (True, True), "guess": (True, True)}),
    "senders' tokens, on loopback": (SENDERS_ONLY, "127.0.0.1:0", {"": (False, False), SENDER: (True, True)}),
    "senders' tokens, beyond it": (SENDERS_ONLY, "0.0.0.0:0", {"": (False, False), SENDER: (True, False)}),
    "readers only": (
        {"webhook_tokens": SENDER, "api_read_tokens": READ},
        "127.0.0.1:0",
        {"": (False, False), SENDER: (False, False), READ: (True, False)},
    ),
    "operators only": (
        {"webhook_tokens": SENDER, "api_operate_tokens": OPERATE},
        "0.0.0.0:0",
        {"": (False, False), SENDER: (False, False), OPERATE: (True, True)},
    ),
    "the API closed, senders open": (
        {"api_operate_tokens": OPERATE},
        "127.0.0.1:0",
        {"": (False, False), OPERATE: (True, True)},
    ),
}


@pytest.mark.parametrize(("tokens", "listen", "may"), ROLES.values(), ids=ROLES.keys())
async def test_roles(
    settings: Settings, tokens: dict[str, str], listen: str, may: dict[str, tuple[bool, bool]]
) -> None:
    async with serving(with_tokens(settings.model_copy(update={"listen": listen}), **tokens)) as client:
        for token, (look, change) in may.items():
            assert (await asked(client, "GET", "/api/v1/history", bearer(token)))[0] == (200 if look else 401)
            expected = 200 if change else 403 if look else 401
            assert (await asked(client, "POST", "/-/reload", bearer(token)))[0] == expected
        sends = SENDER if "webhook_tokens" in tokens else ""
        body = alertmanager_body(alertmanager_alert()).decode()
        assert (await asked(client, "POST", "/webhooks/alertmanager", bearer(sends), body))[0] == 202


#: What a browser says of a page, and whether what the page asks for is done.
BROWSERS: dict[str, tuple[dict[str, str], bool]] = {
    "no browser": ({}, True),
    "our own page": ({"Sec-Fetch-Site": "same-origin"}, True),
    "typed in": ({"Sec-Fetch-Site": "none"}, True),
    "another site": ({"Sec-Fetch-Site": "cross-site"}, False),
    "a sibling": ({"Sec-Fetch-Site": "same-site"}, False),
    "another site, an older browser": ({"Origin": "https://evil.example.org"}, False),
    "another port": ({"Origin": "http://127.0.0.1:1"}, False),
    "a sandboxed frame": ({"Origin": "null"}, False),
}


@pytest.mark.parametrize(("headers", "done"), BROWSERS.values(), ids=BROWSERS.keys())
async def test_no_web_page_of_another_site_changes_anything(
    settings: Settings, headers: dict[str, str], done: bool
) -> None:
    async with serving(settings) as client:
        assert (await asked(client, "POST", "/-/reload", headers))[0] == (200 if done else 403)
        assert (await asked(client, "DELETE", "/api/v1/silences/x?by=me", headers))[0] == (404 if done else 403)
        resolve = alertmanager_body(alertmanager_alert(status="resolved")).decode()
        plain = {"Content-Type": "text/plain", **headers}  # which a browser posts without asking first
        assert (await asked(client, "POST", "/webhooks/alertmanager", plain, resolve))[0] == (202 if done else 403)
        own = {"Origin": client.service.url}
        assert (await asked(client, "POST", "/-/reload", own))[0] == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_what_is_asked_for_is_asked_in_json(client: Client, content_type: str) -> None:
    headers = {**bearer(OPERATE), "Content-Type": content_type}
    for path in ("/api/v1/silences", "/api/v1/dead-letters", "/api/v1/page-tests", "/-/reload"):
        assert (await asked(client, "POST", path, headers, "{}"))[0] == 415


@pytest.mark.parametrize(
    ("host", "served"),
    [("localhost:9087", True), ("127.0.0.1", True), ("[::1]:9087", True), ("evil.example.org", False)],
)
async def test_without_tokens_a_name_that_was_made_to_lead_here_is_not_served(
    settings: Settings, host: str, served: bool
) -> None:
    async with serving(settings) as client:
        assert (await asked(client, "GET", "/api/v1/history", {"Host": host}))[0] == (200 if served else 403)
        assert (await asked(client, "POST", "/-/reload", {"Host": host}))[0] == (200 if served else 403)
        page = {"Host": host, "Origin": f"http://{host}"}
        resolve = alertmanager_body(alertmanager_alert(status="resolved")).decode()
        assert (await asked(client, "POST", "/webhooks/alertmanager", page, resolve))[0] == (202 if served else 403)
        # a proxy beside us may pass on the name by which senders know it
        assert (await asked(client, "POST", "/webhooks/alertmanager", {"Host": host}, resolve))[0] == 202


async def test_health_and_metrics_on_a_listener_of_their_own(settings: Settings) -> None:
    apart = with_tokens(settings.model_copy(update={"operations_listen": "127.0.0.1:0"}), webhook_tokens=SENDER)
    async with serving(apart) as client:
        assert client.service.operations_url not in ("", client.service.url)
        for path in HEALTH:
            assert (await client.get(path))[0] == 404
            async with client.session.get(client.service.operations_url + path) as response:
                assert response.status == 200
        there = {path for _, path, _ in walk(client.service)}
        for path in there - set(HEALTH):
            url = client.service.operations_url + re.sub(r"\{.*?\}", "x", path)
            async with client.session.post(url, headers=bearer(SENDER)) as response:
                assert response.status == 404, path
        assert (await asked(client, "POST", "/-/reload", bearer(SENDER)))[0] == 200


def test_a_wrong_operations_address_is_named() -> None:
    with pytest.raises(SettingsInvalid, match="ALERTROUTER_OPERATIONS_LISTEN is '9088'"):
        _ = load_settings({"ALERTROUTER_OPERATIONS_LISTEN": "9088"}, {}).operations_address


async def test_a_refusal_says_which_token_may(client: Client) -> None:
    _, text = await asked(client, "POST", "/-/reload", bearer(READ))
    assert "ALERTROUTER_API_OPERATE_TOKENS" in json.loads(text)["error"]
