"""The watch of one worker on its queues: it renews and resigns it, or stands by for it (``scripts.watcher``).

Knows how, and not when: that is decided in ``idle``. The claim itself elects the watcher.
"""

from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from arqonce.connection.direct import DirectConnection
from arqonce.connection.presence import WORKERS_KEY
from arqonce.engine.queue import Look
from arqonce.engine.scripts.watcher import RESIGN, STAND_BY
from arqonce.wire.keys import WatchKeys, to_ms

_SHORTEST_BLOCK = timedelta(milliseconds=10)
"""0 would block for ever."""

_LONGEST_WATCH_MS = 60_000
"""Longer ones are none of ours, as in the scripts."""

_BLOCK_LIMIT = timedelta(seconds=5)
"""How much longer than it was asked to block the server may take to answer."""


class Watch:
    """One worker's place among the idle workers of its queues. Its methods raise redis-py's errors."""

    def __init__(self, redis: Redis, direct: DirectConnection, keys: WatchKeys, worker: str) -> None:
        """Renew and resign on the connection of the claims."""
        self._direct = direct
        self._blocking = DirectConnection(redis)
        self._keys = [keys.watcher, keys.baton]
        self._worker = worker
        self._deputy = keys.deputy
        self._is_deputy = False

    async def wait_for_baton(self, longest: timedelta) -> bool:
        """Wait until another worker leaves it to us to claim, and say whether that was so. One round trip."""
        command = "BLPOP", self._keys[1], f"{max(longest, _SHORTEST_BLOCK).total_seconds():.3f}"
        try:
            return await self._blocking.call(*command, limit=longest + _BLOCK_LIMIT) is not None
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            await self._blocking.call("DEL", self._keys[1])  # it is ours, and made anew
            return False

    async def look(self, watch: timedelta, *, is_first: bool = False) -> Look:
        """Become the deputy if there is none. As the deputy, watch the queue for this time if nobody does.

        The ``is_first`` look also asks how long another's word as the deputy lasts. One round trip, or up to three.
        Plain commands: a script would cost a fleet twice as many.
        """
        workers = lasts_ms = 0
        if not self._is_deputy:
            self._is_deputy, workers = await self._replace_deputy(watch)
        left_ms = await self._look_after_watch(watch) if self._is_deputy else to_ms(watch)
        if is_first and not self._is_deputy:
            lasts_ms = max(1, await self._blocking.call("PTTL", self._deputy))
        return Look(timedelta(milliseconds=left_ms), self._is_deputy, workers, timedelta(milliseconds=lasts_ms))

    async def _replace_deputy(self, watch: timedelta) -> tuple[bool, int]:
        replace = "SET", self._deputy, self._worker, "NX", "PX", _lasts_ms(watch)
        try:
            is_ours, workers = await self._blocking.together(replace, ("ZCARD", WORKERS_KEY))
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            return False, 0  # the next announcement fails, and says so
        return is_ours is not None, workers

    async def retire(self) -> None:
        """Be the deputy no more: the next one that looks is. One round trip, or none if it was not ours to be."""
        if self._is_deputy:
            self._is_deputy = False
            await self._blocking.call("DEL", self._deputy)

    async def _look_after_watch(self, watch: timedelta) -> int:
        renew = ("GETEX", self._deputy, "PX", _lasts_ms(watch))  # of another's it extends the time once; harmless
        try:
            name, left_ms = await self._blocking.together(renew, ("PTTL", self._keys[0]))
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            name, left_ms = b"", 0
        self._is_deputy = name == self._worker.encode()
        if 0 < left_ms <= _LONGEST_WATCH_MS:
            return int(left_ms)
        return int(await self._blocking.run(STAND_BY, self._keys, [self._worker, to_ms(watch)]))

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


def _lasts_ms(watch: timedelta) -> int:
    """Return for how long a deputy is one without looking: it looks when the watch could expire."""
    return to_ms(watch) + 1000
