"""Asks a server whether a receipt could be written."""

from uuid import uuid4

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.writability import require_writable, try_statement
from arqonce.ledger.tables import JobReceipt


async def require_written(session: AsyncSession) -> None:
    """Return if the server takes a row, which the caller rolls back. Three round trips.

    A role that lacks the right, or a table that is missing or locked, says nothing against the server.
    """
    await require_writable(session)
    row = {"job_id": f"probe:{uuid4()}", "job_name": "probe", "request_hash": b"", "result": {}, "attempt": 0}
    await try_statement(
        session, insert(JobReceipt).values(row)
    )  # unless a limit of temporary files has ended the transaction
