"""Receipts: which jobs have taken effect, and what they answered. Knows neither payloads nor the queue."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, LargeBinary, Text, bindparam, column, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from db.tables import JobReceipt


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """That a job took effect."""

    job_id: str
    job_name: str
    request_hash: bytes
    result: dict[str, Any]
    attempt: int


_INSERT = (
    text("""
    WITH revived AS (DELETE FROM dead_jobs WHERE job_id = :job_id),
    written AS (
        INSERT INTO job_receipts (job_id, job_name, request_hash, result, attempt)
        SELECT :job_id, :job_name, :request_hash, :result, :attempt
        WHERE pg_current_xact_id_if_assigned() IS NOT NULL)
    SELECT job_id, job_name, request_hash, result, attempt FROM job_receipts WHERE job_id = :job_id
""")
    .bindparams(
        bindparam("job_id", type_=Text),
        bindparam("job_name", type_=Text),
        bindparam("request_hash", type_=LargeBinary),
        bindparam("result", type_=JSONB),
        bindparam("attempt", type_=Integer),
    )
    .columns(
        column("job_id", Text),
        column("job_name", Text),
        column("request_hash", LargeBinary),
        column("result", JSONB),
        column("attempt", Integer),
    )
)
"""A transaction that has written nothing has no id: a look-up needs no receipt, because it can simply be run again.
But a find-or-create that found what a twin of the same job created sees the twin's receipt here, and must answer it.

A dead letter of the job goes: it was retried, and is dead no more.

Without ON CONFLICT on purpose: a second owner's whole transaction must fail, its effect included."""


async def insert_receipt(session: AsyncSession, receipt: Receipt) -> Receipt:
    """Record that the job took effect, as the last statement of its transaction; return the receipt that counts.

    That is the given one, or that of an earlier run if this transaction has written nothing. One round trip.

    Raises:
        IntegrityError: ``job_receipts_pkey``, the job has taken effect already; everything must be rolled back.
    """
    await session.flush()
    connection = await session.connection()  # past the ORM, which would cost more than the statement
    earlier = (await connection.execute(_INSERT, vars(receipt))).one_or_none()
    return receipt if earlier is None else Receipt(**earlier._mapping)  # noqa: SLF001 - SQLAlchemy's public name


async def receipt_by_job_id(session: AsyncSession, job_id: str) -> Receipt | None:
    """Find a job's receipt. One round trip."""
    row = await session.get(JobReceipt, job_id)
    if row is None:
        return None
    return Receipt(
        job_id=row.job_id,
        job_name=row.job_name,
        request_hash=row.request_hash,
        result=row.result,
        attempt=row.attempt,
    )
