"""Sees that Redis really tells of changes, before anybody relies on it. Knows no queue.

A server may accept ``CLIENT TRACKING`` and track nothing (Dragonfly with ``NOLOOP``), and a proxy may swallow what was
not asked for. Whoever waits would then find jobs and results by safety looks alone, many seconds late. So a key is read
on the connection that tracks and changed on another, and word of it must come. Once for each connection, and nobody
waits for it: at worst, the first job or result is late by as much as the proof may last.

The key is one of a job that does not exist, because that is what everybody may write who enqueues or works, and lasts
for a millisecond. It is read with ``EXISTS``, to which the right to write is enough.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import timedelta
from threading import Lock
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from arqonce.connection.direct import DirectConnection
from arqonce.wire.keys import JOB_KEY

PROOF_LIMIT = timedelta(seconds=1)
"""How long word of the change may take: many round trips."""

LINGER = timedelta(seconds=30)
"""How long the connection on which results are waited for is kept when nobody waits."""

RECONNECT_PAUSES = (0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts to look when the connection is lost; after the last one, Redis is unavailable."""

NOT_TOLD = "it accepts CLIENT TRACKING and tells of no changes"

_AGAIN = timedelta(minutes=1)
"""After how long it is tried again where it has failed: it may have been a hiccup."""

_was_told = False
_telling = Lock()  # threads share the blocking client

_log = logging.getLogger("arqonce.connection.tracking")


def tell_once(reason: object) -> None:
    """Log why results are looked for, once in a process."""
    global _was_told  # noqa: PLW0603 - as it says
    with _telling:
        if _was_told:
            return
        _was_told = True
    cure = "connect without the proxy, or use Redis or Valkey itself"
    _log.warning("Redis tells of no results, so they are looked for instead: %s. Cure: %s", reason, cure)


def proof_key() -> str:
    """Return a key of our own for one proof."""
    return f"{JOB_KEY}{uuid4().hex}"


class TrackingProof:
    """Whether the changes that a connection tracks are told."""

    def __init__(self, direct: DirectConnection, redis: Redis, on_failure: Callable[[], None]) -> None:
        """Prove nothing yet. The key is read on ``direct``, and written on one beside."""
        self._direct = direct
        self._redis = redis
        self._on_failure = on_failure
        self._key = proof_key()
        self._is_told = asyncio.Event()
        self._proving: asyncio.Task[None] | None = None
        self._wire: object = None
        self._due = 0.0
        self.failure: Exception | None = None
        """Why the changes are not relied on; ``None`` while nothing is known against it."""

    def begin(self, wire: object) -> None:
        """Prove it for this connection, unless that was done; again after a minute, if it has failed."""
        if wire is self._wire and (self.failure is None or asyncio.get_running_loop().time() < self._due):
            return
        if wire is not self._wire:
            self._wire, self.failure = wire, None
            self.close()
        if self._direct.is_tracking:
            self._put_off()
            self._proving = asyncio.create_task(self._prove(), name="prove tracking")

    def _put_off(self) -> None:
        self._due = asyncio.get_running_loop().time() + _AGAIN.total_seconds()

    def hear(self, keys: Collection[bytes] | None) -> None:
        """Take note of keys that have changed."""
        if keys is not None and self._key.encode() in keys:
            self._is_told.set()

    def fail(self, reason: str) -> None:
        """Do not rely on changes being told, for the next minute."""
        self.failure = ResponseError(reason)
        self._put_off()
        self._on_failure()

    async def _prove(self) -> None:
        self._is_told.clear()
        beside = DirectConnection(self._redis)
        try:
            await self._direct.call("EXISTS", self._key)
            await beside.call("SET", self._key, "", "PX", 1)
            async with asyncio.timeout(PROOF_LIMIT.total_seconds()):
                await self._is_told.wait()
        except TimeoutError:
            self.fail(NOT_TOLD)
        except (RedisError, OSError):
            pass  # it is gone, or the key is not ours to write: nothing was shown
        else:
            self.failure = None
        finally:
            await beside.aclose()

    def close(self) -> None:
        """Prove nothing any more."""
        if self._proving is not None and not self._proving.cancelling():  # a second one would break off its cleaning up
            self._proving.cancel()

    async def aclose(self) -> None:
        """Do the same, and return when the connection beside is closed."""
        self.close()
        if self._proving is not None:
            await asyncio.gather(self._proving, return_exceptions=True)
