"""Sees that Redis really tells of changes, before a worker relies on it. Knows no queue.

A server may accept ``CLIENT TRACKING`` and track nothing (Dragonfly with ``NOLOOP``), and a proxy may swallow what was
not asked for. An idle worker would then find jobs by its safety looks alone, seconds late. It cannot wait for a first
job to show that; so a key of its own is read on the connection that tracks and changed on another, and word of it must
come. Once for each connection; claims go on meanwhile, so at worst the first job waits for as long as the proof may.
"""

import asyncio
from collections.abc import Callable, Collection
from datetime import timedelta
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from jobs.direct import DirectConnection

_LIMIT = timedelta(seconds=1)
"""How long word of the change may take: many round trips."""

_AGAIN = timedelta(minutes=1)
"""After how long a worker that polls tries again: it may have been a hiccup."""


class TrackingProof:
    """Whether the changes that a connection tracks are told."""

    def __init__(self, direct: DirectConnection, redis: Redis, on_failure: Callable[[], None]) -> None:
        """Prove nothing yet. The key is read on ``direct`` and written by ``redis``."""
        self._direct = direct
        self._redis = redis
        self._on_failure = on_failure
        self._key = f"users-worker:tracking:{uuid4().hex}"
        self._is_told = asyncio.Event()
        self._proving: asyncio.Task[None] | None = None
        self._wire: object = None
        self._due = 0.0
        self.failure: Exception | None = None
        """Why the changes are not relied on; ``None`` while nothing is known against it."""

    def begin(self, wire: object) -> None:
        """Prove it for this connection, unless that was done; not longer ago than a minute, if it has failed."""
        is_new = wire is not self._wire
        if not is_new and (self.failure is None or asyncio.get_running_loop().time() < self._due):
            return
        if is_new:
            self._wire, self.failure = wire, None
        if self._direct.is_tracking and (self._proving is None or self._proving.done()):
            self._due = asyncio.get_running_loop().time() + _AGAIN.total_seconds()
            self._proving = asyncio.create_task(self._prove(wire), name="prove tracking")

    def hear(self, keys: Collection[bytes] | None) -> None:
        """Take note of keys that have changed."""
        if keys is not None and self._key.encode() in keys:
            self._is_told.set()

    def fail(self, reason: str) -> None:
        """Do not rely on changes being told, for the next minute."""
        self.failure = ResponseError(reason)
        self._due = asyncio.get_running_loop().time() + _AGAIN.total_seconds()
        self._on_failure()

    async def _prove(self, wire: object) -> None:
        self._is_told.clear()
        try:
            await self._direct.call("GET", self._key)
            await self._redis.set(self._key, b"", px=_LIMIT)
            async with asyncio.timeout(_LIMIT.total_seconds()):
                await self._is_told.wait()
        except TimeoutError:
            if wire is self._wire:
                self.fail("it accepts CLIENT TRACKING and tells of no changes")
        except (RedisError, OSError):
            pass  # it is gone, or the key is not ours to write: nothing was shown
        else:
            self.failure = None

    def close(self) -> None:
        """Prove nothing any more."""
        if self._proving is not None:
            self._proving.cancel()
