"""What alertrouter calls, when names, redirects, answers and settings are hostile. No connection here leaves the machine."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from alertrouter.destinations import second_channel
from alertrouter.destinations.outgoing import ANSWER_LIMIT, ONLY_PUBLIC, Outgoing, is_public, outgoing
from alertrouter.destinations.pagerduty import Delivered, PagerDutyClient, TryAgain
from alertrouter.destinations.second_channel import Message, mail, post, send_mail, signed_webhook
from alertrouter.errors import SettingsInvalid
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings, load_settings
from alertrouter.web.sns import _NotFetched
from tests.alerts import NIGHT
from tests.service.conftest import serving
from tests.waiting import until

EVENT = json.dumps({"routing_key": "d" * 32, "event_action": "trigger", "dedup_key": "k"}).encode()
MESSAGE = Message("subject", "text", {"type": "test"})
ACCEPTED = b'HTTP/1.1 202 Accepted\r\nContent-Length: 33\r\nConnection: close\r\n\r\n{"status":"ok","dedup_key":"k"}  '


class Trap:
    """A server on loopback that counts who comes, and answers `answer`."""

    def __init__(self, answer: bytes = ACCEPTED) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def open(self, host: str = "127.0.0.1") -> AsyncIterator[Trap]:
        server = await asyncio.start_server(self._serve, host, 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.answer.startswith(b"220"):  # a mail server speaks first
            writer.write(self.answer)
        self.heard.append(await reader.readline())
        writer.write(self.answer)
        writer.close()


class Names(AbstractResolver):
    """Answers for every name with what it is told, the next answer each time; without addresses it fails."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if not answer:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in answer
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def send(url: str, names: Names | None = None, allowed: Outgoing = ONLY_PUBLIC) -> Any:
    """What becomes of one event."""
    client = PagerDutyClient(url, connect_s=2, total_s=5, allowed=allowed, resolver=names)
    try:
        return await client.send(EVENT)
    finally:
        await client.close()


# --- addresses -------------------------------------------------------------------------------------------------------

INTERNAL = [
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.5", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.5", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:5::"),
    *("64:ff9b:1::7f00:1", "fec0::1", "::7f00:1", "::ffff:0:7f00:1"),
]


@pytest.mark.parametrize("address", INTERNAL)
def test_internal_addresses_are_known_in_every_disguise(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["44.237.95.21", "2600:1f14::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::"]
)
def test_public_addresses_are_called(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_leads_inside_is_not_followed(address: str) -> None:
    names = Names([address])
    async with Trap().open() as trap:
        outcome = await send(f"https://events.example.com:{trap.port}", names)
    assert isinstance(outcome, TryAgain) and not outcome.ambiguous
    assert "no public address; if it is yours, add events.example.com to ALERTROUTER_OUTGOING_HOSTS" in outcome.reason
    assert trap.heard == [] and names.asked == 1


async def test_pages_go_out_while_dns_is_down() -> None:
    names = Names(["127.0.0.1"], [])
    allowed = outgoing(["http://events.example.com"])
    async with Trap().open("127.0.0.1") as trap:
        url = f"http://events.example.com:{trap.port}"
        client = PagerDutyClient(url, connect_s=2, total_s=5, allowed=allowed, resolver=names)
        for asked in (1, 2):
            assert isinstance(await client.send(EVENT), Delivered)
            assert names.asked == asked
            connector = client._session.connector
            assert isinstance(connector, TCPConnector)
            connector.clear_dns_cache()
        await client.close()
    assert isinstance(await send(url, Names([]), allowed), TryAgain)


async def test_a_name_is_asked_once_and_what_it_says_next_is_not_used() -> None:
    """DNS rebinding: the first answer looks well, the second leads inside."""
    allowed = outgoing(["http://events.example.com"])
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    async with Trap().open("127.0.0.1") as trap:
        assert isinstance(await send(f"http://events.example.com:{trap.port}", names, allowed), Delivered)
    assert names.asked == 1 and len(trap.heard) == 1


async def test_of_two_addresses_only_the_public_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """8.8.8.8 stands in for a public address; the socket of it leads nowhere."""
    opened: list[str] = []
    real = Outgoing.sockets

    def sockets(self: Outgoing, url: URL) -> Callable[[Any], socket.socket]:
        check = real(self, url)

        def open_socket(info: Any) -> socket.socket:
            made = check(info)
            made.close()
            opened.append(info[4][0])
            raise ConnectionRefusedError

        return open_socket

    monkeypatch.setattr(Outgoing, "sockets", sockets)
    await send("https://events.example.com", Names(["10.0.0.5", "8.8.8.8", "::1"]))
    assert set(opened) == {"8.8.8.8"}


async def test_localhost_is_only_ever_this_machine() -> None:
    async with Trap().open() as trap:
        url = f"http://localhost:{trap.port}"
        assert isinstance(await send(url, Names(["127.0.0.1"])), Delivered)
        outcome = await send(url, Names(["10.0.0.5"]))
    assert isinstance(outcome, TryAgain) and "no public address" in outcome.reason
    assert len(trap.heard) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_sandbox_is_called_by_plain_http(host: str) -> None:
    async with Sandbox() as sandbox:
        outcome = await send(sandbox.url.replace("127.0.0.1", host))
    assert isinstance(outcome, TryAgain | Delivered) or outcome.status == 400, "it was heard"
    assert len(sandbox.calls) == 1


@pytest.mark.parametrize("host", ["10.0.0.5", "169.254.169.254", "[fd00::1]", "[::ffff:10.0.0.5]", "0.0.0.0"])
def test_an_internal_address_in_a_setting_is_refused_at_once(host: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"add .* to ALERTROUTER_OUTGOING_HOSTS"):
        ONLY_PUBLIC.check(f"https://{host}", "IT")
    assert outgoing([host]).check(f"https://{host}", "IT").scheme == "https"


@pytest.mark.parametrize("written", ["2130706433", "127.1", "0x7f.1", "017700000001"])
async def test_addresses_in_odd_notations_lead_nowhere(written: str) -> None:
    async with Trap().open() as trap:
        outcome = await send(f"https://{written}:{trap.port}")
    assert isinstance(outcome, TryAgain)
    assert trap.heard == []


# --- what is listed --------------------------------------------------------------------------------------------------


def test_plain_http_in_a_cluster_is_refused_with_what_to_set_and_taken_once_listed() -> None:
    with pytest.raises(SettingsInvalid) as refused:
        ONLY_PUBLIC.check("http://pd-proxy.internal:8080", "IT")
    assert "plain http" in str(refused.value)
    assert "add http://pd-proxy.internal to ALERTROUTER_OUTGOING_HOSTS" in str(refused.value)
    for entry in ("http://pd-proxy.internal", "http://pd-proxy.internal:8080", "HTTP://PD-Proxy.internal/"):
        assert outgoing([entry]).check("http://pd-proxy.internal:8080", "IT").port == 8080
    for entry in ("pd-proxy.internal", "https://pd-proxy.internal", "http://pd-proxy.internal:80", "http://internal"):
        with pytest.raises(SettingsInvalid, match="plain http"):
            outgoing([entry]).check("http://pd-proxy.internal:8080", "IT")


async def test_what_is_listed_may_be_inside() -> None:
    async with Trap().open() as trap:
        url = f"http://pd-proxy.internal:{trap.port}"
        assert isinstance(await send(url, Names(["127.0.0.1"]), outgoing(["http://pd-proxy.internal"])), Delivered)
    assert len(trap.heard) == 1


def test_what_no_setting_names_must_be_listed() -> None:
    allowed = outgoing(["chat.example.org", "jira.example.org:8443"])
    assert allowed.refuses(URL("https://chat.example.org/hook")) == ""
    assert allowed.refuses(URL("https://jira.example.org:8443/")) == ""
    for url in (
        "https://evil.example.org",
        "http://chat.example.org",
        "https://jira.example.org",
        "ftp://chat.example.org",
    ):
        assert "add it to ALERTROUTER_OUTGOING_HOSTS" in allowed.refuses(URL(url)), url


@pytest.mark.parametrize("entry", ["*", "https://a/b", "a b", "user@a", "ftp://a", "a:b", "*.example.org"])
def test_what_is_no_host_is_refused_at_the_start(entry: str) -> None:
    with pytest.raises(SettingsInvalid, match="is no host"):
        outgoing([entry])


@pytest.mark.parametrize(
    "url", ["http://pd-proxy.internal", "https://10.0.0.5", "ftp://events.pagerduty.com", "events"]
)
async def test_it_does_not_start_with_an_address_that_it_must_not_call(settings: Settings, url: str) -> None:
    with pytest.raises(SettingsInvalid, match="ALERTROUTER_PAGERDUTY_EVENTS_URL"):
        async with serving(settings.model_copy(update={"pagerduty_events_url": url})):
            raise AssertionError("it started")


async def test_a_name_that_leads_inside_is_said_at_the_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        return await real("10.0.0.5" if host == "events.example.com" else host, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    async with serving(settings.model_copy(update={"pagerduty_events_url": "https://events.example.com"})) as client:

        async def is_said() -> bool:
            status, ready = await client.get("/-/ready")
            assert status == 200, "alerts are taken in all the same"
            return "events.example.com is 10.0.0.5, no public address; if it is yours, add events.example.com" in ready

        await until(is_said, 10)


def test_the_hosts_come_from_the_settings() -> None:
    settings = load_settings({"ALERTROUTER_OUTGOING_HOSTS": "a.example.org, http://b:80"}, {})
    assert outgoing(settings.outgoing_hosts).listed == {"https://a.example.org", "http://b:80"}


# --- redirects, answers, proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with Trap().open() as inside:
        head = f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{inside.port}/\r\nContent-Length: 0\r\n\r\n"
        async with Trap(head.encode()).open() as outside:
            url = f"http://127.0.0.1:{outside.port}"
            assert isinstance(await send(url), TryAgain)
            assert await post(signed_webhook(url, "secret"), MESSAGE, NIGHT) == f"HTTP {status}"
    assert (len(outside.heard), inside.heard) == (2, [])


async def test_an_endless_answer_is_read_for_64_kb_and_its_status_counts() -> None:
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()
                written += 4096
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert isinstance(await send(url), Delivered)
        assert await post(signed_webhook(url, "secret"), MESSAGE, NIGHT) == ""
        # what the kernel's buffers of both ends hold is written, too
        assert written < 2 * (ANSWER_LIMIT + 16 * 1024 * 1024)


async def test_the_proxy_of_the_environment_is_not_asked_and_that_of_the_settings_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Trap().open() as proxy, Trap().open() as pagerduty:
        address = f"http://127.0.0.1:{proxy.port}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, address)
        listed = ["http://pd.internal"]
        url = f"http://pd.internal:{pagerduty.port}"
        assert isinstance(await send(url, Names(["127.0.0.1"]), outgoing(listed)), Delivered)
        assert (len(pagerduty.heard), proxy.heard) == (1, [])
        assert isinstance(await send(url, Names(["10.0.0.5"]), outgoing(listed, address)), Delivered)
        assert proxy.heard == [f"POST {url}/v2/enqueue HTTP/1.1\r\n".encode()] and len(pagerduty.heard) == 1
        # by CONNECT, so that the proxy does not see what is in it; this one does not let it through
        outcome = await send("https://events.example.com", Names(["10.0.0.5"]), outgoing([], address))
        assert isinstance(outcome, TryAgain)
        assert proxy.heard[1] == b"CONNECT events.example.com:443 HTTP/1.1\r\n"
        # and this machine is this machine
        assert isinstance(await send(f"http://127.0.0.1:{pagerduty.port}", None, outgoing([], address)), Delivered)
        assert len(proxy.heard) == 2


def test_a_proxy_that_is_none_is_refused_at_the_start() -> None:
    for text in ("proxy.internal:3128", "socks5://proxy", "http://", "::"):
        with pytest.raises(SettingsInvalid, match="ALERTROUTER_OUTGOING_PROXY"):
            outgoing([], text)
    assert "s3cret" not in repr(outgoing([], "http://me:s3cret@proxy:3128"))


# --- the second channel ----------------------------------------------------------------------------------------------


async def test_the_second_channel_is_held_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with Trap(b"220 hello\r\n").open() as trap:
        webhook = signed_webhook(f"https://chat.example.org:{trap.port}/hook", "secret")
        assert (await post(webhook, MESSAGE, NIGHT)).startswith("ClientConnector")
        for scheme in ("smtp", "smtps"):
            by_proxy = outgoing([], "http://proxy.internal:3128")  # which mail does not go by
            server = mail(f"{scheme}://mail.example.org:{trap.port}", "a@example.org", ["b@example.org"], by_proxy)
            said = await send_mail(server, MESSAGE, NIGHT)
            assert "add mail.example.org to ALERTROUTER_OUTGOING_HOSTS" in said
        assert trap.heard == []
        listed = outgoing(["mail.example.org"])
        monkeypatch.setattr(second_channel, "_TOTAL_S", 0.5)
        server = mail(f"smtp://mail.example.org:{trap.port}", "a@example.org", ["b@example.org"], listed)
        assert "add" not in await send_mail(server, MESSAGE, NIGHT)
        assert len(trap.heard) == 1


async def test_sns_is_held_to_the_same(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    async with serving(settings) as client:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        with pytest.raises(_NotFetched, match=r"add sns\.eu-west-1\.amazonaws\.com to ALERTROUTER_OUTGOING_HOSTS"):
            await client.service.sns._fetcher.get(URL("https://sns.eu-west-1.amazonaws.com/x.pem"))


@pytest.mark.parametrize("url", ["http://chat.example.org/hook", "https://10.0.0.5/hook", "https://", "ftp://a"])
def test_a_webhook_that_must_not_be_called_is_refused_and_its_path_is_kept_secret(url: str) -> None:
    with pytest.raises(SettingsInvalid, match="ALERTROUTER_SECOND_CHANNEL_WEBHOOK_URL") as refused:
        signed_webhook(url, "secret")
    assert "/hook" not in str(refused.value)


def test_a_mail_server_inside_is_listed_or_refused() -> None:
    with pytest.raises(SettingsInvalid, match=r"add 10\.0\.0\.5 to ALERTROUTER_OUTGOING_HOSTS"):
        mail("smtp://10.0.0.5", "a@b", ["c@d"])
    assert mail("smtp://10.0.0.5", "a@b", ["c@d"], outgoing(["10.0.0.5"])).host == "10.0.0.5"


async def pouring(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A greeting without end."""
    try:
        while True:
            writer.write(b"220-welcome, and welcome again\r\n" * 1000)
            await writer.drain()
    finally:
        writer.transport.abort()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A greeting of one byte now and then."""
    try:
        while True:
            writer.write(b"2")
            await writer.drain()
            await asyncio.sleep(0.05)
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("serve", [pouring, dripping])
async def test_a_mail_server_cannot_hold_us_up(monkeypatch: pytest.MonkeyPatch, serve: Any) -> None:
    monkeypatch.setattr(second_channel, "_MAIL_S", 0.5)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        to = mail(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}", "a@example.org", ["b@example.org"])
        said = await send_mail(to, MESSAGE, NIGHT)
    assert said.startswith(("SMTPServerDisconnected", "TimeoutError")), said
