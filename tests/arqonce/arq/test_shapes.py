"""Four shapes of arq services, on arq's own command and on ours: the same results, hooks, effects and keys.

Each expected value is written down once, and both commands have to produce it.
"""

import asyncio
import re
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobResult, JobStatus, ResultNotFound

from tests.arqonce.arq.conftest import Command, StartShape
from tests.arqonce.arq.shapes.effects import read_effects
from tests.arqonce.arq.shapes.limits import OutOfStockError
from tests.arqonce.arq.shapes.queues import LETTERS, ORDERS, Order
from tests.conftest import wait_until_async
from tests.redis_keys import keys_of_jobs

BOTH = pytest.mark.parametrize("command", ["arq", "arqonce"])

MONDAY = datetime(2030, 1, 7, 14, 5, tzinfo=UTC)
TUESDAY = datetime(2030, 1, 8, 14, 5, tzinfo=UTC)


async def _enqueue(pool: ArqRedis, name: str, /, *args: object, **options: Any) -> Job:  # noqa: ANN401 - arq's
    job = await pool.enqueue_job(name, *args, **options)
    assert job is not None
    return job


async def _outcome(job: Job) -> object:
    """Wait for a job; return its result, or the text of its failure."""
    try:
        return await job.result(timeout=20, poll_delay=0.02)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever the function has raised
        return repr(error)


async def _wait_for_effects(file: Path, is_there: Callable[[dict[str, list[str]]], bool]) -> None:
    async def is_so() -> bool:
        return is_there(read_effects(file))

    await wait_until_async(is_so, 20)


async def _keys(pool: ArqRedis) -> list[str]:
    """Return all keys; the times in the ids of cron jobs are left out.

    An idle worker of ours leaves a key for a second, which wakes another one. One that was killed stays announced for a
    while. arq's leaves its health key if a signal ends it that it does not handle.
    """

    async def is_woken() -> bool:
        return not await pool.keys("*:baton")

    await wait_until_async(is_woken, 2)
    found = await keys_of_jobs(pool)
    keys = [key.decode() for key in found if not (key.endswith(b":health-check") or key.startswith(b"arqonce:worker"))]
    return [re.sub(r":\d{13}$", ":TIME", key) for key in keys]


@BOTH
async def test_hooks_pools_delays_and_cron_jobs(
    command: Command, start_shape: StartShape, shapes_pool: ArqRedis, effects: Path
) -> None:
    """All five hooks around jobs that succeed, wait, fail and are late; a process pool; a chain; a cron job."""
    asked = (("store", "a row"), ("square", 12), ("remind", 2), ("patient",), ("fail",), ("sleep",))
    jobs = [await _enqueue(shapes_pool, name, *args, _job_id=name) for name, *args in asked]
    worker = start_shape(command, "hooks.WorkerSettings")

    outcomes = {job.job_id: await _outcome(job) for job in jobs}
    await _wait_for_effects(effects, lambda found: _count(found, "after, with") == 10)
    code = worker.stop()

    assert (outcomes, code) == (
        {
            "store": "a row in session 1",
            "square": 144,
            "remind": 2,
            "patient": "session 2",
            "fail": "ValueError('no such item')",
            "sleep": "TimeoutError()",
        },
        0,
    )
    once = ["start 1", "end of session 1", "after, with 1 results"]
    assert {re.sub(r":\d{13}$", ":TIME", job): found for job, found in read_effects(effects).items()} == {
        "worker": ["startup", "shutdown"],
        "store": ["start 1", "a row", "end of session 1", "after, with 1 results"],
        "square": once,
        "remind": once,
        "remind-1": once,
        "remind-0": once,
        "patient": [
            *("start 1", "end of session 1", "after, with 0 results"),
            *("start 2", "end of session 2", "after, with 1 results"),
        ],
        "fail": once,
        "sleep": once,
        "cron:tick:TIME": ["start 1", "tick", "end of session 1", "after, with 0 results"],
    }
    names = ("fail", "patient", "remind", "remind-0", "remind-1", "sleep", "square", "store")
    assert await _keys(shapes_pool) == ["arq:in-progress:cron:tick:TIME", *(f"arq:result:{name}" for name in names)]


def _count(found: dict[str, list[str]], beginning: str) -> int:
    return sum(what.startswith(beginning) for each in found.values() for what in each)


@BOTH
async def test_two_queues_threads_and_aborts(
    command: Command, start_shape: StartShape, shapes_pool: ArqRedis, effects: Path
) -> None:
    """Functions enqueue into one another's queues; a running job and a deferred one are aborted."""
    placed = await _enqueue(shapes_pool, "place", Order("book", MONDAY), _job_id="place", _queue_name=ORDERS)
    running = await _enqueue(shapes_pool, "wait", _job_id="running", _queue_name=ORDERS)
    deferred = await _enqueue(shapes_pool, "wait", _job_id="deferred", _queue_name=ORDERS, _defer_by=60)
    asked = asyncio.create_task(deferred.abort(timeout=20, poll_delay=0.02))
    await wait_until_async(lambda: _exists(shapes_pool, "arq:abort"), 5)
    workers = [start_shape(command, f"queues.{name}") for name in ("Orders", "Letters")]
    jobs = [placed, Job("write-book", shapes_pool, LETTERS), Job("confirm-book", shapes_pool, ORDERS)]
    await _wait_for_effects(effects, lambda found: "end" in found.get("confirm-book", ()))
    await _wait_for_effects(effects, lambda found: "running" in found)

    aborted = [await running.abort(timeout=20, poll_delay=0.02), await asked]

    assert aborted == [True, True]
    assert [await _outcome(job) for job in jobs] == [
        Order("book", TUESDAY),
        datetime(2030, 1, 1, 14, tzinfo=UTC),
        Order("book", TUESDAY, is_confirmed=True),
    ]
    assert [worker.stop() for worker in workers] == [0, 0]
    assert read_effects(effects) == {
        "place": ["book is prepared", "end"],
        "write-book": ["book is due at 14:05", "end"],
        "confirm-book": ["confirmed", "end"],
        "running": ["waits", "cleans up", "end"],
    }
    names = ("confirm-book", "deferred", "place", "running", "write-book")
    assert await _keys(shapes_pool) == [f"arq:result:{name}" for name in names]


async def _exists(pool: ArqRedis, key: str) -> bool:
    return bool(await pool.exists(key))


@BOTH
async def test_limits_of_functions(
    command: Command, start_shape: StartShape, shapes_pool: ArqRedis, effects: Path
) -> None:
    """Time limits, tries, how long results are kept, names; identifiers are UUIDs, and ids have a name and a UUID."""
    tenant = uuid4()
    asked: dict[str, tuple[tuple[object, ...], dict[str, int]]] = {
        "reports.build": ((tenant,), {"rows": 3}),
        "slow": ((), {}),
        "long": ((), {}),
        "stubborn": ((), {}),
        "patient": ((), {}),
        "sell": (("book",), {}),
        "forget": ((), {}),
        "put_off": ((), {}),
        "unpicklable": ((), {}),
        "gone": ((), {}),
    }
    jobs = {
        name: await _enqueue(shapes_pool, name, *args, _job_id=f"{name}:{uuid4().hex}", **fields)
        for name, (args, fields) in asked.items()
    }
    statuses = {await job.status() for job in jobs.values()}
    worker = start_shape(command, "limits.WorkerSettings")

    outcomes = {name: await _outcome(job) for name, job in jobs.items()}
    worker.stop()

    kept = [job for name, job in jobs.items() if name != "forget"]
    assert statuses == {JobStatus.queued}
    assert outcomes == {
        "reports.build": UUID(int=tenant.int + 3),
        "slow": "TimeoutError()",
        "long": "in time",
        "stubborn": "JobExecutionFailed('max 2 retries exceeded')",
        "patient": [3],
        "sell": repr(OutOfStockError("book")),
        "forget": outcomes["forget"],
        "put_off": 11,
        "unpicklable": "SerializationError('unable to serialize result')",
        "gone": "JobExecutionFailed(\"function 'gone' not found\")",
    }
    assert str(outcomes["forget"]).startswith(ResultNotFound.__name__)
    assert {job.job_id.partition(":")[0]: await _stored(job) for job in kept} == {
        "reports.build": ("reports.build", (tenant,), {"rows": 3}, 1, True),
        "slow": ("slow", (), {}, 1, False),
        "long": ("long", (), {}, 1, True),
        "stubborn": ("stubborn", (), {}, 3, False),
        "patient": ("patient", (), {}, 3, True),
        "sell": ("sell", ("book",), {}, 1, False),
        "put_off": ("put_off", (), {}, 1, True),
        "unpicklable": ("unpicklable", (), {}, 1, False),
        "gone": ("gone", (), {}, 1, False),
    }
    assert {await _minutes_left(job) for job in kept} == {-1, 1, 10}
    assert [await _minutes_left(jobs[name]) for name in ("reports.build", "sell", "slow")] == [1, -1, 10]
    assert {job.partition(":")[0]: found for job, found in read_effects(effects).items()} == {
        "reports.build": ["3 rows"],
        "stubborn": ["try 1", "try 2"],
        "patient": ["try 1", "try 2", "try 3"],
        "forget": ["done"],
    }
    assert await _keys(shapes_pool) == sorted(f"arq:result:{job.job_id}" for job in kept)


async def _stored(job: Job) -> tuple[object, ...]:
    info = await job.result_info()
    assert isinstance(info, JobResult)
    assert (info.job_id, info.queue_name) == (job.job_id, "arq:queue")
    return info.function, info.args, info.kwargs, info.job_try, info.success


async def _minutes_left(job: Job) -> int:
    """Return for how long the result is kept; -1 is for ever."""
    left = await job._redis.pttl(f"arq:result:{job.job_id}")
    return int(left) if left < 0 else round(left / 60_000)


@BOTH
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_a_job_whose_worker_ends_without_handling_signals_is_tried_again(
    command: Command, end: signal.Signals, start_shape: StartShape, shapes_pool: ArqRedis, effects: Path
) -> None:
    """In arq it waits for its time limit and 10 s more; ours has a lease, and handles SIGTERM whatever is set."""
    job = await _enqueue(shapes_pool, "interrupted", _job_id="it")
    first = start_shape(command, "ends.WithoutSignals")
    await _wait_for_effects(effects, lambda found: "it" in found)

    first.process.send_signal(end)
    await asyncio.to_thread(first.process.wait, 10)
    left = await shapes_pool.pttl("arq:in-progress:it")
    if command == "arq":  # what time would do
        await shapes_pool.delete("arq:in-progress:it")
    second = start_shape(command, "ends.Next")
    result = await job.result(timeout=20, poll_delay=0.02)
    second.stop()

    assert (result, read_effects(effects)["it"].count("runs")) == (1, 2)
    assert 2_000 < left <= 12_000 if command == "arq" else left <= 2_000
    assert await _keys(shapes_pool) == ["arq:result:it"]


@BOTH
async def test_hooks_of_a_job_that_the_end_of_its_worker_interrupts(
    command: Command, start_shape: StartShape, shapes_pool: ArqRedis, effects: Path
) -> None:
    """The function and the hooks clean up, which takes a while; the job goes back to the queue, and is tried again."""
    job = await _enqueue(shapes_pool, "interrupted", _job_id="it")
    first = start_shape(command, "ends.WithHooks")
    await _wait_for_effects(effects, lambda found: "runs" in found.get("it", ()))

    code = await asyncio.to_thread(first.stop)
    interrupted = read_effects(effects)
    status = await job.status()
    start_shape(command, "ends.Next")
    result = await job.result(timeout=20, poll_delay=0.02)

    assert (code, status, result) == (0, JobStatus.queued, 1)
    assert interrupted == {"it": ["start 1", "runs", "cleans up", "end 1", "after 1"]}
