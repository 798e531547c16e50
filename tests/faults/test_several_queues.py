"""A worker process with several queues that is killed, with promised jobs in each, and in one that nobody serves."""

import json
import sys

from redis.asyncio import Redis
from sqlalchemy import text

from arqonce.outbox import enqueue_in
from arqonce.wire.codec import decode
from jobs import CreateUser
from tests import warm
from tests.conftest import StartWorker, wait_until, wait_until_async
from tests.faults.observe import Sessions, users_by_name
from tests.rights import Rights

THREE = ("high", "arq:queue", "low")


async def test_a_killed_workers_jobs_of_each_queue_end_once_and_a_misspelt_queue_is_named(
    start_worker: StartWorker, redis: Redis, sessions: Sessions, environment: dict[str, str], rights: Rights
) -> None:
    """Results and dead letters name their queue; what nobody serves is named in the log and by ``status``."""
    queues = {"WORKER_QUEUE": ",".join(THREE), "WORKER_LEASE": "1s"}
    async with sessions.begin() as session:
        for queue in (*THREE, "misspelt"):
            for number in range(3):
                await enqueue_in(session, CreateUser(name=f"{queue} {number}"), key=f"{queue}-{number}", queue=queue)
        old = "UPDATE arqonce.outbox SET give_at = now() - interval '2 min' WHERE queue = 'misspelt'"
        await session.execute(text(old))
    await redis.set("arq:job:refused", json.dumps({"f": "unknown", "et": 0}))
    await redis.zadd("low", {"refused": 1})
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users"))
        killed = start_worker(**queues)

        async def has_all() -> bool:
            return [await redis.zcard(f"{queue}:leases") for queue in THREE] == [3, 3, 3]

        await wait_until_async(has_all, 20)
        await _wait_for_letter(sessions)
        killed.kill()

    worker = start_worker(**queues)

    async def are_done() -> bool:
        results = await redis.mget(f"arq:result:{queue}-{number}" for queue in THREE for number in range(3))
        return None not in results

    await wait_until_async(are_done, 20)
    results = [decode(await redis.get(f"arq:result:{queue}-0")) for queue in THREE]
    assert [(result["q"], result["s"], result["t"]) for result in results] == [(queue, True, 2) for queue in THREE]
    assert await users_by_name(sessions) == {f"{queue} {number}": 1 for queue in THREE for number in range(3)}
    assert await _queue_of_letter(sessions) == "low"

    wait_until(lambda: "jobs wait in a queue that no worker serves" in worker.log, 20)
    own = environment | queues | {"DATABASE_URL": rights.operator_database, "REDIS_URL": rights.operator_redis}
    said = json.loads(_status(own, "--json")[0])
    table, complaint = _status(own)

    seen = [(found["queue"], found["waiting"], found["workers"]) for found in said["queues"]]
    assert seen == [(queue, 0, 2) for queue in THREE]  # the killed one counts for 45 s
    assert (said["waiting"], said["unserved"]) == (0, ["misspelt"])
    assert all(queue in table for queue in THREE)
    assert "jobs wait in misspelt, which no worker serves: name the queue in the WORKER_QUEUE" in complaint
    assert worker.log.count("no worker serves") == 1


async def _queue_of_letter(sessions: Sessions) -> str | None:
    async with sessions() as session:
        queue: str | None = await session.scalar(text("SELECT queue FROM arqonce.dead_jobs WHERE job_id = 'refused'"))
    return queue


async def _wait_for_letter(sessions: Sessions) -> None:
    async def is_there() -> bool:
        return await _queue_of_letter(sessions) is not None

    await wait_until_async(is_there, 20)


def _status(environment: dict[str, str], *options: str) -> tuple[str, str]:
    done = warm.run([sys.executable, "-m", "worker", "status", *options], environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
