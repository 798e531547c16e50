"""Part 3: jobs that do nothing, with one and many worker processes; look-ups; and the rate of enqueueing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench.bodies import Counters
from bench.contenders import Contender
from bench.drain import wait
from bench.processes import ProducerProcess, Worker, open_producer, start_worker
from bench.stage import Stage
from bench.target import USERS, Target

_WARM_UP = 10
"""Jobs of each process before the measurement."""

_WARM_UP_TURNS = 20
"""Most turns of the warm-up. After these a process may still have had no job."""

_LOOK = 0.005
"""Polling interval of the counters, in seconds."""

_AFTER = 0.2
"""How long to wait for jobs that run twice, in seconds."""


@dataclass(frozen=True)
class Counted:
    """How many of the queued ``jobs`` ran, and in how many seconds. Fewer ran if the time limit was reached."""

    jobs: int
    ran: int
    seconds: float

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return min(self.ran, self.jobs) / self.seconds

    @property
    def flaw(self) -> str | None:
        """What was wrong; ``None`` if nothing was."""
        if self.ran < self.jobs:
            return f"{self.ran:,} of {self.jobs:,} jobs in {self.seconds:.0f} s, then no longer waited for"
        return f"{self.ran - self.jobs:,} of {self.jobs:,} jobs ran twice" if self.ran > self.jobs else None


async def no_ops(stage: Stage, contender: Contender, *, processes: int, count: int, limit: float) -> Counted:
    """Run jobs that do nothing in ``processes`` processes, for at most ``limit`` seconds.

    Raises:
        ContenderError: the processes have ended.
        TimeoutError: they did not complete the warm-up.
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
            with suppress(TimeoutError):
                await wait(worker, _reached(counters, done + count), limit, look=_LOOK)
            seconds, ran = time.perf_counter() - started, counters.total() - done
        await asyncio.sleep(_AFTER)
    finally:
        worker.end()
    return Counted(count, ran if ran < count else counters.total() - done, seconds)


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
            await wait(worker, _answered(stage, contender, counters, _WARM_UP), limit, look=_LOOK)
            await asyncio.sleep(_AFTER)
            worker.hold()
            await producer.do("fill", kind="find_user", first=0, count=count)
            started = time.perf_counter()
            worker.let_go()
            await wait(worker, _answered(stage, contender, counters, _WARM_UP + count), limit, look=_LOOK)
            return count / (time.perf_counter() - started)
    finally:
        worker.end()


def _answered(stage: Stage, contender: Contender, counters: Counters, total: int) -> Callable[[], Awaitable[bool]]:
    """Return a check whether ``total`` look-ups have ended: by counters, or by results for ours, which do not count."""
    if contender.role != "ours":
        return _reached(counters, total)

    async def look() -> bool:
        if await stage.observer.redis.zcard("arq:queue"):
            return False
        return len(await stage.observer.redis.keys("arq:result:*")) == total

    return look


async def enqueue_rate(contender: Contender, target: Target, *, count: int, is_bulk: bool) -> float:
    """Return the jobs per second that one producer enqueues, one by one or in bulk."""
    async with open_producer(contender, target) as producer:
        for number in (100, count):  # the first is a warm-up
            answer = await producer.do("fill" if is_bulk else "enqueue", kind="create_user", first=number, count=number)
    return count / float(answer["seconds"])
