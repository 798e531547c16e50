"""A job that is running when its worker ends."""

import asyncio
from typing import Any

from tests.arqonce.arq.shapes.effects import REDIS, note

Context = dict[Any, Any]


async def job_start(ctx: Context) -> None:
    """Open what the job needs."""
    note(ctx["job_id"], f"start {ctx['job_try']}")


async def job_end(ctx: Context) -> None:
    """Close it, which takes a while."""
    await asyncio.sleep(0.05)
    note(ctx["job_id"], f"end {ctx['job_try']}")


async def after_job_end(ctx: Context) -> None:
    """Say that the attempt is recorded."""
    note(ctx["job_id"], f"after {ctx['job_try']}")


async def interrupted(ctx: Context) -> int:
    """Take for ever at the first attempt, and succeed at the second."""
    note(ctx["job_id"], "runs")
    try:
        if "again" not in ctx:
            await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        note(ctx["job_id"], "cleans up")
    return 1


async def again(ctx: Context) -> None:
    """Let the job succeed this time."""
    ctx["again"] = True


class WithoutSignals:
    """A worker that leaves signals to what it runs in."""

    functions = (interrupted,)
    handle_signals = False
    job_timeout = 2
    redis_settings = REDIS
    poll_delay = 0.05


class WithHooks:
    """A worker that is stopped as usual."""

    functions = (interrupted,)
    on_job_start = job_start
    on_job_end = job_end
    after_job_end = after_job_end
    redis_settings = REDIS
    poll_delay = 0.05


class Next:
    """The worker that comes after either."""

    functions = (interrupted,)
    on_startup = again
    job_timeout = 2
    redis_settings = REDIS
    poll_delay = 0.05
