"""Jobs that enqueue jobs, in real workers."""

import asyncio
import time
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient, SyncJobClient
from tests.arqonce.follow_ups import NAME, Chain, FanOut, Leaf
from tests.conftest import StartWorker
from tests.rights import Rights

Sessions = async_sessionmaker[AsyncSession]
SOON = timedelta(seconds=30)


async def _users(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return list(await session.scalars(text("SELECT name FROM users ORDER BY name")))


@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_a_chain_starts_each_job_as_soon_as_the_one_before_commits(
    start_worker: StartWorker, client: JobClient, sessions: Sessions, rights: Rights
) -> None:
    """With the rights of a worker. Whoever knows a follow-up's id alone waits for it, before it is in Redis, too."""
    worker = start_worker(WORKER_REGISTRY=NAME)
    started = time.monotonic()

    first = await client.enqueue(Chain(left=15), key="first")
    done = await first.result(timeout=SOON)
    while done.follow_ups:
        done = await client.handle(Chain, done.follow_ups[0], is_promised=True).result(timeout=SOON)
    took = time.monotonic() - started
    with SyncJobClient(rights.producer_redis) as blocking:
        (second,) = (await first.result()).follow_ups
        again = await asyncio.to_thread(blocking.handle(Chain, second, is_promised=True).result, timeout=SOON)

    assert again.follow_ups[0].startswith("first~")
    assert await _users(sessions) == sorted(f"chain {left}" for left in range(16))
    assert took < 8  # a relay that polls would take a second and a half for each
    assert worker.stop() == 0


async def test_a_thousand_follow_ups_of_one_job_run_on_its_queue(
    start_worker: StartWorker, redis: Redis, valkey_url: str, sessions: Sessions
) -> None:
    """Of another name, too. Each takes effect once, also if the job is delivered again when Redis has forgotten it."""
    worker = start_worker(WORKER_REGISTRY=NAME, WORKER_QUEUE="orders")

    async with JobClient(valkey_url, queue="orders") as client:
        for _ in range(2):
            done = await (await client.enqueue(FanOut(number=1000), key="fan-out")).result(timeout=SOON)
            leaves = [client.handle(Leaf, job_id, is_promised=True) for job_id in done.follow_ups]
            await asyncio.gather(*(leaf.result(timeout=SOON) for leaf in leaves))
            await redis.delete("arq:result:fan-out")

    async with sessions() as session:
        promised = await session.scalar(text("SELECT count(*) FROM arqonce.outbox"))
    assert (len(set(done.follow_ups)), promised) == (1000, 0)
    assert await _users(sessions) == sorted(f"leaf {at}" for at in range(1000))
    assert worker.stop() == 0
