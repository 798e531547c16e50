"""Keeps connections for each event loop that uses a client: a connection belongs to the loop that opened it.

Scripts that call ``asyncio.run`` repeatedly, tests, async views under WSGI and processes forked after a call use one
client in several loops. On another loop's connection a command would be sent, and its reply never read.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from redis.asyncio import Redis

from arqonce.client.waiting import ResultWatch
from arqonce.connection.direct import DirectConnection


class Lines:
    """The connections of one event loop: for commands, and for waits."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Use the address and options of ``redis``. Connects later."""
        self.direct = DirectConnection(redis)
        self.watch = ResultWatch(redis, queue)

    def close(self) -> None:
        """Close them; waits still in progress raise a connection error. Call it in their loop."""
        self.watch.close()
        self.direct.close()

    async def aclose(self) -> None:
        """Do the same, and wait until all sockets are closed."""
        self.watch.close()
        await self.direct.aclose()
        await self.watch.aclose()


_Closed = tuple[Lines, AsyncGenerator[None, None]]
"""Connections, and the generator at whose end they are closed."""


class LinesOfLoops:
    """The connections of one client, in every event loop that uses it. Loops may run in several threads."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Use the address and options of ``redis``. Connects later."""
        self._redis = redis
        self._queue = queue
        self._of: dict[asyncio.AbstractEventLoop, _Closed] = {}

    def own(self) -> Lines:
        """Return those of the running loop, and drop those of loops that were closed."""
        loop = asyncio.get_running_loop()
        if (found := self._of.get(loop)) is None:
            for ended in [other for other in tuple(self._of) if other.is_closed()]:
                self._of.pop(ended, None)
            found = self._of[loop] = _closed_with_loop(Lines(self._redis, self._queue))
        return found[0]

    async def aclose(self) -> None:
        """Close them all. Those of other loops are closed in the next turn of their loop."""
        own = self._of.pop(asyncio.get_running_loop(), None)
        while self._of:
            loop, (lines, _) = self._of.popitem()
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(lines.close)
        if own is not None:
            await own[1].aclose()


def _closed_with_loop(lines: Lines) -> _Closed:
    """Close them when the loop shuts its asynchronous generators down, as ``asyncio.run`` does at its end.

    There is no other hook. Otherwise the sockets would stay open, and Python would warn of them in some later test.
    """

    async def until_the_end() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await lines.aclose()

    end = until_the_end()
    with suppress(StopIteration):
        end.__anext__().send(None)  # the loop knows it from here on
    return lines, end
