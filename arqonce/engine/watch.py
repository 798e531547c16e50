"""The watch of one worker on its queues: it renews and resigns it, or stands by for it (``scripts.watcher``).

Knows how, and not when: that is decided in ``idle``. The claim itself elects the watcher.
"""

from collections.abc import Sequence
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from arqonce.connection.direct import DirectConnection
from arqonce.engine.scripts.watcher import RESIGN, STAND_BY
from arqonce.wire.keys import to_ms

_SHORTEST_BLOCK = timedelta(milliseconds=10)
"""0 would block for ever."""

_BLOCK_LIMIT = timedelta(seconds=5)
"""How much longer than it was asked to block the server may take to answer."""


class Watch:
    """One worker's place among the idle workers of its queues. Its methods raise redis-py's errors."""

    def __init__(self, redis: Redis, direct: DirectConnection, keys: Sequence[str], worker: str) -> None:
        """Renew and resign on the connection of the claims. ``keys`` are those of the watcher and the baton."""
        self._direct = direct
        self._blocking = DirectConnection(redis)
        self._keys = keys
        self._worker = worker

    async def wait_for_baton(self, longest: timedelta) -> bool:
        """Wait until another worker leaves it to us to claim, and say whether that was so. One round trip."""
        command = "BLPOP", self._keys[1], f"{max(longest, _SHORTEST_BLOCK).total_seconds():.3f}"
        try:
            return await self._blocking.call(*command, limit=longest + _BLOCK_LIMIT) is not None
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            return False  # take_over mends it

    async def take_over(self, watch: timedelta) -> timedelta:
        """Watch the queue for this time, or return the time left on another worker's watch. One round trip."""
        arguments = [self._worker, to_ms(watch)]
        return timedelta(milliseconds=await self._blocking.run(STAND_BY, self._keys, arguments))

    async def renew(self, watch: timedelta) -> bool:
        """Go on watching the queue for so long, and say whether it was still ours to watch. One round trip."""
        # If another worker holds the key, this extends its watch once; harmless.
        try:
            name = await self._direct.call("GETEX", self._keys[0], "PX", to_ms(watch))
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            return False  # the claim mends it
        return bool(name == self._worker.encode())

    def stop_waiting(self) -> None:
        """Break off ``wait_for_baton``."""
        self._blocking.close()

    async def resign(self) -> None:
        """Watch no more, and leave it to another to claim if nobody watches. One round trip."""
        # Not by its hash: it may be sent while the worker is cancelled, which would keep us from sending it again.
        await self._direct.call("EVAL", RESIGN, len(self._keys), *self._keys, self._worker)

    def close(self) -> None:
        """Close the connection of our own."""
        self._blocking.close()
