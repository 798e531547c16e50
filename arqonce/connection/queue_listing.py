"""Lists the jobs of a queue in Redis in pages, each as quick as the first one, however long the queue is.

A page begins behind a place: a score, and how many of the jobs with just this score were read before. So jobs that end
or are added meanwhile hardly move a page. No index in Redis knows kinds: for a page of one, ``MOST_READ`` messages are
looked at; a page that is not full by then says so, and where to go on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from redis.asyncio import Redis

from arqonce.connection.clock import read_clock
from arqonce.connection.queue_kinds import OTHER, read_names
from arqonce.wire.keys import IN_PROGRESS_KEY, PARKED_MS, PAUSED_MS, due_of, leases_key

MOST_READ = 1000
"""Most messages that are looked at for a page of one kind: two round trips of 128 KiB."""

_STEP = 500
"""Most jobs of one round trip."""

_MOST_IDS = 3000
"""Ids that are looked at to find those that begin in a way, of all queues together."""


class QueueState(StrEnum):
    """Where in a queue jobs are."""

    WAITING = "waiting"
    DEFERRED = "deferred"
    RUNNING = "running"
    """Those that workers of ours have claimed."""

    HELD = "held"
    """Those of a paused kind."""

    PARKED = "parked"


class QueuePlace(NamedTuple):
    """Where a page begins."""

    score: float
    behind: int = 0
    """How many jobs with this score come before it."""


class QueuedJob(NamedTuple):
    """A job in a queue."""

    job_id: str
    job_name: str | None
    """``None`` if it cannot be seen."""

    at: datetime | None
    """When it is or was due; of a running one until when its claim holds. ``None`` if its score is no time."""


@dataclass(frozen=True)
class QueuePage:
    """Some jobs, and where the next ones are."""

    rows: Sequence[QueuedJob]
    next: QueuePlace | None
    """``None``: there are no more."""

    is_partial: bool = False
    """Whether ``MOST_READ`` jobs were looked at, and not enough of them are of the kind."""


class _Part(NamedTuple):
    """The part of a sorted set that has the jobs of a state."""

    key: str
    lowest: float | str
    highest: float | str


def _part_of(queue: str, state: QueueState, now_ms: float) -> _Part:
    match state:
        case QueueState.WAITING:
            return _Part(queue, "-inf", now_ms)
        case QueueState.DEFERRED:
            return _Part(queue, f"({now_ms}", f"({PAUSED_MS}")
        case QueueState.RUNNING:
            return _Part(leases_key(queue), "-inf", "+inf")
        case QueueState.HELD:
            return _Part(queue, PAUSED_MS, f"({PARKED_MS}")
        case QueueState.PARKED:
            return _Part(queue, PARKED_MS, "+inf")


async def list_queue(  # noqa: PLR0913 - what can be asked
    redis: Redis, queue: str, state: QueueState, *, job_name: str | None, after: QueuePlace | None, limit: int
) -> QueuePage:
    """Return a page of the jobs of a queue in a state, in the order of their times. Four round trips, or seven.

    Raises:
        RedisError: Redis cannot be asked, or this user may not look.
    """
    part = _part_of(queue, state, (await read_clock(redis)).ms)
    rows: list[QueuedJob] = []
    place, read = after, 0
    step = 2 * limit if job_name is None else _STEP
    while read < MOST_READ:
        found = await _step(redis, part, place, step)
        for at, row in await _rows(redis, state, found, job_name):
            rows.append(row)
            if len(rows) == limit:
                is_last = at + 1 == len(found) < step
                return QueuePage(rows, None if is_last else _behind(found[: at + 1], place))
        if len(found) < step:
            return QueuePage(rows, None)
        place, read = _behind(found, place), read + len(found)
    return QueuePage(rows, place, is_partial=True)


_Found = list[tuple[bytes, float]]


async def _step(redis: Redis, part: _Part, place: QueuePlace | None, most: int) -> _Found:
    lowest, behind = (part.lowest, 0) if place is None else place
    return await redis.zrange(  # type: ignore[no-any-return]
        part.key, lowest, part.highest, byscore=True, offset=behind, num=most, withscores=True  # type: ignore[arg-type] # scores
    )  # fmt: skip


def _behind(found: _Found, before: QueuePlace | None) -> QueuePlace:
    """Return the place behind the last of these jobs."""
    score = found[-1][1]
    same = sum(1 for _, other in found if other == score)
    return QueuePlace(score, same + (before.behind if before is not None and before.score == score else 0))


async def _rows(redis: Redis, state: QueueState, found: _Found, job_name: str | None) -> list[tuple[int, QueuedJob]]:
    """Return those of these jobs that are in the state, and of the kind if one is given, each with its number."""
    names = await read_names(redis, [job_id for job_id, _ in found])
    chosen = [at for at, name in enumerate(names) if job_name in {None, name}]
    if state is not QueueState.RUNNING:  # in the same part are jobs that run: their score is the end of a claim
        async with redis.pipeline(transaction=False) as pipe:
            for at in chosen:
                pipe.exists(IN_PROGRESS_KEY.encode() + found[at][0])
            chosen = [at for at, runs in zip(chosen, await pipe.execute(), strict=True) if not runs]
    return [(at, _row(found[at], names[at])) for at in chosen]


def _row(found: tuple[bytes, float], name: str) -> QueuedJob:
    job_id, score = found
    return QueuedJob(job_id.decode(errors="replace"), None if name == OTHER else name, _time(due_of(score)))


def _time(score_ms: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(score_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


class FoundIds(NamedTuple):
    """Jobs whose ids begin in a way, each with its queue."""

    jobs: Sequence[tuple[str, str]]
    read_in_part: Mapping[str, int]
    """Queues with more jobs than were looked at, and how many were."""


async def ids_beginning(redis: Redis, queues: Sequence[str], beginning: str) -> FoundIds:
    """Look at the ids of the jobs of these queues that are due first, for no index in Redis knows them. One round trip.

    Raises:
        RedisError: Redis cannot be asked, or this user may not look.
    """
    most = _MOST_IDS // max(1, len(queues))
    async with redis.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.zrange(queue, 0, most)
        found: list[list[bytes]] = await pipe.execute()
    jobs = [
        (job_id.decode(errors="replace"), queue)
        for queue, ids in zip(queues, found, strict=True)
        for job_id in ids[:most]
        if job_id.startswith(beginning.encode())
    ]
    return FoundIds(jobs, {queue: most for queue, ids in zip(queues, found, strict=True) if len(ids) > most})
