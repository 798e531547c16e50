"""Reads what Redis has about a job: its status, its times, its answer. The same for every kind of client."""

from asyncio import CancelledError
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from arqonce.failures import (
    InvalidResultError,
    JobAbortedError,
    JobFailedError,
    RequestConflictError,
    ResultMissingError,
    failure_from_wire,
)
from arqonce.wire.codec import decode
from arqonce.wire.keys import LATEST_MS, now_ms, request_mark

ResultT = TypeVar("ResultT", bound=BaseModel)

LOOK_AGAIN = timedelta(seconds=30)
"""How often one who waits looks, although Redis tells of results: for connections that are dead without a word, and
for jobs that end without a result (a plain arq worker with ``keep_result=0``)."""

_FIRST_POLL, _LAST_POLL = 0.005, 0.25
"""How often, in seconds, to look where Redis tells of nothing: twice as rarely each time."""


class JobStatus(StrEnum):
    """Where a job is. The words are arq's."""

    DEFERRED = "deferred"
    """Queued, and not due yet; or to be tried again."""

    QUEUED = "queued"
    """Due, and not running."""

    IN_PROGRESS = "in_progress"
    """A worker runs it."""

    COMPLETE = "complete"
    """It has ended, with a result or a failure, which is still kept."""

    NOT_FOUND = "not_found"
    """Redis knows nothing of it: it never was, its result has expired, or it is promised and Redis has it not yet."""

    PROMISED = "promised"
    """It is owed in PostgreSQL, as ``arqonce.outbox.status_in`` says; how far it is, Redis may know."""


@dataclass(frozen=True)
class JobInfo:
    """What Redis tells about a job, without its arguments and its answer. Times are UTC, ``None`` while unknown."""

    job_id: str
    status: JobStatus
    due: datetime | None = None
    """When a queued job is due; of a running job, when its worker must have renewed its claim."""
    job_name: str | None = None
    """This and what follows is known when the job has ended."""
    attempts: int | None = None
    is_success: bool | None = None
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def can_be_aborted(self) -> bool:
        """Whether it is in Redis and has not ended."""
        return self.status not in {JobStatus.COMPLETE, JobStatus.NOT_FOUND}


def read_info(job_id: str, *, score: float | None, is_running: bool, data: bytes | None) -> JobInfo:
    """Put together what stands in the queue, the lock and the result.

    Raises:
        InvalidMessageError: the result cannot be read.
    """
    if data is not None:
        return _ended(job_id, decode(data))
    if score is None:
        return JobInfo(job_id, JobStatus.IN_PROGRESS if is_running else JobStatus.NOT_FOUND)
    waiting = JobStatus.DEFERRED if score > now_ms() else JobStatus.QUEUED
    return JobInfo(job_id, JobStatus.IN_PROGRESS if is_running else waiting, _time(score))


def _ended(job_id: str, message: dict[str, Any]) -> JobInfo:
    name, attempts = message.get("f"), message.get("t")
    return JobInfo(
        job_id,
        JobStatus.COMPLETE,
        job_name=name if isinstance(name, str) else None,
        attempts=attempts if isinstance(attempts, int) else None,
        is_success=message.get("s") is True,
        enqueued_at=_time(message.get("et")),
        started_at=_time(message.get("st")),
        finished_at=_time(message.get("ft")),
    )


def _time(value: object) -> datetime | None:
    """Return a time of arq's, ``None`` for what is none: refused messages have 0."""
    if not isinstance(value, int | float) or not 0 < value <= LATEST_MS:
        return None
    return datetime.fromtimestamp(value / 1000, UTC)


def read_answer(data: bytes, job_id: str, result_type: type[ResultT], *, mark: str | None = None) -> ResultT:
    """Return what the job has answered; given the mark of a request, only to that request.

    Raises:
        RequestConflictError: it is the answer to another request, one that had the same key.
        JobFailedError: it has failed.
        InvalidResultError: this is the answer of another kind of job.
        InvalidMessageError: this is no message of ours, for instance a pickle.
    """
    message = decode(data)
    if mark is not None and "h" in message and request_mark(message.get("f"), message["h"]) != mark:
        raise RequestConflictError(f"the key {job_id!r} was used for another request: give each request its own key")
    answer = message.get("r")
    if message.get("s") is True:
        return _read_result(answer, job_id, result_type)
    if isinstance(answer, CancelledError):
        # Not raised as it is: it would look like a cancellation of the caller's own task.
        raise JobAbortedError("somebody has aborted the job")
    raise answer if isinstance(answer, JobFailedError) else failure_from_wire(answer)


def _read_result(result: object, job_id: str, result_type: type[ResultT]) -> ResultT:
    try:
        return result_type.model_validate(result)
    except ValidationError:
        text = f"job {job_id} has answered something else than {result_type.__name__}"
        raise InvalidResultError(f"{text}: was its key used for another kind of job?") from None


def was_aborted(read: Callable[[], object]) -> bool:
    """Say whether reading the answer tells of an abort."""
    try:
        read()
    except JobAbortedError:
        return True
    except (JobFailedError, InvalidResultError):
        return False
    return False


def missing(job_id: str) -> ResultMissingError:
    """Say that there will be no result."""
    return ResultMissingError(f"job {job_id} is not queued and has no result: it never was, or its result has expired")


def late(job_id: str, timeout: timedelta | None, *, queue: str, is_promised: bool) -> TimeoutError:
    """Say that there is no result yet."""
    text = f"job {job_id} has no result after {0.0 if timeout is None else timeout.total_seconds():g} s"
    if is_promised:
        text += (
            ": was the transaction committed? If it was, it is owed, and Redis gets it 10 s before it is due; or its "
            "result has expired, and enqueue with its id as the key has the answer of its receipt"
        )
        return TimeoutError(text)
    return TimeoutError(f"{text}; it stays queued: is a worker running for the queue {queue}?")


def silent(job_id: str, timeout: timedelta | None, where: str) -> TimeoutError:
    """Say that nobody knows whether there is a result: Redis did not answer."""
    seconds = 0.0 if timeout is None else timeout.total_seconds()
    return TimeoutError(
        f"Redis at {where} has not answered: whether job {job_id} has a result after {seconds:g} s is not known; "
        "the job goes on. Is Redis overloaded, or the network cut?"
    )


def require_open(*, is_closed: bool) -> None:
    """Refuse to use a client after its end.

    Raises:
        RuntimeError: the text names the cure.
    """
    if is_closed:
        raise RuntimeError("the client is closed: use it inside its with block, which may last as long as the service")


def require_timeout(timeout: object) -> None:
    """Refuse what is no time to wait.

    Raises:
        TypeError: the text names the cure.
    """
    if not isinstance(timeout, timedelta | None):
        raise TypeError(f"timeout must be a timedelta, such as timedelta(seconds=5), and not {type(timeout).__name__}")


def poll_pauses() -> Iterator[float]:
    """Yield for how many seconds to wait before each look, where Redis tells of nothing."""
    pause = _FIRST_POLL
    while True:
        yield pause
        pause = min(2 * pause, _LAST_POLL)
