"""Part 1: how fast one worker process drains a queue of jobs that write. The rows of each run are verified."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bench.contenders import Contender
from bench.processes import ContenderError, ProducerProcess, Worker, open_producer, start_worker
from bench.stage import Stage

WARM_UP = 100
"""Jobs before the measurement, which open connections and prepare statements."""

_START_LIMIT = 30.0
"""Longest time until the warm-up is done, in seconds."""

_LOOK = 0.02
"""Polling interval of the rows, in seconds. The time of the last commit comes exactly from the server."""

_SETTLE = 0.3
"""Seconds for the last warm-up jobs to end: what they do after their commits cannot be observed."""


@dataclass(frozen=True)
class Drained:
    """The measurements of one run."""

    jobs: int
    seconds: float
    cpu_seconds: float
    redis_commands: int

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return self.jobs / self.seconds


@dataclass(frozen=True)
class Rows:
    """Rows stored before a run."""

    users: int = 0
    receipts: int = 0


@asynccontextmanager
async def warm_worker(
    stage: Stage, contender: Contender, *, before: int = 0, first: int = 0, processes: int = 1
) -> AsyncIterator[tuple[Worker, ProducerProcess | None]]:
    """Yield a worker after its warm-up, and a producer, which floors do not need. ``before``: users already stored."""
    worker = start_worker(contender, stage.target, log=stage.log_of(contender), processes=processes)
    try:
        if contender.role == "floor":
            worker.tell(f"0 {WARM_UP}")
            await wait_for_users(stage, worker, before + WARM_UP, _START_LIMIT)
            yield worker, None
            return
        async with open_producer(contender, stage.target) as producer:
            await producer.do("fill", kind="create_user", first=first, count=WARM_UP)
            await wait_for_users(stage, worker, before + WARM_UP, _START_LIMIT)
            await asyncio.sleep(_SETTLE)
            yield worker, producer
    finally:
        worker.end()


async def drain(stage: Stage, contender: Contender, count: int, *, processes: int = 1, limit: float = 60) -> Drained:
    """Let ``processes`` drain a queue of ``count`` jobs; ``limit`` is in seconds.

    Raises:
        ContenderError: it did not, or there are not exactly as many rows as jobs.
    """
    await stage.observer.empty()
    async with warm_worker(stage, contender, processes=processes) as (worker, producer):
        worker.hold()
        if producer is None:
            worker.tell(f"{WARM_UP} {count}")
        else:
            await producer.do("fill", kind="create_user", first=WARM_UP, count=count)
        return await let_drain(stage, contender, worker, count, limit=limit)


async def let_drain(  # noqa: PLR0913 - the parts of a run
    stage: Stage, contender: Contender, worker: Worker, count: int, *, before: Rows = Rows(), limit: float = 60
) -> Drained:
    """Resume a warm worker that was stopped before a full queue, and wait until all jobs are committed.

    Raises:
        ContenderError: as ``drain``.
    """
    rows = before.users + WARM_UP + count
    cpu, commands = worker.cpu_seconds(), await stage.observer.redis_commands()
    started = time.time()
    worker.let_go()
    await wait_for_users(stage, worker, rows, limit)
    seconds = await stage.observer.last_commit(after=before.users) - started
    cpu = worker.cpu_seconds() - cpu
    commands = await stage.observer.redis_commands() - commands
    await _verify(stage, contender, before, WARM_UP + count)
    return Drained(count, seconds, cpu, commands)


async def wait_for_users(stage: Stage, worker: Worker, count: int, limit: float) -> None:
    """Wait until ``count`` users are stored."""
    # Rolled back inserts draw ids, too, so count the rows once enough ids are drawn.
    await wait(worker, lambda: _at_least(stage.observer.ids_drawn, count), limit)
    await wait(worker, lambda: _at_least(stage.observer.users, count), limit)


async def _at_least(look: Callable[[], Awaitable[int]], count: int) -> bool:
    return await look() >= count


async def wait(worker: Worker, is_so: Callable[[], Awaitable[bool]], limit: float, *, look: float = _LOOK) -> None:
    """Wait for a state while the worker runs; times are in seconds.

    Raises:
        ContenderError: the worker has ended.
        TimeoutError: the state was not reached in time.
    """
    deadline = time.monotonic() + limit
    while not await is_so():
        worker.require_alive()
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {limit:g} s; {worker.log_end()}")
        await asyncio.sleep(look)


async def _verify(stage: Stage, contender: Contender, before: Rows, jobs: int) -> None:
    users = await stage.observer.users() - before.users
    receipts = await stage.observer.receipts() - before.receipts
    owes_receipts = contender.role == "ours" and contender.variant != "no-receipts"
    if users != jobs or (owes_receipts and receipts != jobs):
        raise ContenderError(f"{users} users and {receipts} receipts after {jobs} jobs")
