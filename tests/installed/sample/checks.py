"""The tests of the service, run by a pytest that has no worker of ours."""

import asyncio
import sys
from contextlib import suppress
from datetime import UTC, datetime
from unittest.mock import AsyncMock, Mock

import pytest
from service import OWNERS, order, sign_up, sign_up_blocking
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from arqonce import JobClient, JobStatus, KeyConflictError, SyncJobClient, enqueue_in
from arqonce.testing.enqueued import EnqueuedJobs
from users_jobs import CreateUser, EmailTakenError, GetOrCreateUser, UserView

NOWHERE = "redis://127.0.0.1:1/0"
JANE = UserView(id=1, name="Jane", email="jane@example.org", created_at=datetime(2030, 1, 1, tzinfo=UTC))


def test_the_service_has_packages_of_its_own(enqueued: EnqueuedJobs) -> None:
    """And nothing of the worker's is loaded."""
    assert OWNERS == ("the service", "the service")
    assert not {"worker", "asyncpg", "arq"} & sys.modules.keys()
    enqueued.assert_not_enqueued()


@pytest.mark.asyncio
async def test_asynchronous_code_gets_its_answers(enqueued: EnqueuedJobs) -> None:
    """A result, a failure, nothing, and a duplicate."""
    enqueued.answer(CreateUser, JANE, name="Jane")
    enqueued.answer(CreateUser, EmailTakenError("another user has it"), email="joe@example.org")
    async with JobClient(NOWHERE) as client:
        people = [("Jane", "jane@example.org"), ("Joe", "joe@example.org"), ("Jim", "jim@example.org")]
        said = [await sign_up(client, name, email) for name, email in [*people, people[0]]]
        status = await client.handle(CreateUser, "signup-jane@example.org").status()

    assert said == ["welcome, Jane", "we have met", "come back later", "patience"]
    assert (len(enqueued.jobs), status) == (3, JobStatus.SUCCEEDED)


def test_blocking_code_gets_its_answers(enqueued: EnqueuedJobs) -> None:
    """The same."""
    enqueued.answer(CreateUser, JANE)

    assert sign_up_blocking(SyncJobClient(NOWHERE), "Jane") == "welcome, Jane"
    assert enqueued.assert_enqueued(CreateUser, name="Jane").email is None


def test_promises_on_sqlite_follow_its_transactions(enqueued: EnqueuedJobs) -> None:
    """One that is rolled back promises nothing; a key is taken once."""
    enqueued.promises_need_no_tables()
    with Session(create_engine("sqlite://")) as session:
        order(session, "kept@example.org")
        order(session, "kept@example.org")
        with suppress(ZeroDivisionError):
            order(session, "given-up@example.org", fails=True)

    assert [job.job_id for job in enqueued.jobs] == ["kept@example.org"]


@pytest.mark.asyncio
@pytest.mark.parametrize("session", [AsyncMock(), AsyncMock(spec=AsyncSession)])
async def test_promises_on_a_mock_are_recorded(enqueued: EnqueuedJobs, session: AsyncSession) -> None:
    """And a key that is used for something else is refused."""
    enqueued.promises_need_no_tables()

    await enqueue_in(session, GetOrCreateUser(name="Jim", email="jim@example.org"), key="order-1")

    with pytest.raises(KeyConflictError):
        await enqueue_in(session, CreateUser(name="Jim"), key="order-1")
    assert enqueued.assert_enqueued(GetOrCreateUser, name="Jim")
    assert [job.is_promised for job in enqueued.jobs] == [True]


def test_promises_on_a_blocking_mock_are_recorded(enqueued: EnqueuedJobs) -> None:
    """With a specification, too, by which it looks like a real one."""
    enqueued.promises_need_no_tables()
    session = Mock(spec=Session)
    session.begin.return_value.__enter__ = session.begin.return_value.__exit__ = Mock(return_value=None)

    order(session, "jim@example.org")

    enqueued.assert_enqueued(GetOrCreateUser, email="jim@example.org")


def test_who_drains_is_told_what_is_missing(enqueued: EnqueuedJobs) -> None:
    """A worker; and what there is in its place."""
    with pytest.raises(RuntimeError, match=r"drain needs arqonce\[worker\] .* enqueued\.answer\("):
        asyncio.run(enqueued.drain())
