"""What PostgreSQL allows a transaction, and what a job's deadline does: they must agree."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, QueuePool, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from arqonce.database import engine, limits
from arqonce.database.engine import open_database
from arqonce.database.faults import _CURES, _NONE_FREE
from arqonce.database.limits import IDLE_LIMIT, KEEPALIVE, shorter_limits
from arqonce.database.settings import DatabaseSettings
from arqonce.database.transactions import open_transaction
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import DatabaseFailedError
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec
from db.users import insert_user
from jobs.registry import REGISTRY
from tests.conftest import StartWorker, wait_until

Sessions = async_sessionmaker[AsyncSession]


class Done(Result):
    """Nothing more."""


class Work(Payload[Done]):
    """A job that pauses in its transaction."""

    job_name: ClassVar[str] = "work"


async def _pause(session: AsyncSession, _payload: Work) -> Done:
    await insert_user(session, "Jane")
    await asyncio.sleep(0.8)
    return Done()


async def _outcome(sessions: Sessions, handler: Any, **limits_of_job: Any) -> object:  # noqa: ANN401 - handed on
    """Run the job until it ends: some lost connections are not held against it."""
    dispatcher, spec = Dispatcher(sessions), JobSpec(Work, handler, max_attempts=1, **limits_of_job)
    outcome: object = None
    for _ in range(5):
        outcome = (await asyncio.gather(dispatcher.run(spec, Delivery("j1", 1, (), {})), return_exceptions=True))[0]
        if not isinstance(outcome, RetryLater):
            break
    return outcome


@pytest.fixture
async def brief_sessions(
    database: DatabaseSettings, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Sessions]:
    """Yield a sessionmaker whose connections may pause for half a second."""
    assert sessions is not None  # the tables are cleaned afterwards
    brief = timedelta(milliseconds=500)
    monkeypatch.setattr(engine, "IDLE_LIMIT", brief)
    monkeypatch.setattr(limits, "IDLE_LIMIT", brief)
    monkeypatch.setattr(limits, "_MARGIN", timedelta(0))
    async with open_database(database, pool_size=2) as opened:
        yield opened


async def test_a_transaction_may_pause_as_long_as_its_job_may_last(brief_sessions: Sessions) -> None:
    """The limit that keeps locks from vanished clients must not cut an attempt that its deadline allows."""
    assert await _outcome(brief_sessions, _pause, deadline=timedelta(seconds=20)) == {}


async def test_no_job_of_ours_is_cut_by_the_limit_that_holds_without_a_longer_deadline() -> None:
    """A deadline ends an attempt before the server does, for a job that sets none."""
    assert JobSpec(REGISTRY["create_user"].payload, REGISTRY["create_user"].handler).deadline < IDLE_LIMIT


async def test_the_limit_of_one_job_is_not_that_of_the_next(brief_sessions: Sessions) -> None:
    """It ends with the transaction."""
    async with open_transaction(brief_sessions, lasts=timedelta(minutes=3)) as session:
        longer = await session.scalar(text("SHOW idle_in_transaction_session_timeout"))
    async with open_transaction(brief_sessions) as session:
        next_one = await session.scalar(text("SHOW idle_in_transaction_session_timeout"))

    assert (longer, next_one) == ("3min", "500ms")


async def _set(sessions: Sessions, statement: str) -> None:
    async with sessions() as session:
        connection = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await connection.exec_driver_sql(statement)


@pytest.fixture
async def with_transaction_timeout(sessions: Sessions) -> AsyncIterator[None]:
    """Let the server end transactions of the database after half a second."""
    async with sessions() as session:
        name = await session.scalar(text("SELECT quote_ident(current_database())"))
    await _set(sessions, f"ALTER DATABASE {name} SET transaction_timeout = '500ms'")
    yield
    await _set(sessions, f"ALTER DATABASE {name} RESET transaction_timeout")


@pytest.mark.usefixtures("with_transaction_timeout")
async def test_a_shorter_limit_of_the_server_is_named(database: DatabaseSettings, start_worker: StartWorker) -> None:
    """At the start and, if a job is cut, in its failure: both are the operator's to see."""
    async with open_database(database, pool_size=2) as sessions:
        async with sessions() as session:
            found = await shorter_limits(session, timedelta(minutes=1))
        outcome = await _outcome(sessions, _pause)
    worker = start_worker()
    wait_until(lambda: "worker ready" in worker.log, 20)

    assert found == {"transaction_timeout": timedelta(milliseconds=500)}
    with pytest.raises(DatabaseFailedError, match=r"the connection was lost.*transaction_timeout"):
        raise outcome  # type: ignore[misc] # it is an error
    assert '"setting": "transaction_timeout"' in worker.log


async def _by_driver(_session: AsyncSession) -> None:
    await asyncpg.connect("postgresql://nobody@127.0.0.1:1/elsewhere")


async def _by_engine(_session: AsyncSession) -> None:
    await create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/elsewhere").connect()


@contextmanager
def _sqlite() -> Iterator[Engine]:
    engine = create_engine("sqlite://", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01)
    try:
        yield engine
    finally:
        engine.dispose()  # Python warns of connections that nobody has closed


async def _by_sqlite(_session: AsyncSession) -> None:
    with _sqlite() as engine, engine.connect() as connection:
        connection.execute(text("SELECT * FROM elsewhere"))


async def _by_pool(_session: AsyncSession) -> None:
    with _sqlite() as engine, engine.connect(), engine.connect():
        pass


async def _here(session: AsyncSession) -> None:
    await session.execute(text("SELECT * FROM elsewhere"))


_ELSEWHERE = "a database to which the job connects by itself failed: "


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (_by_driver, f"{_ELSEWHERE}ConnectionRefusedError"),
        (_by_engine, f"{_ELSEWHERE}ConnectionRefusedError"),
        (_by_sqlite, f"{_ELSEWHERE}OperationalError"),
        (_by_pool, f"the database failed: TimeoutError: {_NONE_FREE}"),
        (_here, f"the database failed: SQLSTATE 42P01: {_CURES['42P01']}"),
    ],
)
async def test_another_database_that_fails_is_told_from_ours(
    sessions: Sessions, ask: Callable[[AsyncSession], Awaitable[None]], reason: str
) -> None:
    """Whose pool had no connection is not known. Nothing is advised for a database that is not the worker's."""

    async def connect_elsewhere(session: AsyncSession, _payload: Work) -> Done:
        await ask(session)
        return Done()

    failed = await _outcome(sessions, connect_elsewhere)

    assert isinstance(failed, DatabaseFailedError)
    assert str(failed) == f"database_failed: {reason}"


_CUTS = {
    "a statement": ("SET LOCAL statement_timeout = '100ms'; SELECT pg_sleep(2)", "57014: .*DATABASE_STATEMENT_TIMEOUT"),
    "a lock": ("DO $$ BEGIN RAISE SQLSTATE '55P03';END $$", "55P03: .*lock_timeout"),
    "a transaction": ("SET LOCAL transaction_timeout = '100ms'; SELECT pg_sleep(2)", "was lost.*transaction_timeout"),
}


@pytest.mark.parametrize(("statements", "reason"), _CUTS.values(), ids=_CUTS)
async def test_what_was_cut_names_the_limit(sessions: Sessions, statements: str, reason: str) -> None:
    """The author of the job learns which setting it was."""

    async def be_cut(session: AsyncSession, _payload: Work) -> Done:
        for statement in statements.split("; "):
            await session.execute(text(statement))
        return Done()

    outcome = await _outcome(sessions, be_cut)

    with pytest.raises(DatabaseFailedError, match=reason):
        raise outcome  # type: ignore[misc] # it is an error


async def test_connections_ask_the_server_to_notice_vanished_clients(database: DatabaseSettings) -> None:
    """By TCP's keep-alive; by default a server waits for two hours, and holds the locks."""
    by_tcp = database.model_copy(update={"url": SecretStr(database.url.get_secret_value())})
    async with open_database(by_tcp, pool_size=1) as sessions, sessions() as session:
        names: Sequence[str] = list(KEEPALIVE)
        found = {name: await session.scalar(text(f"SHOW {name}")) for name in names}

    assert found == KEEPALIVE
