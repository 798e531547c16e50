"""Functions with limits of their own, attempts that are put off, and identifiers that are UUIDs."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from arq import Retry, func

from tests.arqonce.arq.shapes.effects import REDIS, note

Context = dict[Any, Any]


class OutOfStockError(Exception):
    """A failure with a field."""

    def __init__(self, item: str) -> None:
        """Name the item."""
        super().__init__(item)


async def build(ctx: Context, tenant: UUID, *, rows: int) -> UUID:
    """Answer with another identifier."""
    note(ctx["job_id"], f"{rows} rows")
    return UUID(int=tenant.int + rows)


async def slow(_ctx: Context) -> None:
    """Take longer than its limit, which is shorter than the worker's."""
    await asyncio.sleep(60)


async def long(_ctx: Context) -> str:
    """Take longer than the worker's limit, but not than its own."""
    await asyncio.sleep(1.3)
    return "in time"


async def stubborn(ctx: Context) -> None:
    """Never succeed."""
    note(ctx["job_id"], f"try {ctx['job_try']}")
    raise Retry(defer=timedelta(milliseconds=20))


async def patient(ctx: Context) -> list[int]:
    """Succeed at the last attempt that the worker allows."""
    note(ctx["job_id"], f"try {ctx['job_try']}")
    if ctx["job_try"] < 3:
        raise Retry(defer=ctx["job_try"] * 0.02)
    return [ctx["job_try"]]


async def sell(_ctx: Context, item: str) -> None:
    """Fail with an exception of the service's own."""
    raise OutOfStockError(item)


async def forget(ctx: Context) -> str:
    """Answer, but keep nothing."""
    note(ctx["job_id"], "done")
    return "nobody reads this"


async def put_off(ctx: Context) -> int:
    """Enqueue a job for the next minute; answer after how many minutes it expires, and take it back."""
    redis, job_id = ctx["redis"], ctx["job_id"].replace("put_off", "forget")
    await redis.enqueue_job("forget", _job_id=job_id, _defer_by=60)
    left = await redis.pttl(f"arq:job:{job_id}")
    await redis.delete(f"arq:job:{job_id}")
    await redis.zrem("arq:queue", job_id)
    return int(left / 60_000 + 0.5)


async def unpicklable(_ctx: Context) -> object:
    """Answer with what cannot be stored."""
    return lambda: None


class WorkerSettings:
    """The worker."""

    functions = (
        func(build, name="reports.build", keep_result=60),
        func(slow, name="slow", timeout=0.1),  # type: ignore[arg-type] # arq's protocol has *args
        func(long, name="long", timeout=timedelta(seconds=20)),  # type: ignore[arg-type] # as above
        func(stubborn, name="stubborn", max_tries=2),
        patient,
        func("tests.arqonce.arq.shapes.limits.sell", name="sell", keep_result_forever=True),
        func(forget, name="forget", keep_result=0),
        put_off,
        unpicklable,
    )
    expires_extra_ms = 600_000
    max_tries = 3
    job_timeout = 1
    keep_result = 600
    redis_settings = REDIS
    poll_delay = 0.05
