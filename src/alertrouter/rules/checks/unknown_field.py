"""A field of `event` that no event has.

PagerDuty's common event format has `summary`, `source`, `severity`, `timestamp`, `class`, `component`, `group` and
`custom_details`. Labels, tags and everything else a sender says are in `custom_details`; the body as received is
`raw_event`.

    when: event.service == 'payment'                    # never there
    when: event.custom_details.service == 'payment'
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from alertrouter.rules.finding import Finding, RulesDirectory, finding_of
from alertrouter.rules.mistakes import EVENT_FIELDS
from alertrouter.rules.syntax import Path, walk

ID = "unknown-field"


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for placed in directory.rules():
        for index, condition in enumerate(placed.rule.conditions):
            for node in walk(condition.tree):
                match node:
                    case Path(root="event", keys=(name, *_)) if name not in EVENT_FIELDS:
                        message = f"no event has a field `{name}`"
                        remedy = _remedy(name)
                        yield finding_of(placed.in_condition(index, node.span.start, message, ID), remedy=remedy)


def _remedy(name: str | int) -> str:
    if isinstance(name, int):
        return f"write a name: {', '.join(EVENT_FIELDS)}"
    if close := get_close_matches(name, EVENT_FIELDS, 1, cutoff=0.8):  # `service` is no slip for `source`
        return f"did you mean `event.{close[0]}`?"
    here = f"event.custom_details.{name}" if name.isidentifier() else f"event.custom_details['{name}']"
    return f"write `{here}` for what the sender calls so"
