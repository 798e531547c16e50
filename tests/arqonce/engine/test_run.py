"""Batches in the worker class: hooks, limits, aborts and ends of jobs that run together; no database."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job
from arq.worker import FailedJobs, Retry, RetryJob
from redis.exceptions import ConnectionError as RedisConnectionError

from arqonce.arq.functions import FunctionJob
from arqonce.engine.ends import GiveUp
from arqonce.engine.leases import Leases
from arqonce.work import Again, Outcome
from tests.arqonce.conftest import BuildWorker, Context, build_function, run_in_background, stop
from tests.arqonce.engine.batches import Answer, BatchCall, BatchFunction, BatchJob, BatchWorker
from tests.conftest import wait_until_async

Together = Callable[[Context, Sequence[BatchCall]], Awaitable[list[Answer]]]


@pytest.fixture
def build(build: BuildWorker) -> BuildWorker:
    """Build workers of functions that may take many jobs."""
    return partial(build, kind=BatchWorker)


def _batch(together: Together, most: int = 500, **limits: Any) -> BatchFunction:  # noqa: ANN401 - arq's
    """Build a function that says how many jobs ran with each: 1 for a job alone."""

    async def work(_ctx: Context) -> int:
        return 1

    return BatchFunction(**vars(build_function(work, **limits)), together=together, most=most)


async def _count(_ctx: Context, jobs: Sequence[BatchCall]) -> list[Answer]:
    return [{"together": len(jobs)}] * len(jobs)


async def _enqueue(pool: ArqRedis, number: int, function: str = "work") -> list[Job]:
    jobs = [await pool.enqueue_job(function, _job_id=f"{function}{at}") for at in range(number)]
    return [job for job in jobs if job is not None]


async def _results(jobs: Sequence[Job]) -> list[Any]:
    return [await job.result(timeout=2, poll_delay=0.01) for job in jobs]


async def test_jobs_that_were_claimed_together_run_together(pool: ArqRedis, build: BuildWorker) -> None:
    """As many as the function takes at once; each has a result of its own."""
    jobs = await _enqueue(pool, 10)
    worker = await build(_batch(_count, most=4))
    await worker.run_check()

    assert [result["together"] for result in await _results(jobs)] == [4] * 8 + [2] * 2
    assert await pool.keys("arq:retry:*") + await pool.keys("arq:in-progress:*") == []


@pytest.mark.parametrize("again", [Again.ALONE, Again.APART])
async def test_hooks_are_called_once_for_a_job_that_runs_again_after_a_batch(
    pool: ArqRedis, build: BuildWorker, again: Again
) -> None:
    """In arq's order, each with its job's own context."""
    calls: dict[str, list[str]] = {}

    def hook(name: str) -> Callable[[Context], Awaitable[None]]:
        async def call(ctx: Context) -> None:
            calls.setdefault(ctx["job_id"], []).append(name)

        return call

    async def together(_ctx: Context, jobs: Sequence[BatchCall]) -> list[Answer]:
        return [again for _ in jobs]

    jobs = await _enqueue(pool, 10)
    hooks = {name: hook(name) for name in ("on_job_start", "on_job_end", "after_job_end")}
    worker = await build(_batch(together), **hooks)

    assert await worker.run_check() == 10
    assert calls == {job.job_id: ["on_job_start", "on_job_end", "after_job_end"] for job in jobs}


async def test_a_last_hook_that_hangs_holds_up_no_result(pool: ArqRedis, build: BuildWorker) -> None:
    """Nobody waits for it but its worker's end, for some seconds."""
    hanging = asyncio.Event()

    async def hang(_ctx: Context) -> None:
        hanging.set()
        await asyncio.sleep(60)

    task = await run_in_background(await build(_batch(_count), burst=False, after_job_end=hang))
    first = await _results(await _enqueue(pool, 1))
    await asyncio.wait_for(hanging.wait(), 5)
    job = await pool.enqueue_job("work", _job_id="second")

    assert job is not None
    assert (first, await job.result(timeout=2, poll_delay=0.01)) == ([1], 1)
    task.cancel()


async def test_a_job_that_was_never_begun_has_no_last_hook(pool: ArqRedis, build: BuildWorker) -> None:
    """One that is given back because others have taken the slots, or one that is not known."""
    calls: list[str] = []

    async def note(ctx: Context) -> None:
        calls.append(ctx["job_id"])

    await pool.enqueue_job("nothing")
    with pytest.raises(FailedJobs, match="not found"):
        await (await build(_batch(_count), after_job_end=note)).run_check()

    assert calls == []


@pytest.mark.parametrize("again", [Retry(defer=0.01), RetryJob()])
async def test_jobs_of_a_batch_may_ask_for_another_attempt(
    pool: ArqRedis, build: BuildWorker, again: Exception
) -> None:
    """Each by itself, up to ``max_tries``; the others have ended long ago."""
    attempts: dict[str, list[int]] = {}

    async def together(_ctx: Context, jobs: Sequence[BatchCall]) -> list[Answer]:
        for job in jobs:
            attempts.setdefault(job.job_id, []).append(job.attempt)
        return [again if int(job.job_id[-1]) < 2 else {"n": job.attempt} for job in jobs]

    jobs = await _enqueue(pool, 5)
    worker = await build(_batch(together, max_tries=3))

    with pytest.raises(FailedJobs, match="max 3 retries exceeded"):
        await worker.run_check()
    assert attempts == {job.job_id: [1, 2, 3] if at < 2 else [1] for at, job in enumerate(jobs)}
    assert await pool.keys("arq:retry:*") == []


@pytest.mark.parametrize(("limits", "ttl"), [({"keep_result_forever": True}, -1), ({"keep_result": 0}, -2), ({}, 60)])
async def test_results_of_a_batch_are_kept_as_the_function_says(
    pool: ArqRedis, build: BuildWorker, limits: dict[str, Any], ttl: int
) -> None:
    """For ever, not at all, or as long as the worker says."""
    jobs = await _enqueue(pool, 3)
    await (await build(_batch(_count, **limits), keep_result=60)).run_check()

    assert [await pool.ttl(f"arq:result:{job.job_id}") for job in jobs] == [ttl] * 3


async def test_a_batch_that_breaks_off_runs_its_jobs_one_by_one(pool: ArqRedis, build: BuildWorker) -> None:
    """A mistake of ours around the batch ends no job as failed."""

    async def break_off(_ctx: Context, _jobs: Sequence[BatchCall]) -> list[Answer]:
        raise ZeroDivisionError

    jobs = await _enqueue(pool, 3)
    await (await build(_batch(break_off))).run_check()

    assert await _results(jobs) == [1, 1, 1]


async def test_a_late_batch_runs_again_in_pieces(pool: ArqRedis, build: BuildWorker) -> None:
    """Arq's own timeout would fail each of its jobs for good."""
    sizes: list[int] = []

    async def dawdle(_ctx: Context, jobs: Sequence[BatchCall]) -> list[Answer]:
        sizes.append(len(jobs))
        await asyncio.sleep(60)
        return []

    jobs = await _enqueue(pool, 10)
    await (await build(_batch(dawdle, timeout=0.1))).run_check()

    assert (await _results(jobs), sorted(sizes)) == ([1] * 10, [3, 3, 3, 10])  # the tenth alone


async def test_a_cancelled_batch_is_given_back_unharmed(pool: ArqRedis, build: BuildWorker) -> None:
    """No attempt, no lock, and due at the same time as before."""
    started = asyncio.Event()

    async def hang(*_: object) -> Any:  # noqa: ANN401 - never
        started.set()
        await asyncio.sleep(60)

    jobs = await _enqueue(pool, 3)
    before = [await pool.zscore("arq:queue", job.job_id) for job in jobs]
    worker = await build(_batch(hang), burst=False)
    task = await run_in_background(worker)
    await asyncio.wait_for(started.wait(), 5)

    worker.handle_sig(2)  # type: ignore[arg-type] # as arq calls it
    with suppress(asyncio.CancelledError):
        await task

    await worker.close()
    assert [await pool.zscore("arq:queue", job.job_id) for job in jobs] == before
    assert await pool.keys("arq:retry:*") + await pool.keys("arq:in-progress:*") == []


async def test_an_abort_of_one_lets_the_others_run_on(
    pool: ArqRedis, build: BuildWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were cancelled with it, and run again in the same attempt; the worker's end waits for them."""
    running, aborting, aborted = asyncio.Event(), asyncio.Event(), asyncio.Event()
    missing: list[str] = []

    async def together(ctx: Context, jobs: Sequence[BatchCall]) -> list[Answer]:
        if not running.is_set():
            running.set()
            await asyncio.sleep(60)
        await aborted.wait()  # until the batch that they were in has ended
        await asyncio.sleep(0.05)
        missing.extend(job.job_id for job in jobs if job.job_id not in ctx["worker"].tasks)
        return [{"n": job.attempt} for job in jobs]

    async def record(job: BatchJob) -> Outcome:
        aborting.set()
        await asyncio.sleep(0.3)
        aborted.set()
        return await FunctionJob.aborted(job)

    async def other(_ctx: Context) -> None:
        await aborting.wait()  # its end lets those begin that wait for a slot

    await pool.enqueue_job("other")
    jobs = await _enqueue(pool, 10)
    worker = await build(_batch(together), other, burst=False, allow_abort_jobs=True, max_jobs=20)
    monkeypatch.setattr(BatchJob, "aborted", record)
    worker.ctx["worker"] = worker
    task = await run_in_background(worker)
    await asyncio.wait_for(running.wait(), 5)

    abort = asyncio.create_task(jobs[0].abort(timeout=5, poll_delay=0.02))

    assert await abort
    assert [result["n"] for result in await _results(jobs[1:])] == [1] * 9
    assert missing == []
    await stop(task)


async def test_a_job_that_is_put_back_runs_again_though_the_answer_is_slow(
    pool: ArqRedis, build: BuildWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be claimed anew before its worker knows that it was put back; it must not wait for a lease to end then."""
    started: list[float] = []

    async def work(ctx: Context) -> None:
        started.append(time.monotonic())
        if ctx["job_try"] < 3:
            raise RetryJob

    await pool.enqueue_job("work")
    give_up = Leases.give_up

    async def answer_late(leases: Leases, jobs: Sequence[GiveUp]) -> list[bool]:
        answers = await give_up(leases, jobs)
        await asyncio.sleep(0.1)
        return answers

    monkeypatch.setattr(Leases, "give_up", answer_late)  # a slow network
    task = await run_in_background(await build(work, burst=False, lease=timedelta(seconds=5)))
    await wait_until_async(lambda: _is_long(started, 3), 10)
    await stop(task)

    assert started[-1] - started[0] < 2
    assert await pool.keys("arq:retry:*") == []


async def _is_long(found: Sequence[object], length: int) -> bool:
    return len(found) >= length


async def _renew_nothing(*_: object) -> set[bytes]:
    return set()


async def test_a_new_lease_of_a_running_job_costs_no_attempt(
    pool: ArqRedis, build: BuildWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that could not renew its lease has claimed its own job anew; it was one attempt."""
    monkeypatch.setattr(Leases, "renew", _renew_nothing)
    attempts: list[int] = []

    async def block(ctx: Context) -> None:
        attempts.append(ctx["job_try"])
        if len(attempts) < 3:
            await asyncio.sleep(1.3)
            raise RetryJob

    await pool.enqueue_job("block")
    await (await build(block, lease=timedelta(seconds=1))).run_check()

    assert attempts == [1, 2, 3]


async def test_no_claim_is_lost_when_redis_goes_in_the_middle_of_it(
    pool: ArqRedis, build: BuildWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was claimed beside a job of our own starts, in its first attempt."""

    async def block(_ctx: Context) -> None:
        time.sleep(1.2)  # noqa: ASYNC251 - the fault that is tested
        await asyncio.sleep(0.3)

    async def work(ctx: Context) -> object:
        return ctx["job_try"]

    async def lose(*_: object) -> None:
        raise RedisConnectionError("gone")

    await pool.enqueue_job("block")
    job = await pool.enqueue_job("work", _defer_by=0.5)
    monkeypatch.setattr(Leases, "renew", _renew_nothing)
    monkeypatch.setattr(Leases, "uncount", lose)  # an outage at the worst moment
    task = await run_in_background(await build(block, work, burst=False, lease=timedelta(seconds=1)))

    assert job is not None
    assert await job.result(timeout=5, poll_delay=0.02) == 1
    await stop(task)
