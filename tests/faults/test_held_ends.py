"""Processes that something holds on to: they end within their bound, in order, and say so. With real workers."""

import asyncio
import signal
import sys
import time
from pathlib import Path

from redis.asyncio import Redis

from arqonce import JobClient
from tests.conftest import StartWorker, WorkerProcess, wait_until
from tests.faults.escapes import NAME, Misbehave
from tests.faults.observe import Sessions, events, users_by_name

BOUND = 1 + 10
"""Seconds: the grace of these workers, and what may come on top of it."""


HOW = ("swallows", "blocks", "hangs in a thread", "leaves a thread")


async def test_a_worker_ends_within_its_bound_whatever_holds_on(
    start_worker: StartWorker, redis: Redis, sessions: Sessions, environment: dict[str, str], tmp_path: Path
) -> None:
    """Its jobs are given back, uncounted, without an effect; the log names what holds on, and so does the code."""
    workers, job_ids = {}, {}
    for how in HOW:
        queue = how.replace(" ", "-")
        workers[how] = start_worker(WORKER_QUEUE=queue, WORKER_REGISTRY=NAME, WORKER_SHUTDOWN_GRACE="1s")
        async with JobClient(environment["REDIS_URL"], queue=queue) as client:
            job_ids[how] = (await client.enqueue(Misbehave(how=how, name=how, folder=str(tmp_path)))).job_id
        await asyncio.to_thread(wait_until, (tmp_path / how).exists, 10)
    await asyncio.to_thread(wait_until, lambda: "job done" in workers["leaves a thread"].log, 10)
    started = time.monotonic()
    for worker in workers.values():
        worker.process.terminate()

    codes = [await asyncio.to_thread(worker.process.wait, 30) for worker in workers.values()]
    took = time.monotonic() - started

    assert (codes, took < BOUND + 4) == ([5] * 4, True)
    assert ["worker stopped" in worker.log for worker in workers.values()] == [False] * 4
    given_back = {how: await _given_back(redis, how, job_ids[how]) for how in HOW}
    assert given_back == dict.fromkeys(HOW[:3], (1, None)) | {HOW[3]: (0, None)}
    assert (await redis.keys("arq:in-progress:*"), await users_by_name(sessions)) == ([], {HOW[3]: 1})
    assert [_names(workers[how], job_ids[how]) for how in HOW[:2]] == [True, True]
    assert ["sleep" in workers[HOW[2]].log, "left-behind" in workers[HOW[3]].log] == [True, True]


async def test_a_second_signal_ends_all_processes_in_seconds_whatever_holds_on(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions, tmp_path: Path
) -> None:
    """However long the grace is; also where no event loop hears it. The jobs are given back, uncounted."""
    command = (sys.executable, "-m", "worker", "run", "--processes", "2")
    worker = start_worker(*command, WORKER_REGISTRY=NAME, WORKER_MAX_JOBS="1", WORKER_SHUTDOWN_GRACE="90s")
    for how in ("blocks", "swallows"):
        await client.enqueue(Misbehave(how=how, name=how, folder=str(tmp_path)))
        await asyncio.to_thread(wait_until, (tmp_path / how).exists, 10)
    worker.process.terminate()
    await asyncio.to_thread(wait_until, lambda: "supervisor told to stop" in worker.log, 5)
    started = time.monotonic()
    worker.process.send_signal(signal.SIGINT)

    code = await asyncio.to_thread(worker.process.wait, 30)
    took = time.monotonic() - started

    assert (code, took < 20, await redis.zcard("arq:queue")) == (5, True, 2), worker.log
    assert (await redis.keys("arq:retry:*"), await redis.keys("arq:in-progress:*")) == ([], [])
    assert await users_by_name(sessions) == {}


def _names(worker: WorkerProcess, job_id: str) -> bool:
    held = events(worker, "jobs hold on though they were cancelled: they are given back")
    return any(job_id in line["job_ids"] for line in held + events(worker, "these hold on to the process"))


async def _given_back(redis: Redis, how: str, job_id: str) -> tuple[int, bytes | None]:
    """Return how many jobs are queued, and how many attempts of it have counted."""
    return await redis.zcard(how.replace(" ", "-")), await redis.get(f"arq:retry:{job_id}")
