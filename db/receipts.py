"""Receipts: which jobs have taken effect, and what they answered. Knows neither payloads nor the queue."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, LargeBinary, Text, bindparam, select, text
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


_INSERT = text("""
    WITH written AS (
        INSERT INTO job_receipts (job_id, job_name, request_hash, result, attempt)
        SELECT :job_id, :job_name, :request_hash, :result, :attempt
        WHERE pg_current_xact_id_if_assigned() IS NOT NULL)
    SELECT job_id, job_name, request_hash, result, attempt FROM job_receipts WHERE job_id = :job_id
""").bindparams(
    bindparam("job_id", type_=Text),
    bindparam("job_name", type_=Text),
    bindparam("request_hash", type_=LargeBinary),
    bindparam("result", type_=JSONB),
    bindparam("attempt", type_=Integer),
)
"""A transaction that has written nothing has no id: a look-up needs no receipt, because it can simply be run again.
But a find-or-create that found what a twin of the same job created sees the twin's receipt here, and must answer it.

Without ON CONFLICT on purpose: a second owner's whole transaction must fail, its effect included."""


async def insert_receipt(session: AsyncSession, receipt: Receipt) -> Receipt:
    """Record that the job took effect, as the last statement of its transaction; return the receipt that counts.

    That is the given one, or that of an earlier run if this transaction has written nothing. One round trip.

    Raises:
        IntegrityError: ``job_receipts_pkey``, the job has taken effect already; everything must be rolled back.
    """
    await session.flush()
    earlier = (await session.execute(_INSERT.columns(*_COLUMNS), vars(receipt))).one_or_none()
    return receipt if earlier is None else Receipt(**earlier._mapping)  # noqa: SLF001 - SQLAlchemy's public name


async def receipt_by_job_id(session: AsyncSession, job_id: str) -> Receipt | None:
    """Find a job's receipt. One round trip."""
    row = (await session.execute(select(*_COLUMNS).where(JobReceipt.job_id == job_id))).one_or_none()
    return None if row is None else Receipt(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name


_COLUMNS = (
    JobReceipt.job_id,
    JobReceipt.job_name,
    JobReceipt.request_hash,
    JobReceipt.result,
    JobReceipt.attempt,
)
