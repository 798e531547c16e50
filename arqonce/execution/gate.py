"""Knows whether PostgreSQL can be reached and written to. Otherwise no job is claimed and no attempt counts."""

import asyncio
import math
import time
from contextlib import suppress
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.faults import may_be_outage, why_not_written, why_unavailable
from arqonce.ledger.probe import require_written
from arqonce.trouble import AwayTime

_PROBE_LIMIT = timedelta(seconds=2)
"""How long the server may take to answer before it counts as unreachable."""

_LOOK = timedelta(milliseconds=500)

_GONE = "PostgreSQL is gone: waiting for it"
_UNWRITABLE = "PostgreSQL cannot be written to: waiting until it can"

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.gate")


class DatabaseGate:
    """Closed while PostgreSQL cannot be reached or written to."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        """Begin open: start-up has just written to the server."""
        self._sessions = sessions
        self._lock = asyncio.Lock()
        self._asked_at = self._closed_at = -math.inf
        self._trouble: tuple[str, str] | None = None
        self.away = AwayTime()

    @property
    def is_open(self) -> bool:
        """Whether the last probe could write to the server."""
        return self._trouble is None

    @property
    def trouble(self) -> str | None:
        """Why the server cannot be written to; ``None`` while it can."""
        if self._trouble is None:
            return None
        event, reason = self._trouble
        return f"cannot be written to: {reason}" if event == _UNWRITABLE else f"cannot be used: {reason}"

    async def check(self) -> bool:
        """Probe the server, open or close the gate accordingly, and return whether it is open. A few round trips.

        Concurrent callers share one probe, if it begins after their call.
        """
        now = time.monotonic()
        async with self._lock:
            if self._asked_at < now:
                asked_at = time.monotonic()
                self._note(await self._find_trouble())
                self._asked_at = asked_at  # not before: a probe that is cancelled answers nobody
        return self.is_open

    async def wait(self, longest: timedelta) -> None:
        """Return when the server can be written to, or after ``longest``. Probes it twice a second while it cannot."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest.total_seconds()):
                while not (self.is_open or await self.check()):  # noqa: ASYNC110 - the server announces nothing
                    await asyncio.sleep(_LOOK.total_seconds())

    async def explains(self, error: BaseException, *, since: float) -> bool:
        """Return whether an outage caused the failure: the present one, or one that ended after ``since``.

        ``since`` is the start of the attempt, by ``time.monotonic()``. Probes the server only if the error looks like
        an outage.
        """
        return may_be_outage(error) and (not await self.check() or self._closed_at >= since)

    def _note(self, trouble: tuple[str, str] | None) -> None:
        """Log changes, not each probe. While the server is unreachable, a new reason is no change: it varies."""
        known = self._trouble or ("", "")
        if trouble is not None and (trouble[0] != known[0] or (trouble[0] == _UNWRITABLE and trouble != known)):
            event, reason = trouble
            _log.error(event, reason=reason)
        if trouble is None and self._trouble is not None:
            _log.info("PostgreSQL is back" if self._trouble[0] == _GONE else "PostgreSQL can be written to again")
        if trouble is not None or self._trouble is not None:
            self._closed_at = time.monotonic()
        self._trouble = trouble
        self.away.note(is_away=trouble is not None)

    async def _find_trouble(self) -> tuple[str, str] | None:
        try:
            async with asyncio.timeout(_PROBE_LIMIT.total_seconds()), self._sessions() as session:
                await require_written(session)
        except Exception as error:  # noqa: BLE001 - after any error nothing was written
            if reason := why_not_written(error):
                return _UNWRITABLE, reason
            return _GONE, why_unavailable(error)
        return None
