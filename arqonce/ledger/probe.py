"""Tests whether a server can store a receipt."""

from uuid import uuid4

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.writability import require_writable, try_statement
from arqonce.ledger.tables import JobReceipt


async def require_written(session: AsyncSession) -> None:
    """Insert a row, which the caller rolls back; return if the server can write. Three round trips.

    A missing privilege and a missing or locked table are not faults of the server, and raise nothing.
    """
    await require_writable(session)
    row = {"job_id": f"probe:{uuid4()}", "job_name": "probe", "request_hash": b"", "result": {}, "attempt": 0}
    await try_statement(
        session, insert(JobReceipt).values(row)
    )  # unless a limit of temporary files has ended the transaction
