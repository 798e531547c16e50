"""arq's own worker class.

Settings: defaults (10 jobs at once, polling every 0.5 s, pickle). The variant ``tuned`` has 50 jobs at once, polling
every 10 ms, JSON, and no logging of results. Both keep results for an hour, arq's default. Jobs are written like
``enqueue_job`` does, but through a pipeline.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from arq import Worker, create_pool, func
from arq.connections import ArqRedis, RedisSettings
from arq.constants import default_queue_name, job_key_prefix
from arq.jobs import Job as ArqJob
from arq.jobs import serialize_job

from bench.bodies import open_bodies
from bench.target import Job, Target, run

_DAY_MS = 86_400_000
_PIPELINED = 1000


def _dumps(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def _codec(variant: str) -> dict[str, Any]:
    return {"job_serializer": _dumps, "job_deserializer": json.loads} if variant == "tuned" else {}


def work(target: Target, variant: str) -> None:
    """Work until killed."""
    run(_work(target, variant))


async def _work(target: Target, variant: str) -> None:
    tuned: dict[str, Any] = (
        {"max_jobs": target.max_jobs or 50, "poll_delay": 0.01, "log_results": False} if variant == "tuned" else {}
    )
    redis = await create_pool(RedisSettings.from_dsn(target.redis_url), **_codec(variant))
    async with open_bodies(target, pool_size=int(tuned.get("max_jobs", 10))) as bodies:

        async def create_user(_ctx: dict[str, Any], name: str, email: str) -> int:
            return await bodies.create_user(name, email)

        async def find_user(_ctx: dict[str, Any], id: int) -> str | None:  # noqa: A002 - as our own job calls it
            return await bodies.find_user(id)

        async def no_op(_ctx: dict[str, Any]) -> None:
            bodies.no_op()

        bodies_by_name: tuple[Any, ...] = (create_user, find_user, no_op)
        functions = [func(body, name=body.__name__) for body in bodies_by_name]
        worker = Worker(functions, redis_pool=redis, handle_signals=False, **_codec(variant), **tuned)
        await worker.async_run()


class _Producer:
    def __init__(self, redis: ArqRedis, variant: str) -> None:
        self._redis, self._variant = redis, variant

    async def fill(self, jobs: list[Job]) -> None:
        for at in range(0, len(jobs), _PIPELINED):
            async with self._redis.pipeline(transaction=False) as pipe:
                for job in jobs[at : at + _PIPELINED]:
                    self._add(pipe, job)
                await pipe.execute()

    def _add(self, pipe: Any, job: Job) -> None:  # noqa: ANN401 - redis-py's pipeline
        job_id, now = uuid4().hex, time.time_ns() // 1_000_000
        serializer = _codec(self._variant).get("job_serializer")
        data = serialize_job(job.kind, (), job.arguments, None, now, serializer=serializer)
        pipe.psetex(job_key_prefix + job_id, _DAY_MS, data)
        pipe.zadd(default_queue_name, {job_id: now})

    async def enqueue(self, job: Job) -> ArqJob:
        handle = await self._redis.enqueue_job(job.kind, **job.arguments)
        if handle is None:
            raise RuntimeError("arq has taken the job for a duplicate")
        return handle

    async def result(self, handle: ArqJob) -> None:
        await handle.result(poll_delay=0.01 if self._variant == "tuned" else 0.5)


@asynccontextmanager
async def open_producer(target: Target, variant: str) -> AsyncIterator[_Producer]:
    """Yield arq's client."""
    redis = await create_pool(RedisSettings.from_dsn(target.redis_url), **_codec(variant))
    yield _Producer(redis, variant)
    await redis.aclose()
