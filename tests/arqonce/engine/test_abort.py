"""Aborting jobs: it is an end like any other, on record, and comes to nothing if the job has ended before."""

import asyncio

from arq.jobs import Job
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.cut_short import abort
from arqonce.execution.delivery import Delivery
from arqonce.ledger.recorded import receipt_by_job_id
from arqonce.outbox import enqueue_in
from arqonce.wire.codec import decode
from jobs import CreateUser
from jobs.registry import REGISTRY
from tests.conftest import StartWorker, wait_until_async
from tests.promised import whereabouts

Sessions = async_sessionmaker[AsyncSession]


async def test_an_aborted_job_stays_aborted_though_it_was_promised(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Its row in the outbox goes, or the relay would give it again; nothing of it takes effect."""
    start_worker()
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        async with sessions.begin() as session:
            await enqueue_in(session, CreateUser(name="Jane"), key="promised")
        await wait_until_async(lambda: _exists(redis, "arq:in-progress:promised"), 20)

        assert await Job("promised", redis, _deserializer=decode).abort(timeout=20, poll_delay=0.02)
        await blocker.rollback()

    again = await client.enqueue(CreateUser(name="Afterwards"))
    await asyncio.wait_for(again.result(), 20)
    async with sessions() as session:
        receipt = await receipt_by_job_id(session, "promised")
        names = list(await session.scalars(text("SELECT name FROM users")))
        places = await whereabouts(session, ["promised"])
    assert receipt is not None
    assert receipt.failure is not None
    assert (receipt.failure["type"], names, places) == ("aborted", ["Afterwards"], {"promised": ["receipts"]})


async def _exists(redis: Redis, key: str) -> bool:
    return bool(await redis.exists(key))


async def test_an_abort_that_comes_too_late_answers_what_was_done(sessions: Sessions) -> None:
    """The job has taken effect, and its producer must not be told otherwise."""
    dispatcher = Dispatcher(sessions)
    delivery = Delivery("late", 1, (), {"name": "Jane"})
    done = await dispatcher.run(REGISTRY["create_user"], delivery)

    assert await abort(dispatcher, REGISTRY["create_user"], delivery) == done


async def test_a_job_that_was_aborted_does_not_run_when_it_is_delivered_again(sessions: Sessions) -> None:
    """By a producer that repeats itself, or by a relay that was under way."""
    dispatcher = Dispatcher(sessions)
    delivery = Delivery("again", 1, (), {"name": "Jane"})

    assert await abort(dispatcher, REGISTRY["create_user"], delivery) is None
    outcome = (await asyncio.gather(dispatcher.run(REGISTRY["create_user"], delivery), return_exceptions=True))[0]

    async with sessions() as session:
        users = await session.scalar(text("SELECT count(*) FROM users"))
    assert (type(outcome).__name__, users) == ("JobAbortedError", 0)
