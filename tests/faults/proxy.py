"""A TCP proxy that fails as networks do. Runs in a thread, because tests block while they start processes."""

import asyncio
import gc
import socket
import struct
import threading
from asyncio.selector_events import _SelectorTransport  # type: ignore[attr-defined] # a part of asyncio's own
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER without patience: the peer sees a reset."""


class Proxy:
    """Forwards a port of loopback to ``target``. Its attributes and methods may be used from any thread."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.environment: dict[str, str] = {}
        """What makes a process go through it."""
        self.is_closed = False
        """Whether new connections are accepted and then closed, as by a load balancer without a server."""
        self.loses_replies_to: bytes | None = None
        """Requests that contain this are forwarded, and their connections reset instead of answered."""
        self.loses_requests_with: bytes | None = None
        """Requests that contain this are not forwarded, and their connections reset."""
        self.rewrites: Callable[[bytes], bytes] = bytes
        """Replies are forwarded as it returns them, as far as they came together."""
        self.losses = 0
        """How many requests or replies were lost in this way."""
        self.target = target
        """The port that new connections lead to; those that live stay where they are."""
        self._is_heard = threading.Event()
        self._is_heard.set()
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._loop = asyncio.new_event_loop()

    @property
    def links(self) -> int:
        """How many connections there are."""
        return len(self._links)

    def cut(self) -> None:
        """Reset all connections."""
        self._loop.call_soon_threadsafe(self._cut)

    def silence(self) -> None:
        """Forward nothing, refuse nothing, close nothing: a network that drops packets."""
        self._is_heard.clear()

    def heal(self) -> None:
        """Forward everything again, also what has waited."""
        self.is_closed, self.loses_replies_to, self.loses_requests_with = False, None, None
        self._is_heard.set()

    def _cut(self) -> None:
        for link in list(self._links):
            _reset(*link)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection; noted at once, because its task may be cancelled before it begins."""
        accepted = (writer, writer)
        self._links.add(accepted)

        def end(_task: object) -> None:
            _reset(writer)
            self._links.discard(accepted)

        self._loop.create_task(self._connect(reader, writer)).add_done_callback(end)

    async def serve(self, started: threading.Event) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        try:  # serve_forever would wait for all connections to end, since Python 3.12, before we could cut them
            await asyncio.Event().wait()
        finally:
            server.close()
            self._cut()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = (writer, writer)
        with suppress(OSError, asyncio.CancelledError):  # asyncio's streams would print a cancellation at the end
            if not self.is_closed:
                replies, server = await asyncio.open_connection("127.0.0.1", self.target)
                self._links.discard(link)
                link = (writer, server)
                self._links.add(link)
                self._links.discard((writer, writer))  # one connection is one link
                lost = asyncio.Event()
                await asyncio.gather(self._requests(reader, server, lost), self._replies(replies, writer, lost))
        _reset(*link)
        self._links.discard(link)

    async def _requests(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        while data := await self._read(source):
            if self.loses_requests_with is not None and self.loses_requests_with in data:
                self.losses += 1
                break
            if self.loses_replies_to is not None and self.loses_replies_to in data:
                lost.set()
            target.write(data)
            await target.drain()
        raise ConnectionResetError  # one side has ended: so does the other

    async def _replies(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, lost: asyncio.Event) -> None:
        while data := await self._read(source):
            if lost.is_set():
                self.losses += 1
                break
            target.write(self.rewrites(data))
            await target.drain()
        raise ConnectionResetError

    async def _read(self, source: asyncio.StreamReader) -> bytes:
        data = await source.read(1 << 16)
        while not self._is_heard.is_set():
            await asyncio.sleep(0.01)
        return data


@contextmanager
def open_proxy(target: int) -> Iterator[Proxy]:
    """Run a proxy to a local port, and end it with all its connections."""
    proxy, started = Proxy(target), threading.Event()
    loop = proxy._loop
    task = loop.create_task(proxy.serve(started))
    thread = threading.Thread(target=_run, args=(loop, task), name=f"proxy of {target}")
    thread.start()
    assert started.wait(10)
    try:
        yield proxy
    finally:
        proxy.heal()
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.run_until_complete(_end_of_all())
    loop.close()
    _close_sockets_of(loop)


def _close_sockets_of(loop: asyncio.AbstractEventLoop) -> None:
    """Close what asyncio had accepted and not handed over when the loop ended: nobody else can."""
    for found in gc.get_objects():
        if isinstance(found, _SelectorTransport) and found._loop is loop and found._sock is not None:
            found._sock.close()
            found._sock = None


async def _end_of_all() -> None:
    for _ in range(5):  # a connection that was just accepted gets its task in the loop's next turns
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # a transport that was aborted closes its socket in the next turns, too


def _reset(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
