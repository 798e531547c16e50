"""Keeps connections for each event loop that uses a client: a connection belongs to the loop that opened it.

Scripts that call ``asyncio.run`` repeatedly, tests, async views under WSGI and processes forked after a call use one
client in several loops. On another loop's connection a command would be sent, and its reply never read.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from types import AsyncGeneratorType
from typing import cast

from redis.asyncio import Redis

from arqonce.client.waiting import ResultWatch
from arqonce.connection.direct import DirectConnection


class Lines:
    """The connections of one event loop: for commands, and for waits."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Use the address and options of ``redis``. Connects later."""
        self.direct = DirectConnection(redis)
        self.watch = ResultWatch(redis, queue)
        self._ending = cast("AsyncGeneratorType[None, None]", _close_at_end(self.direct, self.watch))
        with suppress(StopIteration):
            self._ending.asend(None).send(None)  # as far as its yield: now the loop knows it

    @property
    def are_closed(self) -> bool:
        """Whether their loop, or ``aclose``, has closed them."""
        return self._ending.ag_frame is None

    def close(self) -> None:
        """Close them; waits still in progress raise a connection error. Call it in their loop."""
        self.watch.close()
        self.direct.close()

    async def aclose(self) -> None:
        """Do the same, and wait until all sockets are closed."""
        await self._ending.aclose()


async def _close_at_end(direct: DirectConnection, watch: ResultWatch) -> AsyncGenerator[None, None]:
    """Close the connections when this ends, at the latest before the loop does.

    What runs a loop to its end, such as ``asyncio.run``, first ends the generators that were begun in it
    (``shutdown_asyncgens``). On a closed loop no transport can be closed: its socket waits for the garbage collector.
    """
    try:
        yield
    finally:
        watch.close()
        await direct.aclose()
        await watch.aclose()


class LinesOfLoops:
    """The connections of one client, in every event loop that uses it. Loops may run in several threads."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Use the address and options of ``redis``. Connects later."""
        self._redis = redis
        self._queue = queue
        self._of: dict[asyncio.AbstractEventLoop, Lines] = {}

    def own(self) -> Lines:
        """Return those of the running loop, and drop those of loops that were closed."""
        loop = asyncio.get_running_loop()
        if (lines := self._of.get(loop)) is None or lines.are_closed:
            for ended in [other for other in tuple(self._of) if other.is_closed()]:
                self._of.pop(ended, None)
            lines = self._of[loop] = Lines(self._redis, self._queue)
        return lines

    async def aclose(self) -> None:
        """Close them all. Those of other loops are closed in the next turn of their loop."""
        own = self._of.pop(asyncio.get_running_loop(), None)
        while self._of:
            loop, lines = self._of.popitem()
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(lines.close)
        if own is not None:
            await own.aclose()
