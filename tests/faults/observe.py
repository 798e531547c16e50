"""What a test looks at after a fault: rows, letters, attempts, and what the log says."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import WorkerProcess, wait_until_async

Sessions = async_sessionmaker[AsyncSession]


async def users_by_name(sessions: Sessions) -> Counter[str]:
    """Count the stored users of each name: more than one is an effect taken twice."""
    async with sessions() as session:
        return Counter(await session.scalars(text("SELECT name FROM users")))


async def letters(sessions: Sessions) -> dict[str, str]:
    """Return the reasons of all dead letters by job id."""
    async with sessions() as session:
        rows = await session.execute(text("SELECT job_id, reason FROM arqonce.dead_jobs"))
        return {row.job_id: row.reason for row in rows}


async def wait_for_backends(sessions: Sessions, name: str, count: int) -> None:
    """Wait until ``count`` transactions of this application hang on the lock that the test holds."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND wait_event_type = 'Lock'")

    async def hang() -> bool:
        async with sessions() as session:
            return bool(await session.scalar(query, {"name": name}) == count)

    await wait_until_async(hang, 20)


async def wait_for_no_connections(sessions: Sessions, name: str) -> None:
    """Wait until this application has no connection to PostgreSQL any more."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")

    async def are_gone() -> bool:
        async with sessions() as session:
            return bool(await session.scalar(query, {"name": name}) == 0)

    await wait_until_async(are_gone, 10)


async def wait_for_empty_queue(redis: Redis, seconds: float = 30, *, queue: str = "arq:queue") -> None:
    """Wait until every job has ended."""

    async def is_empty() -> bool:
        return not await redis.zcard(queue)

    await wait_until_async(is_empty, seconds)


async def wait_for_log(worker: WorkerProcess, words: str, seconds: float, *, count: int = 1) -> None:
    """Wait until the worker has logged these words so often."""

    async def says() -> bool:
        return worker.log.count(words) >= count

    await wait_until_async(says, seconds)


def events(worker: WorkerProcess, event: str) -> list[dict[str, Any]]:
    """Return the worker's log lines of this event."""
    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


def successes(worker: WorkerProcess) -> list[dict[str, Any]]:
    """Return the worker's log lines of jobs and of batches that succeeded; a thread writes them a moment later."""
    limit = time.monotonic() + 5
    while not (found := events(worker, "job done") + events(worker, "batch done")) and time.monotonic() < limit:
        time.sleep(0.01)
    return found


def attempts(*workers: WorkerProcess) -> set[int]:
    """Return the numbers of the attempts that succeeded; of a batch the highest."""
    return {line["attempt"] for worker in workers for line in successes(worker)}


async def end(worker: WorkerProcess) -> int:
    """Send SIGTERM and return the exit code."""
    return await asyncio.to_thread(worker.stop)
