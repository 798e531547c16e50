"""arq's keys in Redis, its message for a job, and the rules for job ids, for every client and the worker."""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from arqonce.failures import InvalidMessageError

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
_RAW_JOB_ID = re.compile(rb"[!-~]{1,200}")
"""Printable ASCII without spaces: an id can be logged, typed and used in a key."""


def to_ms(duration: timedelta) -> int:
    """Return a duration in milliseconds, arq's unit."""
    return round(duration / timedelta(milliseconds=1))


def leases_key(queue: str) -> str:
    """Return the key of the running jobs: a sorted set, scored by the end of the lease. Plain arq has no such key."""
    return f"{queue}:leases"


class WatchKeys(NamedTuple):
    """The keys by which idle workers agree on who watches."""

    watcher: str
    """Holds the watcher, the one idle worker that Redis notifies."""

    baton: str
    """The list on which the other idle workers wait."""

    deputy: str
    """Holds the one of those that looks after the watch."""


def watch_keys(queues: Sequence[str], *, relays: bool) -> WatchKeys:
    """Return the keys of all workers with these queues, in whatever order: named after the queue if there is but one.

    Workers that relay have a watcher of their own, because the others leave the relaying to it (``arqonce.rest``).
    """
    group = queues[0]
    if len(queues) > 1:
        group = f"arqonce:{hashlib.sha256(','.join(sorted(queues)).encode()).hexdigest()[:32]}"
    if not relays:
        group = f"arqonce:plain:{group}"
    return WatchKeys(f"{group}:watcher", f"{group}:baton", f"{group}:deputy")


PARKED_MS = 200_000_000_000_000
"""Added to the score of a job that waits for a permit of a limit: then it is due after the year 8300, for any worker.
A datetime can hold the sum. No producer defers a job to such a time."""

PAUSED_MS = 100_000_000_000_000
"""Added to the score of a job of a paused kind: then it is due after the year 5138, for any worker. A datetime can hold
the sum. No producer defers a job to such a time."""


FIRST_TIME_MS = 1e11
"""Scores below this are no times: those of hostile and careless producers, and of jobs that arq has pulled forward."""


def due_of(score: float) -> float:
    """Return when a job is due, in ms since 1970, from its score, also if it was put aside."""
    return score % PAUSED_MS


def pauses_key(queue: str) -> str:
    """Return the key that says what of the queue is paused."""
    return f"arqonce:pauses:{queue}"


def aside_key(queue: str, job_name: str) -> str:
    """Return the key of the queue's jobs of a paused kind: a sorted set, scored by their score in the queue."""
    return f"arqonce:aside:{len(queue.encode())}:{queue}{job_name}"


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
    return _RAW_JOB_ID.fullmatch(raw) is None


def printable_job_id(raw: bytes) -> str:
    """Return the id if it is valid, else a digest of it that can be logged, stored and used as an id."""
    return f"hostile-{hashlib.sha256(raw).hexdigest()[:32]}" if is_hostile_id(raw) else raw.decode("ascii")


UNIQUE_KEY = "arqonce:unique:"
"""Before the name of a request that is unique for a time (``request.unique_name``). Holds the id of its job."""


def new_job_id(key: str | None) -> str:
    """Return the caller's idempotency key, or a new id that nobody can guess.

    Raises:
        InvalidMessageError: the key is not a valid id.
    """
    if key is None:
        return _uuid7()
    if not isinstance(key, str):
        raise InvalidMessageError(f"the key must be a str, such as f'signup-{{user_id}}'; this is {type_of(key)}")
    if not is_job_id(key):
        message = "the key must be 1 to 200 printable ASCII characters without spaces: hash what is longer or other"
        raise InvalidMessageError(message)
    return key


def new_job_ids(keys: Sequence[str | None]) -> list[str]:
    """Return keys and new ids in their places. New ids ascend: jobs of one call that are due at once start in order.

    Raises:
        InvalidMessageError: a key is not a valid id.
    """
    made = iter(sorted(_uuid7() for key in keys if key is None))
    return [next(made) if key is None else new_job_id(key) for key in keys]


_VERSION_7, _VARIANT = 7 << 76, 2 << 62


def _uuid7() -> str:
    """Return a UUID of version 7 (RFC 9562) in hex: the time in ms and 1/4096 ms, then 62 random bits.

    Ids that ascend with time have a place of their own in each index of ids. Among ten million dead letters or promised
    jobs, random ones would each read a page that no other job has read. And of jobs that are due in the same ms, Redis
    starts the one with the smaller id first: so these start in the order in which one producer has enqueued them.
    """
    ms, ns = divmod(time.time_ns(), 1_000_000)
    random = int.from_bytes(os.urandom(8)) >> 2
    return f"{ms << 80 | _VERSION_7 | (ns * 4096 // 1_000_000) << 64 | _VARIANT | random:032x}"


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


def type_of(value: object) -> str:
    """Say of what type a value is, without the value."""
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"


def cut_calls(sizes: Sequence[int], *, most_jobs: int = MOST_JOBS, most_bytes: int = MOST_BYTES) -> Iterator[slice]:
    """Split jobs of these sizes, in bytes, into calls of at most so many jobs and bytes, one job at least."""
    first = total = 0
    for at, size in enumerate(sizes):
        if at - first >= most_jobs or (total and total + size > most_bytes):
            yield slice(first, at)
            first, total = at, 0
        total += size
    if sizes:
        yield slice(first, len(sizes))
