"""Runs a background task for the length of a ``with`` block."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog

_AGAIN = timedelta(seconds=5)
"""Time after which a cancelled task that has not ended is cancelled again, and one that has failed is started again."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.background")


@asynccontextmanager
async def running(work: Callable[[], Coroutine[object, object, None]], *, name: str) -> AsyncIterator[None]:
    """Run ``work`` in a task of this name. At the end, cancel the task and wait until it has ended.

    An error in it is logged, and the work begins again: else it would be missed by nobody, until the end fails with it.
    """
    is_over = asyncio.Event()
    task = asyncio.create_task(_run(work, name, is_over), name=name)
    try:
        yield
    finally:
        is_over.set()
        while not task.done():
            # Repeatedly: on Python 3.11, timeouts inside redis-py and asyncpg can swallow a cancellation.
            task.cancel()
            await asyncio.wait([task], timeout=_AGAIN.total_seconds())
        with suppress(asyncio.CancelledError):
            await task


async def _run(work: Callable[[], Coroutine[object, object, None]], name: str, is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whatever a driver raises: the process goes on, and needs this task
            _log.error("a background task has failed: it begins again", task=name, exc_info=error)
        else:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_AGAIN.total_seconds()):
                await is_over.wait()
