"""Cache variables: what the rules of one file remember from alert to alert, and read as `cache_var.<name>`.

The values themselves are kept elsewhere. Like a count, one is asked for by its query, and what is to be remembered is
handed back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from alertrouter.rules.condition import Condition, View
from alertrouter.rules.moment import CacheQuery, CacheWrite, CountQuery, Moment, Wanted
from alertrouter.rules.templates import Pattern


@dataclass(frozen=True, slots=True)
class CacheVariable:
    """One that is named `name` in its file, and `key` outside of it. Its turn comes when one of its conditions holds.

    looks_back: whether it reads other cache variables; those before it are known by then.
    """

    name: str
    key: str
    conditions: tuple[Condition, ...]
    looks_back: bool


@dataclass(frozen=True, slots=True)
class RecentValue(CacheVariable):
    """What the pattern found last. Not there until it has found something."""

    pattern: Pattern


@dataclass(frozen=True, slots=True)
class TriggerCount(CacheVariable):
    """How many triggers had their turn within `window_ms`, this one included."""

    window_ms: int


@dataclass(slots=True)
class CacheReading:
    """The values of cache variables by name, and what is to be remembered of them."""

    values: dict[str, str | int] = field(default_factory=dict)
    writes: list[CacheWrite] = field(default_factory=list)


def read_cache(variables: Iterable[CacheVariable], view: View, now: Moment) -> CacheReading:
    """The values of a file's cache variables for one alert. Raises Wanted for all that can be asked for at once."""
    reading = CacheReading()
    view = {**view, "cache_var": reading.values}
    wanted: list[CountQuery | CacheQuery] = []
    for variable in variables:
        if wanted and variable.looks_back:
            break
        query = _take_turn(variable, view, now, reading)
        if query and not now.knows(query):
            wanted.append(query)
        elif isinstance(query, CountQuery):
            reading.values[variable.name] = now.number(query)
        elif query and (value := now.remembered(query)) is not None:
            reading.values[variable.name] = value
    if wanted:
        raise Wanted(*wanted)
    return reading


def _take_turn(
    variable: CacheVariable, view: View, now: Moment, reading: CacheReading
) -> CountQuery | CacheQuery | None:
    """What has to be asked for the variable's value; None where this alert has told it."""
    holds = not variable.conditions or any(condition.run(view, now) is True for condition in variable.conditions)
    match variable:
        case TriggerCount():
            return CountQuery(variable.key, variable.window_ms, resetting=False, peek=not (holds and now.counted))
        case RecentValue() if holds and (found := variable.pattern.render(view, [])):
            reading.values[variable.name] = found
            reading.writes.append(CacheWrite(variable.key, found))
            return None
    return CacheQuery(variable.key)
