"""Jobs that use what their worker has opened: for real workers."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobContext, JobSpec, Payload, Registry, Resource, Result, Settings


class Used(Result):
    """What the resource said."""

    said: str


class Use(Payload[Used]):
    """Use it."""

    job_name: ClassVar[str] = "use"


def _note(what: str) -> None:
    with Path(os.environ["RESOURCES_LOG"]).open("a") as log:
        log.write(f"{what} {os.getpid()}\n")


@asynccontextmanager
async def _open_bank() -> AsyncIterator[str]:
    _note("open bank")
    yield "bank"
    _note("close bank")


@asynccontextmanager
async def _open_cache(settings: Settings) -> AsyncIterator[str]:
    if os.environ.get("CACHE_IS_BROKEN"):
        raise ConnectionRefusedError("no cache at port 7")
    _note("open cache")
    yield f"cache of {settings.worker.default_queue}"
    _note("close cache")


BANK = Resource("bank", _open_bank)
CACHE = Resource("cache", _open_cache)


async def _use(_session: AsyncSession, _payload: Use, job: JobContext) -> Used:
    return Used(said=f"{job[BANK]} and {job[CACHE]} for {job.id}")


REGISTRY = Registry(JobSpec(Use, _use), resources=[BANK, CACHE])
NAME = f"{__name__}:REGISTRY"
