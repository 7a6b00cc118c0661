"""The shape of every rule file, and what to say where a file has another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic_core import ErrorDetails

from alertrouter.alert import Severity
from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.model import TriggerType

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DAY_S = 86_400
#: https://www.rfc-editor.org/rfc/rfc9110#name-field-names
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def read_duration(text: str) -> timedelta:
    """`5m`, `90s`, `2h` or `1d`. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("write a duration such as 90s, 5m, 1h or 1d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _duration(value: object) -> timedelta:
    if not isinstance(value, str):
        raise ValueError("write a duration such as 90s, 5m, 1h or 1d")
    return read_duration(value)


def _one_or_many(value: object) -> object:
    return value if value is None or isinstance(value, list) else [value]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _rule_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,99}", text) or text == "catch_all":
        raise ValueError("a name is made of letters, digits, `-`, `_`, `.` and `/`, at most 100; `catch_all` is taken")
    return text


def _variable_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("a variable is named by letters, digits and `_`, so that {{variables.name}} can be written")
    return text


def _cache_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("a variable is named by letters, digits and `_`, so that cache_var.name can be written")
    return text


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or any(map(str.isspace, text)):
        raise ValueError("write a whole link, such as https://wiki.example.org/page")
    return text


def _runbook(text: str) -> str:
    if "://" in text:
        return _web_address(text)
    if text.startswith("/") or ".." in text.split("/") or any(map(str.isspace, text)):
        raise ValueError("write a link, or a path under `runbook_base` such as runbooks/payment-service.md")
    return _not_blank(text)


def _expires_at(value: object) -> int:
    """The first ms since the epoch after the date, which counts to its end in UTC; or the moment itself."""
    moment: object = value
    if isinstance(value, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        moment = datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
    if isinstance(moment, datetime):
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if isinstance(moment, date):
        return round(datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp() + _DAY_S) * 1000
    raise ValueError("write a date, such as 2027-03-31; it counts to its end, in UTC")


def _header_name(text: str) -> str:
    if not _HEADER_NAME.fullmatch(text):
        raise ValueError("a header is named by letters, digits and `-`, such as X-Team")
    return text


def _header(value: object) -> object:
    """A text as it is sent, or the place where it is found."""
    match value:
        case str() if value.isprintable():
            return value
        case {"env": str(place), **rest} | {"file": str(place), **rest} if place.strip() and not rest:
            return KeyShape.model_validate(value)
    raise ValueError("neither a text nor a place")


def _acknowledge_within(value: object) -> timedelta | None:
    if value == "next_business_day":
        return None
    if not isinstance(value, str):
        raise ValueError("write a duration such as 5m, or next_business_day")
    return read_duration(value)


def _jsonable(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("JSON has no infinite numbers")
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _jsonable(child)
    return value


# What editors are told, as JSON Schema, of what a function checks here.
_TEXT: dict[str, Any] = {"type": "string", "pattern": r"\S"}
_LINK: dict[str, Any] = {"type": "string", "pattern": r"^https?://[^\s/]\S*$"}
_SPAN: dict[str, Any] = {"type": "string", "pattern": f"^{_DURATION.pattern}$"}
_DATE: dict[str, Any] = {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]\S+)?$"}
_RULE_NAME: dict[str, Any] = {"type": "string", "pattern": r"^(?!catch_all$)[A-Za-z0-9][A-Za-z0-9_./-]{0,99}$"}
_RUNBOOK: dict[str, Any] = {"anyOf": [_LINK, {"type": "string", "pattern": r"^(?!/)(?!.*(://|(^|/)\.\.(/|$)))\S+$"}]}

_PLACE: dict[str, Any] = {"type": "object", "additionalProperties": False, "minProperties": 1, "maxProperties": 1}
_HEADER: dict[str, Any] = {"anyOf": [{"type": "string"}, {**_PLACE, "properties": {"env": _TEXT, "file": _TEXT}}]}

Text = Annotated[str, AfterValidator(_not_blank), WithJsonSchema(_TEXT)]
Texts = Annotated[
    list[Text],
    BeforeValidator(_one_or_many),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}),
]
WebAddress = Annotated[str, AfterValidator(_web_address), WithJsonSchema(_LINK)]
Duration = Annotated[timedelta, BeforeValidator(_duration), WithJsonSchema(_SPAN)]
Details = dict[Text, Annotated[JsonValue, AfterValidator(_jsonable)]]


class Shape(BaseModel):
    """A mapping with exactly these keys. Nothing is converted but what says so."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LinkShape(Shape):
    href: WebAddress
    text: str = ""


class EnrichShape(Shape):
    links: list[LinkShape] = []
    details: Details = {}


class VariableShape(Shape):
    name: Annotated[str, AfterValidator(_variable_name)]
    path: Text
    type: Literal["regex"] = "regex"
    value: Text


class ExtractionShape(Shape):
    target: Text
    template: Text | None = None
    source: Text | None = None
    regex: Text | None = None


class DynamicRouteShape(Shape):
    source: Text
    regex: Text
    lookup_by: Literal["service_name"] = "service_name"


class KeyShape(Shape):
    env: Text | None = None
    file: Text | None = None


class RoutingKeyShape(KeyShape):
    calls_per_minute: Annotated[int, Field(ge=0)] | None = None


Header = Annotated[str | KeyShape, BeforeValidator(_header), WithJsonSchema(_HEADER)]


class AutomationShape(Shape):
    name: Text
    url: WebAddress | None = None
    job: Text | None = None
    auto_send: bool = False
    trigger_types: Annotated[list[TriggerType], Field(min_length=1, max_length=1)] = ["alert_triggered"]
    parameters: Details = {}
    headers: dict[Annotated[str, AfterValidator(_header_name)], Header] = {}


class ActionsShape(Shape):
    route_to: Text | None = None
    dynamic_route_to: DynamicRouteShape | None = None
    variables: list[VariableShape] | None = None
    extractions: list[ExtractionShape] | None = None
    severity: Annotated[Severity | None, Field(strict=False)] = None
    priority: Text | None = None
    suppress: Literal[True] | None = None
    drop: Literal[True] | None = None
    reason: Text | None = None
    expires: Annotated[int, BeforeValidator(_expires_at), WithJsonSchema(_DATE)] | None = None
    suspend: Duration | None = None
    event_action: Literal["trigger", "resolve"] | None = None
    escalation_policy: Text | None = None
    annotate: Texts | None = None
    enrich: EnrichShape | None = None
    custom_fields: Details | None = None
    notify: Texts | None = None
    automation: AutomationShape | None = None
    dedup_key: Text | None = None


class CatchAllShape(ActionsShape):
    """Actions, and for a suppression the owner that a rule names beside them."""

    owner: Text | None = None


class RuleShape(Shape):
    rule: Annotated[str, AfterValidator(_rule_name), WithJsonSchema(_RULE_NAME)]
    owner: Text | None = None
    when: Texts | None = None
    then: ActionsShape
    disabled: bool = False


class OrchestrationShape(Shape):
    """unrouted.yaml, and with more other files of rules."""

    sets: dict[Text, list[RuleShape]] | None = None
    catch_all: CatchAllShape = CatchAllShape()


class CacheVariableShape(Shape):
    name: Annotated[str, AfterValidator(_cache_name)]
    when: Texts | None = None
    type: Literal["recent_value", "trigger_count"]
    source: Text | None = None
    regex: Text | None = None
    over: Duration | None = None


class RememberingShape(OrchestrationShape):
    """global.yaml, and with more the files of services."""

    cache_variables: list[CacheVariableShape] = []


class RouterShape(Shape):
    sets: dict[Text, list[RuleShape]] | None = None
    catch_all: CatchAllShape


class ServiceShape(RememberingShape):
    service: Text | None = None
    team: Text | None = None
    tier: Annotated[int, Field(ge=1, le=5)] | None = None
    on_call: Text | None = None
    runbook: Annotated[str, AfterValidator(_runbook), WithJsonSchema(_RUNBOOK)] | None = None
    links: list[LinkShape] = []
    routing_key: RoutingKeyShape | None = None


class PriorityShape(Shape):
    severity: Annotated[Severity, Field(strict=False)]
    acknowledge_within: Annotated[
        timedelta | None,
        BeforeValidator(_acknowledge_within),
        WithJsonSchema({"anyOf": [_SPAN, {"const": "next_business_day"}]}),
    ] = None
    notify: list[Text] = []
    escalation: Literal["all_levels", "level_1_then_2", "level_1", "none"] = "level_1_then_2"


DestinationKind = Literal["pagerduty", "slack", "email", "jira", "statuspage", "rundeck", "webhook"]


class LimitsShape(Shape):
    longest_suppression: Duration | None = None


class HeartbeatShape(Shape):
    name: Annotated[str, AfterValidator(_rule_name), WithJsonSchema(_RULE_NAME)]
    when: Annotated[
        Texts | None, Field(description="The alert that is one, and so pages nobody. Or a list of them.")
    ] = None
    source: Annotated[Texts | None, Field(description="The sender, such as alertmanager or alertmanager/prod.")] = None
    interval: Duration
    grace: Annotated[Duration, Field(json_schema_extra={"default": "1m"})] = timedelta(minutes=1)
    service: Annotated[Text | None, Field(description="Who is paged. Left out: alertrouter's own service.")] = None
    severity: Annotated[Severity, Field(strict=False)] = Severity.CRITICAL


HeaderName = Annotated[
    str, AfterValidator(_header_name), WithJsonSchema({"type": "string", "pattern": f"^{_HEADER_NAME.pattern}$"})
]


class NamedSecretShape(KeyShape):
    """A secret by where it is found, and the name by which it is counted."""

    name: Text


#: More than these cannot be told apart in a metric, and each is compared with what every webhook shows.
NamedSecrets = Annotated[list[NamedSecretShape], Field(min_length=1, max_length=16)]


class SignatureShape(Shape):
    scheme: Literal["grafana", "sentry", "pagerduty"]
    secrets: NamedSecrets
    header: HeaderName | None = None
    timestamp_header: HeaderName | None = None


def _help(text: str) -> Any:
    return Field(description=text)


class StatusShape(Shape):
    """What a custom sender's words for the state of an alert mean. Upper and lower case are one."""

    path: Annotated[Texts, _help("Where the status stands. A list: the first that is there.")]
    firing: Annotated[Texts, _help("The words for an alert that fires, in quotes if they look like numbers.")]
    resolved: Annotated[Texts | None, _help("The words for one that is over.")] = None
    acknowledged: Annotated[Texts | None, _help("The words for one that somebody looks after.")] = None
    ignored: Annotated[Texts | None, _help("The words that neither open nor close an alert.")] = None


class SeverityShape(Shape):
    """What a custom sender's words for the severity mean. Upper and lower case are one."""

    path: Annotated[Texts | None, _help("Where the severity stands. A list: the first that is there.")] = None
    critical: Annotated[Texts | None, _help("The sender's words for it.")] = None
    error: Annotated[Texts | None, _help("The sender's words for it.")] = None
    warning: Annotated[Texts | None, _help("The sender's words for it.")] = None
    info: Annotated[Texts | None, _help("The sender's words for it.")] = None
    default: Annotated[Severity, Field(strict=False), _help("Where nothing is said, or a word that is not known.")] = (
        Severity.ERROR
    )


class TimestampsShape(Shape):
    """RFC 3339 with a zone, or seconds or milliseconds since 1970."""

    started: Annotated[Texts | None, _help("When the alert began: the same in each of its messages.")] = None
    ended: Annotated[Texts | None, _help("When it ended; read where it is resolved.")] = None


class _FieldsShape(Shape):
    """Where a custom sender's bodies say what. A list of paths: the first that leads to a value."""

    alerts: Annotated[Text | None, _help("A list in the body. Left out: the body is one alert, or a list.")] = None
    identity: Annotated[Texts, _help("What names the alert from opening to closing. A list: all of them together.")]
    status: Annotated[StatusShape, _help("Whether it fires, and what the sender's words for that mean.")]
    severity: Annotated[SeverityShape | None, _help("What the sender's words for it mean. Left out: error.")] = None
    summary: Annotated[Texts | None, _help("One line for the responder.")] = None
    source: Annotated[Texts | None, _help("What is affected, such as a host.")] = None
    component: Annotated[Texts | None, _help("event.component")] = None
    group: Annotated[Texts | None, _help("event.group")] = None
    episode: Annotated[Texts | None, _help("The sender's name for one occurrence. Left out: when it started.")] = None
    timestamps: Annotated[TimestampsShape, _help("When it began and ended.")] = TimestampsShape()
    details: Annotated[
        dict[Text, Text] | None, _help("Paths by the names they get in custom_details. Left out: the whole alert.")
    ] = None
    labels: Annotated[Texts | None, _help("Objects, or lists of tags and values, for custom_details.")] = None
    links: Annotated[dict[Text, Text], _help("Paths of web addresses, by what is shown for them.")] = {}


FieldsShape = create_model(
    "FieldsShape", __base__=_FieldsShape, **{"class": (Annotated[Texts | None, _help("event.class")], None)}
)  # type: ignore[call-overload]


#: https://docs.aws.amazon.com/sns/latest/dg/sns-create-topic.html: the last part is the topic's name.
_TOPIC = r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]+:[A-Za-z0-9_-]{1,256}(\.fifo)?$"


def _topic(text: str) -> str:
    if not re.fullmatch(_TOPIC, text, re.ASCII):
        raise ValueError("write a topic's ARN, such as arn:aws:sns:eu-west-1:123456789012:alerts")
    return text


Topic = Annotated[str, AfterValidator(_topic), WithJsonSchema({"type": "string", "pattern": _TOPIC})]


class SourceShape(Shape):
    """What is known of one sender, or of one `sender/name`."""

    tokens: NamedSecrets | None = None
    header: Annotated[HeaderName | None, Field(description="One more header that carries the token.")] = None
    signature: SignatureShape | None = None
    fields: Annotated[
        FieldsShape | None,  # type: ignore[valid-type]
        _help("Of a custom sender, custom/name: where its bodies say what."),
    ] = None
    topics: Annotated[list[Topic] | None, Field(min_length=1)] = None
    certificates: Text | None = None


class IntegrationShape(Shape):
    routing_key: KeyShape
    service: Annotated[Text, Field(description="Where its alerts go, unless the router sends them elsewhere.")]


class ConfigShape(Shape):
    """alertrouter.yaml. The last three sections are read by others, who know what may stand in them."""

    runbook_base: WebAddress | None = None
    priorities: dict[Text, PriorityShape] = {}
    destinations: dict[DestinationKind, dict[Text, dict[str, Any]]] = {}
    sources: dict[Text, SourceShape] = {}
    integrations: dict[Text, IntegrationShape] = {}
    limits: LimitsShape = LimitsShape()
    heartbeats: list[HeartbeatShape] = []
    dedup: Any = None
    redis: Any = None
    settings: Any = None


def destination_names(config: ConfigShape) -> set[str]:
    """What `notify` may name: `kind:name`, and `pagerduty`, which is always there."""
    named = {f"{kind}:{name}" for kind, names in config.destinations.items() for name in names}
    return named | {"pagerduty"}


ShapeT = TypeVar("ShapeT", bound=Shape)


def fit(shape: type[ShapeT], document: Document) -> ShapeT | list[Problem]:
    """The document as that shape, or everything in it that does not fit."""
    try:
        return shape.model_validate(document.root.value)
    except ValidationError as error:
        return [_problem(shape, document, detail) for detail in error.errors(include_url=False)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for a slip of the keyboard, else what there is to choose from, if that is short."""
    choices = sorted(known)
    same = [choice for choice in choices if choice.casefold() == word.casefold()]
    if close := same or get_close_matches(word, choices, 1):
        return f"; did you mean `{close[0]}`?"
    return f"; there is {', '.join(choices)}" if 0 < len(choices) <= 12 else ""


def _problem(shape: type[Shape], document: Document, detail: ErrorDetails) -> Problem:
    path: tuple[Key, ...] = detail["loc"]
    name = next((key for key in reversed(path) if isinstance(key, str)), "")
    shown = f"`{document.written_at(path)}`"
    match detail["type"]:
        case "extra_forbidden":
            return document.problem_with_key(
                path, f"unknown key `{name}`{did_you_mean(name, _keys_at(shape, path[:-1]))}", "unknown-key"
            )
        case "missing":
            check = "missing-catch-all" if name == "catch_all" else "syntax"
            return document.problem(path, f"`{name}` is missing{_EXAMPLES.get(name, '')}", check)
        case _ if path[-2:] == ("routing_key", "calls_per_minute"):
            return document.problem(path, "`calls_per_minute` is a whole number; 0 is no limit")
        case kind if remedy := _instead_of_a_secret(path, name, kind):
            return document.problem(path, remedy)
        case "model_type" if name == "automation":
            return document.problem(
                path, "a rule runs one automation: write `{name: ..., url: ...}` or `{name: ..., job: ...}`"
            )
        case "literal_error" | "enum" if name in ("suppress", "drop"):
            return document.problem(path, f"`{name}` is true or left out")
        case "literal_error" if path[-1] == "[key]":  # pydantic's word for a key that is wrong
            known = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            return document.problem_with_key(
                path[:-1], f"`{path[-2]}` is not known{did_you_mean(str(path[-2]), known)}", "unknown-key"
            )
        case "literal_error" | "enum":
            known = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            return document.problem(path, f"{shown} is not known{did_you_mean(str(detail['input']), known)}")
        case "value_error":
            check = "runbook" if name == "runbook" else "syntax"
            return document.problem(path, f"{shown}: {detail['ctx']['error']}", check)
        case kind:
            return document.problem(path, f"`{name}` is {shown}; {_WANTED.get(kind, detail['msg'])}")


def _instead_of_a_secret(path: tuple[Key, ...], name: str, kind: str) -> str:
    """What to write where a secret may stand, which is never repeated; "" elsewhere."""
    if "routing_key" in path:
        return "name where the key is found, never the key: `{env: PD_KEY_PAYMENT}` or `{file: /run/secrets/pd}`"
    if "automation" in path and "headers" in path:
        return "write headers as `X-Team: payments`, a secret as `Authorization: {env: RUNNER_TOKEN}` or `{file: ...}`"
    if path[:1] == ("sources",) and {"tokens", "secrets"} & set(path) and name != "name":
        if kind == "too_long":
            return "at most 16 at once: one that is used, and one that replaces it"
        return "name each by where it is found: `[{name: a, file: /run/secrets/a}]` or `[{name: a, env: TOKEN_A}]`"
    return ""


_EXAMPLES = {
    "then": "; a rule that only stops here says `then: {}`",
    "catch_all": "; write `catch_all: {route_to: unrouted}`, so that what no rule wants still pages",
}

_WANTED = {
    "string_type": "write text, in quotes if it looks like a number, a date or yes and no",
    "list_type": "write a list, one `- ` for each entry",
    "dict_type": "write a mapping, `key: value`",
    "model_type": "write a mapping, `key: value`",
    "model_attributes_type": "write a mapping, `key: value`",
    "bool_type": "write true or false",
    "int_type": "write a whole number",
    "invalid-json-value": "write text, in quotes if it looks like a date",
    "too_short": "write at least one entry, or leave it out",
    "too_long": "write one entry",
}


def _keys_at(shape: type[Shape], path: tuple[Key, ...]) -> Iterable[str]:
    """The keys that may stand in the mapping at `path` of a file of that shape."""
    here: Any = shape
    for key in path:
        here = _inside(here, key)
    return here.model_fields if isinstance(here, type) and issubclass(here, Shape) else ()


def _inside(annotation: Any, key: Key) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Shape):
        field = annotation.model_fields.get(str(key))
        return _bare(field.annotation) if field else None
    if get_origin(annotation) in (dict, list):
        return _bare(get_args(annotation)[-1])
    return None


def _bare(annotation: Any) -> Any:
    """The type itself, without Annotated and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (UnionType, Union):
        return _bare(next(each for each in get_args(annotation) if each is not type(None)))
    return annotation
