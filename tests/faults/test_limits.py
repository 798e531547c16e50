"""Limits with real workers that are killed: what handlers see of each other."""

import asyncio
import fcntl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobClient, JobSpec, Limit, Payload, Registry, Result
from db.users import insert_user
from tests.conftest import StartWorker, wait_until_async
from tests.faults.observe import Sessions, users_by_name, wait_for_empty_queue

MOST = 2
"""Most jobs of a tenant at once."""

RATE, PER = 5, timedelta(seconds=1)


class Done(Result):
    """When it started, in seconds since 1970."""

    started: float


class Occupy(Payload[Done]):
    """Store a user, and hold one of the tenant's places meanwhile."""

    job_name: ClassVar[str] = "occupy"
    tenant: str
    name: str
    folder: str


class Tick(Payload[Done]):
    """Say when it started."""

    job_name: ClassVar[str] = "tick"


async def occupy(session: AsyncSession, payload: Occupy) -> Done:
    """Take a lock that the kernel frees at once if this process is killed: there is one for each job of the tenant."""
    started = time.time()
    with _place(Path(payload.folder), payload.tenant):
        await insert_user(session, payload.name)
        await asyncio.sleep(0.04)
    return Done(started=started)


async def tick(_session: AsyncSession, _payload: Tick) -> Done:
    """Look at the clock."""
    return Done(started=time.time())


@contextmanager
def _place(folder: Path, tenant: str) -> Iterator[None]:
    with ExitStack() as stack:
        for number in range(MOST):
            file = stack.enter_context((folder / f"{tenant}.{number}").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                (folder / f"{tenant}.beside").touch()
                continue
            yield
            return
        (folder / "too many at once").touch()
        yield


REGISTRY = Registry(
    JobSpec(Occupy, occupy, max_attempts=50, limits=[Limit(concurrency=MOST, by="tenant")]),
    JobSpec(Tick, tick, limits=[Limit(rate=RATE, per=PER)]),
)


async def test_killed_workers_exceed_no_limit_and_leave_no_permit_behind(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions, tmp_path: Path
) -> None:
    """Never more than two of a tenant at once, as their handlers see it; all end, once, and nobody waits for ever."""
    names = [f"{tenant} {number}" for number in range(25) for tenant in ("a", "b", "c")]
    variables = {"WORKER_REGISTRY": f"{__name__}:REGISTRY", "WORKER_LEASE": "1s"}
    workers = [start_worker(**variables) for _ in range(2)]
    await client.enqueue_many([Occupy(tenant=name[0], name=name, folder=str(tmp_path)) for name in names])
    for kills, left in enumerate((60, 35)):

        async def is_so_far(left: int = left) -> bool:
            return bool(await redis.zcard("arq:queue") <= left)

        await wait_until_async(is_so_far, 30)
        await asyncio.to_thread(workers[kills % 2].kill)
        workers[kills % 2] = await asyncio.to_thread(start_worker, **variables)

    await wait_for_empty_queue(redis, 60)

    assert await users_by_name(sessions) == dict.fromkeys(names, 1)
    seen = {file.name for file in tmp_path.iterdir()}  # noqa: ASYNC240 - a look at a local folder
    assert "too many at once" not in seen
    assert {"a.beside", "b.beside", "c.beside"} <= seen  # two at once there were
    assert await redis.keys("arqonce:limits:parked:*") == []


async def test_jobs_beyond_a_rate_start_when_the_time_has_passed(start_worker: StartWorker, client: JobClient) -> None:
    """Woken on time by an idle worker, not by polling: twelve at five a second take two seconds, and little more."""
    start_worker(WORKER_REGISTRY=f"{__name__}:REGISTRY")
    handles = await client.enqueue_many([Tick() for _ in range(12)])

    starts = sorted([(await handle.result(timeout=20)).started for handle in handles])

    assert min(later - first for first, later in zip(starts, starts[RATE:], strict=False)) > PER.total_seconds() - 0.1
    assert starts[-1] - starts[0] < 3.5
