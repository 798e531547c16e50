"""Takes away from runs that do not end whatever they could still have an effect with."""

import asyncio
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

_LIMIT = timedelta(seconds=3)
"""Longest end of a connection."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.abandoned")


class Abandoned:
    """The tasks whose outcome nobody waits for any more, and the sessions of all tasks that run jobs."""

    def __init__(self) -> None:
        """Begin with none."""
        self._sessions: WeakKeyDictionary[asyncio.Task[Any], AsyncSession] = WeakKeyDictionary()
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()

    def note_session(self, session: AsyncSession) -> None:
        """Remember the session of the current task, for ``disconnect``."""
        if (task := asyncio.current_task()) is not None:
            self._sessions[task] = session

    @property
    def has_current(self) -> bool:
        """Whether nobody wants to know the outcome of the current task."""
        return bool(self._tasks) and asyncio.current_task() in self._tasks

    async def disconnect(self, task: "asyncio.Task[Any]") -> None:
        """Close the connection of a task that does not end, so that it cannot commit. Its outcome is ignored."""
        self._tasks.add(task)
        if (session := self._sessions.get(task)) is None:
            return
        try:
            async with asyncio.timeout(_LIMIT.total_seconds()):
                await session.invalidate()
        except Exception as error:  # noqa: BLE001 - the connection may be in use: then the receipt decides
            _log.warning("the transaction of an abandoned job could not be ended", exc_info=error)
