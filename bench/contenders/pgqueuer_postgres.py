"""PgQueuer with asyncpg, in the same database as the users.

Settings: its own pool of 10 connections. One session per job: batches of 50, at most 100 jobs at once over a pool of 50
sessions. The variant ``sets`` claims batches of 500, at most 1,000 jobs at once, and gathers concurrent jobs into one
INSERT by hand. Producers learn the end of a job from its completion watcher, with a debounce of 1 ms.
"""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import asyncpg
from pgqueuer import AsyncpgPoolDriver, PgQueuer, Queries
from pgqueuer import Job as PgqJob
from pgqueuer.core.completion import CompletionWatcher

from bench.bodies import UserSets, open_bodies
from bench.target import Job, Target, run

_POOL = 10


def work(target: Target, variant: str) -> None:
    """Work until killed."""
    run(_work(target, variant))


async def _work(target: Target, variant: str) -> None:
    async with (
        asyncpg.create_pool(target.database_url, min_size=2, max_size=_POOL) as pool,
        open_bodies(target, pool_size=4 if variant == "sets" else 50) as bodies,
    ):
        worker = PgQueuer.from_asyncpg_pool(pool)
        sets = UserSets(bodies.sessions)

        @worker.entrypoint("create_user")
        async def create_user(job: PgqJob) -> None:
            arguments = json.loads(job.payload or b"{}")
            if variant == "sets":
                await sets.create_user(**arguments)
            else:
                await bodies.create_user(**arguments)

        @worker.entrypoint("find_user")
        async def find_user(job: PgqJob) -> None:
            await bodies.find_user(json.loads(job.payload or b"{}")["id"])

        @worker.entrypoint("no_op")
        async def no_op(_job: PgqJob) -> None:
            bodies.no_op()

        batch = 500 if variant == "sets" or target.kind == "no_op" else 50
        await worker.qm.run(batch_size=batch, max_concurrent_tasks=2 * batch)


class _Producer:
    def __init__(self, queries: Queries, watcher: CompletionWatcher) -> None:
        self._queries, self._watcher = queries, watcher

    async def fill(self, jobs: list[Job]) -> None:
        for at in range(0, len(jobs), 1000):
            part = jobs[at : at + 1000]
            payloads: list[bytes | None] = [json.dumps(job.arguments).encode() for job in part]
            await self._queries.enqueue([job.kind for job in part], payloads, [0] * len(part))

    async def enqueue(self, job: Job) -> int:
        (handle,) = await self._queries.enqueue(job.kind, json.dumps(job.arguments).encode())
        return int(handle)

    async def result(self, handle: int) -> None:
        await self._watcher.wait_for(handle)


@asynccontextmanager
async def open_producer(target: Target, _variant: str) -> AsyncIterator[_Producer]:
    """Yield PgQueuer's queries."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(target.database_url, min_size=2, max_size=_POOL))
        driver = await stack.enter_async_context(AsyncpgPoolDriver(pool))
        queries = Queries(driver)
        watcher = CompletionWatcher(driver, queries=queries, debounce=timedelta(milliseconds=1))
        yield _Producer(queries, await stack.enter_async_context(watcher))


async def install(target: Target) -> None:
    """Create PgQueuer's tables."""
    connection = await asyncpg.connect(target.database_url)
    await Queries.from_asyncpg_connection(connection).install()
    await connection.close()
