"""The table that a reliability run ends with: each goal, what was aimed at, and what came out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

#: The property of a test's report that holds its rows, as plain data.
PROPERTY = "reliability"
_HEADINGS = ("Goal", "What", "Aim", "Figure", "Held")


@dataclass(frozen=True, slots=True)
class Row:
    """One goal. held: None where the figure is only shown."""

    goal: str
    what: str
    aim: str
    figure: str
    held: bool | None


def shown(value: object) -> str:
    """A figure as text: whole numbers with separators, others with at most three digits after the point."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")


def render(rows: Sequence[Row]) -> list[str]:
    """The lines of the table, goals in order of their numbers."""
    held = {True: "yes", False: "NO", None: ""}
    cells = [_HEADINGS, *((*astuple(row)[:4], held[row.held]) for row in sorted(rows, key=_order))]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return [lines[0], "-|-".join("-" * width for width in widths), *lines[1:]]


def _order(row: Row) -> tuple[int, str, str]:
    digits = "".join(char for char in row.goal if char.isdigit())
    return int(digits or 10_000), row.goal, row.what
