"""Removes receipts and dead letters that are older than they need to be, in small steps."""

from datetime import timedelta

from sqlalchemy import Interval, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import sql_for

STEP = 1000
"""Rows of one statement: some 10 ms, and short locks on rows that nobody wants any more."""

_TABLES = {"receipts": "finished_at", "dead_jobs": "died_at"}
"""The tables, and the column that says how old a row is. Both columns are indexed."""


async def delete_older(session: AsyncSession, table: str, age: timedelta) -> int:
    """Delete up to ``STEP`` of the oldest rows that are older than ``age``; return how many. One round trip.

    Several at once do not wait for each other.
    """
    when = _TABLES[table]
    sql = f"""
        DELETE FROM arqonce.{table} WHERE job_id IN (
            SELECT job_id FROM arqonce.{table} WHERE {when} < now() - :age
            ORDER BY {when} LIMIT {STEP} FOR UPDATE SKIP LOCKED)
        RETURNING job_id
    """  # noqa: S608 - both names are ours
    statement = text(sql_for(session, sql)).bindparams(bindparam("age", type_=Interval))
    removed = await session.execute(statement, {"age": age})
    return len(removed.all())
