"""The worker's own connection: what it does when the other end is no Redis that it knows, or says nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce.connection.direct import DirectConnection
from arqonce.connection.redis import build_redis
from tests.conftest import wait_until_async
from tests.faults.proxy import open_proxy

Answer = Callable[[bytes], bytes]


@asynccontextmanager
async def _connection(answer: Answer, *, tracks: bool = False) -> AsyncIterator[DirectConnection]:
    """Connect to a server that answers in this way."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while command := await reader.read(65536):
            writer.write(answer(command))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, build_redis(f"redis://127.0.0.1:{port}", Redis) as redis:
        connection = DirectConnection(redis, tracks=tracks)
        yield connection
        connection.close()


async def test_a_server_without_resp3_is_talked_to_in_resp2() -> None:
    """A proxy, or a Redis of long ago: it works, tells of no changes, and the reason can be told."""

    def answer(command: bytes) -> bytes:
        return b"-ERR unknown command 'HELLO'\r\n" if b"HELLO" in command else b"+PONG\r\n"

    async with _connection(answer, tracks=True) as connection:
        assert await connection.call("PING") == b"PONG"
        assert not connection.is_tracking
        assert "HELLO" in str(connection.refusal)


async def test_a_silent_server_is_given_up(redis: Redis) -> None:
    """Its late answer must not be taken for that of the next command, so the next command connects anew."""
    connection = DirectConnection(redis)
    with pytest.raises(RedisTimeoutError):
        await connection.call("BLPOP", "nothing", "1", limit=timedelta(milliseconds=50))

    assert await connection.call("ECHO", "again") == b"again"
    connection.close()


@pytest.mark.parametrize(
    ("parts", "is_answered"),
    [([b"$6\r\n", *[b"%d" % at for at in range(6)], b"\r\n"], True), ([b">1\r\n$1\r\nx\r\n"] * 8, False)],
    ids=["its reply, slowly", "others' changes"],
)
async def test_a_server_is_silent_that_sends_no_part_of_a_reply(parts: list[bytes], *, is_answered: bool) -> None:
    """A hundred results of 1 MB need more than five seconds on a slow network; all but the first ones were lost."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"PING" not in (command := await reader.read(65536)):
            writer.write(b"*0\r\n" if b"HELLO" in command else b"+OK\r\n")
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, build_redis(url, Redis) as redis:
        connection = DirectConnection(redis)
        asked = connection.call("PING", limit=timedelta(milliseconds=500))
        if is_answered:
            assert await asked == b"012345"
        else:
            with pytest.raises(RedisTimeoutError):
                await asked
        connection.close()


async def test_a_large_message_may_take_its_time() -> None:
    """As long as the server takes part of it within the limit."""
    left = size = 3_000_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        while b"PING" not in (command := await reader.read(65536)):
            writer.write(b"*0\r\n" if b"HELLO" in command else b"+OK\r\n" * command.count(b"SETINFO"))
        writer.write(b"+PONG\r\n")
        while left > 0 and (data := await reader.read(65536)):
            left -= len(data)
            await asyncio.sleep(0.02)
        writer.write(b"+OK\r\n")
        writer.close()

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    server = await asyncio.start_server(serve, sock=listening, limit=65536)
    url = f"redis://127.0.0.1:{listening.getsockname()[1]}"
    async with server, build_redis(url, Redis) as redis:
        connection = DirectConnection(redis)
        await connection.call("PING")
        wire = await connection.open()
        wire._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        assert await connection.call("SET", "k", b"x" * size, limit=timedelta(milliseconds=500)) == b"OK"
        connection.close()


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+OK\r\n"])
async def test_what_is_no_answer_ends_the_connection(garbage: bytes) -> None:
    """Nothing that follows could be trusted; the command fails as if the connection were lost, if it has no answer."""
    async with _connection(lambda command: b"*0\r\n" if b"HELLO" in command else garbage) as connection:
        lost = asyncio.Event()
        connection.on_lost = lost.set
        with suppress(RedisConnectionError):
            await connection.call("PING")
        await asyncio.wait_for(lost.wait(), 5)


async def test_answers_find_their_commands(redis: Redis) -> None:
    """Many at once, errors among them, the caller of one gone meanwhile."""
    connection = DirectConnection(redis)
    await connection.open()
    gone = asyncio.create_task(connection.call("ECHO", "gone"))
    commands = [connection.call("ECHO", str(number)) for number in range(100)]
    calls: Awaitable[list[object]] = asyncio.gather(*commands, connection.call("NO"), return_exceptions=True)
    await asyncio.sleep(0)
    gone.cancel()

    *echoes, error = await calls

    assert echoes == [str(number).encode() for number in range(100)]
    assert isinstance(error, ResponseError)
    connection.close()


async def test_a_script_that_the_server_has_lost_is_answered_once(redis: Redis) -> None:
    """What has rung before the answer would else look as if nothing had announced it."""
    connection, answers = DirectConnection(redis), list[int]()

    answer = await connection.run(f"return '{uuid4()}'", [], [], on_answer=lambda: answers.append(1))

    assert (len(answer), answers) == (36, [1])
    connection.close()


async def test_it_hears_once_what_others_change_and_nothing_of_what_it_changes(redis: Redis) -> None:
    """What client-side tracking promises, and waking is built on."""
    connection, heard = DirectConnection(redis, tracks=True), list[object]()
    connection.on_change = heard.append
    await connection.call("EVAL", "return redis.call('ZCARD', KEYS[1])", 1, "q")
    await connection.call("ZADD", "q", 1, "own")
    await connection.call("GETEX", "other")
    for member in ("a", "b"):
        await redis.zadd("q", {member: 1})
    await redis.set("other", "x")
    assert heard == []  # our own change has ended it
    await connection.call("EVAL", "redis.call('ZADD', KEYS[1], 2, 'own') return redis.call('ZCARD', KEYS[1])", 1, "q")
    for member in ("c", "d"):
        await redis.zadd("q", {member: 1})

    async def is_heard() -> bool:
        return bool(heard)

    await wait_until_async(is_heard, 5)
    await connection.call("PING")  # after it, all that was told before has come
    assert heard == [[b"q"]]
    connection.close()


async def test_a_failure_to_connect_is_that_of_all_who_wait_for_it(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty attempts in turn would last twenty times as long; and the next one is new."""
    monkeypatch.setattr("arqonce.connection.redis._COMMAND_TIMEOUT", timedelta(seconds=0.5))
    with open_proxy(urlsplit(valkey_url).port or 0) as proxy:
        async with build_redis(f"redis://127.0.0.1:{proxy.port}/1", Redis) as redis:
            connection = DirectConnection(redis)
            proxy.silence()

            async with asyncio.timeout(3):
                failures = await asyncio.gather(*(connection.call("PING") for _ in range(20)), return_exceptions=True)

            assert ({type(failure) for failure in failures}, len(proxy._links)) == ({RedisTimeoutError}, 1)
            proxy.heal()
            assert await connection.call("PING") == b"PONG"
            connection.close()


async def test_the_first_who_connects_may_be_cancelled_and_the_others_go_on(redis: Redis) -> None:
    """It connects for all."""
    connection = DirectConnection(redis)
    first, *others = [asyncio.create_task(connection.call("ECHO", str(number))) for number in range(5)]
    await asyncio.sleep(0)

    first.cancel()

    assert await asyncio.gather(*others) == [b"1", b"2", b"3", b"4"]
    connection.close()


async def test_who_connects_when_it_is_closed_is_not_cancelled(valkey_url: str) -> None:
    """That would look like a cancellation of the caller's own task."""
    with open_proxy(urlsplit(valkey_url).port or 0) as proxy:
        async with build_redis(f"redis://127.0.0.1:{proxy.port}/1", Redis) as redis:
            connection = DirectConnection(redis)
            proxy.silence()
            waiting = asyncio.create_task(connection.call("PING"))
            await asyncio.sleep(0)

            connection.close()

            with pytest.raises(RedisConnectionError, match="while it was being opened"):
                await waiting


async def test_a_transaction_answers_with_all_or_with_its_first_error(redis: Redis) -> None:
    """Also when it is an error of one command in the middle of the others."""
    connection = DirectConnection(redis)

    assert await connection.transaction(("SET", "text", "x"), ("GET", "text")) == [b"OK", b"x"]
    for wrong in (("ZSCORE", "text", "member"), ("NO",)):
        with pytest.raises(ResponseError):
            await connection.transaction(("GET", "text"), wrong, ("GET", "text"))
    assert await connection.call("ECHO", "again") == b"again"
    connection.close()


async def test_a_connection_that_is_opened_in_spite_of_its_cancellation_is_closed(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time limits of libraries can lose a cancellation; nobody would close what is connected then.

    Its task ends as cancelled: of any other error ``asyncio.run`` prints a traceback at its end.
    """
    direct = DirectConnection(redis)
    connect = direct._connect

    async def connect_in_spite() -> AbstractConnection:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return await connect()

    monkeypatch.setattr(direct, "_connect", connect_in_spite)
    opening = asyncio.create_task(direct.open())
    await asyncio.sleep(0.01)  # it connects
    task = direct._opening

    direct.close()

    with pytest.raises(RedisConnectionError, match="closed while it was being opened"):
        await opening
    assert not direct.is_open
    assert task is not None
    assert task.cancelled()
