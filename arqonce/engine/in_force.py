"""Records in Redis, every 15 s, which limits the code of this worker has (``scripts.limits``)."""

import math
import time
from collections.abc import Mapping
from datetime import timedelta

from arqonce.engine.leases import Leases

_EVERY = timedelta(seconds=15)
"""The record expires after a minute: a worker may miss three turns."""


class LimitsInForce:
    """The chore of one worker. Raises redis-py's errors."""

    def __init__(self, leases: Leases, limits: Mapping[str, str]) -> None:
        """``limits`` are those of ``limits.in_force``."""
        self._leases = leases
        self._limits = limits
        self._due = -math.inf

    async def do(self) -> None:
        """Record the limits if that is due."""
        if self.due_in() <= 0:
            await self._leases.keep_in_force(self._limits)
            self._due = time.monotonic() + _EVERY.total_seconds()

    def due_in(self) -> float:
        """Return in how many seconds it is due."""
        return self._due - time.monotonic() if self._limits else math.inf

    def hurry(self) -> None:
        """Record them the next time: Redis may have been emptied."""
        self._due = -math.inf
