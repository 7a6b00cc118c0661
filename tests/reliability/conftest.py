"""Reliability runs: real processes that die, lie and go away. `LONG=1` makes them long; each puts down its figures."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.table import PROPERTY, shown

_FOLDER = Path(__file__).parent
_LONG = os.environ.get("ALERTROUTER_RELIABILITY_LONG") == "1"
#: Runs are bounded by what they wait for; this is for what hangs.
_TIMEOUT_S = 4 * 3600 if _LONG else 600

Figure = Callable[[str, str, str, object, bool | None], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every run time enough, unless it says how much it needs. The longest come first."""
    items.sort(key=lambda item: item.get_closest_marker("takes_minutes") is None)
    for item in items:
        if _FOLDER in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


def first_seed(long: bool) -> int:
    """Where chance begins: the same for every quick run, elsewhere anywhere, and what the environment says first."""
    return int(os.environ.get("ALERTROUTER_RELIABILITY_SEED") or (secrets.randbits(32) if long else 20_261_123))


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """`figure(goal, what, aim, value, ok)` puts a row into the table that ends the run; `ok` None only shows it."""

    def put(goal: str, what: str, aim: str, value: object, ok: bool | None) -> None:
        # plain data, because it travels from xdist's worker
        request.node.user_properties.append((PROPERTY, [goal, what, aim, shown(value), ok]))

    return put


@pytest.fixture
def long() -> bool:
    """True for the long sizes, with `make reliability LONG=1`."""
    return _LONG


@pytest.fixture
def only_long(long: bool) -> None:
    """Skip where runs are to be quick."""
    if not long:
        pytest.skip("a long run: make reliability LONG=1")
