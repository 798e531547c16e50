"""Decides which failures become dead letters, and writes them. A dead letter needs a person; a refusal does not."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.faults import is_transient, sqlstate_of
from arqonce.execution.diagnosis import diagnose
from arqonce.execution.same_request import is_same_request
from arqonce.failures import JobFailedError, RequestConflictError, failure_to_wire
from arqonce.ledger.attempts import FailedAttempt, insert_attempts
from arqonce.ledger.dead_jobs import DeadLetter, insert_dead_letter, insert_new_dead_letters, lock_dead_job
from arqonce.ledger.outbox import delete_promise, lock_promise
from arqonce.ledger.recorded import outwait_receipts, request_hash_by_job_id
from arqonce.wire.keys import conflict_id

WRITE_LIMIT = timedelta(seconds=3)
"""Longest write of a dead letter. It is added to the job's deadline."""

_WAIT_SHORTLY = text("SET LOCAL lock_timeout = 250")
"""In milliseconds: a commit under way that takes longer holds up the letter of its own job alone (``bury``)."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.dead_letters")


def is_dead(failure: Exception) -> bool:
    """Return whether a final failure becomes a dead letter.

    A failure that a handler or the registry chose does not: "this e-mail is taken" is an answer to the producer.
    """
    return not isinstance(failure, JobFailedError) or failure.is_dead_letter


def write_letter(  # noqa: PLR0913 - the facts of the letter
    failure: Exception,
    cause: BaseException,
    *,
    job_id: str,
    job_name: str | None,
    message: bytes,
    attempts: int,
    queue: str,
    request_hash: bytes | None = None,
) -> DeadLetter:
    """Build a dead letter: the job's message and the reason for its failure."""
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
        queue=queue,
        request_hash=request_hash,
    )


async def bury(
    sessions: async_sessionmaker[AsyncSession],
    letter: DeadLetter,
    *,
    has_run: bool = False,
    attempt: FailedAttempt | None = None,
) -> bool:
    """Record the dead letter in its own transaction, unless the job has a receipt; return whether it was recorded.

    With it goes the record of the last ``attempt``, which takes three round trips more.

    Deletes the job's outbox row. If an outbox row, a receipt or a dead letter of another request has the same id, this
    letter gets another id (``conflict_id``) and that row stays. If the message was missing in Redis (``message`` is
    empty) and any row with the id exists, records nothing. Five to six round trips. If the job ``has_run``, one of its
    attempts may still be about to commit; waiting for it costs four more.

    Raises:
        TimeoutError: the database did not answer.
        SQLAlchemyError: the letter could not be written; the job must be delivered again.
    """
    async with asyncio.timeout(WRITE_LIMIT.total_seconds()), sessions.begin() as session:
        promise = await lock_promise(session, letter.job_id)
        if has_run:
            await outwait_receipts(session, [letter.job_id])
        earlier = await lock_dead_job(session, letter.job_id)
        ended = await request_hash_by_job_id(session, letter.job_id)
        if not letter.message and (promise or earlier or ended):
            return False
        is_promised = promise is not None and is_same_request(letter, promise)
        if promise is not None and is_promised:
            await delete_promise(session, letter.job_id)
            letter = replace(letter, request_hash=promise.request_hash)
        is_anothers = (
            (promise is not None and not is_promised)
            or (earlier is not None and not is_same_request(letter, earlier))
            or (ended is not None and ended != letter.request_hash)
        )
        if is_anothers or letter.reason == RequestConflictError.code:
            letter = _under_another_id(letter)
        is_recorded = await insert_dead_letter(session, letter)
        if is_recorded and attempt is not None:
            await _insert_attempts(session, [attempt._replace(job_id=letter.job_id)])
    if is_recorded:
        _log.error("job is dead", job_id=letter.job_id, job_name=letter.job_name, reason=letter.reason)
    return is_recorded


async def _insert_attempts(session: AsyncSession, attempts: Sequence[FailedAttempt]) -> None:
    """Record attempts, if that is possible: the letters matter more."""
    try:
        async with session.begin_nested():
            await insert_attempts(session, attempts)
    except DBAPIError as error:
        if is_transient(error):
            raise
        _log.warning("failed attempts are not on record", count=len(attempts), reason=diagnose(error))


async def bury_together(
    sessions: async_sessionmaker[AsyncSession],
    letters: Sequence[DeadLetter],
    *,
    have_run: bool = False,
    attempts: Sequence[FailedAttempt] = (),
) -> set[str]:
    """Record the letters of jobs of which no table has another request, each once; return the ids of these jobs.

    With them go their last ``attempts``, which takes three round trips more, and their outbox rows are deleted. An
    earlier letter of the same request is replaced. Letters of conflicts get other ids, as ``bury`` does it. The others
    need a look each (``bury``). Two round trips; five more if the jobs ``have_run``.

    Raises:
        TimeoutError: the database did not answer.
        SQLAlchemyError: no letter could be written.
    """
    if not letters:
        return set()
    stored = {
        letter.job_id: _under_another_id(letter) if letter.reason == RequestConflictError.code else letter
        for letter in letters
    }
    async with asyncio.timeout(WRITE_LIMIT.total_seconds()), sessions.begin() as session:
        if have_run:
            await session.execute(_WAIT_SHORTLY)
            await outwait_receipts(session, list(stored))
        written = await insert_new_dead_letters(session, stored)
        recorded = {job_id: letter for job_id, letter in stored.items() if letter.job_id in written}
        of_these = [one._replace(job_id=recorded[one.job_id].job_id) for one in attempts if one.job_id in recorded]
        if of_these:
            await _insert_attempts(session, of_these)
    for letter in recorded.values():
        _log.error("job is dead", job_id=letter.job_id, job_name=letter.job_name, reason=letter.reason)
    return set(recorded)


def _under_another_id(letter: DeadLetter) -> DeadLetter:
    request = letter.request_hash or hashlib.sha256(letter.message).digest()
    return replace(letter, job_id=conflict_id(letter.job_id, request))
