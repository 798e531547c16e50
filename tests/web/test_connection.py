"""Connections: how many, and how long a client may take for each part of a request. Slow clients delay nobody."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from tests.conftest import wait_until, wait_until_async
from tests.web.conftest import StartWeb, WebProcess
from tests.web.wire import NEXT, Response, Wire, open_wire, post, request

PlayedT = TypeVar("PlayedT")

SHORT = {"WEB_HEADER_TIMEOUT": "2s", "WEB_BODY_TIMEOUT": "2s", "WEB_SEND_TIMEOUT": "2s", "WEB_IDLE_TIMEOUT": "2s"}
MANY = 1500
"""So many descriptions, 24 MB, are more than what sockets hold for a client that reads none."""


async def _drip(wire: Wire, data: bytes) -> None:
    """Send a byte every 100 ms for as long as the connection is open."""
    for byte in data:
        await wire.send(bytes([byte]))
        await asyncio.sleep(0.1)


async def _slow_header(wire: Wire) -> list[int]:
    sending = asyncio.ensure_future(_drip(wire, request("GET", "/users/0", "X-Slow: " + "x" * 300)))
    try:
        return await wire.statuses()
    finally:
        sending.cancel()


async def _slow_body(wire: Wire) -> list[int]:
    sending = asyncio.ensure_future(_drip(wire, post(b"", "Content-Length: 1000")[-4:] + b" " * 300))
    await wire.send(post(b"", "Content-Length: 1000")[:-4])
    try:
        return await wire.statuses()
    finally:
        sending.cancel()


async def _silent(wire: Wire) -> list[int]:
    return await wire.statuses()


async def _idle(wire: Wire) -> list[int]:
    await wire.send(NEXT)
    return await wire.statuses()


CLIENTS = {_slow_header: [408], _slow_body: [408], _silent: [], _idle: [404]}
"""What a client does, and the statuses that it gets before its connection is closed."""


async def test_two_hundred_slow_clients_delay_nobody(start_web: StartWeb) -> None:
    """Each is let go in its time, and meanwhile every ordinary request is answered in time."""
    service = start_web(**SHORT)

    async def play(client: Callable[[Wire], Awaitable[list[int]]]) -> list[int]:
        async with open_wire(service.port) as wire:
            return await client(wire)

    outcomes, slowest = await _while_asking(service, asyncio.gather(*(play(one) for one in CLIENTS for _ in range(50))))

    assert outcomes == [statuses for statuses in CLIENTS.values() for _ in range(50)]
    assert slowest < 1
    assert {(line["event"], line["level"]) for line in service.lines} == {("serving", "info"), ("request", "info")}


async def test_who_takes_no_responses_is_let_go(start_web: StartWeb) -> None:
    """No more is computed for such a client than its socket holds, and its connection is closed in its time."""
    service = start_web(**SHORT)

    async def play() -> int:
        async with open_wire(service.port, takes=4096) as wire:
            sending = asyncio.ensure_future(wire.send(request("GET", "/openapi.json") * MANY))
            await asyncio.sleep(4)
            sending.cancel()
            return len(await wire.statuses())

    taken, slowest = await _while_asking(service, asyncio.ensure_future(play()))

    await asyncio.to_thread(wait_until, lambda: '"route": "/openapi.json"' in service.log, 5)
    answered = [line for line in service.lines if line.get("route") == "/openapi.json"]
    assert taken <= len(answered) < MANY / 2
    assert slowest < 1


async def _while_asking(service: WebProcess, playing: "asyncio.Future[PlayedT]") -> tuple[PlayedT, float]:
    """Return the outcome, and the longest time that an ordinary request took meanwhile."""
    slowest = 0.0
    while not playing.done():
        begin = time.monotonic()
        assert (await service.get("/users?email=jane@example.org")).status == 200
        slowest = max(slowest, time.monotonic() - begin)
        await asyncio.sleep(0.1)
    return await playing, slowest


async def test_too_many_connections_are_refused_and_the_others_served(start_web: StartWeb) -> None:
    """503 with Retry-After, one line in the log for all of them, and room again when some have left."""
    service = start_web(WEB_MAX_CONNECTIONS="20")

    async with AsyncExitStack() as early:
        served = [await early.enter_async_context(open_wire(service.port)) for _ in range(20)]
        await served[0].send(NEXT)
        before = await served[0].response()
        refused = [await _response_to_nothing(service) for _ in range(30)]
        await served[0].send(NEXT)
        after = await served[0].response()

    async def is_served() -> bool:
        async with open_wire(service.port) as wire:
            await wire.send(NEXT)
            return [response.status for response in [await wire.response()] if response] == [404]

    await wait_until_async(is_served, 5)
    assert {(answer.status, answer.headers["retry-after"]) for answer in refused if answer} == {(503, "2")}
    assert [answer.status for answer in (before, after) if answer] == [404, 404]
    await asyncio.to_thread(wait_until, lambda: "too many connections" in service.log, 5)
    assert [line["limit"] for line in service.lines if line["event"].startswith("too many connections")] == [20]


async def _response_to_nothing(service: WebProcess) -> Response | None:
    async with open_wire(service.port) as wire:
        return await wire.response()


@pytest.mark.usefixtures("starts_processes", "redis")
async def test_more_silent_connections_than_descriptors_shut_nobody_out(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """As many are kept as the process has descriptors for, which it logs; the others are refused, and logged."""
    log = tmp_path / "web.log"
    process = _start_with_descriptors(140, environment | {"WEB_HEADER_TIMEOUT": "2s"}, log)
    try:
        wait_until(lambda: process.poll() is not None or '"serving"' in log.read_text(), 30)
        port = int(re.findall(r'"port": (\d+)', log.read_text())[0])
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(open_wire(port))
            silent = [await stack.enter_async_context(open_wire(port)) for _ in range(200)]
            await first.send(NEXT)
            answer = await first.response()
            statuses = [status for wire in silent for status in await wire.statuses()]
    finally:
        process.terminate()
        process.wait(20)

    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert answer is not None
    assert (answer.status, statuses) == (404, [503] * 168)  # (140 - 64 - 10) / 2 are kept
    assert [event.partition(":")[0] for event in events] == [
        "fewer connections than WEB_MAX_CONNECTIONS", "serving", "too many connections", "request", "told to stop",
    ]  # fmt: skip


def _start_with_descriptors(number: int, environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    command = ["sh", "-c", f'ulimit -n {number} && exec "$0" -m web', sys.executable]
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment | {"WEB_PORT": "0", "WEB_LOG_FORMAT": "json"}, stderr=output)
