"""``JobHandle.abort``, with real workers, and with the rights of ``deploy/``."""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient, JobStatus, SyncJobClient
from arqonce.failures import JobAbortedError, QueueUnavailableError, ResultMissingError
from arqonce.outbox import enqueue_in
from jobs import CreateUser
from tests.conftest import StartWorker, wait_until_async, wait_until_empty
from tests.rights import Rights

Sessions = async_sessionmaker[AsyncSession]

with_both_rights = pytest.mark.parametrize("rights", ["all rights", "least rights"], indirect=True)

JANE = CreateUser(name="Jane")
LONG = timedelta(seconds=30)


async def _users(sessions: Sessions) -> int:
    async with sessions() as session:
        return int(await session.scalar(text("SELECT count(*) FROM users")) or 0)


@with_both_rights
async def test_a_job_that_is_not_due_ends_at_once(
    client: JobClient, start_worker: StartWorker, sessions: Sessions, rights: Rights
) -> None:
    """It is pulled forward to be aborted, and its producer is told so."""
    start_worker()
    handle = await client.enqueue(JANE, delay=timedelta(hours=1))

    async with JobClient(rights.operator_redis) as operator:
        is_aborted = await operator.handle(CreateUser, handle.job_id).abort(timeout=LONG)

    with pytest.raises(JobAbortedError):
        await handle.result(timeout=LONG)
    assert (is_aborted, await handle.status(), await _users(sessions)) == (True, JobStatus.FAILED, 0)


@with_both_rights
@pytest.mark.parametrize("is_sync", [False, True], ids=["asyncio", "sync"])
async def test_a_job_that_runs_is_ended(
    client: JobClient, start_worker: StartWorker, sessions: Sessions, rights: Rights, *, is_sync: bool
) -> None:
    """In the midst of its statement; nothing of it stays."""
    start_worker()
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        handle = await client.enqueue(JANE)

        async def is_running() -> bool:
            return await handle.status() is JobStatus.RUNNING

        await wait_until_async(is_running, 20)
        if is_sync:
            with SyncJobClient(rights.operator_redis) as blocking:
                same = blocking.handle(CreateUser, handle.job_id)
                is_aborted = await asyncio.to_thread(same.abort, timeout=LONG)
        else:
            async with JobClient(rights.operator_redis) as operator:
                is_aborted = await operator.handle(CreateUser, handle.job_id).abort(timeout=LONG)
        await blocker.rollback()

    assert (is_aborted, await _users(sessions)) == (True, 0)


@with_both_rights
async def test_a_job_that_has_ended_is_not_aborted(
    client: JobClient, start_worker: StartWorker, sessions: Sessions, redis: Redis
) -> None:
    """Nothing is asked for, which could hit a later job of the same id."""
    start_worker()
    handle = await client.enqueue(JANE, key="k")
    await handle.result(timeout=LONG)

    assert not await handle.abort(timeout=LONG)
    assert (await _users(sessions), await redis.zcard("arq:abort")) == (1, 0)


@with_both_rights
async def test_a_job_that_is_nowhere_cannot_be_aborted(client: JobClient, redis: Redis) -> None:
    """A typing error in an id is told, and leaves nothing behind."""
    with pytest.raises(ResultMissingError):
        await client.handle(CreateUser, "no-such-job").abort(timeout=LONG)

    await wait_until_empty(redis)


@with_both_rights
async def test_a_promised_job_is_aborted_before_it_is_in_redis(
    redis: Redis, start_worker: StartWorker, sessions: Sessions, rights: Rights
) -> None:
    """The request waits for it."""
    async with sessions.begin() as session:
        promised = await enqueue_in(session, JANE)
    async with JobClient(rights.operator_redis) as operator:
        aborting = asyncio.create_task(operator.handle(promised).abort(timeout=LONG))

        async def is_asked_for() -> bool:
            return bool(await redis.zcard("arq:abort"))

        await wait_until_async(is_asked_for, 10)
        assert await redis.zcard("arq:queue") == 0  # an id without a message would be a dead letter
        start_worker()

        assert await aborting
    assert await _users(sessions) == 0


@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_who_may_not_abort_is_told_so(client: JobClient, redis: Redis) -> None:
    """A producer of ``deploy/`` enqueues and waits; to end jobs is an operator's."""
    handle = await client.enqueue(JANE)

    with pytest.raises(QueueUnavailableError, match="permissions"):
        await handle.abort(timeout=LONG)

    assert await redis.zcard("arq:queue") == 1


@with_both_rights
async def test_a_producer_waits_without_polling(client: JobClient, redis: Redis) -> None:
    """Its user may ask Redis to tell."""
    before = int((await redis.info("stats"))["tracking_total_keys"])
    handle = await client.enqueue(JANE)
    waiting = asyncio.create_task(handle.result(timeout=LONG))

    async def is_tracked() -> bool:
        return int((await redis.info("stats"))["tracking_total_keys"]) > before

    await wait_until_async(is_tracked, 10)
    await redis.flushall()
    with pytest.raises(ResultMissingError):
        await waiting
