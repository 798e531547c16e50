"""Renews the leases of one engine while it has claims, also while its event loop is blocked (``guard``)."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from redis.exceptions import RedisError

from arqonce.engine.guard import LeaseGuard
from arqonce.engine.queue import Queue
from arqonce.engine.runs import Runs


class Heartbeat:
    """Sleeps while there are no claims."""

    def __init__(self, leases: Queue, length: timedelta, runs: Runs) -> None:
        """Renew nothing yet."""
        self._leases = leases
        self._runs = runs
        self._every = length.total_seconds() / 3
        self._guard = LeaseGuard(leases, length, runs.recorder.all_claims, runs.running.longest_limit)
        self._has_claims = asyncio.Event()

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            if not self._runs.claims:
                self._has_claims.clear()
                await self._has_claims.wait()
            await asyncio.sleep(self._every)
            self._guard.beat()
            with suppress(RedisError, OSError):  # the main loop logs it
                await self._leases.renew(list(self._runs.claims))

    def start(self) -> None:
        """Start the thread of the guard."""
        self._guard.start()

    def wake(self) -> None:
        """Note that there are claims. They must be kept by now: whoever looks for claims finds them."""
        self._guard.wake()
        self._has_claims.set()

    def stop(self) -> None:
        """End the thread of the guard, and do not wait for it."""
        self._guard.stop()
