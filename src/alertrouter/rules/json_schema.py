"""JSON Schemas of the rule files, for editors: made from the shapes that loading uses, narrowed to each kind of file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from alertrouter.rules.build import ALLOWED
from alertrouter.rules.model import Kind
from alertrouter.rules.schema import ConfigShape, OrchestrationShape, RememberingShape, RouterShape, ServiceShape, Shape

_SHAPES: Mapping[Kind, type[Shape]] = {
    "global": RememberingShape,
    "router": RouterShape,
    "service": ServiceShape,
    "unrouted": OrchestrationShape,
}
#: What says more about an action, and stands beside it.
_BESIDE = frozenset({"reason", "expires", "owner"})
_ENDING = frozenset({"suppress", "drop"})
_ROUTING = frozenset({"route_to", "dynamic_route_to"})

#: What an editor shows for a key.
_HELP = {
    "automation": "A web address to post to, or a job to run.",
    "auto_send": "true: run it at once. Else it is only offered to the responder.",
    "dedup_key": "Alerts of one key are one incident. A text with fields in double braces.",
    "grace": "How much later than its interval a heartbeat may come, such as 1m.",
    "headers": "Headers of the request. A secret only by where it is found: {env: ...} or {file: ...}.",
    "heartbeats": "Alerts that always fire: whoever sends one and stops is paged for.",
    "interval": "How often the heartbeat comes, such as 5m.",
    "job": "The job of the runner.",
    "parameters": "What is sent along. Texts may hold fields in double braces.",
    "trigger_types": "For an alert in which state: alert_triggered, alert_suspended or alert_suppressed.",
    "url": "The web address that is posted to.",
    "acknowledge_within": "How soon somebody must answer: 5m, 1h, or next_business_day.",
    "annotate": "A note for the responder, or several.",
    "cache_variables": "What is remembered from alert to alert, to be read as cache_var.name.",
    "calls_per_minute": "How often PagerDuty may be called by this key within 60 s; 0 for no limit.",
    "catch_all": "What becomes of an alert that no rule of its set wants.",
    "certificates": "CloudWatch: a PEM file to check signatures by, where SNS itself cannot be reached.",
    "custom_fields": "Custom fields of the incident, by name.",
    "destinations": "Where alerts can go, by kind and name. Credentials are named, never written here.",
    "details": "More fields for the responder, beside the sender's own.",
    "disabled": "true: the rule is passed over.",
    "drop": "true: accept the alert and forget it. Needs owner, reason and expires. Suppress keeps a record.",
    "dynamic_route_to": "Route to the service that a field of the alert names. First rule of the router, without conditions.",
    "enrich": "Links and details for the responder.",
    "env": "The environment variable that holds the secret.",
    "escalation": "Whom it wakes, in which order.",
    "escalation_policy": "The PagerDuty escalation policy to use, by its id.",
    "event_action": "Take the alert for a trigger or a resolve, whatever its sender said.",
    "expires": "The last day (UTC) on which this has an effect, or the moment at which it ends.",
    "extractions": "Copy text into a field of the event: a template, or what a pattern finds in a source.",
    "file": "The file that holds the secret.",
    "links": "Links for the responder.",
    "longest_suppression": "How far ahead a suppression may end, such as 30d.",
    "lookup_by": "How the service is found: by its name.",
    "notify": "Destinations that are told: pagerduty, or kind:name.",
    "on_call": "Who is on call, in words.",
    "over": "How far back triggers are counted, such as 10m.",
    "owner": "The team to ask about this.",
    "path": "The field that the variable is read from, such as event.summary.",
    "priorities": "Response policies, first the most urgent.",
    "priority": "One of the priorities of alertrouter.yaml. Sets the severity too.",
    "reason": "Why, with a ticket.",
    "regex": "A pattern of RE2. What its groups find is the result; without groups, all that it finds.",
    "route_to": "Where the alert goes on: in the router a service, elsewhere a set of this file.",
    "routing_key": "Where the service's own PagerDuty key is found. Left out: the default key.",
    "rule": "The rule's name, unique in all files: it appears in logs, metrics and tests.",
    "runbook": "A link, or a path under runbook_base.",
    "runbook_base": "Where the paths of runbooks can be read.",
    "service": "The service's name, which is that of the file.",
    "sets": "Rules by set. Evaluation begins in `start`; the first rule that matches is the only one that acts.",
    "severity": "PagerDuty's severity: critical, error, warning or info.",
    "source": "The field that is searched, such as event.summary.",
    "suppress": "true: accept and record the alert but do not send it. Needs owner, reason and expires.",
    "suspend": "Hold the alert back this long; if it resolves meanwhile, nobody is told.",
    "target": "The field that is written, such as event.summary.",
    "team": "The team that owns the service.",
    "template": "Text with fields in double braces: {{event.source}}.",
    "then": "What the rule does.",
    "topics": "CloudWatch: ARNs of the SNS topics that are heard, and whose subscriptions are confirmed.",
    "tier": "How much the service matters: 1 is the most.",
    "value": "A pattern of RE2. What its groups find is the value; without groups, all that it finds.",
    "variables": "Names for parts of the alert, to be used in templates as {{variables.name}}.",
    "when": "One condition, or a list of which one is enough. Left out: always.",
}


def schemas() -> dict[str, str]:
    """The text of each schema, by its file name."""
    made = {f"{kind}.schema.json": _narrowed(shape, kind) for kind, shape in _SHAPES.items()}
    made["alertrouter.schema.json"] = _readable(ConfigShape.model_json_schema())
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in sorted(made.items())}


def _narrowed(shape: type[Shape], kind: Kind) -> dict[str, Any]:
    """The schema of a shape with only the actions that are allowed in files of that kind."""
    schema = shape.model_json_schema()
    in_rule, in_catch_all = ALLOWED[kind]
    rule, actions, catch_all = (schema["$defs"][name] for name in ("RuleShape", "ActionsShape", "CatchAllShape"))
    _allow_only(in_rule, actions)
    _allow_only(in_catch_all, catch_all)
    if kind == "router":
        actions |= _one_of(in_rule & _ROUTING)
        catch_all["required"] = ["route_to"]
    if ending := in_rule & _ENDING:
        rule["if"] = {"required": ["then"], "properties": {"then": _one_of(ending)}}
        rule["then"] = {"required": ["owner"]}
    return _readable(schema)


def _allow_only(allowed: frozenset[str], definition: dict[str, Any]) -> None:
    ending = allowed & _ENDING
    known = allowed | (_BESIDE if ending else frozenset())
    properties = {key: each for key, each in definition["properties"].items() if key in known}
    definition["properties"] = properties
    if ending:
        needed = [key for key in ("owner", "reason", "expires") if key in properties]
        definition["dependentRequired"] = dict.fromkeys(sorted(ending), needed)
        definition["dependentSchemas"] = {each: _one_of(ending) for each in ("reason", "expires")}
    if len(ending) > 1:
        definition["not"] = {"required": sorted(ending)}


def _one_of(keys: frozenset[str]) -> dict[str, Any]:
    return {"anyOf": [{"required": [key]} for key in sorted(keys)]}


def _readable(schema: dict[str, Any]) -> dict[str, Any]:
    """With help for each key, and without titles that only repeat it and definitions that nothing uses."""
    while True:
        text = json.dumps(schema)
        unused = [name for name in schema["$defs"] if f'"#/$defs/{name}"' not in text]
        if not unused:
            break
        for name in unused:
            del schema["$defs"][name]
    for definition in (schema, *schema["$defs"].values()):
        definition.pop("title", None)
        definition.pop("description", None)
        for key, each in definition.get("properties", {}).items():
            each.pop("title", None)
            if key in _HELP:
                each.setdefault("description", _HELP[key])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
