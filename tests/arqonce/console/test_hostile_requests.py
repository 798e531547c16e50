"""Requests that no browser sends: each gets an answer that says what is wrong, and costs the others nothing."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from arqonce.console import connection
from arqonce.console.settings import Settings
from tests.arqonce.console.conftest import JANE, Answer, Browser, browsing, serving
from tests.conftest import wait_until_async

FORM = "application/x-www-form-urlencoded"


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect as no browser does; within 10 s."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*urlsplit(url).netloc.split(":"))
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _post(browser: Browser, body: bytes, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await browser.ask("POST", "/log-in", data=body, headers=browser.origin | {"Content-Type": FORM} | sent)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"token=" + JANE.encode(), {}, 200),
        (b"token=" + JANE.encode(), {"Content_Type": f"{FORM}; charset=UTF-8"}, 200),
        (b"token=a", {"Content_Type": "multipart/form-data; boundary=a"}, 415),
        (b"token=a", {"Content_Type": f"{FORM}; charset=latin-1"}, 415),
        (b"token=a", {"Content_Type": f"{FORM}; charset=none"}, 415),
        (b"a" * 32_000 + b"-" + b"a" * 32_000, {"Content_Type": f"{FORM}; charset=punycode"}, 415),  # takes a second
        (b"token=\xff", {}, 400),
        (b"token=%00", {}, 400),
        (zlib.compress(b"a" * 1_000_000), {"Content_Encoding": "deflate"}, 415),
        (b"token=a", {"Content_Encoding": "br"}, 415),
        (b"&".join(b"%d=1" % number for number in range(5000)), {}, 413),
        (b"token=" + b"a" * 70_000, {}, 413),
        (b"token=a", {"Origin": "http://["}, 403),
    ],
)
async def test_only_small_forms_are_read(nobody: Browser, body: bytes, headers: dict[str, str], status: int) -> None:
    """A form is UTF-8, is not compressed, and has a limited size: nothing else is unpacked or decoded."""
    assert (await _post(nobody, body, **headers)).status == status


async def test_a_chunk_without_a_size(url: str) -> None:
    """A body that cannot be read is an error of its sender."""
    host = urlsplit(url).netloc
    head = f"POST /log-in HTTP/1.1\r\nHost: {host}\r\nOrigin: {url}\r\nContent-Type: {FORM}\r\n"
    async with _connected(url) as (reader, writer):
        writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\nnone\r\n")
        line = await reader.readline()

    assert line.split()[1] == b"400"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local"])
async def test_a_silent_connection_ends(console_settings: Settings, sent: bytes) -> None:
    """Whoever connects and asks nothing, or not to the end, does not keep the connection."""
    idle = timedelta(milliseconds=200)
    async with serving(console_settings, idle=idle) as url, _connected(url) as (reader, writer):
        writer.write(sent)
        rest = await reader.read()

    assert rest == b""


@pytest.mark.parametrize(
    "path",
    [
        "/audit?who=%00",
        "/dead/letters?code=%00",
        "/dead/retry?code=%00",
        "/jobs?state=dead&before=0001-01-01T00:00%2B14:00",
        "/jobs?state=dead&before=9999-12-31T23:59-14:00",
        "/jobs?after=WyJuYW4iLDBd",  # ["nan",0]
        "/dead/letters?after=WyIwMDAxLTAxLTAxVDAwOjAwOjAwKzE0OjAwIiwwXQ",  # ["0001-01-01T00:00:00+14:00",0]
    ],
)
async def test_no_parameter_makes_a_server_seem_away(jane: Browser, path: str) -> None:
    """What a server could not store or compare is refused before it is asked."""
    assert (await jane.get(path)).status == 400


UNREADABLE = (b"400", b"This request cannot be read.\n")
TOO_LARGE = (b"431", b"The header is too large: it may have cookies of other pages of this host.\n")


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"GET / HTTP/9\r\n\r\n", UNREADABLE),
        (b"<script>\r\n\r\n", UNREADABLE),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", UNREADABLE),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: " + 9000 * b"a" + b"\r\n\r\n", TOO_LARGE),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + 200 * b"a: b\r\n" + b"\r\n", TOO_LARGE),
    ],
)
async def test_what_is_no_request(
    url: str, sent: bytes, answer: tuple[bytes, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """It gets a short answer that repeats nothing and says nothing of versions, and the log no line."""
    async with _connected(url) as (reader, writer):
        writer.write(sent)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert (head.split()[1], body) == answer
    assert b"aiohttp" not in head
    assert caplog.records == []


async def test_there_are_not_too_many_connections(console_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A further one is closed, and the log says so; those that are open are served, and one that ends makes room."""
    monkeypatch.setattr(connection, "MOST", 2)
    with capture_logs() as lines:
        await _fill(console_settings)

    assert [line for line in lines if line["log_level"] == "warning"] == [
        {"event": "too many connections: new ones are refused", "log_level": "warning", "limit": 2, "refused": 1}
    ]


async def _fill(console_settings: Settings) -> None:
    async with serving(console_settings) as url, browsing(url) as browser:
        assert (await browser.get("/log-in")).status == 200  # and keeps its connection
        async with _connected(url):
            refused = await _is_served(url)
            open_one = (await browser.get("/log-in")).status

        assert (refused, open_one) == (False, 200)
        await wait_until_async(partial(_is_served, url), 5)


async def _is_served(url: str) -> bool:
    async with _connected(url) as (reader, writer):
        with suppress(ConnectionError):
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return await reader.readline() != b""
    return False
