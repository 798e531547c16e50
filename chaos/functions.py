"""An arq service beside the registry: ``run --settings chaos.functions.WorkerSettings``.

Each run of ``note_function`` adds a row, with the time at which it began.
"""

import time
from contextlib import AsyncExitStack
from typing import Any, ClassVar

import asyncpg
from arq.worker import Retry, func
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.payloads import Payload, Result
from arqonce.wire.codec import decode, encode

TABLE = "CREATE TABLE function_effects (name text NOT NULL, began double precision NOT NULL);"
"""One row for each run."""

_MANY = 1000
"""Tries, because a function that fails has failed for good: it asks for another one after an outage."""

_INSERT = text("INSERT INTO function_effects VALUES (:name, :began)")


class NoteFunction(Payload[Result]):
    """Call the function, with keyword arguments."""

    job_name: ClassVar[str] = "note_function"
    name: str


async def note_function(ctx: dict[str, Any], *, name: str) -> dict[str, str]:
    """Write down that it has run."""
    began = time.time()
    try:
        async with ctx["sessions"].begin() as session:
            await session.execute(_INSERT, {"name": name, "began": began})
    except (SQLAlchemyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Retry(defer=0.2) from error
    return {"name": name}


async def _startup(ctx: dict[str, Any]) -> None:
    stack = ctx["stack"] = AsyncExitStack()
    ctx["sessions"] = await stack.enter_async_context(open_database(DatabaseSettings.load(), pool_size=5))


async def _shutdown(ctx: dict[str, Any]) -> None:
    await ctx["stack"].aclose()


class WorkerSettings:
    """The service; its Redis is that of REDIS_URL."""

    functions: ClassVar = [func(note_function, name=NoteFunction.job_name, timeout=60, max_tries=_MANY)]
    on_startup = _startup
    on_shutdown = _shutdown
    max_jobs = 20
    job_serializer, job_deserializer = encode, decode  # a pickle is hostile here
