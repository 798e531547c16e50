"""Promised jobs for tests: made, looked for, waited for."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import ARRAY, Text, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import PromisedJob
from arqonce.outbox import enqueue_in
from arqonce.payloads import AnyPayload
from jobs import CreateUser

Sessions = async_sessionmaker[AsyncSession]
KEEP = timedelta(days=29)
JANE = CreateUser(name="Jane", email="jane@example.org")


async def promise(sessions: Sessions, payload: AnyPayload, key: str, **options: object) -> None:
    """Promise a job in a transaction of its own."""
    async with sessions.begin() as session:
        await enqueue_in(session, payload, key=key, **options)  # type: ignore[arg-type] # handed on


async def execute(sessions: Sessions, statement: str) -> None:
    """Run a statement in a transaction of its own."""
    async with sessions.begin() as session:
        await session.execute(text(statement))


async def where(sessions: Sessions, *job_ids: str) -> dict[str, list[str]]:
    """Say where each job is."""
    async with sessions() as session:
        return dict(await whereabouts(session, job_ids))


async def count_promises(session: AsyncSession, queue: str) -> int:
    """Count the jobs of the queue that are owed, due or not. One round trip; the server reads an index."""
    return await session.scalar(select(func.count()).where(PromisedJob.queue == queue)) or 0


_WHEREABOUTS = text("""
    SELECT job_id, array_agg(place ORDER BY place) FROM (
        SELECT job_id, 'outbox' AS place FROM arqonce.outbox
        UNION ALL SELECT job_id, 'receipts' FROM arqonce.receipts
        UNION ALL SELECT job_id, 'dead' FROM arqonce.dead_jobs
            WHERE NOT EXISTS (
                SELECT FROM arqonce.receipts AS receipt WHERE receipt.job_id = dead_jobs.job_id
                AND (dead_jobs.request_hash IS NULL OR receipt.request_hash = dead_jobs.request_hash))
    ) AS known WHERE job_id = ANY(:job_ids) GROUP BY job_id
""").bindparams(bindparam("job_ids", type_=ARRAY(Text)))


async def whereabouts(session: AsyncSession, job_ids: Collection[str]) -> Mapping[str, list[str]]:
    """Say where each job is: ``outbox``, ``receipts`` or ``dead``. A promised job is always in exactly one.

    A job in none has ended so long ago that its record was removed, or never was. One round trip.
    """
    found: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
    rows: Any = await session.execute(text_for(session, _WHEREABOUTS), {"job_ids": list(found)})
    return found | {job_id: list(places) for job_id, places in rows}


async def until(is_so: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait for a state."""
    async with asyncio.timeout(seconds):
        while not await is_so():
            await asyncio.sleep(0.01)
