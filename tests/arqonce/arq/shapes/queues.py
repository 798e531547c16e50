"""Two queues whose functions enqueue into one another, a thread pool, aborts, and arguments that need pickle."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.arqonce.arq.shapes.effects import REDIS, note

Context = dict[Any, Any]

ORDERS, LETTERS = "shapes:orders", "shapes:letters"


@dataclass(frozen=True)
class Order:
    """An argument of a type that only pickle carries."""

    item: str
    due: datetime
    is_confirmed: bool = False


async def startup(ctx: Context) -> None:
    """Open the pool of threads."""
    ctx["threads"] = ThreadPoolExecutor(2)


async def shutdown(ctx: Context) -> None:
    """Close it."""
    ctx["threads"].shutdown()


async def job_end(ctx: Context) -> None:
    """Note the end, also of what is aborted."""
    note(ctx["job_id"], "end")


def _prepare(job: str, order: Order) -> Order:
    time.sleep(0.01)
    note(job, f"{order.item} is prepared")
    return replace(order, due=order.due + timedelta(days=1))


async def place(ctx: Context, order: Order) -> Order:
    """Prepare an order in a thread, and write a letter about it."""
    prepared = await asyncio.get_running_loop().run_in_executor(ctx["threads"], _prepare, ctx["job_id"], order)
    await ctx["redis"].enqueue_job("write", prepared, at=order.due, _queue_name=LETTERS, _job_id=f"write-{order.item}")
    return prepared


async def write(ctx: Context, order: Order, *, at: datetime) -> datetime:
    """Write a letter, and confirm the order."""
    note(ctx["job_id"], f"{order.item} is due at {at:%H:%M}")
    await ctx["redis"].enqueue_job("confirm", order, _queue_name=ORDERS, _job_id=f"confirm-{order.item}")
    return datetime(2030, 1, 1, at.hour, tzinfo=UTC)


async def confirm(ctx: Context, order: Order) -> Order:
    """Confirm the order."""
    note(ctx["job_id"], "confirmed")
    return replace(order, is_confirmed=True)


async def wait(ctx: Context) -> None:
    """Take until somebody aborts it."""
    note(ctx["job_id"], "waits")
    try:
        await asyncio.sleep(60)
    finally:
        note(ctx["job_id"], "cleans up")


class Orders:
    """The worker of one queue."""

    functions = (place, confirm, wait)
    queue_name = ORDERS
    on_startup = startup
    on_shutdown = shutdown
    on_job_end = job_end
    allow_abort_jobs = True
    redis_settings = REDIS
    poll_delay = 0.05


class Letters:
    """The worker of the other queue."""

    functions = (write,)
    queue_name = LETTERS
    on_job_end = job_end
    allow_abort_jobs = True
    redis_settings = REDIS
    poll_delay = 0.05
