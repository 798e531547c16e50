"""arq's startup and shutdown hooks, in one: who makes the engine also disposes it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import Settings
from db.engine import build_engine, build_sessions


@asynccontextmanager
async def lifespan(settings: Settings) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Own the engine for as long as a worker runs, and yield the one sessionmaker that all its jobs share.

    ``on_startup`` runs what stands before ``yield``, ``on_shutdown`` what stands behind it, also after a failed start.
    """
    engine = build_engine(settings.database, pool_size=settings.pool_size)
    try:
        yield build_sessions(engine)
    finally:
        await engine.dispose()
