"""Copies pauses from PostgreSQL, where they are recorded, into Redis, where workers read them."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog
from redis.asyncio import Redis
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.pauses import FOR_EVER, Paused, copy_pauses
from arqonce.database.faults import is_denied
from arqonce.ledger.pauses import WHOLE, list_pauses
from arqonce.ledger.tables import Pause

_EVERY = timedelta(seconds=1)
"""Shortest time between two copies. Commands write into Redis themselves; this is for a Redis that was emptied."""

_LIMIT = timedelta(seconds=5)
"""How long a look at PostgreSQL may take, the wait for a connection included."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.relay.pauses")


async def recorded_pauses(session: AsyncSession, queues: Sequence[str]) -> Mapping[str, Paused]:
    """Return what is recorded as paused of these queues, in the form of Redis. One round trip."""
    return as_in_redis(await list_pauses(session, queues))


def as_in_redis(pauses: Sequence[Pause]) -> Mapping[str, Paused]:
    """Return pauses in the form of Redis, by queue."""
    tills: dict[str, int] = {}
    kinds: dict[str, dict[str, int]] = {}
    for pause in pauses:
        till = FOR_EVER if pause.until is None else math.ceil(pause.until.timestamp() * 1000)
        if pause.job_name == WHOLE:
            tills[pause.queue] = till
        else:
            kinds.setdefault(pause.queue, {})[pause.job_name] = till
    return {queue: Paused(tills.get(queue, 0), kinds.get(queue, {})) for queue in {*tills, *kinds}}


class PausesCopied:
    """Copies the pauses of a relay's queues again and again. Raises the errors of both servers."""

    def __init__(self, redis: Redis, sessions: async_sessionmaker[AsyncSession], queues: Sequence[str]) -> None:
        """Copy nothing yet."""
        self._redis = redis
        self._sessions = sessions
        self._queues = queues
        self._due = -math.inf
        self._is_told = False

    def hurry(self) -> None:
        """Copy them the next time: Redis may have been emptied."""
        self._due = -math.inf

    async def look(self, *, is_first: bool) -> None:
        """Copy them at the first look and after ``hurry``; else if a second has passed and ``is_first``.

        ``is_first`` says whether this relay does what one of all relays with these queues has to do.
        One round trip to each server, unless something has changed.
        """
        now = time.monotonic()
        if now < self._due or not (is_first or self._due == -math.inf):
            return
        await copy_pauses(self._redis, self._queues, self._recorded)
        self._due = now + _EVERY.total_seconds()

    async def _recorded(self) -> Mapping[str, Paused]:
        try:
            async with asyncio.timeout(_LIMIT.total_seconds()), self._sessions() as session:
                return await recorded_pauses(session, self._queues)
        except DBAPIError as error:
            if not is_denied(error):
                raise
            if not self._is_told:
                self._is_told = True
                _log.error("pauses cannot be read and are not obeyed: run deploy/postgres/grants.sql again")
            return {}
