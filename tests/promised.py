"""Promised jobs for tests: made, looked for, waited for."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.ledger.outbox import whereabouts
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


async def until(is_so: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait for a state."""
    async with asyncio.timeout(seconds):
        while not await is_so():
            await asyncio.sleep(0.01)
