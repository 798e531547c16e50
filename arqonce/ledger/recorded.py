"""Looks for receipts: whether jobs have ended, with what, and whether one is about to be committed."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import delete, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.faults import is_transient
from arqonce.ledger.namespace import text_for
from arqonce.ledger.receipts import Receipt
from arqonce.ledger.tables import JobReceipt, PromisedJob


class EndedJobs(NamedTuple):
    """Which jobs have ended."""

    receipts: Mapping[str, Receipt]
    promised: Collection[str]
    """Those of them that the outbox has, too."""


async def ended_jobs(session: AsyncSession, job_ids: Collection[str]) -> EndedJobs:
    """Return the receipts of these jobs. One round trip, two if there are any."""
    found = await session.scalars(select(JobReceipt).where(JobReceipt.job_id.in_(job_ids)))
    receipts = {row.job_id: _receipt_in(row) for row in found}
    if not receipts:
        return EndedJobs({}, ())
    promised = select(PromisedJob.job_id).where(PromisedJob.job_id.in_(receipts))
    return EndedJobs(receipts, set(await session.scalars(promised)))


async def receipt_by_job_id(session: AsyncSession, job_id: str) -> Receipt | None:
    """Return a job's receipt; ``None`` if it has none. One round trip."""
    row = await session.get(JobReceipt, job_id)
    return None if row is None else _receipt_in(row)


def _receipt_in(row: JobReceipt) -> Receipt:
    return Receipt(
        job_id=row.job_id,
        job_name=row.job_name,
        request_hash=row.request_hash,
        result=row.result,
        failure=row.failure,
        attempt=row.attempt,
    )


async def request_hash_by_job_id(session: AsyncSession, job_id: str) -> bytes | None:
    """Return the request hash of the job's receipt; ``None`` if it has none. One round trip."""
    found: bytes | None = await session.scalar(select(JobReceipt.request_hash).where(JobReceipt.job_id == job_id))
    return found


_RESERVE = text("""
    INSERT INTO arqonce.receipts (job_id, job_name, request_hash, failure, attempt)
    SELECT job_id, '', '', '{}', 0 FROM unnest(CAST(:job_ids AS text[])) AS job (job_id) ORDER BY job_id
    ON CONFLICT (job_id) DO NOTHING RETURNING job_id
""")


async def outwait_receipts(session: AsyncSession, job_ids: Collection[str]) -> None:
    """Wait for transactions that are about to commit receipts of the jobs; block new ones until ours ends.

    A commit may still be under way after its client has gone. It has inserted its row, so an insert of the same key
    waits for it. If the database rejects the insert permanently, no receipt can be under way. Four round trips.
    """
    try:
        async with session.begin_nested():
            reserved = (await session.scalars(text_for(session, _RESERVE), {"job_ids": list(job_ids)})).all()
            if reserved:
                await session.execute(delete(JobReceipt).where(JobReceipt.job_id.in_(reserved)))
    except DBAPIError as error:
        if is_transient(error):
            raise
