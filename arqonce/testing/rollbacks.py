"""Tells when what was done in a transaction of SQLAlchemy's has come to nothing, because it did not commit.

Loads SQLAlchemy only if the connection is one of its own, which has done so: a producer need not have it.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

_ASYNC = "sqlalchemy.ext.asyncio"


def when_rolled_back(connection: Any, call: Callable[[], object]) -> None:  # noqa: ANN401 - of any library
    """Call if the transaction, or a savepoint in it, that is open now ends without a commit.

    Connections that are none of SQLAlchemy's tell nothing: for them it is never called. A savepoint of a session is
    noticed, one of a bare connection is not. Where no transaction is open yet, one is begun, as a statement would.
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
    """Say whether it is of these classes; isinstance would believe a mock with a spec."""
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
