"""Jobs that kill their workers, and those that stand beside them. With real workers."""

import asyncio
import sys
from datetime import timedelta

from redis.asyncio import Redis

from arqonce import JobClient
from tests.conftest import StartWorker
from tests.faults.escapes import KILLING, NAME, Misbehave
from tests.faults.observe import Sessions, letters, users_by_name, wait_for_empty_queue

SOON = timedelta(seconds=60)


async def test_killers_die_and_nobody_beside_them(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Each killer is dead after its attempts, whatever its exit code; the innocent end well, in their first ones."""
    start_worker(
        sys.executable, "-m", "worker", "run", "--processes", "3", WORKER_REGISTRY=NAME, WORKER_LEASE="1s"
    )  # fmt: skip
    names = [f"innocent {number}" for number in range(12)]
    killers = await client.enqueue_many([Misbehave(how=how, name=how) for how in KILLING])
    handles = await client.enqueue_many([Misbehave(how="slowly well", name=name) for name in names])

    answers = await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))

    await wait_for_empty_queue(redis, 60)
    assert [answer.name for answer in answers] == names
    assert await users_by_name(sessions) == dict.fromkeys(names, 1)
    assert await letters(sessions) == {killer.job_id: "attempts_exhausted" for killer in killers}
    assert await redis.keys("arqonce:crashes:*") == []
