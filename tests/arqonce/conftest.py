"""Worker classes in the test's own process: ours, and arq's beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, cast

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.typing import WorkerCoroutine
from arq.worker import Function, Worker, func
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.arq.worker import Worker as OurWorker
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.work import RegistryWork
from arqonce.spec import Registry
from arqonce.wire.codec import decode, encode

Context = dict[Any, Any]
Work = Callable[..., Awaitable[object]]
BuildWorker = Callable[..., Awaitable[OurWorker]]


@pytest.fixture
async def pool(redis: Redis, valkey_url: str) -> AsyncIterator[ArqRedis]:
    """Yield arq's own producer."""
    assert redis is not None  # the queue is empty
    pool = await create_pool(RedisSettings.from_dsn(valkey_url), job_serializer=encode, job_deserializer=decode)
    yield pool
    await pool.aclose()


@pytest.fixture
async def build(pool: ArqRedis, valkey_url: str) -> AsyncIterator[BuildWorker]:
    """Yield a function that builds a worker; what is started in the test ends with it."""
    assert pool is not None
    async with AsyncExitStack() as stack:

        async def build(*functions: Work | Function, kind: type[Worker] = OurWorker, **arguments: object) -> Any:  # noqa: ANN401 - as asked for
            arguments = {"burst": True, "poll_delay": 0.02, "handle_signals": False} | arguments
            worker = kind(
                [build_function(work) if callable(work) else work for work in functions],
                redis_pool=await create_pool(
                    RedisSettings.from_dsn(valkey_url), job_serializer=encode, job_deserializer=decode
                ),
                job_serializer=encode,
                job_deserializer=decode,
                **arguments,  # type: ignore[arg-type] # arq's own
            )
            stack.push_async_callback(worker.close)
            return worker

        yield build


def build_function(work: Work, **limits: Any) -> Function:  # noqa: ANN401 - arq's
    """Register a function under its short name."""
    return func(cast("WorkerCoroutine", work), **{"name": work.__name__} | limits)


async def run_in_background(worker: Worker) -> "asyncio.Task[None]":
    """Start the worker beside the test."""
    task = asyncio.create_task(worker.async_run())
    await asyncio.sleep(0)
    return task


async def stop(*workers: "asyncio.Task[None]") -> None:
    """End what was started so."""
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def build_recording_worker(
    build: BuildWorker, registry: Registry, sessions: async_sessionmaker[AsyncSession], **arguments: object
) -> OurWorker:
    """Build a worker of a registry, whose jobs end on record."""

    async def connect(_ctx: Context) -> None:
        worker.registry_work = RegistryWork(registry, Dispatcher(sessions), keep_result=timedelta(hours=1))

    worker = await build(has_registry=True, on_startup=connect, **arguments)
    return worker
