"""PagerDuty takes nothing and a critical waits: people hear of it all the same, by a signed webhook and by mail."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from alertrouter.app import running
from alertrouter.delivery.outage import Outage, Reachability
from alertrouter.destinations.second_channel import Mail, Message, mail, post, send_mail, signature, signed_webhook
from alertrouter.errors import SettingsInvalid
from alertrouter.sandbox import Sandbox
from alertrouter.settings import load_settings
from alertrouter.store.connect import connect
from alertrouter.store.store import OUTAGE_OVER_MS, TOLD_EVERY_MS, AlertStore
from tests.alerts import HOUR, MINUTE, NIGHT, SECOND, make_alert
from tests.payloads import alertmanager_alert, alertmanager_body
from tests.process import Process
from tests.rig.second_channel import MailServer, Receiver, is_signed
from tests.rig.tls import self_signed
from tests.service.conftest import DEFAULT_KEY, ENVIRON, Rig, write_rules
from tests.waiting import until

SECRET = "shared-secret"
MESSAGE = Message("PagerDuty\nis away", "Two alerts wait: é.\n", {"type": "pagerduty_outage", "waiting": 2})


@pytest.fixture
async def receiver(rig: Rig) -> AsyncIterator[Receiver]:
    async with Receiver(SECRET, lambda: rig.clock() / 1000) as receiver:
        yield receiver


@dataclass
class Replica:
    """What watches PagerDuty for a rig, by a webhook."""

    rig: Rig
    reachability: Reachability
    outage: Outage

    async def go_on(self, ms: int) -> None:
        """Let time go by, five seconds at a time."""
        for _ in range(ms // (5 * SECOND)):
            await self.rig.settle(5 * SECOND)
            await self.outage.look()


def replica_of(rig: Rig, receiver: Receiver, store: AlertStore | None = None) -> Replica:
    reachability = Reachability(rig.worker._pagerduty, rig.clock)
    webhook = signed_webhook(receiver.url, SECRET)
    outage = Outage(
        store or rig.store,
        reachability,
        lambda: rig.active,
        rig.clock,
        webhook,
        None,
        after_ms=2 * MINUTE,
        instance="main",
    )
    return Replica(rig, reachability, outage)


@pytest.fixture
def replica(rig: Rig, receiver: Receiver) -> Replica:
    replica = replica_of(rig, receiver)
    rig.worker._pagerduty = replica.reachability
    return replica


def states(receiver: Receiver) -> list[str]:
    return [str(message["state"]) for message in receiver.received]


async def test_told_once_that_it_began_seldom_that_it_goes_on_and_once_that_it_is_over(
    rig: Rig, replica: Replica, receiver: Receiver
) -> None:
    rig.sandbox.fail(503, times=100_000)
    await rig.hear(make_alert("page", service="payment"), make_alert("later", severity="warning"))
    await replica.go_on(2 * MINUTE - 5 * SECOND)
    assert receiver.calls == 0
    await replica.go_on(5 * SECOND)
    [began] = receiver.received
    assert (began["state"], began["waiting"], began["since"]) == ("began", 1, "2027-01-10T03:00:00+00:00")
    assert began["reason"].startswith("HTTP 503")
    assert began["criticals"] == [
        {
            "dedup_key": "alertmanager:page",
            "summary": "payment is down",
            "service": "payment-service",
            "heard_at": "2027-01-10T03:00:00+00:00",
        }
    ]
    await replica.go_on(TOLD_EVERY_MS - 5 * SECOND)
    assert states(receiver) == ["began"]
    await replica.go_on(5 * SECOND)
    assert states(receiver) == ["began", "continues"]
    rig.sandbox.heal()
    await replica.go_on(MINUTE + OUTAGE_OVER_MS)
    assert states(receiver) == ["began", "continues", "over"]
    await replica.go_on(10 * MINUTE)
    assert states(receiver) == ["began", "continues", "over"]
    assert receiver.rejected == []


async def test_without_a_critical_nobody_is_woken(rig: Rig, replica: Replica, receiver: Receiver) -> None:
    rig.sandbox.fail(503, times=100_000)
    await rig.hear(make_alert("error", severity="error"))
    await replica.go_on(5 * MINUTE)
    assert receiver.calls == 0
    await rig.hear(make_alert("page"))
    await replica.go_on(5 * SECOND)
    assert [message["criticals"][0]["dedup_key"] for message in receiver.received] == ["alertmanager:page"]


async def test_critical_is_what_the_rules_make_of_it(rig: Rig, replica: Replica, receiver: Receiver) -> None:
    rule = "{rule: up, when: event.summary matches part 'search', then: {severity: critical}}"
    down = "{rule: down, when: event.summary matches part 'payment', then: {severity: info}}"
    rig.change_rules({"global.yaml": f"sets: {{start: [{rule}, {down}]}}\ncatch_all: {{}}\n"})
    rig.sandbox.fail(503, times=100_000)
    await rig.hear(make_alert("1", severity="info", summary="search is down"), make_alert("2"))
    await replica.go_on(2 * MINUTE)
    [began] = receiver.received
    assert [each["dedup_key"] for each in began["criticals"]] == ["alertmanager:1"]


async def test_what_waits_for_its_turn_counts_and_only_the_first_are_shown(
    rig: Rig, replica: Replica, receiver: Receiver
) -> None:
    rig.worker._calls_per_minute = 5
    rig.sandbox.fail(503, times=100_000)
    for number in range(30):
        await rig.hear(make_alert(f"{number:02}"))
        rig.clock.advance(1)
    await replica.go_on(2 * MINUTE + 5 * SECOND)
    [began] = receiver.received
    assert (began["waiting"], began["at_least"]) == (30, False)
    assert [each["dedup_key"][-2:] for each in began["criticals"]] == [f"{number:02}" for number in range(20)]


async def test_what_is_resolved_meanwhile_does_not_wait(rig: Rig, replica: Replica, receiver: Receiver) -> None:
    rig.sandbox.fail(503, times=100_000)
    await rig.hear(make_alert("page"))
    await replica.go_on(2 * MINUTE)
    await rig.hear(make_alert("page", "resolved"))
    await replica.go_on(OUTAGE_OVER_MS + 5 * SECOND)
    assert states(receiver) == ["began", "over"]


async def test_a_single_failure_between_others_that_work_is_none(
    rig: Rig, replica: Replica, receiver: Receiver
) -> None:
    for number in range(4):
        rig.sandbox.fail(503, times=1)
        await rig.hear(make_alert(str(number)))
        await replica.go_on(MINUTE)
    rig.sandbox.fail(400, body={"status": "invalid event", "message": "no"}, times=100)
    await rig.hear(make_alert("refused"))
    await replica.go_on(5 * MINUTE)
    assert receiver.calls == 0


async def test_a_failure_long_after_another_begins_anew(rig: Rig, replica: Replica, receiver: Receiver) -> None:
    rig.sandbox.fail(503, times=1)
    await rig.hear(make_alert("short"))
    await rig.hear(make_alert("short", "resolved"))
    await replica.go_on(10 * MINUTE)
    rig.sandbox.fail(503, times=100_000)
    await rig.hear(make_alert("page"))
    await replica.go_on(2 * MINUTE - 5 * SECOND)
    assert receiver.calls == 0
    await replica.go_on(5 * SECOND)
    assert states(receiver) == ["began"]


async def test_one_failure_of_this_replica_is_no_outage_hours_later(
    rig: Rig, replica: Replica, receiver: Receiver
) -> None:
    """The alert was resolved, or another replica sent it. Now criticals wait for the call limit, which others use up."""
    rig.sandbox.fail(503, times=1)
    await rig.hear(make_alert("short"))
    await rig.hear(make_alert("short", "resolved"))
    rig.clock.advance(HOUR)
    await rig.store.accept([make_alert("page")], rig.clock())
    rig.worker._max_in_flight = 0  # judged, and waiting
    await rig.worker.run_until_idle()
    await replica.outage.look()
    assert states(receiver) == []


async def test_replicas_tell_it_once(rig: Rig, replica: Replica, receiver: Receiver) -> None:
    other = replica_of(rig, receiver)
    rig.sandbox.fail(503, times=100_000)
    await rig.hear(make_alert("page"))
    for _ in range(60):
        await replica.go_on(5 * SECOND)
        other.reachability.failing_since = replica.reachability.failing_since
        await other.outage.look()
    assert states(receiver) == ["began"]
    rig.sandbox.heal()
    other.reachability.failing_since = 0
    for _ in range(30):
        await other.outage.look()
        await replica.go_on(5 * SECOND)
    assert states(receiver) == ["began", "over"]


async def test_what_the_receiver_does_not_take_is_told_again(rig: Rig, replica: Replica, receiver: Receiver) -> None:
    receiver.status = 500
    rig.sandbox.fail(503, times=100_000)
    await rig.hear(make_alert("page"))
    await replica.go_on(2 * MINUTE + 10 * SECOND)
    assert (receiver.calls, receiver.received) == (3, [])
    assert replica.outage.warnings() == ["the second channel failed when it was last needed (webhook: HTTP 500)"]
    receiver.status = 200
    await replica.go_on(MINUTE)
    assert states(receiver) == ["began"]
    assert replica.outage.warnings() == []


async def test_while_redis_is_away_too_it_is_told_without_a_list(rig: Rig, receiver: Receiver) -> None:
    away = AlertStore(connect("unix:///nowhere"), owner="away")
    replica = replica_of(rig, receiver, away)
    rig.sandbox.fail(503, times=100_000)
    for _ in range(20):
        await replica.reachability.send(b'{"routing_key": ""}')
        rig.clock.advance(MINUTE)
        await replica.outage.look()
    assert states(receiver) == ["began", "continues"]
    assert receiver.received[0]["waiting"] is None
    rig.sandbox.heal()
    await replica.reachability.send(b'{"routing_key": ""}')
    for _ in range(3):
        await replica.outage.look()
    assert states(receiver) == ["began", "continues", "over"]
    await away._client.aclose()


# --- the channels ----------------------------------------------------------------------------------------------------


async def test_a_message_is_signed_over_time_and_body(receiver: Receiver) -> None:
    assert await post(signed_webhook(receiver.url, SECRET), MESSAGE, NIGHT) == ""
    assert receiver.received == [{"type": "pagerduty_outage", "waiting": 2}]
    assert await post(signed_webhook(receiver.url, "another"), MESSAGE, NIGHT) == ""
    assert await post(signed_webhook(receiver.url, SECRET), MESSAGE, NIGHT + 6 * MINUTE) == "", "an old one, replayed"
    assert len(receiver.received) == 1 and len(receiver.rejected) == 2


def test_a_signature_is_that_of_the_documentation() -> None:
    assert signature("s3cret", 1799550000, b'{"type":"pagerduty_outage"}') == (
        "v1=7dc6c4a2c21281a80228d61b3630c4c0fa01775d9fde675c687bc53fe8a3270f"
    )
    assert is_signed(b"k", "5", signature("k", 5, b"{}"), b"{}", 5) and not is_signed(b"k", "5", "v1=", b"{}", 5)


@pytest.mark.parametrize("status", [301, 401, 500])
async def test_only_a_2xx_is_an_end_and_no_redirect_is_followed(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert await post(signed_webhook(receiver.url, SECRET), MESSAGE, NIGHT) == f"HTTP {status}"
    assert receiver.calls == 1


async def test_a_receiver_that_is_not_there_is_named_without_its_address() -> None:
    said = await post(signed_webhook("http://127.0.0.1:1/secret-path", SECRET), MESSAGE, NIGHT)
    assert said == "ClientConnectorError"


async def test_a_mail_arrives_as_it_was_written() -> None:
    async with MailServer() as server:
        to = mail(f"smtp://127.0.0.1:{server.port}", "alertrouter@example.org", ["a@example.org", "b@example.org"])
        assert await send_mail(to, MESSAGE, NIGHT) == ""
    [letter] = server.letters
    assert (letter.sender, letter.recipients) == ("alertrouter@example.org", ["a@example.org", "b@example.org"])
    assert letter.message["Subject"] == "PagerDuty is away"
    assert letter.message["Date"] == "Sun, 10 Jan 2027 03:00:00 -0000"
    assert letter.message.get_content().strip() == "Two alerts wait: é."


async def test_a_mail_server_that_wants_a_login_gets_it_and_a_wrong_one_is_said() -> None:
    async with MailServer(login=("me", "p@ss/word")) as server:
        for password, said in (
            ("p%40ss%2Fword", ""),
            ("wrong", "the mail server refuses user and password: 535"),
        ):
            to = mail(f"smtp://me:{password}@127.0.0.1:{server.port}", "me@example.org", ["a@example.org"])
            assert await send_mail(to, MESSAGE, NIGHT) == said
    assert [letter.user for letter in server.letters] == ["me"]


async def test_a_mail_refused_for_some_is_said_and_for_all_too() -> None:
    async with MailServer() as server:
        server.refuses = {"b@example.org"}
        url = f"smtp://127.0.0.1:{server.port}"
        said = await send_mail(mail(url, "me@example.org", ["a@example.org", "b@example.org"]), MESSAGE, NIGHT)
        assert said == "refused for b@example.org"
        said = await send_mail(mail(url, "me@example.org", ["b@example.org"]), MESSAGE, NIGHT)
        assert said.startswith("SMTPRecipientsRefused")
        assert len(server.letters) == 1


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of localhost that nobody knows, and its key beside it."""
    return self_signed(tmp_path)


async def test_smtps_is_encrypted_and_an_unknown_certificate_refused(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key"))
    async with MailServer(tls=context) as server:
        to = mail(f"smtps://localhost:{server.port}", "me@example.org", ["a@example.org"])
        assert (await send_mail(to, MESSAGE, NIGHT)).startswith("SSLCertVerificationError")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert await send_mail(to, MESSAGE, NIGHT) == ""
    assert [letter.encrypted for letter in server.letters] == [True]


async def test_without_encryption_no_mail_leaves_this_machine() -> None:
    assert mail("smtp://mail.example.org", "a@b", ["c@d"]) == Mail("mail.example.org", 587, "starttls", "a@b", ("c@d",))
    assert mail("smtps://mail.example.org", "a@b", ["c@d"]).port == 465
    async with MailServer() as server:
        to = Mail("127.0.0.1", server.port, "starttls", "a@b", ("c@d",))
        assert (await send_mail(to, MESSAGE, NIGHT)).startswith("SMTPNotSupportedError")
    assert server.letters == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"WEBHOOK_URL": "https://hooks.example.org/x"}, "WEBHOOK_SECRET (or"),
        ({"WEBHOOK_URL": "http://hooks.example.org/x", "WEBHOOK_SECRET": "s"}, "plain http"),
        ({"WEBHOOK_URL": "hooks.example.org", "WEBHOOK_SECRET": "s"}, "not an http(s) URL"),
        ({"SMTP_URL": "smtp://mail.example.org"}, "MAIL_FROM and _MAIL_TO"),
        ({"SMTP_URL": "mail.example.org", "MAIL_FROM": "a@b", "MAIL_TO": "c@d"}, "not the address of a mail server"),
        ({"SMTP_URL": "smtp://mail:x", "MAIL_FROM": "a@b", "MAIL_TO": "c@d"}, "not a URL"),
    ],
)
async def test_a_channel_that_cannot_work_is_refused_at_start(
    wrong: dict[str, str], said: str, tmp_path: Path, rules: Path, sandbox: Sandbox
) -> None:
    environ = {f"ALERTROUTER_SECOND_CHANNEL_{name}": value for name, value in wrong.items()}
    options = {"data_dir": tmp_path, "rules": rules, "listen": "127.0.0.1:0", "pagerduty_events_url": sandbox.url}
    settings = load_settings({**environ, "ALERTROUTER_PAGERDUTY_ROUTING_KEY": DEFAULT_KEY}, options)
    with pytest.raises(SettingsInvalid) as refused:
        async with running(settings, ENVIRON):
            pass
    assert said in str(refused.value)


# --- the process -----------------------------------------------------------------------------------------------------


async def test_a_process_tells_both_channels_and_says_when_it_is_over(
    tmp_path: Path, rules: Path, sandbox: Sandbox
) -> None:
    write_rules(rules)
    sandbox.fail(503, times=100_000)
    (tmp_path / "secret").write_text(SECRET + "\n")
    async with Receiver(SECRET, time.time) as receiver, MailServer() as server:
        channels = {
            "ALERTROUTER_SECOND_CHANNEL_AFTER": "3s",
            "ALERTROUTER_SECOND_CHANNEL_WEBHOOK_URL": receiver.url,
            "ALERTROUTER_SECOND_CHANNEL_WEBHOOK_SECRET_FILE": str(tmp_path / "secret"),
            "ALERTROUTER_SECOND_CHANNEL_SMTP_URL": f"smtp://127.0.0.1:{server.port}",
            "ALERTROUTER_SECOND_CHANNEL_MAIL_FROM": "alertrouter@example.org",
            "ALERTROUTER_SECOND_CHANNEL_MAIL_TO": "sre@example.org, lead@example.org",
        }
        async with Process(tmp_path, rules, sandbox, **channels) as process:
            assert await process.post("/webhooks/alertmanager", alertmanager_body(alertmanager_alert())) == 202
            await until(lambda: len(receiver.received) == 1 and len(server.letters) == 1, within_s=20)
            sandbox.heal()
            await until(lambda: len(receiver.received) == 2 and len(server.letters) == 2, within_s=60)
    assert states(receiver) == ["began", "over"]
    first, last = server.letters
    assert first.recipients == ["sre@example.org", "lead@example.org"]
    assert "1 critical alert waits" in first.message["Subject"]
    assert "HighErrorRate of payment" in first.message.get_content()
    assert "takes events again" in last.message["Subject"]
