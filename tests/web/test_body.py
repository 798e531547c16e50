"""Bodies: who may send one, how large, and how long it may take."""

import asyncio
import gzip
import time
import zlib

from redis.asyncio import Redis

from tests.conftest import wait_until, wait_until_async
from tests.web.conftest import TOKEN, StartWeb, WebProcess
from tests.web.wire import open_wire, post

JANE = b'{"name": "Jane"}'
AUTHORIZED = f"Authorization: Bearer {TOKEN}"


def _bomb() -> bytes:
    """Return 290 kB that become 300 MB; making them takes a second."""
    return gzip.compress(bytes(300_000_000), compresslevel=9)


async def _status(service: WebProcess, data: bytes) -> int | None:
    async with open_wire(service.port) as wire:
        await wire.send(data)
        response = await wire.response()
        return None if response is None else response.status


async def test_compressed_bodies_are_read(service: WebProcess, redis: Redis) -> None:
    """Gzip and deflate, the latter also without its wrapper; what is broken, cut or followed by more is 400."""
    raw = zlib.compressobj(wbits=-15)
    fine = [("GZIP", gzip.compress(JANE)), ("x-gzip", gzip.compress(JANE)), ("identity", JANE)]
    fine += [("deflate", zlib.compress(JANE)), ("deflate", raw.compress(JANE) + raw.flush())]
    broken = [("gzip", JANE), ("gzip", gzip.compress(JANE)[:-1]), ("gzip", gzip.compress(JANE) * 2), ("deflate", b"")]

    statuses = [await _status(service, post(body, f"Content-Encoding: {coding}")) for coding, body in fine + broken]

    assert statuses == [202] * len(fine) + [400] * len(broken)
    assert await redis.zcard("arq:queue") == len(fine)


async def test_a_bomb_is_not_decompressed(start_web: StartWeb) -> None:
    """Neither without a token, nor with one beyond the limit: others are answered all the time."""
    service = start_web(WEB_TOKENS=TOKEN)
    bomb, coding = _bomb(), "Content-Encoding: gzip"
    slowest = 0.0

    async def watch() -> None:
        nonlocal slowest
        while True:
            begin = time.monotonic()
            await service.get("/openapi.json")
            slowest = max(slowest, time.monotonic() - begin)

    watching = asyncio.ensure_future(watch())
    strangers = await asyncio.gather(*(_status(service, post(bomb, coding)) for _ in range(10)))
    callers = await asyncio.gather(*(_status(service, post(bomb, coding, AUTHORIZED)) for _ in range(10)))
    watching.cancel()

    assert (set(strangers), set(callers)) == ({401}, {413})
    assert slowest < 1


async def test_a_body_may_have_so_many_bytes(start_web: StartWeb) -> None:
    """As it is sent, in chunks, and decompressed: 413 beyond it, and the body is not awaited."""
    service = start_web(WEB_MAX_BODY="2000")
    long = JANE + b" " * (2000 - len(JANE))
    chunk = b"%x\r\n%s\r\n" % (len(long), long)

    statuses = [
        await _status(service, data)
        for data in (
            post(long),
            post(long + b" "),
            post(chunk + b"0\r\n\r\n", "Transfer-Encoding: chunked"),
            post(chunk + b"1\r\n \r\n", "Transfer-Encoding: chunked"),
            post(gzip.compress(long), "Content-Encoding: gzip"),
            post(gzip.compress(long + b" "), "Content-Encoding: gzip"),
        )
    ]

    assert statuses == [202, 413] * 3


async def test_a_body_has_so_much_time(start_web: StartWeb) -> None:
    """408, although some of it comes all the time; the connection ends."""
    service = start_web(WEB_BODY_TIMEOUT="1s")

    async with open_wire(service.port) as wire:
        await wire.send(post(b"", "Content-Length: 1000"))
        answer = asyncio.ensure_future(wire.response())
        while not answer.done():
            await wire.send(b" ")
            await asyncio.sleep(0.05)
    response = await answer

    assert response is not None
    assert (response.status, response.headers["connection"]) == (408, "close")


async def test_a_body_that_turns_out_wrong_is_refused_at_once(service: WebProcess) -> None:
    """400 once, and one line in the log: neither is the rest awaited, nor is it a request of its own."""
    async with open_wire(service.port) as wire:
        await wire.send(post(b"1\r\n{\r\n", "Transfer-Encoding: chunked"))
        await asyncio.sleep(0.1)
        await wire.send(b"no chunk\r\n\r\n")
        statuses = await wire.statuses()

    assert statuses == [400]
    await asyncio.to_thread(wait_until, lambda: '"request"' in service.log, 5)
    assert [(line["event"], line.get("status")) for line in service.lines] == [("serving", None), ("request", 400)]


async def test_who_leaves_in_the_middle_is_no_fault_of_a_server(service: WebProcess) -> None:
    """The log has one line, of a request that was wrong."""
    async with open_wire(service.port) as wire:
        await wire.send(post(JANE[:5], f"Content-Length: {len(JANE)}"))

    async def is_logged() -> bool:
        return '"request"' in service.log

    await wait_until_async(is_logged, 5)
    assert [(line["event"], line.get("status")) for line in service.lines] == [("serving", None), ("request", 400)]
