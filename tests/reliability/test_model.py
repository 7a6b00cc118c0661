"""Random histories of alerts, rule changes, deaths and a PagerDuty that lies, against what an oracle says of them.

Quick: 300 runs of 40 steps, the same ones every time. With ALERTROUTER_RELIABILITY_LONG=1 100,000 runs of 60 steps, or as many as
ALERTROUTER_RELIABILITY_RUNS says. A failure prints the steps of the shortest run that fails; as they stand they become
one of the tests at the end of this file.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import structlog
import uvloop
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from alertrouter.alert import Severity, Status
from alertrouter.store.connect import connect
from tests.reliability.conftest import Figure, first_seed
from tests.reliability.model import Machine

#: What Hypothesis remembers of a search grows with it: a long one is many of these.
AT_ONCE = 1_000
#: Who only asks whether it fails need not wait for the shortest run that does.
PHASES = [Phase.generate] if os.environ.get("ALERTROUTER_RELIABILITY_SHRINK") == "0" else [Phase.generate, Phase.shrink]


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
def test_whatever_happens_what_was_opened_gets_closed(
    machine: type[Machine], long: bool, figure: Figure, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = int(os.environ.get("ALERTROUTER_RELIABILITY_RUNS") or (100_000 if long else 300))
    steps = 60 if long else 40
    machine.transitions = 0
    done = 0
    try:
        while done < runs:
            number = first_seed(long)
            with capsys.disabled() if long else nullcontext():
                print(f"{done} of {runs} runs; the next with ALERTROUTER_RELIABILITY_SEED={number}")  # noqa: T201
            some = min(AT_ONCE, runs - done)
            run_state_machine_as_test(
                seed(number)(machine),
                settings=settings(
                    max_examples=some,
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    print_blob=True,
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                    phases=PHASES,
                ),
            )
            done += some
    finally:
        figure("G15", f"runs of {steps} random steps as promised", f"all of {runs:,}", done, done == runs)
        wrong = "0" if done == runs else "at least 1"
        figure("G3", f"alerts wrong at the end, of {machine.transitions:,} transitions", "0", wrong, done == runs)


# --- what was found ---------------------------------------------------------------------------------------------------
# The shortest runs that once failed, as they were printed.


def forgotten_attempt(state: Machine) -> None:
    """What was tried without an answer is not closed before it is tried again: it is news of the same episode."""
    state.hear_batch(first=Status.FIRING, same=True)
    state.pagerduty_fails(fault="answer lost")
    state.time_passes(ms=1000)
    state.hear_later_episode(name="alertmanager:a")
    state.much_time_passes(ms=300_000)


def attempt_under_an_old_key(state: Machine) -> None:
    """A trigger without an answer, in an alert that was open before: its key is pinned as well."""
    state.hear_firing(name="alertmanager:a")
    state.time_passes(ms=1000)
    state.hear_resolved(name="alertmanager:a")
    state.time_passes(ms=1000)
    state.pagerduty_fails(fault="answer lost")
    state.hear_later_episode(name="alertmanager:a")
    state.key_is_rotated()
    state.time_passes(ms=11_000)
    state.hear_resolved(name="alertmanager:a")


def acknowledged_before_it_fired(state: Machine) -> None:
    """An acknowledgement of nothing opens nothing: what fires after it is triggered, though acknowledged again."""
    state.hear_acknowledged()
    state.hear_firing(name="pagerduty:c", work="wait")
    state.hear_acknowledged()


def came_back_muted(state: Machine) -> None:
    """What is muted once its owed resolve is sent is judged again when the rules change."""
    state.hear_firing(name="alertmanager:a")
    state.time_passes(ms=1000)
    state.rules_change(mode="mute")
    state.hear_batch(first=Status.RESOLVED, same=True)


def killed_often_and_never_by_it(state: Machine) -> None:
    """A muted alert whose workers die now and then, and which is judged well in between, is not what kills them."""
    state.rules_change(mode="mute")
    for _ in range(6):
        state.worker_will_die(step="judged", when="before")
        state.hear_firing(name="alertmanager:a")
        state.much_time_passes(ms=300_000)
        state.much_time_passes(ms=14_400_000)
    assert not state.api.calls, "muted is muted"


def processed_late_under_an_old_key(state: Machine) -> None:
    """Its key is another before PagerDuty processes what it had not answered: that is closed as well."""
    state.pagerduty_fails(fault="processed late")
    state.hear_firing(name="alertmanager:a")
    state.hear_resolved(name="alertmanager:a")
    state.key_is_rotated()
    state.time_passes(ms=30_000)
    state.hear_later_episode(name="alertmanager:a")


def acknowledged_while_a_resolve_hangs(state: Machine) -> None:
    """A resolve of nothing has no answer yet; what fires and is acknowledged meanwhile is triggered before."""
    state.hear_resolved(name="pagerduty:c", work="hang")
    state.hear_firing(name="pagerduty:c")
    state.hear_acknowledged()
    state.pagerduty_heals()
    state.pagerduty_heals()


def muted_after_a_try(state: Machine) -> None:
    """A trigger had no answer, and the alert is muted by now: nothing closes it while it fires."""
    state.hear_stale_resolve(name="alertmanager:a")
    state.pagerduty_fails(fault="no answer")
    state.hear_batch(first=Status.FIRING)
    state.rules_change(mode="mute")


def late_copy_of_another_severity(state: Machine) -> None:
    """It is held as long as any late copy."""
    state.hear_resolved(name="alertmanager:a")
    state.hear_batch(first=Status.FIRING)
    state.hear_severity(name="alertmanager:a", severity=Severity.WARNING)


def refused_for_what_it_says(state: Machine) -> None:
    """What was refused for its content, under a key that is another's by now, goes on there: something is open there."""
    state.hear_earlier_start(name="alertmanager:a", drift=1000)
    state.key_is_rotated()
    state.pagerduty_fails(fault="400 content", times=5)
    state.hear_batch(first=Status.FIRING)


def processed_late_and_acknowledged(state: Machine) -> None:
    """Over, then acknowledged: what PagerDuty processes late is closed all the same."""
    state.pagerduty_fails(fault="processed late")
    state.hear_firing(name="pagerduty:c")
    state.hear_resolved(name="pagerduty:c")
    state.hear_acknowledged()


def muted_while_held(state: Machine) -> None:
    """A late copy that is muted when its hold is over, and repaired then, pages when nothing mutes it any more."""
    state.hear_batch(first=Status.FIRING)
    state.script_runs_twice(step="settle")
    state.rules_change(mode="mute")
    state.hear_batch(first=Status.FIRING, same=True)
    state.pagerduty_fails(fault="400 content")
    state.hear_batch(first=Status.FIRING)
    state.much_time_passes(ms=300_000)


def restarted_before_it_was_judged_again(state: Machine) -> None:
    """Other rules are read, and the process ends before it has judged anything by them: the next one does."""
    state.rules_change(mode="mute")
    state.hear_batch(first=Status.FIRING)
    state.rules_change(mode="normal", work="wait")
    state.process_restarts(void=False)


def over_before_it_was_suspended(state: Machine) -> None:
    """What fired and resolved before anybody judged it is as short as what was suspended."""
    state.page_short = state.worker._page_short = True
    state.hear_batch(first=Status.FIRING, same=True, work="wait")
    state.rules_change(mode="suspend")


def unanswered_at_the_fallback(state: Machine) -> None:
    """What the fallback took without an answer is closed there, though its own key is good again."""
    state.pagerduty_fails(fault="400 key", times=5)
    state.pagerduty_fails(fault="answer lost")
    state.hear_batch(first=Status.FIRING)
    state.hear_earlier_start(name="alertmanager:a", drift=1000)
    state.key_is_rotated()
    state.key_is_rotated()


def routed_away_and_refused(state: Machine) -> None:
    """What is open goes on under its own key, though the destination that the rules name now refuses all keys."""
    state.hear_batch(first=Status.FIRING)
    state.key_is_rotated()
    state.pagerduty_fails(fault="400 key", times=2)
    state.rules_change(mode="route")
    state.time_passes(ms=1)
    state.hear_batch(first=Status.FIRING)


def refused_where_the_rules_no_longer_send(state: Machine) -> None:
    """Its key is refused, and the rules name another destination by now: no new key is tried at the old one."""
    state.hear_batch(first=Status.FIRING)
    state.key_is_rotated()
    state.much_time_passes(ms=300_000)
    state.pagerduty_fails(fault="400 key", times=2)
    state.rules_change(mode="route")
    state.hear_batch(first=Status.FIRING)
    state.hear_batch(first=Status.FIRING)


def acknowledged_after_its_owed_resolve_was_refused(state: Machine) -> None:
    """What was owed is given up; what is acknowledged since is not closed by it."""
    state.hear_firing(name="pagerduty:c")
    state.hear_acknowledged()
    state.rules_change(mode="mute hourly")
    state.hear_resolved(name="pagerduty:c", work="judge")
    state.hear_later_episode(name="pagerduty:c", work="hang")
    state.pagerduty_fails(fault="400 content")
    state.process_restarts(void=True)
    state.hear_acknowledged()


def tried_while_it_was_suspended_in_between(state: Machine) -> None:
    """Tried under a key that is another by now, suspended again, over and back: what is processed late is closed."""
    state.rules_change(mode="suspend")
    state.hear_batch(first=Status.FIRING)
    state.pagerduty_fails(fault="processed late")
    state.rules_change(mode="normal")
    state.key_is_rotated()
    state.rules_change(mode="suspend")
    state.hear_batch(first=Status.RESOLVED, same=True)


def play(machine: type[Machine], steps: Callable[[Machine], None]) -> None:
    state = machine()
    state.start()
    steps(state)
    state.teardown()


@pytest.mark.parametrize(
    "steps",
    [
        forgotten_attempt,
        attempt_under_an_old_key,
        killed_often_and_never_by_it,
        acknowledged_before_it_fired,
        came_back_muted,
        processed_late_under_an_old_key,
        acknowledged_while_a_resolve_hangs,
        muted_after_a_try,
        restarted_before_it_was_judged_again,
        over_before_it_was_suspended,
        unanswered_at_the_fallback,
        routed_away_and_refused,
        tried_while_it_was_suspended_in_between,
        acknowledged_after_its_owed_resolve_was_refused,
        refused_where_the_rules_no_longer_send,
        muted_while_held,
        late_copy_of_another_severity,
        refused_for_what_it_says,
        processed_late_and_acknowledged,
    ],
)
def test_what_once_went_wrong(machine: type[Machine], steps: Callable[[Machine], None]) -> None:
    play(machine, steps)


def test_silence_is_played_too(machine: type[Machine]) -> None:
    """One alert is not repeated while its sender goes on with another: it is closed, and pages when it is back."""
    state = machine()
    state.start(silence=True)
    for name in ("alertmanager:a", "pagerduty:c"):
        state.hear_firing(name=name)
    for _ in range(2):
        state.much_time_passes(ms=300_000)
        state.hear_firing(name="alertmanager:b")
    assert [book.id for book in state.books.values() if book.silent] == ["alertmanager:a"]
    state.hear_firing(name="alertmanager:a")
    assert [post[:1] for post in state.posts if post[2] == "alertmanager:a"] == [
        ("trigger",),
        ("resolve",),
        ("trigger",),
    ]
    state.teardown()
