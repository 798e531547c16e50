"""Live workers as an operator sees them, and one that takes no more jobs."""

import asyncio
import json

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.client import JobClient
from jobs import CreateUser
from tests.arqonce.control.conftest import Operate
from tests.conftest import StartWorker, wait_until_async

Sessions = async_sessionmaker[AsyncSession]


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_a_drained_worker_ends_its_jobs_and_takes_no_more(
    start_worker: StartWorker,
    sessions: Sessions,
    redis: Redis,
    client: JobClient,
    operate: Operate,
) -> None:
    """It lives on, also if Redis is emptied, is listed as quiet, and works again when told so."""
    worker = await asyncio.to_thread(start_worker, WORKER_MAX_JOBS="3")
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users"))
        running = await client.enqueue(CreateUser(name="one"), key="one")

        await wait_until_async(lambda: _says(redis, b'"running": 1'), 20)
        (shown,) = json.loads(await operate("workers", "list", "--json"))
        table = await operate("workers", "list")
        trends = await redis.keys("arqonce:trend:*:arq:queue")
        told = await operate("workers", "drain", shown["id"][:8], "--by", "jane", "--why", "it leaks")
        await blocker.rollback()
    await running.result(timeout=10)
    waiting = await client.enqueue(CreateUser(name="two"), key="two")
    await redis.delete(*await redis.keys("arqonce:*"))
    await redis.zadd("arq:queue", {"two": 1})
    await wait_until_async(lambda: _says(redis, b'"state": "drained"'), 20)
    await wait_until_async(lambda: _is_announced(redis), 2)  # sooner than by itself
    queued = await redis.zscore("arq:queue", "two")
    undrained = await operate("workers", "undrain", f"{shown['host']}:{shown['pid']}")
    await waiting.result(timeout=10)
    names_its_database = await _says(redis, b'"database": "')
    acts = json.loads(await operate("audit", "list", "--json"))
    code = worker.stop()
    (job,) = shown["jobs"]

    assert (shown["queues"], shown["slots"], shown["state"]) == (["arq:queue"], 3, "working")
    assert (job["id"], job["job_name"]) == ("one", "create_user")
    assert "create_user" in shown["kinds"]
    assert names_its_database
    assert trends != []
    assert shown["rss_bytes"] > 10_000_000
    assert (abs(shown["clock_offset_seconds"]) < 1, shown["block"]) == (True, None)
    assert f"{shown['host']}:{shown['pid']}" in table
    assert told.endswith("takes no more jobs; it runs 1\n")
    assert (queued, code) == (1, 0)
    assert undrained.endswith("takes jobs again; it runs 0\n") or "it runs 1" in undrained
    assert [(act["who"], act["act"], act["why"]) for act in acts][1:] == [("jane", "workers drain", "it leaks")]
    assert await redis.zcard("arqonce:workers") == 0


async def _says(redis: Redis, part: bytes) -> bool:
    """Return whether a worker has said this of itself."""
    said = [await redis.get(key) or b"" for key in await redis.keys("arqonce:worker:*")]
    return any(part in one for one in said)


async def _is_announced(redis: Redis) -> bool:
    return bool(await redis.zcard("arqonce:workers"))
