"""Every sender through the whole service: what fires pages, what is heard again does not, what is over closes the page."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from textwrap import dedent
from time import monotonic
from typing import Any

import pytest

from alertrouter.errors import RulesInvalid
from alertrouter.letter import name_of, read
from alertrouter.rules.load import load_rules
from alertrouter.sandbox import Sandbox
from alertrouter.settings import Settings
from alertrouter.sources.payload import read_headers
from tests.service.conftest import Client, serving
from tests.sns import TOPIC, Signer
from tests.waiting import until

PAYLOADS = Path(__file__).parent.parent / "payloads"
ALARM = {
    "AlarmName": "cpu",
    "AWSAccountId": "210987654321",
    "NewStateValue": "ALARM",
    "StateChangeTime": "2027-02-03T04:05:06.789+0000",
}
EVENT = {"specversion": "1.0", "source": "/fra1", "subject": "db-7"}


def payload(sender: str, name: str) -> bytes:
    return (PAYLOADS / sender / name).read_bytes()


def told(sandbox: Sandbox) -> list[tuple[Any, Any]]:
    """What PagerDuty heard: action and key."""
    return [(call.event["event_action"], call.event["dedup_key"]) for call in sandbox.events]


@pytest.mark.parametrize(
    ("sender", "firing", "resolved", "key"),
    [
        ("grafana", "legacy_alerting.json", "legacy_ok.json", "grafana:legacy:2:41"),
        (
            "cloudwatch",
            "alarm.json",
            "ok_without_arn.json",
            "cloudwatch:arn:aws:cloudwatch:eu-central-1:210987654321:alarm:orders-api 5xx",
        ),
        ("gcp", "open_v1_2.json", "closed_v1_2.json", "gcp:0.o1nx7c2d"),
        (
            "azure",
            "metric_fired.json",
            "metric_resolved.json",
            "azure:/subscriptions/5ad00000-0000-4000-8000-00000000c0de/providers/microsoft.alertsmanagement/alerts/"
            "0d5c1f8e-1111-4222-8333-444455556666",
        ),
        ("sentry", "event_alert.json", "issue_resolved.json", "sentry:issue:88001234"),
        ("sentry", "metric_alert_warning.json", "metric_alert_resolved.json", "sentry:metric:6:31"),
        (
            "cloudevents",
            "structured_firing.json",
            "structured_resolved.json",
            "cloudevents:/monitoring/fra1:org.example.disk:host/db-7",
        ),
    ],
)
async def test_what_fires_pages_once_and_is_closed(
    client: Client, sandbox: Sandbox, sender: str, firing: str, resolved: str, key: str
) -> None:
    path = f"/webhooks/{sender}"
    status, answer = await client.post(path, payload(sender, firing))
    assert (status, answer["outcomes"]) == (202, {"new": 1})
    await until(lambda: told(sandbox) == [("trigger", key)])
    status, answer = await client.post(path, payload(sender, firing))
    assert (status, answer["outcomes"]) == (202, {"duplicate": 1})
    status, answer = await client.post(path, payload(sender, resolved))
    assert (status, answer["outcomes"]) == (202, {"status": 1})
    await until(lambda: told(sandbox) == [("trigger", key), ("resolve", key)])


async def test_grafanas_group_pages_for_what_fires_in_it(client: Client, sandbox: Sandbox) -> None:
    status, answer = await client.post("/webhooks/grafana/shop", payload("grafana", "unified_one_resolved.json"))
    assert (status, answer["alerts"]) == (202, 2)
    both = [("trigger", "grafana/shop:31c0de99a7f0e442"), ("resolve", "grafana/shop:9a0b3c4d5e6f7081")]
    await until(lambda: told(sandbox) == both)
    status, answer = await client.post("/webhooks/grafana/shop", payload("grafana", "unified_one_resolved.json"))
    assert (status, answer["outcomes"]) == (202, {"duplicate": 2})


@pytest.mark.parametrize(
    ("sender", "body"),
    [
        ("grafana", {"alerts": [{"labels": {"alertname": "TestAlert", "instance": "Grafana"}}], "orgId": 1}),
        ("grafana", {"text": "This is a test"}),
        ("gcp", {"incident": {"incident_id": "1", "state": "OPEN"}, "version": "test"}),
        (
            "cloudwatch",
            {"Type": "Notification", "TopicArn": TOPIC, "MessageId": "1", "Message": '{"Event":"s3:TestEvent"}'},
        ),
        ("sentry", {"action": "assigned", "data": {"issue": {"id": "1"}}}),
        ("azure", {"data": {"essentials": {"alertId": "1", "monitorCondition": "Closed"}}}),
        ("cloudevents", {**EVENT, "id": "1", "type": "user.created"}),
    ],
)
async def test_what_is_no_alert_is_taken_and_pages_nobody(
    client: Client, sandbox: Sandbox, sender: str, body: dict[str, Any]
) -> None:
    status, answer = await client.post(f"/webhooks/{sender}", json.dumps(body).encode())
    assert (status, answer["alerts"]) == (202, 0)
    status, _ = await client.post("/webhooks/sentry", payload("sentry", "issue_created.json"))
    assert status == 202
    await until(lambda: told(sandbox) == [("trigger", "sentry:issue:88001234")])


async def test_every_sender_is_answered_within_a_second_while_pagerduty_is_slow(
    client: Client, sandbox: Sandbox
) -> None:
    """Sentry gives up a webhook that is not: https://docs.sentry.io/organization/integrations/integration-platform/webhooks/."""
    sandbox.fail(202, times=20, delay_ms=2000)
    for number in range(20):
        body = payload("sentry", "event_alert.json").replace(b"88001234", str(number).encode())
        began = monotonic()
        status, _ = await client.post("/webhooks/sentry", body)
        assert status == 202
        assert monotonic() - began < 1


# --- CloudEvents in headers ------------------------------------------------------------------------------------------


def binary(kind: str, **more: str) -> dict[str, str]:
    return {f"CE-{name.title()}": value for name, value in (EVENT | {"id": "1", "type": kind} | more).items()}


async def test_an_event_in_headers_opens_and_closes(client: Client, sandbox: Sandbox) -> None:
    key = "cloudevents:/fra1:org.example.disk:db-7"
    await client.post("/webhooks/cloudevents", b'{"summary": "full"}', binary("org.example.disk.firing"))
    await until(lambda: told(sandbox) == [("trigger", key)])
    await client.post("/webhooks/cloudevents", b"", binary("org.example.disk.resolved"))
    await until(lambda: told(sandbox) == [("trigger", key), ("resolve", key)])


async def test_a_body_that_was_not_understood_is_kept_with_the_headers_it_needs(client: Client) -> None:
    headers = binary("org.example.disk.firing") | {"Authorization": "Bearer secret", "Ce-Subject": "K%C3%B6ln"}
    status, _ = await client.post("/webhooks/cloudevents", b'{"summary": ', headers)
    assert status == 400
    _, text = await client.get("/api/v1/dead-letters")
    [listed] = json.loads(text)
    [found] = await client.service.store.letters.page(0)
    kept = {name.lower(): value for name, value in headers.items() if name.lower().startswith("ce-")}
    assert found.letter.headers == kept
    assert "secret" not in text
    assert listed["headers"] == kept
    assert read(b'{"reason":"written before there were any"}').headers == {}


async def test_such_a_body_is_put_back_with_its_headers(client: Client, sandbox: Sandbox) -> None:
    headers = read_headers(binary("org.example.disk.firing"))
    await client.service.unreadable.keep("cloudevents", b'{"summary": "full"}', "application/json", 400, "no", headers)
    [found] = await client.service.store.letters.page(0)
    [handled] = await client.service.dead_letters.redrive([name_of(found.number)])
    assert (handled.result, handled.reason) == ("redriven", "1 new")
    await until(lambda: ("trigger", "cloudevents:/fra1:org.example.disk:db-7") in told(sandbox))


# --- SNS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def signer(rules: Path, tmp_path: Path) -> Signer:
    """A signer whose certificate the rules know."""
    signer = Signer()
    (tmp_path / "sns.pem").write_bytes(signer.pem)
    (rules / "alertrouter.yaml").write_text(
        dedent(f"""
            sources:
              cloudwatch:
                topics: ["{TOPIC}"]
                certificates: {tmp_path / "sns.pem"}
        """)
    )
    return signer


async def test_what_sns_signed_pages_and_what_nobody_signed_does_not(
    signer: Signer, settings: Settings, sandbox: Sandbox
) -> None:
    key = "cloudwatch:arn:aws:cloudwatch:eu-central-1:210987654321:alarm:cpu"
    plain = {"Content-Type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": "Notification"}
    async with serving(settings) as client:
        forged = signer.envelope(ALARM) | {"Message": json.dumps(ALARM | {"AlarmName": "other"})}
        for path in ("/webhooks/cloudwatch", "/webhooks/cloudwatch/team-a"):
            status, answer = await client.post(path, json.dumps(forged).encode(), plain)
            assert (status, answer["error"]) == (403, "the signature of the Notification does not fit it")
        status, _ = await client.post("/webhooks/cloudwatch", json.dumps(signer.envelope(ALARM)).encode(), plain)
        assert status == 202
        await until(lambda: told(sandbox) == [("trigger", key)])
        other = TOPIC.replace("pages", "others")
        status, answer = await client.post(
            "/webhooks/cloudwatch", json.dumps(signer.envelope(ALARM, TopicArn=other)).encode(), plain
        )
        assert status == 403
        assert "is not among `topics`" in str(answer["error"])


async def test_the_end_of_a_subscription_pages_our_own_service(
    signer: Signer, settings: Settings, sandbox: Sandbox
) -> None:
    async with serving(settings) as client:
        body = json.dumps(signer.confirmation("UnsubscribeConfirmation")).encode()
        status, answer = await client.post("/webhooks/cloudwatch", body)
        assert (status, answer["alerts"]) == (202, 0)
        await until(lambda: told(sandbox) == [("trigger", f"alertrouter:sns-unsubscribed:{TOPIC}")])


async def test_without_topics_no_subscription_is_confirmed(client: Client, sandbox: Sandbox) -> None:
    body = json.dumps(Signer().confirmation()).encode()
    for _ in range(3):
        status, answer = await client.post("/webhooks/cloudwatch", body)
        assert status == 403
        assert f"write '{TOPIC}' there" in str(answer["error"])
    await until(lambda: told(sandbox) == [("trigger", "alertrouter:sender-refused:cloudwatch")])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sources: {cloudwatch: {topics: [pages]}}", "write a topic's ARN"),
        ("sources: {cloudwatch: {topics: []}}", "at least one entry"),
        ("sources: {grafana: {topics: ['arn:aws:sns:eu-west-1:1:t']}}", "is for `cloudwatch`"),
        ("sources: {cloudwatch: {certificates: /x.pem}}", "name these as well"),
        ("sources: {cloudwatch: {topic: x}}", "did you mean `topics`?"),
    ],
)
def test_topics_are_checked(rules: Path, text: str, problem: str) -> None:
    (rules / "alertrouter.yaml").write_text(text)
    with pytest.raises(RulesInvalid, match=r"alertrouter\.yaml:1:") as invalid:
        load_rules(rules)
    assert problem in str(invalid.value)


async def test_topics_of_a_named_source_are_its_own(signer: Signer, settings: Settings, rules: Path) -> None:
    mine = "arn:aws:sns:us-east-1:1:mine"
    text = (rules / "alertrouter.yaml").read_text()
    (rules / "alertrouter.yaml").write_text(text + f"  cloudwatch/team-a: {{topics: ['{mine}']}}\n")
    body = json.dumps(signer.envelope(ALARM)).encode()
    async with serving(settings) as client:
        answers = await asyncio.gather(
            client.post("/webhooks/cloudwatch", body), client.post("/webhooks/cloudwatch/team-a", body)
        )
    assert [status for status, _ in answers] == [202, 403]
