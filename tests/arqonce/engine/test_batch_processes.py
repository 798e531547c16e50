"""Batches in worker processes: what was enqueued before they start is claimed together; nothing is lost or doubled."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from arq.jobs import Job
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient
from arqonce.client.client import JobHandle
from arqonce.spec import Registry
from arqonce.wire.codec import decode
from jobs import CreateUser
from jobs.payloads import EmailTakenError, UserView
from jobs.users import create_user, create_user_batch
from tests.arqonce.conftest import BuildWorker, build_recording_worker
from tests.arqonce.execution.test_batch import counts, spec_of
from tests.conftest import StartWorker, WorkerProcess, wait_until, wait_until_async
from tests.promised import promise, where

Sessions = async_sessionmaker[AsyncSession]
_LOCK = text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")


def _users(number: int, *, emails: bool = False) -> list[CreateUser]:
    return [CreateUser(name=f"User {at}", email=f"u{at}@example.org" if emails else None) for at in range(number)]


async def _results(handles: Sequence[JobHandle[Any]], seconds: float = 30) -> list[Any]:
    async with asyncio.timeout(seconds):
        return await asyncio.gather(*(handle.result() for handle in handles), return_exceptions=True)


def _batches(worker: WorkerProcess) -> list[int]:
    """Return the sizes of the batches that the worker has done."""
    lines = (line for line in worker.log.splitlines() if '"batch done"' in line)
    found = [json.loads(line) for line in lines]
    assert all(line["first_job_id"] for line in found)
    return [line["jobs"] for line in found]


async def _is_waiting(sessions: Sessions) -> bool:
    """Say whether a transaction of the worker hangs on the lock that the test holds."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'batches' AND wait_event_type = 'Lock'"
    )
    async with sessions() as session:
        return bool(await session.scalar(query))


async def test_a_backlog_is_done_in_few_transactions(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Each job has its own answer, and its own receipt; a refusal is no other job's business."""
    handles = await client.enqueue_many([*_users(600, emails=True), CreateUser(name="Late", email="u7@example.org")])
    worker = start_worker()

    answers = await _results(handles)

    users, receipts, dead, transactions = await counts(sessions)
    one_of_two = sorted(type(answer) is EmailTakenError for answer in (answers.pop(600), answers.pop(7)))
    assert [answer.name for answer in answers] == [f"User {at}" for at in range(600) if at != 7]
    assert one_of_two == [False, True]  # due in the same ms, they have no order
    assert (users, receipts, dead, sum(_batches(worker))) == (600, 601, 0, 601)
    assert transactions < 12
    await wait_until_async(lambda: _has_left_nothing(redis), 10)


async def _has_left_nothing(redis: Redis) -> bool:
    return not [key async for key in redis.scan_iter() if key.startswith((b"arq:job", b"arq:in-", b"arq:retry"))]


async def test_promised_jobs_run_together_and_are_owed_no_more(start_worker: StartWorker, sessions: Sessions) -> None:
    """They reach the queue through the relay, which gives many at once."""
    keys = [f"p{at}" for at in range(50)]
    for key in keys:
        await promise(sessions, CreateUser(name=key), key)
    worker = start_worker()

    async def are_done() -> bool:
        return set(map(tuple, (await where(sessions, *keys)).values())) == {("receipts",)}

    await wait_until_async(are_done, 20)
    assert (await counts(sessions))[:3] == (50, 50, 0)
    assert _batches(worker)


async def test_a_blocked_job_delays_its_neighbours_little(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """Somebody else's open transaction holds its e-mail; when that ends the job ends, too."""
    async with sessions() as holder:
        await create_user(holder, CreateUser(name="Holder", email="u7@example.org"))
        handles = await client.enqueue_many(_users(60, emails=True))
        start_worker(DATABASE_STATEMENT_TIMEOUT="1s", DATABASE_COMMAND_TIMEOUT="5s")

        started = time.monotonic()
        others = await _results([*handles[:7], *handles[8:]])
        took = time.monotonic() - started
        await holder.rollback()

    assert (len({user.id for user in others}), took < 8) == (59, True)
    assert [user.name for user in await _results(handles[7:8])] == ["User 7"]
    assert await _names(sessions) == sorted(f"User {at}" for at in range(60))


async def _names(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return sorted(await session.scalars(text("SELECT name FROM users")))


async def test_the_abort_of_one_job_of_a_batch_aborts_that_one(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """The others were cancelled with it, and take effect all the same, once."""
    async with sessions() as blocker:
        await blocker.execute(_LOCK)
        handles = await client.enqueue_many(_users(20))
        start_worker(DATABASE_APPLICATION_NAME="batches")
        await wait_until_async(lambda: _is_waiting(sessions), 20)

        assert await Job(handles[3].job_id, redis, _deserializer=decode).abort(timeout=20, poll_delay=0.02)
        await blocker.rollback()

    await _results([handle for handle in handles if handle is not handles[3]])
    assert await _names(sessions) == sorted(f"User {at}" for at in range(20) if at != 3)
    assert (await counts(sessions))[:3] == (19, 20, 0)


async def test_sigterm_gives_a_running_batch_back_unharmed(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Beyond the grace: each job is due as before, without a lock and without a counted attempt; then it runs."""
    async with sessions() as blocker:
        await blocker.execute(_LOCK)
        handles = await client.enqueue_many(_users(20))
        before = await redis.zrange("arq:queue", 0, -1, withscores=True)
        worker = start_worker(DATABASE_APPLICATION_NAME="batches", WORKER_SHUTDOWN_GRACE="1s")
        await wait_until_async(lambda: _is_waiting(sessions), 20)

        code = await asyncio.to_thread(worker.stop)
        await blocker.rollback()

    after = await redis.zrange("arq:queue", 0, -1, withscores=True)
    locks = await redis.keys("arq:in-progress:*") + await redis.keys("arq:retry:*")
    assert (code, after, locks) == (0, before, [])
    start_worker()
    await _results(handles)
    assert (await counts(sessions))[:3] == (20, 20, 0)


async def test_the_batch_of_a_killed_worker_takes_effect_once(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """SIGKILL in the middle of its statement: the heir runs the jobs when their leases have ended."""
    async with sessions() as blocker:
        await blocker.execute(_LOCK)
        handles = await client.enqueue_many(_users(20))
        first = start_worker(DATABASE_APPLICATION_NAME="batches", WORKER_LEASE="1s")
        await wait_until_async(lambda: _is_waiting(sessions), 20)
        first.process.kill()
        first.process.wait()
        await blocker.rollback()

    start_worker(WORKER_LEASE="1s")

    assert len({user.id for user in await _results(handles)}) == 20
    assert (await counts(sessions))[:3] == (20, 20, 0)


async def test_a_killed_worker_whose_batch_had_committed_is_answered_for(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """The results never reached Redis: the heir answers from the receipts."""
    handles = await client.enqueue_many(_users(20))
    first = start_worker(WORKER_LEASE="1s")
    users = await _results(handles)
    await asyncio.to_thread(first.stop)
    for handle in handles:  # as the first left it, had it been killed right behind its commit
        await redis.delete(f"arq:result:{handle.job_id}")
    again = await client.enqueue_many(_users(20), keys=[handle.job_id for handle in handles])

    start_worker()

    assert await _results(again) == users
    assert (await counts(sessions))[:3] == (20, 20, 0)


async def test_ours_and_arqs_own_share_many_jobs(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Two thousand, of which both have some, in batches here and one by one there: each row once."""
    handles: list[JobHandle[UserView]] = await client.enqueue_many(_users(500))
    arqs = start_worker(sys.executable, "-m", "arq", "worker.WorkerSettings")
    await asyncio.to_thread(wait_until, lambda: '"job done"' in arqs.log, 20)
    ours = start_worker()
    for _ in range(3):
        handles += await client.enqueue_many(_users(500))

    assert len({user.id for user in await _results(handles, 60)}) == len(handles)
    assert (await counts(sessions))[:3] == (len(handles), len(handles), 0)
    assert (bool(_batches(ours)), '"job done"' in arqs.log, '"batch done"' in arqs.log) == (True, True, False)
    await wait_until_async(lambda: _has_left_nothing(redis), 10)


async def test_one_poisonous_payload_costs_its_neighbours_few_transactions(
    build: BuildWorker, client: JobClient, sessions: Sessions
) -> None:
    """The handler of many fails at it with an unknown error: of 100 jobs 99 take effect, in pieces of ten."""
    tries: list[int] = []

    async def single(session: AsyncSession, payload: CreateUser) -> UserView:
        tries.append(1)
        if payload.name == "User 42":
            raise ZeroDivisionError
        return await create_user(session, payload)

    async def batch(session: AsyncSession, payloads: Sequence[CreateUser]) -> Any:  # noqa: ANN401 - its answers
        tries.append(len(payloads))
        if any(payload.name == "User 42" for payload in payloads):
            raise ZeroDivisionError
        return await create_user_batch(session, payloads)

    await client.enqueue_many(_users(100))
    registry = Registry(spec_of(batch, handler=single, max_attempts=1))
    worker = await build_recording_worker(build, registry, sessions, max_jobs=100)
    await worker.async_run()

    assert sorted(tries) == [1] * 10 + [10] * 10 + [100]
    assert (await counts(sessions))[:3] == (99, 99, 1)
