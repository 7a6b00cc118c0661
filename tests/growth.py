"""How cost grows with size, which says more of a loop within a loop than seconds do."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time

#: Where the cost is that of the size, four times as much takes four times as long, and sixteen times where each part
#: of it is looked at for each other part.
MOST_GROWTH = 12


def growth(do: Callable[[int], object], size: int) -> float:
    """How many times as long four times as much takes. The best of three tries."""
    return min(_seconds(do, 4 * size) / max(_seconds(do, size), 5e-4) for _ in range(3))


def _seconds(do: Callable[[int], object], size: int) -> float:
    began = thread_time()
    do(size)
    return thread_time() - began
