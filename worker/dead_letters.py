"""Decides which failures become dead letters, and writes them. A dead letter wants a person; an answer does not."""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.dead_jobs import DeadLetter, insert_dead_letter
from db.faults import sqlstate_of
from jobs.failures import (
    AttemptsExhaustedError,
    ConstraintViolatedError,
    DatabaseFailedError,
    DeadlineExceededError,
    InvalidPayloadError,
    JobFailedError,
    MalformedMessageError,
    MessageMissingError,
    UnknownJobError,
    failure_to_wire,
)
from worker.diagnosis import diagnose

_UNEXPECTED = (
    MalformedMessageError,
    MessageMissingError,
    UnknownJobError,
    InvalidPayloadError,
    ConstraintViolatedError,
    DatabaseFailedError,
    DeadlineExceededError,
    AttemptsExhaustedError,
)
"""Failures that no handler has chosen as its answer."""

_WRITE_LIMIT = timedelta(seconds=3)
"""Longest wait for the record. It comes on top of the job's deadline, and arq ends the job 5 s after that."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("worker.dead_letters")


def is_dead(failure: Exception) -> bool:
    """Say whether a final failure is a dead letter.

    It is not if a handler or the registry has chosen it: an e-mail that is taken is an answer to the producer.
    """
    return not isinstance(failure, JobFailedError) or isinstance(failure, _UNEXPECTED)


def write_letter(  # noqa: PLR0913 - the facts of the letter
    failure: Exception, cause: BaseException, *, job_id: str, job_name: str | None, message: bytes, attempts: int
) -> DeadLetter:
    """Say in a dead letter what the job was asked and why it ended."""
    told = failure_to_wire(failure)
    return DeadLetter(
        job_id=job_id,
        job_name=job_name,
        message=message,
        reason=told["type"],
        explanation=told["message"],
        error=diagnose(cause),
        sqlstate=sqlstate_of(cause),
        attempts=attempts,
    )


async def bury(sessions: async_sessionmaker[AsyncSession], letter: DeadLetter) -> None:
    """Record the dead letter in a transaction of its own, unless the job has taken effect meanwhile.

    Raises:
        TimeoutError: the database did not answer.
        SQLAlchemyError: it could not be written; the job must be delivered again.
    """
    async with asyncio.timeout(_WRITE_LIMIT.total_seconds()), sessions.begin() as session:
        if await insert_dead_letter(session, letter):
            _log.error("job is dead", job_id=letter.job_id, job_name=letter.job_name, reason=letter.reason)
