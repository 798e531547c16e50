"""A small HTTP server for operators' tools: GET alone, one response a connection. Knows no metric and no probe.

It shares the loop of a process that has better things to do. So there are few connections, each has little time, and a
client that asks for something large or slowly, or for nothing, costs no more than that.
"""

import asyncio
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from hashlib import sha256
from typing import NamedTuple

import structlog

from arqonce.flood import Refusals
from arqonce.settings.operations import OperationsSettings

_MOST_CONNECTIONS = 32
"""Open connections; a further one is closed unheard, and logged."""

_LARGEST_HEADER = 8 * 1024
"""Bytes of a request's header."""

_HEADER_LIMIT = timedelta(seconds=5)
"""How long a header may take to arrive."""

_ANSWER_LIMIT = timedelta(seconds=10)
"""How long a response may take to be made, and as long again to be sent."""

_LINGER = timedelta(seconds=1)
"""How long what a refused client still sends is read, so that it sees the response and no reset."""

_REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    503: "Service Unavailable",
}  # fmt: skip

_FIELDS = {401: 'WWW-Authenticate: Bearer realm="operations"\r\n', 405: "Allow: GET, HEAD\r\n"}
"""What responses of these statuses must have."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.operations.endpoint")


class ListenError(OSError):
    """The process cannot listen on the address. The text names the cure."""


class Response(NamedTuple):
    """What is sent."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class Page(NamedTuple):
    """One path."""

    make: Callable[[], Awaitable[Response]]

    needs_token: bool = True
    """Whether the token is needed, if there is one. Kubernetes' probes have none."""


def listen(settings: OperationsSettings) -> socket.socket:
    """Open the port.

    Raises:
        ListenError: the address is in use, or does not belong to this host.
    """
    where = (settings.host, settings.port or 0)
    try:
        family = socket.getaddrinfo(*where, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server(where, family=family, backlog=_MOST_CONNECTIONS)
    except OSError as error:
        text = f"cannot listen on {where[0]}:{where[1]} ({error.strerror or error}): correct OPS_HOST and OPS_PORT"
        raise ListenError(text) from error
    listener.settimeout(0)
    listener.set_inheritable(True)  # for the processes of a supervisor
    _log.info("operations port open", host=settings.host, port=listener.getsockname()[1])
    return listener


@asynccontextmanager
async def serving(
    settings: OperationsSettings, pages: Mapping[str, Page], listener: socket.socket | None = None
) -> AsyncIterator[int]:
    """Serve the pages until the end; yield the port. The ``listener`` may be shared with other processes.

    Raises:
        ListenError: the address is in use, or does not belong to this host.
    """
    endpoint = _Endpoint(settings, pages)
    listener = listener or listen(settings)
    server = await asyncio.start_server(endpoint.serve, sock=listener, limit=_LARGEST_HEADER)
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.close()
        await endpoint.end()


class _Endpoint:
    def __init__(self, settings: OperationsSettings, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        token = settings.token
        self._digest = None if token is None else sha256(token.get_secret_value().encode()).digest()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusals = Refusals(_log)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= _MOST_CONNECTIONS:
            self._refusals.note(limit=_MOST_CONNECTIONS)
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            with suppress(OSError, TimeoutError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the end: streams would log it
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def end(self) -> None:
        """Break off what is being answered."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        response, is_head = await self._response(reader)
        extra = _FIELDS.get(response.status, "")
        head = (
            f"HTTP/1.1 {response.status} {_REASONS[response.status]}\r\nContent-Type: {response.content_type}\r\n"
            f"Content-Length: {len(response.body)}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
            f"{extra}Connection: close\r\n\r\n"
        )
        writer.write(head.encode() + (b"" if is_head else response.body))
        async with asyncio.timeout(_ANSWER_LIMIT.total_seconds()):
            writer.transport.set_write_buffer_limits(high=0)  # drain waits until all is sent
            await writer.drain()
            writer.write_eof()
        async with asyncio.timeout(_LINGER.total_seconds()):
            for _ in range(_MOST_CONNECTIONS):
                if not await reader.read(_LARGEST_HEADER):
                    break

    async def _response(self, reader: asyncio.StreamReader) -> tuple[Response, bool]:
        """Read a request; return the response, and whether only its head is wanted."""
        try:
            async with asyncio.timeout(_HEADER_LIMIT.total_seconds()):
                header = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Response(431, b"the header is too large\n"), False
        except TimeoutError:
            return Response(408, b"the header did not arrive in time\n"), False
        except asyncio.IncompleteReadError as error:
            raise ConnectionError from error
        request, *lines = header.decode("latin-1").split("\r\n")
        match request.split(" "):
            case ["GET" | "HEAD" as method, path, version] if version.startswith("HTTP/1."):
                return await self._answer(path.partition("?")[0], lines), method == "HEAD"
            case [_, _, version] if version.startswith("HTTP/1."):
                return Response(405, b"only GET is known here\n"), False
            case _:
                return Response(400, b"this is not HTTP/1.1\n"), False

    async def _answer(self, path: str, lines: list[str]) -> Response:
        page = self._pages.get(path)
        if page is None:
            return Response(404, f"there are {', '.join(self._pages)}\n".encode())
        if page.needs_token and not self._is_allowed(lines):
            return Response(401, b"the bearer token of OPS_TOKEN is needed\n")
        try:
            async with asyncio.timeout(_ANSWER_LIMIT.total_seconds()):
                return await page.make()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a figure: the process goes on
            _log.error("a question of an operator's tool failed", path=path, exc_info=error)
            return Response(500, b"see the log\n")

    def _is_allowed(self, lines: list[str]) -> bool:
        """Return whether the header has the token; compared in constant time."""
        if self._digest is None:
            return True
        named = (line.partition(":") for line in lines)
        values = [value.strip() for name, _, value in named if name.lower() == "authorization"]
        scheme, _, token = (values[0] if values else "").partition(" ")
        given = sha256(token.strip().encode()).digest()
        return hmac.compare_digest(given, self._digest) and scheme.lower() == "bearer"
