"""Counts jobs in the ledger for metrics. Bounded: what a figure costs must not grow with the tables."""

from typing import NamedTuple

from sqlalchemy import Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for

MOST = 100_000
"""Each figure is counted up to this: 10 to 30 ms in PostgreSQL."""


def overdue(queue: str, most: str) -> str:
    """Return how to count the promised jobs of a queue that a relay should have given to Redis 15 s ago.

    A relay looks every two seconds. What it could not write is due again at once, so that of a job that was never
    given, its promise counts. Of the jobs that are due, ``most`` are read, those first that are due for the longest: a
    million that have just been promised must not be read to find that none of them is late.
    """
    return f"""(SELECT count(*) FILTER (WHERE give_at < now() - interval '15 s'
            OR dispatches = 0 AND greatest(created_at, due_at) < now() - interval '15 s')
        FROM (SELECT give_at, dispatches, created_at, due_at FROM arqonce.outbox AS job
            WHERE job.queue = {queue} AND give_at <= now() ORDER BY give_at LIMIT {most}) AS due)"""  # noqa: S608 - constants


_COUNT = text(f"""
    SELECT
        (SELECT count(*) FROM (SELECT FROM arqonce.outbox WHERE queue = :queue LIMIT {MOST}) AS promised),
        {overdue(":queue", str(MOST))},
        (SELECT count(*) FROM (SELECT FROM arqonce.dead_jobs WHERE queue = :queue LIMIT {MOST}) AS dead),
        extract(epoch FROM clock_timestamp())::float8
""").bindparams(bindparam("queue", type_=Text))  # noqa: S608 - numbers are constants


class LedgerCounts(NamedTuple):
    """How many jobs of a queue there are, each up to ``MOST``."""

    promised: int
    overdue: int
    """Promised jobs that a relay should have given to Redis."""

    dead: int
    now: float
    """The server's time, in seconds since 1970."""


async def count_in_ledger(session: AsyncSession, queue: str) -> LedgerCounts:
    """Count the jobs of a queue. One round trip."""
    row = (await session.execute(text_for(session, _COUNT), {"queue": queue})).one()
    return LedgerCounts(*row)
