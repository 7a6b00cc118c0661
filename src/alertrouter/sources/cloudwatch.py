"""CloudWatch alarms as Amazon SNS posts them, in its envelope or raw; and whatever else is published to the same topic.

https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html describes the envelope,
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html the alarm. Whether an envelope is
genuine was settled before: `web.sns` checks topic and signature.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from alertrouter.alert import Alert, CommonEvent, Severity, Status
from alertrouter.errors import BadPayload
from alertrouter.sources.body import header, read_json, read_text
from alertrouter.sources.payload import ParsedPayload
from alertrouter.sources.text import links, quoted
from alertrouter.sources.values import details, escaped, mapping, moment, shown, told

#: Who has an alarm notify of INSUFFICIENT_DATA asked to hear of it: as a warning, which rules may raise or suppress.
_STATES = {"ALARM": Status.FIRING, "INSUFFICIENT_DATA": Status.FIRING, "OK": Status.RESOLVED}

#: What S3 and Auto Scaling publish when they are told to notify a topic.
_TESTS = frozenset(("s3:TestEvent", "autoscaling:TEST_NOTIFICATION"))

#: Whoever has these may end the subscription, or begin one: they go nowhere from here.
_CAPABILITIES = frozenset(("UnsubscribeURL", "SubscribeURL", "Token", "Signature", "SigningCertURL"))

#: arn:aws:sns:eu-west-1:123456789012:alerts, arn:aws:cloudwatch:eu-west-1:123456789012:alarm:cpu
_ARN = re.compile(r"arn:(aws[a-z-]*):[a-z]+:([a-z0-9-]+):(\d+):.+", re.ASCII)

_DETAILS = {
    "AlarmName": "alarm_name",
    "AlarmDescription": "description",
    "AWSAccountId": "account",
    "Region": "region",
    "NewStateValue": "state",
    "OldStateValue": "old_state",
    "NewStateReason": "reason",
    "AlarmRule": "alarm_rule",
    "TriggeringChildren": "triggering_children",
}
_TRIGGER_DETAILS = {
    "MetricName": "metric",
    "Namespace": "namespace",
    "Threshold": "threshold",
    "ComparisonOperator": "comparison",
    "Period": "period",
    "EvaluationPeriods": "evaluation_periods",
}


@dataclass(frozen=True, slots=True)
class _Message:
    """What was published. `text` is all of it; `value` the same as JSON, None where it is none.

    message_id: names the message, the same when SNS tries again; "" where nothing tells it.
    raw:        what rules read as `raw_event`.
    """

    text: str
    value: Any
    subject: str
    topic: str
    message_id: str
    raw: dict[str, Any]
    notes: tuple[str, ...] = ()


def parse(body: bytes, headers: Mapping[str, str], source: str) -> ParsedPayload:
    """The alert in a notification, or why there is none. Raises BadPayload when it comes from no topic."""
    value, notes = _read_leniently(body)
    kind = told(mapping(value).get("Type")) if "TopicArn" in mapping(value) else ""
    if kind in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        topic = told(value.get("TopicArn"))
        return ParsedPayload(ignored=(f"the {kind} of {quoted(topic)} is no alert",), notes=notes)
    if kind not in ("", "Notification"):
        raise BadPayload(f"the message type {quoted(kind)} is none of SNS's")
    message = _open_envelope(value, notes) if kind else _read_raw(body, value, headers, notes)
    alarm = mapping(message.value)
    if "NewStateValue" in alarm:
        return _read_alarm(alarm, message, source)
    if alarm.get("Event") in _TESTS:
        return ParsedPayload(ignored=("a test of another service's notifications",), notes=message.notes)
    return _read_text(message, source)


def _read_leniently(body: bytes) -> tuple[Any, tuple[str, ...]]:
    """The JSON of a body; None where it is none: topics carry plain text as well."""
    try:
        decoded = read_json(body)
    except BadPayload:
        if not body.strip():
            raise
        return None, ()
    return decoded.value, decoded.notes


def _open_envelope(envelope: dict[str, Any], notes: tuple[str, ...]) -> _Message:
    text = envelope.get("Message")
    if not isinstance(text, str):
        raise BadPayload(f"`Message` is {quoted(text)}; expected a text")
    value, more = _read_leniently(text.encode()) if text.strip() else (None, ())
    kept = {name: member for name, member in envelope.items() if name not in _CAPABILITIES}
    return _Message(
        text=text,
        value=value,
        subject=shown(envelope.get("Subject")),
        topic=told(envelope.get("TopicArn")),
        message_id=told(envelope.get("MessageId")),
        raw=kept if value is None else kept | {"Message": value},
        notes=tuple(dict.fromkeys((*notes, *more))),
    )


def _read_raw(body: bytes, value: Any, headers: Mapping[str, str], notes: tuple[str, ...]) -> _Message:
    """A message without its envelope: what that would have said is in headers.

    https://docs.aws.amazon.com/sns/latest/dg/sns-large-payload-raw-message-delivery.html
    """
    text = read_text(body)
    return _Message(
        text=text.value,
        value=value,
        subject="",
        topic=header(headers, "x-amz-sns-topic-arn"),
        message_id=header(headers, "x-amz-sns-message-id"),
        raw=value if isinstance(value, dict) else {"Message": text.value if value is None else value},
        notes=tuple(dict.fromkeys((*notes, *text.notes))),
    )


def _read_alarm(alarm: dict[str, Any], message: _Message, source: str) -> ParsedPayload:
    state = told(alarm.get("NewStateValue"))
    status = _STATES.get(state.upper())
    if status is None:
        reason = f"the state {quoted(state)} neither opens nor closes an alarm"
        return ParsedPayload(ignored=(reason,), notes=message.notes)
    arn = _identify(alarm, message.topic)
    if not arn:
        raise BadPayload("nothing tells this alarm from others: neither `AlarmArn` nor `AlarmName`")
    changed = moment(alarm.get("StateChangeTime"))
    url = _console(arn)
    alert = Alert(
        source=source,
        fingerprint=arn,
        status=status,
        event=_describe(alarm, message.topic, arn, changed.text),
        episode=changed.text,
        episode_at=changed.ms,
        ended_at=changed.ms if status is Status.RESOLVED else 0,
        links=links(((url, "Alarm"),)),
        client="CloudWatch",
        client_url=url,
        raw=message.raw,
        notes=message.notes,
    )
    return ParsedPayload(alerts=(alert,), notes=message.notes)


def _identify(alarm: dict[str, Any], topic: str) -> str:
    """The alarm's ARN. Older messages have none: then it is made of the account, the name, and the region of the topic.

    An alarm notifies topics of its own region. `Region` is a display name, of use only where no topic is known. What is no
    ARN is escaped, so that it can be no `%name:...` and no `%message:...`, which are of alarms and texts without one.
    """
    if arn := told(alarm.get("AlarmArn")):
        return arn if arn.startswith("arn:") else escaped(arn)
    name, account = told(alarm.get("AlarmName")), told(alarm.get("AWSAccountId"))
    if not name:
        return ""
    if place := _ARN.fullmatch(topic):
        return f"arn:{place[1]}:cloudwatch:{place[2]}:{escaped(account) or place[3]}:alarm:{name}"
    return f"%name:{escaped(account) or '-'}:{escaped(told(alarm.get('Region')) or '-')}:{name}"


def _describe(alarm: dict[str, Any], topic: str, arn: str, timestamp: str) -> CommonEvent:
    trigger = mapping(alarm.get("Trigger"))
    dimensions = _read_dimensions(trigger)
    name = shown(alarm.get("AlarmName")) or arn
    text = shown(alarm.get("AlarmDescription")) or shown(alarm.get("NewStateReason"))
    is_insufficient = told(alarm.get("NewStateValue")).upper() == "INSUFFICIENT_DATA"
    return CommonEvent(
        summary=f"{name}: {text}" if text else name,
        source=next(iter(dimensions.values()), "") or told(alarm.get("Region")) or "cloudwatch",
        severity=Severity.WARNING if is_insufficient else Severity.ERROR,
        timestamp=timestamp,
        component=told(trigger.get("Namespace")),
        group=told(alarm.get("AWSAccountId")),
        class_=told(trigger.get("MetricName")) or ("composite" if told(alarm.get("AlarmRule")) else ""),
        custom_details=details(
            {
                **{ours: alarm.get(theirs) for theirs, ours in _DETAILS.items()},
                **{ours: trigger.get(theirs) for theirs, ours in _TRIGGER_DETAILS.items()},
                "alarm_arn": alarm.get("AlarmArn"),
                "topic": topic,
            },
            dimensions,
        ),
    )


def _read_dimensions(trigger: dict[str, Any]) -> dict[str, str]:
    """The dimensions of the metric, or of all metrics of an expression."""
    metrics = trigger.get("Metrics")
    stats = [mapping(mapping(each).get("MetricStat")) for each in metrics] if isinstance(metrics, list) else []
    found: dict[str, str] = {}
    for holder in (trigger, *(mapping(stat.get("Metric")) for stat in stats)):
        given = holder.get("Dimensions")
        for each in map(mapping, given) if isinstance(given, list) else ():
            name, value = told(each.get("name")), told(each.get("value"))
            if name and value:
                found.setdefault(name, value)
    return found


def _console(arn: str) -> str:
    """The alarm's page: https://docs.aws.amazon.com/general/latest/gr/aws-arns-and-namespaces.html names the partitions."""
    place = _ARN.fullmatch(arn)
    if place is None or place[1] != "aws":
        return ""
    name = quote(arn.split(":alarm:", 1)[-1], safe="")
    return f"https://{place[2]}.console.aws.amazon.com/cloudwatch/home?region={place[2]}#alarmsV2:alarm/{name}"


def _read_text(message: _Message, source: str) -> ParsedPayload:
    """What is no alarm pages on its own: its message id is all that tells it from others, and nothing ever closes it."""
    if not message.message_id:
        raise BadPayload("neither a CloudWatch alarm nor a message of SNS: no `NewStateValue`, no message id")
    alert = Alert(
        source=source,
        fingerprint=f"%message:{message.message_id}",
        status=Status.FIRING,
        event=CommonEvent(
            summary=message.subject or shown(message.text) or f"message {message.message_id}",
            source=message.topic.rpartition(":")[2] or "sns",
            severity=Severity.ERROR,
            timestamp=moment(message.raw.get("Timestamp")).text,
            class_="message",
            custom_details=details(
                {
                    "subject": message.subject,
                    "message": message.text if message.value is None else message.value,
                    "topic": message.topic,
                }
            ),
        ),
        client="Amazon SNS",
        raw=message.raw,
        notes=(*message.notes, "no CloudWatch alarm, so nothing closes it"),
    )
    return ParsedPayload(alerts=(alert,), notes=message.notes)
