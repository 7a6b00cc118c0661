"""A suppression or a drop whose end has passed.

It is passed over as if it were not there, so its alerts page again. Remove the rule; or, if it is still meant, set a new
end and say in the reason why it took longer.
"""

from __future__ import annotations

from collections.abc import Iterator

from alertrouter.rules.finding import Finding, Gravity, RulesDirectory, finding_of
from alertrouter.rules.times import Instant

ID = "expired"


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for muted in directory.muting():
        if muted.ends_at <= directory.now:
            message = f"this has had no effect since {Instant(muted.ends_at)}"
            problem = muted.document.problem((*muted.then, "expires"), message, ID)
            yield finding_of(problem, Gravity.WARNING, "remove the rule, or set a new end")
