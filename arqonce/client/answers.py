"""Reads what Redis knows of a job: its status, its times, its result. The same for every client."""

import math
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

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
from arqonce.wire.keys import LATEST_MS, due_of, now_ms
from arqonce.wire.request import request_mark
from arqonce.wire.status import JobStatus, status_in_redis

ResultT = TypeVar("ResultT", bound=BaseModel)

RESULT_TIMEOUT = 30.0
"""Default time to wait for a result, in seconds: longer than most jobs take, shorter than web servers wait for a
response."""

LOOK_AGAIN = timedelta(seconds=30)
"""Interval at which a waiting client polls although Redis notifies it: for connections that died silently, and for
jobs that end without a result (a plain arq worker with ``keep_result=0``)."""

_FIRST_POLL, _LAST_POLL = 0.005, 0.25
"""First and longest interval of polling, in seconds, where Redis does not notify. It doubles after each poll."""


@dataclass(frozen=True)
class JobInfo:
    """What Redis knows of a job, without its arguments and its result. Times are in UTC, ``None`` while unknown."""

    job_id: str
    status: JobStatus
    due: datetime | None = None
    """When a queued job is due; for a running job, when its lease ends."""
    job_name: str | None = None
    """This field and the next ones are set once the job has ended."""
    attempts: int | None = None
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def can_be_aborted(self) -> bool:
        """Whether the job is in Redis and has not ended."""
        return not self.status.has_ended and self.status is not JobStatus.NOT_FOUND


def read_info(job_id: str, *, score: float | None, is_running: bool, data: bytes | None) -> JobInfo:
    """Return the job's info from its score in the queue, its claim and its result.

    Raises:
        InvalidMessageError: the result cannot be read.
    """
    message = {} if data is None else decode(data)
    is_success = None if data is None else message.get("s") is True
    status = status_in_redis(is_success=is_success, is_running=is_running, score=score, now=now_ms())
    name, attempts = message.get("f"), message.get("t")
    return JobInfo(
        job_id,
        status,
        due=None if data is not None or score is None else _time(due_of(score)),
        job_name=name if isinstance(name, str) else None,
        attempts=attempts if isinstance(attempts, int) else None,
        enqueued_at=_time(message.get("et")),
        started_at=_time(message.get("st")),
        finished_at=_time(message.get("ft")),
    )


def _time(value: object) -> datetime | None:
    """Convert a time of arq, in ms; ``None`` if it is not valid: results of refused messages have 0."""
    if not isinstance(value, int | float) or not 0 < value <= LATEST_MS:
        return None
    return datetime.fromtimestamp(value / 1000, UTC)


def read_answer(data: bytes, job_id: str, result_type: type[ResultT], *, mark: str | None = None) -> ResultT:
    """Return the job's result. With ``mark``, accept only the result of the request with that mark.

    Raises:
        RequestConflictError: the result belongs to another request with the same key.
        JobFailedError: the job failed.
        InvalidResultError: the result is that of another kind of job.
        InvalidMessageError: the data is not in this library's format, for instance a pickle.
    """
    message = decode(data)
    if mark is not None and "h" in message and request_mark(message.get("f"), message["h"]) != mark:
        raise RequestConflictError(f"the key {job_id!r} was used for another request: give each request its own key")
    answer = message.get("r")
    if message.get("s") is True:
        return _read_result(answer, job_id, result_type)
    if isinstance(answer, CancelledError):
        # Not raised as CancelledError, which would look like a cancellation of the caller's own task.
        raise JobAbortedError("somebody has aborted the job")
    failure = answer if isinstance(answer, JobFailedError) else failure_from_wire(answer)
    raise JobFailedError.from_code(failure.code, failure.message, asked_by=result_type)


def _read_result(result: object, job_id: str, result_type: type[ResultT]) -> ResultT:
    try:
        return result_type.model_validate(result)
    except ValidationError:
        text = f"the result of job {job_id} is no {result_type.__name__}"
        raise InvalidResultError(f"{text}: was its key used for another kind of job?") from None


def was_aborted(read: Callable[[], object]) -> bool:
    """Return whether the result says that the job was aborted."""
    try:
        read()
    except JobAbortedError:
        return True
    except (JobFailedError, InvalidResultError):
        return False
    return False


def missing(job_id: str) -> ResultMissingError:
    """Return the error for a job that will have no result."""
    return ResultMissingError(
        f"job {job_id} is not queued and has no result: it was never enqueued, or its result has expired. "
        "If it was promised in a transaction, give its handle the promise, or is_promised=True, to wait for it"
    )


def late(job_id: str, timeout: float | None, *, queue: str, is_promised: bool) -> TimeoutError:
    """Return the error for a job that has no result yet."""
    text = f"job {job_id} has no result after {timeout or 0.0:g} s"
    if is_promised:
        text += (
            ": was the transaction committed? If so, a relay writes it into Redis 10 s before it is due; or its result "
            "has expired, and enqueue with its id as the key returns the result from its receipt"
        )
        return TimeoutError(text)
    return TimeoutError(f"{text}; it stays queued: is a worker running for the queue {queue}?")


def silent(job_id: str, timeout: float | None, where: str) -> TimeoutError:
    """Return the error for a job whose state is unknown because Redis did not answer."""
    return TimeoutError(
        f"Redis at {where} has not answered: it is unknown whether job {job_id} has a result after "
        f"{timeout or 0.0:g} s; the job continues. Is Redis overloaded, or the network down?"
    )


def require_open(*, is_closed: bool) -> None:
    """Reject calls on a closed client.

    Raises:
        RuntimeError: the client is closed; the text names the cure.
    """
    if is_closed:
        raise RuntimeError(
            "the client is closed: use it inside its with block or before close(); one client can serve a whole process"
        )


def seconds_of(timeout: float | timedelta | None) -> float | None:
    """Return a timeout in seconds; ``None`` means for ever.

    Raises:
        TypeError: the value is not a timeout; the text names the cure.
        ValueError: it is negative, infinite or NaN; the text names the cure.
    """
    value: object = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        kind = type(value).__name__
        raise TypeError(f"timeout must be seconds, such as 5 or 0.5, a timedelta, or None to wait for ever; not {kind}")
    if not math.isfinite(value):
        raise ValueError(f"timeout must be a number of seconds, and not {value}: None waits for ever")
    if value < 0:
        raise ValueError(f"timeout must not be negative, as {value:g} is: 0 asks once and does not wait")
    return float(value)


def poll_pauses() -> Iterator[float]:
    """Yield the waits between polls in seconds, where Redis does not notify."""
    pause = _FIRST_POLL
    while True:
        yield pause
        pause = min(2 * pause, _LAST_POLL)
