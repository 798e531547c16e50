"""Charts: where their lines are, and what pages show of them."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from arqonce.connection.trend import nothing_counted
from arqonce.console.charts import HEIGHT, WIDTH, Chart, Series, Value, draw
from tests.arqonce.console.conftest import Browser

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _draw(*values: Value, is_filled: bool = False) -> Chart:
    times = [_BEGIN + timedelta(minutes=at) for at in range(len(values))]
    series = [Series(name="Waiting", look="main", values=values, is_filled=is_filled)]
    return draw("c", "Jobs", times, series, lambda value: "-" if value is None else f"{value:g}")


def test_a_line_goes_from_zero_to_the_top() -> None:
    """The first time is at the left, the last one at the right; zero is at the bottom."""
    chart = _draw(0, 10, 5)

    assert chart.lines[0].path == f"M0.0,{HEIGHT}.0 {WIDTH / 2},0.0 {WIDTH}.0,{HEIGHT / 2}"
    assert chart.marks == ["10", "5", "0"]
    assert chart.summary == "Waiting: 5 at the end, 10 at most"


def test_a_gap_is_a_gap() -> None:
    """No line leads over a time at which nothing is known; a value alone is a dot."""
    chart = _draw(1, 1, None, 1, None, None, 1, 1, is_filled=True)

    assert chart.lines[0].path.count("M") == 3
    assert chart.lines[0].path.count("h.1") == 1
    assert chart.lines[0].area.count("Z") == 2
    assert [row.since.minute for row in chart.rows] == [7, 6, 3, 1, 0]


@pytest.mark.parametrize(
    ("most", "top"), [(0, "1"), (0.3, "0.4"), (1, "1"), (7, "10"), (11, "20"), (450, "600"), (1e6, "1e+06")]
)
def test_the_top_is_a_number_that_can_be_read(most: float, top: str) -> None:
    """It is the largest value or not much more."""
    assert _draw(0, most).marks[0] == top


def test_nothing_known_is_said() -> None:
    """A chart without a value is empty, and one of endless values does not fail."""
    assert _draw(None, None).is_empty
    assert _draw(1, float("inf")).marks[0] == "1"


async def _write(redis: Redis, queue: str, **minutes_ago: int) -> None:
    for ago, succeeded in minutes_ago.items():
        numbers = [float(succeeded), *nothing_counted()[1:], 7, 0, 3000]
        minute = int(time.time() // 60) - int(ago.removeprefix("m"))
        await redis.set(f"arqonce:trend:{minute}:{queue}", json.dumps(numbers))


async def test_the_overview_has_charts_of_all_queues(rob: Browser, redis: Redis) -> None:
    """With a title, a description, and a table of the same figures; and no style or script inside."""
    await _write(redis, "arq:queue", m3=5, m4=6, m10=7)

    page = (await rob.get("/")).page

    charts = [one for one in page.of("svg") if one.get("role") == "img"]
    assert [one["aria-labelledby"] for one in charts][:2] == [
        "chart-ends-title chart-ends-desc",
        "chart-waiting-title chart-waiting-desc",
    ]
    assert "Succeeded: 5 at the end, 7 at most" in page.text
    assert not any("style" in attributes for _, attributes in page.tags)


async def test_a_queue_has_charts_of_an_hour_or_a_day(rob: Browser, redis: Redis) -> None:
    """And says which; other lengths there are none."""
    await _write(redis, "arq:queue", m3=5, m300=600)

    hour = (await rob.get("/queue?name=arq:queue")).page.text
    day = (await rob.get("/queue?name=arq:queue&range=day")).page.text
    other = await rob.get("/queue?name=arq:queue&range=year")

    assert ("The last hour" in hour, "600 at most" in hour) == (True, False)
    assert ("The last day" in day, "600 at most" in day) == (True, True)
    assert other.status == 400
