"""Tests whether a server can be written to. A standby accepts connections, and so does a server with a full disk."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Executable, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from arqonce.database.connecting import READ_ONLY, STANDBY
from arqonce.database.faults import ReadOnlyServerError, is_transient, sqlstate_of, why_not_written

_LOOK = text("""
    SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean,
        set_config('lock_timeout', '100ms', true), set_config('work_mem', '64kB', true)
""")

_REFUSE = text("DO $$ BEGIN RAISE SQLSTATE '25006'; END $$")
"""Raises the error that any write would raise, which makes the engine drop its connections to this server."""

_FILL = text("SELECT count(*) FROM generate_series(1, 20000)")
"""Writes 280 kB into a temporary file on the tables' disk, and leaves nothing. Takes 3 ms and needs no privilege."""


async def require_primary(connection: AsyncConnection | AsyncSession) -> None:
    """Return if the server is neither a standby nor read-only. One round trip.

    Changes settings of the transaction, so the caller must roll it back.

    Raises:
        ReadOnlyServerError: it is one of these; the engine has dropped its connections to it.
    """
    in_recovery, is_read_only, *_ = (await connection.execute(_LOOK)).one()
    if not in_recovery and not is_read_only:
        return
    try:
        await connection.execute(_REFUSE)
    except DBAPIError as error:
        if not error.connection_invalidated:  # PgBouncer does not report a standby, so the engine has not noticed
            await connection.invalidate()
        raise ReadOnlyServerError(STANDBY if in_recovery else READ_ONLY) from error


async def require_writable(session: AsyncSession) -> None:
    """Return if the server can be written to, as far as a test without a table can show. Two round trips.

    Raises:
        ReadOnlyServerError: it is a standby or read-only.
        DBAPIError: its disk is full, or it is unreachable.
    """
    await require_primary(session)
    await try_statement(session, _FILL)


async def try_statement(session: AsyncSession, statement: Executable) -> None:
    """Execute the statement; raise only faults of the server."""
    with faults_of_server():
        await session.execute(statement)


@contextmanager
def faults_of_server() -> Iterator[None]:
    """Suppress errors of statements in the block that are no faults of the server, such as a missing privilege."""
    try:
        yield
    except DBAPIError as error:
        state = sqlstate_of(error)
        is_of_server = state is None or state[:2] in {"08", "57"} or why_not_written(error) is not None
        if is_of_server and is_transient(error):
            raise
