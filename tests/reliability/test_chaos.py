"""One seed of the chaos driver. More: `make chaos`."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import program
from tests.reliability.conftest import Figure
from tests.rig.chaos import FAULTS, Chaos, Stage, is_red, run, schedule

#: Two minutes, most of them spent waiting for the repairs, which come 90 s after what they repair.
QUICK = Chaos(seed=4, duration_s=25, longest_s=5)
LONG = Chaos(seed=4, duration_s=600)


def test_a_seed_is_a_schedule() -> None:
    steps = schedule(LONG)
    assert steps == schedule(Chaos(seed=4, duration_s=600)) != schedule(Chaos(seed=5, duration_s=600))
    assert {step.fault for step in steps} == set(FAULTS)
    assert all(step.at_ms + step.for_ms <= 600_000 for step in steps)


async def test_chaos(tmp_path: Path, figure: Figure, long: bool) -> None:
    chaos = LONG if long else QUICK
    async with Stage(chaos, tmp_path, program("redis-server")) as stage:
        verdict = await run(stage, schedule(chaos), chaos.duration_s)
    what = f"seed {chaos.seed}, {len(schedule(chaos))} faults, {verdict.accepted:,} alerts"
    figure(
        "G3",
        f"chaos: alerts lost or wrong at the end; {what}",
        "0",
        verdict.lost + verdict.wrong,
        not is_red(verdict, chaos.replicas),
    )
    assert verdict.paged > verdict.episodes / 10, f"hardly anything was delivered: {verdict}"
    assert not is_red(verdict, chaos.replicas), str(verdict)
