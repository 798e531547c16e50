"""streaQ.

Settings: 50 tasks at once, 50 more prefetched (the default), JSON instead of pickle, on uvloop.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streaq import Worker
from streaq.task import Task

from bench.bodies import Bodies, build_tasks, open_bodies
from bench.target import Job, Target, run

_MAX_JOBS = 50


def _build_worker(target: Target, bodies: Bodies | None) -> tuple[Worker[Any], dict[str, Any]]:
    worker: Worker[Any] = Worker(
        redis_url=target.redis_url,
        concurrency=target.max_jobs or _MAX_JOBS,
        serializer=json.dumps,
        deserializer=json.loads,
        handle_signals=False,
    )

    tasks = {body.__name__: worker.task(name=body.__name__)(body) for body in build_tasks(bodies)}
    return worker, tasks


def work(target: Target, _variant: str) -> None:
    """Work until killed."""
    run(_work(target))


async def _work(target: Target) -> None:
    async with open_bodies(target, pool_size=target.max_jobs or _MAX_JOBS) as bodies:
        worker, _ = _build_worker(target, bodies)
        await worker.run_async()


class _Producer:
    def __init__(self, worker: Worker[Any], tasks: dict[str, Any]) -> None:
        self._worker, self._tasks = worker, tasks

    async def fill(self, jobs: list[Job]) -> None:
        for at in range(0, len(jobs), 1000):
            await self._worker.enqueue_many(
                [self._tasks[job.kind].enqueue(**job.arguments) for job in jobs[at : at + 1000]]
            )

    async def enqueue(self, job: Job) -> Task[Any, Any]:
        task: Task[Any, Any] = await self._tasks[job.kind].enqueue(**job.arguments)
        return task

    async def result(self, handle: Task[Any, Any]) -> None:
        await handle.result(20)


@asynccontextmanager
async def open_producer(target: Target, _variant: str) -> AsyncIterator[_Producer]:
    """Yield streaQ's tasks."""
    worker, tasks = _build_worker(target, None)
    async with worker:
        yield _Producer(worker, tasks)
