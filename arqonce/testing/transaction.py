"""One transaction for a whole test, shared by the test's session and the code under test, and rolled back at the end.

A commit inside only releases a savepoint. The driver's pipelining is not used: a statement that a worker sends with
COMMIT is executed at once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import ExceptionContext, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from arqonce.database.asyncpg_connection import LentConnection
from arqonce.database.engine import ledger_options
from arqonce.database.faults import mark_as_own
from arqonce.database.loans import Loan
from arqonce.database.settings import DatabaseSettings


class CommittedError(AssertionError):
    """A handler or a query has committed."""


class WrongLoopError(RuntimeError):
    """The test and its fixtures run in different event loops."""


class TransactionLostError(RuntimeError):
    """The test's transaction ended before the test."""


_COMMITTED = (
    "session.commit() was called. Handlers and queries never commit: the worker does, together with the job's receipt, "
    "because otherwise a job that is delivered again takes effect twice. Remove the commit (session.flush() sends what "
    "is pending). For code that must open its own transactions, use the fixture jobs_sessions"
)

_WRONG_LOOP = (
    "the test's transaction belongs to another event loop than the one that runs now: a fixture of yours and the test "
    "have different loop scopes. Give both the same: @pytest_asyncio.fixture(loop_scope=...) and "
    "@pytest.mark.asyncio(loop_scope=...), or in pytest's settings asyncio_default_fixture_loop_scope and "
    "asyncio_default_test_loop_scope"
)

_LOST = (
    "the connection to PostgreSQL was closed in the middle of a statement, and with it the test's transaction, "
    "usually because the job's deadline passed while a statement ran. Test such a job in a worker process: start_worker"
)

_ENDED = (
    "a COMMIT or ROLLBACK was sent as a statement, and has ended the test's transaction: handlers and queries never "
    "end theirs (session.flush() sends what is pending, session.begin_nested() undoes a part)"
)


@dataclass
class Transaction:
    """An open transaction on its own connection."""

    connection: AsyncConnection

    session: AsyncSession
    """The test's session. It refuses to commit."""

    sessions: async_sessionmaker[AsyncSession]
    """For code that opens transactions. The test sees their commits, which are rolled back after it."""

    commits: list[CommittedError] = field(default_factory=list)
    """Errors of the commits that the session has refused."""

    async def refresh(self) -> None:
        """Refresh all objects in the test's session, because a job may have changed them. One round trip per object."""
        for instance in list(self.session):
            try:
                await self.session.refresh(instance)
            except InvalidRequestError:  # its row was deleted
                self.session.expunge(instance)

    def require_life(self) -> None:
        """Raise unless the transaction is open.

        Raises:
            TransactionLostError: it has ended; the text names the cure.
        """
        if self.connection.invalidated or self.connection.closed:
            raise TransactionLostError(_LOST)
        adapted: Any = self.connection.sync_connection.connection.dbapi_connection  # type: ignore[union-attr] # it is open
        has_begun = adapted._transaction is not None  # noqa: SLF001 - the first statement begins it
        if has_begun and not adapted.driver_connection.is_in_transaction():
            raise TransactionLostError(_ENDED)


@asynccontextmanager
async def open_transaction_to_roll_back(database: DatabaseSettings) -> AsyncIterator[Transaction]:
    """Yield a transaction for use in the running event loop, and roll it back at the end. Opens one connection."""
    engine = create_async_engine(
        database.sqlalchemy_url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args=_connect_arguments(database),
        execution_options=ledger_options(database),
    )
    _require_loop(engine.sync_engine, asyncio.get_running_loop())
    event.listen(engine.sync_engine, "handle_error", _mark)
    try:
        async with engine.connect() as connection:
            await connection.begin()
            driver: Any = (await connection.get_raw_connection()).driver_connection
            driver.loan = Loan()  # so that it rejects statements that end the transaction, as in a worker
            sessions = async_sessionmaker(connection, join_transaction_mode="create_savepoint", expire_on_commit=False)
            async with sessions() as session:
                transaction = Transaction(connection, session, sessions)
                _refuse_commits(transaction)
                yield transaction
            driver.loan = None
            if not connection.invalidated:
                await connection.rollback()
    finally:
        await engine.dispose()


def _connect_arguments(database: DatabaseSettings) -> dict[str, Any]:
    # Unlike in a worker, idle time is not limited, because a developer may use a debugger.
    statement_timeout = round(database.statement_timeout / timedelta(milliseconds=1))
    return {
        "connection_class": LentConnection,
        "timeout": database.connect_timeout.total_seconds(),
        "command_timeout": database.command_timeout.total_seconds(),
        "server_settings": {"statement_timeout": str(statement_timeout), "application_name": "arqonce tests"},
    }


def _mark(failed: ExceptionContext) -> None:
    mark_as_own(failed.sqlalchemy_exception or failed.original_exception)


def _refuse_commits(transaction: Transaction) -> None:
    @event.listens_for(transaction.session.sync_session, "before_commit")
    def _refuse(session: Session) -> None:
        if not session.in_nested_transaction():
            transaction.commits.append(CommittedError(_COMMITTED))
            raise transaction.commits[-1]


def _require_loop(engine: object, loop: asyncio.AbstractEventLoop) -> None:
    @event.listens_for(engine, "before_cursor_execute")
    def _require(*_: object) -> None:
        if asyncio.get_running_loop() is not loop:
            raise WrongLoopError(_WRONG_LOOP)
