"""One client in several event loops, on a real queue without a worker."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis.asyncio import Redis

from arqonce import JobClient
from arqonce.wire.codec import encode
from jobs import CreateUser

JANE = CreateUser(name="Jane")


@contextmanager
def _open_loops(number: int) -> Iterator[list[asyncio.AbstractEventLoop]]:
    """Yield loops that run in threads of their own."""
    loops = [asyncio.new_event_loop() for _ in range(number)]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield loops
    finally:
        for loop, thread in zip(loops, threads, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def test_a_client_serves_loops_in_several_threads(valkey_url: str, redis: Redis) -> None:
    """A command on another loop's connection would be sent, and its reply never read: the job would run twice."""
    client = JobClient(valkey_url)

    async def enqueue_and_wait(key: str) -> str:
        handle = await client.enqueue(JANE, key=key)
        return (await handle.result(timeout=10)).name

    async def answer(key: str) -> None:
        while not await redis.zscore("arq:queue", key):
            await asyncio.sleep(0.001)
        result = {"id": 1, "name": key, "email": None, "created_at": "2026-11-30T06:53:58Z"}
        await redis.set(f"arq:result:{key}", encode({"s": True, "r": result}))

    names = [f"of-loop-{number}" for number in range(6)]
    with _open_loops(2) as loops:
        waits = [
            asyncio.wrap_future(asyncio.run_coroutine_threadsafe(enqueue_and_wait(name), loop))
            for name, loop in zip(names, [asyncio.get_running_loop(), *loops] * 2, strict=True)
        ]
        async with asyncio.timeout(10):
            for name in names:
                await answer(name)
        seen = await asyncio.gather(*waits)
        await client.aclose()

    assert (seen, await redis.zcard("arq:queue")) == (names, len(names))


def test_a_client_outlives_a_loop_that_was_closed(valkey_url: str) -> None:
    """Each ``asyncio.run`` has another loop; the jobs are enqueued once, and the client is closed in the last one."""
    client = JobClient(valkey_url)

    async def enqueue(key: str) -> bool:
        return (await client.enqueue(JANE, key=key)).is_new

    seen = [asyncio.run(enqueue(key)) for key in ("one", "two", "two")]
    gc.collect()  # a socket that was left open would be an error now
    asyncio.run(client.aclose())

    assert seen == [True, True, False]
    with pytest.raises(RuntimeError, match="the client is closed"):
        asyncio.run(enqueue("three"))
