"""Receipts of arq's functions: that one has succeeded, and with what message. Knows no queue.

A function has its effect before its receipt is written, so it runs at least once, and never again once recorded.
"""

import hashlib
from base64 import b64decode, b64encode
from typing import NamedTuple

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.driver import fetch_by_driver
from arqonce.ledger.namespace import sql_for
from arqonce.ledger.recorded import receipt_by_job_id
from arqonce.wire.bounds import MAX_BYTES

_SHOWN = 100
"""Characters of a job's id with which the receipt's id begins."""


class Request(NamedTuple):
    """One job as it was enqueued. arq lets an id be used again; the message has the time, so it tells them apart."""

    job_id: str
    queue: str
    message: bytes

    @property
    def hash(self) -> bytes:
        """The hash of the message."""
        return hashlib.sha256(self.message).digest()

    @property
    def receipt_id(self) -> str:
        """The id of its receipt, which is no id of a registry's job."""
        place = f"{self.queue}\0{self.job_id}\0".encode(errors="surrogateescape")
        digest = hashlib.sha256(place + self.message).hexdigest()
        return f"{self.job_id[:_SHOWN]}@{digest[:32]}"


class Success(NamedTuple):
    """What a receipt says."""

    result: bytes | None
    """The message that answered the producer; ``None`` if none was kept, or if it was larger than 1 MiB."""


async def success_of(session: AsyncSession, request: Request) -> Success | None:
    """Return how the job has succeeded; ``None`` if it has no receipt. One round trip."""
    receipt = await receipt_by_job_id(session, request.receipt_id)
    if receipt is None:
        return None
    text = (receipt.result or {}).get("message")
    return Success(b64decode(text) if isinstance(text, str) else None)


_LETTER = "DELETE FROM arqonce.dead_jobs WHERE job_id = $2 AND (request_hash = $1 OR sha256(message) = $1)"


async def delete_letter(session: AsyncSession, request: Request) -> None:
    """Delete the dead letter of the job, if there is one. One round trip."""
    await fetch_by_driver(session, sql_for(session, _LETTER), request.hash, request.job_id)


_INSERT = f"""
    WITH revived AS ({_LETTER})
    INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt)
    VALUES ($3, $4, $1, $5::jsonb, $6)
    ON CONFLICT (job_id) DO NOTHING RETURNING job_id
"""  # noqa: S608 - the statement is a constant
"""Deletes the dead letter of a job that was retried."""


async def insert_success(
    session: AsyncSession, request: Request, *, job_name: str, attempt: int, success: Success
) -> bool:
    """Write the receipt of a job, unless it has one; return whether it was written. One round trip."""
    result = success.result
    kept = b64encode(result).decode() if result is not None and len(result) <= MAX_BYTES else None
    rows = await fetch_by_driver(
        session,
        sql_for(session, _INSERT),
        request.hash,
        request.job_id,
        request.receipt_id,
        job_name,
        to_json({"message": kept}).decode(),
        attempt,
    )
    return bool(rows)
