"""`not` in front of a comparison that also holds for every alert without the field.

A missing field is neither greater nor less than a number; the comparison is not true, so its `not` is. Ask for the field
first, or turn the comparison around.

    when: not event.custom_details.latency_ms > 500                                                # also without it
    when: event.custom_details.latency_ms exists and not event.custom_details.latency_ms > 500
    when: event.custom_details.latency_ms <= 500
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from alertrouter.rules.finding import Finding, Gravity, RulesDirectory, finding_of
from alertrouter.rules.logic import fields_needed, meaning
from alertrouter.rules.syntax import Compare, Exists, Joined, Node, Not, Path, children, walk

ID = "unguarded-not"

_TURNED = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for placed in directory.rules():
        for index, condition in enumerate(placed.rule.conditions):
            for negation, path, operator in _unguarded(condition.tree, frozenset()):
                field = condition.text[slice(*path.span)]
                message = f"`not` also holds for every alert without `{field}`"
                remedy = (
                    f"write `{field} exists and not ...`, or `{_TURNED[operator]}` instead of `not` and `{operator}`"
                )
                problem = placed.in_condition(index, negation.span.start, message, ID)
                yield finding_of(problem, Gravity.WARNING, remedy)


def _unguarded(node: Node, there: frozenset[Hashable]) -> Iterator[tuple[Not, Path, str]]:
    """Each `not` over an ordering of a field that is not known to be `there`."""
    match node:
        case Joined("and", parts):
            for part in parts:
                yield from _unguarded(part, there.union(*map(fields_needed, parts)))
        case Not(part=part):
            asked = {meaning(each.path) for each in walk(part) if isinstance(each, Exists)}
            for each in walk(part):
                match each:
                    case Compare(operator=operator, left=Path() as path) if operator in _TURNED:
                        if meaning(path) not in there | asked:
                            yield node, path, operator
        case _:
            for child in children(node):
                yield from _unguarded(child, there)
