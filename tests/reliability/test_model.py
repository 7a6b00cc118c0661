"""Random histories of alerts, rule changes, deaths and a PagerDuty that lies, against what an oracle says of them.

Quick: 300 runs of 40 steps. With ALERTROUTER_RELIABILITY_LONG=1 100,000 runs of 60 steps, or as many as
ALERTROUTER_RELIABILITY_RUNS says. A failure prints the steps of the shortest run that fails; as lines of Python they
become one of the tests at the end of this file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Iterator

import pytest
import structlog
import uvloop
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from alertrouter.store.connect import connect
from tests.reliability.model import Machine

LONG = bool(os.environ.get("ALERTROUTER_RELIABILITY_LONG"))
RUNS = int(os.environ.get("ALERTROUTER_RELIABILITY_RUNS") or (100_000 if LONG else 300))
STEPS = 60 if LONG else 40
#: What Hypothesis remembers of a search grows with it: a long one is many of these.
AT_ONCE = 1_000


@pytest.fixture
def machine(redis_url: str) -> Iterator[type[Machine]]:
    """The machine on a real Redis, in an event loop of its own."""
    configuration = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        Machine.loop = runner.get_loop()
        Machine.client = connect(redis_url)
        yield Machine
        runner.run(Machine.client.aclose())
    structlog.configure(**configuration)


@pytest.mark.timeout(0)
def test_whatever_happens_what_was_opened_gets_closed(machine: type[Machine]) -> None:
    for done in range(0, RUNS, AT_ONCE):
        number = int(os.environ.get("ALERTROUTER_RELIABILITY_SEED") or secrets.randbits(32))
        print(
            f"{done} of {RUNS} runs of {STEPS} steps; the next ones with ALERTROUTER_RELIABILITY_SEED={number}",
            flush=True,
        )
        run_state_machine_as_test(
            seed(number)(machine),
            settings=settings(
                max_examples=min(AT_ONCE, RUNS - done),
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            ),
        )
