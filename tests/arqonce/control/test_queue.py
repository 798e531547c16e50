"""Pauses, as an operator uses them: real workers, commands with an operator's rights, a wiped Redis, restarts."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.client import JobClient
from arqonce.connection.pauses import FOR_EVER, Paused, Recorded, copy_pauses
from arqonce.engine.leases import Leases
from arqonce.outbox import enqueue_in
from jobs import CreateUser, FindUser
from tests import warm
from tests.conftest import StartWorker, wait_until_async
from tests.rights import Rights

Sessions = async_sessionmaker[AsyncSession]
Run = Callable[..., str]

pytestmark = [
    pytest.mark.usefixtures("starts_processes"),
    pytest.mark.parametrize("rights", ["least rights"], indirect=True),
]


@pytest.fixture
def run(environment: dict[str, str], rights: Rights) -> Run:
    """Return a function that runs a command as an operator, and returns what it prints."""
    own = environment | {"DATABASE_URL": rights.operator_database, "REDIS_URL": rights.operator_redis}

    def run(*command: str, code: int = 0) -> str:
        done = warm.run([sys.executable, "-m", "worker", *command], own)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return run


async def _users(sessions: Sessions) -> int:
    async with sessions() as session:
        return int(await session.scalar(text("SELECT count(*) FROM users")) or 0)


async def test_a_paused_queue_stays_paused_until_it_is_resumed(
    start_worker: StartWorker, sessions: Sessions, redis: Redis, run: Run
) -> None:
    """While 1,000 jobs wait and 10 run: these end, no other starts; not after a wipe, not after a restart."""
    workers = [start_worker(WORKER_MAX_JOBS="5") for _ in range(2)]
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users"))
        async with sessions.begin() as session:
            for number in range(1010):
                await enqueue_in(session, CreateUser(name=f"n{number}"), key=f"j{number}")

        async def are_running() -> bool:
            return bool(await redis.zcard("arq:queue:leases") >= 10)

        await wait_until_async(are_running, 20)
        told = await asyncio.to_thread(run, "queue", "pause", "--reason", "a bad deploy", "--by", "jane")
        claimed = await redis.zcard("arq:queue:leases")
        await blocker.rollback()
    await asyncio.sleep(1)
    ended, left = await _users(sessions), await redis.zcard("arq:queue:leases")
    await redis.flushall()

    async def are_given_again() -> bool:
        return bool(await redis.zcard("arq:queue") == 1010 - ended)

    await wait_until_async(are_given_again, 20)
    workers.pop().stop()
    workers.append(await asyncio.to_thread(start_worker, WORKER_MAX_JOBS="5"))
    await asyncio.sleep(1)
    later = await _users(sessions)
    status = json.loads(await asyncio.to_thread(run, "status", "--json"))
    listed = json.loads(await asyncio.to_thread(run, "queue", "list", "--json"))
    resumed = time.monotonic()
    said = await asyncio.to_thread(run, "queue", "resume", "--by", "joe")

    async def have_begun() -> bool:
        return await _users(sessions) > ended

    await wait_until_async(have_begun, 5)
    took = time.monotonic() - resumed

    async def are_done() -> bool:
        return await _users(sessions) == 1010

    await wait_until_async(are_done, 60)
    again = await asyncio.to_thread(run, "queue", "resume", code=1)
    acts = json.loads(await asyncio.to_thread(run, "audit", "list", "--json"))

    assert (told, said) == ("paused arq:queue until it is resumed\n", "resumed arq:queue\n")
    assert 10 <= claimed < 1010
    assert (ended, left, later) == (claimed, 0, claimed)
    assert (status["waiting"], status["paused"], status["held"]) == (0, True, 1010 - claimed)
    assert [(one["queue"], one["job_name"], one["paused_by"], one["reason"]) for one in listed] == [
        ("arq:queue", None, "jane", "a bad deploy")
    ]
    assert "arq:queue is not paused" in again
    assert [(act["who"], act["act"], act["target"]) for act in acts] == [
        ("joe", "queue resume", "arq:queue"),
        ("jane", "queue pause", "arq:queue"),
    ]
    assert took < 4  # with the start of the command


async def test_a_paused_kind_waits_beside_others_until_its_time_is_over(
    start_worker: StartWorker, sessions: Sessions, redis: Redis, client: JobClient, run: Run
) -> None:
    """``--for`` ends it: jobs that were put aside run by themselves then, each once."""
    start_worker()
    told = await asyncio.to_thread(run, "queue", "pause", "--kind", "create_user", "--reason", "x", "--for", "6s")
    paused = [await client.enqueue(CreateUser(name=f"n{number}")) for number in range(300)]
    others = [await client.enqueue(FindUser(name="nobody")) for _ in range(300)]

    results = await asyncio.gather(*(handle.result(timeout=4) for handle in others))
    before = await _users(sessions)
    status = json.loads(await asyncio.to_thread(run, "status", "--json"))
    await asyncio.gather(*(handle.result(timeout=20) for handle in paused))

    assert "paused create_user in arq:queue until 20" in told
    assert (len(results), before, await _users(sessions)) == (300, 0, 300)
    assert (status["waiting"], status["deferred"], status["held"], status["paused"]) == (0, 0, 300, False)
    assert await redis.keys("arqonce:aside:*") == []


async def test_a_relay_alone_lets_jobs_return(redis: Redis, rights: Rights) -> None:
    """With the rights of its user, which may read neither jobs nor the queue."""
    await redis.set("arq:job:one", '{"f": "mail"}')
    await redis.zadd("arq:queue", {"one": 1000})
    leases = Leases(redis, "arq:queue", timedelta(seconds=1))

    async with Redis.from_url(rights.relay_redis) as relay:
        await copy_pauses(relay, ["arq:queue"], _recorded(Paused(kinds={"mail": FOR_EVER})))
        claimed = await leases.claim(1)
        aside = await redis.zscore("arq:queue", "one")
        await copy_pauses(relay, ["arq:queue"], _recorded(Paused()))

    assert (claimed.claims, aside) == ([], 1000 + 100_000_000_000_000)
    assert await redis.zscore("arq:queue", "one") == 1000
    await leases.aclose()


def _recorded(paused: Paused) -> Recorded:
    async def recorded() -> dict[str, Paused]:
        return {"arq:queue": paused}

    return recorded
