"""Which points are counted, and how they are named."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

from arqonce.testing.crash.points import Moment, Points, _Counted


async def _points_of(coroutine: Coroutine[Any, Any, None]) -> list[str]:
    told: list[dict[str, Any]] = []
    await _Counted(coroutine, Points(told.append, ""))
    return [report["point"] for report in told]


async def _wait_twice() -> None:
    for _ in range(2):
        await asyncio.sleep(0)


async def test_each_await_has_two_points() -> None:
    """Sent, answered; the same line again is another point."""
    points = await _points_of(_wait_twice())

    expected = [Moment.BEGINS, *[Moment.SENT, Moment.ANSWERED] * 2]
    assert all(re.fullmatch(r"\S*test_points.py:\d+ in _wait_twice.*", point) for point in points)
    assert [point.partition(", ")[2].removesuffix(" (time 2)") for point in points] == [one.value for one in expected]
    assert len(set(points)) == 5


async def test_waiting_for_a_task_of_its_own_has_no_points() -> None:
    """The task's own points are counted, and between them and those of the waiting nothing happens."""
    told: list[dict[str, Any]] = []
    points = Points(told.append, "")

    async def wait() -> None:
        points.tasks += 1  # as the task factory does
        await asyncio.sleep(0)

    await _Counted(wait(), points)

    assert [report["point"].partition(", ")[2] for report in told] == [Moment.BEGINS.value]
