"""SAQ on Redis.

Settings: 50 jobs at once, each with its own connection that waits for a job (SAQ's design), 50 operations at once.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from saq import Job as SaqJob
from saq import Status, Worker
from saq.queue.redis import RedisQueue

from bench.bodies import open_bodies
from bench.target import Job, Target, run

_MAX_JOBS = 50
_PIPELINED = 1000


def _build_queue(target: Target) -> RedisQueue:
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
    def __init__(self, queue: RedisQueue) -> None:
        self._queue = queue

    async def fill(self, jobs: list[Job]) -> None:
        """Write the same as ``enqueue``, but through a pipeline."""
        for at in range(0, len(jobs), _PIPELINED):
            async with self._queue.redis.pipeline(transaction=False) as pipe:
                for job in jobs[at : at + _PIPELINED]:
                    self._add(pipe, SaqJob(function=job.kind, kwargs=job.arguments))
                await pipe.execute()

    def _add(self, pipe: Any, job: SaqJob) -> None:  # noqa: ANN401 - redis-py's pipeline
        job.queue, job.queued, job.status = self._queue, time.time_ns() // 1_000_000, Status.QUEUED
        pipe.set(job.id, self._queue.serialize(job))
        pipe.zadd(self._queue.namespace("incomplete"), {job.id: 0})
        pipe.rpush(self._queue.namespace("queued"), job.id)

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
