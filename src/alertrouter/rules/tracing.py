"""The way of an alert through the rules, in lines for people. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby

from alertrouter.rules.model import START, RuleTrace


def traced(trace: Iterable[RuleTrace], *, missed: Collection[str] = ()) -> Iterator[str]:
    """Each rule looked at, in order: whether it matched, and the tests that decided that with the values they saw.

    missed: rules that were expected to match; those looked at are marked.
    """
    for (orchestration, set_name), looked_at in groupby(trace, lambda each: (each.orchestration, each.set)):
        yield orchestration if set_name == START else f"{orchestration}, set {set_name}"
        for each in looked_at:
            mark = ">" if each.rule in missed else " "
            yield f" {mark}{'yes' if each.matched else 'no':3} {each.rule:28} {each.why}"
            for warning in each.warnings:
                yield f"      {'':28} warning: {warning}"
