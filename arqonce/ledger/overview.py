"""What the ledger's tables say of all jobs together. Bounded: no figure costs more because the tables are larger."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.failures import UnknownJobError
from arqonce.ledger.figures import overdue
from arqonce.ledger.namespace import text_for

MOST_READ = 5_000
"""Most rows that are read for one figure, the latest first: 2 ms in PostgreSQL."""

_MOST_PROMISED = 10_000
"""Promised jobs that are counted, those of all queues together."""

MOST_QUEUES = 20
"""Queues whose promised jobs are counted. One more is looked for, so that it is known whether there are more."""


class PromisedIn(NamedTuple):
    """Jobs of a queue that are promised and have not ended, each figure up to the queue's part of 10,000."""

    queue: str
    promised: int
    overdue: int
    """Those that a relay should have given to Redis."""

    is_more: bool
    """Whether there are more than were counted."""


PROMISED_QUEUES = f"""
    WITH RECURSIVE queues AS (
        (SELECT queue, 1 AS number FROM arqonce.outbox ORDER BY queue LIMIT 1)
        UNION ALL SELECT (
            SELECT job.queue FROM arqonce.outbox AS job WHERE job.queue > queues.queue ORDER BY job.queue LIMIT 1),
            number + 1
        FROM queues WHERE queues.queue IS NOT NULL AND number <= {MOST_QUEUES}),
    each AS (SELECT {_MOST_PROMISED} / greatest(count(queue), 1) AS most FROM queues)
"""  # noqa: S608 - numbers are constants
"""The first 21 queues with promised jobs, by an index, and how many jobs of each may be read. A last one is NULL."""

_PROMISED = text(f"""
    {PROMISED_QUEUES}
    SELECT queue,
        (SELECT count(*) FROM (SELECT FROM arqonce.outbox AS job
            WHERE job.queue = queues.queue ORDER BY give_at LIMIT (SELECT most FROM each)) AS promised),
        {overdue("queues.queue", "(SELECT most FROM each)")}, most
    FROM queues, each WHERE queue IS NOT NULL
""")  # noqa: S608 - numbers are constants


async def promised_by_queue(session: AsyncSession) -> Sequence[PromisedIn]:
    """Count promised jobs in the first 21 queues that have any. One round trip."""
    found = await session.execute(text_for(session, _PROMISED))
    return [PromisedIn(queue, promised, overdue, promised >= most) for queue, promised, overdue, most in found]


class Estimates(NamedTuple):
    """About how many rows tables have, where too many were counted to count them all; ``None``: that is not known."""

    promised: int | None
    dead: int | None


def _estimated(table: str) -> str:
    return f"""(SELECT reltuples / relpages * pg_relation_size(oid) / current_setting('block_size')::int
        FROM pg_class WHERE oid = to_regclass('arqonce.{table}') AND reltuples > 0 AND relpages > 0)::bigint"""  # noqa: S608 - a constant


_ESTIMATES = text(f"SELECT {_estimated('outbox')}, {_estimated('dead_jobs')}")
"""As PostgreSQL's planner does: by the rows of a page when the table was last analyzed, and its pages of now."""


async def estimate(session: AsyncSession) -> Estimates:
    """Return about how many jobs are promised, and how many dead letters there are. One round trip."""
    return Estimates(*(await session.execute(text_for(session, _ESTIMATES))).one())


class DeadBy(NamedTuple):
    """Dead letters of one kind with the same reason."""

    job_name: str
    """Empty if the letter names none, or one that is no job's: whoever writes into Redis chooses that."""

    reason: str
    letters: int
    last_hour: int

    @property
    def name(self) -> str:
        """Kind and reason."""
        return f"{self.job_name} {self.reason}".strip()


_DEAD = text(f"""
    SELECT CASE WHEN reason = '{UnknownJobError.code}' THEN '' ELSE coalesce(job_name, '') END, reason, count(*),
        count(*) FILTER (WHERE died_at > now() - interval '1 h')
    FROM (SELECT job_name, reason, died_at FROM arqonce.dead_jobs ORDER BY died_at DESC LIMIT {MOST_READ}) AS latest
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
""")  # noqa: S608 - number and reason are constants


async def dead_by_kind(session: AsyncSession) -> Sequence[DeadBy]:
    """Count the latest dead letters, up to ``MOST_READ``, by kind and reason. One round trip."""
    return [DeadBy(*row) for row in await session.execute(text_for(session, _DEAD))]


class Done(NamedTuple):
    """Jobs of one kind that have ended with a receipt of late."""

    job_name: str
    per_second: float
    refused: int
    """How many of those that were read have ended with a refusal."""


_DONE = text(f"""
    WITH latest AS MATERIALIZED (
        SELECT job_name, finished_at, failure IS NOT NULL AS is_refused FROM arqonce.receipts
        WHERE finished_at > now() - interval '1 min' ORDER BY finished_at DESC LIMIT {MOST_READ}),
    span AS (SELECT CASE WHEN count(*) < {MOST_READ} THEN 60.0
        ELSE greatest(extract(epoch FROM now() - min(finished_at)), 0.001) END AS seconds FROM latest)
    SELECT job_name, (count(*) / min(seconds))::float8, count(*) FILTER (WHERE is_refused)
    FROM latest, span GROUP BY job_name ORDER BY 2 DESC, 1
""")  # noqa: S608 - the number is a constant


async def done_by_kind(session: AsyncSession) -> Sequence[Done]:
    """Return how many jobs a second of each kind have ended in the last minute, or with the last ``MOST_READ``.

    One round trip. Read-only jobs have no receipt, and are not among them.
    """
    return [Done(*row) for row in await session.execute(text_for(session, _DONE))]


class FailedBy(NamedTuple):
    """Attempts of one kind of the last hour that failed for the same reason."""

    job_name: str
    code: str
    attempts: int

    @property
    def name(self) -> str:
        """Kind and code."""
        return f"{self.job_name} {self.code}"


_FAILED = text(f"""
    SELECT job_name, code, count(*)
    FROM (SELECT job_name, code FROM arqonce.attempts WHERE failed_at > now() - interval '1 h'
          ORDER BY failed_at DESC LIMIT {MOST_READ}) AS latest
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
""")  # noqa: S608 - the number is a constant


async def failed_by_kind(session: AsyncSession) -> Sequence[FailedBy]:
    """Count the failed attempts of the last hour, up to ``MOST_READ``, by kind and code. One round trip."""
    return [FailedBy(*row) for row in await session.execute(text_for(session, _FAILED))]
