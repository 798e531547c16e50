"""SAQ on Redis.

Settings: 50 jobs at once, each with a connection of its own that waits for a job (SAQ's way), 50 operations at once.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from saq import Job as SaqJob
from saq import Queue, Worker
from saq.queue.redis import RedisQueue

from bench.bodies import open_bodies
from bench.target import Job, Target, in_turns, run

_MAX_JOBS = 50


def _build_queue(target: Target) -> Queue:
    return RedisQueue.from_url(target.redis_url, max_concurrent_ops=_MAX_JOBS, dump=json.dumps, load=json.loads)


def work(target: Target, _variant: str) -> None:
    """Work until killed."""
    run(_work(target))


async def _work(target: Target) -> None:
    max_jobs = target.max_jobs or _MAX_JOBS
    queue = _build_queue(target)
    await queue.connect()
    async with open_bodies(target, pool_size=max_jobs) as bodies:

        async def create_user(_ctx: dict[str, Any], *, name: str, email: str) -> int:
            return await bodies.create_user(name, email)

        async def find_user(_ctx: dict[str, Any], *, id: int) -> str | None:  # noqa: A002 - as our own job calls it
            return await bodies.find_user(id)

        async def no_op(_ctx: dict[str, Any]) -> None:
            bodies.no_op()

        functions = [(body.__name__, body) for body in (create_user, find_user, no_op)]
        worker: Worker[Any] = Worker(queue, functions, concurrency=max_jobs)
        worker.SIGNALS = []
        await worker.start()


class _Producer:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def fill(self, jobs: list[Job]) -> None:
        await in_turns((self.enqueue(job) for job in jobs), at_once=50)

    async def enqueue(self, job: Job) -> SaqJob:
        handle = await self._queue.enqueue(job.kind, **job.arguments)
        if handle is None:
            raise RuntimeError("SAQ has taken the job for a duplicate")
        return handle

    async def result(self, handle: SaqJob) -> None:
        await handle.refresh(until_complete=0)


@asynccontextmanager
async def open_producer(target: Target, _variant: str) -> AsyncIterator[_Producer]:
    """Yield SAQ's queue."""
    queue = _build_queue(target)
    await queue.connect()
    yield _Producer(queue)
    await queue.disconnect()
