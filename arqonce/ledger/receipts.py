"""Receipts: which jobs have ended, and with which result or failure. Knows neither payloads nor the queue."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.driver import execute_last
from arqonce.ledger.namespace import sql_for


class Receipt(NamedTuple):
    """The record that a job has ended: with a ``result`` and an effect, or with a ``failure`` and no effect."""

    job_id: str
    job_name: str
    request_hash: bytes
    attempt: int
    result: dict[str, Any] | None = None
    failure: dict[str, str] | None = None
    result_json: str | None = None
    """The result as JSON text, if it is serialized already."""


_ONE = "(VALUES ($1::text, $2::bytea, $3::text, $4::text, $5::integer))"
_MANY = "unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::integer[])"
"""Row sources for one job and for many. PostgreSQL plans anew for each array, which takes longer than to insert one."""

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
"""A job that may have an effect always gets a receipt, even if it has written nothing to PostgreSQL's tables: NOTIFY,
sequences and other servers assign no transaction id.

Deletes the job's outbox row, unless that is another request with the same id.

Deletes a dead letter of the same request, which was retried. A dead letter of another request stays.

Uses a subquery for each job instead of joins: a plan made while the tables were empty would later scan them whole.

Has no ON CONFLICT on purpose: a second worker's whole transaction must fail, its effect included. Inserts in the order
of ids, so that two workers with the same jobs wait for each other and do not deadlock."""

_IF_OWED = """WHERE failure IS NOT NULL OR keeps IS NOT NULL OR revives
        OR (SELECT true FROM arqonce.receipts WHERE receipts.job_id = job.job_id)"""
"""A read-only job needs no receipt, because it can be run again. But if it has one already, the insert must fail, so
that the job returns the recorded result.

A job that was promised or dead gets a receipt, too, so that each such job is always in one of the three tables. The
statement decides this by the rows it sees, not by the rows it deletes: of two concurrent workers, the second deletes
nothing and must still fail."""


_STATEMENTS = {
    (is_one, reads_only): _INSERT.format(jobs=_ONE if is_one else _MANY, which=_IF_OWED if reads_only else "")
    for is_one in (True, False)
    for reads_only in (True, False)
}


async def insert_receipts(
    session: AsyncSession, job_name: str, receipts: Sequence[Receipt], *, reads_only: bool = False
) -> None:
    """Record how jobs of one kind ended, as the last statement of their transaction; it is sent together with COMMIT.

    Deletes the jobs' outbox rows. Writes no result for a job that ``reads_only``, unless it was promised or dead.

    Raises:
        IntegrityError: by COMMIT, ``receipts_pkey``: one of the jobs has already ended, and everything is rolled back.
    """
    if not receipts:
        return
    columns = (
        [receipt.job_id for receipt in receipts],
        [receipt.request_hash for receipt in receipts],
        [receipt.result_json or _json(receipt.result) for receipt in receipts],
        [None if receipt.failure is None else _json(receipt.failure) for receipt in receipts],
        [receipt.attempt for receipt in receipts],
    )
    statement = sql_for(session, _STATEMENTS[len(receipts) == 1, reads_only])
    if len(receipts) == 1:
        await execute_last(session, statement, *(column[0] for column in columns), job_name)
    else:
        await execute_last(session, statement, *columns, job_name)


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else to_json(value).decode()
