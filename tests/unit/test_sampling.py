"""Alerts made up to meet a condition."""

from __future__ import annotations

from typing import Any

import pytest

from alertrouter.rules.condition import compile_condition
from alertrouter.rules.moment import Moment
from alertrouter.rules.sampling import samples
from tests.alerts import NIGHT


def views(text: str) -> list[dict[str, Any]]:
    found = []
    for sample in samples(compile_condition(text).tree):
        view: dict[str, Any] = {"event": {}, "raw_event": {}}
        for (*ahead, last), value in sample.items():
            into = view
            for key in ahead:
                into = into.setdefault(str(key), {})
            into[str(last)] = value
        found.append(view)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "event.custom_details.service == 'shop'",
        "'shop' == event.custom_details.service",
        "event.custom_details.service matches 'SHOP' and event.severity == 'critical'",
        "event.summary matches part 'disk' or event.class == 'disk'",
        "event.custom_details.n > 3 and event.custom_details.m <= 2 and event.custom_details.f < 0.5",
        "event.custom_details['a b'] exists",
        "event.custom_details.service matches regex '^payment-(api|web)$'",
        "event.custom_details.host matches regex 'db-.*\\\\.example\\\\.org'",
        "event.custom_details.host matches regex '(?i)^shop'",
        "not event.class == 'disk'",
        "raw_event.labels.team == 'a' and (event.class == 'x' or event.class == 'y') and event.class == 'y'",
        "event.custom_details.a == event.custom_details.b",
    ],
)
def test_one_of_the_ways_meets_it(text: str) -> None:
    condition = compile_condition(text)
    assert any(condition.holds(view, Moment(NIGHT)) for view in views(text))


@pytest.mark.parametrize("text", ["event.class == 'x' and event.class == 'y'", "event.class matches regex '[ab]{3}c'"])
def test_what_cannot_be_arranged_is_no_fault(text: str) -> None:
    condition = compile_condition(text)
    assert not any(condition.holds(view, Moment(NIGHT)) for view in views(text))


def test_there_are_never_many_ways() -> None:
    either = "(event.class == 'a' or event.class == 'b')"
    assert len(views(" and ".join([either] * 20))) <= 16
