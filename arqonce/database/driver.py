"""Executes statements with asyncpg directly, in a session's transaction. For statements that every job runs.

SQLAlchemy takes longer to compile such a statement than PostgreSQL takes to execute it.
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
    """Flush the session and execute a statement with parameters ``$1``, ``$2``; return its rows. One round trip.

    Raises:
        IntegrityError: the statement violates a constraint.
        DBAPIError: it failed for another reason, or the connection is lost.
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
    """Return whether the connection is closed, or leads to a server that cannot be written to."""
    raw = driver.raw if isinstance(driver, PipeliningConnection) else driver.driver_connection
    return bool(raw.is_closed() or (may_be_outage(error) and leads_to_wrong_server(driver)))


async def execute_last(session: AsyncSession, statement: str, *arguments: Argument) -> None:
    """Flush the session and schedule the transaction's last statement, which is sent together with COMMIT.

    COMMIT raises its errors, as SQLAlchemy's. If another statement follows nevertheless, this one is executed first.
    """
    await session.run_sync(_execute_last, statement, arguments)


def _execute_last(session: Session, statement: str, arguments: tuple[Argument, ...]) -> None:
    session.flush()
    connection: object = session.connection().connection.dbapi_connection
    if isinstance(connection, PipeliningConnection):
        connection.execute_last(statement, arguments)
    else:  # the engine is not from build_engine
        _fetch(session, statement, arguments)
