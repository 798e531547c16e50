"""Pauses and resumes queues and kinds of jobs. The record commits with the audit; Redis is told afterwards."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.pauses import Paused, copy_pauses
from arqonce.failures import QueueUnavailableError
from arqonce.ledger import pauses
from arqonce.ledger.audit import record
from arqonce.relay.pauses import recorded_pauses

_TRIES = 20
"""Most attempts to write pauses into Redis while others change them, too."""


class Target(NamedTuple):
    """What is paused: a queue, or one kind of jobs in it."""

    queue: str
    job_name: str = pauses.WHOLE

    def __str__(self) -> str:
        """Return it as the audit and people have it."""
        return f"{self.job_name} in {self.queue}" if self.job_name else self.queue


async def pause(
    session: AsyncSession, target: Target, *, reason: str, who: str, length: timedelta | None
) -> datetime | None:
    """Pause it for a time or until it is resumed; return its end. Three round trips."""
    until = await pauses.pause(session, target.queue, target.job_name, reason=reason, who=who, length=length)
    await record(session, who=who, act="queue pause", target=str(target), number=1, why=reason)
    return until


async def resume(session: AsyncSession, target: Target, *, who: str, why: str | None) -> bool:
    """End a pause; return whether there was one. Up to two round trips."""
    was_paused = await pauses.resume(session, target.queue, target.job_name)
    if was_paused:
        await record(session, who=who, act="queue resume", target=str(target), number=1, why=why)
    return was_paused


async def tell_workers(redis: Redis, sessions: async_sessionmaker[AsyncSession], queues: Sequence[str]) -> None:
    """Write what is recorded of these queues into Redis. If this fails, relays do it as soon as Redis is back.

    Raises:
        QueueUnavailableError: others change the same all the time.
        RedisError: Redis cannot be asked.
    """

    async def recorded() -> Mapping[str, Paused]:
        async with sessions() as session:
            return await recorded_pauses(session, queues)

    for _ in range(_TRIES):
        if await copy_pauses(redis, queues, recorded):
            return
    raise QueueUnavailableError("others change the same all the time; the relay of a worker will write it")
