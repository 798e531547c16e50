"""Tells when what was done in a transaction of SQLAlchemy's has come to nothing, because it did not commit."""

from collections.abc import Callable, Iterator

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction, scoped_session


def when_rolled_back(connection: object, call: Callable[[], object]) -> None:
    """Call if the transaction, or a savepoint in it, that is open now ends without a commit.

    Connections that are none of SQLAlchemy's tell nothing: for them it is never called. A savepoint of a session is
    noticed, one of a bare connection is not.
    """
    found = _sync(connection)
    if isinstance(found, Session):
        _watch_session(found, call)
    elif isinstance(found, Connection):
        _watch_connection(found, call)


def _sync(connection: object) -> object:
    if isinstance(connection, scoped_session | async_scoped_session):
        connection = connection()
    if isinstance(connection, AsyncSession):
        return connection.sync_session
    if isinstance(connection, AsyncConnection):
        return connection.sync_connection
    return connection


def _watch_session(session: Session, call: Callable[[], object]) -> None:
    watched = list(_lineage(session.get_nested_transaction() or session.get_transaction()))
    committed: list[SessionTransaction | None] = []

    @event.listens_for(session, "after_commit")
    def _commit(session: Session) -> None:
        committed.append(session.get_nested_transaction() or session.get_transaction())

    @event.listens_for(session, "after_transaction_end")
    def _end(_session: Session, transaction: SessionTransaction) -> None:
        if transaction in watched and transaction not in committed:
            call()


def _lineage(transaction: SessionTransaction | None) -> Iterator[SessionTransaction]:
    while transaction is not None:
        yield transaction
        transaction = transaction.parent


def _watch_connection(connection: Connection, call: Callable[[], object]) -> None:
    committed = False

    @event.listens_for(connection, "commit")
    def _commit(_connection: Connection) -> None:
        nonlocal committed
        committed = True

    @event.listens_for(connection, "rollback")
    def _rollback(_connection: Connection) -> None:
        if not committed:
            call()
