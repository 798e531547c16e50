"""The HTTP server of the port of operations, over real sockets: what clients may do to it, and what it costs others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from arqonce.operations import endpoint
from arqonce.operations.endpoint import ListenError, Page, Response, serving
from arqonce.settings.operations import OperationsSettings
from tests.conftest import wait_until_async

TOKEN = "a-token-of-twenty-characters"  # noqa: S105 - of one test
GET = "GET {} HTTP/1.1\r\nHost: x\r\n{}\r\n"


async def _figures() -> Response:
    return Response(200, b"x" * 3_000_000)


async def _alive() -> Response:
    return Response(200, b"well\n")


async def _broken() -> Response:
    raise RuntimeError


PAGES = {
    "/metrics": Page(_figures),
    "/livez": Page(_alive, needs_token=False),
    "/broken": Page(_broken, needs_token=False),
}


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Serve, with less patience than usual."""
    monkeypatch.setattr(endpoint, "_HEADER_LIMIT", timedelta(milliseconds=300))
    monkeypatch.setattr(endpoint, "_ANSWER_LIMIT", timedelta(milliseconds=500))
    monkeypatch.setattr(endpoint, "_LINGER", timedelta(milliseconds=100))
    async with serving(OperationsSettings(port=0, token=SecretStr(TOKEN)), PAGES) as port:
        yield port


async def _send(port: int, request: str) -> str:
    """Send something; return all that comes back, however the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**23)
    received = b""
    try:
        writer.write(request.encode())
        while part := await reader.read(2**20):
            received += part
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return received.decode()


async def _status(port: int, request: str) -> str:
    return (await _send(port, request)).partition("\r\n")[0]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET.format("/livez", ""), "HTTP/1.1 200 OK"),
        (GET.format("/livez?verbose", ""), "HTTP/1.1 200 OK"),
        (GET.format("/metrics", f"Authorization: Bearer {TOKEN}\r\n"), "HTTP/1.1 200 OK"),
        (GET.format("/metrics", f"authorization: bearer {TOKEN}\r\n"), "HTTP/1.1 200 OK"),
        (GET.format("/metrics", ""), "HTTP/1.1 401 Unauthorized"),
        (GET.format("/metrics", f"Authorization: Basic {TOKEN}\r\n"), "HTTP/1.1 401 Unauthorized"),
        (GET.format("/metrics", f"Authorization: Bearer {TOKEN}x\r\n"), "HTTP/1.1 401 Unauthorized"),
        (GET.format("/metrics", "Authorization: Bearer \xe9\xff\r\n"), "HTTP/1.1 401 Unauthorized"),
        (GET.format("/nothing", ""), "HTTP/1.1 404 Not Found"),
        (GET.format("/broken", ""), "HTTP/1.1 500 Internal Server Error"),
        ("POST /livez HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 405 Method Not Allowed"),
        ("rubbish\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (GET.format("/livez", f"X: {'x' * 100_000}\r\n"), "HTTP/1.1 431 Request Header Fields Too Large"),
        ("GET /livez HT", "HTTP/1.1 408 Request Timeout"),
    ],
)
async def test_each_request_has_its_answer(port: int, request_: str, status: str) -> None:
    """Whatever is sent."""
    assert await _status(port, request_) == status


async def test_what_must_be_told_with_a_refusal(port: int) -> None:
    """How to authenticate, and which methods there are."""
    assert '\r\nWWW-Authenticate: Bearer realm="operations"\r\n' in await _send(port, GET.format("/metrics", ""))
    assert "\r\nAllow: GET, HEAD\r\n" in await _send(port, GET.format("/livez", "").replace("GET", "PUT"))


async def test_a_head_request_has_no_body(port: int) -> None:
    """Some probes send one."""
    header, _, body = (await _send(port, GET.format("/livez", "").replace("GET", "HEAD"))).partition("\r\n\r\n")

    assert ("Content-Length: 5" in header, body) == (True, "")


async def test_slow_and_silent_clients_hold_nothing_for_long(port: int) -> None:
    """Clients that send nothing, half a header, or take nothing fill all places; soon others are served again.

    A line of the log says that others are refused: their probes fail.
    """
    with capture_logs() as lines:
        await _fill_all_places(port)

    (line,) = [line for line in lines if line["log_level"] == "warning"]
    assert (line["event"], line["limit"]) == ("too many connections: new ones are refused", 32)


async def _fill_all_places(port: int) -> None:
    requests = ["", "GET /met", GET.format("/metrics", f"Authorization: Bearer {TOKEN}\r\n")] * 20
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in requests]

    async def is_served() -> bool:
        return await _status(port, GET.format("/livez", "")) == "HTTP/1.1 200 OK"

    for (_, writer), request in zip(slow, requests, strict=True):
        writer.write(request.encode())
    try:
        assert await _status(port, GET.format("/livez", "")) == ""
        await wait_until_async(is_served, 3)
    finally:
        for _, writer in slow:
            writer.transport.abort()


async def test_what_is_being_answered_does_not_hold_up_the_end() -> None:
    """A client that is connected and says nothing."""
    async with asyncio.timeout(2):
        async with serving(OperationsSettings(port=0), PAGES) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.transport.abort()


async def test_a_port_in_use_is_told_with_the_cure(port: int) -> None:
    """As by the other workers of a host."""
    with pytest.raises(ListenError, match=rf"cannot listen on 127.0.0.1:{port} .*: correct OPS_HOST and OPS_PORT"):
        async with serving(OperationsSettings(port=port), PAGES):
            pass
