"""Runs something beside the jobs for as long as it is wanted."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def running(work: Coroutine[object, object, None], *, name: str) -> AsyncIterator[None]:
    """Run ``work`` in a task of this name, and cancel it at the end; its task is over when this returns."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
