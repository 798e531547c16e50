"""What PostgreSQL knows of a job: how it has ended, that it is owed, or that it is dead. Knows no queue."""

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
    """What the job has answered, ``None`` if it has not, or has failed."""
    failure: dict[str, Any] | None
    """Why it has failed: a failure that its handler chose, or that of a dead letter."""
    is_dead: bool

    @property
    def status(self) -> JobStatus:
        """Where the job is: it has succeeded, has failed, or is promised."""
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
    """Find a job's receipt, else its promise, else its dead letter. One round trip.

    None is no proof: a job that was enqueued directly and has not ended leaves no trace, nor does a look-up.
    """
    row = (await session.execute(text_for(session, _TRACES), {"job_id": job_id})).first()
    return None if row is None else JobTrace(*row[:5])
