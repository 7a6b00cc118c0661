"""What the rules say about one alert: a pure function of alert, rules and time. It fails for no alert and no loaded rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from alertrouter.alert import DEDUP_KEY_LIMIT, PAGERDUTY, Alert, CommonEvent, Link, Severity, Status
from alertrouter.rules.cache import read_cache
from alertrouter.rules.condition import View
from alertrouter.rules.model import (
    START,
    UNROUTED,
    Actions,
    Automation,
    CacheQuery,
    CacheWrite,
    CountQuery,
    Decision,
    Orchestration,
    Priority,
    Rule,
    Ruleset,
    RuleTrace,
    Verdict,
)
from alertrouter.rules.moment import Moment, Wanted
from alertrouter.rules.reasons import SHOWN_VALUE, cut
from alertrouter.rules.silences import Silence
from alertrouter.rules.templates import Extraction, Template, variables_of
from alertrouter.rules.times import Instant

#: Where alerts go whose service names no routing key of its own.
DEFAULT_DESTINATION = "pagerduty:default"

#: How much of a key that is too long stays readable, in characters.
_KEY_SHOWN = 100

_SEVERITIES = {severity.value: severity for severity in Severity}
#: Fields of an event whose name in Python is another.
_FIELDS = {"class": "class_"}

_QUARANTINED = "the file of {} is faulty and quarantined, and no good version of it is known"


def destination_of(service: str, ruleset: Ruleset) -> str:
    """Where the alerts of `service` page: its own destination if it has a routing key of its own, else the default."""
    owner = ruleset.services.get(service)
    return f"pagerduty:{service}" if owner is not None and owner.routing_key is not None else DEFAULT_DESTINATION


def evaluate(
    alert: Alert,
    ruleset: Ruleset,
    now: int,
    *,
    counts: Mapping[CountQuery | CacheQuery, int | str | None] | None = None,
    trace: bool = False,
) -> Decision:
    """The decision for an alert at `now` (ms since the epoch): global rules, then the router, the service's, silences.

    Later rules override what earlier ones set; annotations, links, details, what is notified and what is run add up. Every
    rule sees the event as the ones before it left it. A drop is the end: no router is asked. Silences are asked about
    what the rules would deliver.

    counts: what thresholds count and cache variables remember, None for nothing; without it each counts 1 and nothing is
            remembered. At the first that is not in it evaluation stops, and the decision `wants` it. Only triggers
            count: for an acknowledged or resolved alert every threshold is 0.
    trace:  record each rule looked at, with the reason in words; changes nothing else.
    """
    moment = Moment(now, counts, counted=alert.status is Status.FIRING)
    course = _Course(alert, ruleset, moment, [] if trace else None)
    try:
        service = course.route()
        course.keep_silent()
        return course.decision(service)
    except Wanted as wanted:
        return course.decision("", wants=wanted.queries)


def view_of(alert: Alert) -> dict[str, Any]:
    """What conditions see of an alert. A field that the sender left empty is not there."""
    event: CommonEvent = alert.event
    optional = {
        "timestamp": event.timestamp,
        "class": event.class_,
        "component": event.component,
        "group": event.group,
    }
    return {
        "event": {
            "summary": event.summary,
            "source": event.source,
            "severity": event.severity.value,
            "custom_details": event.custom_details,
            **{name: value for name, value in optional.items() if value},
        },
        "raw_event": alert.raw,
    }


@dataclass(slots=True)
class _Course:
    """One alert on its way through the rules, and what they have made of it so far."""

    alert: Alert
    ruleset: Ruleset
    now: Moment
    trace: list[RuleTrace] | None
    view: dict[str, Any] = field(init=False)
    event: CommonEvent = field(init=False)
    severity: Severity = field(init=False)
    priority: str = ""
    verdict: Verdict = Verdict.DELIVER
    rule: str = ""
    reason: str = ""
    suspend_ms: int = 0
    event_action: str = ""
    escalation_policy: str = ""
    quarantined: str = ""
    matched: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    custom_fields: dict[str, Any] = field(default_factory=dict)
    notify: dict[str, None] = field(default_factory=dict)  # in order, each once
    automation: dict[str, Automation] = field(default_factory=dict)
    cache_writes: list[CacheWrite] = field(default_factory=list)
    dedup_key: str = ""

    def __post_init__(self) -> None:
        self.view = view_of(self.alert)
        self.event = self.alert.event
        self.severity = self.event.severity

    def route(self) -> str:
        """Go through all rules. Returns the service that was chosen, or "" for none."""
        orchestrations = self.ruleset.orchestrations
        self.run(orchestrations["global"])
        if self.verdict is Verdict.DROP:
            return ""
        service = self._dynamic_route(orchestrations["router"]) or self.run(orchestrations["router"])
        if service != UNROUTED and f"service:{service}" not in orchestrations:
            self.quarantined = service
            service = orchestrations["router"].catch_all.route_to
        orchestration = orchestrations.get(f"service:{service}", orchestrations[UNROUTED])
        self.run(orchestration)
        return service if orchestration.kind == "service" else ""

    def keep_silent(self) -> None:
        """Suppress it where somebody on call has silenced it. What keeps it back otherwise stands."""
        if self.verdict is not Verdict.DELIVER:
            return
        for silence in self.ruleset.silences:
            takes = silence.takes(self.view, self.now, self.alert.id, self.dedup_key)
            if self.trace is not None:
                self.trace.append(RuleTrace("silences", START, silence.rule, takes, self._why_silent(silence)))
            if takes:
                self.verdict, self.rule, self.reason = Verdict.SUPPRESS, silence.rule, silence.why
                self.now.changes_at(silence.ends_at)
                return

    def _why_silent(self, silence: Silence) -> str:
        if silence.ends_at <= self.now.ms:
            return "it is over"
        condition = silence.condition
        if condition is None:
            return f"it is for {cut(silence.alert, SHOWN_VALUE)}"
        return condition.evaluate(self.view, Moment(self.now.ms, self.now.counts, counted=self.now.counted)).why

    def decision(self, service: str, wants: tuple[CountQuery | CacheQuery, ...] = ()) -> Decision:
        """What has come of it so far, for the service that was chosen."""
        destination = destination_of(service, self.ruleset)
        event = self.event
        return Decision(
            verdict=self.verdict,
            event=event if self.severity is event.severity else replace(event, severity=self.severity),
            service=service,
            priority=self.priority or _priority_of(self.severity, self.ruleset.priorities),
            rule=self.rule,
            reason=self.reason or (_QUARANTINED.format(self.quarantined) if self.quarantined else ""),
            matched=tuple(self.matched),
            annotations=tuple(self.annotations),
            destinations=() if self.verdict is Verdict.DROP else (destination,),
            trace=tuple(self.trace or ()),
            links=tuple(self.links),
            details=self.details,
            suspend_ms=self.suspend_ms,
            event_action=self.event_action,
            escalation_policy=self.escalation_policy,
            custom_fields=self.custom_fields,
            notify=tuple(self.notify),
            automation=tuple(self.automation.values()),
            dedup_key=self.dedup_key,
            quarantined=self.quarantined,
            until=self.now.until,
            wants=wants,
            resets=tuple(self.now.resets),
            cache_writes=tuple(self.cache_writes),
        )

    def run(self, orchestration: Orchestration) -> str:
        """Go through the sets from the first on. Returns where the last one routes to: in the router, a service."""
        remembered = read_cache(orchestration.cache_variables, self.view, self.now)
        self.view["cache_var"] = remembered.values
        self.cache_writes += remembered.writes
        current = START
        while True:
            rule = self._first_match(orchestration, current)
            if rule is None:
                self._apply(orchestration.catch_all, "catch_all")
                return (orchestration.kind == "router" and self._meant()) or orchestration.catch_all.route_to
            self.matched.append(rule.name)
            self._apply(rule.actions, rule.name)
            target = rule.actions.route_to
            # Loading has made sure that the set is there, and that sets never lead back to themselves.
            if not target or orchestration.kind == "router" or self.verdict is Verdict.DROP:
                return target
            current = target

    def _first_match(self, orchestration: Orchestration, set_name: str) -> Rule | None:
        rules = orchestration.sets[set_name]
        candidates = orchestration.indexes[set_name].candidates(self.view, self.now)
        first = next((rules[each] for each in candidates if _holds(rules[each], self.view, self.now)), None)
        if self.trace is not None:
            self._record(orchestration.name, set_name, rules, first)
        return first

    def _record(self, name: str, set_name: str, rules: Sequence[Rule], first: Rule | None) -> None:
        """Each rule up to the one that matched, with the reason in words. What it asks leaves no mark on the decision."""
        assert self.trace is not None
        now = Moment(self.now.ms, self.now.counts, counted=self.now.counted)
        for rule in rules:
            why, warnings = _why(rule, self.view, now)
            self.trace.append(RuleTrace(name, set_name, rule.name, rule is first, why, warnings))
            if rule is first:
                return
        self.trace.append(RuleTrace(name, set_name, "catch_all", True, "no rule of this set matched"))

    def _meant(self) -> str:
        """The service that its sender meant by the routing key it posted with; "" for none."""
        sender, _, integration = self.alert.source.partition("/")
        if sender != PAGERDUTY or not integration:
            return ""
        known = self.ruleset.integrations.get(integration)
        service = known.service if known else integration
        if service not in self.ruleset.services:
            return ""
        if self.trace:
            why = f"no rule of this set matched; its routing key is that of {integration}, which means {service}"
            self.trace[-1] = dataclasses.replace(self.trace[-1], why=why)
        return service

    def _dynamic_route(self, router: Orchestration) -> str:
        """The service that the router's first rule finds by its name in the alert; "" where there is none."""
        first = next(iter(router.sets[START]), None)
        if first is None or first.disabled or first.actions.dynamic_route_to is None:
            return ""
        pattern = first.actions.dynamic_route_to
        service = pattern.render(self.view, [])
        if service not in self.ruleset.services:
            return ""
        self.matched.append(first.name)
        if self.trace is not None:
            why = f"`{pattern.source.source}` names the service {service}"
            self.trace.append(RuleTrace(router.name, START, first.name, True, why))
        return service

    def _apply(self, actions: Actions, rule: str) -> None:
        warnings: list[str] = []
        if actions.variables:
            self.view["variables"] = variables_of(actions.variables, self.view, warnings)
        for extraction in actions.extractions:
            self._extract(extraction, warnings)
        if actions.priority:
            self.priority = actions.priority
            if actions.priority in self.ruleset.priorities:
                self._set_severity(self.ruleset.priorities[actions.priority].severity)
        if actions.severity is not None:
            self._set_severity(actions.severity)
        for verdict, held_back in ((Verdict.SUPPRESS, actions.suppress), (Verdict.DROP, actions.drop)):
            if held_back is not None and not _has_expired(actions, self.now):
                self.verdict, self.rule, self.reason = verdict, rule, held_back.reason
                self.now.changes_at(held_back.expires_at)
        self.suspend_ms = actions.suspend_ms or self.suspend_ms
        self.event_action = actions.event_action or self.event_action
        self.escalation_policy = actions.escalation_policy or self.escalation_policy
        self.custom_fields |= self._rendered(actions.custom_fields, warnings)
        self.notify |= dict.fromkeys(actions.notify)
        if ran := actions.automation:
            parameters = self._rendered(ran.parameters, warnings)
            self.automation[ran.name] = dataclasses.replace(ran, parameters=parameters)
        if actions.dedup_key:
            self.dedup_key = _dedup_key(actions.dedup_key.render(self.view, warnings))
            if not self.dedup_key:
                warnings.append("the dedup_key is empty: the alert keeps its own")
        self.annotations += filter(None, (note.render(self.view, warnings) for note in actions.annotate))
        self.links += actions.links
        self.details.update(actions.details)
        if warnings and self.trace:
            last = self.trace[-1]
            self.trace[-1] = dataclasses.replace(last, warnings=(*last.warnings, *warnings))

    def _rendered(self, values: Mapping[str, Template | Any], warnings: list[str]) -> dict[str, Any]:
        return {
            name: value.render(self.view, warnings) if isinstance(value, Template) else value
            for name, value in values.items()
        }

    def _extract(self, extraction: Extraction, warnings: list[str]) -> None:
        """Write what is extracted. Where that is nothing, or no severity, the field stays as it is."""
        text = extraction.value.render(self.view, warnings)
        shown = f"event.{extraction.target}{'.' * bool(extraction.detail)}{extraction.detail}"
        if not text.strip():
            warnings.append(f"{shown} stays as it is: nothing was extracted")
        elif extraction.target == "severity":
            if (severity := _SEVERITIES.get(text.strip().casefold())) is None:
                warnings.append(f"{shown} stays as it is: `{cut(text, SHOWN_VALUE)}` is no severity")
            else:
                self._set_severity(severity)
        else:
            written = {**self.event.custom_details, extraction.detail: text} if extraction.detail else text
            self.view["event"][extraction.target] = written
            self.event = replace(self.event, **{_FIELDS.get(extraction.target, extraction.target): written})

    def _set_severity(self, severity: Severity) -> None:
        self.severity = severity
        self.view["event"]["severity"] = severity.value


def _holds(rule: Rule, view: View, now: Moment) -> bool:
    """Whether the rule matches. An expired suppression is passed over whole, as if its rule had been removed."""
    # A service was not found by its name, or this rule would have been the end.
    if rule.disabled or rule.actions.dynamic_route_to or _has_expired(rule.actions, now):
        return False
    for number, condition in enumerate(rule.conditions):
        if condition.counts:
            now.ask_for(f"{rule.key}/{number}")
        if condition.run(view, now) is True:
            if condition.counts:
                now.start_anew()
            return True
    return not rule.conditions


def _dedup_key(text: str) -> str:
    """The text as PagerDuty takes it: hashed when too long, and then still telling what it is of. "" for blanks alone."""
    encoded = text.encode("utf-8", "replace")
    plain = encoded.decode()
    if len(plain) > DEDUP_KEY_LIMIT:
        return f"{plain[:_KEY_SHOWN]}:sha256:{sha256(encoded).hexdigest()}"
    return plain if plain.strip() else ""


def _why(rule: Rule, view: View, now: Moment) -> tuple[str, tuple[str, ...]]:
    """Why the rule matches or not, in words, and what made no sense in its conditions."""
    if rule.disabled:
        return "it is disabled", ()
    if (expired := rule.actions.suppress or rule.actions.drop) and _has_expired(rule.actions, now):
        what = "suppression" if rule.actions.suppress else "drop"
        return f"its {what} expired on {Instant(expired.expires_at)}, so it is passed over", ()
    if pattern := rule.actions.dynamic_route_to:
        warnings: list[str] = []
        found = pattern.render(view, warnings)
        why = f"`{pattern.source.source}` names no service that there is"
        return f"{why}: `{cut(found, SHOWN_VALUE)}`" if found else why, tuple(warnings)
    if not rule.conditions:
        return "it has no condition", ()
    seen = []
    for number, condition in enumerate(rule.conditions):
        now.ask_for(f"{rule.key}/{number}")
        outcome = condition.evaluate(view, now)
        seen.append(outcome)
        if outcome.holds:
            return outcome.why, outcome.warnings
    return "; ".join(each.why for each in seen), tuple(warning for each in seen for warning in each.warnings)


def _has_expired(actions: Actions, now: Moment) -> bool:
    held_back = actions.suppress or actions.drop
    return held_back is not None and held_back.expires_at <= now.ms


def _priority_of(severity: Severity, priorities: Mapping[str, Priority]) -> str:
    return next((name for name, priority in priorities.items() if priority.severity is severity), "")
