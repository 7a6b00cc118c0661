"""The shape of a `*_test.yaml` file: what may stand in it, and what is said of anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, create_model

from alertrouter.alert import Severity
from alertrouter.rules.schema import Details, Shape, Text
from alertrouter.rules.times import BadTime, Instant, read_datetime
from alertrouter.sources import PARSERS

_SPAN = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,8})s)?(?:(\d{1,8})ms)?")
_SPAN_UNITS_MS = (86_400_000, 3_600_000, 60_000, 1_000, 1)


class Ending(StrEnum):
    """How an alert stands after a step. `suspended` and `pending` may still change, the others are its end for now."""

    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    SUPPRESSED = "suppressed"
    SUSPENDED = "suspended"
    DROPPED = "dropped"
    STALE = "stale"
    PENDING = "pending"
    CANCELLED_IN_SUSPEND = "cancelled_in_suspend"
    RESOLVED_BEFORE_DELIVERY = "resolved_before_delivery"
    DEAD_LETTERED = "dead_lettered"
    IGNORED = "ignored"  # no alert: a test message of the sender
    REFUSED = "refused"  # not taken: the sender hears 400 or 503


def span_text(ms: int) -> str:
    """A time span as it is written in a test: 4m59s."""
    parts = []
    for unit, name in zip(_SPAN_UNITS_MS, ("d", "h", "m", "s", "ms"), strict=True):
        count, ms = divmod(ms, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


def _span(value: object) -> int:
    found = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if found is None or not any(found.groups()):
        raise ValueError("write a time span such as 0s, 4m59s, 20m or 1h30m")
    return sum(int(part or 0) * unit for part, unit in zip(found.groups(), _SPAN_UNITS_MS, strict=True))


def _moment(value: object) -> Instant:
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            try:
                return read_datetime(value)
            except (BadTime, IndexError):
                moment = None
    if not isinstance(moment, datetime):
        raise ValueError("write a date and time with its zone, such as 2027-01-10T03:00:00+07:00")
    if moment.tzinfo is None:
        raise ValueError("write its zone as well: 2027-01-10T03:00:00Z, 2027-01-10T03:00:00+07:00")
    return Instant(round(moment.timestamp() * 1000))


def _span_or_moment(value: object) -> int | Instant:
    return _span(value) if isinstance(value, str) and _SPAN.fullmatch(value) else _at(value)


def _at(value: object) -> Instant:
    try:
        return _moment(value)
    except ValueError as error:
        if isinstance(value, datetime):
            raise
        raise ValueError("write how long after the start, such as 0s, 4m59s or 1h30m") from error


def _as_written(value: object) -> object:
    """A moment that YAML has understood, as senders write it."""
    return value.isoformat() if isinstance(value, datetime) else value


def _one_or_many(value: object) -> object:
    return value if value is None or isinstance(value, list) else [value]


def _file_or_body(value: object) -> object:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, dict):
        return value
    raise ValueError("write the path of a file beside this one, or the body itself as a mapping")


def _status(value: object) -> object:
    match value:
        case "up":
            return {"status": 202}
        case "down":
            return {"status": 503}
        case dict():
            return value
    raise ValueError("write up, down, or the answer it gives: {status: 500}")


def _http_status(value: int) -> int:
    if not 200 <= value <= 599:
        raise ValueError("write the status of an answer, such as 500")
    return value


def _opened(value: object) -> object:
    """A text alone is a dedup_key."""
    return {"dedup_key": value} if isinstance(value, str) else value


_SPAN_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": r"^(?=\d)(\d{1,4}d)?(\d{1,6}h)?(\d{1,6}m(?!s))?(\d{1,8}s)?(\d{1,8}ms)?$",
}
_MOMENT_SCHEMA: dict[str, Any] = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}[T ]\S+.*$"}
_HTTP_STATUS: dict[str, Any] = {"type": "integer", "minimum": 200, "maximum": 599}
_BODY_SCHEMA: dict[str, Any] = {"type": ["string", "object"]}

Span = Annotated[int, BeforeValidator(_span), WithJsonSchema(_SPAN_SCHEMA)]
Moment = Annotated[Instant, BeforeValidator(_moment), WithJsonSchema(_MOMENT_SCHEMA)]
At = Annotated[
    int | Instant, BeforeValidator(_span_or_moment), WithJsonSchema({"anyOf": [_SPAN_SCHEMA, _MOMENT_SCHEMA]})
]
SentTime = Annotated[str, BeforeValidator(_as_written), WithJsonSchema(_MOMENT_SCHEMA)]
Body = Annotated[Any, AfterValidator(_file_or_body), WithJsonSchema(_BODY_SCHEMA)]


class RawShape(Shape):
    """An alert of a sender that has no short form."""

    same: Literal[True] | None = None
    body: Body | None = None


class AlertmanagerShape(RawShape):
    """One alert of Alertmanager's webhook. What is left out is what Alertmanager would send."""

    labels: dict[Text, str] | None = None
    annotations: dict[Text, str] | None = None
    status: Literal["firing", "resolved"] | None = None
    startsAt: SentTime | None = None  # noqa: N815 - as Alertmanager writes them
    endsAt: SentTime | None = None  # noqa: N815
    fingerprint: Text | None = None
    generatorURL: Text | None = None  # noqa: N815


class DatadogShape(RawShape):
    """One notification, by the names of docs/senders/datadog.md's template without their nesting."""

    title: Text | None = None
    text: Text | None = None
    transition: Text | None = None
    priority: Text | None = None
    type: Text | None = None
    monitor_id: Text | None = None
    scope: Text | None = None
    tags: list[Text] | None = None
    hostname: Text | None = None
    aggreg_key: Text | None = None
    cycle_key: Text | None = None
    metric: Text | None = None
    query: Text | None = None
    event_type: Text | None = None
    link: Text | None = None
    snapshot: Text | None = None
    org_id: Text | None = None


_SHORT_FORMS: Mapping[str, type[RawShape]] = MappingProxyType(
    {"alertmanager": AlertmanagerShape, "datadog": DatadogShape}
)


class PagerDutyShape(Shape):
    """How PagerDuty answers from here on."""

    status: Annotated[int, AfterValidator(_http_status), WithJsonSchema(_HTTP_STATUS)]


class _PayloadShape(Shape):
    """What may be expected of the `payload` of an event. null: it is not there."""

    summary: str | None = None
    source: str | None = None
    severity: str | None = None
    timestamp: str | None = None
    component: str | None = None
    group: str | None = None
    custom_details: Details | None = None


PayloadShape = create_model("PayloadShape", __base__=_PayloadShape, **{"class": (str | None, None)})  # type: ignore[call-overload]


class EventShape(Shape):
    """What may be expected of an event as PagerDuty receives it. null: it is not there."""

    routing_key: str | None = None
    event_action: Literal["trigger", "acknowledge", "resolve"] | None = None
    dedup_key: str | None = None
    payload: PayloadShape | None = None  # type: ignore[valid-type]
    links: list[Details] | None = None
    images: list[Details] | None = None
    client: str | None = None
    client_url: str | None = None


class OpenShape(Shape):
    """What may be expected of an alert that is open at PagerDuty."""

    dedup_key: str | None = None
    status: Literal["triggered", "acknowledged"] | None = None
    summary: str | None = None
    severity: Annotated[Severity, Field(strict=False)] | None = None
    destination: str | None = None


class ExpectShape(Shape):
    """What should have come of a step. Only what is named is compared, and that exactly."""

    of: Annotated[int, Field(ge=0)] | None = None
    outcome: Annotated[Ending, Field(strict=False)] | None = None
    answer: int | None = None
    service: str | None = None
    severity: Annotated[Severity, Field(strict=False)] | None = None
    priority: str | None = None
    rule: str | None = None
    reason: str | None = None
    matched: list[Text] | None = None
    dedup_key: str | None = None
    destination: str | None = None
    event: EventShape | None = None
    events: list[EventShape] | None = None
    open: list[Annotated[OpenShape, BeforeValidator(_opened)]] | None = None


class _StepShape(Shape):
    """One step: at a time something happens, and this is what should come of it."""

    at: At | None = None
    advance: Span | None = None
    body: Body | None = None
    source: Text | None = None
    pagerduty: Annotated[PagerDutyShape, BeforeValidator(_status)] | None = None
    redis: Literal["up", "down"] | None = None
    restart: Literal[True] | None = None
    rules: Text | None = None
    expect: Annotated[list[ExpectShape], BeforeValidator(_one_or_many), Field(min_length=1)] | None = None


def _sent(form: type[RawShape]) -> Any:
    return (Annotated[list[form], BeforeValidator(_one_or_many), Field(min_length=1)] | None, None)  # type: ignore[valid-type]


StepShape = create_model(
    "StepShape", __base__=_StepShape, **{sender: _sent(_SHORT_FORMS.get(sender, RawShape)) for sender in PARSERS}
)


class CaseShape(Shape):
    """One test."""

    name: Text
    start: Moment | None = None
    steps: Annotated[list[StepShape], Field(min_length=1)]  # type: ignore[valid-type]
    expect_none: Annotated[list[Annotated[Ending, Field(strict=False)]], Field(min_length=1)] | None = None


class TestFileShape(Shape):
    """A `*_test.yaml` file."""

    __test__ = False  # no class of pytest's

    tests: Annotated[list[CaseShape], Field(min_length=1)]


#: What an editor shows for a key.
_HELP = {
    "advance": "How long after the step before: 5m.",
    "aggreg_key": "What tells the groups of one monitor apart.",
    "annotations": "Annotations of the alert.",
    "answer": "What the sender is answered: 202, 400 or 503.",
    "at": "How long after the start, such as 0s or 4m59s; or a moment with its zone.",
    "body": "A file beside this one, or the body itself.",
    "custom_details": "These members of it; others may be there.",
    "dedup_key": "PagerDuty's name for the alert.",
    "destination": "The key that the event was sent with: pagerduty:default, or pagerduty: and a service's name.",
    "event": "The last event about this alert that PagerDuty took in this step, as far as named. null: none was sent.",
    "events": "Every event that PagerDuty took in this step, in order. []: none.",
    "expect": "What should have come of this step. Only what is named is compared. A list: one for each alert of the body.",
    "expect_none": "How no alert may stand after any step of this test.",
    "fingerprint": "Left out: computed from the labels, as Alertmanager does.",
    "labels": "Labels of the alert.",
    "matched": "Names of the rules that matched, in order. []: none.",
    "monitor_id": "Left out: made from the title.",
    "name": "What the test shows, in words. `--run` looks for it.",
    "of": "The number of the step whose alert this is about, counted from 0. Left out: this step's, or the last one heard.",
    "open": "What is open at PagerDuty after this step: dedup_keys, or what is known of each. []: nothing.",
    "outcome": "How the alert stands after this step.",
    "pagerduty": "How PagerDuty answers from here on: up, down, or {status: 500}.",
    "priority": "P1 to P4, or as alertrouter.yaml names them.",
    "reason": "What the rule that held the alert back gives as its reason.",
    "redis": "down: Redis is away from here on. up: it is back.",
    "restart": "true: the process is ended and another one begins.",
    "rule": "The rule that suppressed or dropped the alert.",
    "rules": "A directory beside this file, whose rules are in force from here on.",
    "same": "true: the alert of this sender before this one, with what stands beside it changed.",
    "service": "Where the router sent it; `unrouted` if no rule wanted it.",
    "severity": "critical, error, warning or info, as the rules left it.",
    "source": "Who posts it: alertmanager, datadog, or with a name: alertmanager/team-a, custom/acme.",
    "start": "When the test begins, with a zone: 2027-01-10T03:00:00+07:00.",
    "startsAt": "Left out: when the alert began to fire in this test.",
    "steps": "What happens, in order.",
    "tests": "The tests of this file. Each begins with nothing heard and nothing sent.",
    "transition": "As Datadog calls it: Triggered, Warn, Recovered, ... Left out: Triggered.",
}


def schema() -> str:
    """The text of the JSON Schema of a test file, with what is read in more than one form."""
    made = TestFileShape.model_json_schema()
    step, expected = made["$defs"]["StepShape"]["properties"], made["$defs"]["ExpectShape"]["properties"]
    for name in (*PARSERS, "expect"):
        step[name]["anyOf"].insert(0, step[name]["anyOf"][0]["items"])
    step["pagerduty"]["anyOf"].insert(0, {"enum": ["up", "down"]})
    states = expected["open"]["anyOf"][0]
    states["items"] = {"anyOf": [{"type": "string"}, states["items"]]}
    for definition in (made, *made["$defs"].values()):
        definition.pop("title", None)
        definition.pop("description", None)
        for key, each in definition.get("properties", {}).items():
            each.pop("title", None)
            if key in _HELP:
                each["description"] = _HELP[key]
    text = {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
    return json.dumps(text, indent=2, ensure_ascii=False) + "\n"
