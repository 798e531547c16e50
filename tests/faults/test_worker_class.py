"""Faults of arq's class that need functions of arq's kind: outcomes, aborts. In the test's own process."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import pytest
from arq.connections import RedisSettings, create_pool
from arq.typing import WorkerCoroutine
from arq.worker import func
from redis.asyncio import Redis

from arqonce.arq.worker import Worker
from arqonce.engine.ends import GiveUp
from arqonce.engine.engine import Engine
from arqonce.wire.codec import decode, encode
from arqonce.work import Claim
from tests.conftest import wait_until_async

pytestmark = pytest.mark.usefixtures("starts_processes")

Run = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def run(redis: Redis, valkey_url: str) -> AsyncIterator[Run]:
    """Yield a function that starts a worker with one function; it ends with the test."""
    assert redis is not None  # the queue is empty
    started: list[tuple[Worker, asyncio.Task[None]]] = []

    async def run(work: Callable[..., Awaitable[object]], **arguments: Any) -> Worker:  # noqa: ANN401 - arq's
        pool = await create_pool(RedisSettings.from_dsn(valkey_url), job_serializer=encode, job_deserializer=decode)
        worker = Worker(
            [func(cast("WorkerCoroutine", work), name="work")],
            redis_pool=pool,
            job_serializer=encode,
            job_deserializer=decode,
            handle_signals=False,
            poll_delay=0.02,
            **arguments,
        )
        started.append((worker, asyncio.create_task(worker.async_run())))
        await wait_until_async(lambda: _is_started(worker), 5)
        return worker

    yield run
    for worker, task in started:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await worker.close()


def _engine(worker: Worker) -> Engine:
    assert worker.engine is not None
    return worker.engine


def _claim_of(worker: Worker, job_id: str) -> Claim:
    claim = _engine(worker).runs.recorder.claim_of(job_id)
    assert claim is not None
    return claim


async def _is_started(worker: Worker) -> bool:
    return worker.engine is not None and bool(worker.engine._background)


async def test_an_outcome_is_given_under_the_lease_that_the_job_has_by_then(
    redis: Redis, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is lost while the outcome is told, for longer than the lease, and then first hears the worker's claim."""
    runs = 0

    async def work(_ctx: object) -> str:
        nonlocal runs
        runs += 1
        return "once"

    worker = await run(work, lease=timedelta(seconds=1))
    give_up = _engine(worker)._leases.give_up

    async def give_up_late(jobs: Sequence[GiveUp]) -> list[bool]:
        if jobs[0].claim.attempt == 1:
            await redis.delete("arq:in-progress:job")
            await redis.zadd("arq:queue:leases", {"job": 1})
            await redis.zadd("arq:queue", {"job": 1})  # wakes the worker
            await wait_until_async(lambda: _has_claim(worker, "job", 2), 5)
        return await give_up(jobs)

    monkeypatch.setattr(_engine(worker)._leases, "give_up", give_up_late)
    await _enqueue(redis, "job")
    await wait_until_async(lambda: _has_result(redis, "job"), 10)

    assert runs == 1
    assert await redis.zcard("arq:queue") == 0


async def _has_claim(worker: Worker, job_id: str, attempt: int) -> bool:
    return _claim_of(worker, job_id).attempt == attempt


async def _has_result(redis: Redis, job_id: str) -> bool:
    return bool(await redis.exists(f"arq:result:{job_id}"))


async def _enqueue(redis: Redis, job_id: str) -> None:
    await redis.set(f"arq:job:{job_id}", encode({"t": None, "f": "work", "a": [], "k": {}, "et": 0}), px=60_000)
    await redis.zadd("arq:queue", {job_id: time.time() * 1000})


async def test_an_old_request_to_abort_an_unknown_job_hits_no_later_one(redis: Redis, run: Run) -> None:
    """Nor on a worker that has had nothing to do meanwhile. Arq keeps the request for ever."""

    async def work(_ctx: object) -> str:
        return "done"

    await redis.zadd("arq:abort", {"job": time.time() * 1000 - 120_000})
    await run(work, allow_abort_jobs=True)
    await asyncio.sleep(0.2)  # it is idle for some turns
    await _enqueue(redis, "job")
    await wait_until_async(lambda: _has_result(redis, "job"), 5)

    assert decode(await redis.get("arq:result:job"))["r"] == "done"
