"""Announces from time to time that this worker serves its queues (``connection.presence``)."""

import math
import time
from collections.abc import Sequence

from redis.asyncio import Redis

from arqonce.connection.presence import ANNOUNCED_EVERY, LiveWorker, announce, withdraw


class Presence:
    """The chore of one worker. Its methods raise redis-py's errors."""

    def __init__(self, redis: Redis, queues: Sequence[str]) -> None:
        """Announce nothing yet."""
        self._redis = redis
        self.worker = LiveWorker.here(queues)
        self._due = -math.inf

    async def do(self) -> None:
        """Announce the worker if that is due."""
        if self.due_in() <= 0:
            await announce(self._redis, self.worker)
            self._due = time.monotonic() + ANNOUNCED_EVERY.total_seconds()

    def due_in(self) -> float:
        """Return in how many seconds it is due."""
        return self._due - time.monotonic()

    def hurry(self) -> None:
        """Announce it the next time: Redis may have been emptied."""
        self._due = -math.inf

    async def end(self) -> None:
        """Say that the worker has ended."""
        await withdraw(self._redis, self.worker)
