"""What senders and rules decide may cost no more than was meant: patterns end, and metrics do not grow with names."""

from __future__ import annotations

import pytest

from alertrouter import telemetry
from alertrouter.rules.regex import compile_search


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){12}$", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_a_pattern_that_would_backtrack_for_ever_ends(pattern: str) -> None:
    """Each takes a backtracking matcher longer than the universe has."""
    assert not compile_search(pattern, exactly=True)(b"a" * 60_000 + b"!")


def test_metrics_do_not_grow_with_the_names_of_rules() -> None:
    for number in range(2_000):
        telemetry.count_rule_match(f"bounded-{number}")
    labels = {sample.labels["rule"] for metric in telemetry.RULE_MATCHES.collect() for sample in metric.samples}
    assert "other" in labels and len(labels) <= 501
