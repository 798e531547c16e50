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

from arqonce.connection.pauses import FOR_EVER, Paused, copy_pauses, read_texts
from arqonce.database.faults import is_denied
from arqonce.ledger.pauses import WHOLE, list_pauses
from arqonce.ledger.tables import Pause
from arqonce.wire.keys import now_ms

_EVERY = timedelta(seconds=1)
"""Shortest time between two looks at Redis. Commands write into it themselves; this is for one that was emptied."""

_RECORD_EVERY = timedelta(seconds=5)
"""How often PostgreSQL is read although Redis says the same as before: a command may have been killed in between."""

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
        self._due = self._record_due = -math.inf
        self._texts: Sequence[object] = ()
        self._ends: Sequence[int] = ()
        self._is_told = False

    def hurry(self) -> None:
        """Copy them the next time: Redis may have been emptied."""
        self._due = self._record_due = -math.inf

    async def look(self, *, is_first: bool) -> None:
        """Copy them at the first look and after ``hurry``; else see to them if a second has passed and ``is_first``.

        ``is_first`` says whether this relay does what one of all relays with these queues has to do. One round trip to
        Redis; some more, and one to PostgreSQL, every five seconds and when Redis has changed or a pause has ended.
        """
        now = time.monotonic()
        if now < self._due or not (is_first or self._due == -math.inf):
            return
        if now >= self._record_due or self._has_ended() or self._texts != await self._read():
            is_copied = await copy_pauses(self._redis, self._queues, self._recorded)
            self._texts = await self._read() if is_copied else ()
            self._record_due = now + _RECORD_EVERY.total_seconds()
        self._due = now + _EVERY.total_seconds()

    def _has_ended(self) -> bool:
        return any(till <= now_ms() for till in self._ends)

    async def _read(self) -> list[object]:
        return await read_texts(self._redis, self._queues)

    async def _recorded(self) -> Mapping[str, Paused]:
        recorded = await self._read_recorded()
        tills = [till for paused in recorded.values() for till in (paused.till, *paused.kinds.values())]
        self._ends = [till for till in tills if till > 0]
        return recorded

    async def _read_recorded(self) -> Mapping[str, Paused]:
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
