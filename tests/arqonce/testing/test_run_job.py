"""``run_job`` runs a job as a worker does: what a test sees of it is what production does."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from traceback import format_exception
from typing import Any, ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from arqonce import JobFailedError
from arqonce.failures import (
    AttemptsExhaustedError,
    DatabaseFailedError,
    DeadlineExceededError,
    InvalidMessageError,
    MalformedMessageError,
    RequestConflictError,
)
from arqonce.ledger.recorded import receipt_by_job_id
from arqonce.ledger.tables import DeadJob
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry
from arqonce.testing.run_job import BlockedLoopWarning, RunJob
from arqonce.testing.transaction import TransactionLostError
from arqonce.wire.codec import encode
from db.tables import User
from db.users import insert_user, user_by_id
from jobs import CreateUser, EmailTakenError, FindUser, GetOrCreateUser

JANE = CreateUser(name="Jane", email="jane@example.org")


class Done(Result):
    """The result of the handlers here."""

    by: str = "handler"


class Work(Payload[Done]):
    """A job whose handler is the test's."""

    job_name: ClassVar[str] = "work"
    id: int = 0


def _registry(handler: Callable[[AsyncSession, Work], Awaitable[Any]], **limits: Any) -> Registry:  # noqa: ANN401 - handed on
    return Registry(JobSpec(Work, handler, **limits))


async def _count(session: AsyncSession, table: str) -> int:
    return await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0  # noqa: S608 - a name of ours


async def test_a_job_answers_as_it_would_to_a_producer(run_job: RunJob, session: AsyncSession) -> None:
    """The result has been through JSON; effect and receipt are in the test's own transaction."""
    user = await run_job(JANE, key="k")

    receipt = await receipt_by_job_id(session, "k")
    assert (user.name, await _count(session, "users")) == ("Jane", 1)
    assert receipt is not None
    assert (receipt.attempt, receipt.result) == (1, user.model_dump(mode="json"))


async def test_a_missing_table_names_what_makes_tables_in_tests(run_job: RunJob) -> None:
    """The failure itself names the command migrate, which has no part in a test; it is of the worker's own database."""

    async def read_nothing(session: AsyncSession, _: Work) -> Done:
        await session.execute(text("SELECT FROM of_nobody"))
        return Done()

    with pytest.raises(DatabaseFailedError) as caught:
        await run_job(Work(), registry=_registry(read_nothing))

    assert str(caught.value).startswith("database_failed: the database failed: SQLSTATE 42P01: ")
    assert "\na test has the tables of Registry(..., schema=)" in "".join(format_exception(caught.value))


_MISTAKES: dict[str, tuple[Callable[[Any], Awaitable[object]], str]] = {
    "the class": (lambda run_job: run_job(CreateUser), "a job is the instance of a payload.*the class CreateUser"),
    "a mapping": (lambda run_job: run_job({"name": "Jane"}), "a job is the instance of a payload.*of type dict"),
    "a list": (lambda run_job: run_job([JANE]), "a job is the instance of a payload.*of type list"),
    "a registry's name": (lambda run_job: run_job(JANE, registry="jobs:REGISTRY"), "takes a Registry.*of type str"),
    "one for a batch": (lambda run_job: run_job.batch(JANE), "takes a list of payloads"),
    "none for a batch": (lambda run_job: run_job.batch([]), "takes a list of payloads"),
    "a batch of classes": (lambda run_job: run_job.batch([Work]), "a job is the instance of a payload"),
    "a batch of two kinds": (lambda run_job: run_job.batch([JANE, Work()]), "one kind; these are create_user, work"),
    "an unknown batch": (lambda run_job: run_job.batch([Work()]), "no job 'work'; it has create_user"),
}


@pytest.mark.parametrize(("call", "reason"), _MISTAKES.values(), ids=_MISTAKES)
async def test_a_wrong_call_is_told_so(
    run_job: RunJob, call: Callable[[RunJob], Awaitable[object]], reason: str
) -> None:
    """As producers are told, and not by an error of a library."""
    with pytest.raises((InvalidMessageError, TypeError), match=reason):
        await call(run_job)


@pytest.mark.parametrize("_", range(2))
async def test_nothing_is_left_behind(_: int, run_job: RunJob) -> None:
    """The second of these tests finds what the first one found; no session of the test's own has opened a savepoint."""
    before = await run_job(FindUser(email=JANE.email))

    await run_job(JANE)

    assert before.users == []


async def test_a_job_sees_what_the_test_has_arranged(run_job: RunJob, session: AsyncSession) -> None:
    """Also what is not flushed yet; and the test sees objects that the job has changed as they are now."""
    jane, joe = User(name="Jane"), User(name="Joe")
    session.add_all([jane, joe])
    await session.flush()
    jane.name = "Janet"

    async def rename_and_delete(session: AsyncSession, payload: Work) -> Done:
        user = await user_by_id(session, payload.id)
        assert user is not None
        found, user.name = user.name, "Joan"
        await session.execute(text("DELETE FROM users WHERE id <> :id"), {"id": payload.id})
        return Done(by=found)

    done = await run_job(Work(id=jane.id), registry=_registry(rename_and_delete))

    assert (done.by, jane.name, joe in session) == ("Janet", "Joan", False)


async def test_the_same_key_again_answers_from_the_receipt(run_job: RunJob, session: AsyncSession) -> None:
    """A second delivery takes no second effect; another request with this key is refused, and is a dead letter."""
    first = await run_job(JANE, key="k")

    assert await run_job(JANE, key="k") == first
    assert await run_job(JANE, key="k", attempt=2) == first
    with pytest.raises(RequestConflictError):
        await run_job(CreateUser(name="Joe"), key="k")
    assert [await _count(session, table) for table in ("users", "arqonce.receipts", "arqonce.dead_jobs")] == [1, 1, 1]


async def test_a_failure_comes_as_producers_get_it(run_job: RunJob, session: AsyncSession) -> None:
    """With the true error as its cause; what the attempt had done is gone, and the refusal is on record."""
    await insert_user(session, "Jane", "jane@example.org")

    with pytest.raises(EmailTakenError, match="get_or_create_user") as caught:
        await run_job(JANE)

    assert caught.value.__cause__ is not None
    assert "users_email_key" in str(caught.value.__cause__.__cause__)
    assert [await _count(session, table) for table in ("users", "arqonce.receipts", "arqonce.dead_jobs")] == [1, 1, 0]


async def test_a_failure_is_of_the_class_beside_the_payload(run_job: RunJob) -> None:
    """Handlers may have another one of its code: of the application, where the test imports the producers' package."""
    here, there = (
        type("TodayError", (JobFailedError,), {"code": "not_today", "__module__": module})
        for module in (__name__, "application.payloads")
    )

    async def refuse(_session: AsyncSession, _payload: Work) -> Done:
        raise there("no")

    with pytest.raises(here, match="no") as caught:
        await run_job(Work(), registry=_registry(refuse))

    assert type(caught.value.__cause__) is there


async def test_all_attempts_are_made_without_waiting(run_job: RunJob, session: AsyncSession) -> None:
    """What a failed attempt has written is gone; the outcome tells each error and each pause that was left out."""
    attempts = []

    async def fail_twice(session: AsyncSession, _payload: Work) -> Done:
        attempts.append(await _count(session, "users"))
        await insert_user(session, "Jane")
        if len(attempts) < 3:
            raise ConnectionResetError
        return Done()

    outcome = await run_job.outcome(Work(), registry=_registry(fail_twice))

    assert (outcome.get(), attempts, await _count(session, "users")) == (Done(), [0, 0, 0], 1)
    told = [(attempt.number, type(attempt.error), attempt.delay is not None) for attempt in outcome.attempts]
    assert told == [(1, ConnectionResetError, True), (2, ConnectionResetError, True), (3, type(None), False)]


async def test_a_job_that_always_fails_is_dead(run_job: RunJob, session: AsyncSession) -> None:
    """After its last attempt: with the true error, and a dead letter."""

    async def fail(_session: AsyncSession, _payload: Work) -> Done:
        raise ZeroDivisionError

    with pytest.raises(JobFailedError) as caught:
        await run_job(Work(), key="k", registry=_registry(fail, max_attempts=2))

    letter = await session.get(DeadJob, "k")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert letter is not None
    assert letter.attempts == 2


async def test_jobs_at_the_same_time_take_turns(run_job: RunJob, session: AsyncSession) -> None:
    """There is one connection for all."""
    users = await asyncio.gather(*(run_job(CreateUser(name=name)) for name in ("Jane", "Joe", "Joan")))

    assert (len({user.id for user in users}), await _count(session, "users")) == (3, 3)


async def test_a_job_whose_workers_died_has_no_attempts_left(run_job: RunJob) -> None:
    """``attempt`` says how often it was started before."""
    with pytest.raises(AttemptsExhaustedError):
        await run_job(JANE, attempt=6)


async def test_a_handler_that_commits_is_told_so(run_job: RunJob, session: AsyncSession) -> None:
    """Nothing is committed; the job is dead at once, and its letter names the handler's line and the cure."""

    async def commit(session: AsyncSession, _payload: Work) -> Done:
        await insert_user(session, "Jane")
        await session.commit()
        return Done()

    outcome = await run_job.outcome(Work(), registry=_registry(commit))

    assert isinstance(outcome.attempts[-1].error, InvalidRequestError)
    told = str(outcome.attempts[-1].error)
    letter = await session.scalar(text("SELECT explanation || ' AT ' || error FROM arqonce.dead_jobs"))
    assert (len(outcome.attempts), await _count(session, "users")) == (1, 0)
    assert "Nothing was committed" in told
    assert told in letter
    assert re.search(r" AT .*testing/test_run_job\.py:\d+ commit", letter)


async def test_a_handler_that_ends_the_transaction_otherwise_is_told_what_stays(run_job: RunJob) -> None:
    """It cannot be undone."""

    async def commit(session: AsyncSession, _payload: Work) -> Done:
        await insert_user(session, "Jane")
        transaction = session.get_transaction()
        assert transaction is not None
        await transaction.commit()
        return Done()

    outcome = await run_job.outcome(Work(), registry=_registry(commit))

    assert "STAYS STORED" in str(outcome.attempts[-1].error)


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
async def test_a_statement_that_ends_the_transaction_is_refused(run_job: RunJob, statement: str) -> None:
    """As in a worker, and before it has ended the test's: the next job of this test runs."""

    async def end(session: AsyncSession, _payload: Work) -> Done:
        await session.execute(text("SELECT 1"))
        await session.execute(text(statement))
        return Done()

    with capture_logs(), pytest.raises(JobFailedError, match=f"{statement} was refused: only the owner"):
        await run_job(Work(), registry=_registry(end))
    assert (await run_job(CreateUser(name="Jane"))).name == "Jane"


async def test_the_deadline_holds(run_job: RunJob) -> None:
    """Of each attempt."""

    async def hang(_session: AsyncSession, _payload: Work) -> Done:
        await asyncio.sleep(60)
        return Done()

    registry = _registry(hang, deadline=timedelta(milliseconds=20), max_attempts=2)
    with pytest.raises(DeadlineExceededError):
        await run_job(Work(), registry=registry)


async def test_a_deadline_within_a_statement_names_another_way(run_job: RunJob) -> None:
    """It ends the connection, and the test's transaction with it: no later attempt can be made here."""

    async def hang(session: AsyncSession, _payload: Work) -> Done:
        await session.execute(text("SELECT pg_sleep(60)"))
        return Done()

    registry = _registry(hang, deadline=timedelta(milliseconds=200), max_attempts=2)
    with pytest.raises(TransactionLostError, match="start_worker"):
        await run_job(Work(), registry=registry)


async def test_a_message_runs_as_it_stands_in_redis(run_job: RunJob) -> None:
    """Of an older version, of another language, or one that nobody can read."""
    message: dict[str, Any] = {"t": None, "f": "create_user", "a": ["Jane"], "k": {}, "et": 0}

    positional = await run_job.message(encode(message))
    broken = await run_job.message(b"not JSON")

    assert positional.get()["name"] == "Jane"
    assert isinstance(broken.failure, MalformedMessageError)


async def test_jobs_together_end_as_each_would_alone(run_job: RunJob, session: AsyncSession) -> None:
    """One of them is refused, and each has its receipt."""
    payloads = [CreateUser(name="Joe"), JANE, CreateUser(name="Joan", email="jane@example.org")]
    before = await _count(session, "arqonce.receipts")

    together = await run_job.batch(payloads)

    assert [type(outcome.failure) for outcome in together] == [type(None), type(None), EmailTakenError]
    assert [outcome.get().name for outcome in together[:2]] == ["Joe", "Jane"]
    assert await _count(session, "arqonce.receipts") == before + 3


async def test_jobs_that_a_batch_leaves_alone_run_alone(run_job: RunJob, session: AsyncSession) -> None:
    """As in a worker; and a job that has no batch is no batch."""

    async def break_off(_session: AsyncSession, _payloads: object) -> list[Any]:
        raise OperationalError("SELECT", {}, Exception())

    async def work(session: AsyncSession, _payload: Work) -> Done:
        await insert_user(session, "Jane")
        return Done(by="single")

    outcomes = await run_job.batch([Work(), Work()], registry=_registry(work, batch=break_off))

    assert ([outcome.get().by for outcome in outcomes], await _count(session, "users")) == (["single"] * 2, 2)
    with pytest.raises(TypeError, match="batch="):
        await run_job.batch([Work()], registry=_registry(work))


async def test_types_are_those_of_the_payload(run_job: RunJob) -> None:
    """To a type checker, too: mypy reads these lines."""
    jane = await run_job(GetOrCreateUser(name="Jane", email="jane@example.org"))
    found = await run_job(FindUser(name="Jane"))

    assert (jane.is_new, found.first) == (True, jane.user)


async def test_a_handler_that_blocks_the_event_loop_is_told_with_its_line(run_job: RunJob) -> None:
    """In a worker all other jobs would stand still meanwhile."""

    async def block(_session: AsyncSession, _payload: Work) -> Done:
        time.sleep(1.6)  # noqa: ASYNC251 - what no handler should do
        return Done()

    with pytest.warns(BlockedLoopWarning, match=r"^work blocks .* at testing/test_run_job\.py:\d+ block: .*to_thread"):
        await run_job(Work(), registry=_registry(block))
