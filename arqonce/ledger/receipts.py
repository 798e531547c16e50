"""Receipts: which jobs have ended with an answer, and with which. Knows neither payloads nor the queue."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy import delete, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.driver import execute_last
from arqonce.database.faults import is_transient
from arqonce.ledger.namespace import sql_for, text_for
from arqonce.ledger.tables import JobReceipt


class Receipt(NamedTuple):
    """That a job has ended: with a ``result``, which took effect, or with a ``failure``, which did not."""

    job_id: str
    job_name: str
    request_hash: bytes
    attempt: int
    result: dict[str, Any] | None = None
    failure: dict[str, str] | None = None
    result_json: str | None = None
    """The result as it is stored, where it has been written already."""


_ONE = "(VALUES ($1::text, $2::bytea, $3::text, $4::text, $5::integer))"
_MANY = "unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::integer[])"
"""Where the jobs come from. PostgreSQL would plan anew for each array, which takes longer than to insert one row."""

_INSERT = """
    WITH job AS MATERIALIZED (
        SELECT job.*,
            (SELECT outbox.request_hash = job.request_hash FROM arqonce.outbox
             WHERE outbox.job_id = job.job_id AND job_name = $6) AS keeps,
            (SELECT true FROM arqonce.dead_jobs
             WHERE dead_jobs.job_id = job.job_id
                AND (dead_jobs.request_hash IS NULL OR dead_jobs.request_hash = job.request_hash)) AS revives
        FROM {jobs} AS job (job_id, request_hash, result, failure, attempt)),
    kept AS (
        DELETE FROM arqonce.outbox
        WHERE (SELECT bool_or(keeps) FROM job) AND job_name = $6
            AND job_id = ANY (ARRAY(SELECT job_id FROM job WHERE keeps))),
    revived AS (
        DELETE FROM arqonce.dead_jobs
        WHERE (SELECT bool_or(revives) FROM job) AND job_id = ANY (ARRAY(SELECT job_id FROM job WHERE revives)))
    INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, failure, attempt)
    SELECT job_id, $6, request_hash, result::jsonb, failure::jsonb, attempt FROM job
    {which}
    ORDER BY job_id
"""
"""Of a job that may have an effect the receipt is always written, whether PostgreSQL counts the effect or not: NOTIFY,
sequences and other servers do not number a transaction.

A promise is kept by this: its row goes, unless it is another request with the same id.

A dead letter of the same request goes: it was retried, and is dead no more. That of another one stays.

Subqueries for each job, and no joins: a plan that was made while the tables were empty would read them whole later.

Without ON CONFLICT on purpose: a second owner's whole transaction must fail, its effect included. In the order of the
ids, so that two owners of the same jobs wait for each other and do not deadlock."""

_IF_OWED = """WHERE failure IS NOT NULL OR keeps IS NOT NULL OR revives
        OR (SELECT true FROM arqonce.receipts WHERE receipts.job_id = job.job_id)"""
"""A job that only reads needs no receipt, because it can simply be run again. But one that ended before with a receipt
must answer from it.

One that was promised, or was dead, gets a receipt as well, so that each such job is always in one of the three tables.
That is decided by what the statement sees, not by what it deletes: of two owners at once, the second finds its row gone
and must still fail."""


_STATEMENTS = {
    (is_one, reads_only): _INSERT.format(jobs=_ONE if is_one else _MANY, which=_IF_OWED if reads_only else "")
    for is_one in (True, False)
    for reads_only in (True, False)
}


async def insert_receipts(
    session: AsyncSession, job_name: str, receipts: Sequence[Receipt], *, reads_only: bool = False
) -> None:
    """Record how jobs of one kind ended, as the last statement of their transaction: it goes with COMMIT.

    Writes no result for a job that ``reads_only``, unless it was owed or dead. Settles the jobs' rows in the outbox.

    Raises:
        IntegrityError: by COMMIT, ``receipts_pkey``: one of the jobs has ended already, everything is rolled back.
    """
    rows = [(r.job_id, r.request_hash, r.result_json or _json(r.result), _json(r.failure), r.attempt) for r in receipts]
    if not rows:
        return
    statement = sql_for(session, _STATEMENTS[len(rows) == 1, reads_only])
    if len(rows) == 1:
        await execute_last(session, statement, *rows[0], job_name)
    else:
        await execute_last(session, statement, *map(list, zip(*rows, strict=True)), job_name)


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else to_json(value).decode()


async def ended_jobs(session: AsyncSession, job_ids: Collection[str]) -> set[str]:
    """Return which of these jobs have a receipt. One round trip."""
    found = await session.scalars(select(JobReceipt.job_id).where(JobReceipt.job_id.in_(job_ids)))
    return set(found)


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


_RESERVE = text("""
    INSERT INTO arqonce.receipts (job_id, job_name, request_hash, failure, attempt) VALUES (:job_id, '', '', '{}', 0)
    ON CONFLICT (job_id) DO NOTHING RETURNING job_id
""")


async def outwait_receipt(session: AsyncSession, job_id: str) -> None:
    """Wait until no other transaction is about to commit a receipt of the job, and keep others from it until our end.

    A commit whose client has given up may still be under way. It has inserted its row, so an insert of the same key
    waits for its end. If the database refuses the insert for good, there are no receipts to wait for. Four round trips.
    """
    try:
        async with session.begin_nested():
            if (await session.scalars(text_for(session, _RESERVE), {"job_id": job_id})).one_or_none() is not None:
                await session.execute(delete(JobReceipt).where(JobReceipt.job_id == job_id))
    except DBAPIError as error:
        if is_transient(error):
            raise


async def request_hash_by_job_id(session: AsyncSession, job_id: str) -> bytes | None:
    """Return which request has ended under this id, ``None`` if none has. One round trip."""
    found: bytes | None = await session.scalar(select(JobReceipt.request_hash).where(JobReceipt.job_id == job_id))
    return found
