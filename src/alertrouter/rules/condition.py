"""Conditions of rules: the PagerDuty Condition Language, compiled once and evaluated without ever failing.

A test that meets values it cannot work with is neither true nor false; wherever truth is asked for, that counts as false.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from alertrouter.rules import mistakes, reasons
from alertrouter.rules.closures import Run, View, compile_node
from alertrouter.rules.moment import Moment
from alertrouter.rules.regex import BadPattern, compile_search
from alertrouter.rules.syntax import ConditionError, MatchesRegex, Node, Path, Threshold, error_at, parse, walk

__all__ = ["Condition", "ConditionError", "Outcome", "View", "compile_condition"]

#: How much of an explanation is worth reading, in characters.
SHOWN_WHY = 400


@dataclass(frozen=True, slots=True)
class Outcome:
    """`why` names what decided the condition, with the values seen; `warnings` what made no sense on the way there."""

    holds: bool
    why: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """One compiled condition. `tree` is for those who look into it: indexes and checks.

    counts: whether there are thresholds in it, so that looking at it is news to their counters.
    """

    text: str
    tree: Node
    run: Run
    counts: bool = False

    def holds(self, view: View, now: Moment) -> bool:
        """Whether it holds for this view at this time. Raises Wanted, and nothing else, whatever JSON the view is."""
        return self.run(view, now) is True

    def evaluate(self, view: View, now: Moment) -> Outcome:
        """As `holds`, with the reason in words. Slower: for people, not for every alert."""
        warnings: list[str] = []
        holds, why = reasons.explain(self.tree, self.text, view, now, warnings)
        return Outcome(holds, reasons.cut(why, SHOWN_WHY), tuple(warnings))


@lru_cache(maxsize=20_000)  # so that a reload compiles only what has changed
def compile_condition(text: str) -> Condition:
    """The condition ready to run. Raises ConditionError with line, column and what to write instead."""
    tree = parse(text)
    nodes = walk(tree)
    for node in nodes:
        _check(node, text)
    return Condition(text, tree, compile_node(tree), any(isinstance(node, Threshold) for node in nodes))


def _check(node: Node, text: str) -> None:
    match node:
        case Path(root="event" | "raw_event" | "cache_var"):
            return
        case Path(root=root):
            right_side = text[: node.span.start].rstrip().endswith(("==", "matches", "part", "exactly", ">", "<", "="))
            raise error_at(text, node.span.start, mistakes.unknown_root(root, right_side=right_side))
        case MatchesRegex(pattern=pattern, exactly=exactly, pattern_at=at):
            try:
                compile_search(pattern, exactly=exactly)
            except BadPattern as bad:
                raise error_at(text, at, str(bad), check="bad-regex") from None
