"""Knows whether PostgreSQL can be reached. While it cannot, no job is claimed and no attempt counts."""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

_PROBE_LIMIT = timedelta(seconds=2)
"""How long the server may take to answer before it counts as gone."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("worker.gate")


class DatabaseGate:
    """Closed while PostgreSQL cannot be reached."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        """Begin open: the start has just reached the server."""
        self._sessions = sessions
        self.is_open = True

    async def check(self) -> bool:
        """Ask the server, open or close the gate accordingly, and say whether it is open. One round trip."""
        answers = await self._answers()
        if self.is_open and not answers:
            _log.error("PostgreSQL is gone: waiting for it")
        if answers and not self.is_open:
            _log.info("PostgreSQL is back")
        self.is_open = answers
        return answers

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_LIMIT.total_seconds()), self._sessions() as session:
                await session.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError):
            return False
        return True
