"""Connections to Redis that go away: every event loop must tell of it in the same way."""

import asyncio
import socket
import struct
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from arqonce.connection.redis import build_redis

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_reset_before_a_command_is_an_error_of_redis(loop_factory: type[asyncio.AbstractEventLoop]) -> None:
    """A worker waits for Redis after its errors, and ends after others: uvloop has one of its own for this."""

    async def send_after_reset() -> None:
        open_ones: list[asyncio.StreamWriter] = []

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_ones.append(writer)
            while await reader.read(100):
                writer.write(b"+OK\r\n")
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, build_redis(f"redis://127.0.0.1:{port}/0", Redis) as redis, redis.pipeline() as pipe:
            await pipe.watch("key")
            for writer in open_ones:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                writer.transport.abort()
            await asyncio.sleep(0.1)  # nothing tells this side when the reset has arrived

            with pytest.raises(RedisError):
                await pipe.get("key")
            await pipe.reset()  # type: ignore[no-untyped-call] # redis-py

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(send_after_reset())


async def test_what_is_no_answer_of_redis_ends_the_connection_and_not_the_call() -> None:
    """As if the connection were lost: on the next one Redis may answer."""
    nonsense = iter([b"HTTP/1.1 400 Bad Request\r\n\r\n"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            writer.write(next(nonsense, b"+PONG\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, build_redis(f"redis://127.0.0.1:{port}/0", Redis) as redis:
        assert await redis.ping()


async def test_a_connection_that_spoke_nonsense_does_not_stay_in_the_pool(valkey_url: str) -> None:
    """Each call that got it would fail, for ever, although Redis answers by now."""
    async with build_redis(valkey_url, Redis, max_connections=1) as redis:
        await redis.ping()
        idle: Any = redis.connection_pool._available_connections[0]
        idle._parser._reader.feed(b"\x16\x03\x01")

        assert [await redis.ping() for _ in range(3)] == [True] * 3


async def test_no_cancellation_is_lost_in_a_command(redis: Redis, valkey_url: str) -> None:
    """Whichever turn of the loop it comes in: arq's worker would never end after SIGTERM."""
    assert redis is not None
    async with build_redis(valkey_url, Redis) as connected:

        async def ask_once() -> None:
            await connected.ping()
            await asyncio.sleep(60)  # nobody has told it to end

        for turns in range(20):
            task = asyncio.create_task(ask_once())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()

            done, _ = await asyncio.wait([task], timeout=5)

            assert done == {task}, turns
            assert task.cancelled()
            assert await connected.ping()
