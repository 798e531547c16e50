"""Wakes a relay as soon as a transaction has promised a job. Knows PostgreSQL's notifications, not the relay."""

import asyncio
import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import asyncpg
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from arqonce.background import running
from arqonce.rest import Rest

_CHANNEL = "job_outbox"
"""The channel that ``arqonce/outbox.py`` notifies, with the queue's name as payload."""

_CHECK_EVERY = timedelta(seconds=2)
"""How often the listener checks its connection."""

_TRY_EVERY = timedelta(seconds=5)
"""Longest time until a process tries again to become the listener; random, from half of it. All poll meanwhile."""

_TRY_AT_REST = timedelta(hours=1)
"""The same while the worker rests: it then tries when the rest ends."""

_LIMIT = timedelta(seconds=2)
"""Longest wait for a response. A dead connection is detected within 4 s."""

_FIRST = "SELECT pg_try_advisory_lock(hashtextextended('arqonce relay ' || $1::text, 0))"

_LOST = (SQLAlchemyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.relay.listener")


class Wakeup:
    """Wakes one process of the fleet when a job of the queues is promised, so that not all query at each commit.

    It is one of all that have the same queues, in whatever order. It holds an advisory lock and a connection of the
    pool. If it is stopped or unreachable, no process is woken until PostgreSQL closes its session, which may never
    happen. So every relay must also poll.
    """

    def __init__(self, engine: AsyncEngine, queues: Collection[str], rest: Rest | None = None) -> None:
        """Listen to nothing yet. One that listens does not rest, whatever its worker does."""
        self._rest = rest or Rest()
        self._engine = engine
        self._queues = frozenset(queues)
        self._rung = asyncio.Event()
        self.is_listening = False

    async def wait(self, usual: timedelta, at_rest: timedelta) -> None:
        """Wait for a notification, at most for ``usual``. Return at once if one has come since the last call.

        At most for ``at_rest``, if the worker rests, and then for ``usual`` from when the rest ends.
        """
        sleep = self._rest.sleep(usual, usual if self.is_listening else at_rest)
        pauses = asyncio.ensure_future(self._rung.wait()), asyncio.ensure_future(sleep)
        try:
            await asyncio.wait(pauses, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pause in pauses:
                pause.cancel()
        self._rung.clear()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen, or wait to become the listener, until the end."""
        async with running(self._take_turns, name="wakeup"):
            yield

    async def _take_turns(self) -> None:
        while True:
            try:
                async with self._engine.connect() as connection:
                    await self._listen_if_first(connection)
            except _LOST as error:
                _log.debug("not listening", exc_info=error)  # the relay, which polls anyway, reports the outage
            await self._rest.sleep(_TRY_EVERY * random.uniform(0.5, 1), _TRY_AT_REST)  # noqa: S311 - no secret

    async def _listen_if_first(self, connection: AsyncConnection) -> None:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        if not await driver.fetchval(_FIRST, ",".join(sorted(self._queues)), timeout=_LIMIT.total_seconds()):
            return
        try:
            await self._listen(driver)
        finally:
            self.is_listening = False
            await connection.invalidate()  # closes it: the lock ends with the session

    async def _listen(self, driver: Any) -> None:  # noqa: ANN401 - asyncpg ships no types
        closed = asyncio.Event()
        driver.add_termination_listener(lambda _connection: closed.set())
        async with asyncio.timeout(_LIMIT.total_seconds()):
            await driver.add_listener(_CHANNEL, self._hear)
        self.is_listening = True
        self._rung.set()  # for jobs promised before we listened
        while not closed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_EVERY.total_seconds()):
                    await closed.wait()
            if await driver.fetchval("SELECT pg_is_in_recovery()", timeout=_LIMIT.total_seconds()):
                return  # a standby: new jobs are promised on the primary

    def _hear(self, _connection: object, _process: int, _channel: str, queue: object) -> None:
        if queue in self._queues:
            self._rung.set()
