"""What rules cost: directories of 10 to 10,000 of them loaded, and one alert taken through each."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time, process_time_ns

from rich.table import Table

from alertrouter.alert import Alert
from alertrouter.rules.condition import compile_condition
from alertrouter.rules.evaluate import evaluate
from alertrouter.rules.load import load_rules
from alertrouter.rules.model import Ruleset
from alertrouter.sources.alertmanager import parse

COUNTS = (10, 100, 1_000, 10_000)
EVALUATIONS = 200
ROUNDS = 50
NOW = 1_799_550_000_000


def measure_rules(body: bytes) -> Table:
    """A row for each size of directory; `body` is a webhook of Alertmanager with one alert."""
    table = Table("rules", "load s", "none matches us", "last matches us", "of 10 rules", title="rules, one core")
    alert = parse(body, {}, "alertmanager").alerts[0]
    least = 0.0
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as directory:
            none, seconds = _load(Path(directory), count, last="Other")
            last, _ = _load(Path(directory), count, last="Bench")
        missed, matched = _microseconds(alert, none), _microseconds(alert, last)
        least = least or max(missed, matched)
        ratio = max(missed, matched) / least
        table.add_row(f"{count:,}", f"{seconds:.2f}", f"{missed:.1f}", f"{matched:.1f}", f"{ratio:.2f}")
    return table


def _load(directory: Path, count: int, last: str) -> tuple[Ruleset, float]:
    (directory / "router.yaml").write_text("catch_all: {route_to: unrouted}\n")
    (directory / "global.yaml").write_text("sets:\n  start:\n" + "".join(_rules(count, last)))
    compile_condition.cache_clear()  # or a reload is measured, which compiles only what has changed
    began = process_time()
    ruleset = load_rules(directory)
    return ruleset, process_time() - began


def _rules(count: int, last: str) -> Iterator[str]:
    """Of 50 rules 40 name a service, 9 have a regex and 1 only says what must not be. None matches but, perhaps, the last."""
    for number in range(count - 1):
        yield _rule(number, _condition(number))
    yield _rule(count - 1, f"event.custom_details.alertname == '{last}' and event.custom_details.service == 'search'")


def _condition(number: int) -> str:
    label = f"event.custom_details.label_{number % 8}"
    match number % 50:
        case 7:
            return f"not {label} == 'value-{number % 8}-of-some-length'"
        case kind if kind % 5 == 1 and kind != 46:
            return f"event.summary matches regex '^(disk|volume) {number} .*full'"
    service = f"event.custom_details.service == 'service-{number}'"
    return f"{service} and event.custom_details.env == 'production' and {label} matches part 'value'"


def _rule(number: int, condition: str) -> str:
    return f'    - rule: rule-{number}\n      when: "{condition}"\n      then: {{annotate: note {number}}}\n'


def _microseconds(alert: Alert, ruleset: Ruleset) -> float:
    """The cost of one evaluation: of several rounds the best, least disturbed one."""
    gc.collect()
    rounds = []
    for _ in range(ROUNDS):
        began = process_time_ns()
        for _ in range(EVALUATIONS):
            evaluate(alert, ruleset, NOW)
        rounds.append((process_time_ns() - began) / EVALUATIONS / 1000)
    return min(rounds)
