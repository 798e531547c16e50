"""Verifies that Redis sends invalidation messages before anything relies on them. Knows no queue.

A server may accept ``CLIENT TRACKING`` and track nothing (Dragonfly with ``NOLOOP``), and a proxy may drop push
messages. Workers and clients would then find jobs and results only by their slow safety polls, many seconds late. So a
key is read on the tracking connection and changed on another, and a notification must arrive. This runs once per
connection, in the background: at worst, the first job or result is late by the time limit of the proof.

The key is that of a job that does not exist: every producer and worker may write such keys. It expires after a
millisecond. It is read with ``EXISTS``, for which the right to write is enough.
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
"""Longest wait for the notification: many round trips."""

LINGER = timedelta(seconds=30)
"""How long the connection for waits is kept open when nobody waits."""

RECONNECT_PAUSES = (0.05, 0.1, 0.2, 0.5)
"""Seconds between attempts to read after a lost connection. After the last one, Redis is considered unavailable."""

NOT_TOLD = "it accepts CLIENT TRACKING but does not report changes"

_AGAIN = timedelta(minutes=1)
"""Time after which a failed proof is repeated: the failure may have been temporary."""

_was_told = False
_telling = Lock()  # threads share the blocking client

_log = logging.getLogger("arqonce.connection.tracking")


def tell_once(reason: object) -> None:
    """Log why clients poll for results, once per process."""
    global _was_told  # noqa: PLW0603 - once per process
    with _telling:
        if _was_told:
            return
        _was_told = True
    cure = "connect without the proxy, or use Redis or Valkey itself"
    _log.warning("Redis does not report results, so clients poll for them: %s. Cure: %s", reason, cure)


def proof_key() -> str:
    """Return a unique key for one proof."""
    return f"{JOB_KEY}{uuid4().hex}"


class TrackingProof:
    """Whether Redis reports the changes that a connection tracks."""

    def __init__(self, direct: DirectConnection, redis: Redis, on_failure: Callable[[], None]) -> None:
        """Store the connections; the proof starts with ``begin``. It reads on ``direct`` and writes on another one."""
        self._direct = direct
        self._redis = redis
        self._on_failure = on_failure
        self._key = proof_key()
        self._is_told = asyncio.Event()
        self._proving: asyncio.Task[None] | None = None
        self._wire: object = None
        self._due = 0.0
        self.failure: Exception | None = None
        """Why notifications are not relied on; ``None`` unless a proof has failed."""

    def begin(self, wire: object) -> None:
        """Start the proof for this connection, once; repeat a failed one after a minute."""
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
        """Record the keys of an invalidation message; ``None`` means all keys."""
        if keys is not None and self._key.encode() in keys:
            self._is_told.set()

    def fail(self, reason: str) -> None:
        """Do not rely on notifications for the next minute."""
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
            pass  # the connection is lost, or an ACL forbids the key: nothing was proved
        else:
            self.failure = None
        finally:
            await beside.aclose()

    async def settled(self) -> None:
        """Wait until the proof has ended: at most its limit, and a few round trips."""
        if self._proving is not None:
            await asyncio.gather(self._proving, return_exceptions=True)

    def close(self) -> None:
        """Cancel the proof."""
        if self._proving is not None and not self._proving.cancelling():  # a second cancel would interrupt its cleanup
            self._proving.cancel()

    async def aclose(self) -> None:
        """Do the same, and wait until the other connection is closed."""
        self.close()
        if self._proving is not None:
            await asyncio.gather(self._proving, return_exceptions=True)
