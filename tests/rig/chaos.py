"""Random faults at random times, drawn from a seed, under load: then everything is healed and the oracle is asked.

`make chaos SEED=7`, or `python -m tests.rig.chaos --seed 7`. The same seed, sizes and faults make the same schedule.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from alertrouter.record import REPAIR_AFTER_MS
from tests.rig.ledger import read_ledger
from tests.rig.load import Load, Plan
from tests.rig.oracle import Verdict, judge
from tests.rig.pagerduty import Fault, PagerDutyProcess
from tests.rig.proxy import FaultProxy
from tests.rig.servers import RedisServer, Router, write_rules
from tests.waiting import until

#: What can be done, by lane. Within a lane one fault follows the other; the lanes run side by side.
LANES: Mapping[str, Sequence[str]] = {
    "processes": ("kill", "freeze", "kill-redis", "freeze-redis"),
    "redis": (
        *("redis-slow", "redis-blackhole", "redis-lost-answers", "redis-reset", "redis-refuse", "redis-eat-answers"),
        *("redis-cut", "script-flush"),
    ),
    "pagerduty": (
        *("pd-slow", "pd-blackhole", "pd-reset", "pd-refuse", "pd-eat-answers", "pd-status", "pd-throttle"),
        *("pd-delay", "pd-drip", "pd-reset-before", "pd-reset-after", "pd-late"),
    ),
}
FAULTS = tuple(fault for lane in LANES.values() for fault in lane)
#: What is a promise broken. Sends without an answer must be repeated, so duplicates are none; nor is an alert that came
#: back and only added to its open page: without Redis nobody knows of a resolve that still waits there.
_RED = ("lost", "wrong", "unexplained")
#: And these, of one replica: several without Redis know nothing of each other, so a page may be opened or closed once
#: more until Redis has heard from all of them, or the repair comes.
_RED_OF_ONE = ("false_pages", "out_of_order")
#: A send may take 10 s, and what stands in a proxy as long as the fault.
_IN_FLIGHT_MS = 15_000
_QUIET_WITHIN_S = 240.0
_REPAIRS_TAKE_MS = 10_000


@dataclass(frozen=True, slots=True)
class Chaos:
    """What to do. `faults` are those to draw from; `longest_s` bounds each of them."""

    seed: int
    duration_s: float = 60.0
    replicas: int = 2
    faults: Sequence[str] = FAULTS
    longest_s: float = 12.0
    rate: float = 200.0
    identities: int = 400


@dataclass(frozen=True, slots=True)
class Step:
    """One fault. at_ms: after the start. replica: of alertrouter. amount: from 0 to 999, for what the fault needs."""

    at_ms: int
    for_ms: int
    fault: str
    replica: int
    amount: int

    def __str__(self) -> str:
        of = f" of replica {self.replica}" if self.fault in ("kill", "freeze") else ""
        return f"{self.at_ms / 1000:7.2f} s  {self.fault}{of}, {self.for_ms / 1000:.2f} s  ({self.amount})"


def schedule(chaos: Chaos) -> list[Step]:
    """The faults in order of time."""
    steps = []
    for lane, faults in LANES.items():
        chance = random.Random(f"{chaos.seed} {lane}")
        usable = [fault for fault in faults if fault in chaos.faults]
        at = 0.0
        while usable:
            at += chance.uniform(0.5, 5)
            for_s = min(chance.expovariate(1 / 2.0) + 0.2, chaos.longest_s)
            step = Step(
                int(at * 1000),
                int(for_s * 1000),
                chance.choice(usable),
                chance.randrange(chaos.replicas),
                chance.randrange(1000),
            )
            at += for_s
            if at > chaos.duration_s:
                break
            steps.append(step)
    return sorted(steps, key=lambda step: (step.at_ms, step.fault))


def lane_of(fault: str) -> str:
    """The lane that a fault belongs to."""
    return next(lane for lane, faults in LANES.items() if fault in faults)


def is_red(verdict: Verdict, replicas: int) -> bool:
    """True if a promise was broken."""
    kinds = _RED if replicas > 1 else (*_RED, *_RED_OF_ONE)
    return any(getattr(verdict, kind) for kind in kinds)


class Stage:
    """All the parts of a run, and what each fault does to them.

    redis_address:  host:port of a Redis that is not ours to kill; "" to start one.
    """

    def __init__(self, chaos: Chaos, folder: Path, redis_program: str, redis_address: str = "") -> None:
        self._chaos = chaos
        self._folder = folder
        self._redis_program = redis_program
        self._redis_address = redis_address
        self._redis: RedisServer | None = None
        self._addresses = folder / "addresses"
        self._stack = AsyncExitStack()
        self.pagerduty = PagerDutyProcess()
        self.routers: list[Router] = []

    async def __aenter__(self) -> Stage:
        enter = self._stack.enter_async_context
        try:
            if not self._redis_address:
                self._redis = await enter(RedisServer(self._redis_program, self._folder / "redis"))
                self._redis_address = f"127.0.0.1:{self._redis.port}"
            await enter(self.pagerduty)
            self._to_redis = await enter(FaultProxy(self._redis_address, seed=self._chaos.seed))
            self._to_pagerduty = await enter(
                FaultProxy(self.pagerduty.url.removeprefix("http://"), seed=self._chaos.seed)
            )
            rules = write_rules(self._folder / "rules")
            instance = f"chaos-{secrets.token_hex(4)}"  # a Redis that others use stays theirs
            for number in range(self._chaos.replicas):
                router = Router(
                    self._folder / f"replica-{number}",
                    rules,
                    f"http://{self._to_pagerduty.address}",
                    f"redis://{self._to_redis.address}/0",
                    ALERTROUTER_INSTANCE=instance,
                )
                self.routers.append(await enter(router))
            self._publish()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        for server in (*self.routers, self._redis):
            if server is not None:
                server.thaw()
        await self._stack.aclose()

    @property
    def ledger(self) -> Path:
        """What was acknowledged."""
        return self._folder / "ledger"

    def load(self) -> Load:
        """The sender."""
        chaos = self._chaos
        plan = Plan(0, chaos.identities, batch=4, rate=chaos.rate, seed=chaos.seed, services="search,payment,other")
        return Load(plan, self._addresses, self.ledger)

    def _publish(self) -> None:
        self._addresses.write_text("".join(f"{router.url}\n" for router in self.routers))

    async def perform(self, step: Step) -> None:
        """Do a fault, for as long as it lasts, and undo it."""
        match lane_of(step.fault):
            case "processes":
                await self._on_process(step)
            case "redis":
                await self._on_network(step, self._to_redis, step.fault.removeprefix("redis-"))
            case _:
                await self._on_network(step, self._to_pagerduty, step.fault.removeprefix("pd-"))

    async def _on_process(self, step: Step) -> None:
        for_s = step.for_ms / 1000
        server: Router | RedisServer = self.routers[step.replica]
        if step.fault.endswith("redis"):
            assert self._redis is not None, "a Redis that is not ours is not to be killed"
            server = self._redis
        if step.fault.startswith("freeze"):
            server.freeze()
            await asyncio.sleep(for_s)
            server.thaw()
            return
        await server.kill()
        await asyncio.sleep(for_s)
        await server.start()
        self._publish()

    async def _on_network(self, step: Step, proxy: FaultProxy, fault: str) -> None:
        for_s = step.for_ms / 1000
        if (script := _SCRIPT.get(fault)) is not None:
            await self.pagerduty.fail(script(step))
            await asyncio.sleep(for_s)
            await self.pagerduty.heal()
            return
        match fault:
            case "slow":
                proxy.slow(step.amount / 2000, step.amount / 4000)
            case "blackhole":
                proxy.blackhole()
            case "lost-answers":
                proxy.blackhole("answers")
            case "reset":
                proxy.reset_now()
            case "refuse":
                proxy.refuse()
            case "eat-answers":
                proxy.eat_answers()
            case "cut":
                proxy.cut(step.amount)
            case "script-flush":
                if self._redis is not None:
                    await self._redis.command("SCRIPT", "FLUSH")
            case _:
                raise ValueError(f"no such fault: {fault}")
        await asyncio.sleep(for_s)
        await proxy.heal()

    async def quiet(self) -> None:
        """Wait until nothing is due, waits or is in flight, nor is anything to come: what is scheduled are repairs, and
        after their time it is something else.
        """
        loop = asyncio.get_running_loop()
        repaired_at = loop.time() + (REPAIR_AFTER_MS + _REPAIRS_TAKE_MS) / 1000
        before = -1

        async def is_quiet() -> bool:
            nonlocal before
            queues = [await router.backlog() for router in self.routers]
            waiting = ["due", "waiting", "leased"] + (["scheduled"] if loop.time() < repaired_at else [])
            busy = any(not sizes or sum(sizes[name] for name in waiting) for sizes in queues)
            received = (await self.pagerduty.totals())["received"]
            same, before = received == before, received
            await asyncio.sleep(0.5)
            return same and not busy

        await until(is_quiet, _QUIET_WITHIN_S)


_SCRIPT: Mapping[str, Callable[[Step], Fault]] = {
    "status": lambda step: Fault(
        "status", status=(500, 502, 503)[step.amount % 3], times=0, one_in=1 + step.amount % 3
    ),
    "throttle": lambda step: Fault("status", status=429, times=0, retry_after=1 + step.amount % 3),
    "delay": lambda step: Fault("delay", delay_ms=4 * step.amount, times=0, one_in=2),
    "drip": lambda step: Fault("drip", delay_ms=step.amount // 10, times=0, one_in=2),
    "late": lambda step: Fault("late", delay_ms=11_000 + 4 * step.amount, times=1 + step.amount % 20),
    "reset-before": lambda step: Fault("reset_before", times=0, one_in=1 + step.amount % 3),
    "reset-after": lambda step: Fault("reset_after", times=0, one_in=1 + step.amount % 3),
}


async def run(stage: Stage, steps: Sequence[Step], duration_s: float) -> Verdict:
    """Perform the schedule under load, heal everything, wait for quiet, and ask the oracle."""
    loop = asyncio.get_running_loop()
    async with stage.load() as load:
        await until(lambda: load.accepted > 0)
        began = loop.time()

        async def perform_lane(lane: str) -> None:
            for step in steps:
                if lane_of(step.fault) == lane:
                    await asyncio.sleep(began + step.at_ms / 1000 - loop.time())
                    await stage.perform(step)

        async with asyncio.TaskGroup() as lanes:
            for lane in LANES:
                lanes.create_task(perform_lane(lane))
        await asyncio.sleep(began + duration_s - loop.time())
        load.stop()
        await load.finished(_QUIET_WITHIN_S)
    await stage.quiet()
    log = await stage.pagerduty.log()
    stage.ledger.with_name("pagerduty.log").write_bytes(log.encode())
    return judge(
        read_ledger(stage.ledger),
        log,
        await stage.pagerduty.open_alerts(),
        in_flight_ms=_IN_FLIGHT_MS,
        past_redis=True,
    )


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.rig.chaos",
        description="Break alertrouter at random, the same way for the same seed, and ask whether a promise was broken. "
        "It starts everything it needs on loopback: alertrouter from this checkout, a redis-server, a PagerDuty stand-in "
        "and a sender. Nothing is sent to the real PagerDuty. Exit code 1, and all logs kept, if a promise was broken.",
        epilog=f"faults: {', '.join(FAULTS)}",
    )
    parser.add_argument("--seed", type=int, default=None, help="what the schedule is drawn from; default: a new one")
    parser.add_argument("--duration", type=float, default=60, metavar="S", help="of the faults; default 60")
    parser.add_argument("--replicas", type=int, default=2, help="of alertrouter; default 2")
    parser.add_argument("--rate", type=float, default=200, help="alerts per second; default 200")
    parser.add_argument("--identities", type=int, default=400, help="how many different alerts; default 400")
    parser.add_argument("--longest", type=float, default=12, metavar="S", help="bound of each fault; default 12")
    parser.add_argument("--faults", default=",".join(FAULTS), help="comma-separated; default: all of them")
    parser.add_argument(
        "--redis",
        default="",
        metavar="HOST:PORT",
        help="a Redis of yours, 7.0 or later, without password, instead of one of ours: it is reached through the faulty "
        "network, never killed or frozen, and what is put there is named after an installation of the run's own",
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs though all is well")
    parser.add_argument("--schedule", action="store_true", help="print the schedule and do nothing")
    return parser.parse_args(arguments)


def _chaos_of(options: argparse.Namespace) -> Chaos:
    faults = [fault for fault in options.faults.split(",") if fault]
    if unknown := set(faults) - set(FAULTS):
        raise SystemExit(f"no such fault: {', '.join(sorted(unknown))}; one of {', '.join(FAULTS)}")
    if options.redis:
        faults = [fault for fault in faults if fault not in ("kill-redis", "freeze-redis", "script-flush")]
    return Chaos(
        seed=secrets.randbelow(10**6) if options.seed is None else options.seed,
        duration_s=options.duration,
        replicas=options.replicas,
        faults=faults,
        longest_s=options.longest,
        rate=options.rate,
        identities=options.identities,
    )


async def _main(chaos: Chaos, folder: Path, redis_address: str) -> bool:
    """True if every promise was kept."""
    redis_program = shutil.which("redis-server")
    if redis_program is None and not redis_address:
        raise SystemExit("redis-server is not installed; install it, or name a Redis with --redis")
    async with Stage(chaos, folder, redis_program or "", redis_address) as stage:
        verdict = await run(stage, schedule(chaos), chaos.duration_s)
    _say(f"\n{verdict}")
    return not is_red(verdict, chaos.replicas)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> int:
    """Run, and return the exit code."""
    options = _options()
    chaos = _chaos_of(options)
    _say(f"seed {chaos.seed}")
    for step in schedule(chaos):
        _say(str(step))
    if options.schedule:
        return 0
    folder = Path(tempfile.mkdtemp(prefix=f"alertrouter-chaos-{chaos.seed}-"))
    kept = False
    try:
        kept = asyncio.run(_main(chaos, folder, options.redis))
    finally:
        if kept and not options.keep:
            shutil.rmtree(folder)
        else:
            _say(f"logs, ledger and PagerDuty's log are in {folder}")
    _say("every promise was kept" if kept else f"red: again with --seed {chaos.seed}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
