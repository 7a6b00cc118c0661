"""A rule that costs something for every alert, whether it matches or not. Told only by `--explain-cost`.

Rules that ask for a field by `==`, `matches` or a pattern are found from the alert's own fields, so thousands of them
cost no more than ten. Others are tried one by one. A few do no harm; where there are many, let each ask for a field too.

    when: not event.custom_details.env == 'staging'                                              # tried for every alert
    when: event.custom_details.service == 'shop' and not event.custom_details.env == 'staging'   # found by its service
"""

from __future__ import annotations

from collections.abc import Iterator

from alertrouter.rules.finding import Finding, Gravity, RulesDirectory, finding_of
from alertrouter.rules.index import explain_cost

ID = "cost"


def find(directory: RulesDirectory) -> Iterator[Finding]:
    why = {name: reason for *_, name, reason in explain_cost(directory.ruleset)}
    for placed in directory.rules():
        if placed.rule.name in why:
            message = f"`{placed.rule.name}` is tried for every alert: {why[placed.rule.name]}"
            yield finding_of(placed.document.problem(placed.at("rule"), message, ID), Gravity.NOTE)
