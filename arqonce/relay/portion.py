"""How much a relay reads in one dispatch: less, while a slow network or server has no time for all of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from redis.exceptions import TimeoutError as RedisTimeoutError

_MOST = 8 * 1024 * 1024
"""Bytes of messages: 500 of the largest would take a relay 2 GB."""

_LEAST = 1024
"""Likewise, after a dispatch that took too long. At least one job of each queue is read."""

_FAST = 0.25
"""The share of its limit within which a dispatch allows the next one to be twice as large."""


class Portion:
    """About how many bytes of messages the next dispatch reads, of all queues together."""

    def __init__(self, limit: timedelta) -> None:
        """Begin with the most. ``limit`` is how long a dispatch may take."""
        self.bytes = _MOST
        self._fast = limit.total_seconds() * _FAST

    @contextmanager
    def read(self) -> Iterator[int]:
        """Yield the number of bytes. Learn from how long the block takes, and from its timeouts in either server."""
        began = time.monotonic()
        try:
            yield self.bytes
        except (TimeoutError, RedisTimeoutError):
            self.bytes = _LEAST
            raise
        if time.monotonic() - began < self._fast:
            self.bytes = min(_MOST, 2 * self.bytes)
