"""A suppression or a drop that ends in more than a year.

By then nobody remembers it, and whoever wrote it may have left. Set an end within the year; where the alert is never
wanted, change the monitor that sends it.
"""

from __future__ import annotations

from collections.abc import Iterator

from alertrouter.rules.finding import Finding, Gravity, RulesDirectory, finding_of

ID = "endless-suppression"

#: A leap year and a day, because a date counts to its end.
LONGEST_MS = 367 * 86_400_000


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for muted in directory.muting():
        if muted.ends_at > directory.now + LONGEST_MS:
            problem = muted.document.problem((*muted.then, "expires"), "this ends in more than a year", ID)
            yield finding_of(problem, Gravity.WARNING, "set an end within the year")
