"""Rules that are changed and broken under a running service, over and over, while alerts come in."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType

from alertrouter.app import Service
from alertrouter.delivery.judging import ActiveRules, decide
from alertrouter.errors import RulesInvalid
from alertrouter.rules.load import SERVICES, load_rules, read_rules
from alertrouter.rules.model import Decision
from tests.alerts import NIGHT, make_alert
from tests.fuzz.mutations import FRAGMENTS, Mutator, take_apart_yaml
from tests.fuzz.rules import WORDS, YAML

#: How often all files are sound again before one is changed; else broken ones come together.
_MENDED = 0.8
#: Of so many that come into force, one is compared with the same files read alone, which takes as long again.
_READ_AGAIN_ONE_IN = 4
_MOST_FAULTS = 10

FILES: Mapping[str, str] = MappingProxyType(
    {
        name: dedent(text)
        for name, text in {
            "alertrouter.yaml": """
                priorities:
                  P1: {severity: critical, notify: [pagerduty], escalation: all_levels}
                  P3: {severity: warning}
                limits: {longest_suppression: 365d}
            """,
            "global.yaml": """
                sets:
                  start:
                    - rule: staging-noise
                      owner: team-sre
                      when: event.summary matches part 'DNS' and event.custom_details.env == 'staging'
                      then: {suppress: true, reason: nobody is paged for staging, expires: 2027-06-01}
                    - rule: payments-critical
                      when: [event.custom_details.service matches 'payment', event.class exists]
                      then: {severity: critical, priority: P1, annotate: "{{event.summary}} of {{event.source}}"}
                    - rule: flapping
                      when: trigger_count over 5 minutes > 3
                      then: {suspend: 5m}
            """,
            "router.yaml": """
                sets:
                  start:
                    - rule: payments
                      when: event.custom_details.service matches 'payment'
                      then: {route_to: payment-service}
                    - rule: search
                      when: event.custom_details.service matches regex '^search(-.*)?$'
                      then: {route_to: search-service}
                catch_all: {route_to: unrouted}
            """,
            "unrouted.yaml": "catch_all: {severity: warning}\n",
            "services/payment-service.yaml": """
                service: payment-service
                team: team-payments
                tier: 1
                runbook: https://runbooks.example.org/payment
                sets: {start: []}
                catch_all: {severity: critical}
            """,
            "services/search-service.yaml": """
                service: search-service
                team: team-discovery
                routing_key: {env: PD_KEY_SEARCH}
                sets:
                  start:
                    - rule: quiet-nights
                      when: now in Mon,Tue,Wed,Thu,Fri 22:00:00 to 06:00:00 Europe/Berlin
                      then: {severity: info}
                catch_all: {}
            """,
        }.items()
    }
)

_PROBES = (
    make_alert("1", service="payment", env="staging", summary="DNS timeout"),
    make_alert("2", service="payment", env="production", summary="disk full"),
    make_alert("3", service="search", env="production", summary="DNS timeout"),
    make_alert("4", service="x"),
)


@dataclass(slots=True)
class Reloaded:
    """What came of a run. outcomes: of the reloads. faults: the first of them, with the number of the change."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Put one down."""
        self.outcomes["faults"] += 1
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(text)


async def reload_mutations(service: Service, folder: Path, seed: int, count: int) -> Reloaded:
    """Mutate one file of `folder`, which holds `FILES`, and reload, `count` times; the folder is sound at the end.

    Nobody else may reload meanwhile: what was in force before a change would not be what it is compared with.
    """
    chance = random.Random(f"reloads/{seed}")
    parts = {name: take_apart_yaml(text.encode()) for name, text in FILES.items()}
    mutator = Mutator(parts.values(), YAML, (), (*FRAGMENTS, *YAML, *WORDS))
    found = Reloaded()
    away = folder.with_name("away")
    changed: set[str] = set()
    decided = _decisions(service.rules)
    for number in range(count):
        if chance.random() < _MENDED:
            _write(folder, {name: FILES[name] for name in changed})
            changed.clear()
        name = chance.choice(list(parts))
        if chance.random() < 0.01:
            folder.rename(away)  # in the middle of a checkout, or of a mount
        else:
            _write(folder, {name: mutator.mutate(chance, parts[name])})
            changed.add(name)
        before = service.rules
        try:
            await service.reload()
        except RulesInvalid:
            found.outcomes["refused"] += 1
            if service.rules is not before or _decisions(service.rules) != decided:
                found.fault(f"change {number} of {name}: refused, and in force")
        except Exception as error:  # noqa: BLE001 - to find any is what this is for
            found.fault(f"change {number} of {name}: {error!r}")
        else:
            found.outcomes["quarantined" if service.rules.ruleset.quarantined else "taken"] += 1
            if number % _READ_AGAIN_ONE_IN == 0:
                _check_taken(found, f"change {number} of {name}", service.rules, before, folder)
            decided = _decisions(service.rules)
        if away.exists():
            away.rename(folder)
        await asyncio.sleep(0)
    _write(folder, FILES)
    await service.reload()
    return found


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def _check_taken(found: Reloaded, change: str, active: ActiveRules, before: ActiveRules, folder: Path) -> None:
    """What is in force is what the files say; of a quarantined service, what was in force."""
    ruleset = active.ruleset
    at_fault = {Path(problem.file) for problem in read_rules(folder).problems}
    if {path for path in at_fault if path.parent != folder / SERVICES}:
        found.fault(f"{change}: in force, with problems in {at_fault}")
    elif {path.stem for path in at_fault} != set(ruleset.quarantined):
        found.fault(f"{change}: {sorted(ruleset.quarantined)} are quarantined, and the problems are in {at_fault}")
    for name in ruleset.quarantined:
        key = f"service:{name}"
        if ruleset.orchestrations.get(key) is not before.ruleset.orchestrations.get(key):
            found.fault(f"{change}: {name} is quarantined, and its rules are others than before")
    if not at_fault and _decisions(active) != _decisions(ActiveRules(load_rules(folder))):
        found.fault(f"{change}: decides otherwise than the same files loaded alone")


def _decisions(active: ActiveRules) -> Sequence[Decision]:
    return [decide(probe, active.ruleset, NIGHT, None) for probe in _PROBES]
