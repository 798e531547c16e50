"""Lets a chore that fails end nothing: the main loop claims on, and the chore is tried again."""

import time
from datetime import timedelta

import structlog
from redis.exceptions import RedisError

from arqonce.engine.options import Chores

_AGAIN = timedelta(seconds=10)
"""How long a chore that has failed is not tried again."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.chores")


class ContainedChores:
    """Chores, none of whose faults ends the worker: what they read may have been written by anybody.

    An error of Redis is raised: the engine waits for it. Any other is logged; they are tried again after 10 s.
    """

    def __init__(self, chores: Chores) -> None:
        """Do these."""
        self._chores = chores
        self._not_before = 0.0

    async def do(self) -> None:
        """Do what is due."""
        if self._wait() > 0:
            return
        try:
            await self._chores.do()
        except (RedisError, OSError):
            raise
        except Exception:  # noqa: BLE001 - see above
            self._not_before = time.monotonic() + _AGAIN.total_seconds()
            _log.exception("a chore has failed, and is tried again", chore=type(self._chores).__name__)

    def due_in(self) -> float:
        """Return in how many seconds something is due."""
        return max(self._chores.due_in(), self._wait())

    def hurry(self) -> None:
        """Do everything the next time, also after a fault."""
        self._not_before = 0.0
        self._chores.hurry()

    def _wait(self) -> float:
        return self._not_before - time.monotonic()
