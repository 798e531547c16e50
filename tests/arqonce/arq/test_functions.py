"""What arq documents of functions, and where a naive worker differs: limits, expiry, hooks, and a worker's life."""

import asyncio
import signal
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings
from arq.constants import retry_key_prefix
from arq.worker import FailedJobs, Retry

from arqonce import JobFailedError, decode, encode
from arqonce.arq.worker import Worker
from tests.arqonce.conftest import BuildWorker, Context, build_function, run_in_background, stop
from tests.conftest import wait_until_async

_request: ContextVar[str] = ContextVar("_request")


async def test_a_function_that_may_run_once_does_so_although_its_worker_is_stopped(
    pool: ArqRedis, build: BuildWorker
) -> None:
    """As in arq: the next worker says that its tries are used up."""
    runs: list[int] = []

    async def once(ctx: Context) -> None:
        runs.append(ctx["job_try"])
        await asyncio.sleep(60)

    job = await pool.enqueue_job("once")
    function = build_function(once, max_tries=1)
    worker = await build(function, burst=False)
    task = await run_in_background(worker)
    await wait_until_async(lambda: _is_long(runs), 5)
    worker.handle_sig(signal.SIGTERM)
    with suppress(asyncio.CancelledError):
        await task
    await worker.close()

    with pytest.raises(FailedJobs, match="max 1 retries exceeded"):
        await (await build(function)).run_check()
    assert (runs, job is not None) == ([1], True)


async def _is_long(found: list[int]) -> bool:
    return bool(found)


async def test_an_expiry_holds_after_a_retry(pool: ArqRedis, build: BuildWorker) -> None:
    """The producer has said for how long the job is of use."""
    left: list[int] = []

    async def retry(ctx: Context) -> None:
        left.append(await ctx["redis"].pttl(f"arq:job:{ctx['job_id']}"))
        if ctx["job_try"] < 3:
            raise Retry(defer=0.01)

    await pool.enqueue_job("retry", _expires=30)
    await (await build(retry)).run_check()

    assert left == sorted(left, reverse=True)
    assert 0 < left[-1] <= left[0] <= 30_000


async def test_a_producer_may_set_the_number_of_the_first_try(pool: ArqRedis, build: BuildWorker) -> None:
    """And the next ones count on from it, also where arq's own worker has written the count of those before."""
    tries: list[int] = []

    async def count(ctx: Context) -> None:
        tries.append(ctx["job_try"])
        if len(tries) < 3:
            raise Retry(defer=0.01)

    await pool.enqueue_job("count", _job_try=2)
    await (await build(count)).run_check()
    await pool.enqueue_job("count", _job_id="begun", _job_try=3)
    await pool.set(retry_key_prefix + "begun", 4)
    await (await build(count)).run_check()

    assert tries == [2, 3, 4, 5]


async def test_the_failure_of_a_job_that_was_not_run_is_kept_as_long_as_the_worker_says(
    pool: ArqRedis, build: BuildWorker
) -> None:
    """As in arq: who waits for it gets the reason, though the function keeps no results."""

    async def never(_ctx: Context) -> None:
        raise Retry

    job = await pool.enqueue_job("never")
    assert job is not None
    with pytest.raises(FailedJobs, match="max 1 retries exceeded"):
        await (await build(build_function(never, keep_result=0, max_tries=1))).run_check()

    with pytest.raises(JobFailedError, match="max 1 retries exceeded"):
        await job.result(timeout=1)


async def test_hooks_and_function_of_a_job_share_its_context(pool: ArqRedis, build: BuildWorker) -> None:
    """What the first hook sets the last one reads and resets; jobs at once do not see each other's."""
    read: list[tuple[str, str, str]] = []

    async def begin(ctx: Context) -> None:
        ctx["token"] = _request.set(ctx["job_id"])

    async def work(ctx: Context) -> None:
        await asyncio.sleep(0.02)
        ctx["seen"] = _request.get()

    async def end(ctx: Context) -> None:
        read.append((ctx["job_id"], ctx["seen"], _request.get()))
        _request.reset(ctx["token"])

    for number in range(5):
        await pool.enqueue_job("work", _job_id=str(number))
    await (await build(work, on_job_start=begin, after_job_end=end)).run_check()

    assert sorted(read) == [(str(number),) * 3 for number in range(5)]


async def test_the_end_of_the_worker_calls_both_last_hooks(pool: ArqRedis, build: BuildWorker) -> None:
    """As in arq: what the first hook opens for a job the others close, though the job goes back to the queue."""
    calls: list[str] = []

    async def begin(_ctx: Context) -> None:
        calls.append("begin")

    async def end(_ctx: Context) -> None:
        await asyncio.sleep(0.01)
        calls.append("end")

    async def after(_ctx: Context) -> None:
        calls.append("after")

    async def work(_ctx: Context) -> None:
        calls.append("work")
        await asyncio.sleep(60)

    await pool.enqueue_job("work")
    worker = await build(work, burst=False, on_job_start=begin, on_job_end=end, after_job_end=after)
    task = await run_in_background(worker)
    await wait_until_async(lambda: _has(calls, "work"), 5)
    worker.handle_sig(signal.SIGTERM)
    with suppress(asyncio.CancelledError):
        await task
    await worker.close()

    assert (calls, await pool.zcard("arq:queue")) == (["begin", "work", "end", "after"], 1)


async def _has(calls: list[str], call: str) -> bool:
    return call in calls


@pytest.mark.parametrize("job_id", ["nightly report", "tab\there", "Jürgen", "x" * 300, "name:0f3a"])
async def test_any_id_that_arq_takes_runs(pool: ArqRedis, build: BuildWorker, job_id: str) -> None:
    """Our rule is for our registry."""
    job = await pool.enqueue_job("echo", _job_id=job_id)

    async def echo(ctx: Context) -> Any:  # noqa: ANN401 - any id
        return ctx["job_id"]

    await (await build(echo)).run_check()

    assert job is not None
    assert await job.result(timeout=2, poll_delay=0.01) == job_id


async def test_a_worker_can_be_closed_before_it_runs_and_run_again(pool: ArqRedis, valkey_url: str) -> None:
    """As arq --watch does: what was closed opens a pool anew."""

    async def work(ctx: Context) -> str:
        return str(ctx["dispatcher"])

    worker = Worker(
        [build_function(work)],
        redis_settings=RedisSettings.from_dsn(valkey_url),
        ctx={"dispatcher": "the application's own"},
        burst=True,
        handle_signals=False,
        job_serializer=encode,
        job_deserializer=decode,
    )
    await worker.close()
    results = []
    for _ in range(3):
        job = await pool.enqueue_job("work")
        await worker.async_run()
        await worker.close()
        assert job is not None
        results.append(await job.result(timeout=2, poll_delay=0.01))

    assert results == ["the application's own"] * 3


async def test_a_worker_that_is_told_to_stop_before_it_has_started_ends(pool: ArqRedis, build: BuildWorker) -> None:
    """A deploy that is taken back at once; nothing is claimed."""

    async def work(_ctx: Context) -> None: ...

    await pool.enqueue_job("work")
    worker = await build(work, burst=False)
    worker.handle_sig_wait_for_completion(signal.SIGTERM)
    await asyncio.sleep(0.05)  # its wait for running jobs is over: there is none

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(worker.async_run(), 5)

    assert await pool.zcard("arq:queue") == 1


async def test_a_burst_may_run_twice(pool: ArqRedis, build: BuildWorker) -> None:
    """And leaves no connection behind."""

    async def work(_ctx: Context) -> int:
        return 1

    worker = await build(work)
    for _ in range(2):
        await pool.enqueue_job("work")
        await worker.run_check()

    assert worker.jobs_complete == 2
    await stop()
