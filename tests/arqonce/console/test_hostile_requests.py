"""Requests that no browser sends: each gets an answer that says what is wrong, and costs the others nothing."""

import asyncio
import zlib
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from arqonce.console.settings import Settings
from tests.arqonce.console.conftest import JANE, Answer, Browser, serving

FORM = "application/x-www-form-urlencoded"


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
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*host.split(":"))
        writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\nnone\r\n")
        line = await reader.readline()
        writer.close()

    assert line.split()[1] == b"400"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local"])
async def test_a_silent_connection_ends(console_settings: Settings, sent: bytes) -> None:
    """Whoever connects and asks nothing, or not to the end, does not keep the connection."""
    async with serving(console_settings, idle=timedelta(milliseconds=200)) as url, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*urlsplit(url).netloc.split(":"))
        writer.write(sent)
        rest = await reader.read()
        writer.close()

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
