"""The worker class in the test's own process, with functions of arq's kind: what arq documents, and where arq fails."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq import cron
from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix
from arq.jobs import Job, serialize_job
from arq.utils import timestamp_ms, to_unix_ms
from arq.worker import FailedJobs, Function, Retry, RetryJob, Worker
from redis.asyncio import Redis

from arqonce.arq.worker import Worker as OurWorker
from arqonce.failures import JobFailedError
from arqonce.wire.codec import encode
from tests.arqonce.conftest import BuildWorker, Context, build_function, run_in_background, stop
from tests.conftest import wait_until_async


async def test_a_function_gets_arqs_context_and_arguments(pool: ArqRedis, build: BuildWorker) -> None:
    """Job id, try, score, time of enqueueing, the connection, and what the startup hook has added."""

    async def start(ctx: Context) -> None:
        ctx["greeting"] = "Hello"

    async def greet(ctx: Context, name: str, *, mark: str) -> list[Any]:
        assert isinstance(ctx["redis"], ArqRedis)
        assert {"job_id", "job_try", "enqueue_time", "score"} <= ctx.keys()
        return [ctx["job_id"], ctx["job_try"], f"{ctx['greeting']} {name}{mark}"]

    job = await pool.enqueue_job("greet", "Jane", mark="!", _job_id="id")
    worker = await build(greet, on_startup=start)

    assert await worker.run_check() == 1
    assert job is not None
    assert await job.result(timeout=1) == ["id", 1, "Hello Jane!"]


async def test_run_check_tells_of_failed_jobs(pool: ArqRedis, build: BuildWorker) -> None:
    """An ordinary exception is final, as in arq: retries are what dispatch adds."""

    async def fail(_ctx: Context) -> None:
        raise ValueError("no")

    job = await pool.enqueue_job("fail")
    worker = await build(fail)

    with pytest.raises(FailedJobs):
        await worker.run_check()
    assert job is not None
    with pytest.raises(JobFailedError, match="ValueError: no"):
        await job.result(timeout=1)


@pytest.mark.parametrize("again", [Retry(defer=0.05), RetryJob()])
async def test_a_job_may_ask_for_another_attempt(pool: ArqRedis, build: BuildWorker, again: Exception) -> None:
    """Up to ``max_tries``; then it fails and says so."""
    attempts: list[int] = []

    async def try_again(ctx: Context) -> None:
        attempts.append(ctx["job_try"])
        raise again

    await pool.enqueue_job("try_again")
    worker = await build(build_function(try_again, max_tries=3))

    with pytest.raises(FailedJobs, match="max 3 retries exceeded"):
        await worker.run_check()
    assert attempts == [1, 2, 3]


async def test_a_late_job_fails_with_a_timeout(pool: ArqRedis, build: BuildWorker) -> None:
    """In arq's terms a timeout is final; our own deadline comes before it and is not."""

    async def dawdle(_ctx: Context) -> None:
        await asyncio.sleep(60)

    await pool.enqueue_job("dawdle")
    worker = await build(build_function(dawdle, timeout=0.1))

    with pytest.raises(FailedJobs) as failed:
        await worker.run_check()
    assert [result.result.code for result in failed.value.job_results] == ["TimeoutError"]


async def test_a_running_job_is_aborted(pool: ArqRedis, build: BuildWorker) -> None:
    """``Job.abort`` ends it and says so, although its score is the end of its lease."""
    started = asyncio.Event()

    async def wait(_ctx: Context) -> None:
        started.set()
        await asyncio.sleep(60)

    job = await pool.enqueue_job("wait")
    task = await run_in_background(await build(wait, burst=False, allow_abort_jobs=True))
    await asyncio.wait_for(started.wait(), 5)

    assert job is not None
    assert await job.abort(timeout=5, poll_delay=0.02)
    await stop(task)


async def test_a_deferred_job_is_aborted(pool: ArqRedis, build: BuildWorker) -> None:
    """``Job.abort`` pulls it forward and then asks for its end: between the two it may have been started."""

    async def wait(_ctx: Context) -> None:
        await asyncio.sleep(60)

    job = await pool.enqueue_job("wait", _defer_by=3600)
    task = await run_in_background(await build(wait, burst=False, allow_abort_jobs=True))

    assert job is not None
    assert await job.abort(timeout=5, poll_delay=0.02)
    await stop(task)


async def test_a_deferred_job_is_aborted_from_far_away(
    pool: ArqRedis, build: BuildWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two calls of ``Job.abort`` lies a round trip: not a moment to a server on another continent."""
    ran: list[str] = []

    async def run(ctx: Context) -> None:
        ran.append(ctx["job_id"])

    job = await pool.enqueue_job("run", _defer_by=3600)
    task = await run_in_background(await build(run, burst=False, allow_abort_jobs=True))
    ask = ArqRedis.zadd

    async def ask_late(redis: ArqRedis, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - redis-py's
        await asyncio.sleep(0.15)
        return await ask(redis, *args, **kwargs)

    monkeypatch.setattr(ArqRedis, "zadd", ask_late)

    assert job is not None
    assert await job.abort(timeout=5, poll_delay=0.02)
    await stop(task)
    assert ran == []


async def test_max_burst_jobs_is_kept_to(pool: ArqRedis, build: BuildWorker) -> None:
    """The rest stays queued."""
    for _ in range(5):
        await pool.enqueue_job("work")

    async def work(_ctx: Context) -> None:
        await asyncio.sleep(0)

    worker = await build(work)

    assert await worker.run_check(max_burst_jobs=2) == 2
    assert await pool.zcard("arq:queue") == 3


async def test_hooks_run_in_arqs_order_with_the_jobs_context(pool: ArqRedis, build: BuildWorker) -> None:
    """One context for all hooks of a job."""
    calls: list[str] = []

    def hook(name: str) -> Callable[[Context], Awaitable[None]]:
        async def call(ctx: Context) -> None:
            calls.append(name)
            ctx.setdefault("seen", []).append(name)

        return call

    async def work(ctx: Context) -> list[str]:
        return list(ctx["seen"])

    job = await pool.enqueue_job("work")
    worker = await build(work, on_job_start=hook("start"), on_job_end=hook("end"), after_job_end=hook("after"))
    await worker.run_check()

    assert calls == ["start", "end", "after"]
    assert job is not None
    assert await job.result(timeout=1) == ["start"]


@pytest.mark.parametrize("name", ["on_job_start", "on_job_end", "after_job_end"])
async def test_a_hook_that_raises_harms_neither_worker_nor_neighbours(
    pool: ArqRedis, build: BuildWorker, name: str
) -> None:
    """Whatever it is. Arq's whole worker ends, and the jobs that it had are locked for minutes."""
    errors = [RuntimeError("the database is down"), SystemExit(2), KeyboardInterrupt(), asyncio.CancelledError()]

    async def raise_each_once(_ctx: Context) -> None:
        if errors:
            raise errors.pop()

    async def work(_ctx: Context) -> str:
        return "done"

    jobs = [await pool.enqueue_job("work") for _ in range(3)]
    worker = await build(work, **{name: raise_each_once})

    assert await worker.run_check() == 3
    assert [await job.result(timeout=1) for job in jobs if job is not None] == ["done"] * 3


async def test_an_exit_is_the_failure_of_its_job(pool: ArqRedis, build: BuildWorker) -> None:
    """Told as such; a cancellation that nobody has asked for is tried again, and counts."""

    async def leave(_ctx: Context) -> None:
        sys.exit(2)

    async def give_up_once(ctx: Context) -> int:
        if ctx["job_try"] == 1:
            raise asyncio.CancelledError
        return int(ctx["job_try"])

    left, given_up = await pool.enqueue_job("leave"), await pool.enqueue_job("give_up_once")
    worker = await build(leave, give_up_once)

    await worker.async_run()

    assert left is not None
    assert given_up is not None
    with pytest.raises(JobFailedError, match="HandlerEscapeError: the handler raised SystemExit: 2"):
        await left.result(timeout=1)
    assert (await given_up.result(timeout=1), worker.jobs_retried) == (2, 1)


async def test_keep_result_decides_how_long_a_result_is_kept(pool: ArqRedis, build: BuildWorker) -> None:
    """Not at all, for ever, for a time: the function's own word before the worker's."""

    async def work(_ctx: Context) -> int:
        return 1

    functions = [
        build_function(work, name="none", keep_result=0),
        build_function(work, name="for_ever", keep_result_forever=True),
        build_function(work, name="default"),
    ]
    for function in functions:
        await pool.enqueue_job(function.name, _job_id=function.name)
    worker = await build(*functions, keep_result=60)
    await worker.run_check()

    ttl = {function.name: await pool.ttl(f"arq:result:{function.name}") for function in functions}
    assert ttl == {"none": -2, "for_ever": -1, "default": 60}


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_cron_job_that_is_due_in_an_outage_is_enqueued_once_when_redis_is_back(
    pool: ArqRedis,
    build: BuildWorker,
    monkeypatch: pytest.MonkeyPatch,
    has_begun: bool,  # noqa: FBT001 - pytest's parameters
) -> None:
    """Under the id of its slot; and not again if it was enqueued, the answer was lost, and another worker ran it."""
    now = datetime.now(UTC)

    async def nightly(ctx: Context) -> None:
        """Do nothing."""
        del ctx

    worker = await build(cron_jobs=[cron(nightly, hour=3)], timezone=UTC)
    worker.cron_jobs[0].next_run = slot = now - timedelta(seconds=1)
    job_id = f"cron:{nightly.__qualname__}:{to_unix_ms(slot)}"
    if has_begun:
        await pool.set(in_progress_key_prefix + job_id, b"1")

    async def fail(*_arguments: object, **_options: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(worker.pool, "enqueue_job", fail)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await worker.run_cron(now, 0.5)
            if has_begun:
                break
    for _ in range(2):
        await worker.run_cron(now, 0.5)

    assert await pool.zrange("arq:queue", 0, -1) == ([] if has_begun else [job_id.encode()])
    assert worker.cron_jobs[0].next_run > now


async def test_a_cron_job_runs_once_among_workers(pool: ArqRedis, build: BuildWorker) -> None:
    """Its in-progress key stays for a minute, as arq has it, so that a slower worker does not enqueue it again."""
    ran: list[str] = []

    async def tick(ctx: Context) -> None:
        ran.append(ctx["job_id"])

    def jobs() -> list[Any]:
        return [cron(tick, run_at_startup=True, unique=True, job_id="tick", hour=0, minute=0, second=0)]

    workers = [await build(burst=False, cron_jobs=jobs()) for _ in range(2)]
    tasks = [await run_in_background(worker) for worker in workers]

    async def is_over() -> bool:
        return bool(await pool.pttl("arq:in-progress:tick") > 30_000)  # no lease is so long

    await wait_until_async(is_over, 5)
    await asyncio.sleep(0.2)  # time for the other worker, had it enqueued the job again
    await stop(*tasks)

    assert ran == ["tick"]
    assert 0 < await pool.ttl("arq:in-progress:tick") <= 60


async def test_an_unreadable_result_is_a_failure_that_can_be_read(pool: ArqRedis, build: BuildWorker) -> None:
    """The effect is done; the producer learns that the answer could not be written."""

    async def answer(_ctx: Context) -> object:
        return object()

    job = await pool.enqueue_job("answer")
    worker = await build(answer)
    await worker.run_check()

    assert job is not None
    with pytest.raises(JobFailedError, match="unable to serialize result"):
        await job.result(timeout=1)


async def test_a_fleet_runs_more_than_a_hundred_long_jobs(pool: ArqRedis, build: BuildWorker) -> None:
    """Arq's window of 100 ids is full of running jobs then, and the other slots stay idle."""
    running, end = 0, asyncio.Event()

    async def work(_ctx: Context) -> None:
        nonlocal running
        running += 1
        await end.wait()

    for _ in range(180):
        await pool.enqueue_job("work")
    tasks = [await run_in_background(await build(work, burst=False, max_jobs=60)) for _ in range(3)]

    async def are_all_running() -> bool:
        return running == 180

    await wait_until_async(are_all_running, 10)
    end.set()
    await wait_until_async(lambda: _is_empty(pool), 10)
    await stop(*tasks)


async def _enqueue(pool: ArqRedis, name: str, count: int) -> None:
    """Do as ``enqueue_job``, for all in one request: each call of it opens a connection, and has a second for that."""
    now = timestamp_ms()
    message = serialize_job(name, (), {}, None, now, serializer=encode)
    async with pool.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.psetex(f"arq:job:{number}", timedelta(days=1), message)
        pipe.zadd("arq:queue", {str(number): now for number in range(count)})
        await pipe.execute()


async def _is_empty(redis: Redis) -> bool:
    queued: int = await redis.zcard("arq:queue")
    return queued == 0


async def test_stock_workers_may_share_the_queue(pool: ArqRedis, build: BuildWorker) -> None:
    """Two of each kind, thousands of jobs: each runs once, and both kinds have a part."""
    ran: dict[str, list[str]] = {"ours": [], "arq's": []}
    has_begun = {name: asyncio.Event() for name in ran}

    def work_of(name: str) -> Function:
        async def work(ctx: Context) -> None:
            ran[name].append(ctx["job_id"])
            has_begun[name].set()
            await asyncio.gather(*(one.wait() for one in has_begun.values()))  # or one kind might take all
            await asyncio.sleep(0.005)

        return build_function(work)

    await _enqueue(pool, "work", 4_000)
    kinds = {"ours": OurWorker, "arq's": Worker}
    workers = [
        await build(work_of(name), kind=kind, max_jobs=10) for name, kind in kinds.items() for _ in range(2)
    ]  # in burst mode: arq's class cannot be cancelled while it claims without a warning
    await asyncio.wait_for(asyncio.gather(*(worker.async_run() for worker in workers)), 60)

    everything = ran["ours"] + ran["arq's"]
    assert (len(everything), len(set(everything))) == (4_000, 4_000)


async def test_a_job_runs_on_under_a_new_lease_when_its_own_had_ended(pool: ArqRedis, build: BuildWorker) -> None:
    """A loop that was blocked for longer than the lease claims its own running job: it does not start it again."""
    starts = 0
    attempts = None

    async def block(ctx: Context) -> str:
        nonlocal starts, attempts
        starts += 1
        time.sleep(1.2)  # noqa: ASYNC251 - the fault that is tested
        await asyncio.sleep(0.3)
        attempts = await pool.get(f"arq:retry:{ctx['job_id']}")
        return "once"

    job = await pool.enqueue_job("block")
    worker = await build(block, lease=timedelta(seconds=1))
    await worker.run_check()

    assert job is not None
    assert (starts, attempts in {None, b"0"}, await job.result(timeout=1)) == (1, True, "once")


async def test_a_job_without_a_limit_is_refused() -> None:
    """Arq starts such a job a second time after ten seconds, while it runs. A limit of tries is a number."""

    async def work(_ctx: Context) -> None: ...

    with pytest.raises(ValueError, match="job_timeout must be a time"):
        OurWorker([build_function(work)], job_timeout=None)
    with pytest.raises(TypeError, match="max_tries of work is str, and must be a whole number"):
        OurWorker([replace(build_function(work), max_tries="3")])  # type: ignore[arg-type] # as an environment has it


async def test_a_cancelled_worker_gives_its_jobs_back_unharmed(pool: ArqRedis, build: BuildWorker) -> None:
    """As if they had never been started: no attempt, no lock, and due at the same time."""
    started = asyncio.Event()

    async def wait(_ctx: Context) -> None:
        started.set()
        await asyncio.sleep(60)

    job = await pool.enqueue_job("wait")
    assert job is not None
    before = await pool.zscore("arq:queue", job.job_id)
    worker = await build(wait, burst=False)
    task = await run_in_background(worker)
    await asyncio.wait_for(started.wait(), 5)

    with suppress(asyncio.CancelledError):
        task.cancel()
        await worker.close()

    assert await pool.zscore("arq:queue", job.job_id) == before
    await pool.delete("arq:queue:baton")  # left for a worker that would be about to stand by, for a second

    async def is_as_before() -> bool:  # the key that shows whether changes are told lasts for a millisecond
        found = sorted(key for key in await pool.keys("*") if not key.startswith(b"arqonce:trend:"))
        return found == [f"arq:job:{job.job_id}".encode(), b"arq:queue"]

    await wait_until_async(is_as_before, 2)
    assert await Job(job.job_id, pool).status() == "queued"


async def test_a_shutdown_hook_that_fails_leaves_no_connection_open(build: BuildWorker, redis: Redis) -> None:
    """Its error is told; arq's class leaves the connections to the garbage collector."""

    async def fail(_ctx: Context) -> None:
        raise LookupError

    async def work(_ctx: Context) -> None:
        pass

    worker = await build(work, on_shutdown=fail)
    await worker.run_check()
    before = len(await redis.client_list())

    with pytest.raises(LookupError):
        await worker.close()

    async def are_fewer() -> bool:
        return len(await redis.client_list()) < before

    await wait_until_async(are_fewer, 5)
    assert worker._pool is None


async def test_the_health_key_is_written_also_when_the_clock_was_set_back(
    build: BuildWorker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else ``--check`` fails for as long as it was set back, and probes end the worker."""

    async def work(_ctx: Context) -> None:
        pass

    worker = await build(work)
    await worker.run_check()
    await redis.delete(worker.health_check_key)
    monkeypatch.setattr(time, "time", lambda: worker._last_health_check - 3600)

    await worker.record_health()

    assert await redis.exists(worker.health_check_key)
