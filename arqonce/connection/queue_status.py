"""Counts the jobs of a queue. Changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from arqonce.connection.clock import read_clock
from arqonce.connection.pauses import Paused, known_of
from arqonce.wire.keys import FIRST_TIME_MS, IN_PROGRESS_KEY, PARKED_MS, PAUSED_MS, leases_key, pauses_key

_LOOKED_AT = 1000
"""Most due jobs, oldest first, that are checked for being run by a plain arq worker: those run at most 100 jobs of a
queue at once by default, always from its old end."""


@dataclass(frozen=True)
class QueueStatus:
    """A snapshot of a queue."""

    waiting: int
    """Jobs that are due and not running, and that no pause holds; also those that wait for a permit of a limit."""

    deferred: int
    """Jobs that are due later: delayed, or waiting for their next attempt."""

    running: int
    """Jobs that a worker has claimed."""

    oldest_waiting: timedelta | None
    """How long the oldest waiting job has been due; ``None`` if no job waits, 0 if no score says since when."""

    parked: int = 0
    """Of those that wait, jobs that wait for a permit of a limit."""

    held: int = 0
    """Jobs that would wait if nothing were paused: all of a paused queue, or those put aside of paused kinds."""

    paused: bool = False
    """Whether the whole queue is paused."""

    paused_kinds: Sequence[str] = ()
    """Kinds that are paused."""


async def read_queue_status(redis: Redis, queue: str) -> QueueStatus:
    """Count the jobs of a queue. Three round trips; examines up to 1,000 jobs."""
    now = (await read_clock(redis)).ms
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zcount(queue, "-inf", now)
        pipe.zcount(queue, f"({now}", "+inf")
        pipe.zcount(leases_key(queue), f"({now}", "+inf")
        pipe.zrange(queue, "-inf", now, byscore=True, offset=0, num=_LOOKED_AT, withscores=True)  # type: ignore[arg-type] # scores
        pipe.zcount(queue, PARKED_MS, "+inf")
        pipe.zrange(queue, PARKED_MS, 2 * PARKED_MS, byscore=True, offset=0, num=1, withscores=True)
        pipe.zcount(queue, PAUSED_MS, f"({2 * PAUSED_MS}")
        pipe.get(pauses_key(queue))
        answers = await pipe.execute(raise_on_error=False)
    for answer in answers[:-1]:
        if isinstance(answer, Exception):
            raise answer
    due, later, leased, oldest, parked, first_parked, aside, pauses = answers
    paused = known_of(pauses).paused or Paused()
    is_paused = paused.is_whole(now)
    are_running = await _are_running(redis, [job_id for job_id, _ in oldest])
    waiting = due - sum(are_running) + parked
    since = [score for (_, score), running in zip(oldest, are_running, strict=True) if not running]
    since = [score for score in (*since, *(score - PARKED_MS for _, score in first_parked)) if score >= FIRST_TIME_MS]
    age = timedelta(milliseconds=max(0.0, now - min(since, default=now))) if waiting else None
    return QueueStatus(
        waiting=0 if is_paused else waiting,
        deferred=max(0, later - leased - parked - aside),
        running=leased + sum(are_running),
        oldest_waiting=None if is_paused else age,
        parked=0 if is_paused else parked,
        held=aside + (waiting if is_paused else 0),
        paused=is_paused,
        paused_kinds=paused.active_kinds(now),
    )


async def _are_running(redis: Redis, job_ids: list[bytes]) -> list[bool]:
    async with redis.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.exists(IN_PROGRESS_KEY.encode() + job_id)
        return [bool(found) for found in await pipe.execute()]
