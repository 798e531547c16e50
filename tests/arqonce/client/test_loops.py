"""One client in several event loops, on a real queue without a worker."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from redis.asyncio import Redis

from arqonce import JobClient, JobStatus
from arqonce.wire.codec import encode
from jobs import CreateUser

JANE = CreateUser(name="Jane")


@contextmanager
def _open_loops(number: int) -> Iterator[list[asyncio.AbstractEventLoop]]:
    """Yield loops that run in threads of their own."""
    loops = [asyncio.new_event_loop() for _ in range(number)]
    threads = [threading.Thread(target=_run, args=[loop]) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield loops
    finally:
        for loop, thread in zip(loops, threads, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.run_until_complete(loop.shutdown_asyncgens())
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
    """Each ``asyncio.run`` has another loop, which closes its connections; the jobs are enqueued once."""
    client = JobClient(valkey_url)

    async def enqueue(key: str) -> tuple[bool, JobStatus]:
        handle = await client.enqueue(JANE, key=key)
        with suppress(TimeoutError):
            await handle.result(timeout=0)
        return handle.is_new, await handle.status()

    seen = [asyncio.run(enqueue(key)) for key in ("one", "two", "two")]
    left = [lines.are_closed for lines in client._lines._of.values()]
    asyncio.run(client.aclose())

    assert (seen, left) == ([(True, JobStatus.QUEUED), (True, JobStatus.QUEUED), (False, JobStatus.QUEUED)], [True])
    with pytest.raises(RuntimeError, match="the client is closed"):
        asyncio.run(enqueue("three"))


async def test_a_client_serves_a_loop_that_has_ended_its_generators(valkey_url: str) -> None:
    """Some end the generators of a loop, as ``asyncio.run`` does before it closes it, and go on with the loop."""
    async with JobClient(valkey_url) as client:
        await client._lines.own().aclose()

        assert (await client.enqueue(JANE)).is_new
