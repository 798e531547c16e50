"""Joins messages to PostgreSQL that are written one after the other into one write of the connection's transport.

Event loops write at once: BEGIN, and the statement right behind it, would be two system calls, and would wake the
server twice. A message that is held goes out with the next one, in front of it.

asyncpg gets the transport from the event loop with which it connects, and writes through it, also with TLS. Messages
of a connection that was made in another way are written at once.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg

from arqonce.addresses import staggered

Factory = Callable[[], Any]


class JoiningTransport:
    """A transport that puts what is held in front of the next message."""

    def __init__(self, transport: Any) -> None:  # noqa: ANN401 - asyncio's or uvloop's
        """Write to this one. Hold nothing yet."""
        self._write = transport.write
        self.joined = transport
        self._held = b""

    def hold(self, messages: bytes) -> None:
        """Write the messages with the next one, which must follow."""
        self._held += messages

    def write(self, data: Any) -> None:  # noqa: ANN401 - bytes or a view
        """Write what is held, and the data."""
        if self._held:
            data, self._held = b"".join((self._held, data)), b""
        self._write(data)

    def writelines(self, parts: list[Any]) -> None:
        """Write what is held, and all parts."""
        if self._held:
            parts, self._held = [self._held, *parts], b""
        self.joined.writelines(parts)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the transport's
        """Return what is the transport's."""
        return getattr(self.joined, name)


class _JoiningLoop:
    """The running event loop, for asyncpg: connections that are made through it have joining transports."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.create_future, self.call_later, self.time = loop.create_future, loop.call_later, loop.time  # used often

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the loop's
        return getattr(self._loop, name)

    async def create_connection(self, factory: Factory, host: str, port: int, **options: Any) -> tuple[Any, Any]:  # noqa: ANN401 - as the loop
        joining = _JoiningFactory(factory)
        await self._loop.create_connection(joining, host, port, **(options | staggered(host)))
        return joining.transport, joining.protocol

    async def create_unix_connection(self, factory: Factory, *args: Any, **options: Any) -> tuple[Any, Any]:  # noqa: ANN401 - as the loop
        joining = _JoiningFactory(factory)
        await self._loop.create_unix_connection(joining, *args, **options)
        return joining.transport, joining.protocol

    async def start_tls(self, transport: JoiningTransport, *args: Any, **options: Any) -> JoiningTransport | None:  # noqa: ANN401 - as the loop
        secured = await self._loop.start_tls(transport.joined, *args, **options)
        return None if secured is None else JoiningTransport(secured)  # None: it was closed meanwhile


class _JoiningFactory:
    """Makes a protocol that is connected with a joining transport."""

    protocol: Any
    transport: JoiningTransport

    def __init__(self, factory: Factory) -> None:
        self._factory = factory

    def __call__(self) -> Any:  # noqa: ANN401 - what the factory makes
        self.protocol = protocol = self._factory()
        connection_made = protocol.connection_made

        def connected(transport: Any) -> None:  # noqa: ANN401 - asyncio's or uvloop's
            del protocol.connection_made
            self.transport = JoiningTransport(transport)
            connection_made(self.transport)

        protocol.connection_made = connected
        return protocol


async def connect(**options: Any) -> Any:  # noqa: ANN401 - asyncpg's arguments and its connection
    """Connect as ``asyncpg.connect``, with a transport that can hold messages (``write_with_next``)."""
    loop = asyncio.get_running_loop()
    connection = await asyncpg.connect(**options, loop=_JoiningLoop(loop))
    connection._loop = loop  # noqa: SLF001 - it looks up its tasks by the loop
    return connection


def write_with_next(connection: Any, messages: bytes) -> None:  # noqa: ANN401 - asyncpg's
    """Write the messages with the next one that asyncpg writes, which must follow without an await in between."""
    if not connection.is_closed():  # otherwise the next statement raises
        transport = connection._transport  # noqa: SLF001 - see above
        (transport.hold if isinstance(transport, JoiningTransport) else transport.write)(messages)
