"""The engine, and the one shared sessionmaker. Knows no job."""

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from arqonce import build_engine

__all__ = ["build_engine", "build_sessions"]


def build_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Construct the sessionmaker. Objects stay readable after commit: results are built from them."""
    return async_sessionmaker(engine, expire_on_commit=False)
