"""Part 3: jobs that do nothing, with one and many worker processes; look-ups; and how fast producers enqueue."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from bench.bodies import Counters
from bench.contenders import Contender
from bench.drain import wait
from bench.processes import ContenderError, ProducerProcess, Worker, open_producer, start_worker
from bench.stage import Stage
from bench.target import USERS, Target

_WARM_UP = 10
"""Jobs for each process before the clock starts."""

_WARM_UP_TURNS = 20
"""After so many turns of it we go on, though a process may have had no job."""

_LOOK = 0.005
"""How often the numbers are looked at, in seconds."""

_AFTER = 0.2
"""How long to wait for a job that runs twice, in seconds."""


async def no_ops(stage: Stage, contender: Contender, *, processes: int, count: int, limit: float) -> float:
    """Return the jobs per second of so many processes.

    Raises:
        ContenderError: they did not end in ``limit`` seconds, or did not run each job exactly once.
    """
    await stage.observer.empty()
    counters = Counters(Path(stage.target.counter), processes)
    target = replace(stage.target, kind="no_op")
    worker = start_worker(contender, target, log=stage.log_of(contender), processes=processes)
    try:
        async with open_producer(contender, target) as producer:
            done = await _warm_up(worker, producer, counters, processes)
            worker.hold()
            await producer.do("fill", kind="no_op", first=0, count=count)
            started = time.perf_counter()
            worker.let_go()
            await _all_done(worker, counters, done, count, limit)
            seconds = time.perf_counter() - started
        await asyncio.sleep(_AFTER)
    finally:
        worker.end()
    if counters.total() != done + count:
        raise ContenderError(f"{counters.total() - done} runs of {count} jobs")
    return count / seconds


async def _warm_up(worker: Worker, producer: ProducerProcess, counters: Counters, processes: int) -> int:
    done = 0
    for _ in range(_WARM_UP_TURNS):
        done += _WARM_UP * processes
        await producer.do("fill", kind="no_op", first=0, count=_WARM_UP * processes)
        await wait(worker, _reached(counters, done), 30, look=_LOOK)
        if all(counters.each()):
            break
    await asyncio.sleep(_AFTER)
    return done


def _reached(counters: Counters, total: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return counters.total() >= total

    return look


async def _all_done(worker: Worker, counters: Counters, done: int, count: int, limit: float) -> None:
    try:
        await wait(worker, _reached(counters, done + count), limit, look=_LOOK)
    except ContenderError as error:
        raise ContenderError(f"{counters.total() - done:,} of {count:,} jobs in {limit:g} s ({error})") from None


async def look_ups(stage: Stage, contender: Contender, count: int, *, limit: float = 60) -> float:
    """Return the look-ups by id per second of one process.

    Raises:
        ContenderError: they did not end in ``limit`` seconds, or not all were answered.
    """
    await stage.observer.empty()
    await stage.observer.postgres.execute(
        "INSERT INTO users (name) SELECT 'User ' || n FROM generate_series(1, $1) AS n", USERS
    )
    counters = Counters(Path(stage.target.counter), 1)
    worker = start_worker(contender, stage.target, log=stage.log_of(contender))
    try:
        async with open_producer(contender, stage.target) as producer:
            await producer.do("fill", kind="find_user", first=0, count=_WARM_UP)
            await _answered(stage, contender, worker, counters, _WARM_UP, limit)
            await asyncio.sleep(_AFTER)
            worker.hold()
            await producer.do("fill", kind="find_user", first=0, count=count)
            started = time.perf_counter()
            worker.let_go()
            await _answered(stage, contender, worker, counters, _WARM_UP + count, limit)
            return count / (time.perf_counter() - started)
    finally:
        worker.end()


async def _answered(
    stage: Stage, contender: Contender, worker: Worker, counters: Counters, total: int, limit: float
) -> None:
    """Wait until all are looked up; ours, whose look-ups come in sets and count nothing, until all results are there."""
    if contender.role != "ours":
        await wait(worker, _reached(counters, total), limit, look=_LOOK)
        return

    async def is_drained() -> bool:
        return not await stage.observer.redis.zcard("arq:queue")

    await wait(worker, is_drained, limit, look=_LOOK)
    results = await stage.observer.redis.keys("arq:result:*")
    if len(results) != total:
        raise ContenderError(f"{len(results)} results of {total} look-ups")


async def enqueue_rate(contender: Contender, target: Target, *, count: int, is_bulk: bool) -> float:
    """Return the jobs per second that one producer enqueues, one after the other or in bulk."""
    async with open_producer(contender, target) as producer:
        for number in (100, count):  # the first is a warm-up
            answer = await producer.do("fill" if is_bulk else "enqueue", kind="create_user", first=number, count=number)
    return count / float(answer["seconds"])
