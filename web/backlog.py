"""Back-pressure: measures the queue, and refuses jobs when it is at its limit."""

import time
from datetime import timedelta

from redis.asyncio import Redis

from arqonce.connection.redis import explained
from web.problems import unavailable

_FRESH = timedelta(milliseconds=200)
"""How long a count is reused. Jobs accepted during this time may exceed the limit."""


class Backlog:
    """The queue's length, at most 200 ms old: waiting, deferred and running jobs."""

    def __init__(self, redis: Redis, url: str, queue: str, *, most: int) -> None:
        """Store the client and the limit; counts nothing yet. ``url`` is only for errors."""
        self._redis, self._url, self._queue, self._most = redis, url, queue, most
        self._length = 0
        self._fresh_until = 0.0

    async def require_room(self) -> None:
        """Refuse a job if the queue is too long. One round trip; none while the last count is fresh.

        Raises:
            ProblemError: 503, the queue is too long.
            QueueUnavailableError: Redis cannot be reached.
        """
        if time.monotonic() >= self._fresh_until:
            with explained(self._url):
                self._length = await self._redis.zcard(self._queue)
            self._fresh_until = time.monotonic() + _FRESH.total_seconds()
        if self._length >= self._most:
            raise unavailable("too many jobs are queued", "queue_full")
