"""Looks up a job in PostgreSQL: it has ended, is promised, or is dead. Knows no queue."""

from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.wire.status import JobStatus


class JobTrace(NamedTuple):
    """A job in one of the three tables."""

    job_name: str | None
    request_hash: bytes | None
    result: dict[str, Any] | None
    """The job's result; ``None`` if it has not ended, or has failed."""
    failure: dict[str, Any] | None
    """Why the job failed: a refusal, or the reason of its dead letter."""
    is_dead: bool

    @property
    def status(self) -> JobStatus:
        """The job's status: succeeded, failed or promised."""
        if self.failure is not None:
            return JobStatus.FAILED
        return JobStatus.PROMISED if self.result is None else JobStatus.SUCCEEDED


_TRACES = text("""
    SELECT job_name, request_hash, result, failure, false, 1 AS rank FROM arqonce.receipts WHERE job_id = :job_id
    UNION ALL SELECT job_name, request_hash, NULL, NULL, false, 2 FROM arqonce.outbox WHERE job_id = :job_id
    UNION ALL SELECT job_name, request_hash, NULL, jsonb_build_object('type', reason, 'message', explanation), true, 3
        FROM arqonce.dead_jobs WHERE job_id = :job_id
    ORDER BY rank LIMIT 1
""")


async def trace_by_job_id(session: AsyncSession, job_id: str) -> JobTrace | None:
    """Return a job's receipt, else its outbox row, else its dead letter. One round trip.

    ``None`` does not prove that there is no such job: one that was enqueued directly has no row before it ends, and a
    read-only job may have none at all.
    """
    row = (await session.execute(text_for(session, _TRACES), {"job_id": job_id})).first()
    return None if row is None else JobTrace(*row[:5])
