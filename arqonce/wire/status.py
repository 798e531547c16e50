"""Defines the statuses of a job, for clients, web services and commands. Asks no server."""

from enum import StrEnum

from arqonce.wire.keys import PAUSED_MS


class JobStatus(StrEnum):
    """The status of a job. The values are arq's, plus those that arq does not distinguish."""

    NOT_FOUND = "not_found"
    """Unknown to the server that was asked: never enqueued, expired, or known only to the other server."""

    PROMISED = "promised"
    """In the outbox in PostgreSQL. It will run if its transaction commits. Redis may have a later status."""

    DEFERRED = "deferred"
    """Queued but not due yet, or waiting for its next attempt."""

    QUEUED = "queued"
    """Due, and not running: it waits for a worker, for a permit of a limit, or for the end of a pause."""

    RUNNING = "running"
    """A worker runs it. arq calls it ``in_progress``."""

    COMPLETE = "complete"
    """It has ended, with a result or a failure: a producer's role may not read results in PostgreSQL."""

    SUCCEEDED = "succeeded"
    """It has ended with a result. arq calls it ``complete``."""

    FAILED = "failed"
    """It has ended with a failure, and may be a dead letter. arq calls it ``complete``."""

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended: ``COMPLETE``, ``SUCCEEDED`` or ``FAILED``."""
        return self in _ENDS


_ENDS = {JobStatus.COMPLETE, JobStatus.SUCCEEDED, JobStatus.FAILED}


def status_in_redis(*, is_success: bool | None, is_running: bool, score: float | None, now: float) -> JobStatus:
    """Return the status from what Redis has of a job: its result, its worker's claim, its score in the queue.

    ``is_success`` is ``None`` if there is no result, ``score`` if the job is not queued. Times are in ms.
    """
    if is_success is not None:
        return JobStatus.SUCCEEDED if is_success else JobStatus.FAILED
    if is_running:
        return JobStatus.RUNNING
    if score is None:
        return JobStatus.NOT_FOUND
    return JobStatus.DEFERRED if now < score < PAUSED_MS else JobStatus.QUEUED
