"""Dispatch: one attempt of a job, on the real database."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import (
    AttemptsExhaustedError,
    ConstraintViolatedError,
    DatabaseFailedError,
    DeadlineExceededError,
    InvalidPayloadError,
    JobFailedError,
)
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec
from db.users import insert_user
from jobs.payloads import CreateUser, EmailTakenError, UserView
from jobs.registry import REGISTRY

Sessions = async_sessionmaker[AsyncSession]


class Done(Result):
    """The result of the handlers here."""

    done: bool = True


class Work(Payload[Done]):
    """A job whose handler is the test's."""

    job_name: ClassVar[str] = "work"
    name: str = "x"


def _spec(handler: Callable[[AsyncSession, Work], Awaitable[Any]], **limits: Any) -> JobSpec[Any, Any]:  # noqa: ANN401 - handed on
    return JobSpec(Work, handler, **limits)


def _delivery(attempt: int = 1, **fields: object) -> Delivery:
    return Delivery(uuid4().hex, attempt, (), fields)


async def _count(sessions: Sessions) -> int:
    async with sessions() as session:
        return await session.scalar(text("SELECT count(*) FROM users")) or 0


async def _store(session: AsyncSession, payload: Work) -> Done:
    await insert_user(session, payload.name)
    return Done()


async def test_an_attempt_that_succeeds_is_committed(sessions: Sessions) -> None:
    """The effect is there when the result is."""
    result = await Dispatcher(sessions).run(_spec(_store), _delivery())

    assert (result, await _count(sessions)) == ({"done": True}, 1)


async def test_an_attempt_that_fails_leaves_nothing(sessions: Sessions) -> None:
    """Whatever the handler did before its error is rolled back."""

    async def store_and_fail(session: AsyncSession, payload: Work) -> Done:
        await _store(session, payload)
        raise ZeroDivisionError

    with pytest.raises(RetryLater):
        await Dispatcher(sessions).run(_spec(store_and_fail), _delivery())

    assert await _count(sessions) == 0


async def test_a_wrong_result_leaves_nothing(sessions: Sessions) -> None:
    """A result that the producer could not read must not leave an effect behind, nor be asked for again."""

    async def store_and_babble(session: AsyncSession, payload: Work) -> str:
        await _store(session, payload)
        return "done"

    with pytest.raises(TypeError, match="handler of work returned str, not Done"):
        await Dispatcher(sessions).run(_spec(store_and_babble), _delivery())

    assert await _count(sessions) == 0


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
async def test_a_statement_that_ends_the_transaction_is_refused(sessions: Sessions, statement: str) -> None:
    """It would commit without a receipt; nothing is stored, and the connection serves the next job."""

    async def store_and_end(session: AsyncSession, payload: Work) -> Done:
        await _store(session, payload)
        await session.execute(text(statement))
        return Done()

    with pytest.raises(InvalidRequestError, match=f"{statement} was refused.* only the owner.*Nothing was committed"):
        await Dispatcher(sessions).run(_spec(store_and_end), _delivery())

    assert await _count(sessions) == 0
    await Dispatcher(sessions).run(_spec(_store), _delivery())
    assert await _count(sessions) == 1


async def test_jobs_at_once_have_sessions_of_their_own(sessions: Sessions) -> None:
    """Of fifty jobs at once forty commit and ten roll back; a shared session loses and resurrects rows."""

    async def store_or_fail(session: AsyncSession, payload: Work) -> Done:
        await _store(session, payload)
        await asyncio.sleep(0.001)
        if payload.name.endswith("0"):
            raise ZeroDivisionError
        return Done()

    outcomes = await asyncio.gather(
        *(Dispatcher(sessions).run(_spec(store_or_fail), _delivery(name=f"n{number}")) for number in range(50)),
        return_exceptions=True,
    )

    async with sessions() as session:
        names = set(await session.scalars(text("SELECT name FROM users")))
    assert names == {f"n{number}" for number in range(50) if number % 10}
    assert sum(isinstance(outcome, RetryLater) for outcome in outcomes) == 5


async def test_unknown_errors_are_retried_and_the_last_is_the_true_one(sessions: Sessions) -> None:
    """Arq fails them at once, and hides the true error at the end."""

    async def fail(_session: AsyncSession, _payload: Work) -> Done:
        raise ZeroDivisionError

    with pytest.raises(RetryLater) as retried:
        await Dispatcher(sessions).run(_spec(fail, max_attempts=3), _delivery(2))
    with pytest.raises(ZeroDivisionError):
        await Dispatcher(sessions).run(_spec(fail, max_attempts=3), _delivery(3))

    assert timedelta(0) < retried.value.delay <= timedelta(seconds=1)


async def test_a_failure_of_the_request_is_final_at_once(sessions: Sessions) -> None:
    """What a handler refuses is not tried again."""

    async def refuse(_session: AsyncSession, _payload: Work) -> Done:
        raise JobFailedError("no", code="not_today")

    with pytest.raises(JobFailedError) as caught:
        await Dispatcher(sessions).run(_spec(refuse), _delivery())

    assert caught.value.code == "not_today"


async def test_wrong_fields_never_reach_the_handler(sessions: Sessions) -> None:
    """Final at once, with the reason."""
    with pytest.raises(InvalidPayloadError, match="work: nme: Extra inputs"):
        await Dispatcher(sessions).run(_spec(_store), _delivery(nme="x"))

    assert await _count(sessions) == 0


async def test_a_constraint_is_told_as_the_registry_says(sessions: Sessions) -> None:
    """The producer gets a typed failure with its cure, and no row of anybody."""
    jane = ("Jane", "jane@example.org")
    await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j1", 1, jane, {}))

    with pytest.raises(EmailTakenError) as caught:
        await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j2", 1, jane, {}))

    assert "get_or_create_user" in caught.value.message
    assert "jane" not in caught.value.message


async def test_any_other_constraint_is_named_and_final(sessions: Sessions) -> None:
    """Trying again what the database refuses helps nobody; its text repeats data and is left out."""
    with pytest.raises(ConstraintViolatedError) as caught:
        await Dispatcher(sessions).run(_spec(_store), _delivery(name=" secret"))

    assert caught.value.message == "the database refuses the data: users_name_trimmed_check (SQLSTATE 23514)"


async def test_what_copy_meets_is_told_as_what_a_statement_meets(sessions: Sessions) -> None:
    """The driver's own errors are not SQLAlchemy's, and repeat the row, too."""

    async def copy(session: AsyncSession, payload: CreateUser) -> UserView:
        connection = await (await session.connection()).get_raw_connection()
        assert connection.driver_connection is not None
        rows = [(payload.name, payload.email)]
        await connection.driver_connection.copy_records_to_table("users", records=rows, columns=["name", "email"])
        raise AssertionError("PostgreSQL has taken it")

    await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("j1", 1, ("Jane", "jane@example.org"), {}))
    taken = JobSpec(CreateUser, copy, refusals=REGISTRY["create_user"].refusals)
    with pytest.raises(EmailTakenError):
        await Dispatcher(sessions).run(taken, Delivery("j2", 1, ("Jane", "jane@example.org"), {}))
    with pytest.raises(ConstraintViolatedError) as caught:
        await Dispatcher(sessions).run(JobSpec(CreateUser, copy), Delivery("j3", 1, ("Jane", "jane@example.org"), {}))

    assert caught.value.message == "a database refuses the data: users_email_key (SQLSTATE 23505)"


async def test_a_fault_of_the_server_is_retried_then_told(sessions: Sessions) -> None:
    """Deadlocks and outages pass; if they do not, the SQLSTATE is told."""

    async def lose(session: AsyncSession, _payload: Work) -> Done:
        await session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"))
        return Done()

    with pytest.raises(RetryLater):
        await Dispatcher(sessions).run(_spec(lose), _delivery())
    with pytest.raises(DatabaseFailedError, match="SQLSTATE 40P01"):
        await Dispatcher(sessions).run(_spec(lose, max_attempts=2), _delivery(2))


async def test_a_broken_statement_is_final(sessions: Sessions) -> None:
    """An error of our own SQL does not heal by trying."""

    async def mistype(session: AsyncSession, _payload: Work) -> Done:
        await session.execute(text("SELECT nothing FROM nowhere"))
        return Done()

    with pytest.raises(DatabaseFailedError, match=r"SQLSTATE 42P01: a table is missing: .* command migrate"):
        await Dispatcher(sessions).run(_spec(mistype), _delivery())


async def test_a_lost_server_is_retried(sessions: Sessions) -> None:
    """The connection dies under the handler."""

    async def suicide(session: AsyncSession, _payload: Work) -> Done:
        await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return Done()

    with pytest.raises(RetryLater):
        await Dispatcher(sessions).run(_spec(suicide), _delivery())

    assert (await Dispatcher(sessions).run(_spec(_store), _delivery())) == {"done": True}


async def test_a_late_attempt_is_rolled_back_and_retried(sessions: Sessions) -> None:
    """The deadline ends the attempt inside arq's own timeout, which would be final."""

    async def dawdle(session: AsyncSession, payload: Work) -> Done:
        await _store(session, payload)
        await session.execute(text("SELECT pg_sleep(30)"))
        return Done()

    spec = _spec(dawdle, deadline=timedelta(milliseconds=200), max_attempts=2)
    with pytest.raises(RetryLater):
        await Dispatcher(sessions).run(spec, _delivery(1))
    with pytest.raises(DeadlineExceededError, match=r"longer than 0.2 s"):
        await Dispatcher(sessions).run(spec, _delivery(2))

    assert await _count(sessions) == 0


@pytest.mark.parametrize("error", [TimeoutError, ConnectionRefusedError])
async def test_a_failure_of_a_server_of_the_handlers_own_is_told_as_what_it_is(
    sessions: Sessions, error: type[OSError]
) -> None:
    """No deadline, and no failure of the database: whoever reads it would look at the wrong server."""

    async def call_another_server(session: AsyncSession, payload: Work) -> Done:
        await _store(session, payload)
        raise error

    with pytest.raises(error):
        await Dispatcher(sessions).run(_spec(call_another_server, max_attempts=1), _delivery())


async def test_a_job_that_kills_its_workers_ends(sessions: Sessions) -> None:
    """Started once too often, it fails without being started again."""
    with pytest.raises(AttemptsExhaustedError, match="started 5 times"):
        await Dispatcher(sessions).run(_spec(_store), _delivery(6))

    assert await _count(sessions) == 0


async def test_a_cancelled_attempt_leaves_nothing_and_frees_its_connection(sessions: Sessions) -> None:
    """A shutdown in the middle of a statement rolls back; the pool stays whole."""
    started = asyncio.Event()

    async def wait(session: AsyncSession, payload: Work) -> Done:
        await _store(session, payload)
        started.set()
        await session.execute(text("SELECT pg_sleep(30)"))
        return Done()

    task = asyncio.create_task(Dispatcher(sessions).run(_spec(wait), _delivery()))
    await asyncio.wait_for(started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    pool = sessions.kw["bind"].pool
    assert (await _count(sessions), pool.checkedout()) == (0, 0)
