"""One session and one transaction, from its begin to its commit. Knows neither tables nor jobs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from db.limits import allow_pauses
from db.pipelining import ENDED, TransactionEndedError

_COMMITTED = (
    "session.commit() was called, which only the owner of the transaction may do: the effect commits with the job's "
    "receipt, or a job that is delivered again takes effect twice. Nothing was committed. Remove the call; "
    "session.flush() sends what is pending"
)


@asynccontextmanager
async def open_transaction(
    sessions: async_sessionmaker[AsyncSession], *, lasts: timedelta = timedelta(0)
) -> AsyncIterator[AsyncSession]:
    """Yield a session, and commit at the end; an error rolls back. BEGIN is sent with the first statement.

    PostgreSQL lets the transaction pause as long as it ``lasts``: ``allow_pauses``.

    Does what ``sessions.begin()`` does, without the task that SQLAlchemy starts to close a session: behind a commit its
    connection is in the pool already. That is a tenth of a small transaction's time.

    Inside, ``session.commit()`` is refused before it does anything.

    Raises:
        TransactionEndedError: the transaction was ended inside in another way; what came after that is rolled back.
    """
    session = sessions()
    allow_pauses(session, lasts)
    refusing = _refuse_commits(session.sync_session)
    transaction = session.sync_session.begin()  # talks to no server yet
    try:
        yield session
        _require_active(transaction)
        del refusing["commit"]
        await session.commit()
    except BaseException:
        # In a task of its own, as SQLAlchemy does it: a cancelled job gives its connection back, too.
        await asyncio.shield(asyncio.create_task(session.close()))
        raise


def _require_active(transaction: SessionTransaction) -> None:
    if not transaction.is_active:
        raise TransactionEndedError(ENDED)


def _refuse_commits(session: Session) -> dict[str, object]:
    """Let ``commit`` raise until it is removed from what is returned: an event's listener for each job costs more."""

    def refuse() -> None:
        raise InvalidRequestError(_COMMITTED)

    names = vars(session)
    names["commit"] = refuse
    return names
