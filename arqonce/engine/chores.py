"""Lets a chore that fails end nothing: the main loop claims on, and the chore is tried again."""

import time
from datetime import timedelta

import structlog
from redis.exceptions import RedisError

from arqonce.engine.options import Chores

_REST = timedelta(seconds=10)
"""How long a chore that has failed rests."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.chores")


class ContainedChores:
    """Chores, none of whose faults ends the worker: what they read may have been written by anybody.

    An error of Redis is raised: the engine waits for it. Any other is logged, and the chores rest for 10 s.
    """

    def __init__(self, chores: Chores) -> None:
        """Do these."""
        self._chores = chores
        self._rests_until = 0.0

    async def do(self) -> None:
        """Do what is due."""
        if self._rest() > 0:
            return
        try:
            await self._chores.do()
        except (RedisError, OSError):
            raise
        except Exception:  # noqa: BLE001 - see above
            self._rests_until = time.monotonic() + _REST.total_seconds()
            _log.exception("a chore has failed, and is tried again", chore=type(self._chores).__name__)

    def due_in(self) -> float:
        """Return in how many seconds something is due."""
        return max(self._chores.due_in(), self._rest())

    def hurry(self) -> None:
        """Do everything the next time, also after a fault."""
        self._rests_until = 0.0
        self._chores.hurry()

    def _rest(self) -> float:
        return self._rests_until - time.monotonic()
