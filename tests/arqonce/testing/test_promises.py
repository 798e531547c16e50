"""What the recorder knows of promises: those that a rollback took back unseen, and those without a table."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from unittest.mock import AsyncMock, Mock

import asyncpg
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from arqonce import JobClient, JobStatus, enqueue_in, enqueue_in_sync
from arqonce.failures import InvalidMessageError, KeyConflictError
from arqonce.outbox import status_in, status_in_sync
from arqonce.testing.enqueued import EnqueuedJobs
from jobs import CreateUser, GetOrCreateUser

JANE = GetOrCreateUser(name="Jane", email="jane@example.org")
JOE = GetOrCreateUser(name="Joe", email="joe@example.org")


@pytest.fixture
def sqlite() -> Iterator[Engine]:
    """Yield an empty database without our tables."""
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


async def test_a_new_promise_replaces_one_that_was_rolled_back_unseen(
    enqueued: EnqueuedJobs, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Asyncpg does not tell of its rollback; that PostgreSQL takes the key once more does."""
    enqueued.answer(GetOrCreateUser, ZeroDivisionError(), name="Jane")
    raw = await asyncpg.connect(
        sessions.kw["bind"].url.set(drivername="postgresql").render_as_string(hide_password=False)
    )
    with suppress(ZeroDivisionError):
        async with raw.transaction():
            await enqueue_in(raw, JANE, key="k")
            raise ZeroDivisionError
    async with raw.transaction():
        promised = await enqueue_in(raw, JOE, key="k")
        again = await enqueue_in(raw, JOE, key="k")
    await raw.close()

    assert [promised.is_new, again.is_new] == [True, False]
    assert [str(job) for job in enqueued.jobs] == ["get_or_create_user(name='Joe', email='joe@example.org')"]
    assert enqueued.end("k") is None


async def test_a_promise_that_is_rolled_back_takes_no_other_job_along(
    enqueued: EnqueuedJobs, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """One that was enqueued directly under the same key is still queued."""
    async with JobClient("redis://127.0.0.1:1/0") as client:
        await client.enqueue(JANE, key="k")
    async with sessions() as session:
        promised = await enqueue_in(session, JANE, key="k")

    assert promised.is_new
    assert [(job.job_id, job.is_promised) for job in enqueued.jobs] == [("k", False)]


def test_a_promise_needs_its_table_unless_the_test_says_otherwise(enqueued: EnqueuedJobs, sqlite: Engine) -> None:
    """What the service would be told is told."""
    with Session(sqlite) as session, pytest.raises(OperationalError):
        enqueue_in_sync(session, JANE)

    enqueued.assert_not_enqueued()


def test_without_tables_promises_follow_their_session(enqueued: EnqueuedJobs, sqlite: Engine) -> None:
    """However it is begun and ended; savepoints as well."""
    enqueued.promises_need_no_tables()
    with Session(sqlite) as session, session.begin():
        enqueue_in_sync(session, JANE, key="begun")
        with suppress(ZeroDivisionError), session.begin_nested():
            enqueue_in_sync(session, JANE, key="savepoint")
            raise ZeroDivisionError
    scoped = scoped_session(sessionmaker(sqlite))
    enqueue_in_sync(scoped, JANE, key="committed")
    scoped.commit()
    enqueue_in_sync(scoped, JANE, key="rolled-back")
    scoped.rollback()
    enqueue_in_sync(scoped, JANE, key="closed")
    scoped.remove()

    assert [job.job_id for job in enqueued.jobs] == ["begun", "committed"]


def test_without_tables_promises_follow_their_connection(enqueued: EnqueuedJobs, sqlite: Engine) -> None:
    """One that has executed nothing yet is in a transaction from then on, as after a statement."""
    enqueued.promises_need_no_tables()
    with sqlite.connect() as connection:
        enqueue_in_sync(connection, JANE, key="committed")
        connection.commit()
        connection.execute(text("SELECT 1"))
        enqueue_in_sync(connection, JANE, key="rolled-back")
        connection.rollback()
        enqueue_in_sync(connection, JANE, key="closed")

    assert [job.job_id for job in enqueued.jobs] == ["committed"]


async def test_without_tables_asynchronous_sessions_do_the_same(
    enqueued: EnqueuedJobs, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Nothing is sent to the database."""
    enqueued.promises_need_no_tables()
    async with sessions.begin() as session:
        await enqueue_in(session, JANE, key="kept")
    async with sessions() as session:
        await enqueue_in(session, JANE, key="given-up")
    async with sessions.kw["bind"].connect() as connection:
        await enqueue_in(connection, JANE, key="also-given-up")

    assert [job.job_id for job in enqueued.jobs] == ["kept"]
    async with sessions() as session:
        assert await session.scalar(text("SELECT count(*) FROM arqonce.outbox")) == 0


@pytest.mark.parametrize("spec", [None, AsyncSession, AsyncConnection])
async def test_without_tables_a_mock_is_a_connection(enqueued: EnqueuedJobs, spec: type | None) -> None:
    """Keys and requests are still checked, and a key counts once."""
    enqueued.promises_need_no_tables()
    connection, blocking = AsyncMock(spec=spec), Mock(spec=Session)

    are_new = [(await enqueue_in(connection, JANE, key="k")).is_new for _ in range(2)]
    with pytest.raises(KeyConflictError):
        enqueue_in_sync(blocking, CreateUser(name="Jane"), key="k")
    with pytest.raises(InvalidMessageError):
        enqueue_in_sync(blocking, JANE, key="no spaces")
    enqueue_in_sync(blocking, CreateUser(name="Joe"), queue="mails")

    assert are_new == [True, False]
    assert [await status_in(connection, key) for key in ("k", "other")] == [JobStatus.PROMISED, JobStatus.NOT_FOUND]
    enqueued.answer(GetOrCreateUser, ZeroDivisionError())
    assert status_in_sync(blocking, "k") is JobStatus.COMPLETE
    assert [(job.name, job.queue) for job in enqueued.jobs] == [
        ("get_or_create_user", "arq:queue"),
        ("create_user", "mails"),
    ]


async def test_unique_requests_are_recorded_once(enqueued: EnqueuedJobs, sqlite: Engine) -> None:
    """By clients and, without a table, by promises; one that is rolled back is forgotten, and other ways are others."""
    enqueued.promises_need_no_tables()
    hour = timedelta(hours=1)

    async with JobClient("redis://127.0.0.1:1/0") as client:
        direct = [await client.enqueue(JANE, unique_for=hour) for _ in "12"]
        many = await client.enqueue_many([JANE, JOE, JOE], unique_for=hour)
    with Session(sqlite) as session:
        enqueue_in_sync(session, JANE, unique_for=hour)
        session.rollback()
        promised = [enqueue_in_sync(session, JANE, unique_for=hour) for _ in "12"]
        over = enqueue_in_sync(session, JOE, unique_for=timedelta(milliseconds=1))
        await asyncio.sleep(0.002)  # the unique time, which nothing but the clock ends
        new = enqueue_in_sync(session, JOE, unique_for=hour)
        session.commit()

    assert [handle.is_new for handle in (*direct, *many)] == [True, False, False, True, False]
    assert {direct[0].job_id, many[1].job_id, promised[0].job_id, over.job_id, new.job_id} == {
        job.job_id for job in enqueued.jobs
    }
    assert [one.is_new for one in (*promised, over, new)] == [True, False, True, True]
    assert promised[0].job_id == promised[1].job_id


async def test_unique_promises_in_the_table_are_recorded(
    enqueued: EnqueuedJobs, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """The table decides."""
    async with sessions.begin() as session:
        found = [await enqueue_in(session, JANE, unique_for=timedelta(hours=1)) for _ in "12"]

    assert [one.is_new for one in found] == [True, False]
    assert [job.job_id for job in enqueued.jobs] == [found[0].job_id] == [found[1].job_id]
