"""What the rules say about one alert: a pure function of alert, rules and time. It fails for no alert and no loaded rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from alertrouter.alert import Alert, CommonEvent, Link, Severity
from alertrouter.rules.condition import View
from alertrouter.rules.model import (
    START,
    UNROUTED,
    Actions,
    Decision,
    Orchestration,
    Priority,
    Rule,
    Ruleset,
    RuleTrace,
    Suppression,
    Verdict,
)
from alertrouter.rules.times import Instant

#: Where alerts go whose service names no routing key of its own.
DEFAULT_DESTINATION = "pagerduty:default"


def evaluate(alert: Alert, ruleset: Ruleset, now: int, *, trace: bool = False) -> Decision:
    """The decision for an alert at `now` (ms since the epoch): global rules, then the router, then the service's.

    Later rules override what earlier ones set; annotations, links and details accumulate. Every rule sees the event as
    the ones before it left it. `trace` records each rule looked at, with the reason in words, and changes nothing else.
    """
    course = _Course(alert, ruleset.priorities, now, [] if trace else None)
    course.run(ruleset.orchestrations["global"])
    service = course.run(ruleset.orchestrations["router"])
    if service == UNROUTED:
        service = ""
    course.run(ruleset.orchestrations[f"service:{service}" if service else UNROUTED])

    owner = ruleset.services.get(service)
    own_key = owner is not None and owner.routing_key is not None
    return Decision(
        verdict=Verdict.SUPPRESS if course.suppression else Verdict.DELIVER,
        event=alert.event
        if course.severity is alert.event.severity
        else replace(alert.event, severity=course.severity),
        service=service,
        priority=course.priority or _priority_of(course.severity, ruleset.priorities),
        rule=course.suppressed_by,
        reason=course.suppression.reason if course.suppression else "",
        matched=tuple(course.matched),
        annotations=tuple(course.annotations),
        destinations=(f"pagerduty:{service}" if own_key else DEFAULT_DESTINATION,),
        trace=tuple(course.trace or ()),
        links=tuple(course.links),
        details=course.details,
    )


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
    priorities: Mapping[str, Priority]
    now: int
    trace: list[RuleTrace] | None
    view: dict[str, Any] = field(init=False)
    severity: Severity = field(init=False)
    priority: str = ""
    suppression: Suppression | None = None
    suppressed_by: str = ""
    matched: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.view = view_of(self.alert)
        self.severity = self.alert.event.severity

    def run(self, orchestration: Orchestration) -> str:
        """Go through the sets from the first on. Returns where the last one routes to: in the router, a service."""
        current = START
        while True:
            rule = self._first_match(orchestration, current)
            if rule is None:
                self._apply(orchestration.catch_all, "catch_all")
                return orchestration.catch_all.route_to
            self.matched.append(rule.name)
            self._apply(rule.actions, rule.name)
            target = rule.actions.route_to
            # Loading has made sure that the set is there, and that sets never lead back to themselves.
            if not target or orchestration.kind == "router":
                return target
            current = target

    def _first_match(self, orchestration: Orchestration, set_name: str) -> Rule | None:
        for rule in orchestration.sets[set_name]:
            holds = _holds(rule, self.view, self.now)
            if self.trace is not None:
                why, warnings = _why(rule, self.view, self.now)
                self.trace.append(RuleTrace(orchestration.name, set_name, rule.name, holds, why, warnings))
            if holds:
                return rule
        if self.trace is not None:
            self.trace.append(RuleTrace(orchestration.name, set_name, "catch_all", True, "no rule of this set matched"))
        return None

    def _apply(self, actions: Actions, rule: str) -> None:
        if actions.priority:
            self.priority = actions.priority
            if actions.priority in self.priorities:
                self._set_severity(self.priorities[actions.priority].severity)
        if actions.severity is not None:
            self._set_severity(actions.severity)
        if actions.suppress is not None and not _has_expired(actions, self.now):
            self.suppression = actions.suppress
            self.suppressed_by = rule
        self.annotations += actions.annotate
        self.links += actions.links
        self.details.update(actions.details)

    def _set_severity(self, severity: Severity) -> None:
        self.severity = severity
        self.view["event"]["severity"] = severity.value


def _holds(rule: Rule, view: View, now: int) -> bool:
    """Whether the rule matches. An expired suppression is passed over whole, as if its rule had been removed."""
    if rule.disabled or _has_expired(rule.actions, now):
        return False
    return not rule.conditions or any(condition.holds(view, now) for condition in rule.conditions)


def _why(rule: Rule, view: View, now: int) -> tuple[str, tuple[str, ...]]:
    """Why the rule matches or not, in words, and what made no sense in its conditions."""
    if rule.disabled:
        return "it is disabled", ()
    if rule.actions.suppress is not None and _has_expired(rule.actions, now):
        return f"its suppression expired on {Instant(rule.actions.suppress.expires_at)}, so it is passed over", ()
    if not rule.conditions:
        return "it has no condition", ()
    seen = []
    for condition in rule.conditions:
        outcome = condition.evaluate(view, now)
        seen.append(outcome)
        if outcome.holds:
            return outcome.why, outcome.warnings
    return "; ".join(each.why for each in seen), tuple(warning for each in seen for warning in each.warnings)


def _has_expired(actions: Actions, now: int) -> bool:
    return actions.suppress is not None and actions.suppress.expires_at <= now


def _priority_of(severity: Severity, priorities: Mapping[str, Priority]) -> str:
    return next((name for name, priority in priorities.items() if priority.severity is severity), "")
