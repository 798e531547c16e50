"""A TCP proxy that injects faults: resets, lost replies, delays, silence, and a changed target, early or late.

Runs in a thread with its own event loop. Knows neither PostgreSQL nor Valkey, only bytes.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

_CHUNK = 1 << 16

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0: the peer sees a reset, as from a load balancer that has lost its state."""


class _Link:
    """A client's connection and the corresponding connection to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.loses_next_reply = False
        self._writers = (client, server)

    def reset(self) -> None:
        for writer in self._writers:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class Proxy:
    """Forwards the loopback port ``port`` to ``target``. All methods are thread-safe."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay = 0.0
        """Delay in seconds of each chunk of data, in both directions."""
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._is_open = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy of {target}", daemon=True)
        self._listens = threading.Event()

    @classmethod
    @contextmanager
    def open(cls, target: int) -> Iterator[Self]:
        """Run a proxy to a local port; at the end, stop it and close its connections."""
        proxy = cls(target)
        proxy._thread.start()
        proxy._listens.wait()
        try:
            yield proxy
        finally:
            proxy._loop.call_soon_threadsafe(proxy._end)
            proxy._thread.join()

    def lead_to(self, target: int, *, delay: float = 0.0) -> None:
        """Forward connections that begin later than ``delay`` seconds from now to another port. Open ones stay."""
        self._loop.call_soon_threadsafe(self._loop.call_later, delay, self._set_target, target)

    def cut(self) -> None:
        """Reset all connections."""
        self._loop.call_soon_threadsafe(self._cut)

    def lose_replies(self) -> None:
        """Let each open connection send one more request, and reset it when the reply arrives."""
        self._loop.call_soon_threadsafe(self._mark)

    def go_silent(self) -> None:
        """Neither forward, refuse nor close anything, like a network that drops packets."""
        self._loop.call_soon_threadsafe(self._is_open.clear)

    def heal(self) -> None:
        """Forward everything at once, including delayed data."""
        self.delay = 0.0
        self._loop.call_soon_threadsafe(self._is_open.set)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner, suppress(asyncio.CancelledError):
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._task = asyncio.current_task()
        self._is_open.set()
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listens.set()
        try:
            await asyncio.Event().wait()
        finally:
            server.close()
            self._cut()

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _set_target(self, target: int) -> None:
        self._target = target

    def _cut(self) -> None:
        for link in self._links:
            link.reset()

    def _mark(self) -> None:
        for link in self._links:
            link.loses_next_reply = True

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._is_open.wait()
        try:
            replies, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, server)
        self._links.add(link)
        try:
            await asyncio.gather(self._forward(reader, server), self._forward(replies, writer, link))
        except OSError:
            pass  # reset by one side
        finally:
            link.reset()
            self._links.discard(link)

    async def _forward(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, link: _Link | None = None
    ) -> None:
        while data := await source.read(_CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._is_open.wait()
            if link is not None and link.loses_next_reply:
                raise ConnectionResetError
            target.write(data)
            await target.drain()
        raise ConnectionResetError  # one side has closed, so close the other
