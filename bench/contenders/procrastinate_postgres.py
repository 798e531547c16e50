"""procrastinate, in the same database as the users, with psycopg's C implementation for its own tables.

Settings: 30 jobs at once, notifications on, ended jobs deleted, 20 connections of its own. It keeps no results;
producers can only query a job's status.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from procrastinate import App, PsycopgConnector

from bench.bodies import Bodies, build_tasks, open_bodies
from bench.target import Job, Target, run

_MAX_JOBS = 30
_CONNECTIONS = 20


def _build_app(target: Target, bodies: Bodies | None) -> App:
    app = App(connector=PsycopgConnector(conninfo=target.database_url, min_size=2, max_size=_CONNECTIONS))

    for body in build_tasks(bodies):
        app.task(name=body.__name__)(body)
    return app


def work(target: Target, _variant: str) -> None:
    """Work until killed."""
    run(_work(target))


async def _work(target: Target) -> None:
    max_jobs = target.max_jobs or _MAX_JOBS
    async with open_bodies(target, pool_size=max_jobs) as bodies, _build_app(target, bodies).open_async() as app:
        await app.run_worker_async(
            concurrency=max_jobs, delete_jobs="always", listen_notify=True, install_signal_handlers=False
        )


class _Producer:
    def __init__(self, app: App) -> None:
        self._app = app

    async def fill(self, jobs: list[Job]) -> None:
        for at in range(0, len(jobs), 1000):
            part = jobs[at : at + 1000]
            await self._app.tasks[part[0].kind].batch_defer_async(*(job.arguments for job in part))

    async def enqueue(self, job: Job) -> int:
        handle: int = await self._app.tasks[job.kind].defer_async(**job.arguments)
        return handle

    async def result(self, handle: Any) -> None:  # noqa: ANN401 - there is none
        raise NotImplementedError


@asynccontextmanager
async def open_producer(target: Target, _variant: str) -> AsyncIterator[_Producer]:
    """Yield procrastinate's tasks."""
    async with _build_app(target, None).open_async() as app:
        yield _Producer(app)


async def install(target: Target) -> None:
    """Create procrastinate's tables."""
    async with App(connector=PsycopgConnector(conninfo=target.database_url)).open_async() as app:
        await app.schema_manager.apply_schema_async()
