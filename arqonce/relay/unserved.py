"""Names queues in which promised jobs wait although no worker serves them: a misspelt name, or a forgotten worker."""

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.presence import unserved
from arqonce.ledger.outbox import is_owed, queues_behind

BEHIND = timedelta(minutes=1)
"""How long a job must have waited before its queue is looked at: workers and relays may just be starting."""

_LOOK_EVERY = timedelta(minutes=1)

_TELL_EVERY = timedelta(minutes=10)
"""How often the same queue is logged."""

_MOST_TOLD = 20
"""Queues that are logged in ten minutes: producers choose their names."""

_LOOK_LIMIT = timedelta(seconds=5)

CURE = "name the queue in the WORKER_QUEUE of a worker, or correct the name where jobs are enqueued"

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.relay.unserved")


async def waiting_unserved(redis: Redis, session: AsyncSession, queues: Sequence[str]) -> list[str]:
    """Return the queues in which promised jobs have waited for a minute and that no worker serves.

    ``queues`` have a relay, perhaps without a worker: their jobs are in Redis. All others have neither. Up to four
    round trips to Redis, one to PostgreSQL, and one more for each of ``queues`` that nobody serves.
    """
    behind = dict.fromkeys(await queues_behind(session, BEHIND))
    missing = await unserved(redis, [*behind | dict.fromkeys(queues)])
    return [queue for queue in missing if queue in behind or await is_owed(session, queue, BEHIND)]


class UnservedQueues:
    """Logs such queues, at most once in ten minutes each, and twenty of them in that time."""

    def __init__(self, redis: Redis, sessions: async_sessionmaker[AsyncSession], queues: Sequence[str]) -> None:
        """Look at nothing yet."""
        self._redis = redis
        self._sessions = sessions
        self._queues = queues
        self._due = -math.inf
        self._told: dict[str, float] = {}

    async def look(self) -> None:
        """Look if a minute has passed since the last look. The relay itself reports outages."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _LOOK_EVERY.total_seconds()
        with suppress(RedisError, SQLAlchemyError, OSError):
            async with asyncio.timeout(_LOOK_LIMIT.total_seconds()), self._sessions() as session:
                found = await waiting_unserved(self._redis, session, self._queues)
            self._told = {queue: at for queue, at in self._told.items() if now < at + _TELL_EVERY.total_seconds()}
            untold = [queue for queue in found if queue not in self._told][: _MOST_TOLD - len(self._told)]
            for queue in untold:
                self._told[queue] = now
                _log.warning("jobs wait in a queue that no worker serves", queue=queue, cure=CURE, queues=len(found))
