"""What the loader builds and the evaluator reads and returns. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal

from alertrouter.alert import CommonEvent, Link, Severity
from alertrouter.rules.cache import CacheVariable
from alertrouter.rules.condition import Condition
from alertrouter.rules.index import Index, build_index
from alertrouter.rules.moment import CacheQuery as CacheQuery
from alertrouter.rules.moment import CacheWrite as CacheWrite
from alertrouter.rules.moment import CountQuery as CountQuery
from alertrouter.rules.silences import Silence
from alertrouter.rules.templates import Extraction, Pattern, Template, Variable
from alertrouter.shown import HIDDEN, without_secrets
from alertrouter.sources import Parser

#: Names of environment variables as everybody writes them: https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*")
#: Where the router sends what no rule of its own wanted.
UNROUTED = "unrouted"
#: The set in which every orchestration begins.
START = "start"

Kind = Literal["global", "router", "service", "unrouted"]
TriggerType = Literal["alert_triggered", "alert_suspended", "alert_suppressed"]


class Verdict(StrEnum):
    """What the rules want done with an alert."""

    DELIVER = "deliver"
    SUPPRESS = "suppress"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """One rule looked at. `why` names what decided it, with the values it saw.

    Where no rule of a set matched, the catch-all is the last entry, under the name `catch_all`.
    """

    orchestration: str  # "global", "router", "service:payment-service", "unrouted"
    set: str
    rule: str
    matched: bool
    why: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say about one alert at one instant. With `wants` it is none yet: fetch those, ask again.

    event:         the alert as PagerDuty will see it, after the rules changed it.
    service:       the service the router chose; "" when the alert reached only the catch-all (unrouted).
    rule, reason:  the rule that set the verdict and the reason written in it; "" for a plain delivery.
    matched:       names of the rules that matched, in order.
    destinations:  where the alert goes, e.g. ("pagerduty:default",): kind and name of the key. Nowhere when dropped.
    links, details: what rules added for the responder.
    suspend_ms:    how long to hold a trigger back, waiting for its resolve.
    event_action:  "trigger" or "resolve" where a rule says to take the alert for that; else "".
    escalation_policy, custom_fields: what the Events API cannot carry, for the responder and the REST API.
    notify:        destinations of alertrouter.yaml that rules want told beside these, each once.
    automation:    what rules want run, each name once.
    dedup_key:     the key of an incident that a rule makes the alert share; "" for its own.
    quarantined:   the service that was chosen, where its file is faulty and no good version of it is known; else "".
    until:         the first instant (ms since the epoch) at which a time that was looked at changes its answer: before
                   it, the same alert, rules and counts give the same decision; 0 = never.
    wants:         the counts and remembered values that evaluation stopped at.
    resets:        resetting counts whose condition held: they start anew.
    cache_writes:  what the rules are to remember.
    """

    verdict: Verdict
    event: CommonEvent
    service: str
    priority: str
    rule: str
    reason: str
    matched: tuple[str, ...]
    annotations: tuple[str, ...]
    destinations: tuple[str, ...]
    trace: tuple[RuleTrace, ...]
    links: tuple[Link, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    suspend_ms: int = 0
    event_action: str = ""
    escalation_policy: str = ""
    custom_fields: Mapping[str, Any] = field(default_factory=dict)
    notify: tuple[str, ...] = ()
    automation: tuple[Automation, ...] = ()
    dedup_key: str = ""
    quarantined: str = ""
    until: int = 0
    wants: tuple[CountQuery | CacheQuery, ...] = ()
    resets: tuple[CountQuery, ...] = ()
    cache_writes: tuple[CacheWrite, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyReference:
    """Where a secret is found: an environment variable or a file, never the secret itself."""

    env: str | None = None
    file: str | None = None

    @property
    def shown(self) -> str:
        """The place, if it surely is one: somebody may have written the secret itself there."""
        is_place = _VARIABLE.fullmatch(self.env) if self.env else (self.file or "").startswith("/")
        return without_secrets(self.env or self.file or "") if is_place else HIDDEN


@dataclass(frozen=True, slots=True)
class NamedReference:
    """A sender's token or signing secret: the name by which it is counted, and where it is found."""

    name: str
    place: KeyReference


@dataclass(frozen=True, slots=True)
class SigningReferences:
    """By which scheme a sender signs, with which secrets; headers of its own, "" for the scheme's."""

    scheme: str
    secrets: tuple[NamedReference, ...]
    header: str = ""
    timestamp_header: str = ""


@dataclass(frozen=True, slots=True)
class CredentialReferences:
    """What a source must show: one of the tokens, a signature, or, where both are named, both. None asks for nothing.

    header: carries the token, beside the usual ones; "" for none.
    """

    tokens: tuple[NamedReference, ...] | None = None
    header: str = ""
    signing: SigningReferences | None = None


@dataclass(frozen=True, slots=True)
class Automation:
    """What is to be run for an alert: a web address that is posted to, or a job of the runner.

    trigger_type: for an alert in which state.
    auto_send:    run at once; else only offered to the responder.
    parameters:   what is sent along, as JSON. Of a rule, its texts are templates.
    headers:      of the request; a secret only by where it is found.
    """

    name: str
    url: str = ""
    job: str = ""
    auto_send: bool = False
    trigger_type: TriggerType = "alert_triggered"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str | KeyReference] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service:
    """Who owns a service and what helps its responders. `runbook` is a link, or a path where no base is set.

    calls_per_minute:  the call limit of its own routing key, 0 for none; None for the one in the settings.
    """

    name: str
    team: str = ""
    tier: int | None = None
    on_call: str = ""
    runbook: str = ""
    links: tuple[Link, ...] = ()
    routing_key: KeyReference | None = None
    calls_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Priority:
    """A response policy. `acknowledge_within` None means by the next business day."""

    name: str
    severity: Severity
    acknowledge_within: timedelta | None = None
    notify: tuple[str, ...] = ()
    escalation: str = ""


@dataclass(frozen=True, slots=True)
class Suppression:
    """Whose it is, why, and when it ends (ms since the epoch): of a suppression, and of a drop."""

    owner: str
    reason: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Actions:
    """What a rule does, in this order: variables, extractions, the rest.

    In the router `route_to` names a service, everywhere else a set; what `dynamic_route_to` finds is a service's name.
    """

    route_to: str = ""
    dynamic_route_to: Pattern | None = None
    variables: tuple[Variable, ...] = ()
    extractions: tuple[Extraction, ...] = ()
    severity: Severity | None = None
    priority: str = ""
    suppress: Suppression | None = None
    drop: Suppression | None = None
    suspend_ms: int = 0
    event_action: Literal["trigger", "resolve", ""] = ""
    escalation_policy: str = ""
    annotate: tuple[Template, ...] = ()
    links: tuple[Link, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    custom_fields: Mapping[str, Template | Any] = field(default_factory=dict)
    notify: tuple[str, ...] = ()
    automation: Automation | None = None
    dedup_key: Template | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Matches when one of its conditions holds, or always where it has none.

    place: file:line:col.
    key:   orchestration/set/rule, in whose name its thresholds count.
    """

    name: str
    conditions: tuple[Condition, ...]
    actions: Actions
    owner: str = ""
    disabled: bool = False
    place: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Orchestration:
    """Sets of rules that begin in `start`; the catch-all applies where no rule of a set matched.

    cache_variables: in the order of the file; read before its first set.
    indexes:         of each set, built with it.
    """

    name: str  # as in RuleTrace
    kind: Kind
    sets: Mapping[str, tuple[Rule, ...]] = field(default_factory=lambda: MappingProxyType({START: ()}))
    catch_all: Actions = Actions()
    digest: str = ""  # of the file it was made from
    cache_variables: tuple[CacheVariable, ...] = ()
    indexes: Mapping[str, Index] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        indexes = {name: build_index([rule.conditions for rule in rules]) for name, rules in self.sets.items()}
        object.__setattr__(self, "indexes", MappingProxyType(indexes))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life that is expected every `interval_ms`, and missed when it is `grace_ms` late.

    conditions: one of them is enough; an alert that they name is a heartbeat and pages nobody. Without them every
                alert of `sources` is a sign of life, and goes its own way.
    sources:    the senders it may come from; empty for any.
    service:    who is paged for its silence; "" for our own.
    """

    name: str
    conditions: tuple[Condition, ...]
    sources: tuple[str, ...]
    interval_ms: int
    grace_ms: int
    service: str
    severity: Severity

    @property
    def silent_after_ms(self) -> int:
        """How long it may not be heard."""
        return self.interval_ms + self.grace_ms


@dataclass(frozen=True, slots=True)
class Integration:
    """A further routing key that clients of the Events API may post with, and the service that they mean by it."""

    name: str
    service: str
    routing_key: KeyReference


@dataclass(frozen=True, slots=True)
class TopicReferences:
    """The SNS topics that a source may hear of, and the file of certificates that is used in place of SNS's own."""

    topics: tuple[str, ...]
    certificates: str = ""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Everything in a rules directory, loaded whole. Never changed once built.

    orchestrations: by name; "global", "router" and "unrouted" are always there, and one for each sound service.
    priorities:     in the order of the file; empty where it names none.
    destinations:   by kind, then name, as written.
    version:        hash of the contents of the files in force.
    quarantined:    services whose file is faulty, with its problems as file:line:col. What they had before stays in
                    force; one of which no good version is known has no orchestration.
    integrations:   by name; none is called as a service.
    custom:         how the bodies of senders are read that alertrouter.yaml describes, by `custom/name`.
    silences:       what people on call keep back at present, in the order in which they are asked; of no file.
    credentials:    of the sources that have their own.
    topics:         of SNS, by the source that hears of them.
    """

    services: Mapping[str, Service]
    orchestrations: Mapping[str, Orchestration]
    priorities: Mapping[str, Priority] = field(default_factory=dict)
    destinations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    version: str = ""
    quarantined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    silences: tuple[Silence, ...] = ()
    heartbeats: tuple[Heartbeat, ...] = ()
    credentials: Mapping[str, CredentialReferences] = field(default_factory=dict)
    integrations: Mapping[str, Integration] = field(default_factory=dict)
    custom: Mapping[str, Parser] = field(default_factory=lambda: MappingProxyType({}))
    topics: Mapping[str, TopicReferences] = field(default_factory=dict)
