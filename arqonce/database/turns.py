"""Lets jobs take turns in one transaction: each has a session of its own, and nothing that it sets reaches the next.

What a job may leave in the transaction falls into three classes. Objects, listeners and options of the session and of
the connection: they end with the turn. Settings of triggers: if functions in the database may set any, all are reset
with the next job's first statement, without a round trip. All else (``suspects``): such a job cannot share, and
``turn`` raises.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from arqonce.database.asyncpg_connection import ENDED, TransactionEndedError
from arqonce.database.limits import allow_pauses, milliseconds
from arqonce.database.loans import Loan, current_loan
from arqonce.database.pipelining import PipeliningConnection, Turn
from arqonce.database.transactions import refuse_commits, require_active

_LOCK_LIMIT = timedelta(milliseconds=250)
"""Longest wait of a job for a lock while others share its transaction. It waits longer in its own."""


class UnshareableError(RuntimeError):
    """The job's transaction cannot be shared with the next job; the text says why."""


class NeverSharedError(UnshareableError):
    """No transaction can be shared on this server; the text says why."""


class SharedTransaction:
    """An open transaction, in which jobs take turns."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        connection: AsyncConnection,
        *,
        lasts: timedelta,
    ) -> None:
        """Share the transaction of this connection of a session within ``open_transaction``.

        Raises:
            NeverSharedError: no connection can be shared.
        """
        sync: Any = connection.sync_connection
        driver, loan = sync.connection.dbapi_connection, current_loan()
        if not isinstance(driver, PipeliningConnection) or not driver.can_pipeline or loan is None:
            raise NeverSharedError("statements are not kept prepared, as behind PgBouncer")
        self._sessions = sessions
        self._connection = connection
        self._sync = sync
        self._options = sync._execution_options  # noqa: SLF001 - a connection's options can be added to, not replaced
        self._driver = driver
        self._loan: Loan = loan
        self._transaction: Any = sync.get_transaction()
        limit = f"SET LOCAL lock_timeout = {milliseconds(_LOCK_LIMIT)}"
        self._limits = (limit, *allow_pauses(lasts))
        self._opening = self._limits

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[tuple[AsyncSession, Turn]]:
        """Yield a new session in the transaction, and what is known of the turn; flush the session at the end.

        One round trip if a statement has failed in the turn, else none of its own. After an error, the transaction must
        be rolled back.

        Raises:
            UnshareableError: the next job could meet what this one has left.
            TransactionEndedError: the job has ended the transaction, or has tried to.
            DBAPIError: a statement of the job has failed, and the transaction with it.
        """
        session = self._sessions()
        own = session.sync_session
        refuse_commits(own)
        transaction = own.begin()
        # As SQLAlchemy does for a session that is bound to a connection. But this one is bound to the engine.
        joined = (self._sync, self._transaction, False, False)
        transaction._connections[self._sync] = transaction._connections[self._sync.engine] = joined  # noqa: SLF001
        turn = Turn(self._opening)
        self._driver.turn = turn
        try:
            with self._loan.turn_of(turn):
                yield session, turn
                if own.new or own.dirty or own.deleted:
                    await session.flush()
                if turn.has_erred:
                    await self._connection.exec_driver_sql("SELECT 1")
                self._require_nothing_left(own, transaction)
        finally:
            self._driver.turn = None
        self._opening = ("RESET ALL", *self._limits) if self._driver.may_set else turn.opening
        own.close()  # talks to no server: the transaction is not its own

    def _require_nothing_left(self, session: Session, transaction: SessionTransaction) -> None:
        require_active(transaction, self._loan)
        if not self._sync.in_transaction() or not self._transaction.is_active:
            raise TransactionEndedError(ENDED)
        if self._driver.is_ever_suspect:
            raise NeverSharedError(
                "functions in the database may leave something in a session, such as locks and temporary tables"
            )
        if reason := self._what_is_left(session):
            raise UnshareableError(reason)
        self._sync._execution_options = self._options  # noqa: SLF001 - as above

    def _what_is_left(self, session: Session) -> str | None:
        if self._sync.in_nested_transaction():
            return "it leaves a savepoint open"
        if session.dispatch.before_commit or session.dispatch.after_commit.listeners:  # those of this session alone
            return "something listens to the commit of its session"
        if self._sync._has_events:  # noqa: SLF001 - listeners of the connection alone
            return "it adds listeners to the connection"
        if self._loan.places > 1:
            return "it leaves a second connection open"
        return self._driver.why_unshared()
