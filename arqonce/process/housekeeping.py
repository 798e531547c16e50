"""Deletes old rows of the ledger, in the background of each worker that does not rest (``arqonce.rest``)."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.background import running
from arqonce.database.faults import why_delayed
from arqonce.ledger.retention import STEP, delete_older, delete_overtaken
from arqonce.rest import Rest
from arqonce.settings.worker import WorkerSettings

_INTERVAL = timedelta(minutes=5)
"""Mean interval of deletions. Each is random, within 50 %, so that a fleet does not delete at once."""

_PAUSE = timedelta(milliseconds=200)
"""Pause between two full steps, which keeps the load low: 10 million rows take half an hour."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.housekeeping")


def ages_of(settings: WorkerSettings) -> dict[str, timedelta]:
    """Return how old the rows of each table may be."""
    return {
        "receipts": settings.keep_receipts,
        "dead_jobs": settings.keep_dead,
        "unique_requests": timedelta(0),  # after its time
        "attempts": settings.keep_attempts,
        "redis_losses": settings.keep_attempts,
    }


@asynccontextmanager
async def keep_house(
    sessions: async_sessionmaker[AsyncSession], ages: Mapping[str, timedelta], rest: Rest | None = None
) -> AsyncIterator[None]:
    """Delete rows older than their table's age periodically, until the end, but not while the worker rests."""
    async with running(partial(_sweep_forever, sessions, ages, rest or Rest()), name="housekeeping"):
        yield


async def sweep(sessions: async_sessionmaker[AsyncSession], ages: Mapping[str, timedelta]) -> dict[str, int]:
    """Delete all rows that are too old, each step in its own transaction; return how many by table.

    Of dead letters also those whose jobs took effect.
    """
    removed = dict.fromkeys(ages, 0)
    if "dead_jobs" in removed:
        async with sessions.begin() as session:
            removed["dead_jobs"] = await delete_overtaken(session)
    for table, age in ages.items():
        step = STEP
        while step == STEP:
            async with sessions.begin() as session:
                step = await delete_older(session, table, age)
            removed[table] += step
            await asyncio.sleep(_PAUSE.total_seconds() if step == STEP else 0)
    return removed


async def _sweep_forever(sessions: async_sessionmaker[AsyncSession], ages: Mapping[str, timedelta], rest: Rest) -> None:
    while True:
        await asyncio.sleep(_INTERVAL.total_seconds() * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        if rest.is_on:
            continue
        try:
            removed = await sweep(sessions, ages)
        except (SQLAlchemyError, OSError) as error:
            reason = why_delayed(error)
            facts: dict[str, Any] = {"exc_info": error} if reason is None else {"reason": reason}
            _log.warning("housekeeping failed, it will be tried again", **facts)
        else:
            if any(removed.values()):
                _log.info("removed what was too old", **removed)
