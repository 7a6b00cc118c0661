"""Runs tests: each in a world of its own, all on one server that is thrown away with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from alertrouter.delivery.flapping import FlappingLimit
from alertrouter.delivery.silence import AutoResolve
from alertrouter.rules.model import Ruleset
from alertrouter.simulation.cases import Case
from alertrouter.simulation.check import Difference, differences
from alertrouter.simulation.coverage import Coverage
from alertrouter.simulation.mutants import Mutant
from alertrouter.simulation.play import Played, play
from alertrouter.simulation.world import World, WorldClock, keys_for
from alertrouter.store.connect import Client
from alertrouter.store.store import Dedup


@dataclass(frozen=True, slots=True)
class Failure:
    """One step that went otherwise than expected."""

    played: Played
    differences: Sequence[Difference]


@dataclass(frozen=True, slots=True)
class Result:
    """How a test went. steps: how many were taken."""

    case: Case
    failures: Sequence[Failure]
    steps: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether all came as expected."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class Setup:
    """What the router is set to do, as alertrouter.yaml says."""

    dedup: Dedup = field(default_factory=Dedup)
    page_short: bool = False
    auto_resolve: AutoResolve = field(default_factory=AutoResolve)
    flapping: FlappingLimit | None = None


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs tests on one server. `rulesets` are those of the directories that steps name."""

    client: Client
    folder: Path
    rulesets: Mapping[Path, Ruleset]
    setup: Setup
    _numbers: count[int] = field(default_factory=count)

    async def run(
        self,
        case: Case,
        ruleset: Ruleset,
        *,
        see: Callable[[Case, Played], None] | None = None,
        to_first_failure: bool = False,
    ) -> Result:
        """Run one test under `ruleset`; `see` is shown every step."""
        began = perf_counter()
        world = World(
            self.client,
            f"test-{next(self._numbers)}",
            self.folder,
            WorldClock(case.start),
            keys_for(ruleset),
            dedup=self.setup.dedup,
            page_short=self.setup.page_short,
            auto_resolve=self.setup.auto_resolve,
            flapping=self.setup.flapping,
        )
        failures: list[Failure] = []
        came: list[Mapping[str, Any]] = []
        try:
            async with aclosing(play(case, world, self.rulesets)) as steps:
                async for played in steps:
                    came.append(played.came[0].values)
                    if see is not None:
                        see(case, played)
                    if found := differences(case, played, came):
                        failures.append(Failure(played, found))
                        if to_first_failure:
                            break
        finally:
            world.close()
        return Result(case, failures, len(came), perf_counter() - began)

    async def survivors(self, mutants: Iterable[Mutant], reached: Coverage) -> list[Mutant]:
        """The mutants that no test notices. Only tests that reach the change are run, the shortest first."""
        unnoticed = [mutant for mutant in mutants if not await self._is_noticed(mutant, reached)]
        return sorted(unnoticed, key=lambda each: (each.file, each.line, each.column))

    async def _is_noticed(self, mutant: Mutant, reached: Coverage) -> bool:
        match mutant.shows:
            case "rule tried":
                cases = reached.looked_at.get(mutant.rule)
            case "rule acted":
                cases = reached.acted.get(mutant.rule)
            case "catch-all acted":
                cases = reached.caught_in.get(mutant.orchestration)
            case _:
                cases = reached.entered.get(mutant.orchestration)
        if not cases:
            return False
        ruleset = mutant.ruleset()
        for case in sorted(cases.values(), key=lambda each: len(each.steps)):
            if not (await self.run(case, ruleset, to_first_failure=True)).passed:
                return True
        return False
