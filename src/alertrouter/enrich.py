"""Alert + decision + service: what the responder sees. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from alertrouter.alert import Alert, CommonEvent, Image, Link
from alertrouter.rules.model import Decision, Ruleset, Service

#: The member of `custom_details` that holds everything of ours.
OURS = "alertrouter"

#: What responders and dashboards look for at the top as well.
_ON_TOP = ("service", "team", "tier", "runbook", "changes")


@dataclass(frozen=True, slots=True)
class Enriched:
    """What a destination shows: the event with the service's details in `custom_details`, and its links."""

    event: CommonEvent
    links: tuple[Link, ...]
    client: str
    client_url: str
    images: tuple[Image, ...] = ()


def enrich(alert: Alert, decision: Decision, ruleset: Ruleset, changes: Sequence[Link] = ()) -> Enriched:
    """The event as responders see it: who owns it, how it is handled, what the rules added, and every link once.

    changes: what was changed of the service lately, in words, and where to read of it ("" for nowhere).

    All of that is in the one member `alertrouter` of `custom_details`. Service, team, tier and runbook, and the details
    that rules add, stand at the top as well, where the sender has left the name free: what a sender wrote is never
    replaced. Only a member `alertrouter` of the sender's own moves, to `alertrouter.sender`.
    """
    service = ruleset.services.get(decision.service)
    sent = decision.event.custom_details
    ours = _ours(alert, decision, service, changes)
    if OURS in sent:
        ours["sender"] = sent[OURS]
    on_top = {**{name: ours[name] for name in _ON_TOP if name in ours}, **decision.details}
    details = {**sent, **{name: value for name, value in on_top.items() if name not in sent}, OURS: ours}
    return Enriched(
        event=replace(decision.event, custom_details=details),
        links=_links(alert, decision, service, changes),
        client=alert.client,
        client_url=alert.client_url,
        images=images_of(alert),
    )


def images_of(alert: Alert) -> tuple[Image, ...]:
    """The images that came with it."""
    return alert.enqueued.images if alert.enqueued else ()


def _ours(alert: Alert, decision: Decision, service: Service | None, changes: Sequence[Link]) -> dict[str, Any]:
    """What we know and the sender does not. Nothing stands for nothing: an empty field is left out."""
    known: Mapping[str, Any] = {
        "service": decision.service,
        "unrouted": not decision.service,
        "team": service.team if service else "",
        "tier": service.tier if service else None,
        "on_call": service.on_call if service else "",
        "runbook": service.runbook if service else "",
        "changes": [change.text for change in changes],
        "quarantined": decision.quarantined,
        "priority": decision.priority,
        "escalation_policy": decision.escalation_policy,
        "custom_fields": dict(decision.custom_fields),
        "notify": list(decision.notify),
        "automation": [each.name for each in decision.automation],
        "notes": list(decision.annotations),
        "rules": list(decision.matched),
        "details": dict(decision.details),
        "payload_notes": list(alert.notes),
    }
    return {name: value for name, value in known.items() if value}


def _links(alert: Alert, decision: Decision, service: Service | None, changes: Sequence[Link]) -> tuple[Link, ...]:
    candidates: list[Link] = []
    if service is not None and "://" in service.runbook:
        candidates.append(Link(service.runbook, "Runbook"))
    candidates += [change for change in changes if change.href]
    candidates += decision.links
    candidates += alert.links
    if service is not None:
        candidates += service.links
    return _without_repeats(candidates)


def _without_repeats(links: Iterable[Link]) -> tuple[Link, ...]:
    """The links in their order, each address once, under its first text."""
    first: dict[str, Link] = {}
    for link in links:
        first.setdefault(link.href, link)
    return tuple(first.values())
