"""A suppression or a drop that takes far more than one kind of alert.

It stands in a catch-all, has no condition, or its conditions ask only for what every alert has: a severity, a time, that
there is a summary. Name what is meant: a text of the summary, an environment, a service. In a service's own file a time
or a severity is enough, because only that service is muted.

    when: event.severity == 'warning'                                                    # all warnings of everybody
    when: event.severity == 'warning' and event.custom_details.env == 'staging'
"""

from __future__ import annotations

from collections.abc import Iterator

from alertrouter.rules.finding import Finding, Gravity, Muting, RulesDirectory, finding_of
from alertrouter.rules.syntax import Exists, Joined, MatchesRegex, Node, Path, walk

ID = "broad-suppression"

_EVERY_ALERT_HAS = (("summary",), ("source",), ("severity",), ("custom_details",), ())
_ANYTHING = frozenset({"", ".*", ".+", "^", "$", "^.*$", "^.+$", ".*?"})


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for muted in directory.muting():
        what = _what_it_takes(muted)
        if what:
            problem = muted.document.problem_with_key((*muted.then, muted.action), f"this takes {what}", ID)
            yield finding_of(problem, Gravity.WARNING, "name in `when` which alerts are meant")


def _what_it_takes(muted: Muting) -> str:
    of_service = muted.orchestration.kind == "service"
    whose = "of this service " if of_service else ""
    if muted.rule is None:
        return f"every alert {whose}that no rule wants"
    if not muted.rule.conditions:
        return f"every alert {whose}that comes here"
    if any(is_broad(condition.tree, of_service=of_service) for condition in muted.rule.conditions):
        return "alerts of all kinds: its condition asks for nothing that tells them apart"
    return ""


def is_broad(node: Node, *, of_service: bool) -> bool:
    """Whether the condition asks for nothing that tells alerts apart; within one service, a time or a severity does."""
    match node:
        case Joined("or", parts):
            return any(is_broad(part, of_service=of_service) for part in parts)
        case Joined("and", parts):
            return all(is_broad(part, of_service=of_service) for part in parts)
        case Exists(path=Path(root="event", keys=keys)) if keys in _EVERY_ALERT_HAS:
            return True
        case MatchesRegex(pattern=pattern) if pattern in _ANYTHING:
            return True
    if of_service:
        return False
    paths = [each for each in walk(node) if isinstance(each, Path)]
    return all((path.root, path.keys) == ("event", ("severity",)) for path in paths)
