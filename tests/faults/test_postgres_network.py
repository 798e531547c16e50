"""The way to PostgreSQL fails while jobs run. With real workers behind a proxy."""

import asyncio
import time
from datetime import timedelta

from redis.asyncio import Redis
from sqlalchemy import text

from arqonce import JobClient
from jobs import CreateUser
from tests.conftest import StartWorker, wait_until_async
from tests.faults.observe import (
    Sessions,
    attempts,
    letters,
    users_by_name,
    wait_for_backends,
    wait_for_empty_queue,
    wait_for_log,
)
from tests.faults.proxy import Proxy
from tests.worker.test_end_to_end import BOTH, COMMANDS

SOON = timedelta(seconds=30)
QUICK = {"DATABASE_STATEMENT_TIMEOUT": "1s", "DATABASE_COMMAND_TIMEOUT": "2s", "DATABASE_CONNECT_TIMEOUT": "1s"}


async def test_cuts_of_postgresql_lose_and_double_nothing(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions, postgres_proxy: Proxy
) -> None:
    """Before, in and after commits: each job takes effect once, and none dies of it."""
    worker = start_worker(**postgres_proxy.environment)
    end = time.monotonic() + 3
    names: list[str] = []
    while time.monotonic() < end:
        names += [f"User {len(names) + number}" for number in range(10)]
        await client.enqueue_many([CreateUser(name=name) for name in names[-10:]])
        await asyncio.sleep(0.15)
        postgres_proxy.cut()

    await wait_for_empty_queue(redis)

    assert await users_by_name(sessions) == dict.fromkeys(names, 1)
    assert await letters(sessions) == {}
    assert worker.process.poll() is None


@BOTH
async def test_a_commit_whose_answer_is_lost_takes_effect_once(
    command: str, start_worker: StartWorker, client: JobClient, sessions: Sessions, postgres_proxy: Proxy
) -> None:
    """The row is stored, the worker does not learn it: the next attempt finds the receipt."""
    start_worker(*COMMANDS[command], **postgres_proxy.environment)
    await (await client.enqueue(CreateUser(name="Before"))).result(timeout=SOON)
    postgres_proxy.loses_replies_to = b"COMMIT"
    handle = await client.enqueue(CreateUser(name="Committed"))
    await wait_until_async(lambda: _has_lost(postgres_proxy), 10)
    postgres_proxy.heal()

    user = await handle.result(timeout=SOON)

    assert user.name == "Committed"
    assert (await users_by_name(sessions))["Committed"] == 1


async def _has_lost(proxy: Proxy) -> bool:
    return proxy.losses > 0


async def test_a_silent_postgresql_is_noticed_in_seconds_and_burns_no_attempt(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions, postgres_proxy: Proxy
) -> None:
    """Connections that swallow everything, with jobs on them: the command's limit ends it, and claiming waits."""
    worker = start_worker(**postgres_proxy.environment, **QUICK)
    await (await client.enqueue(CreateUser(name="Before"))).result(timeout=SOON)
    postgres_proxy.silence()
    handles = await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(5)])
    silent = time.monotonic()
    await wait_for_log(worker, "PostgreSQL is gone", 15)
    noticed = time.monotonic() - silent
    await asyncio.sleep(3)  # time for several attempts, were they made
    postgres_proxy.heal()
    healed = time.monotonic()

    await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))
    took = time.monotonic() - healed
    await wait_for_empty_queue(redis)

    assert (noticed < 8, took < 5) == (True, True), (noticed, took)
    assert set((await users_by_name(sessions)).values()) == {1}
    assert (worker.log.count("PostgreSQL is gone"), attempts(worker)) == (1, {1})


async def test_thirty_jobs_at_once_have_a_connection_each(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """The pool is as large as the number of jobs: none waits for a connection until its time is up."""
    start_worker(WORKER_MAX_JOBS="30", DATABASE_APPLICATION_NAME="thirty")
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        handles = await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(30)])

        await wait_for_backends(sessions, "thirty", 30)
        await blocker.rollback()

    assert len(await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))) == 30
