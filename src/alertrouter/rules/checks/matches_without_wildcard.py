"""`matches` where `matches part` or `matches regex` was surely meant.

`matches` compares the whole text. A phrase hardly ever is a whole summary, and there are no wildcards: `*`, `^` and `$`
stand for themselves.

    when: event.summary matches 'DNS timeout'               # only if the summary is just that
    when: event.summary matches part 'DNS timeout'
    when: event.custom_details.pod matches 'payment-*'      # only a pod of just that name
    when: event.custom_details.pod matches regex '^payment-'
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from alertrouter.rules.finding import Finding, Gravity, RulesDirectory, finding_of
from alertrouter.rules.syntax import Literal, Matches, Path, walk

ID = "matches-without-wildcard"

#: Signs of a pattern: `.*`, `.+`, a leading `^`, a `$` at the end, `*` at the edge of a word.
_PATTERN = re.compile(r"\.[*+]|^\^|\$$|^\*\S|\S\*$")


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for placed in directory.rules():
        for index, condition in enumerate(placed.rule.conditions):
            for node in walk(condition.tree):
                match node:
                    case Matches(part=part, left=left, right=Literal(value=str(text)) as literal):
                        wrong = _wrong(text, part=part, of_summary=_is_summary(left))
                    case _:
                        continue
                if wrong:
                    problem = placed.in_condition(index, literal.span.start, wrong[0], ID)
                    yield finding_of(problem, Gravity.WARNING, wrong[1])


def _is_summary(node: object) -> bool:
    return isinstance(node, Path) and (node.root, node.keys) == ("event", ("summary",))


def _wrong(text: str, *, part: bool, of_summary: bool) -> tuple[str, str] | None:
    """What is wrong and what to write instead."""
    if _PATTERN.search(text) and not (part and not re.search(r"\.[*+]", text)):
        return (
            "this looks like a pattern but is compared letter by letter",
            "write `matches regex` and a pattern of RE2",
        )
    if of_summary and not part and len(text.split()) > 1:
        return "`matches` compares the whole summary with this phrase", "write `matches part` to find it inside"
    return None
