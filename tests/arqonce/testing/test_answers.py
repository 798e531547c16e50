"""``enqueued.answer`` ends jobs without a worker, so that code which waits for results can be tested."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient, JobFailedError, JobStatus, SyncJobClient
from arqonce.failures import InvalidResultError, RequestConflictError, ResultMissingError
from arqonce.outbox import enqueue_in
from arqonce.testing.enqueued import EnqueuedJobs, NobodyWorksError
from arqonce.testing.run_job import RunJob
from jobs import CreateUser, EmailTakenError, FoundOrCreated, GetOrCreateUser, UserView

NOWHERE = "redis://127.0.0.1:1/0"

JANE = UserView(id=1, name="Jane", email=None, created_at=datetime(2030, 1, 1, tzinfo=UTC))
JOE = JANE.model_copy(update={"name": "Joe"})


async def test_an_answer_is_read_from_the_wire(enqueued: EnqueuedJobs) -> None:
    """Whether it was given before or after the job was enqueued; the result is equal and not the same."""
    async with JobClient(NOWHERE) as client:
        before = await client.enqueue(CreateUser(name="Jane"))
        enqueued.answer(CreateUser, JANE)
        after = await client.enqueue(CreateUser(name="Jane"), delay=timedelta(hours=1))

        results = [await before.result(), await after.result()]

        assert results == [JANE, JANE]
        assert all(result is not JANE for result in results)
        assert await after.status() is JobStatus.SUCCEEDED
        assert not await after.abort()


def test_blocking_code_gets_answers(enqueued: EnqueuedJobs) -> None:
    """In the same way, and many at once."""
    enqueued.answer(CreateUser, JANE)
    with SyncJobClient(NOWHERE) as client:
        handles = client.enqueue_many([CreateUser(name="Jane")] * 1200)

        assert {handle.result().name for handle in handles} == {"Jane"}


async def test_a_failure_is_raised_as_a_worker_tells_it(enqueued: EnqueuedJobs) -> None:
    """One of ours by its type; another as what it is called, with its cause forgotten."""
    enqueued.answer(CreateUser, EmailTakenError("another user has it"), name="Jane")
    enqueued.answer(CreateUser, ZeroDivisionError("division by zero"), name="Joe")
    async with JobClient(NOWHERE) as client:
        jane, joe = await client.enqueue_many([CreateUser(name="Jane"), CreateUser(name="Joe")])

        with pytest.raises(EmailTakenError, match="another user has it"):
            await jane.result()
        with pytest.raises(JobFailedError) as raised:
            await joe.result()
        assert await joe.status() is JobStatus.FAILED
    assert raised.value.code == "ZeroDivisionError"


async def test_the_last_answer_that_fits_counts(enqueued: EnqueuedJobs) -> None:
    """For jobs that have not ended; one that has keeps its answer, also for who comes with the same key."""
    async with JobClient(NOWHERE) as client:
        enqueued.answer(CreateUser, JANE)
        enqueued.answer(CreateUser, JOE, name="Joe")
        first = await client.enqueue_many([CreateUser(name="Jane"), CreateUser(name="Joe")], keys=["jane", "joe"])
        enqueued.answer(CreateUser, EmailTakenError("taken"))
        again = await client.enqueue(CreateUser(name="Jane"), key="jane")
        other = await client.enqueue(CreateUser(name="Jane"))

        assert [await handle.result() for handle in [*first, again]] == [JANE, JOE, JANE]
        assert not again.is_new
        with pytest.raises(EmailTakenError):
            await other.result()


async def test_who_asks_for_what_is_not_there_is_told(enqueued: EnqueuedJobs) -> None:
    """As by Redis: a job that nobody has enqueued, and one of another kind. One that waits has no result yet."""
    enqueued.answer(GetOrCreateUser, FoundOrCreated(user=JANE, is_new=True))
    async with JobClient(NOWHERE) as client:
        await client.enqueue(GetOrCreateUser(name="Jane", email="jane@example.org"), key="k")
        waiting = await client.enqueue(CreateUser(name="Jane"))

        with pytest.raises(ResultMissingError):
            await client.handle(CreateUser, "nobodys").result()
        with pytest.raises(InvalidResultError):
            await client.handle(CreateUser, "k").result()
        with pytest.raises(NobodyWorksError, match=r"enqueued\.answer\(CreateUser, UserView"):
            await waiting.result(timeout=timedelta(hours=1))


async def test_who_uses_a_key_for_another_request_is_told(enqueued: EnqueuedJobs, run_job: RunJob) -> None:
    """Whether the first one was answered by the test or run."""
    assert run_job is not None  # the test has it, so that jobs can be run
    enqueued.answer(CreateUser, JANE, name="Jane")
    async with JobClient(NOWHERE) as client:
        await client.enqueue_many([CreateUser(name="Jane"), CreateUser(name="Joe")], keys=["answered", "run"])
        await enqueued.drain()
        same = [
            await client.enqueue(CreateUser(name=name), key=key) for name, key in [("Jane", "answered"), ("Joe", "run")]
        ]
        others = [await client.enqueue(CreateUser(name="Jim"), key=key) for key in ("answered", "run")]

        assert [(await handle.result()).name for handle in same] == ["Jane", "Joe"]
        for handle in others:
            with pytest.raises(RequestConflictError):
                await handle.result()


async def test_a_closed_client_is_refused(enqueued: EnqueuedJobs) -> None:
    """As without the fixture."""
    async with JobClient(NOWHERE) as client:
        pass
    with SyncJobClient(NOWHERE) as blocking:
        pass

    with pytest.raises(RuntimeError, match="is closed"):
        await client.enqueue(CreateUser(name="Jane"))
    with pytest.raises(RuntimeError, match="is closed"):
        blocking.enqueue(CreateUser(name="Jane"))
    enqueued.assert_not_enqueued()


def test_an_answer_that_no_worker_gives_is_refused(enqueued: EnqueuedJobs) -> None:
    """Of another kind, or for a field that the payload has not."""
    with pytest.raises(TypeError, match="GetOrCreateUser answers with a FoundOrCreated or fails, not with a UserView"):
        enqueued.answer(GetOrCreateUser, JANE)
    with pytest.raises(TypeError, match="has no field nmae"):
        enqueued.answer(CreateUser, JANE, nmae="Jane")


async def test_what_was_answered_is_not_run(enqueued: EnqueuedJobs, run_job: RunJob) -> None:
    """Drain runs the others."""
    assert run_job is not None  # the test has it, so that jobs can be run
    enqueued.answer(CreateUser, JANE, name="Jane")
    async with JobClient(NOWHERE) as client:
        await client.enqueue_many([CreateUser(name="Jane"), CreateUser(name="Joe")])

    outcomes = await enqueued.drain()

    assert [outcome.get().name for outcome in outcomes] == ["Joe"]


async def test_a_promise_is_answered_and_forgotten_with_its_answer(
    enqueued: EnqueuedJobs, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """A transaction that does not commit takes the answer along."""
    enqueued.answer(CreateUser, JANE)
    async with JobClient(NOWHERE) as client:
        async with sessions.begin() as session:
            kept = await enqueue_in(session, CreateUser(name="Jane"))
        async with sessions() as session:
            given_up = await enqueue_in(session, CreateUser(name="Jane"))

        assert await client.handle(kept).result() == JANE
        assert await client.handle(given_up).status() is JobStatus.NOT_FOUND
