"""Part 1: how fast one worker process drains a queue of jobs that write, each run verified row by row."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.contenders import Contender
from bench.processes import ContenderError, ProducerProcess, Worker, open_producer, start_worker
from bench.stage import Stage

_WARM_UP = 100
"""Jobs before the clock starts: connections are open and statements prepared."""

_START_LIMIT = 30.0
"""Longest time until the warm-up is done, in seconds."""

_LOOK = 0.02
"""How often the rows are looked at, in seconds. When the last was committed the server tells exactly."""

_SETTLE = 0.3
"""Time for the end of the last warm-up jobs, in seconds: what follows their commits is not seen."""


@dataclass(frozen=True)
class Drained:
    """One run."""

    jobs: int
    seconds: float
    cpu_seconds: float
    redis_commands: int

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return self.jobs / self.seconds


@asynccontextmanager
async def warm_worker(stage: Stage, contender: Contender) -> AsyncIterator[tuple[Worker, ProducerProcess | None]]:
    """Yield a worker that has done its warm-up, and a producer; floors need none."""
    worker = start_worker(contender, stage.target, log=stage.log_of(contender))
    try:
        if contender.role == "floor":
            worker.tell(f"0 {_WARM_UP}")
            await _wait_for_users(stage, worker, _WARM_UP, _START_LIMIT)
            yield worker, None
            return
        async with open_producer(contender, stage.target) as producer:
            await producer.do("fill", kind="create_user", first=0, count=_WARM_UP)
            await _wait_for_users(stage, worker, _WARM_UP, _START_LIMIT)
            await asyncio.sleep(_SETTLE)
            yield worker, producer
    finally:
        worker.end()


async def drain(stage: Stage, contender: Contender, count: int, *, limit: float = 60) -> Drained:
    """Let one process drain a queue of so many jobs; ``limit`` in seconds.

    Raises:
        ContenderError: it did not, or there are not exactly as many rows as jobs.
    """
    await stage.observer.empty()
    async with warm_worker(stage, contender) as (worker, producer):
        worker.hold()
        if producer is None:
            worker.tell(f"{_WARM_UP} {count}")
        else:
            await producer.do("fill", kind="create_user", first=_WARM_UP, count=count)
        cpu, commands = worker.cpu_seconds(), await stage.observer.redis_commands()
        started = time.time()
        worker.let_go()
        await _wait_for_users(stage, worker, _WARM_UP + count, limit)
        seconds = await stage.observer.last_commit() - started
        cpu = worker.cpu_seconds() - cpu
        commands = await stage.observer.redis_commands() - commands
        await _verify(stage, contender, _WARM_UP + count)
    return Drained(count, seconds, cpu, commands)


async def _wait_for_users(stage: Stage, worker: Worker, count: int, limit: float) -> None:
    # A rolled back insert has drawn an id as well: count the rows once there may be enough.
    await _wait(worker, lambda: _at_least(stage.observer.ids_drawn, count), limit)
    await _wait(worker, lambda: _at_least(stage.observer.users, count), limit)


async def _at_least(look: Callable[[], Awaitable[int]], count: int) -> bool:
    return await look() >= count


async def _wait(worker: Worker, is_so: Callable[[], Awaitable[bool]], limit: float) -> None:
    deadline = time.monotonic() + limit
    while not await is_so():
        worker.require_alive()
        if time.monotonic() > deadline:
            raise ContenderError(f"not done after {limit:g} s; {worker.log_end()}")
        await asyncio.sleep(_LOOK)


async def _verify(stage: Stage, contender: Contender, expected: int) -> None:
    users, receipts = await stage.observer.users(), await stage.observer.receipts()
    owes_receipts = contender.role == "ours" and contender.variant != "no-receipts"
    if users != expected or (owes_receipts and receipts != expected):
        raise ContenderError(f"{users} users and {receipts} receipts after {expected} jobs")
