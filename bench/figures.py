"""Medians, spreads and percentiles."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        """Write the median, then the range."""
        return f"{number(self.median)} ({number(self.lowest)} - {number(self.highest)})"


def spread(values: Sequence[float]) -> Spread:
    """Summarise.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of all do not exceed: the smallest such that was measured."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * round(share * 1000) // 1000))  # rounded up
    return ordered[rank - 1]


def number(value: float) -> str:
    """Write a figure with the digits that it deserves: three, two if it is small."""
    if 0 < value < 0.1:
        return f"{value:.2g}"
    if value >= 100:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
