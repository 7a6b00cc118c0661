"""A rule that no test mentions.

A test states in `tests/*_test.yaml` what becomes of an alert, so that the next change to the rules cannot undo it unseen.
The check is silent as long as there are no tests at all, and for rules that are disabled.
"""

from __future__ import annotations

from collections.abc import Iterator

from alertrouter.rules.finding import Finding, Gravity, RulesDirectory, finding_of

ID = "rule-without-test"


def find(directory: RulesDirectory) -> Iterator[Finding]:
    if directory.tested is None:
        return
    for placed in directory.rules():
        name = placed.rule.name
        if name not in directory.tested and not placed.rule.disabled:
            problem = placed.document.problem(placed.at("rule"), f"no test mentions `{name}`", ID)
            yield finding_of(problem, Gravity.WARNING, "add a case to tests/*_test.yaml that expects it to match")
