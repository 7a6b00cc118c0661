"""python -m bench.replay [ALERTS]: how fast a recording goes through two rule sets, on one core where there is taskset."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import uvloop
from rich.console import Console
from rich.table import Table
from tools.generate_history import lines

from alertrouter import telemetry
from alertrouter.history.reading import read
from alertrouter.rules.load import load_rules
from alertrouter.simulation.replay import Contender, Difference, replay

REPOSITORY = Path(__file__).parents[1]
ALERTS = 50_000
START = 1_798_761_600_000  # 2027-01-01
CHANGE = """
    - rule: staging-quiet
      owner: team-sre
      when: event.custom_details.env == 'staging'
      then: {suppress: true, reason: nobody is paged for staging, expires: 2028-01-01}
"""


def cpu_seconds() -> float:
    """Of this process and of the server it has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(recording: Path, folder: Path) -> tuple[Difference, float, float]:
    """What was found, and how many seconds it took: of the clock, and of processors."""
    changed = folder / "rules"
    shutil.copytree(REPOSITORY / "rules", changed)
    with (changed / "global.yaml").open("a") as file:
        file.write(CHANGE)
    before, after = (Contender(load_rules(each)) for each in (REPOSITORY / "rules", changed))
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)  # as the command does
    began, used = perf_counter(), cpu_seconds()
    found = uvloop.run(replay(before, after, read([recording], lambda damaged: sys.exit(str(damaged)))))
    return found, perf_counter() - began, cpu_seconds() - used


def main() -> None:
    alerts = int(sys.argv[1]) if len(sys.argv) > 1 else ALERTS
    telemetry.set_up_logging("console", "error")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the server inherits it
    with tempfile.TemporaryDirectory() as name:
        recording = Path(name, "month.jsonl")
        with recording.open("wb") as file:
            file.writelines(line + b"\n" for line in lines(alerts, 1, START, 30))
        found, seconds, cpu = measure(recording, Path(name))
    table = Table("alerts", "news", "s", "CPU s", "alerts/s", "CPU minutes a million", title="two rule sets, one core")
    table.add_row(
        f"{found.heard:,}",
        f"{found.heard - found.duplicates:,}",
        f"{seconds:.1f}",
        f"{cpu:.1f}",
        f"{found.heard / seconds:,.0f}",
        f"{cpu / found.heard * 1e6 / 60:.1f}",
    )
    Console().print(table)


main()
