"""The cost of the jobs without any queue. A process reads the numbers of jobs from its standard input.

Settings: ``session N`` runs the peers' coroutine N at once, over as many connections. ``asyncpg N`` executes one
prepared INSERT per job over N connections, each in its own transaction. ``sets N`` inserts 100 rows per statement.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from bench.bodies import INSERT, INSERT_SET, Bodies, open_bodies
from bench.target import Job, Target, in_turns, jobs, run

_SET = 100

RunJobs = Callable[[list[Job]], Awaitable[None]]


def work(target: Target, variant: str) -> None:
    """Run the jobs that each line of standard input requests: the number of the first one, and their count."""
    run(_work(target, variant))


async def _work(target: Target, variant: str) -> None:
    kind, at_once = variant.split()
    async with {"session": _sessions, "asyncpg": _asyncpg, "sets": _sets}[kind](target, int(at_once)) as run_jobs:
        while line := await asyncio.to_thread(sys.stdin.readline):
            first, count = map(int, line.split())
            await run_jobs(jobs("create_user", first, count))


@asynccontextmanager
async def _sessions(target: Target, at_once: int) -> AsyncIterator[RunJobs]:
    async with open_bodies(target, pool_size=at_once) as bodies:

        async def run_jobs(waiting: list[Job]) -> None:
            await in_turns((bodies.create_user(**job.arguments) for job in waiting), at_once=at_once)

        yield run_jobs


@asynccontextmanager
async def _asyncpg(target: Target, at_once: int) -> AsyncIterator[RunJobs]:
    async with AsyncExitStack() as stack:
        inserts = []
        for _ in range(at_once):
            connection = await asyncpg.connect(target.database_url)
            stack.push_async_callback(connection.close)
            inserts.append(await connection.prepare(INSERT))

        async def run_jobs(waiting: list[Job]) -> None:
            left = iter(waiting)

            async def insert(statement: "asyncpg.prepared_stmt.PreparedStatement") -> None:
                for job in left:
                    await statement.fetch(job.arguments["name"], job.arguments["email"])

            await asyncio.gather(*map(insert, inserts))

        yield run_jobs


@asynccontextmanager
async def _sets(target: Target, at_once: int) -> AsyncIterator[RunJobs]:
    async with asyncpg.create_pool(target.database_url, min_size=at_once, max_size=at_once) as pool:

        async def run_jobs(waiting: list[Job]) -> None:
            sets = (waiting[at : at + _SET] for at in range(0, len(waiting), _SET))
            await in_turns((_insert_set(pool, rows) for rows in sets), at_once=at_once)

        yield run_jobs


async def _insert_set(pool: "asyncpg.Pool", rows: list[Job]) -> None:
    names, emails = [job.arguments["name"] for job in rows], [job.arguments["email"] for job in rows]
    await pool.execute(INSERT_SET, names, emails)


class _Producer:
    """Enqueues a job that no worker claims and does its work itself: the latency without a worker."""

    def __init__(self, redis: ArqRedis, bodies: Bodies) -> None:
        self._redis, self._bodies = redis, bodies

    async def fill(self, jobs: list[Job]) -> None:
        raise NotImplementedError

    async def enqueue(self, job: Job) -> None:
        await self._redis.enqueue_job(job.kind, **job.arguments)
        await self._bodies.create_user(**job.arguments)

    async def result(self, handle: None) -> None:
        pass


@asynccontextmanager
async def open_producer(target: Target, _variant: str) -> AsyncIterator[_Producer]:
    """Yield the producer that measures the floor of the latencies."""
    redis = await create_pool(RedisSettings.from_dsn(target.redis_url))
    async with open_bodies(target, pool_size=1) as bodies:
        yield _Producer(redis, bodies)
    await redis.aclose()
