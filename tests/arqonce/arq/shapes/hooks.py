"""All five hooks, synchronous work on a database, a process pool, jobs that enqueue later ones, and a cron job."""

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from arq import Retry, cron, func

from tests.arqonce.arq.shapes.effects import REDIS, note

Context = dict[Any, Any]


async def startup(ctx: Context) -> None:
    """Open the pool of processes."""
    ctx["processes"] = ProcessPoolExecutor(2)
    note("worker", "startup")


async def shutdown(ctx: Context) -> None:
    """Close it."""
    ctx["processes"].shutdown()
    note("worker", "shutdown")


async def job_start(ctx: Context) -> None:
    """Open a session for the job, as services do."""
    ctx["session"] = f"session {ctx['job_try']}"
    note(ctx["job_id"], f"start {ctx['job_try']}")


async def job_end(ctx: Context) -> None:
    """Close the session."""
    note(ctx["job_id"], f"end of {ctx.pop('session')}")


async def after_job_end(ctx: Context) -> None:
    """Look whether there is a result."""
    has_result = await ctx["redis"].exists(f"arq:result:{ctx['job_id']}")
    note(ctx["job_id"], f"after, with {has_result} results")


async def store(ctx: Context, text: str) -> str:
    """Work on the database."""
    time.sleep(0.005)  # noqa: ASYNC251 - what is tested
    note(ctx["job_id"], text)
    return f"{text} in {ctx['session']}"


async def square(ctx: Context, number: int) -> int:
    """Count in another process."""
    return await asyncio.get_running_loop().run_in_executor(ctx["processes"], pow, number, 2)


async def remind(ctx: Context, left: int) -> int:
    """Enqueue the next reminder for later."""
    if left:
        await ctx["redis"].enqueue_job("remind", left - 1, _defer_by=0.1, _job_id=f"remind-{left - 1}")
    return left


async def patient(ctx: Context) -> str:
    """Succeed at the second attempt."""
    if ctx["job_try"] < 2:
        raise Retry(defer=0.05)
    return str(ctx["session"])


async def fail(_ctx: Context) -> None:
    """Fail."""
    raise ValueError("no such item")


async def sleep(_ctx: Context) -> None:
    """Take too long."""
    await asyncio.sleep(60)


async def tick(ctx: Context) -> None:
    """Note that the time has come."""
    note(ctx["job_id"], "tick")


class WorkerSettings:
    """The worker."""

    functions = (
        store,
        square,
        remind,
        patient,
        fail,
        func(sleep, name="sleep", timeout=0.1),  # type: ignore[arg-type] # arq's protocol has *args
    )
    cron_jobs = (cron(tick, month=2, day=29, hour=4, minute=44, run_at_startup=True),)
    on_startup = startup
    on_shutdown = shutdown
    on_job_start = job_start
    on_job_end = job_end
    after_job_end = after_job_end
    redis_settings = REDIS
    poll_delay = 0.05
