"""Faults of PostgreSQL and of handlers, told apart: which attempts count, and what a dead letter says in the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import Context
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.execution import patience
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.containment import HandlerCancelledError
from arqonce.execution.cut_short import abort
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import AttemptsExhaustedError, DatabaseFailedError, JobFailedError
from arqonce.payloads import Payload, Result
from arqonce.process.lifecycle import require_ready_database
from arqonce.process.startup_errors import StartupError
from arqonce.spec import JobSpec
from db.users import insert_user
from jobs.payloads import EmailTakenError
from jobs.registry import REGISTRY

Sessions = async_sessionmaker[AsyncSession]
Handler = Callable[[AsyncSession, "Work"], Awaitable["Done"]]
Damage = Callable[[Sessions, str], AbstractAsyncContextManager[None]]

JANE = ("Jane", "jane@example.org")


class Done(Result):
    """The result of the handlers here."""

    done: bool = True


class Work(Payload[Done]):
    """A job whose handler is the test's."""

    job_name: ClassVar[str] = "work"


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    """Print no tracebacks: by default structlog takes a second for each."""
    with capture_logs():
        yield


async def store(session: AsyncSession, _payload: Work) -> Done:
    """Write something."""
    await insert_user(session, "Jane")
    return Done()


async def store_by_sqlalchemy(session: AsyncSession, _payload: Work) -> Done:
    """Write something, in the way of most handlers."""
    await session.execute(text("INSERT INTO users (name) VALUES ('Jane')"))
    return Done()


async def fail(_session: AsyncSession, _payload: Work) -> Done:
    """Raise an error of its own."""
    raise ZeroDivisionError


async def write_read_only(session: AsyncSession, payload: Work) -> Done:
    """Keep oneself from writing."""
    await session.execute(text("SET TRANSACTION READ ONLY"))
    return await store(session, payload)


def meet(state: str, message: str = "met") -> Handler:
    """Meet what only this job meets."""

    async def handler(session: AsyncSession, _payload: Work) -> Done:
        await session.execute(text(f"DO $$ BEGIN RAISE '{message}' USING ERRCODE = '{state}'; END $$"))
        return Done()

    return handler


async def end_the_connection(session: AsyncSession, _payload: Work) -> Done:
    """Have the server end the session."""
    await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    return Done()


async def cancel_itself(_session: AsyncSession, _payload: Work) -> Done:
    """End as if somebody had asked for it."""
    raise asyncio.CancelledError


async def _outcome(dispatcher: Dispatcher, handler: Handler, attempt: int, **known: Any) -> Exception | dict[str, Any]:  # noqa: ANN401 - handed on
    spec: JobSpec[Any, Any] = JobSpec(Work, handler, max_attempts=3)
    try:
        return await dispatcher.run(spec, Delivery("j1", attempt, (), {}, **known))
    except Exception as error:  # noqa: BLE001 - what is asked for
        return error


def _counts(outcome: object) -> bool:
    return isinstance(outcome, RetryLater) and outcome.counts


def _is_uncounted(outcome: object) -> bool:
    return isinstance(outcome, RetryLater) and not outcome.counts


async def _letters(sessions: Sessions) -> list[tuple[str, str, int]]:
    async with sessions() as session:
        rows = await session.execute(text("SELECT reason, explanation, attempts FROM arqonce.dead_jobs"))
        return [(row.reason, row.explanation, row.attempts) for row in rows]


@asynccontextmanager
async def _refusing(sessions: Sessions, table: str, state: str) -> AsyncIterator[None]:
    """Let the server refuse each row of the table."""
    async with sessions.begin() as session:
        await session.execute(
            text(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE SQLSTATE '{state}'; END $$"
            )
        )
        await session.execute(
            text(f"CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()")
        )
    try:
        yield
    finally:
        async with sessions.begin() as session:
            await session.execute(text(f"DROP TRIGGER refuse ON {table}"))


async def test_a_transaction_that_its_handler_has_made_read_only_is_the_jobs_fault(sessions: Sessions) -> None:
    """The server can be written to: attempts count, and the letter says that the transaction was read-only."""
    dispatcher = Dispatcher(sessions)

    outcomes = [await _outcome(dispatcher, write_read_only, attempt) for attempt in (1, 2, 3)]

    assert [_counts(outcome) for outcome in outcomes] == [True, True, False]
    assert isinstance(outcomes[2], DatabaseFailedError)
    assert "SQLSTATE 25006: the transaction was read-only although the server is not" in str(outcomes[2])


@pytest.mark.parametrize("kind", [TimeoutError, ConnectionRefusedError])
async def test_an_error_of_another_server_is_not_told_as_the_databases(sessions: Sessions, kind: type[OSError]) -> None:
    """A handler has asked that one, in whatever way."""

    async def ask(_session: AsyncSession, _payload: Work) -> Done:
        raise kind("the mail server")

    async def connect(session: AsyncSession, _payload: Work) -> Done:
        async with session.begin_nested(), asyncio.timeout(0 if kind is TimeoutError else None):
            await asyncio.open_connection("127.0.0.1", 1)
        return Done()

    for handler in (ask, connect):
        assert isinstance(await _outcome(Dispatcher(sessions), handler, attempt=3), kind)


async def test_a_handler_that_passes_over_a_failed_statement_is_told_so(sessions: Sessions) -> None:
    """PostgreSQL says of what comes next only that the transaction is aborted."""

    async def go_on(session: AsyncSession, _payload: Work) -> Done:
        with suppress(DBAPIError):
            await session.execute(text("SELECT 1 / 0"))
        return Done()

    failure = await _outcome(Dispatcher(sessions), go_on, attempt=3)

    assert isinstance(failure, DatabaseFailedError)
    assert "SQLSTATE 25P02: an earlier statement had failed, and the job went on" in str(failure)


@pytest.mark.parametrize("handler", [store, store_by_sqlalchemy])
async def test_a_connection_that_cannot_write_is_dropped_and_costs_no_attempt(
    handler: Handler, database: DatabaseSettings, sessions: Sessions
) -> None:
    """It may lead to an old primary, while all others lead to the new one."""
    assert sessions is not None
    async with open_database(database, pool_size=1) as own:
        async with own.begin() as session:
            await session.execute(text("SET default_transaction_read_only = on"))

        dispatcher = Dispatcher(own)

        refused, was_open = await _outcome(dispatcher, handler, attempt=3), dispatcher.gate.is_open
        stored = await _outcome(dispatcher, handler, attempt=3)

    assert (_is_uncounted(refused), was_open, stored) == (True, True, {"done": True})


@pytest.mark.parametrize(
    ("state", "message", "cause"),
    [
        ("53100", "full", ": the disk of the server is full: free space there"),
        (
            "40001",
            "conflict",
            ": it is in conflict with others: does it need its isolation level (default_transaction_isolation)?",
        ),
        ("XX000", "cache lookup failed for type 4711", ""),
    ],
)
async def test_a_fault_that_only_one_job_meets_is_waited_for_and_ends(
    monkeypatch: pytest.MonkeyPatch, sessions: Sessions, state: str, message: str, cause: str
) -> None:
    """Not for ever: a job may fill the disk by itself, each time it runs, or be in its own way."""
    dispatcher = Dispatcher(sessions)
    waited = [await _outcome(dispatcher, meet(state, message), attempt=3) for _ in range(5)]
    monkeypatch.setattr(patience, "_LONGEST", timedelta(0))

    last = await _outcome(dispatcher, meet(state, message), attempt=3)

    assert all(map(_is_uncounted, waited))
    assert isinstance(last, DatabaseFailedError)
    assert await _letters(sessions) == [("database_failed", f"the database failed: SQLSTATE {state}{cause}", 3)]


async def test_lost_connections_cost_no_attempt_but_not_for_ever(sessions: Sessions) -> None:
    """A switch of servers cuts a job once or twice. One that ends its connection by itself comes to its end."""
    dispatcher = Dispatcher(sessions)

    outcomes = [await _outcome(dispatcher, end_the_connection, attempt=3) for _ in range(4)]

    assert [_is_uncounted(outcome) for outcome in outcomes] == [True, True, True, False]
    assert isinstance(outcomes[3], DatabaseFailedError)


async def test_a_letter_that_cannot_be_written_keeps_the_last_attempt_and_its_error(sessions: Sessions) -> None:
    """The job is run once more for real, and the letter names what that has raised."""
    dispatcher = Dispatcher(sessions)
    async with _refusing(sessions, "arqonce.dead_jobs", "53100"):
        postponed = await _outcome(dispatcher, fail, attempt=3)

    dead = await _outcome(dispatcher, fail, attempt=3)

    assert _is_uncounted(postponed)
    assert isinstance(dead, ZeroDivisionError)
    assert [(reason, attempts) for reason, _, attempts in await _letters(sessions)] == [("ZeroDivisionError", 3)]


@pytest.mark.parametrize("state", ["25006", "53100", "57014", "40001"])
async def test_a_refusal_that_cannot_be_recorded_keeps_the_last_attempt(sessions: Sessions, state: str) -> None:
    """The e-mail is taken, whatever the database says of the receipt."""
    dispatcher = Dispatcher(sessions)
    await dispatcher.run(REGISTRY["create_user"], Delivery("first", 1, JANE, {}))
    async with _refusing(sessions, "arqonce.receipts", state):
        with pytest.raises(RetryLater) as postponed:
            await dispatcher.run(REGISTRY["create_user"], Delivery("second", 5, JANE, {}))

    with pytest.raises(EmailTakenError):
        await dispatcher.run(REGISTRY["create_user"], Delivery("second", 5, JANE, {}))

    assert not postponed.value.counts
    assert await _letters(sessions) == []


async def test_a_refusal_that_no_database_takes_is_told_as_what_it_is(sessions: Sessions) -> None:
    """What will never be recorded does not run for ever."""
    dispatcher = Dispatcher(sessions)

    async def refuse(_session: AsyncSession, _payload: Work) -> Done:
        raise JobFailedError("no", code="not_today")

    async with _refusing(sessions, "arqonce.receipts", "22023"):
        outcome = await _outcome(dispatcher, refuse, attempt=1)

    assert isinstance(outcome, DatabaseFailedError)
    assert "SQLSTATE 22023" in str(outcome)


@asynccontextmanager
async def _locked(sessions: Sessions, table: str) -> AsyncIterator[None]:
    async with sessions.begin() as session:
        await session.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        yield


@asynccontextmanager
async def _missing(sessions: Sessions, table: str) -> AsyncIterator[None]:
    async with sessions.begin() as session:
        await session.execute(text(f"ALTER TABLE {table} RENAME TO gone"))
    try:
        yield
    finally:
        async with sessions.begin() as session:
            await session.execute(text(f"ALTER TABLE arqonce.gone RENAME TO {table.removeprefix('arqonce.')}"))


@pytest.mark.parametrize(
    ("damaged", "table", "told"),
    [
        (_locked, "receipts", "another transaction has locked a table of jobs"),
        (_locked, "outbox", "another transaction has locked a table of jobs"),
        (_missing, "outbox", "a table of jobs is missing"),
        (partial(_refusing, state="42501"), "receipts", "its user may not write the tables of jobs"),
    ],
)
async def test_tables_that_no_job_can_use_cost_no_attempt(
    sessions: Sessions, database: DatabaseSettings, damaged: Damage, table: str, told: str
) -> None:
    """A migration's lock, a dropped table, revoked rights: all jobs would be dead before anybody can mend it."""
    hasty = database.model_copy(update={"statement_timeout": timedelta(milliseconds=300)})
    async with open_database(hasty, pool_size=2) as own:
        dispatcher = Dispatcher(own)
        async with damaged(sessions, f"arqonce.{table}"):
            refused = await _outcome(dispatcher, store, attempt=3)
            trouble = dispatcher.gate.trouble or ""
        stored = await _outcome(dispatcher, store, attempt=3)

    assert _is_uncounted(refused)
    assert trouble.startswith(f"cannot be written to: {told}: ")
    assert (stored, await _letters(sessions)) == ({"done": True}, [])


async def test_while_the_gate_is_closed_no_handler_runs(sessions: Sessions) -> None:
    """What was claimed before it closed is put back, and runs when the server takes writes again."""
    dispatcher = Dispatcher(sessions)
    async with _refusing(sessions, "arqonce.receipts", "53100"):
        assert not await dispatcher.gate.check()
        refused = await _outcome(dispatcher, fail, attempt=3)
        with pytest.raises(RetryLater):
            await abort(dispatcher, REGISTRY["create_user"], Delivery("j1", 1, JANE, {}))
        told = dispatcher.gate.trouble

    assert _is_uncounted(refused)
    assert told == "cannot be written to: its disk is full"
    assert await _outcome(dispatcher, store, attempt=3) == {"done": True}
    assert dispatcher.gate.trouble is None


async def test_an_attempt_that_an_outage_has_met_does_not_count_when_it_is_over(sessions: Sessions) -> None:
    """The server may be back before the job's error is looked at."""
    dispatcher = Dispatcher(sessions)

    async def have_an_outage() -> None:
        async with _refusing(sessions, "arqonce.receipts", "53100"):
            await dispatcher.gate.check()
        await dispatcher.gate.check()

    async def meet_an_outage(_session: AsyncSession, _payload: Work) -> Done:
        await asyncio.create_task(have_an_outage(), context=Context())  # not with connections of the job's
        raise TimeoutError

    outcome = await _outcome(dispatcher, meet_an_outage, attempt=3)

    assert _is_uncounted(outcome)


async def test_only_a_job_that_was_left_is_told_to_have_been(sessions: Sessions) -> None:
    """Attempts may have run out in other ways: then the last one is run, and its error is the true one."""
    dispatcher = Dispatcher(sessions)

    run = await _outcome(dispatcher, fail, 4, was_left=False)
    left = await _outcome(dispatcher, fail, 4, was_left=True)
    unknown = await _outcome(dispatcher, fail, 4)

    assert isinstance(run, ZeroDivisionError)
    assert isinstance(left, AttemptsExhaustedError)
    assert "started 3 times, and the last attempt never ended: its worker died" in str(left)
    assert str(unknown).endswith("started 3 times without an end")


async def test_a_handler_that_cancels_itself_has_failed(sessions: Sessions) -> None:
    """Nobody has asked its task to end: it is tried again as often as any other, and told as what it is."""
    dispatcher = Dispatcher(sessions)

    outcomes = [await _outcome(dispatcher, cancel_itself, attempt) for attempt in (1, 3)]

    assert _counts(outcomes[0])
    assert isinstance(outcomes[1], HandlerCancelledError)
    assert [reason for reason, _, _ in await _letters(sessions)] == ["HandlerCancelledError"]


async def test_looks_leave_nothing(sessions: Sessions) -> None:
    """The row that is tried is rolled back."""
    await Dispatcher(sessions).gate.check()

    async with sessions() as session:
        assert await session.scalar(text("SELECT count(*) FROM arqonce.receipts")) == 0
        with pytest.raises(DBAPIError):  # and the connection that looked is as any other
            await session.execute(text("SELECT 1 FROM nothing"))


async def test_a_server_that_is_not_what_was_asked_for_is_not_told_to_be_gone(database: DatabaseSettings) -> None:
    """It answers: whoever reads the error must look at the URL, and not whether the server runs."""
    url = f"{database.url.get_secret_value()}?target_session_attrs=standby"
    settings = database.model_copy(update={"url": SecretStr(url)})
    async with open_database(settings, pool_size=1) as sessions:
        with pytest.raises(StartupError, match=r"^DATABASE_URL cannot be used .*target_session_attrs=standby"):
            await require_ready_database(sessions, settings)
