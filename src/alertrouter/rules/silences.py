"""Silences: suppressions that people on call put beside the rules for some hours, without a commit. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from alertrouter.rules.closures import View
from alertrouter.rules.condition import Condition, compile_condition
from alertrouter.rules.moment import Moment
from alertrouter.rules.syntax import Path, Threshold, error_at, walk

#: Whoever wants it longer writes a rule, which somebody reviews.
LONGEST_MS = 24 * 3600 * 1000
#: How a silence is named where rules are.
PREFIX = "silence:"


class Silence(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """Whose it is, why, and to when (ms since the epoch), for the alerts that meet the condition `when`, or for one.

    alert:  the id of its record, or the key of the incident that rules make it share.
    """

    id: str
    owner: str
    reason: str
    added_at: int
    ends_at: int
    when: str = ""
    alert: str = ""

    @property
    def rule(self) -> str:
        """Its name where a decision names a rule."""
        return PREFIX + self.id

    @property
    def why(self) -> str:
        """What stands as the reason where it kept something back."""
        end = datetime.fromtimestamp(self.ends_at / 1000, UTC)
        return f"silence {self.id} of {self.owner} until {end:%Y-%m-%d %H:%M:%S} UTC: {self.reason}"

    @property
    def condition(self) -> Condition | None:
        """What `when` compiles to, which is remembered; None for a silence of one alert."""
        return compile_condition(self.when) if self.when else None

    def takes(self, view: View, now: Moment, *names: str) -> bool:
        """Whether it keeps back an alert that rules left like `view`, and that goes by `names`."""
        if self.ends_at <= now.ms:
            return False
        condition = self.condition
        return condition.holds(view, now) if condition else self.alert != "" and self.alert in names


def compile_silence(text: str) -> Condition:
    """The condition of a silence. Raises ConditionError as for rules, and for what only rules can ask."""
    condition = compile_condition(text)
    for node in walk(condition.tree):
        if isinstance(node, Threshold):
            raise error_at(text, node.span.start, "a silence cannot count; write a rule for that")
        if isinstance(node, Path) and node.root == "cache_var":
            raise error_at(text, node.span.start, "a silence remembers nothing; write a rule for that")
    return condition
