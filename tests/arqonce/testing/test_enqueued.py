"""``enqueued`` knows what was enqueued, by whichever client, and runs it on request."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from arqonce import JobClient, JobStatus, SyncJobClient
from arqonce.database.settings import DatabaseSettings
from arqonce.failures import InvalidMessageError, JobAbortedError, KeyConflictError
from arqonce.ledger.outbox import lock_promise
from arqonce.outbox import enqueue_in, enqueue_in_sync
from arqonce.spec import JobSpec, Registry
from arqonce.testing.enqueued import EnqueuedJobs, NobodyWorksError
from arqonce.testing.run_job import RunJob
from db.users import users_by_name
from jobs import CreateUser, EmailTakenError, GetOrCreateUser
from jobs.payloads import UserView
from jobs.registry import REGISTRY
from jobs.users import create_user

NOWHERE = "redis://127.0.0.1:1/0"
"""Nothing listens there."""

JANE = GetOrCreateUser(name="Jane", email="jane@example.org")


async def test_what_a_client_enqueues_is_recorded_without_redis(enqueued: EnqueuedJobs) -> None:
    """With key, time and queue; a key that was used is a duplicate."""
    at = datetime(2030, 1, 1, tzinfo=UTC)
    async with JobClient(NOWHERE, queue="mails") as client:
        first = await client.enqueue(CreateUser(name="Jane"), key="k", at=at)
        again = await client.enqueue(CreateUser(name="Jane"), key="k")
        many = await client.enqueue_many([CreateUser(name="Joe"), CreateUser(name="Joan")])

    recorded = enqueued.jobs[0]
    assert (recorded.job_id, recorded.due, recorded.queue, recorded.is_promised) == ("k", at, "mails", False)
    assert [first.is_new, again.is_new] == [True, False]
    assert [job.job_id for job in enqueued.jobs] == ["k", *[handle.job_id for handle in many]]


def test_what_a_blocking_client_enqueues_is_recorded(enqueued: EnqueuedJobs) -> None:
    """In a test that is not asynchronous, for code that is not."""
    with SyncJobClient(NOWHERE) as client:
        client.enqueue(CreateUser(name="Jane"))
    SyncJobClient(NOWHERE).enqueue_many([CreateUser(name="Joe")])

    assert enqueued.assert_enqueued(CreateUser, name="Jane").email is None
    assert [str(job) for job in enqueued.jobs] == ["create_user(name='Jane')", "create_user(name='Joe')"]


async def test_a_request_that_a_client_refuses_is_refused(enqueued: EnqueuedJobs) -> None:
    """Recording takes the place of Redis, not of the client's own checks."""
    async with JobClient(NOWHERE) as client:
        with pytest.raises(InvalidMessageError, match="key"):
            await client.enqueue(CreateUser(name="Jane"), key="no spaces")

    enqueued.assert_not_enqueued()


async def test_assertions_tell_what_there_is(enqueued: EnqueuedJobs) -> None:
    """And which fields a payload has, if one is misspelt: nothing would ever be enqueued with that."""
    with pytest.raises(AssertionError, match=r"CreateUser\(name='Jane'\) was not enqueued; nothing was"):
        enqueued.assert_enqueued(CreateUser, name="Jane")
    async with JobClient(NOWHERE) as client:
        await client.enqueue(CreateUser(name="Joe"))

    with pytest.raises(AssertionError, match=r"not enqueued; enqueued: create_user\(name='Joe'\)"):
        enqueued.assert_enqueued(CreateUser, name="Jane")
    with pytest.raises(AssertionError, match=r"CreateUser\(\) was enqueued"):
        enqueued.assert_not_enqueued(CreateUser)
    with pytest.raises(AssertionError, match="nothing should have been"):
        enqueued.assert_not_enqueued()
    with pytest.raises(TypeError, match="has no field nmae: it has name, email"):
        enqueued.assert_not_enqueued(CreateUser, nmae="Jane")
    enqueued.assert_not_enqueued(CreateUser, name="Jane")
    enqueued.assert_not_enqueued(GetOrCreateUser)


async def test_a_promise_is_recorded_and_written(
    enqueued: EnqueuedJobs, run_job: RunJob, session: AsyncSession
) -> None:
    """The row is real, and so is what it means that a key was used."""
    promised = await enqueue_in(session, JANE, key="k")
    again = await enqueue_in(session, JANE, key="k")
    with pytest.raises(KeyConflictError):
        await enqueue_in(session, CreateUser(name="Joe"), key="k")
    await run_job(CreateUser(name="Joe"), key="ended")
    ended = await enqueue_in(session, CreateUser(name="Joe"), key="ended")

    row = await lock_promise(session, promised.job_id)
    assert row is not None
    assert row.message == enqueued.jobs[0].message
    assert [again.is_new, ended.is_new] == [False] * 2
    assert [(job.job_id, job.is_promised) for job in enqueued.jobs] == [("k", True)]


@pytest.mark.parametrize("ending", ["raise", "close", "rollback"])
async def test_a_promise_in_a_transaction_that_does_not_commit_is_none(
    ending: str, enqueued: EnqueuedJobs, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """However it ends."""
    async with sessions.begin() as session:
        await enqueue_in(session, JANE, key="kept")

    if ending == "raise":
        with suppress(ZeroDivisionError):
            async with sessions.begin() as session:
                await enqueue_in(session, JANE, key="given-up")
                raise ZeroDivisionError
    else:
        async with sessions() as session:
            await enqueue_in(session, JANE, key="given-up")
            assert len(enqueued.jobs) == 2
            if ending == "rollback":
                await session.rollback()

    assert [job.job_id for job in enqueued.jobs] == ["kept"]


async def test_a_promise_in_a_savepoint_that_is_rolled_back_is_none(
    enqueued: EnqueuedJobs, session: AsyncSession
) -> None:
    """One in a savepoint that was released is one."""
    async with session.begin_nested():
        await enqueue_in(session, JANE, key="kept")
    with suppress(ZeroDivisionError):
        async with session.begin_nested():
            await enqueue_in(session, JANE, key="given-up")
            raise ZeroDivisionError

    assert [job.job_id for job in enqueued.jobs] == ["kept"]


async def test_a_released_savepoint_ends_with_its_transaction(
    enqueued: EnqueuedJobs, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """That does not commit: then it was for nothing."""
    async with sessions() as session:
        async with session.begin_nested():
            await enqueue_in(session, JANE, key="given-up")
        assert len(enqueued.jobs) == 1

    enqueued.assert_not_enqueued()


async def test_promises_of_a_connection_follow_its_transaction(
    enqueued: EnqueuedJobs, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """As those of a session do; asyncpg's own connections do not tell how theirs has ended."""
    engine = sessions.kw["bind"]
    async with engine.begin() as connection:
        await enqueue_in(connection, JANE, key="kept")
    async with engine.connect() as connection:
        await enqueue_in(connection, JANE, key="committed")
        await connection.commit()
        await enqueue_in(connection, JANE, key="given-up")
    raw = await asyncpg.connect(engine.url.set(drivername="postgresql").render_as_string(hide_password=False))
    async with raw.transaction():
        await enqueue_in(raw, JANE, key="raw")
    await raw.close()

    assert [job.job_id for job in enqueued.jobs] == ["kept", "committed", "raw"]


@pytest.mark.usefixtures("sessions")  # which removes what is committed
def test_a_blocking_promise_is_recorded(enqueued: EnqueuedJobs, database: DatabaseSettings) -> None:
    """Of a session that commits, and not of one that does not."""
    engine = create_engine(database.sqlalchemy_url.set(drivername="postgresql+psycopg"))
    with Session(engine) as session, session.begin():
        enqueue_in_sync(session, JANE, key="kept")
    with Session(engine) as session:
        enqueue_in_sync(session, JANE, key="given-up")
    engine.dispose()

    assert [job.job_id for job in enqueued.jobs] == ["kept"]


async def test_drain_runs_what_waits(enqueued: EnqueuedJobs, run_job: RunJob, session: AsyncSession) -> None:
    """In the order in which it is due, whoever has enqueued it; the outbox is settled, and handles have results."""
    assert run_job is not None  # the test has it, so that jobs can be run
    promised = await enqueue_in(session, JANE, key="promised", delay=timedelta(hours=1))
    async with JobClient(NOWHERE) as client:
        handle = await client.enqueue(CreateUser(name="Joe"))

        outcomes = await enqueued.drain()

        assert (await handle.result()).name == "Joe"
        assert (await client.handle(promised).result(timeout=timedelta(seconds=1))).is_new
    assert [outcome.job_id for outcome in outcomes] == [handle.job_id, "promised"]
    assert await lock_promise(session, "promised") is None
    assert len(await users_by_name(session, "Jane", limit=2)) == 1
    assert await enqueued.drain() == []


async def test_what_a_job_promises_is_run_as_well(enqueued: EnqueuedJobs, run_job: RunJob) -> None:
    """Once, although its handler has promised it in each of its attempts."""
    attempts = []

    async def create_and_promise(session: AsyncSession, payload: CreateUser) -> UserView:
        attempts.append(await enqueue_in(session, JANE))
        if len(attempts) == 1:
            raise ConnectionResetError
        return await create_user(session, payload)

    run_job.registry = Registry(JobSpec(CreateUser, create_and_promise), REGISTRY["get_or_create_user"])
    async with JobClient(NOWHERE) as client:
        await client.enqueue(CreateUser(name="Joe"))

    outcomes = await enqueued.drain()

    assert [outcome.job_id for outcome in outcomes] == [enqueued.jobs[0].job_id, attempts[1].job_id]


async def test_drain_raises_the_first_failure(enqueued: EnqueuedJobs, run_job: RunJob, session: AsyncSession) -> None:
    """After all has run; the handle raises it as well."""
    await run_job(JANE)
    async with JobClient(NOWHERE) as client:
        handle = await client.enqueue(CreateUser(name="Second Jane", email=JANE.email))
        await client.enqueue(CreateUser(name="Joe"))

        with pytest.raises(EmailTakenError):
            await enqueued.drain()

        with pytest.raises(EmailTakenError):
            await handle.result()
    assert await session.scalar(text("SELECT count(*) FROM users")) == 2


async def test_handles_say_where_jobs_are(enqueued: EnqueuedJobs, run_job: RunJob) -> None:
    """As with a worker, before and after; what was aborted is not run."""
    assert run_job is not None  # the test has it, so that jobs can be run
    async with JobClient(NOWHERE) as client:
        handles = await client.enqueue_many([CreateUser(name="Joe"), CreateUser(name="Joan")])
        later = await client.enqueue(CreateUser(name="Jim"), delay=timedelta(hours=1))
        before = [await handle.status() for handle in [*handles, later, client.handle(CreateUser, "nobodys")]]

        aborted = await handles[0].abort()
        outcomes = await enqueued.drain()

        infos = [await handle.info() for handle in [*handles, later]]
        with pytest.raises(JobAbortedError):
            await handles[0].result()
        assert not await handles[1].abort()
    waiting = [JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.DEFERRED, JobStatus.NOT_FOUND]
    assert (before, aborted, len(outcomes)) == (waiting, True, 2)
    assert [(info.status, info.attempts) for info in infos] == [
        (JobStatus.FAILED, 0),
        (JobStatus.SUCCEEDED, 1),
        (JobStatus.SUCCEEDED, 1),
    ]


def test_blocking_handles_say_where_jobs_are(enqueued: EnqueuedJobs) -> None:
    """The same."""
    with SyncJobClient(NOWHERE) as client:
        handle = client.enqueue(CreateUser(name="Joe"))
        before = handle.status()

        assert (before, handle.abort(), handle.status()) == (JobStatus.QUEUED, True, JobStatus.FAILED)
        with pytest.raises(JobAbortedError):
            handle.result()
    enqueued.assert_enqueued(CreateUser, name="Joe")


async def test_who_waits_for_nobody_is_told(enqueued: EnqueuedJobs) -> None:
    """At once, and not when the time is over; and drain says what it lacks."""
    async with JobClient(NOWHERE) as client:
        handle = await client.enqueue(CreateUser(name="Jane"))

        with pytest.raises(NobodyWorksError, match=r"enqueued\.drain\(\)"):
            await handle.result(timeout=timedelta(hours=1))
    with pytest.raises(RuntimeError, match="use the fixture run_job"):
        await enqueued.drain()
