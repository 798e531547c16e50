"""Ends jobs that cannot be run, on record: their message is malformed or missing, or names no job of the registry."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import structlog

from arqonce.execution.attempt import Dispatcher
from arqonce.execution.dead_letters import write_letter
from arqonce.execution.verdict import RetryLater
from arqonce.failures import InvalidMessageError, JobFailedError, UnknownJobError
from arqonce.ledger.dead_jobs import DeadLetter
from arqonce.spec import Registry
from arqonce.wire.bounds import MAX_BYTES, is_name
from arqonce.wire.message import read_message

UNTIL_SENT_AGAIN = timedelta(seconds=5)
"""How often to check whether the relay has sent again a promised job whose message Redis has lost."""

GONE = (
    "there is no message at arq:job:<id> of this job: it was never written there, it had expired, or somebody has "
    "deleted it"
)

_NOT_HERE = (
    "A job needs a line in the registry of the worker's own version; those of another project come with its registry "
    "in WORKER_REGISTRY"
)

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.refusals")


class Refused(NamedTuple):
    """A job that cannot be run."""

    failure: JobFailedError
    job_id: str
    message: bytes
    attempt: int
    queue: str | None = None
    """Where it came from; ``None`` is the dispatcher's queue."""


async def refuse(dispatcher: Dispatcher, job: Refused) -> dict[str, Any]:
    """Write the dead letter of a job that cannot be run; return its result if it has ended before.

    Raises:
        JobFailedError: the refusal; or, if the job has failed before, that failure.
        RetryLater: it could not be recorded, or the job was promised: the relay sends it again.
    """
    _log.warning("job refused", job_id=job.job_id, reason=job.failure.code)
    if await dispatcher.record.bury(_letter(dispatcher, job)):
        raise job.failure
    answer = await dispatcher.record.answer_on_record(job.job_id, job.attempt)
    if answer is None:
        raise RetryLater(UNTIL_SENT_AGAIN, counts=False)
    return answer


async def refuse_together(dispatcher: Dispatcher, jobs: Sequence[Refused]) -> set[str]:
    """Write the dead letters of many; return the ids of those that were written. The others need a look each.

    Raises:
        RetryLater: none could be recorded.
    """
    recorded = await dispatcher.record.bury_together([_letter(dispatcher, job) for job in jobs])
    for job in jobs:
        if job.job_id in recorded:
            _log.warning("job refused", job_id=job.job_id, reason=job.failure.code)
    return recorded


def _letter(dispatcher: Dispatcher, job: Refused) -> DeadLetter:
    return write_letter(
        job.failure,
        job.failure,
        job_id=job.job_id,
        job_name=_name_in(job) if job.failure.code == UnknownJobError.code else None,
        message=job.message[:MAX_BYTES],
        attempts=job.attempt,
        queue=job.queue or dispatcher.queue,
    )


def _name_in(job: Refused) -> str | None:
    """Return the name of an unknown job, so that operators see jobs of one name as a group."""
    with suppress(InvalidMessageError):
        name = read_message(job.message).name
        return name if is_name(name) else None
    return None


def why_unknown(name: str, registry: Registry) -> str:
    """Say that the registry has no such job, and the cure."""
    return f"this worker has no job {name[:100]!r}; it has {', '.join(registry.names)}. {_NOT_HERE}"
