"""Keeps attempts that failed on record, beside the jobs: it delays none, and a storm of failures does not double it.

What fails is collected and written together, at most once a second. While the database is away it waits in memory; what
does not fit is dropped, and counted in the log. An attempt that ends as a dead letter is written with the letter.
"""

import asyncio
import math
import os
import socket
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import islice

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.background import running
from arqonce.database.faults import may_be_outage, sqlstate_of
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.diagnosis import diagnose
from arqonce.execution.gate import DatabaseGate
from arqonce.execution.verdict import RetryLater
from arqonce.failures import failure_to_wire, storable
from arqonce.job import RetryAfter
from arqonce.ledger.attempts import FailedAttempt, insert_attempts

_EVERY = timedelta(seconds=1)
_TOGETHER = 500
"""Most attempts in one statement: some 10 ms in PostgreSQL."""

_MOST = 2000
"""So many wait in memory, some MB."""

_LIMIT = timedelta(seconds=3)
"""Longest write."""

_LAST_LIMIT = timedelta(seconds=1)
"""Longest write at the worker's end."""

_TELL_EVERY = timedelta(minutes=1)

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.history")


class History:
    """Collects failed attempts, and writes them while ``writing``."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], gate: DatabaseGate, queue: str) -> None:
        """Write nothing while the ``gate`` is closed. Jobs whose queue is unknown come from this ``queue``."""
        self._sessions = sessions
        self._gate = gate
        self._queue = queue
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._waiting: deque[FailedAttempt] = deque()
        self._noted = asyncio.Event()
        self._dropped = 0
        self._told = -math.inf

    def note(
        self, spec: AnySpec, delivery: Delivery, error: BaseException, later: RetryLater, *, started: float
    ) -> None:
        """Write soon that an attempt has failed just now. No round trip. ``started`` is by ``time.monotonic()``.

        A handler that waits for something with ``RetryAfter(counts=False)`` has not failed.
        """
        if later.counts or not isinstance(error, RetryAfter):
            failed = self.last_attempt(spec, delivery, error, started=started)
            self.add(failed._replace(retry_in=later.delay, counted=later.counts))

    def last_attempt(self, spec: AnySpec, delivery: Delivery, error: BaseException, *, started: float) -> FailedAttempt:
        """Describe a job's last attempt, which has failed just now, to be written with the dead letter."""
        where = {"job_id": delivery.job_id, "job_name": spec.name, "queue": delivery.queue or self._queue}
        return self.describe(error, **where, attempt=delivery.attempt, started=started)

    def describe(  # noqa: PLR0913 - the facts of an attempt
        self, error: BaseException, *, job_id: str, job_name: str, queue: str, attempt: int, started: float
    ) -> FailedAttempt:
        """Describe an attempt that has failed just now, and is the last one, without personal data."""
        return FailedAttempt(
            job_id=job_id,
            attempt=attempt,
            job_name=storable(job_name),
            queue=storable(queue),
            code=failure_to_wire(error)["type"],
            sqlstate=sqlstate_of(error),
            error=storable(f"RetryAfter: {error.reason}") if isinstance(error, RetryAfter) else diagnose(error),
            worker=self._worker,
            started=started,
            failed=time.monotonic(),
            counted=True,
            retry_in=None,
        )

    def add(self, attempt: FailedAttempt) -> None:
        """Write the attempt soon, or drop it if too many are waiting. No round trip."""
        if len(self._waiting) >= _MOST:
            self._dropped += 1
            return
        self._waiting.append(attempt)
        self._noted.set()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write in the background until the end, and then for a second what is left."""
        async with running(self._write_forever, name="history"):
            yield
        until, left = time.monotonic() + _LAST_LIMIT.total_seconds(), _MOST + 1
        while 0 < len(self._waiting) < left and time.monotonic() < until:
            left = len(self._waiting)
            await self._write(_LAST_LIMIT)
        self._dropped += len(self._waiting)
        self._told = -math.inf
        self._tell()

    async def _write_forever(self) -> None:
        while True:
            await self._noted.wait()
            self._noted.clear()
            if self._gate.is_open:
                await self._write(_LIMIT)
            self._tell()
            await asyncio.sleep(_EVERY.total_seconds())
            if self._waiting:
                self._noted.set()

    async def _write(self, limit: timedelta) -> None:
        """Write what has waited longest. In an outage it goes on waiting; what the database refuses is dropped."""
        together = list(islice(self._waiting, _TOGETHER))
        reason: str | None = None
        try:
            async with asyncio.timeout(limit.total_seconds()), self._sessions.begin() as session:
                await insert_attempts(session, together)
        except (SQLAlchemyError, OSError) as error:
            if may_be_outage(error):
                return
            reason = diagnose(error)
            self._dropped += len(together)
        for _ in together:
            self._waiting.popleft()
        if reason is not None:
            self._tell(reason)

    def _tell(self, reason: str = "too many at once, or PostgreSQL was away") -> None:
        now = time.monotonic()
        if self._dropped and now - self._told >= _TELL_EVERY.total_seconds():
            _log.warning("failed attempts are not on record", count=self._dropped, reason=reason)
            self._dropped, self._told = 0, now
