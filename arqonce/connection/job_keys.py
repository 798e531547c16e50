"""Reads all that Redis has of one job. Changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from arqonce.wire.keys import (
    ABORT_KEY,
    IN_PROGRESS_KEY,
    JOB_KEY,
    PAUSED_MS,
    RESULT_KEY,
    RETRY_KEY,
    UNIQUE_KEY,
    due_of,
    leases_key,
)

_MOST_DIGITS = 18
"""Of a number of attempts: Redis counts in 64 bits, and anybody may write there."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The job's place in a queue."""

    queue: str
    due_at: datetime
    """Of a running job the end of its lease."""

    lease_until: datetime | None
    """When the claim of its worker ends unless it is renewed; ``None`` if no worker of ours has claimed it."""

    before: int | None
    """How many jobs of the queue are due before it, if it is due."""

    is_put_aside: bool = False
    """Whether it waits, out of its worker's sight, for the end of its kind's pause."""

    is_parked: bool = False
    """Whether it waits, out of its worker's sight, for a permit of a limit."""


@dataclass(kw_only=True)
class JobKeys:
    """What Redis has of a job."""

    now: datetime
    """The server's time."""

    message: bytes | None = None
    result: bytes | None = None
    places: list[Place] = field(default_factory=list)
    is_locked: bool = False
    """Whether a worker, ours or arq's, holds the job."""

    attempts: int = 0
    """How many attempts have counted."""

    abort_at: datetime | None = None
    """When somebody asked for its abort, which no worker has heeded yet."""

    denied: list[str] = field(default_factory=list)
    """What this user may not read."""

    @property
    def is_there(self) -> bool:
        """Whether there is anything."""
        return bool(self.message is not None or self.result is not None or self.places or self.is_locked)


async def read_job_keys(redis: Redis, job_id: str, queues: Sequence[str]) -> JobKeys:
    """Look for the job in these queues. Two round trips, and one more for each queue that holds it.

    Raises:
        RedisError: Redis cannot be asked.
    """
    seconds, microseconds = await redis.time()
    found = JobKeys(now=datetime.fromtimestamp(seconds + microseconds / 1e6, UTC))
    names = [JOB_KEY + job_id, RESULT_KEY + job_id, IN_PROGRESS_KEY + job_id, RETRY_KEY + job_id]
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.get(name)
        pipe.zscore(ABORT_KEY, job_id)
        for queue in queues:
            pipe.zscore(queue, job_id)
            pipe.zscore(leases_key(queue), job_id)
        answers = await pipe.execute(raise_on_error=False)
    names += [ABORT_KEY, *(key for queue in queues for key in (queue, leases_key(queue)))]
    values = [_value(found, name, answer) for name, answer in zip(names, answers, strict=True)]
    found.message, found.result, lock, attempts, abort, *scores = values
    found.is_locked = lock is not None
    is_number = isinstance(attempts, bytes) and attempts.isdigit() and len(attempts) <= _MOST_DIGITS
    found.attempts = int(attempts) if is_number else 0
    found.abort_at = _time(abort)
    for queue, score, lease in zip(queues, scores[::2], scores[1::2], strict=True):
        if score is not None:
            found.places.append(await _place(redis, queue, score, lease, found.now))
    return found


async def unique_in_redis(redis: Redis, name: bytes, job_id: str) -> timedelta | None:
    """Return how long an equal request still is this job, by the request's name. One round trip.

    Raises:
        RedisError: Redis cannot be asked, or this user may not read the key.
    """
    key = UNIQUE_KEY + name.hex()
    async with redis.pipeline(transaction=False) as pipe:
        pipe.get(key)
        pipe.pttl(key)
        owner, left = await pipe.execute()
    return timedelta(milliseconds=left) if owner == job_id.encode() and left > 0 else None


async def _place(redis: Redis, queue: str, score: float, lease: float | None, now: datetime) -> Place:
    aside = score // PAUSED_MS
    is_due = lease is None and score <= now.timestamp() * 1000
    before = await redis.zcount(queue, "-inf", f"({score}") if is_due else None
    due_at = _time(due_of(score)) or datetime.max.replace(tzinfo=UTC)
    return Place(
        queue=queue,
        due_at=due_at,
        lease_until=_time(lease),
        before=before,
        is_put_aside=aside == 1,
        is_parked=aside > 1,
    )


def _value(found: JobKeys, name: str, answer: Any) -> Any:  # noqa: ANN401 - redis-py's
    if isinstance(answer, NoPermissionError):
        found.denied.append(name)
    elif isinstance(answer, ResponseError):  # of a wrong type: no key of a job
        return None
    elif isinstance(answer, RedisError | OSError):
        raise answer
    else:
        return answer
    return None


def _time(score: float | None) -> datetime | None:
    """Return the time of a score in ms; ``None`` if it is none that a datetime can hold."""
    try:
        return None if score is None else datetime.fromtimestamp(score / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
