"""One session and one transaction, from its begin to its commit. Knows neither tables nor jobs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from arqonce.database.asyncpg_connection import ENDED, TransactionEndedError
from arqonce.database.limits import allow_pauses
from arqonce.database.loans import Loan, borrowing

_COMMITTED = (
    "session.commit() was called, which only the owner of the transaction may do: the effect commits with the job's "
    "receipt, or a job that is delivered again takes effect twice. Nothing was committed. Remove the call; "
    "session.flush() sends what is pending"
)


_RETURN_LIMIT = timedelta(seconds=5)
"""Longest wait until a connection is rolled back. Then it is closed."""

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

    PostgreSQL lets the transaction pause as long as it ``lasts``: ``allow_pauses``.

    Does what ``sessions.begin()`` does, without the task that SQLAlchemy starts to close a session: behind a commit its
    connection is in the pool already. That is a tenth of a small transaction's time.

    The connection is lent, as is any other of the same engine that is opened inside. The pool has them back afterwards,
    clean or closed; ``on_leak`` is told what was left in use. AUTOCOMMIT is refused inside, and every way to commit.
    What is written in a transaction that ``reads_only`` is an error of PostgreSQL, and what it notifies is dropped.

    Raises:
        TransactionEndedError: the transaction was ended inside, or somebody has tried to; it is rolled back.
        InvalidRequestError: AUTOCOMMIT was asked for inside.
    """
    loan, session = Loan(reads_only=reads_only), sessions()
    allow_pauses(session, lasts)
    with borrowing(loan):
        refusing = _refuse_commits(session.sync_session)
        transaction = session.sync_session.begin()  # talks to no server yet
        try:
            yield session
            _require_active(transaction, loan)
            loan.is_ending = True
            del refusing["commit"]
            await session.commit()
        except BaseException:
            # In a task of its own, as SQLAlchemy does it: a cancelled job gives its connection back, too.
            await asyncio.shield(asyncio.create_task(_return(session, loan, on_leak)))
            raise
        if loan.end():
            on_leak(_LEFT_OPEN)


async def _return(session: AsyncSession, loan: Loan, on_leak: Callable[[str], object]) -> None:
    """Close the session, which another task may be using, and have its connection back in any case."""
    with suppress(SQLAlchemyError, OSError, TimeoutError):
        async with asyncio.timeout(_RETURN_LIMIT.total_seconds()):
            await session.close()
    if loan.end():
        on_leak(_LEFT_OPEN)


def _require_active(transaction: SessionTransaction, loan: Loan) -> None:
    if loan.fault is not None:
        raise loan.fault
    if not transaction.is_active:
        raise TransactionEndedError(ENDED)


def _refuse_commits(session: Session) -> dict[str, object]:
    """Let ``commit`` raise until it is removed from what is returned: an event's listener for each job costs more."""

    def refuse() -> None:
        raise InvalidRequestError(_COMMITTED)

    names = vars(session)
    names["commit"] = refuse
    return names
