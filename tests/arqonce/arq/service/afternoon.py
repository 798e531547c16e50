"""An arq service as people write them: functions, a cron job, hooks, a client in ctx, jobs that enqueue jobs."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from arq import Retry, cron, func
from arq.connections import RedisSettings

EFFECTS = Path(os.environ.get("EFFECTS", "effects"))


def note(what: str) -> None:
    """Append a line to the file of effects."""
    with EFFECTS.open("a") as file:
        file.write(f"{what}\n")


async def startup(ctx: dict[str, Any]) -> None:
    """Open a client."""
    ctx["client"] = {"open": True}


async def shutdown(ctx: dict[str, Any]) -> None:
    """Close it."""
    ctx["client"]["open"] = False
    note("closed")


async def add(ctx: dict[str, Any], a: int, b: int) -> int:
    """Use the client, and answer."""
    assert ctx["client"]["open"]
    return a + b


async def chain(ctx: dict[str, Any], left: int) -> int:
    """Enqueue the next job."""
    note(f"chain {left}")
    if left:
        await ctx["redis"].enqueue_job("chain", left - 1)
    return left


async def patient(ctx: dict[str, Any]) -> int:
    """Succeed at the third attempt."""
    if ctx["job_try"] < 3:
        raise Retry(defer=0.05)
    return int(ctx["job_try"])


async def fail(ctx: dict[str, Any], secret: str) -> None:
    """Fail."""
    assert ctx["client"]["open"]
    raise ValueError(secret)


async def block(_ctx: dict[str, Any], seconds: float) -> int:
    """Block the event loop."""
    note("block")
    time.sleep(seconds)  # noqa: ASYNC251 - what is tested
    return os.getpid()


async def cancel_all(_ctx: dict[str, Any]) -> None:
    """Cancel everything, the worker included."""
    for task in asyncio.all_tasks():
        task.cancel()


async def tick(ctx: dict[str, Any]) -> None:
    """Note the id under which it runs."""
    note(f"tick {ctx['job_id'].partition(':')[0]}")


def _redis() -> RedisSettings:
    return RedisSettings.from_dsn(os.environ.get("SERVICE_REDIS", "redis://127.0.0.1:6379"))


class Base:
    """Settings that several workers of the service share."""

    redis_settings = _redis()
    queue_name = "afternoon"
    on_startup = startup
    on_shutdown = shutdown


class WorkerSettings(Base):
    """The worker."""

    functions = (add, chain, patient, func("afternoon.fail", name="fail", keep_result=60), block, cancel_all)
    max_tries = 5


class CronSettings(Base):
    """A worker with a schedule alone."""

    functions = ()
    cron_jobs = (cron(tick, second=set(range(60)), name="nightly report"),)
