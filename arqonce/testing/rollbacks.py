"""Detects that a transaction of SQLAlchemy has ended without a commit.

Uses SQLAlchemy only if the process has already loaded it, because producers need not have it installed.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

_ASYNC = "sqlalchemy.ext.asyncio"


def when_rolled_back(connection: Any, call: Callable[[], object]) -> None:  # noqa: ANN401 - of any library
    """Call ``call`` if the transaction or savepoint that is open now ends without a commit.

    It is never called for connections that are not SQLAlchemy's. Savepoints of a session are detected, those of a bare
    connection are not. If no transaction is open, begins one, as a statement would.
    """
    if "sqlalchemy" not in sys.modules:
        return
    orm, engine = importlib.import_module("sqlalchemy.orm"), importlib.import_module("sqlalchemy.engine")
    found = _sync(connection, orm)
    if not _is_real(found, orm.Session, engine.Connection):
        return
    if not found.in_transaction():
        found.begin()
    watch = _watch_session if _is_real(found, orm.Session) else _watch_connection
    watch(found, call)


def _is_real(connection: object, *classes: type) -> bool:
    """Return whether the object is of these classes. isinstance would accept a mock with a spec."""
    return issubclass(type(connection), classes)


def _sync(connection: Any, orm: Any) -> Any:  # noqa: ANN401 - modules and objects of SQLAlchemy
    asyncio = sys.modules.get(_ASYNC)
    if _is_real(connection, orm.scoped_session) or (asyncio and _is_real(connection, asyncio.async_scoped_session)):
        connection = connection()
    if asyncio and _is_real(connection, asyncio.AsyncSession):
        return connection.sync_session
    if asyncio and _is_real(connection, asyncio.AsyncConnection):
        return connection.sync_connection
    return connection


def _watch_session(session: Any, call: Callable[[], object]) -> None:  # noqa: ANN401 - SQLAlchemy's Session
    watched = list(_lineage(session.get_nested_transaction() or session.get_transaction()))
    committed: list[object] = []

    def commit(session: Any) -> None:  # noqa: ANN401 - SQLAlchemy's Session
        committed.append(session.get_nested_transaction() or session.get_transaction())

    def end(_session: object, transaction: object) -> None:
        if transaction in watched and transaction not in committed:
            call()

    _listen(session, after_commit=commit, after_transaction_end=end)


def _lineage(transaction: Any) -> Iterator[Any]:  # noqa: ANN401 - SQLAlchemy's SessionTransaction
    while transaction is not None:
        yield transaction
        transaction = transaction.parent


def _watch_connection(connection: Any, call: Callable[[], object]) -> None:  # noqa: ANN401 - SQLAlchemy's Connection
    ended: list[object] = []

    def rollback(connection: object) -> None:
        if not ended:
            call()
        ended.append(connection)

    _listen(connection, commit=ended.append, rollback=rollback)


def _listen(target: object, **listeners: Callable[..., None]) -> None:
    event = importlib.import_module("sqlalchemy.event")
    for name, listener in listeners.items():
        event.listen(target, name, listener)
