"""Mutated requests, as bytes: whatever arrives, the service answers on, and its log has no fault and no person."""

import asyncio
import gzip
import random
import time
from collections import Counter
from datetime import timedelta

from redis.asyncio import Redis

from tests.conftest import wait_until
from tests.web.conftest import TOKEN, StartWeb, WebProcess
from tests.web.wire import open_wire, post, request

_TIME = timedelta(seconds=6)
_AT_ONCE = 60
_SEED = 20_240_229
"""Any will do; a fixed one finds the same again."""

_AUTHORIZED = f"Authorization: Bearer {TOKEN}"
_BODY = b'{"name": "Zenobia Quillfeather", "email": "zenobia@quillfeather.example"}'
_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(_BODY), _BODY)

_VALID = [
    request("GET", "/user?name=Zenobia%20Quillfeather", _AUTHORIZED),
    request("GET", "/users?email=zenobia%2Bx@quillfeather.example", _AUTHORIZED, "Accept: */*"),
    request("GET", "/jobs/quillfeather-1", _AUTHORIZED, "Connection: upgrade", "Upgrade: websocket"),
    request("GET", "http://quillfeather.example/openapi.json", "Connection: keep-alive", version="1.0"),
    request("HEAD", "/users/1", _AUTHORIZED),
    request("OPTIONS", "*"),
    post(_BODY, _AUTHORIZED, "Idempotency-Key: quillfeather-1"),
    post(_BODY, _AUTHORIZED, 'Idempotency-Key: "quillfeather-2"', "Expect: 100-continue"),
    post(_CHUNKS, _AUTHORIZED, "Transfer-Encoding: chunked"),
    post(gzip.compress(_BODY), _AUTHORIZED, "Content-Encoding: gzip", "Prefer: wait=0, respond-async"),
]

_PARTS = [
    b"\r\n", b"\n", b"\r", b"\0", b"\xff\xfe", b" ", b"\t", b":", b"?", b"#", b"%", b"%00", b"/", b"//", b"*", b",",
    b";", b'"', b"-1", b"0", b"99999999999999999999", b"\r\n\r\n", b"0\r\n\r\n", b"HTTP/1.0", b"HTTP/2.0", b"CONNECT ",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Host: [::1\r\n",
    b"Expect: 100-continue\r\n", b"Expect: \xff\r\n", b"Content-Encoding: br\r\n", b"Content-Encoding: deflate\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"Content-Type: multipart/form-data; boundary=x\r\n",
    b"Content-Type: \xc3\xa9\r\n", b"Prefer: wait=1\r\n", b"Cookie: a=b;;=\r\n", b"x" * 9000, b"x" * 20_000,
]  # fmt: skip


def _mutated(chance: random.Random) -> bytes:
    data = chance.choice(_VALID)
    for _ in range(chance.randrange(4)):
        begin, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        match chance.randrange(6):
            case 0:
                data = data[:begin] + chance.choice(_PARTS) + data[begin:]
            case 1:
                data = data[:begin] + data[min(end, begin + 20) :]
            case 2:
                data = data[:begin] + bytes([chance.randrange(256)]) + data[begin + 1 :]
            case 3:
                data = data[:end] + data[begin:]
            case 4:
                line = data.find(b"\r\n", begin) + 2
                data = data[:line] + chance.choice(_PARTS) + data[line:]
            case 5:
                data = data[:end] + chance.choice(_VALID)
    return data


async def _send(service: WebProcess, data: bytes, chance: random.Random) -> list[int]:
    """Send it in pieces; return the statuses of all responses, with those before a response that is late."""
    found: list[int] = []
    async with open_wire(service.port) as wire:
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(3)))
        for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            await wire.send(data[begin:end])
            await asyncio.sleep(0.01)
        try:
            async with asyncio.timeout(2):
                while response := await wire.response(to_head=data.startswith(b"HEAD")):
                    found.append(response.status)
        except TimeoutError:
            pass
    return found


async def test_whatever_arrives_the_service_answers_on(start_web: StartWeb, redis: Redis) -> None:
    """Every response has its line in the log; nothing else is there, and no 5xx but of what HTTP has and we lack."""
    assert redis is not None
    times = {f"WEB_{name}_TIMEOUT": "300ms" for name in ("HEADER", "BODY", "SEND", "IDLE")}
    service = start_web(WEB_TOKENS=TOKEN, **times)
    seen: Counter[int] = Counter()
    limit = time.monotonic() + _TIME.total_seconds()

    async def play(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < limit:
            seen.update(status for status in await _send(service, _mutated(chance), chance) if status != 100)

    await asyncio.gather(*(play(_SEED + number) for number in range(_AT_ONCE)))
    after = await service.get("/openapi.json")

    def logged() -> Counter[int]:
        return Counter(line["status"] for line in service.lines if line["event"] == "request")

    await asyncio.to_thread(wait_until, lambda: not seen - logged(), 5)
    assert after.status == 200
    assert {200, 400, 401, 404} <= set(seen) <= {*range(200, 500), 501, 505}
    assert {(line["event"], line["level"]) for line in service.lines} == {("serving", "info"), ("request", "info")}
    assert [word for word in (TOKEN, "uillfeather", "raceback") if word in service.log] == []
