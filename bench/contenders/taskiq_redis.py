"""taskiq with taskiq-redis, results kept for an hour in Redis.

Settings: 50 tasks at once, as many prefetched, no validation of parameters. The stream broker reads 100 messages at
once and acknowledges each; the list broker pops one by one and acknowledges none. Producers poll for a result every
5 ms. Sockets have no timeout: that of redis-py 8 is 5 s by default, so that a worker that the benchmark stops before a
long queue would lose the message in transit.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from taskiq import AsyncBroker, AsyncTaskiqTask
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from bench.bodies import Bodies, build_tasks, open_bodies
from bench.target import Job, Target, run

_MAX_JOBS = 50
_PIPELINED = 1000


def _build_broker(target: Target, variant: str) -> AsyncBroker:
    results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(target.redis_url, result_ex_time=3600)
    if variant == "stream":
        return RedisStreamBroker(target.redis_url, consumer_id="0", socket_timeout=None).with_result_backend(results)
    return ListQueueBroker(target.redis_url, socket_timeout=None).with_result_backend(results)


def _register(broker: AsyncBroker, bodies: Bodies | None) -> dict[str, Any]:
    """Declare the tasks; a producer has no bodies."""
    return {body.__name__: broker.task(task_name=body.__name__)(body) for body in build_tasks(bodies)}


def work(target: Target, variant: str) -> None:
    """Work until killed."""
    run(_work(target, variant))


async def _work(target: Target, variant: str) -> None:
    max_jobs = target.max_jobs or _MAX_JOBS
    broker = _build_broker(target, variant)
    async with open_bodies(target, pool_size=max_jobs) as bodies:
        _register(broker, bodies)
        await run_receiver_task(
            broker, max_async_tasks=max_jobs, max_prefetch=max_jobs, validate_params=False, run_startup=True
        )


class _Producer:
    def __init__(self, broker: Any) -> None:  # noqa: ANN401 - either broker
        self._broker = broker
        self._tasks = _register(broker, None)

    async def fill(self, jobs: list[Job]) -> None:
        """Send the same as ``kiq``, but through a pipeline."""
        messages = [self._message(job) for job in jobs]
        async with Redis(connection_pool=self._broker.connection_pool) as redis:
            for at in range(0, len(messages), _PIPELINED):
                async with redis.pipeline(transaction=False) as pipe:
                    for message in messages[at : at + _PIPELINED]:
                        if isinstance(self._broker, RedisStreamBroker):
                            pipe.xadd(self._broker.queue_name, {b"data": message})
                        else:
                            pipe.lpush(self._broker.queue_name, message)
                    await pipe.execute()

    def _message(self, job: Job) -> bytes:
        task = self._tasks[job.kind].kicker()._prepare_message(**job.arguments)  # noqa: SLF001 - it has no bulk kiq
        data: bytes = self._broker.formatter.dumps(task).message
        return data

    async def enqueue(self, job: Job) -> AsyncTaskiqTask[Any]:
        task: AsyncTaskiqTask[Any] = await self._tasks[job.kind].kiq(**job.arguments)
        return task

    async def result(self, handle: AsyncTaskiqTask[Any]) -> None:
        (await handle.wait_result(check_interval=0.005)).raise_for_error()


@asynccontextmanager
async def open_producer(target: Target, variant: str) -> AsyncIterator[_Producer]:
    """Yield taskiq's tasks."""
    broker = _build_broker(target, variant)
    await broker.startup()
    yield _Producer(broker)
    await broker.shutdown()
