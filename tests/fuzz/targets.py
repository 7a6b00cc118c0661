"""Everything that reads what others wrote, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.bodies import BODIES
from tests.fuzz.inputs import Target
from tests.fuzz.rules import CASES, CONDITIONS, RULE_FILES
from tests.fuzz.stored import ANSWERS, ENTRIES, JOURNALS, LETTERS, RECORDINGS

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (BODIES, CONDITIONS, RULE_FILES, CASES, ANSWERS, LETTERS, JOURNALS, RECORDINGS, ENTRIES)
}
