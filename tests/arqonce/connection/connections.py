"""Every kind of connection on which a job can be promised, in a transaction of its own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import psycopg
from psycopg.rows import dict_row
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session


class _Session(AsyncSession):
    """A service's own class of sessions."""


@asynccontextmanager
async def _engine(url: str, driver: str, **options: object) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(make_url(url).set(drivername=f"postgresql+{driver}"), execution_options=options)
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _async_session(url: str) -> AsyncIterator[AsyncSession]:
    async with _engine(url, "asyncpg") as engine, _Session(engine) as session, session.begin():
        yield session


@asynccontextmanager
async def _async_session_psycopg(url: str) -> AsyncIterator[AsyncSession]:
    async with _engine(url, "psycopg", yield_per=10) as engine, AsyncSession(engine) as session, session.begin():
        yield session


@asynccontextmanager
async def _async_connection(url: str) -> AsyncIterator[Any]:
    async with _engine(url, "asyncpg") as engine, engine.begin() as connection:
        yield connection


@asynccontextmanager
async def _asyncpg(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _asyncpg_pool(url: str) -> AsyncIterator[Any]:
    async with (
        asyncpg.create_pool(url, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield connection


@asynccontextmanager
async def _psycopg(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection, connection.transaction():
        yield connection


@asynccontextmanager
async def _psycopg_raw(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url, cursor_factory=psycopg.AsyncRawCursor) as connection:
        yield connection


@contextmanager
def _sync_session(url: str) -> Iterator[Session]:
    options = {"stream_results": True}
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), execution_options=options)
    try:
        with Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


@contextmanager
def _sync_connection(url: str) -> Iterator[Any]:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _sync_psycopg(url: str) -> Iterator[Any]:
    with psycopg.connect(url, row_factory=dict_row) as connection, connection.transaction():
        yield connection


@contextmanager
def _sync_psycopg_raw(url: str) -> Iterator[Any]:
    with psycopg.connect(url, cursor_factory=psycopg.RawCursor, client_encoding="sql_ascii") as connection:
        yield connection


ASYNC = [_async_session, _async_session_psycopg, _async_connection, _asyncpg, _asyncpg_pool, _psycopg, _psycopg_raw]
SYNC = [_sync_session, _sync_connection, _sync_psycopg, _sync_psycopg_raw]
ASYNC_IDS = [kind.__name__ for kind in ASYNC]
SYNC_IDS = [kind.__name__ for kind in SYNC]
