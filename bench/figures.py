"""Medians, spreads and percentiles."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median and range of several measurements."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        """Format the median, then the range."""
        return f"{number(self.median)} ({number(self.lowest)} - {number(self.highest)})"


def spread(values: Sequence[float]) -> Spread:
    """Return median and range of the values.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("nothing was measured")
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest measured value that a ``share`` of all values do not exceed."""
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * round(share * 1000) // 1000))  # rounded up
    return ordered[rank - 1]


def number(value: float) -> str:
    """Format a figure with three significant digits, or two if it is small."""
    if 0 < value < 0.1:
        return f"{value:.2g}"
    if value >= 100:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
