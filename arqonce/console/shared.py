"""An answer that costs much, made once for all who ask at the same time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Makes one answer at a time, and gives it to all who ask while it is fresh."""

    def __init__(self, fresh: timedelta, now: Callable[[], float] = time.monotonic) -> None:
        """Have none yet."""
        self._fresh = fresh.total_seconds()
        self._now = now
        self._lock = asyncio.Lock()
        self._made_at = -float("inf")
        self._last: T | None = None

    async def get(self, make: Callable[[], Awaitable[T]]) -> T:
        """Return the last answer, or a new one."""
        async with self._lock:
            if self._last is None or self._now() - self._made_at >= self._fresh:
                self._last = await make()
                self._made_at = self._now()
            return self._last
