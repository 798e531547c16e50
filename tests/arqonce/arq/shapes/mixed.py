"""Functions of all shapes in one service, for workers of both classes on one queue."""

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from arq import Retry

from tests.arqonce.arq.shapes.effects import REDIS, note

Context = dict[Any, Any]

WORKER = os.environ.get("SHAPES_COMMAND", "")
"""By which command this worker was started: each effect says who had it."""

START = datetime(2030, 1, 7, 14, 5)  # noqa: DTZ001 - as many services have them


@dataclass(frozen=True)
class Parcel:
    """An argument of a type that only pickle carries."""

    number: int
    due: datetime


class Asked(NamedTuple):
    """A job, and what becomes of it."""

    job_id: str
    name: str
    args: tuple[object, ...]
    result: object


async def startup(ctx: Context) -> None:
    """Open the pool of processes."""
    ctx["processes"] = ProcessPoolExecutor(1)


async def shutdown(ctx: Context) -> None:
    """Close it."""
    ctx["processes"].shutdown()


async def store(ctx: Context, number: int) -> int:
    """Work on a database while the loop waits."""
    time.sleep(0.005)  # noqa: ASYNC251 - as many services do
    note(ctx["job_id"], WORKER)
    return number + 1


async def square(ctx: Context, number: int) -> int:
    """Count in another process."""
    found = await asyncio.get_running_loop().run_in_executor(ctx["processes"], pow, number, 2)
    note(ctx["job_id"], WORKER)
    return found


async def thread(ctx: Context, tenant: UUID) -> UUID:
    """Work in a thread."""
    await asyncio.to_thread(note, ctx["job_id"], WORKER)
    return UUID(int=tenant.int ^ 1)


async def patient(ctx: Context) -> str:
    """Succeed at the second attempt, or a later one."""
    note(ctx["job_id"], WORKER)
    if ctx["job_try"] < 2:
        raise Retry(defer=0.05)
    return "patient"


async def chain(ctx: Context, left: int) -> int:
    """Enqueue the next job for later."""
    note(ctx["job_id"], WORKER)
    if left:
        job_id = f"{ctx['job_id'].rpartition('-')[0]}-{left - 1}"
        await ctx["redis"].enqueue_job("chain", left - 1, _defer_by=0.05, _job_id=job_id)
    return left


async def deliver(ctx: Context, parcel: Parcel) -> Parcel:
    """Take a while."""
    await asyncio.sleep(0.02)
    note(ctx["job_id"], WORKER)
    return replace(parcel, due=parcel.due + timedelta(days=1))


def mix(count: int) -> Iterator[Asked]:
    """Yield jobs of all kinds, in turn."""
    for number in range(count // 6):
        tenant, parcel = uuid4(), Parcel(number, START)
        yield Asked(f"store:{uuid4().hex}", "store", (number,), number + 1)
        yield Asked(f"square:{uuid4().hex}", "square", (number,), number**2)
        yield Asked(f"thread:{uuid4().hex}", "thread", (tenant,), UUID(int=tenant.int ^ 1))
        yield Asked(f"patient:{uuid4().hex}", "patient", (), "patient")
        yield Asked(f"chain:{uuid4().hex}-1", "chain", (1,), 1)
        yield Asked(f"deliver:{uuid4().hex}", "deliver", (parcel,), replace(parcel, due=START + timedelta(days=1)))


class WorkerSettings:
    """The worker, of either class."""

    functions = (store, square, thread, patient, chain, deliver)
    on_startup = startup
    on_shutdown = shutdown
    job_timeout = 5
    max_tries = 20
    redis_settings = REDIS
    poll_delay = 0.05
