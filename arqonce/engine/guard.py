"""Renews leases from a thread while the event loop is blocked, so that a job that blocks it keeps its lease.

A function that computes for a minute, or calls a synchronous driver, blocks the loop that renews the leases of all jobs
of its worker. Without this thread they would all start elsewhere, too, again and again. It does nothing while the loop
turns, sleeps while the worker has no job, and has a connection of its own.

It gives up when the loop has been blocked for longer than any running job may take: a worker whose loop never comes
back loses its jobs then, as one that is stopped or killed does after a lease. Code that holds the GIL for long stops
this thread as well.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta

import structlog
from redis.exceptions import RedisError

from arqonce.engine.queue import Queue
from arqonce.work import Claim

_SPARE = timedelta(seconds=10)
"""How much longer than its limit a job may block the loop before the leases are given up, as in arq."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.guard")


class LeaseGuard:
    """The thread of one engine."""

    def __init__(
        self,
        leases: Queue,
        length: timedelta,
        claims: Callable[[], Collection[Claim]],
        limit: Callable[[], timedelta],
    ) -> None:
        """``claims`` and ``limit``, the longest limit of a running job, are called in the thread."""
        self._leases = leases
        self._length = length.total_seconds()
        self._claims = claims
        self._limit = limit
        self._beat_at = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._sleeps = False

    def start(self) -> None:
        """Start the thread."""
        self.beat()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, args=(self._loop,), name="lease-guard", daemon=True).start()

    def beat(self) -> None:
        """Note that the event loop turns. To be called at least three times in a lease while there are claims."""
        self._beat_at = time.monotonic()

    def wake(self) -> None:
        """Note that there are claims."""
        if self._sleeps and self._loop is not None:
            self._sleeps = False
            self.beat()
            with suppress(RuntimeError):  # the thread has ended
                self._loop.call_soon_threadsafe(self._woken.set)

    def stop(self) -> None:
        """End the thread. Does not wait for it."""
        if self._loop is not None and not self._loop.is_closed():
            with suppress(RuntimeError):  # it has just ended
                self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._task = loop.create_task(self._watch())
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(self._task)
        finally:
            loop.close()

    async def _watch(self) -> None:
        renewals = self._leases.own_renewals()
        is_given_up = False
        try:
            while True:
                await self._until_there_are_claims()
                await asyncio.sleep(self._length / 6)
                blocked = time.monotonic() - self._beat_at
                if blocked < self._length / 2:
                    is_given_up = False
                elif blocked > self._most():
                    if not is_given_up:
                        _log.error("the event loop does not come back: its jobs are left to their leases")
                    is_given_up = True
                else:
                    with suppress(RedisError, OSError):
                        await renewals.renew(self._claims())
        finally:
            renewals.close()

    async def _until_there_are_claims(self) -> None:
        self._woken.clear()
        self._sleeps = True
        if not self._claims():  # looked at after that: a claim in between wakes us, or is seen
            await self._woken.wait()
        self._sleeps = False

    def _most(self) -> float:
        return (self._limit() + _SPARE).total_seconds()
