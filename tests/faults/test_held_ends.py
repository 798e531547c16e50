"""Processes that something holds on to: they end within their bound, in order, and say so. With real workers."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis

from jobs import JobClient
from tests.conftest import StartWorker, WorkerProcess, wait_until
from tests.faults.escapes import NAME, Misbehave
from tests.faults.observe import Sessions, events, users_by_name

SOON = timedelta(seconds=40)

BOUND = 1 + 10
"""Seconds: the grace of these workers, and what may come on top of it."""


@pytest.mark.parametrize("how", ["swallows", "blocks", "hangs in a thread", "leaves a thread"])
async def test_a_worker_ends_within_its_bound_whatever_holds_on(
    how: str, start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions, tmp_path: Path
) -> None:
    """Its jobs are given back, uncounted, without an effect; the log names what holds on, and so does the code."""
    worker = start_worker(WORKER_REGISTRY=NAME, WORKER_SHUTDOWN_GRACE="1s")
    handle = await client.enqueue(Misbehave(how=how, name="holder", folder=str(tmp_path)))
    await asyncio.to_thread(wait_until, (tmp_path / "holder").exists, 10)
    if how == "leaves a thread":
        await handle.result(timeout=SOON)
    started = time.monotonic()

    code = await asyncio.to_thread(worker.stop)
    took = time.monotonic() - started

    assert (code, took < BOUND + 3, "worker stopped" in worker.log) == (5, True, False), worker.log
    if how == "leaves a thread":
        assert "left-behind" in worker.log
        return
    assert await _given_back(redis, handle.job_id) == (1, None, 0)
    assert await users_by_name(sessions) == {}
    assert _names(worker, handle.job_id) or "sleep" in worker.log


def _names(worker: WorkerProcess, job_id: str) -> bool:
    held = events(worker, "jobs hold on though they were cancelled: they are given back")
    return any(job_id in line["job_ids"] for line in held + events(worker, "these hold on to the process"))


async def _given_back(redis: Redis, job_id: str) -> tuple[int, bytes | None, int]:
    """Return how many jobs are queued, how many attempts of it have counted, and how many locks there are."""
    return (
        await redis.zcard("arq:queue"),
        await redis.get(f"arq:retry:{job_id}"),
        len(await redis.keys("arq:in-progress:*")),
    )
