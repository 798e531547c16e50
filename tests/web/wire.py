"""HTTP as bytes on a socket: what no client library would send, and each response exactly as it came."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

NEXT = b"GET /users/0 HTTP/1.1\r\nHost: x\r\n\r\n"
"""A request whose response, 404, shows that the connection still works, and that both sides agree where it begins."""


@dataclass(frozen=True)
class Response:
    """One response."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """One connection to a service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send bytes, even to a service that has closed the connection."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def response(self, *, to_head: bool = False) -> Response | None:
        """Read a response; ``None`` if the connection ends before or in it. Raises ``TimeoutError`` after 10 s."""
        try:
            async with asyncio.timeout(10):
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *fields = head.rstrip("\r\n").split("\r\n")
                headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
                version, status, _ = first.split(" ", 2)
                size = 0 if to_head else int(headers.get("content-length", 0))
                return Response(version, int(status), headers, await self.reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def statuses(self) -> list[int]:
        """Read responses to the end of the connection, and return their statuses."""
        found = []
        while response := await self.response():
            found.append(response.status)
        return found


@asynccontextmanager
async def open_wire(port: int, *, takes: int = 65_536) -> AsyncIterator[Wire]:
    """Connect; reset the connection at the end. Beyond ``takes`` bytes, what is not read is not taken."""
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, takes)
    connected.settimeout(0)
    await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connected, limit=takes)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def request(method: str, target: str, *fields: str, body: bytes = b"", version: str = "1.1") -> bytes:
    """Return a request with these fields, and with Host; a body gets its length unless a field says how it is sent."""
    own = [] if any(field.startswith(("Content-Length", "Transfer-Encoding")) for field in fields) else [len(body)]
    lines = [f"{method} {target} HTTP/{version}", "Host: x", *fields, *(f"Content-Length: {size}" for size in own)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(body: bytes, *fields: str, kind: str = "application/json") -> bytes:
    """Return a POST of a user."""
    return request("POST", "/users", f"Content-Type: {kind}", *fields, body=body)
