"""Runs a background task for the length of a ``with`` block."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

_AGAIN = timedelta(seconds=5)
"""Time after which a cancelled task that has not ended is cancelled again."""


@asynccontextmanager
async def running(work: Coroutine[object, object, None], *, name: str) -> AsyncIterator[None]:
    """Run ``work`` in a task of this name. At the end, cancel the task and wait until it has ended."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        while not task.done():
            # Repeatedly: on Python 3.11, timeouts inside redis-py and asyncpg can swallow a cancellation.
            task.cancel()
            await asyncio.wait([task], timeout=_AGAIN.total_seconds())
        with suppress(asyncio.CancelledError):
            await task
