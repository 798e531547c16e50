"""What the parts of a worker know of its idleness. Knows no server.

A worker with jobs is busy. One that **rests** leaves to others what one of all workers with its queues does for all. It
rests while it stands by for jobs, and others with the same queues watch and stand ready to take over
(``engine.idle``). So an idle fleet costs hardly more than two workers.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta


class Rest:
    """The rest of one worker. One that nobody puts to rest never rests, and counts as busy."""

    def __init__(self) -> None:
        """Begin awake."""
        self.is_busy: Callable[[], bool] = lambda: True
        """Returns whether the worker has jobs. The engine sets it."""
        self.on_jobs: Callable[[], None] = lambda: None
        """Called when the worker has claimed jobs, before they start."""
        self.is_on = False
        """Whether the worker rests."""
        self.stands_by = False
        """Whether another worker watches for this one. The engine sets it."""
        self._over = asyncio.Event()
        self._stirs = 0

    @property
    def is_left_to_others(self) -> bool:
        """Whether the worker has no job, and another one watches, which does what must be done often."""
        return self.stands_by and not self.is_busy()

    def begin(self) -> None:
        """Rest from now on."""
        self.is_on = True
        self._over.clear()

    def end(self) -> None:
        """Rest no more."""
        self.is_on = False
        self._over.set()

    def stir(self) -> None:
        """Wake whoever sleeps, once: something is wrong that those who do not rest have noticed."""
        self._stirs += 1
        self._over.set()
        if self.is_on:
            self._over.clear()

    async def sleep(self, usual: timedelta, longest: timedelta) -> None:
        """Sleep for ``usual`` or, while the worker rests, for ``longest``.

        When the rest ends, or is disturbed, sleep for ``usual`` from then.
        """
        loop = asyncio.get_running_loop()
        until, stirs = loop.time() + longest.total_seconds(), self._stirs
        await asyncio.sleep(usual.total_seconds())
        while self.is_on and self._stirs == stirs and loop.time() < until:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._over.wait()
                    await asyncio.sleep(usual.total_seconds())
