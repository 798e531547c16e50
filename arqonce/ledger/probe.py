"""Tests whether a server can store a receipt."""

from types import MappingProxyType
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.faults import UnusableTableError, sqlstate_of
from arqonce.database.writability import faults_of_server, require_writable
from arqonce.ledger.receipts import Receipt, insert_receipts

_NOW = text("SELECT 1")
"""Executes what would otherwise be sent together with COMMIT."""

_UNUSABLE = MappingProxyType(
    {
        "42501": "its user may not write the tables of jobs: grant it what the command doctor names",
        "42P01": "a table of jobs is missing: apply the migrations with the command migrate",
        "3F000": "the schema of jobs is missing: apply the migrations with the command migrate",
        "55P03": "another transaction has locked a table of jobs: is a migration or VACUUM FULL running?",
    }
)
"""What no job can help: all would use up their attempts."""


async def require_written(session: AsyncSession) -> None:
    """Execute the statement that records a job's end; the caller rolls it back. Three round trips.

    Raises:
        UnusableTableError: a table of jobs is locked or missing, or the user may not write it.
        ReadOnlyServerError, DBAPIError: the server cannot be written to, or not be reached.
    """
    await require_writable(session)
    receipt = Receipt(f"probe:{uuid4()}", "probe", b"", 0, result={})
    with faults_of_server():  # unless a limit of temporary files has ended the transaction
        try:
            await insert_receipts(session, "probe", [receipt])
            await session.execute(_NOW)
        except DBAPIError as error:
            if reason := _UNUSABLE.get(sqlstate_of(error) or ""):
                raise UnusableTableError(reason) from error
            raise
