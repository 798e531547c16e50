"""Drops connections to a server that cannot be written to: a standby, an old primary, one that was set read-only."""

from sqlalchemy import Engine, ExceptionContext, event

from db.connecting import why_unwritable
from db.faults import may_be_outage


def drop_wrong_servers(engine: Engine) -> None:
    """Treat an error as a lost connection if the server says that it cannot be written to: all older ones go with it.

    A pool would keep them for as long as they live, and each would cost a job an attempt. A transaction that its owner
    has made read-only is none of this: there the server says nothing.
    """

    @event.listens_for(engine, "handle_error")
    def _look(context: ExceptionContext) -> None:
        connection = context.connection
        if connection is None or connection.closed or connection.invalidated:
            return
        if may_be_outage(context.original_exception):
            context.is_disconnect |= why_unwritable(connection.connection.driver_connection) is not None
