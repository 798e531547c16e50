"""Runs something beside the jobs for as long as it is wanted."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

_AGAIN = timedelta(seconds=5)
"""How long a cancelled task may take before it is cancelled once more."""


@asynccontextmanager
async def running(work: Coroutine[object, object, None], *, name: str) -> AsyncIterator[None]:
    """Run ``work`` in a task of this name, and cancel it at the end; its task is over when this returns."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        while not task.done():
            # Again and again: on Python 3.11 redis-py's and asyncpg's time limits can lose a cancellation.
            task.cancel()
            await asyncio.wait([task], timeout=_AGAIN.total_seconds())
        with suppress(asyncio.CancelledError):
            await task
