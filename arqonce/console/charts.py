"""Draws charts: where the points of SVG shapes are. The template ``charts.html`` makes the elements.

Shapes fill a box of 600 by 120 that is stretched to the width of the page; labels are text beside it, so that they can
be read on a telephone. A gap in the figures is a gap in the line. Series differ by dashes, not by colour alone, and the
same figures are in a table.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

WIDTH, HEIGHT = 600, 120

_GRID = 2
"""Parts between the lines of the grid."""

_FACTORS = (1, 2, 4, 6, 10)
"""The top of a chart is one of these, times a power of ten: so that half of it is a number that can be read."""

Value = float | None


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    look: str
    """A class of the style sheet: good, warning, bad, main or soft."""

    values: Sequence[Value]
    """One for each time; ``None``: it is not known."""

    is_filled: bool = False
    """Whether the area below is filled."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A series as shapes."""

    name: str
    look: str
    path: str
    """Of the lines, in SVG's language; empty if no value is known."""

    area: str
    """Of the areas below; empty if they are not filled."""


class Row(NamedTuple):
    """What the table says of one time."""

    since: datetime
    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawn chart."""

    id: str
    title: str
    lines: Sequence[Line]
    summary: str
    """What a screen reader says of it."""

    marks: Sequence[str]
    """Labels of the grid, from the top to zero."""

    since: datetime
    middle: datetime
    until: datetime
    rows: Sequence[Row]
    """The latest one first, without times at which nothing is known."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.rows


def draw(
    id_: str, title: str, times: Sequence[datetime], series: Sequence[Series], show: Callable[[Value], str]
) -> Chart:
    """Draw series over the same two times at least, from zero to the largest value; ``show`` formats a value."""
    known = [value for one in series for value in one.values if value is not None]
    top = _top(max(known, default=0))
    rows = [
        Row(since, [show(value) for value in values])
        for since, values in zip(times, zip(*(one.values for one in series), strict=True), strict=True)
        if any(value is not None for value in values)
    ]
    return Chart(
        id=id_,
        title=title,
        lines=[_line(one, top) for one in series],
        summary="; ".join(_summary(one, show) for one in series),
        marks=[show(top * (_GRID - at) / _GRID) for at in range(_GRID)] + ["0"],
        since=times[0],
        middle=times[len(times) // 2],
        until=times[-1],
        rows=rows[::-1],
    )


def _top(highest: float) -> float:
    if highest <= 0 or not math.isfinite(highest):
        return 1
    power: float = 10.0 ** math.floor(math.log10(highest))
    return next(power * factor for factor in _FACTORS if power * factor >= highest or factor == _FACTORS[-1])


def _summary(series: Series, show: Callable[[Value], str]) -> str:
    known = [value for value in series.values if value is not None]
    if not known:
        return f"{series.name}: not known"
    return f"{series.name}: {show(known[-1])} at the end, {show(max(known))} at most"


def _line(series: Series, top: float) -> Line:
    last = len(series.values) - 1
    parts = [
        [(WIDTH * at / last, HEIGHT * (1 - value / top)) for at, value in part] for part in _known_parts(series.values)
    ]
    return Line(
        name=series.name,
        look=series.look,
        path=" ".join(_path(part) for part in parts),
        area=" ".join(_area(part) for part in parts if len(part) > 1) if series.is_filled else "",
    )


def _known_parts(values: Sequence[Value]) -> list[list[tuple[int, float]]]:
    """Return the values with their places, split where some are not known."""
    parts: list[list[tuple[int, float]]] = [[]]
    for at, value in enumerate(values):
        if value is not None:
            parts[-1].append((at, value))
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _path(points: Sequence[tuple[float, float]]) -> str:
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"M{drawn}" if len(points) > 1 else f"M{drawn} h.1"  # a point alone is a dot, by its round end


def _area(points: Sequence[tuple[float, float]]) -> str:
    return f"{_path(points)} V{HEIGHT} H{points[0][0]:.1f} Z"
