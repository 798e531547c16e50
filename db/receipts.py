"""Receipts: which jobs have ended with an answer, and with which. Knows neither payloads nor the queue."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, Integer, LargeBinary, Text, bindparam, column, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from db.tables import JobReceipt


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """That a job has ended: with a ``result``, which took effect, or with a ``failure``, which did not."""

    job_id: str
    job_name: str
    request_hash: bytes
    result: dict[str, Any] | None = None
    failure: dict[str, str] | None = None
    attempt: int


_JSON = JSONB(none_as_null=True)

_INSERT = (
    text("""
    WITH owed AS (SELECT FROM job_outbox WHERE job_id = :job_id AND job_name = :job_name),
    dead AS (
        SELECT job_id FROM dead_jobs
        WHERE job_id = :job_id AND (request_hash IS NULL OR request_hash = :request_hash)),
    kept AS (
        DELETE FROM job_outbox WHERE job_id = :job_id AND job_name = :job_name AND request_hash = :request_hash),
    revived AS (DELETE FROM dead_jobs WHERE job_id IN (SELECT job_id FROM dead)),
    written AS (
        INSERT INTO job_receipts (job_id, job_name, request_hash, result, failure, attempt)
        SELECT :job_id, :job_name, :request_hash, :result, :failure, :attempt
        WHERE :always OR pg_current_xact_id_if_assigned() IS NOT NULL
            OR EXISTS (SELECT FROM owed) OR EXISTS (SELECT FROM dead))
    SELECT job_id, job_name, request_hash, result, failure, attempt FROM job_receipts WHERE job_id = :job_id
""")
    .bindparams(
        bindparam("job_id", type_=Text),
        bindparam("job_name", type_=Text),
        bindparam("request_hash", type_=LargeBinary),
        bindparam("result", type_=_JSON),
        bindparam("failure", type_=_JSON),
        bindparam("attempt", type_=Integer),
        bindparam("always", type_=Boolean),
    )
    .columns(
        column("job_id", Text),
        column("job_name", Text),
        column("request_hash", LargeBinary),
        column("result", _JSON),
        column("failure", _JSON),
        column("attempt", Integer),
    )
)
"""A transaction that has written nothing has no id: a look-up needs no receipt, because it can simply be run again.
But a find-or-create that found what a twin of the same job created sees the twin's receipt here, and must answer it.

A promise is kept by this: its row goes, unless it is another request with the same id. A look-up that was promised, or
was dead, gets a receipt as well, so that each such job is always in one of the three tables. That is decided by what
the statement sees, not by what it deletes: of two owners at once, the second finds its row gone and must still fail.

A dead letter of the same request goes: it was retried, and is dead no more. That of another one stays.

Without ON CONFLICT on purpose: a second owner's whole transaction must fail, its effect included."""


async def insert_receipt(session: AsyncSession, receipt: Receipt) -> Receipt:
    """Record how the job ended, as the last statement of its transaction; return the receipt that counts.

    That is the given one, or that of an earlier run if this transaction has written nothing. A failure is always
    written, in a transaction without effect. Settles the job's row in the outbox. One round trip.

    Raises:
        IntegrityError: ``job_receipts_pkey``, the job has ended already; everything must be rolled back.
    """
    await session.flush()
    connection = await session.connection()  # past the ORM, which would cost more than the statement
    parameters = vars(receipt) | {"always": receipt.failure is not None}
    earlier = (await connection.execute(_INSERT, parameters)).one_or_none()
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
        failure=row.failure,
        attempt=row.attempt,
    )


async def request_hash_by_job_id(session: AsyncSession, job_id: str) -> bytes | None:
    """Return which request has ended under this id, ``None`` if none has. One round trip."""
    found: bytes | None = await session.scalar(select(JobReceipt.request_hash).where(JobReceipt.job_id == job_id))
    return found
