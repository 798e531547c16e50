"""Opens one session and one transaction, and commits it. Knows neither tables nor jobs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from arqonce.database.asyncpg_connection import ENDED, TransactionEndedError
from arqonce.database.loans import Loan, borrowing

_COMMITTED = (
    "session.commit() was called, which only the owner of the transaction may do. The effect must commit with the "
    "job's receipt, or a job that is delivered again takes effect twice. Nothing was committed. Remove the call; "
    "session.flush() sends what is pending"
)


_RETURN_LIMIT = timedelta(seconds=3)
"""Longest wait for a connection's rollback. After that the connection is closed. Shorter than the time that a
second signal leaves (``process.ending``), so that a worker ends in order while PostgreSQL is silent."""

_LEFT_OPEN = (
    "the handler has left a connection in use: it was closed, and the pool opens another. Await every task that uses "
    "the session before the handler returns, and close what the handler opens (async with)"
)


@asynccontextmanager
async def open_transaction(
    sessions: async_sessionmaker[AsyncSession],
    *,
    lasts: timedelta = timedelta(0),
    reads_only: bool = False,
    on_leak: Callable[[str], object] = lambda _leak: None,
) -> AsyncIterator[AsyncSession]:
    """Yield a session, and commit at the end; an error rolls back. BEGIN is sent with the first statement.

    PostgreSQL lets the transaction be idle for as long as it may last (``lasts``; see ``limits.allow_pauses``).

    Works like ``sessions.begin()``, without the task that SQLAlchemy starts to close a session: after a commit, its
    connection is already back in the pool. That saves a tenth of a small transaction's time.

    The connection is lent to the block, as is any other of the same engine that the block opens. Afterwards the pool
    has them back, clean or closed. ``on_leak`` is called with a message if any was left in use. The block cannot use
    AUTOCOMMIT or commit in any way. If the transaction ``reads_only``, PostgreSQL rejects writes, and notifications are
    dropped.

    Raises:
        TransactionEndedError: the block has ended the transaction, or has tried to; it is rolled back.
        InvalidRequestError: the block has called ``commit`` or requested AUTOCOMMIT.
    """
    loan, session = Loan(reads_only=reads_only, lasts=lasts), sessions()
    with borrowing(loan):
        refusing = refuse_commits(session.sync_session)
        transaction = session.sync_session.begin()  # talks to no server yet
        try:
            yield session
            require_active(transaction, loan)
            loan.is_ending = True
            del refusing["commit"]
            await session.commit()
        except BaseException:
            # In its own task, as in SQLAlchemy, so that a cancelled job returns its connection, too.
            await asyncio.shield(asyncio.create_task(_return(session, loan, on_leak)))
            raise
        if loan.end():
            on_leak(_LEFT_OPEN)


async def _return(session: AsyncSession, loan: Loan, on_leak: Callable[[str], object]) -> None:
    """Close the session, which another task may be using, and return its connection to the pool in any case."""
    with suppress(SQLAlchemyError, OSError, TimeoutError):
        async with asyncio.timeout(_RETURN_LIMIT.total_seconds()):
            await session.close()
    if loan.end():
        on_leak(_LEFT_OPEN)


def require_active(transaction: SessionTransaction, loan: Loan) -> None:
    """Return if a job has neither ended its session's transaction nor tried anything else that it must not do.

    Raises:
        InvalidRequestError: it has.
    """
    if loan.fault is not None:
        raise loan.fault
    if not transaction.is_active:
        raise TransactionEndedError(ENDED)


def refuse_commits(session: Session) -> dict[str, object]:
    """Make ``commit`` raise until it is deleted from the returned dict. An event listener per job would cost more."""

    def refuse() -> None:
        raise InvalidRequestError(_COMMITTED)

    names = vars(session)
    names["commit"] = refuse
    return names
