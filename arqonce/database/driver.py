"""Statements by asyncpg itself, in a session's transaction. For those that every job runs.

SQLAlchemy takes longer to prepare such a statement than PostgreSQL to execute it.
"""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from arqonce.database.faults import may_be_outage
from arqonce.database.pipelining import DriverError, PipeliningConnection
from arqonce.database.protocol import Argument
from arqonce.database.wrong_servers import leads_to_wrong_server


async def fetch_by_driver(session: AsyncSession, statement: str, *arguments: Any) -> Sequence[Any]:  # noqa: ANN401 - asyncpg's
    """Flush the session and execute a statement with asyncpg's ``$1``; return its rows. One round trip.

    Raises:
        IntegrityError: it violates a constraint.
        DBAPIError: it failed otherwise, or the connection is lost.
    """
    return await session.run_sync(_fetch, statement, arguments)


def _fetch(session: Session, statement: str, arguments: tuple[Any, ...]) -> Sequence[Any]:
    session.flush()
    connection = session.connection()
    driver: Any = connection.connection.dbapi_connection
    try:
        if isinstance(driver, PipeliningConnection):
            return driver.fetch(statement, arguments)
        cursor = driver.cursor()
        cursor.execute(statement, arguments)
        return cast("Sequence[Any]", cursor.fetchall())
    except DriverError as error:
        if is_lost := _is_lost(driver, error):
            connection.invalidate(error)
        raise DBAPIError.instance(None, None, error, DriverError, connection_invalidated=is_lost) from error


def _is_lost(driver: Any, error: Exception) -> bool:  # noqa: ANN401 - SQLAlchemy's adapter
    """Say whether the connection is closed, or leads to a server that cannot be written to."""
    raw = driver.raw if isinstance(driver, PipeliningConnection) else driver.driver_connection
    return bool(raw.is_closed() or (may_be_outage(error) and leads_to_wrong_server(driver)))


async def execute_last(session: AsyncSession, statement: str, *arguments: Argument) -> None:
    """Flush the session and have a statement executed as the transaction's last one. It goes with COMMIT.

    Its errors come from there, as SQLAlchemy's. Should another statement come after it, it is executed before that one.
    """
    await session.run_sync(_execute_last, statement, arguments)


def _execute_last(session: Session, statement: str, arguments: tuple[Argument, ...]) -> None:
    session.flush()
    connection: object = session.connection().connection.dbapi_connection
    if isinstance(connection, PipeliningConnection):
        connection.execute_last(statement, arguments)
    else:  # of an engine that is not ours
        _fetch(session, statement, arguments)
