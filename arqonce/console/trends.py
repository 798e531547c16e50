"""Makes the charts of queues from what workers have written of them (``connection.trend``)."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from aiohttp import web
from redis.asyncio import Redis
from redis.exceptions import RedisError

from arqonce.connection.trend import Part, Times, read_trend
from arqonce.console.charts import Chart, Series, Value, draw
from arqonce.console.core import console_of
from arqonce.console.poll import Reading
from arqonce.console.rendering import duration, number
from arqonce.overview.looks import Looks


class Range(NamedTuple):
    """How far back charts go, and in which steps."""

    length: timedelta
    step: timedelta


RangeName = Literal["hour", "day"]

RANGES: Mapping[RangeName, Range] = {
    "hour": Range(timedelta(hours=1), timedelta(minutes=1)),
    "day": Range(timedelta(days=1), timedelta(minutes=10)),
}


async def charts_of(
    request: web.Request, reading: Reading, range_: RangeName, queue: str | None = None
) -> Sequence[Chart]:
    """Return the charts of a queue, or of all of the reading together; none if Redis is away or the user may not look.

    One round trip.
    """
    if reading.queues is None:
        return ()
    queues = list(reading.queues.queues) if queue is None else [queue]
    none: Sequence[Chart] = ()
    try:
        redis = console_of(request).redis
        return await Looks().in_redis("charts", _read_charts(redis, queues, RANGES[range_], reading.at), none)
    except (RedisError, OSError):
        return none  # the next reading says so


async def _read_charts(redis: Redis, queues: Sequence[str], range_: Range, now: datetime) -> list[Chart]:
    """Return the charts of these queues together: what ended, what waits, and how long both took."""
    if not queues:
        return []
    parts = await read_trend(redis, queues, length=range_.length, step=range_.step, now=now.timestamp())
    last = now.timestamp() // range_.step.total_seconds() * range_.step.total_seconds()
    ends = datetime.fromtimestamp(last, UTC)
    times = [ends - range_.step * (len(parts) - 1 - at) for at in range(len(parts))]
    # A minute that has not ended has few jobs: it would look as if all workers had just stopped.
    return [_ends(times, [*parts[:-1], None], range_), _waiting(times, parts), *_durations(times, parts)]


def _ends(times: Sequence[datetime], parts: Sequence[Part | None], range_: Range) -> Chart:
    each = "minute" if range_.step == timedelta(minutes=1) else f"{range_.step // timedelta(minutes=1)} minutes"
    looks = {"succeeded": "good", "refused": "soft", "failed": "warning", "dead": "bad"}
    names = {"succeeded": "Succeeded", "refused": "Refused", "failed": "Failed attempts", "dead": "Dead"}
    series = [
        Series(
            name=names[field],
            look=look,
            values=[None if part is None else float(getattr(part, field)) for part in parts],
            is_filled=field == "succeeded",
        )
        for field, look in looks.items()
    ]
    return draw("chart-ends", f"Jobs in each {each}", times, series, _count)


def _waiting(times: Sequence[datetime], parts: Sequence[Part | None]) -> Chart:
    gauges = [None if part is None else part.gauges for part in parts]
    waiting = [None if one is None else float(one.waiting) for one in gauges]
    held = [None if one is None else float(one.held) for one in gauges]
    series = [
        Series(name="Waiting", look="main", values=waiting, is_filled=True),
        Series(name="Held", look="soft", values=held),
    ]
    return draw("chart-waiting", "Jobs that wait", times, series, _count)


def _durations(times: Sequence[datetime], parts: Sequence[Part | None]) -> list[Chart]:
    wait = [None if part is None else part.wait for part in parts]
    run = [None if part is None else part.run for part in parts]
    return [
        draw("chart-wait", "From due to started", times, _shares(wait), _seconds),
        draw("chart-run", "Run time", times, _shares(run), _seconds),
    ]


def _shares(found: Sequence[Times | None]) -> list[Series]:
    return [
        Series(name="Half within", look="main", values=[_quantile(one, 0.5) for one in found]),
        Series(name="95 % within", look="warning", values=[_quantile(one, 0.95) for one in found]),
    ]


def _quantile(times: Times | None, share: float) -> Value:
    found = None if times is None else times.quantile(share)
    return None if found is None else found.total_seconds()


def _count(value: Value) -> str:
    return number(value) if value is None or value >= 1 or value == 0 else f"{value:.1f}"


def _seconds(value: Value) -> str:
    return duration(value)
