"""Pauses, as an operator uses them: real workers, commands with an operator's rights, a wiped Redis, restarts."""

import asyncio
import json
import time
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.client import JobClient
from arqonce.connection.pauses import FOR_EVER, Paused, Recorded, copy_pauses
from arqonce.connection.presence import kinds_of
from arqonce.engine.leases import Leases
from arqonce.outbox import enqueue_many_in
from jobs import CreateUser, FindUser
from tests.arqonce.control.conftest import Operate
from tests.conftest import StartWorker, wait_until_async
from tests.rights import Rights

Sessions = async_sessionmaker[AsyncSession]

pytestmark = [
    pytest.mark.usefixtures("starts_processes"),
    pytest.mark.parametrize("rights", ["least rights"], indirect=True),
]


async def _users(sessions: Sessions) -> int:
    async with sessions() as session:
        return int(await session.scalar(text("SELECT count(*) FROM users")) or 0)


async def test_a_paused_queue_stays_paused_until_it_is_resumed(
    start_worker: StartWorker, sessions: Sessions, redis: Redis, operate: Operate
) -> None:
    """While 1,000 jobs wait and 10 run: these end, no other starts; not after a wipe, not after a restart."""
    workers = [start_worker(WORKER_MAX_JOBS="5") for _ in range(2)]
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users"))
        async with sessions.begin() as session:
            await enqueue_many_in(session, [CreateUser(name=f"n{number}") for number in range(1010)])

        async def are_running() -> bool:
            return bool(await redis.zcard("arq:queue:leases") >= 10)

        await wait_until_async(are_running, 20)
        told = await operate("queue", "pause", "--reason", "a bad deploy", "--by", "jane")
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
    status = json.loads(await operate("status", "--json"))
    listed = json.loads(await operate("queue", "list", "--json"))
    resumed = time.monotonic()
    said = await operate("queue", "resume", "--by", "joe")

    async def have_begun() -> bool:
        return await _users(sessions) > ended

    await wait_until_async(have_begun, 5)
    took = time.monotonic() - resumed

    async def are_done() -> bool:
        return await _users(sessions) == 1010

    await wait_until_async(are_done, 60)
    again = await operate("queue", "resume", code=1)
    acts = json.loads(await operate("audit", "list", "--json"))

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
    start_worker: StartWorker, sessions: Sessions, redis: Redis, client: JobClient, operate: Operate
) -> None:
    """``--for`` ends it: jobs that were put aside run by themselves then, each once."""
    start_worker()
    told = await operate("queue", "pause", "--kind", "create_user", "--reason", "x", "--for", "8s")
    paused = await client.enqueue_many([CreateUser(name=f"n{number}") for number in range(300)])
    others = await client.enqueue_many([FindUser(name="nobody")] * 300)

    results = await asyncio.gather(*(handle.result(timeout=6) for handle in others))
    before = await _users(sessions)
    status = json.loads(await operate("status", "--json"))
    await asyncio.gather(*(handle.result(timeout=20) for handle in paused))

    assert "paused create_user in arq:queue until 20" in told
    assert (len(results), before, await _users(sessions)) == (300, 0, 300)
    assert (status["waiting"], status["deferred"], status["held"], status["paused"]) == (0, 0, 300, False)
    assert await redis.keys("arqonce:aside:*") == []


async def test_a_pause_of_a_kind_that_nobody_runs_says_so(
    start_worker: StartWorker, redis: Redis, operate: Operate
) -> None:
    """A misspelt kind is paused, for a release to come may have it; the operator hears of the one that was meant."""
    start_worker()

    async def is_known() -> bool:
        return await kinds_of(redis, "arq:queue") is not None

    await wait_until_async(is_known, 20)
    misspelt = await operate("queue", "pause", "--kind", "create_usr", "--reason", "x")
    other = await operate("queue", "pause", "low", "--kind", "create_usr", "--reason", "x")
    right = await operate("queue", "pause", "--kind", "create_user", "--reason", "x")

    assert "no live worker of arq:queue runs create_usr. Did you mean create_user?" in misspelt
    assert "no live worker" not in other + right  # nobody serves the other queue, so nothing is known


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
