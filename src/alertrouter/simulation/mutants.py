"""Rules with one thing changed: what tests must notice. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from alertrouter.rules.condition import Condition, ConditionError, compile_condition
from alertrouter.rules.document import Document, Key, Problem
from alertrouter.rules.finding import PlacedRule
from alertrouter.rules.model import UNROUTED, Actions, Orchestration, Priority, Rule, Ruleset
from alertrouter.rules.syntax import Joined, Node, Not
from alertrouter.simulation.conditioned import Conditioned, conditioned

#: Actions by the name they have in a file, in which nothing is left of them where they are dropped.
_DROPPED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "route_to": {"route_to": ""},
        "dynamic_route_to": {"dynamic_route_to": None},
        "severity": {"severity": None},
        "priority": {"priority": ""},
        "suppress": {"suppress": None},
        "drop": {"drop": None},
        "suspend": {"suspend_ms": 0},
        "event_action": {"event_action": ""},
        "escalation_policy": {"escalation_policy": ""},
        "annotate": {"annotate": ()},
        "custom_fields": {"custom_fields": {}},
        "notify": {"notify": ()},
        "automation": {"automation": None},
        "dedup_key": {"dedup_key": None},
    }
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """The rules with one change. Line and column count from 1.

    shown:  what was changed, as people call it. rule: its name, "" for a catch-all and for a cache variable.
    shows:  when the change can be noticed.
    """

    file: str
    line: int
    column: int
    change: str
    shown: str
    rule: str
    orchestration: str
    shows: Literal["rule tried", "rule acted", "catch-all acted", "orchestration entered"]
    ruleset: Callable[[], Ruleset]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.shown}: {self.change}"


def mutants(ruleset: Ruleset, documents: Mapping[str, Document]) -> Iterator[Mutant]:
    """Every rule set with one condition, test or action negated or dropped. Disabled rules are left alone."""
    for each in conditioned(ruleset, documents):
        yield from _of_conditions(ruleset, each)
        if each.placed is not None:
            yield from _of_actions(ruleset, each.placed)
    for orchestration in ruleset.orchestrations.values():
        yield from _of_catch_all(ruleset, orchestration, documents[orchestration.name])


def _of_conditions(ruleset: Ruleset, part: Conditioned) -> Iterator[Mutant]:
    for number, condition in enumerate(part.conditions):
        seen = {condition.text}
        for change, at, text in _changed_texts(condition):
            if text in seen:
                continue
            seen.add(text)
            try:
                changed = compile_condition(text)
            except ConditionError:  # it has grown over PagerDuty's limits
                continue
            conditions = (*part.conditions[:number], changed, *part.conditions[number + 1 :])
            yield _with_conditions(ruleset, part, part.in_condition(number, at, change), conditions)
        others = (*part.conditions[:number], *part.conditions[number + 1 :])
        always = "" if others else ": it always holds" if part.variable else ": the rule always matches"
        change = f"dropped the condition{always} {_shown(condition.text)}"
        yield _with_conditions(ruleset, part, part.in_condition(number, 0, change), others)


def _with_conditions(ruleset: Ruleset, part: Conditioned, found: Problem, conditions: tuple[Condition, ...]) -> Mutant:
    def changed() -> Ruleset:
        if part.placed is not None:
            return _with_rule(ruleset, part.placed, dataclasses.replace(part.placed.rule, conditions=conditions))
        variables = tuple(
            dataclasses.replace(each, conditions=conditions) if each is part.variable else each
            for each in part.orchestration.cache_variables
        )
        return _with(ruleset, dataclasses.replace(part.orchestration, cache_variables=variables))

    return Mutant(
        found.file,
        found.line,
        found.column,
        found.message,
        part.shown,
        part.rule,
        part.orchestration.name,
        "rule tried" if part.rule else "orchestration entered",
        changed,
    )


def _changed_texts(condition: Condition) -> Iterator[tuple[str, int, str]]:
    """What is changed, where in the text, and the text afterwards."""
    text = condition.text
    ahead: list[tuple[Node, bool]] = [(condition.tree, False)]
    while ahead:
        node, is_negated = ahead.pop()
        source = text[node.span.start : node.span.end]
        before, after = text[: node.span.start], text[node.span.end :]
        match node:
            case Not(part=part):
                inside = text[part.span.start : part.span.end]
                yield f"dropped the `not` of {_shown(source)}", node.span.start, f"{before}({inside}){after}"
                ahead.append((part, True))
                continue
            case Joined(word=word, parts=parts):
                for dropped in range(len(parts)):
                    kept = [text[each.span.start : each.span.end] for n, each in enumerate(parts) if n != dropped]
                    gone = text[parts[dropped].span.start : parts[dropped].span.end]
                    rest = f" {word} ".join(kept)
                    yield f"dropped {_shown(gone)}", parts[dropped].span.start, f"{before}({rest}){after}"
                ahead += ((part, False) for part in reversed(parts))
        if not is_negated:  # there it would be the `not` dropped once more
            yield f"negated {_shown(source)}", node.span.start, f"{before}not ({source}){after}"


def _of_actions(ruleset: Ruleset, placed: PlacedRule) -> Iterator[Mutant]:
    rule = placed.rule
    for key, change, actions in _changed_actions(rule.actions, ruleset.priorities):
        found = placed.document.problem_with_key(placed.at("then", *key), change)
        changed = dataclasses.replace(rule, actions=actions)
        yield Mutant(
            found.file,
            found.line,
            found.column,
            change,
            f"rule `{rule.name}`",
            rule.name,
            placed.orchestration.name,
            "rule acted",
            lambda changed=changed: _with_rule(ruleset, placed, changed),  # type: ignore[misc]
        )


def _of_catch_all(ruleset: Ruleset, orchestration: Orchestration, document: Document) -> Iterator[Mutant]:
    for key, change, actions in _changed_actions(orchestration.catch_all, ruleset.priorities):
        if key == ("route_to",) and orchestration.catch_all.route_to == UNROUTED:
            continue  # there it goes all the same
        found = document.problem_with_key(("catch_all", *key), change)
        changed = dataclasses.replace(orchestration, catch_all=actions)
        yield Mutant(
            found.file,
            found.line,
            found.column,
            change,
            "catch-all",
            "",
            orchestration.name,
            "catch-all acted",
            lambda changed=changed: _with(ruleset, changed),  # type: ignore[misc]
        )


def _changed_actions(
    actions: Actions, priorities: Mapping[str, Priority]
) -> Iterator[tuple[tuple[Key, ...], str, Actions]]:
    """Where below `then` something is dropped, what, and the actions without it."""
    none = Actions()
    says_twice = _says_twice(actions, priorities)
    for name, changes in _DROPPED.items():
        if all(getattr(actions, each) == getattr(none, each) for each in changes):
            continue
        if says_twice and name == "severity":
            continue  # with the priority
        gone = {**changes, "severity": None} if says_twice and name == "priority" else changes
        what = "the actions `priority` and `severity`" if says_twice and name == "priority" else f"the action `{name}`"
        yield (name,), f"dropped {what}", dataclasses.replace(actions, **gone)
    for name, listed in (("variables", actions.variables), ("extractions", actions.extractions)):
        for number, each in enumerate(listed):
            rest: Any = (*listed[:number], *listed[number + 1 :])
            shown = getattr(each, "name", None) or _target(each)
            yield (name, number), f"dropped {shown} of `{name}`", dataclasses.replace(actions, **{name: rest})
    for name in ("links", "details"):
        if getattr(actions, name):
            rest_of_it: Any = () if name == "links" else {}
            yield ("enrich", name), f"dropped `enrich.{name}`", dataclasses.replace(actions, **{name: rest_of_it})


def _target(extraction: Any) -> str:
    return f"event.{extraction.target}" + (f".{extraction.detail}" if extraction.detail else "")


def _says_twice(actions: Actions, priorities: Mapping[str, Priority]) -> bool:
    """Whether the severity is that of the priority, and the priority the first one of that severity.

    Each then stands for the other, and only without both is the rule another one.
    """
    known = priorities.get(actions.priority)
    if known is None or known.severity is not actions.severity:
        return False
    return next(name for name, each in priorities.items() if each.severity is known.severity) == actions.priority


def _with_rule(ruleset: Ruleset, placed: PlacedRule, changed: Rule) -> Ruleset:
    orchestration = placed.orchestration
    rules = tuple(changed if each is placed.rule else each for each in orchestration.sets[placed.set])
    sets = MappingProxyType({**orchestration.sets, placed.set: rules})
    return _with(ruleset, dataclasses.replace(orchestration, sets=sets))


def _with(ruleset: Ruleset, changed: Orchestration) -> Ruleset:
    orchestrations = MappingProxyType({**ruleset.orchestrations, changed.name: changed})
    return dataclasses.replace(ruleset, orchestrations=orchestrations)


def _shown(source: str) -> str:
    text = " ".join(source.split())
    return f"`{text if len(text) <= 100 else text[:99] + '…'}`"
