"""CloudWatch's alarms in SNS's envelope and without it, and what else comes from a topic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alertrouter.alert import Alert, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources import ParsedPayload
from alertrouter.sources.cloudwatch import parse

PAYLOADS = Path(__file__).parent.parent / "payloads" / "cloudwatch"
TOPIC = "arn:aws:sns:eu-central-1:210987654321:pages"
RAW = {"x-amz-sns-topic-arn": TOPIC, "x-amz-sns-message-id": "m-1", "x-amz-sns-rawdelivery": "true"}
ALARM = {
    "AlarmName": "cpu: high",
    "AWSAccountId": "210987654321",
    "NewStateValue": "ALARM",
    "NewStateReason": "it is",
    "StateChangeTime": "2027-02-03T04:05:06.789+0000",
    "Region": "EU (Frankfurt)",
    "Trigger": {"MetricName": "CPU", "Namespace": "AWS/EC2", "Dimensions": [{"name": "InstanceId", "value": "i-1"}]},
}


def envelope(message: Any, **members: Any) -> bytes:
    text = message if isinstance(message, str) else json.dumps(message)
    given = {
        "Type": "Notification",
        "MessageId": "m-1",
        "TopicArn": TOPIC,
        "Message": text,
        "UnsubscribeURL": "https://x",
    }
    return json.dumps(given | members).encode()


def read(message: Any, **members: Any) -> ParsedPayload:
    return parse(envelope(message, **members), {"content-type": "text/plain; charset=UTF-8"}, "cloudwatch")


def read_one(**members: Any) -> Alert:
    [alert] = read(ALARM | members).alerts
    return alert


def read_file(name: str) -> Alert:
    [alert] = parse((PAYLOADS / name).read_bytes(), {}, "cloudwatch").alerts
    return alert


def test_an_alarm_goes_off_and_is_ok_again() -> None:
    alarm, ok = read_file("alarm.json"), read_file("ok_without_arn.json")
    assert alarm.id == ok.id == "cloudwatch:arn:aws:cloudwatch:eu-central-1:210987654321:alarm:orders-api 5xx"
    assert (alarm.status, ok.status) == (Status.FIRING, Status.RESOLVED)
    assert (alarm.episode, alarm.episode_at) == ("2027-02-03T04:05:06.789Z", 1_801_627_506_789)
    assert ok.ended_at == ok.episode_at == 1_801_628_706_001
    assert alarm.event.summary == "orders-api 5xx: Orders answer with errors > 1 %"
    assert alarm.event.severity is Severity.ERROR
    assert (alarm.event.source, alarm.event.class_, alarm.event.component) == ("orders", "5XXError", "AWS/ApiGateway")
    details = alarm.event.custom_details
    assert (details["ApiName"], details["Stage"], details["topic"]) == ("orders", "prod", TOPIC)
    assert (details["state"], details["old_state"], details["threshold"]) == ("ALARM", "OK", 1.0)
    assert alarm.raw["Message"]["Trigger"]["Period"] == 60
    assert [link.href for link in alarm.links] == [
        "https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1#alarmsV2:alarm/orders-api%205xx"
    ]


def test_a_composite_alarm_without_an_envelope() -> None:
    alert = read_file("raw_composite.json")
    assert alert.fingerprint == "arn:aws:cloudwatch:eu-central-1:210987654321:alarm:shop-down"
    assert (alert.event.class_, alert.event.source) == ("composite", "EU (Frankfurt)")
    assert alert.event.custom_details["alarm_rule"] == 'ALARM("orders-api 5xx") AND ALARM("carts 5xx")'
    assert len(alert.event.custom_details["triggering_children"]) == 1
    assert alert.event.summary.startswith("shop-down: arn:aws:cloudwatch:")


def test_an_expression_has_the_dimensions_of_its_metrics() -> None:
    metric = {"MetricStat": {"Metric": {"Dimensions": [{"name": "QueueName", "value": "orders"}]}}}
    alert = read_one(Trigger={"Metrics": [{"Id": "e1", "Expression": "m1/2"}, metric]})
    assert (alert.event.source, alert.event.custom_details["QueueName"]) == ("orders", "orders")


@pytest.mark.parametrize("member", ["UnsubscribeURL", "Signature", "SigningCertURL"])
def test_what_would_end_the_subscription_goes_nowhere(member: str) -> None:
    [alert] = read(ALARM, **{member: "https://secret.example.org"}).alerts
    assert "secret.example.org" not in str(alert)


def test_too_little_data_is_a_warning() -> None:
    alert = read_one(NewStateValue="INSUFFICIENT_DATA")
    assert (alert.status, alert.event.severity) == (Status.FIRING, Severity.WARNING)


@pytest.mark.parametrize("state", ["MAINTENANCE", "", None, "null", "$STATE", 1])
def test_states_that_neither_open_nor_close(state: Any) -> None:
    payload = read(ALARM | {"NewStateValue": state})
    assert payload.alerts == ()
    assert "neither opens nor closes" in payload.ignored[0]


@pytest.mark.parametrize(
    ("members", "topic", "identity"),
    [
        ({"AlarmArn": "arn:aws:cloudwatch:us-east-1:1:alarm:x"}, TOPIC, "arn:aws:cloudwatch:us-east-1:1:alarm:x"),
        ({}, TOPIC, "arn:aws:cloudwatch:eu-central-1:210987654321:alarm:cpu: high"),
        ({"AlarmArn": "null"}, TOPIC, "arn:aws:cloudwatch:eu-central-1:210987654321:alarm:cpu: high"),
        ({"AlarmArn": "$ARN"}, TOPIC, "arn:aws:cloudwatch:eu-central-1:210987654321:alarm:cpu: high"),
        ({"AWSAccountId": 7}, TOPIC, "arn:aws:cloudwatch:eu-central-1:7:alarm:cpu: high"),
        ({"AWSAccountId": None}, TOPIC, "arn:aws:cloudwatch:eu-central-1:210987654321:alarm:cpu: high"),
        ({}, "arn:aws-cn:sns:cn-north-1:5:t", "arn:aws-cn:cloudwatch:cn-north-1:210987654321:alarm:cpu: high"),
        ({"AWSAccountId": "1:alarm:x"}, TOPIC, "arn:aws:cloudwatch:eu-central-1:1%3Aalarm%3Ax:alarm:cpu: high"),
        ({}, "no arn", "%name:210987654321:EU (Frankfurt):cpu: high"),
        ({"Region": None, "AWSAccountId": None}, "", "%name:-:-:cpu: high"),
        ({"Region": "aws", "AWSAccountId": "arn"}, "", "%name:arn:aws:cpu: high"),
        ({"AlarmArn": "%message:m-1"}, TOPIC, "%25message%3Am-1"),
        ({"AlarmArn": "%name:-:-:cpu: high"}, TOPIC, "%25name%3A-%3A-%3Acpu%3A high"),
    ],
)
def test_identity(members: dict[str, Any], topic: str, identity: str) -> None:
    [alert] = read(ALARM | members, TopicArn=topic).alerts
    assert alert.fingerprint == identity


def test_raw_delivery_names_its_topic_in_a_header() -> None:
    [raw] = parse(json.dumps(ALARM).encode(), RAW, "cloudwatch").alerts
    [wrapped] = read(ALARM).alerts
    assert raw.id == wrapped.id
    assert raw.raw == ALARM


@pytest.mark.parametrize("name", [None, "", "null", "$NAME", []])
def test_without_a_name_nothing_tells_alarms_apart(name: Any) -> None:
    with pytest.raises(BadPayload, match="nothing tells this alarm from others"):
        read(ALARM | {"AlarmName": name})


def test_plain_text_pages_by_its_message_id() -> None:
    alert = read_file("plain_text.json")
    assert alert.id == "cloudwatch:%message:3f0c2a51-7a1e-5c1b-9d2e-11aa22bb33cc"
    assert (alert.status, alert.event.severity) == (Status.FIRING, Severity.ERROR)
    assert (alert.event.summary, alert.event.source, alert.event.class_) == ("Export failed", "pages", "message")
    assert alert.event.custom_details["message"] == "The nightly export failed.\nAsk the data team."
    assert alert.event.timestamp == "2027-02-03T04:05:07.012Z"
    assert alert.notes == ("no CloudWatch alarm, so nothing closes it",)


@pytest.mark.parametrize(
    ("body", "summary"),
    [(b"disk \xff full\nsecond line", "disk \\xff full"), (b'{"detail": "x"}', '{"detail": "x"}'), (b"7", "7")],
)
def test_what_is_no_alarm_pages_without_an_envelope_too(body: bytes, summary: str) -> None:
    [alert] = parse(body, RAW, "cloudwatch").alerts
    assert (alert.fingerprint, alert.event.summary) == ("%message:m-1", summary)


def test_two_equal_texts_are_two_alerts() -> None:
    [one], [two] = read("full").alerts, read("full", MessageId="m-2").alerts
    assert one.id != two.id


@pytest.mark.parametrize("body", [b"plain text", b"{}", b"[]", b'{"Message": "x"}'])
def test_what_comes_from_no_topic_is_refused(body: bytes) -> None:
    with pytest.raises(BadPayload, match="neither a CloudWatch alarm nor a message of SNS"):
        parse(body, {}, "cloudwatch")


@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_confirmations_are_no_alerts(kind: str) -> None:
    payload = read("You have chosen ...", Type=kind, SubscribeURL="https://x", Token="t")
    assert payload.alerts == ()
    assert payload.ignored == (f"the {kind} of '{TOPIC}' is no alert",)


@pytest.mark.parametrize("event", ["s3:TestEvent", "autoscaling:TEST_NOTIFICATION"])
def test_tests_of_other_services_page_nobody(event: str) -> None:
    payload = read({"Event": event, "Service": "x"})
    assert (payload.alerts, payload.ignored) == ((), ("a test of another service's notifications",))


@pytest.mark.parametrize("members", [{"Type": "Other"}, {"Message": None}, {"Message": {}}])
def test_other_envelopes_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(BadPayload):
        read(ALARM, **members)


def test_a_form_is_no_message() -> None:
    with pytest.raises(BadPayload):
        parse(b"NewStateValue=ALARM", {"content-type": "application/x-www-form-urlencoded"}, "cloudwatch")
