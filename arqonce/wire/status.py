"""Where a job is: the words for it, the same for clients, web services and commands. Asks no server."""

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job is. The words are arq's, but for what arq cannot tell."""

    NOT_FOUND = "not_found"
    """Who was asked knows nothing of it: it never was, its result has expired, or only the other server knows it."""

    PROMISED = "promised"
    """It stands in the outbox, in PostgreSQL: it will run, if its transaction commits. Redis may know more."""

    DEFERRED = "deferred"
    """Queued, and not due yet; or to be tried again."""

    QUEUED = "queued"
    """Due, and not running."""

    RUNNING = "running"
    """A worker runs it. arq's word is ``in_progress``."""

    COMPLETE = "complete"
    """It has ended; how, was not to be seen. A producer's role may not read answers in PostgreSQL."""

    SUCCEEDED = "succeeded"
    """It has ended with a result. arq's word is ``complete``."""

    FAILED = "failed"
    """It has ended with a failure, and may be a dead letter. arq's word is ``complete``."""

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more: it is complete, has succeeded or has failed."""
        return self in _ENDS


_ENDS = {JobStatus.COMPLETE, JobStatus.SUCCEEDED, JobStatus.FAILED}


def status_in_redis(*, is_success: bool | None, is_running: bool, score: float | None, now: float) -> JobStatus:
    """Return the status by what Redis has of a job: its result, its worker's claim, its place in the queue.

    ``is_success`` is ``None`` without a result, ``score`` is ``None`` without a place in the queue; times are in ms.
    """
    if is_success is not None:
        return JobStatus.SUCCEEDED if is_success else JobStatus.FAILED
    if is_running:
        return JobStatus.RUNNING
    if score is None:
        return JobStatus.NOT_FOUND
    return JobStatus.DEFERRED if score > now else JobStatus.QUEUED
