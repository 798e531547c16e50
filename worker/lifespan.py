"""arq's startup and shutdown hooks in one function, which opens the engine and disposes of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import Settings
from db.engine import build_engine, build_sessions


@asynccontextmanager
async def lifespan(settings: Settings) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Own the engine for as long as a worker runs, and yield the sessionmaker that all its jobs share.

    ``on_startup`` runs the code before ``yield``, ``on_shutdown`` the code after it, even if the start failed.
    """
    engine = build_engine(settings.database, pool_size=settings.pool_size)
    try:
        yield build_sessions(engine)
    finally:
        await engine.dispose()
