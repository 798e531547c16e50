"""Jobs that end in all ways, for the figures of real workers."""

import asyncio
import os
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.failures import JobFailedError
from arqonce.limits import Limit
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry

NAME = f"{__name__}:REGISTRY"


class Done(Result):
    """Nothing."""


class Answer(Payload[Done]):
    """Do what ``how`` says."""

    job_name: ClassVar[str] = "answer"
    how: str


class Block(Payload[Done]):
    """Hold up the event loop for some seconds, the first time."""

    job_name: ClassVar[str] = "block"
    seconds: float
    marker: str


class Linger(Payload[Done]):
    """Note the process, and take a while without holding up the loop."""

    job_name: ClassVar[str] = "linger"
    seconds: float
    folder: str


class TakeTurns(Linger):
    """Linger, one at a time."""

    job_name: ClassVar[str] = "take_turns"


async def linger(_session: AsyncSession, payload: Linger) -> Done:
    """Wait."""
    Path(payload.folder, f"lingers-{os.getpid()}").touch()  # noqa: ASYNC240 - in a moment
    await asyncio.sleep(payload.seconds)
    return Done()


async def answer(_session: AsyncSession, payload: Answer) -> Done:
    """Refuse, fail, or succeed."""
    if payload.how == "refuse":
        raise JobFailedError("no", code="not_today")
    if payload.how == "fail":
        raise KeyError
    return Done()


async def block(_session: AsyncSession, payload: Block) -> Done:
    """Call what waits."""
    with suppress(FileExistsError):
        Path(payload.marker).touch(exist_ok=False)  # noqa: ASYNC240 - as below
        time.sleep(payload.seconds)  # noqa: ASYNC251 - a careless handler
    return Done()


REGISTRY = Registry(
    JobSpec(Answer, answer, max_attempts=2, deadline=timedelta(seconds=5)),
    JobSpec(Linger, linger),
    JobSpec(TakeTurns, linger, limits=[Limit(concurrency=1)]),
    JobSpec(Block, block, max_attempts=2, deadline=timedelta(seconds=1)),
)
