"""Measures how late the event loop runs its timers, which is how long something else has blocked it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from arqonce.metrics import families
from arqonce.metrics.store import Store

EVERY = timedelta(milliseconds=250)
"""Interval of the timer. A block that is shorter may fall between two."""

_WINDOW = 60.0
"""Length of a window, in seconds. The longest lag of the current window and the one before it is shown."""


class LoopLag:
    """The timer of one loop."""

    def __init__(self, store: Store) -> None:
        """Measure nothing yet."""
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._place = store.place(families.LAG)
        self._longest = [0.0, 0.0]
        self._window_ends = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.on_turn: Callable[[], None] = lambda: None
        """Called at each turn of the timer."""

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure until the end."""
        self._due = time.monotonic()
        self._turn()
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _turn(self) -> None:
        now = time.monotonic()
        lag = max(0.0, now - self._due)
        self._store.observe(self._place, families.LAG, lag)
        if now >= self._window_ends:
            self._longest = [0.0, self._longest[0]]
            self._window_ends = now + _WINDOW
        self._longest[0] = max(self._longest[0], lag)
        self._store.set(families.LONGEST_BLOCK, max(self._longest))
        self._store.beat(now)
        self._due = now + EVERY.total_seconds()
        self._timer = self._loop.call_later(EVERY.total_seconds(), self._turn)
        self.on_turn()  # last: whatever it raises, the loop turns
