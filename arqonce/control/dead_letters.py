"""Retries and discards dead letters in steps of bounded size. What is done is on record before it begins."""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.requeue import requeue
from arqonce.ledger.audit import record
from arqonce.ledger.dead_jobs import (
    DeadFilter,
    Place,
    dead_jobs_of_step,
    discard_step,
    in_steps,
    now_of_database,
    oldest_dead_jobs,
)
from arqonce.ledger.tables import DeadJob

RETRY, DISCARD = "dead retry", "dead discard"

Sessions = async_sessionmaker[AsyncSession]


@dataclass(frozen=True)
class DeadAct:
    """What is done to which letters, by whom and why."""

    name: str
    which: DeadFilter
    who: str
    why: str | None

    async def record(self, session: AsyncSession, number: int) -> None:
        """Put the act on record; ``number`` letters are to be hit, and none is no act. One round trip."""
        if number:
            await record(session, who=self.who, act=self.name, target=str(self.which), number=number, why=self.why)

    def called(self, end: str) -> "DeadAct":
        """Return the same act under a name that says how it ended."""
        return replace(self, name=f"{self.name}, {end}")


@asynccontextmanager
async def recorded(act: DeadAct, sessions: Sessions, number: int, done: Callable[[], int]) -> AsyncIterator[None]:
    """Record an act of several steps on ``number`` letters, and if it is broken off, how many were ``done``."""
    async with sessions.begin() as session:
        await act.record(session, number)
    try:
        yield
    except BaseException:
        async with sessions.begin() as session:
            await act.called("broken off").record(session, done())
        raise


async def begin(sessions: Sessions) -> datetime:
    """Return until when letters must have died to be hit: so that an end comes. One round trip."""
    async with sessions() as session:
        return await now_of_database(session)


async def retry_steps(  # noqa: PLR0913 - what it needs
    sessions: Sessions,
    redis: Redis,
    which: DeadFilter,
    *,
    until: datetime,
    default_queue: str,
    most: int = sys.maxsize,
) -> AsyncGenerator[Sequence[str], None]:
    """Put letters back into their queues, the oldest first, at most ``most``; yield the ids of each step.

    A letter is deleted when its job takes effect; until then it stays. ``default_queue`` is for letters that name none.
    A step is up to 500 letters: two round trips to PostgreSQL, and two to Redis for each queue.
    """
    async for step in _steps(sessions, _until(which, until), most=most):
        async with sessions() as session:
            letters = await dead_jobs_of_step(session, step)
        await _requeue(redis, letters, default_queue)
        yield [letter.job_id for letter in letters]


async def discard_steps(sessions: Sessions, which: DeadFilter, *, until: datetime) -> AsyncGenerator[int, None]:
    """Remove letters for good, the oldest first, each step in a transaction of its own; yield how many it removed."""
    async for step in _steps(sessions, _until(which, until)):
        async with sessions.begin() as session:
            removed = await discard_step(session, step)
        yield removed


async def _steps(sessions: Sessions, which: DeadFilter, *, most: int = sys.maxsize) -> AsyncGenerator[DeadFilter, None]:
    """Divide the letters into steps, the oldest first: filters that name ids."""
    after: Place | None = None
    while most > 0:
        async with sessions() as session:
            places = await oldest_dead_jobs(session, which, after=after, most=most)
        if not places:
            return
        for ids in in_steps(places):
            yield replace(which, job_ids=ids)
        after, most = places[-1], most - len(places)


def _until(which: DeadFilter, until: datetime) -> DeadFilter:
    return replace(which, until=until if which.until is None else min(which.until, until))


async def _requeue(redis: Redis, letters: Sequence[DeadJob], default_queue: str) -> None:
    by_queue: dict[str, dict[str, bytes]] = {}
    for letter in letters:
        by_queue.setdefault(letter.queue or default_queue, {})[letter.job_id] = letter.message
    for queue, messages in by_queue.items():
        await requeue(redis, queue, messages)
