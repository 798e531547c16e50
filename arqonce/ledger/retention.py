"""Deletes rows whose retention is over, in small steps."""

from datetime import timedelta

from sqlalchemy import Interval, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import sql_for, text_for

STEP = 1000
"""Most rows that one statement deletes: some 10 ms, so that locks are short."""

_TABLES = {
    "receipts": ("job_id", "finished_at"),
    "dead_jobs": ("job_id", "died_at"),
    "unique_requests": ("name", "until"),
    "attempts": ("id", "failed_at"),
    "redis_losses": ("epoch", "noticed_at"),
    "audit": ("id", "at"),
}
"""By table, its key and the column that holds a row's age: indexed, but in ``redis_losses``, which has few rows."""

_LETTERS = """, letters AS (
        DELETE FROM arqonce.dead_jobs AS letter WHERE job_id = ANY (ARRAY(SELECT job_id FROM removed))
            AND (SELECT letter.request_hash IS NULL OR letter.request_hash = removed.request_hash
                FROM removed WHERE removed.job_id = letter.job_id))
"""
"""With a receipt goes the dead letter of the same request, which would then be listed, and could be retried.

Both are there if a receipt was about to commit, unseen, while the letter was written."""


async def delete_older(session: AsyncSession, table: str, age: timedelta) -> int:
    """Delete up to ``STEP`` of the oldest rows older than ``age``; return how many. One round trip.

    Concurrent calls do not wait for each other.
    """
    key, when = _TABLES[table]
    hashes, letters = (", request_hash", _LETTERS) if table == "receipts" else ("", "")
    sql = f"""
        WITH removed AS (
            DELETE FROM arqonce.{table} WHERE {key} IN (
                SELECT {key} FROM arqonce.{table} WHERE {when} < now() - :age
                ORDER BY {when} LIMIT {STEP} FOR UPDATE SKIP LOCKED)
            RETURNING {key}{hashes}){letters}
        SELECT count(*) FROM removed
    """  # noqa: S608 - the names are constants
    statement = text(sql_for(session, sql)).bindparams(bindparam("age", type_=Interval))
    return await session.scalar(statement, {"age": age}) or 0


_OVERTAKEN = """
    WITH overtaken AS (
        SELECT job_id FROM (
            SELECT job_id, request_hash FROM arqonce.dead_jobs WHERE died_at > now() - interval '1 hour'
            ORDER BY died_at DESC LIMIT 10000) AS latest
        WHERE (SELECT latest.request_hash IS NULL OR latest.request_hash = receipts.request_hash
            FROM arqonce.receipts WHERE receipts.job_id = latest.job_id))
    DELETE FROM arqonce.dead_jobs WHERE job_id IN (
        SELECT job_id FROM arqonce.dead_jobs WHERE job_id = ANY (ARRAY(SELECT job_id FROM overtaken))
        FOR UPDATE SKIP LOCKED)
    RETURNING job_id
"""


async def delete_overtaken(session: AsyncSession) -> int:
    """Delete letters of the last hour whose jobs took effect; return how many. One round trip.

    No list shows them, but all figures count them.
    """
    return len((await session.execute(text_for(session, text(_OVERTAKEN)))).all())
