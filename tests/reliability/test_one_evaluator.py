"""One evaluator: random rules and histories go through serve, test, explain and replay, which must agree in everything.

A case is one alert heard under one rule set: 10,000 of them, with ALERTROUTER_RELIABILITY_LONG=1 500,000, or as many as
ALERTROUTER_RELIABILITY_CASES says. A difference prints the smallest rules and history that still have it, and the
ALERTROUTER_RELIABILITY_SEED with which it is the first one found.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog
import uvloop
from click.testing import CliRunner

from alertrouter.cli import main
from alertrouter.rules.model import Decision
from alertrouter.simulation.quick_client import QuickClient
from alertrouter.store.embedded import start_embedded
from tests.alerts import NIGHT
from tests.reliability.conftest import Figure, first_seed
from tests.reliability.one_evaluator import (
    Case,
    Course,
    Sent,
    Ways,
    alerts_of,
    cut_down,
    decisions,
    first_difference,
    load,
    random_history,
    random_rules,
    recorded,
    served,
    served_over_http,
    write_test,
)

#: Under each rule set, for it takes as long to load as some histories.
HISTORIES = 16
HISTORIES_OF_A_PAIR = 4
WEBHOOKS = 7
#: A service takes a second to start, to be told of every second that passes, and to end.
SERVICES = 6
WEBHOOKS_OF_A_SERVICE = 20
BODIES_EXPLAINED = 3


def cases(long: bool) -> int:
    return int(os.environ.get("ALERTROUTER_RELIABILITY_CASES") or (500_000 if long else 10_000))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@asynccontextmanager
async def all_ways(redis_url: str, folder: Path) -> AsyncIterator[Ways]:
    """The ways on Debian's Redis and on the embedded one."""
    server = await start_embedded(folder / "redis", durable=False)
    try:
        with (
            QuickClient(Path(redis_url.removeprefix("unix://"))) as redis,
            QuickClient(Path(server.url.removeprefix("unix://"))) as embedded,
        ):
            yield Ways(redis, embedded, folder)
    finally:
        await server.stop()


@contextmanager
def reproducible(number: int) -> Iterator[Random]:
    """Chance that whatever fails in here can be had again."""
    try:
        yield Random(number)
    except BaseException as error:
        error.add_note(f"ALERTROUTER_RELIABILITY_SEED={number}")
        raise


@pytest.mark.takes_minutes
@pytest.mark.timeout(0)
def test_serve_test_explain_and_replay_agree(redis_url: str, tmp_path: Path, long: bool, figure: Figure) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(agree(redis_url, tmp_path, cases(long), first_seed(long), figure))


async def agree(redis_url: str, folder: Path, wanted: int, first: int, figure: Figure) -> None:
    heard = number = 0
    async with all_ways(redis_url, folder) as ways:
        try:
            while heard < wanted:
                with reproducible(first + number) as rng:
                    rules = random_rules(rng)
                    histories = [random_history(rng, WEBHOOKS) for _ in range(HISTORIES)]
                    which, different = await ways.difference(load(folder / "rules", rules), histories)
                    assert not different, await in_short(Case(rules, histories[which]), ways.differing)
                heard += sum(Case(rules, history).heard for history in histories)
                number += 1
        finally:
            what = (
                f"serve, test, explain and replay: {heard:,} alerts heard in {number * HISTORIES:,} histories under "
                f"{number:,} rule sets, {ways.judged:,} decisions and {ways.sent:,} events"
            )
            figure("Evaluator", what, "0", int(heard < wanted), heard >= wanted)


async def in_short(case: Case, differing: Callable[[Case], Awaitable[str]]) -> str:
    """The smallest case that still has the difference, and that."""
    smallest = await cut_down(case, differing)
    return f"two ways disagree\n{smallest.written()}\n{await differing(smallest)}"


@pytest.mark.timeout(0)
def test_replay_of_changed_rules_sends_what_serve_would_have_sent(
    redis_url: str, tmp_path: Path, long: bool, figure: Figure
) -> None:
    """Recorded under one rule set, replayed against another: what was a duplicate under the first may be news."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(foretell(redis_url, tmp_path, cases(long) // 10, first_seed(long), figure))


async def foretell(redis_url: str, folder: Path, wanted: int, first: int, figure: Figure) -> None:
    heard = number = 0
    async with all_ways(redis_url, folder) as ways:
        try:
            while heard < wanted:
                with reproducible(first + number) as rng:
                    old, new = random_rules(rng), random_rules(rng)
                    both = {f"before/{name}": each for name, each in old.items()}
                    both |= {f"after/{name}": each for name, each in new.items()}
                    before, after = load(folder / "before", old), load(folder / "after", new)
                    for _ in range(HISTORIES_OF_A_PAIR):
                        case = Case(both, random_history(rng, WEBHOOKS, steady=True))
                        different = await ways.replay_difference(before, after, case.history)
                        assert not different, await in_short(case, ways.differing_replay)
                        heard += case.heard
                number += 1
        finally:
            what = f"replay of changed rules: {heard:,} alerts heard under {number:,} pairs of rule sets"
            figure("Evaluator", what, "0", int(heard < wanted), heard >= wanted)


@pytest.mark.timeout(0)
def test_the_running_service_and_the_commands_agree(redis_url: str, tmp_path: Path, long: bool, figure: Figure) -> None:
    """The same with nothing left out: webhooks over HTTP, PagerDuty over HTTP, shadow rules, and the commands as called."""
    rounds, first = 20 * SERVICES if long else SERVICES, first_seed(long)
    heard = done = 0
    try:
        for number in range(rounds):
            with reproducible(first + number) as rng:
                case = Case(random_rules(rng, sharing=False), random_history(rng, WEBHOOKS_OF_A_SERVICE))
                found = compare_whole(case, redis_url, tmp_path / str(number), rng)
                assert not found, f"two ways disagree\n{case.written()}\n{found}"
            heard += case.heard
            done += 1
    finally:
        what = (
            f"the same through `running`, HTTP and the commands themselves: {heard:,} alerts heard, {done:,} rule sets"
        )
        figure("Evaluator", what, "0", int(done < rounds), done == rounds)


def compare_whole(case: Case, redis_url: str, folder: Path, rng: Random) -> str:
    """The first difference between worker, running service and commands; "" for none."""
    folder.mkdir()
    loaded = load(folder / "rules", case.rules)
    instance = f"whole-{secrets.token_hex(4)}"
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        QuickClient(Path(redis_url.removeprefix("unix://"))) as redis,
    ):
        serve = runner.run(served(redis, f"{instance}-worker", loaded, case.history))
        over_http, shadow = runner.run(served_over_http(loaded, redis_url, folder, instance, case.history))
        runner.run(recorded(redis, instance, folder / "history.jsonl"))
    found = (
        first_difference("decides otherwise over HTTP", by_alert(decisions(serve)), by_alert(decisions(over_http)))
        or first_difference("sends otherwise over HTTP", by_incident(serve.sent), by_incident(over_http.sent))
        or first_difference("hears otherwise over HTTP", [sorted(words) for words in serve.words], over_http.words)
        or first_difference("ends otherwise over HTTP", serve.stood, over_http.stood)
    )
    if found or shadow["differing"] or shadow["skipped"]:
        return found or f"the same rules as a shadow differ: {shadow}"
    write_test(loaded.folder / "tests" / "one_test.yaml", [case.history], [serve])
    tested = CliRunner().invoke(main, ["test", str(loaded.folder)])
    if tested.exit_code:
        return f"`alertrouter test` expects otherwise:\n{tested.output}"
    rules = str(loaded.folder)
    words = ["replay", "--rules", rules, "--against", rules, "--strict", "-o", "json"]
    replayed = CliRunner().invoke(main, [*words, str(folder / "history.jsonl")])
    answer = json.loads(replayed.stdout) if not replayed.exit_code else {"changes": {}, "sides": {}}
    sent = [side["events_sent"] for side in answer["sides"].values()]
    if any(answer["changes"].values()) or sent != [len(serve.sent)] * 2:
        return f"`alertrouter replay` sends otherwise than these {len(serve.sent)} events:\n{replayed.output}"
    return "".join(
        explained_otherwise(rules, webhook, serve)
        for webhook in rng.sample(case.history, min(BODIES_EXPLAINED, len(case.history)))
    )


def explained_otherwise(rules: str, webhook: Mapping[str, Any], serve: Course) -> str:
    """Where `alertrouter explain`, given the body, says other than serve decided, as far as that knew no more."""
    at = NIGHT + webhook["at"]
    moment = datetime.fromtimestamp(at / 1000, UTC).isoformat()
    words = ["explain", "--source", webhook["source"].partition("/")[0], "--rules", rules, "--at", moment]
    shown = CliRunner().invoke(main, [*words, "-o", "json", "-"], input=json.dumps(webhook["body"]))
    if shown.exit_code:
        return f"`alertrouter explain` fails:\n{shown.output}"
    of_alert = {each.alert.id: each for each in reversed(serve.judged) if each.at == at and each.is_first}
    for alert, told in zip(alerts_of(webhook), json.loads(shown.stdout), strict=True):
        judged = of_alert.get(alert.id)
        if judged is None or judged.alert != alert:  # a duplicate, or heard twice in this body
            continue
        decision = judged.decision
        noted = {
            "service": decision.service,
            "severity": decision.event.severity.value,
            "priority": decision.priority,
            "matched": list(decision.matched),
            "rule": decision.rule,
            "reason": decision.reason,
            "destinations": list(decision.destinations),
            "suspend_ms": decision.suspend_ms,
        }
        if noted != {name: told[name] for name in noted}:
            return f"`alertrouter explain` says otherwise of {alert.id}:\n  serve: {noted}\n  other: {told}"
    return ""


def by_alert(decided: list[tuple[int, str, int, Decision]]) -> list[tuple[int, str, int, Decision]]:
    """In the order of time for each alert: what happens to several at once has no order."""
    return sorted(decided, key=lambda each: each[:2])


def by_incident(sent: list[Sent]) -> list[Sent]:
    """In the order of time for each incident."""
    return sorted(sent, key=lambda each: (each[0], each[1], each[2]["dedup_key"]))
