"""How many bytes of messages go in one transaction: fewer, while a slow network or server has no time for them all."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

_LEAST = 64 * 1024
"""Bytes after a transaction that took too long: one large message, or hundreds of the usual ones. Fewer would help no
network, and where each commit is slow, as with a standby far away, it would stay at a few messages a second."""

_FAST = 0.25
"""The share of its limit within which a transaction allows the next one to be twice as large."""


class Portion:
    """About how many bytes of messages the next transaction is to have."""

    def __init__(self, limit: timedelta, *, most: int, late: tuple[type[Exception], ...] = (TimeoutError,)) -> None:
        """Begin with the ``most``. ``limit`` is how long one may take; ``late`` is raised if one takes longer."""
        self.bytes = self._most = most
        self._fast = limit.total_seconds() * _FAST
        self._late = late

    @contextmanager
    def measured(self) -> Iterator[int]:
        """Yield the number of bytes. Learn from how long the block takes, and from its timeouts."""
        began = time.monotonic()
        try:
            yield self.bytes
        except self._late:
            self.bytes = _LEAST
            raise
        if time.monotonic() - began < self._fast:
            self.bytes = min(self._most, 2 * self.bytes)
