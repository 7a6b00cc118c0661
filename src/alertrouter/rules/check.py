"""Every check, run over one rules directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from inspect import getdoc
from pkgutil import iter_modules

from alertrouter.rules import checks
from alertrouter.rules.checks import (
    broad_suppression,
    cost,
    endless_suppression,
    expired,
    matches_without_wildcard,
    rule_without_test,
    runbook,
    schedule_never_opens,
    secret,
    unguarded_not,
    unknown_field,
    unreachable_rule,
)
from alertrouter.rules.finding import Finding, RulesDirectory

#: What each check finds, by its id. What else has a page is found by the loader.
FINDERS: Mapping[str, Callable[[RulesDirectory], Iterable[Finding]]] = {
    broad_suppression.ID: broad_suppression.find,
    endless_suppression.ID: endless_suppression.find,
    expired.ID: expired.find,
    matches_without_wildcard.ID: matches_without_wildcard.find,
    rule_without_test.ID: rule_without_test.find,
    runbook.ID: runbook.find,
    schedule_never_opens.ID: schedule_never_opens.find,
    secret.ID: secret.find,
    unguarded_not.ID: unguarded_not.find,
    unknown_field.ID: unknown_field.find,
    unreachable_rule.ID: unreachable_rule.find,
}


def check(directory: RulesDirectory, *, with_cost: bool = False) -> list[Finding]:
    """What all checks find, in the order of files and lines; with the rules that no index serves, if asked."""
    finders = [*FINDERS.values(), *([cost.find] if with_cost else [])]
    return sorted(finding for find in finders for finding in find(directory))


def pages() -> dict[str, str]:
    """What each check is about, by its id: those of the loader too."""
    names = sorted(module.name for module in iter_modules(checks.__path__))
    return {name.replace("_", "-"): getdoc(import_module(f"{checks.__name__}.{name}")) or "" for name in names}
