"""Drops connections to a server that cannot be written to: a standby, an old primary, or a read-only server.

And those that a server, a firewall or an operator has closed while they were idle.
"""

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from arqonce.database.connecting import why_unwritable
from arqonce.database.faults import may_be_outage


def drop_wrong_servers(engine: Engine) -> None:
    """Treat an error as a lost connection if the server has reported that it cannot be written to.

    Idle connections are closed as well: the pool would keep them, and each would cost a job an attempt. A transaction
    that its owner has set read-only is not affected, because the server then reports nothing.
    """
    entries: WeakSet[ConnectionPoolEntry] = WeakSet()

    @event.listens_for(engine, "connect")
    def _keep(_connection: object, entry: ConnectionPoolEntry) -> None:
        entries.add(entry)

    @event.listens_for(engine, "handle_error")
    def _look(context: ExceptionContext) -> None:
        connection = context.connection
        if connection is None or connection.closed or connection.invalidated:
            return
        if not may_be_outage(context.original_exception):
            return
        if leads_to_wrong_server(connection.connection.dbapi_connection):
            context.is_disconnect = True  # SQLAlchemy closes the others only at their next use: too late
            _end_idle(entries)


def drop_closed(engine: Engine) -> None:
    """Replace a connection that was closed while it was idle, when it is taken from the pool. No round trip.

    Else each would cost a job an attempt, and whoever looks at a page would see an outage that is over.
    """

    @event.listens_for(engine, "checkout")
    def _look(connection: Any, _entry: object, _proxy: object) -> None:  # noqa: ANN401 - see below
        if _driver_of(connection).is_closed():
            raise DisconnectionError


def leads_to_wrong_server(adapter: Any) -> bool:  # noqa: ANN401 - SQLAlchemy's, which types asyncpg's as nothing
    """Return whether the server of a connection has reported that it cannot be written to. No round trip."""
    return why_unwritable(_driver_of(adapter)) is not None


def _driver_of(adapter: Any) -> Any:  # noqa: ANN401 - see above
    return adapter._connection  # noqa: SLF001 - driver_connection would mark the connection as bare


def _end_idle(entries: Iterable[ConnectionPoolEntry]) -> None:
    for entry in entries:
        if not entry.in_use and entry.dbapi_connection is not None:
            _driver_of(entry.dbapi_connection).terminate()
