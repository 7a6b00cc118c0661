"""Amazon SNS: what is let in, what is fetched for it, and what never is. SNS is a TLS server of the test's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from alertrouter.alert import Alert, Status
from alertrouter.errors import NotAdmitted
from alertrouter.web.sns import Sns, Topics
from tests.alerts import NIGHT
from tests.sns import CERTIFICATE_URL, HOST, SUBSCRIBE_URL, TOPIC, Server, Signer, serving
from tests.waiting import until

ALARM = {"AlarmName": "cpu", "NewStateValue": "ALARM", "text": "ü \u0007 \n"}
OTHER = TOPIC.replace("pages", "others")


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


class Rig:
    """An Sns on a server of SNS's name. `said`: alarms, by name and whether they fire."""

    def __init__(self, sns: Sns, server: Server) -> None:
        self.sns = sns
        self.server = server
        self.said: list[tuple[str, Status]] = []
        self.topics: Topics | None = Topics(frozenset({TOPIC}))

    async def say(self, about: Alert) -> None:
        self.said.append((about.fingerprint, about.status))

    async def post(self, envelope: Any, **headers: str) -> str:
        """The status and why it is not let in; nothing where it is."""
        body = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
        try:
            await self.sns.admit("cloudwatch", {name.replace("_", "-"): text for name, text in headers.items()}, body)
        except NotAdmitted as error:
            return f"{error.status}: {error.reason}"
        return ""


@pytest.fixture
async def rig(signer: Signer, tmp_path: Path) -> AsyncIterator[Rig]:
    async with serving(signer, tmp_path) as (server, connector):
        built: Rig
        sns = Sns(lambda _: built.topics, lambda about: built.say(about), lambda: NIGHT, connector=connector)
        built = Rig(sns, server)
        yield built


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", ["ALARM: cpu", None])
async def test_what_sns_signed_is_let_in(rig: Rig, signer: Signer, version: str, subject: str | None) -> None:
    assert await rig.post(signer.envelope(ALARM, version=version, Subject=subject)) == ""
    assert rig.server.requests == [CERTIFICATE_URL]


@pytest.mark.parametrize("member", ["Message", "MessageId", "Subject", "Timestamp"])
@pytest.mark.parametrize("version", ["1", "2"])
async def test_what_was_changed_since_is_refused(rig: Rig, signer: Signer, member: str, version: str) -> None:
    envelope = signer.envelope(ALARM, version=version)
    assert "403: the signature" in await rig.post(envelope | {member: envelope[member] + " "})


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"SignatureVersion": "3"}, "version"),
        ({"SignatureVersion": None}, "version"),
        ({"SignatureVersion": "1"}, "does not fit"),
        ({"Signature": "not base64!"}, "does not fit"),
        ({"Signature": ""}, "does not fit"),
        ({"Signature": None}, "does not fit"),
        ({"Message": 7}, "`Message` is no text"),
        ({"Message": "\ud800"}, "no text"),
    ],
)
async def test_what_cannot_be_checked_is_refused(rig: Rig, signer: Signer, changed: dict[str, Any], why: str) -> None:
    answer = await rig.post(signer.envelope(ALARM) | changed)
    assert answer.startswith("403: ")
    assert why in answer


async def test_another_key_is_not_sns(rig: Rig) -> None:
    assert "does not fit" in await rig.post(Signer().envelope(ALARM))


async def test_a_certificate_that_has_run_out_proves_nothing(rig: Rig) -> None:
    old = Signer(until=2026)
    rig.server.answers[CERTIFICATE_URL.removeprefix(f"https://{HOST}")] = lambda: web.Response(body=old.pem)
    assert "does not fit" in await rig.post(old.envelope(ALARM))


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://s3.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com.example.org/SimpleNotificationService-01.pem",
        "https://example.org/sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com@example.org/SimpleNotificationService-01.pem",
        "https://example.org\\@sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://a:b@sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com/?Action=Publish",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem?x=1",
        "https://sns.eu-central-1.amazonaws.com/x/../SimpleNotificationService-01.pem",
        "https://bucket.sns.eu-central-1.amazonaws.com/SimpleNotificationService-01.pem",
        "https://sns.eu-central-1.amazonaws.com:port/SimpleNotificationService-01.pem",
        "https://[::1/SimpleNotificationService-01.pem",
        "file:///etc/passwd",
        "",
        7,
        None,
    ],
)
async def test_a_certificate_is_fetched_from_sns_in_the_region_of_the_topic_alone(
    rig: Rig, signer: Signer, url: Any
) -> None:
    assert (await rig.post(signer.envelope(ALARM) | {"SigningCertURL": url})).startswith("403: ")
    assert rig.server.requests == []


async def test_for_a_topic_that_is_not_allowed_nothing_is_fetched(rig: Rig, signer: Signer) -> None:
    for envelope in (signer.envelope(ALARM, TopicArn=OTHER), signer.confirmation(TopicArn=OTHER)):
        assert "is not among `topics`" in await rig.post(envelope)
    assert rig.server.requests == []


async def test_a_certificate_is_fetched_once_whoever_asks_meanwhile(rig: Rig, signer: Signer) -> None:
    assert set(await asyncio.gather(*(rig.post(signer.envelope(ALARM)) for _ in range(20)))) == {""}
    assert rig.server.requests == [CERTIFICATE_URL]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=503),
        lambda: web.Response(status=302, headers={"Location": "https://example.org/"}),
        lambda: web.Response(body=b"no certificate"),
        lambda: web.Response(body=b"x" * 1_000_000),
    ],
    ids=["503", "redirect", "no certificate", "too large"],
)
async def test_without_the_certificate_sns_is_asked_to_try_again(
    rig: Rig, signer: Signer, answer: Callable[[], web.StreamResponse]
) -> None:
    rig.server.answers[CERTIFICATE_URL.removeprefix(f"https://{HOST}")] = answer
    assert (await rig.post(signer.envelope(ALARM))).startswith("503: the certificate")
    assert (await rig.post(signer.envelope(ALARM))).startswith("503: the certificate")
    assert rig.server.requests == [CERTIFICATE_URL]  # for the next seconds it is not asked for again


async def test_a_pinned_certificate_needs_no_network(rig: Rig, signer: Signer, tmp_path: Path) -> None:
    pinned = tmp_path / "pinned.pem"
    pinned.write_bytes(Signer().pem + signer.pem)
    rig.topics = Topics(frozenset({TOPIC}), str(pinned))
    assert await rig.post(signer.envelope(ALARM) | {"SigningCertURL": "https://example.org/"}) == ""
    pinned.write_bytes(Signer().pem)
    assert "does not fit" in await rig.post(signer.envelope(ALARM))
    pinned.write_bytes(b"")
    assert (await rig.post(signer.envelope(ALARM))).startswith("503: `certificates` cannot be read")
    pinned.unlink()
    assert (await rig.post(signer.envelope(ALARM))).startswith("503: `certificates` cannot be read")
    assert rig.server.requests == []


async def test_a_subscription_is_confirmed_once(rig: Rig, signer: Signer) -> None:
    assert await rig.post(signer.confirmation()) == ""
    assert await rig.post(signer.confirmation()) == ""
    assert rig.server.requests == [CERTIFICATE_URL, SUBSCRIBE_URL]
    assert rig.said == [(f"sns-unsubscribed:{TOPIC}", Status.RESOLVED)]


async def test_a_confirmation_that_fails_is_asked_for_again(rig: Rig, signer: Signer) -> None:
    rig.server.answers["/"] = lambda: web.Response(status=302, headers={"Location": "https://example.org/"})
    assert (await rig.post(signer.confirmation())).startswith("503: the subscription could not be confirmed")
    rig.server.answers["/"] = lambda: web.Response()
    assert await rig.post(signer.confirmation()) == ""
    assert rig.server.requests == [CERTIFICATE_URL, SUBSCRIBE_URL, SUBSCRIBE_URL]


@pytest.mark.parametrize(
    "url",
    [
        SUBSCRIBE_URL.replace("ConfirmSubscription", "Unsubscribe"),
        SUBSCRIBE_URL.replace(TOPIC, OTHER),
        SUBSCRIBE_URL.replace(HOST, "example.org"),
        SUBSCRIBE_URL.replace("https", "http"),
        SUBSCRIBE_URL.replace("/?", "/other?"),
    ],
)
async def test_no_other_address_is_visited_though_it_is_signed(rig: Rig, signer: Signer, url: str) -> None:
    assert (await rig.post(signer.confirmation(SubscribeURL=url))).startswith("403: `SubscribeURL` is")
    assert rig.server.requests == [CERTIFICATE_URL]


async def test_an_unsigned_confirmation_is_not_followed(rig: Rig, signer: Signer) -> None:
    assert "does not fit" in await rig.post(signer.confirmation() | {"Signature": "AAAA"})
    assert rig.server.requests == [CERTIFICATE_URL]


async def test_the_end_of_a_subscription_is_an_alarm_and_its_address_is_not_visited(rig: Rig, signer: Signer) -> None:
    assert await rig.post(signer.confirmation("UnsubscribeConfirmation")) == ""
    assert rig.server.requests == [CERTIFICATE_URL]
    assert rig.said == [(f"sns-unsubscribed:{TOPIC}", Status.FIRING)]


async def test_without_topics_notifications_need_the_token_alone_and_nothing_is_fetched(
    rig: Rig, signer: Signer
) -> None:
    rig.topics = None
    assert await rig.post(signer.envelope(ALARM) | {"Signature": ""}) == ""
    assert "write 'arn:aws:sns:" in await rig.post(signer.confirmation())
    assert rig.server.requests == []


async def test_what_cannot_be_checked_is_read_where_nothing_is_checked(rig: Rig, signer: Signer) -> None:
    body = json.dumps(signer.envelope(ALARM)).encode()[:-1] + b', "Odd": "\xff"}'
    assert "no JSON in UTF-8" in await rig.post(body)
    rig.topics = None
    assert await rig.post(body) == ""
    assert await rig.post(b'{"Type": {}, "TopicArn": "%b"}' % TOPIC.encode()) == "", "no envelope, and no error of ours"


async def test_raw_delivery_has_nothing_to_check_but_its_topic(rig: Rig) -> None:
    assert await rig.post(ALARM) == ""
    assert await rig.post(b"plain text", x_amz_sns_rawdelivery="true", x_amz_sns_topic_arn=TOPIC) == ""
    assert "is not among `topics`" in await rig.post(ALARM, x_amz_sns_topic_arn=OTHER)


async def test_a_certificate_that_does_not_come_holds_up_nobody_else(
    rig: Rig, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alertrouter.web.sns._FETCH_S", 0.5)
    rig.server.hangs = True
    waiting = asyncio.create_task(rig.post(signer.envelope(ALARM)))
    await until(lambda: bool(rig.server.requests), 5)
    rig.topics = None
    assert await rig.post(signer.envelope(ALARM)) == ""
    assert not waiting.done()
    assert "no answer of" in await waiting
