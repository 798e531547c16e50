"""Runs a statement by asyncpg itself, in the session's own transaction, with SQLAlchemy's errors.

For a statement that every job runs: SQLAlchemy would take longer to prepare it than PostgreSQL to execute it.
"""

from typing import Any

import asyncpg
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


async def execute_by_driver(session: AsyncSession, statement: str, *arguments: Any) -> None:  # noqa: ANN401 - asyncpg's
    """Flush the session and execute a statement with asyncpg's ``$1``; it answers nothing. One round trip.

    If nothing was executed in the transaction yet, there is none on the server, and the statement commits by itself.

    Raises:
        IntegrityError: it violates a constraint.
        DBAPIError: it failed otherwise, or the connection is lost.
    """
    await session.run_sync(_execute, statement, arguments)


def _execute(session: Session, statement: str, arguments: tuple[Any, ...]) -> None:
    session.flush()
    connection = session.connection()
    driver: Any = connection.connection.dbapi_connection
    try:
        driver.run_async(lambda asyncpg_connection: asyncpg_connection.execute(statement, *arguments))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        if driver.driver_connection.is_closed():
            connection.invalidate(error)
        kind = IntegrityError if isinstance(error, asyncpg.IntegrityConstraintViolationError) else DBAPIError
        raise kind(None, None, error) from error
