"""A runbook that is empty, malformed, or not there.

It is a whole link, or a path under `runbook_base`. A path is looked for beside the rules directory and inside it; where
its folder is in neither, the runbooks are kept elsewhere and the check is silent. At night a dead link is worse than none.

    runbook: runbooks/payment-service.md
    runbook: https://wiki.example.org/payment-service
"""

from __future__ import annotations

from collections.abc import Iterator

from alertrouter.rules.finding import Finding, Gravity, RulesDirectory, finding_of

ID = "runbook"


def find(directory: RulesDirectory) -> Iterator[Finding]:
    for document in directory.documents.values():
        if document.get("runbook") in directory.runbooks_missing:
            problem = document.problem(("runbook",), f"there is no file {document['runbook']}", ID)
            yield finding_of(problem, Gravity.WARNING, "write the runbook, or correct the path")
