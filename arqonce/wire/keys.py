"""arq's keys in Redis, its message for a job, and the rules for job ids, for every client and the worker."""

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from arqonce.failures import InvalidMessageError
from arqonce.payloads import AnyPayload, Payload

QUEUE = "arq:queue"
"""The sorted set of queued job ids. The score is the due time, in ms since 1970."""

JOB_KEY = "arq:job:"
RESULT_KEY = "arq:result:"
IN_PROGRESS_KEY = "arq:in-progress:"
RETRY_KEY = "arq:retry:"

ABORT_KEY = "arq:abort"
"""The sorted set of ids of jobs to abort, for all queues. The score is the time of the request."""

EXPIRY = timedelta(days=7)
"""Longest time that a job may wait in Redis after it is due. arq's own default is a day."""

MOST_JOBS, MOST_BYTES = 500, 4 * 1024 * 1024
"""Most jobs, and about the most bytes of messages, in one call of a script: Redis is blocked while it runs."""

_JOB_ID = re.compile(r"[!-~]{1,200}")
"""Printable ASCII without spaces: an id can be logged, typed and used in a key."""


def to_ms(duration: timedelta) -> int:
    """Return a duration in milliseconds, arq's unit."""
    return round(duration / timedelta(milliseconds=1))


def leases_key(queue: str) -> str:
    """Return the key of the running jobs: a sorted set, scored by the end of the lease. Plain arq has no such key."""
    return f"{queue}:leases"


def watcher_key(queue: str) -> str:
    """Return the key that holds the queue's watcher, the one idle worker that Redis notifies."""
    return f"{queue}:watcher"


def baton_key(queue: str) -> str:
    """Return the key of the baton, the list on which the other idle workers wait."""
    return f"{queue}:baton"


LATEST_MS = 253_402_300_799_000
"""The end of the year 9999 in ms since 1970, the latest time that a datetime can hold."""

ID_RULE = "the job's id must be 1 to 200 printable ASCII characters without spaces"


def now_ms() -> int:
    """Return the current time in arq's unit, ms since 1970."""
    return time.time_ns() // 1_000_000


def is_job_id(value: str) -> bool:
    """Return whether ``value`` is a valid job id."""
    return _JOB_ID.fullmatch(value) is not None


def is_hostile_id(raw: bytes) -> bool:
    """Return whether an id found in Redis is not a valid job id."""
    return not is_job_id(raw.decode("ascii", "replace"))


def printable_job_id(raw: bytes) -> str:
    """Return the id if it is valid, else a digest of it that can be logged, stored and used as an id."""
    return f"hostile-{hashlib.sha256(raw).hexdigest()[:32]}" if is_hostile_id(raw) else raw.decode("ascii")


def new_job_id(key: str | None) -> str:
    """Return the caller's idempotency key, or a random id.

    Raises:
        InvalidMessageError: the key is not a valid id.
    """
    if key is None:
        return uuid4().hex
    if not isinstance(key, str):
        raise InvalidMessageError(f"the key must be a str, such as f'signup-{{user_id}}'; this is {_type(key)}")
    if not is_job_id(key):
        message = "the key must be 1 to 200 printable ASCII characters without spaces: hash what is longer or other"
        raise InvalidMessageError(message)
    return key


def require_job_id(value: str) -> str:
    """Return ``value`` if it is a valid job id.

    Raises:
        InvalidMessageError: it is not.
    """
    if not (isinstance(value, str) and is_job_id(value)):
        raise InvalidMessageError(ID_RULE)
    return value


def conflict_id(job_id: str, request: bytes) -> str:
    """Return the id under which to record a request whose id belongs to another request. Deterministic."""
    digest = hashlib.sha256(job_id.encode() + b"\0" + request).hexdigest()[:16]
    return f"{job_id[:170]}~conflict~{digest}"


def due_ms(now: int, delay: timedelta | None, at: datetime | None) -> int:
    """Return when a job is due, in ms since 1970: now, after ``delay``, or ``at`` a datetime with a time zone.

    Raises:
        InvalidMessageError: the time is invalid; the text gives the reason.
    """
    if delay is not None and at is not None:
        message = "give delay or at, not both"
        raise InvalidMessageError(message)
    if not isinstance(delay, timedelta | None):
        raise InvalidMessageError(f"delay must be a timedelta, such as timedelta(seconds=5); this is {_type(delay)}")
    if not isinstance(at, datetime | None):
        raise InvalidMessageError(f"at must be a datetime with a time zone; this is {_type(at)}")
    if at is not None:
        if at.tzinfo is None:
            message = "at has no time zone: give datetime.now(UTC) or another aware time"
            raise InvalidMessageError(message)
        return max(0, _timestamp_ms(at))
    if delay is None:
        return now
    if delay < timedelta(0):
        message = "delay is negative"
        raise InvalidMessageError(message)
    return now + to_ms(delay)


def _timestamp_ms(at: datetime) -> int:
    try:
        return round(at.astimezone(UTC).timestamp() * 1000)
    except OverflowError:
        raise InvalidMessageError("at is out of the range of dates") from None


def request_hash(payload: AnyPayload) -> bytes:
    """Return a hash that identifies a request among those of the same kind of job.

    Fields with their default value are left out, so a field that a later version adds does not change the hash of a
    queued job. Nor does a renamed field, if its ``serialization_alias`` is the old name.
    """
    return hashlib.sha256(payload.model_dump_json(exclude_defaults=True, by_alias=True).encode()).digest()


def request_tag(request: bytes) -> str:
    """Return the tag of the request with this hash. It is stored with the result and the job's name.

    Long enough to distinguish two requests that share a key by mistake, too short to reconstruct the request.
    """
    return request[:4].hex()


def payload_tag(payload: AnyPayload) -> str:
    """Return the tag of the request for this payload."""
    return request_tag(request_hash(payload))


def request_mark(job_name: object, tag: str) -> str:
    """Return a mark that distinguishes a request from others with its key: another kind of job, or other fields."""
    return f"{job_name} {tag}"


def require_payload(value: object) -> None:
    """Check that the value to enqueue is a payload.

    Raises:
        InvalidMessageError: it is not. The text names the cure, and does not repeat the value.
    """
    if not isinstance(value, Payload):
        message = f"a job is the instance of a payload, such as CreateUser(name=...); this is {_type(value)}"
        raise InvalidMessageError(message)
    if not hasattr(value, "job_name"):
        raise InvalidMessageError(f"{type(value).__name__} has no job_name: give its class the job's name on the wire")


def require_kind(value: object) -> None:
    """Check that the value is a payload class.

    Raises:
        InvalidMessageError: it is not. The text names the cure, and does not repeat the value.
    """
    if not (isinstance(value, type) and issubclass(value, Payload)):
        message = f"a kind of job is the class of a payload, such as CreateUser; this is {_type(value)}"
        raise InvalidMessageError(message)


def _type(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def job_message(payload: AnyPayload, *, enqueued_ms: int) -> dict[str, Any]:
    """Return arq's message for a job. Fields that were not set are left out, so that the worker's defaults apply."""
    fields = payload.model_dump(mode="json", exclude_unset=True)
    return {"t": None, "f": payload.job_name, "a": [], "k": fields, "et": enqueued_ms}


def cut_calls(sizes: Sequence[int]) -> Iterator[slice]:
    """Split jobs of these sizes, in bytes, into calls of at most ``MOST_JOBS`` and ``MOST_BYTES``, one job at least."""
    first = total = 0
    for at, size in enumerate(sizes):
        if at - first >= MOST_JOBS or (total and total + size > MOST_BYTES):
            yield slice(first, at)
            first, total = at, 0
        total += size
    if sizes:
        yield slice(first, len(sizes))
