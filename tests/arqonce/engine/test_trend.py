"""What a worker writes of its queues for charts, and how it is read."""

import asyncio
import json
import time
from datetime import timedelta

import pytest
from arq.connections import ArqRedis
from arq.worker import Retry
from redis.asyncio import Redis
from redis.exceptions import RedisError

from arqonce.connection.queue_status import QueueStatus
from arqonce.connection.trend import (
    KEPT,
    WAIT,
    Times,
    count_since,
    count_time,
    nothing_counted,
    read_trend,
    write_counts,
    write_gauges,
)
from arqonce.engine.trend import Trend, TrendCounts
from arqonce.work import Observer
from tests.arqonce.conftest import BuildWorker, run_in_background, stop
from tests.conftest import wait_until_async

MINUTE = timedelta(minutes=1)


async def good(_ctx: dict[str, object]) -> None:
    """Succeed."""


async def slow(_ctx: dict[str, object]) -> None:
    """Succeed after a while."""
    await asyncio.sleep(0.05)


async def bad(_ctx: dict[str, object]) -> None:
    """Fail for good."""
    raise ValueError


async def later(ctx: dict[str, int]) -> None:
    """Fail once."""
    if ctx["job_try"] == 1:
        raise Retry(defer=0)


async def test_a_worker_writes_how_its_jobs_fared(redis: Redis, pool: ArqRedis, build: BuildWorker) -> None:
    """Each end and each failed attempt counts once, also what was counted since the last writing before it ended."""
    await _begin_minute()
    worker = await build(good, slow, bad, later, burst=False)
    for name in ("good", "good", "slow", "bad", "later"):
        await pool.enqueue_job(name)
    running = await run_in_background(worker)

    await wait_until_async(lambda: _are_done(worker), 10)
    await worker.close()
    await stop(running)

    (part,) = await read_trend(redis, ["arq:queue"], length=MINUTE)
    assert part is not None
    assert (part.succeeded, part.failed, part.dead + part.refused) == (4, 1, 1)
    assert (part.wait.number, part.run.number) == (6, 6)
    assert timedelta(milliseconds=50) <= (part.run.quantile(1) or timedelta(0)) < timedelta(seconds=5)


async def _are_done(worker: object) -> bool:
    return getattr(worker, "jobs_complete", 0) + getattr(worker, "jobs_failed", 0) == 5


async def test_whoever_is_first_in_a_minute_measures_the_queue(redis: Redis) -> None:
    """The second one is not asked to; what others have counted stays."""
    await _begin_minute()
    first = await write_counts(redis, {"a": nothing_counted(), "b": nothing_counted()})
    second = await write_counts(redis, {"a": _one_waited(30)})
    await write_gauges(redis, {"a": _status(7)})
    await write_counts(redis, {"a": _one_waited(30)})

    (part,) = await read_trend(redis, ["a"], length=MINUTE)
    assert (first, second) == (["a", "b"], [])
    assert part is not None
    assert part.gauges is not None
    assert (part.wait.number, part.gauges.waiting, part.gauges.oldest) == (2, 7, timedelta(seconds=3))


def _one_waited(milliseconds: float) -> list[float]:
    numbers = nothing_counted()
    count_time(numbers, WAIT, milliseconds)
    return numbers


def _status(waiting: int) -> QueueStatus:
    return QueueStatus(
        waiting=waiting, deferred=0, running=0, oldest_waiting=timedelta(seconds=3), held=0, paused=False
    )


async def _begin_minute() -> None:
    """Wait for the next minute of the server if this one ends soon."""
    if (left := 60 - time.time() % 60) < 3:
        await asyncio.sleep(left + 0.1)


async def test_an_idle_worker_measures_and_writes_nothing_more(redis: Redis) -> None:
    """A minute in which nothing happens has one short text, which expires."""
    await _begin_minute()
    for _ in range(3):
        await write_counts(redis, {"idle": nothing_counted()})
    (key,) = await redis.keys("arqonce:trend:*")
    size, left = await redis.strlen(key), await redis.pttl(key)

    assert size < 100
    assert 0 < left <= KEPT / timedelta(milliseconds=1)


async def test_what_could_not_be_written_is_written_later(redis: Redis) -> None:
    """In an outage of Redis nothing of it is lost."""
    await _begin_minute()
    counts = TrendCounts(["q"], Observer())
    counts.put_back({"q": _one_waited(30)})

    async with Redis(port=1) as away:
        with pytest.raises(RedisError):
            await Trend(away, counts).write()
    await Trend(redis, counts).write()

    (part,) = await read_trend(redis, ["q"], length=MINUTE)
    assert part is not None
    assert part.wait.number == 1


async def test_gaps_stay_gaps_and_steps_add_up(redis: Redis) -> None:
    """A part without any text is none; one of several minutes has their sums, and the worst of their gauges."""
    numbers = [*nothing_counted(), 5, 0, 100]
    numbers[0] = 2
    for minute, waiting in ((1000, 5), (1003, 9), (1012, 1)):
        numbers[-3] = waiting
        await redis.set(f"arqonce:trend:{minute}:q", json.dumps(numbers))
    await redis.set("arqonce:trend:1013:q", "no JSON")

    parts = await read_trend(redis, ["q"], length=timedelta(minutes=40), step=timedelta(minutes=10), now=1015 * 60)

    shown = [
        part and (part.since.timestamp() / 60, part.succeeded, part.gauges and part.gauges.waiting) for part in parts
    ]
    assert shown == [None, None, (1000, 4, 9), (1010, 2, 1)]


@pytest.mark.parametrize("text", ["no JSON", "7", "[1]", json.dumps([*nothing_counted(), 1, 0, 0, 5])])
async def test_a_text_of_another_form_is_begun_anew(redis: Redis, text: str) -> None:
    """Of a release that counts more or less: a worker whose script fails would wait, as for a Redis that is away."""
    await _begin_minute()
    seconds, _ = await redis.time()
    await redis.set(f"arqonce:trend:{seconds // 60}:q", text)

    due = await write_counts(redis, {"q": _one_waited(30)})

    (part,) = await read_trend(redis, ["q"], length=MINUTE)
    assert (due, part and part.wait.number) == (["q"], 1)


@pytest.mark.parametrize("number", ["1e999", "NaN", "1" + 400 * "0"])
async def test_a_number_that_no_chart_can_show_is_none(redis: Redis, number: str) -> None:
    """Whoever writes it into Redis breaks no page."""
    numbers = json.dumps([*nothing_counted(), 1, 0, 0]).replace("0.0", number, 1)
    await redis.set("arqonce:trend:1000:q", numbers)

    assert await read_trend(redis, ["q"], length=MINUTE, now=1000 * 60) == [None]


async def test_a_million_jobs_that_were_due_long_ago_are_shown(redis: Redis) -> None:
    """Rows of an old table, say, each enqueued with its own date."""
    numbers = [*nothing_counted(), 1, 0, 10**300]
    count_since(numbers, WAIT, [1e11] * 1_000_000, time.time() * 1000)
    await redis.set("arqonce:trend:1000:q", json.dumps(numbers))

    (part,) = await read_trend(redis, ["q"], length=MINUTE, now=1000 * 60)

    assert part is not None
    assert (part.wait.number, part.wait.quantile(0.5)) == (1_000_000, timedelta(minutes=10))


async def test_several_queues_add_up(redis: Redis) -> None:
    """Of one minute their numbers are summed, and the oldest job of all is the oldest."""
    for queue, waiting, oldest in (("a", 5, 100), ("b", 2, 7000), ("c", -1, -1)):
        numbers = [*nothing_counted(), waiting, 0, oldest]
        numbers[0] = 2
        await redis.set(f"arqonce:trend:1000:{queue}", json.dumps(numbers))

    (part,) = await read_trend(redis, ["a", "b", "c", "d"], length=MINUTE, now=1000 * 60)

    assert part is not None
    assert part.gauges is not None
    assert (part.succeeded, part.gauges.waiting, part.gauges.oldest) == (6, 7, timedelta(seconds=7))


def test_a_percentile_lies_in_its_bucket() -> None:
    """It is interpolated; above the last bound only that is known, and nothing has none."""
    numbers = nothing_counted()
    for milliseconds in (10, 10, 10, 50, 5_000_000):
        count_time(numbers, 0, milliseconds)
    times = Times(numbers[:9])

    assert times.number == 5
    assert timedelta(milliseconds=5) < (times.quantile(0.5) or timedelta(0)) <= timedelta(milliseconds=20)
    assert times.quantile(0.99) == timedelta(minutes=10)
    assert Times([0] * 9).quantile(0.5) is None


def test_many_times_at_once_count_as_one_by_one() -> None:
    """Also the bounds themselves, and times to come, which count as 0."""
    waited = [-40.0, 0.0, 4.0, 5.0, 6.0, 20.0, 500.0, 600_000.0, 600_001.0, 1e9]
    one_by_one, at_once = nothing_counted(), nothing_counted()
    for milliseconds in waited:
        count_time(one_by_one, 0, max(0.0, milliseconds))
    count_since(at_once, 0, sorted(2e12 - milliseconds for milliseconds in waited), 2e12)

    assert at_once == one_by_one
