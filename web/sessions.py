"""Opens a session for each request with aiohttp-sqlalchemy, and does what that library leaves to applications.

Its middleware opens a session for a request and always closes it; it never commits, and never disposes of an engine:
the application does that at its end. It uses strings as keys, about which aiohttp warns; a key that inherits from both
of aiohttp's typed keys works as well.
"""

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar, cast

from aiohttp import web
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.faults import may_be_outage
from web.outages import OUTAGES, POSTGRESQL

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # importing it uses names that SQLAlchemy 2.1 deprecates
    import aiohttp_sqlalchemy

FoundT = TypeVar("FoundT")

_LIMIT = timedelta(seconds=5)
"""Longest read, with its repetition: a browser or another service waits no longer for an answer."""


class _Key(web.AppKey[async_sessionmaker[AsyncSession]], web.RequestKey[AsyncSession]):
    """The sessionmaker's key in the application, and the session's in a request."""


_KEY = cast("str", _Key("sessions"))  # the library annotates keys as str


def bind_sessions(app: web.Application, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Add a session to each request. Call it before the application is frozen, at its start at the latest."""
    aiohttp_sqlalchemy.setup(app, [aiohttp_sqlalchemy.bind(sessions, _KEY)])


def session_of(request: web.Request) -> AsyncSession:
    """Return the request's session. To commit, use ``session.begin()``: nothing else commits."""
    return aiohttp_sqlalchemy.get_session(request, _KEY)


async def read(request: web.Request, query: Callable[[AsyncSession], Awaitable[FoundT]]) -> FoundT:
    """Run a read-only query, then return the connection to the pool: the rest of the request may take long.

    Repeats it once if the connection was lost: all connections of the pool may be older than the server, or lead to a
    former primary.

    Raises:
        TimeoutError: the database has not answered within 5 s.
        SQLAlchemyError, OSError: it cannot be read.
    """
    session = session_of(request)
    async with asyncio.timeout(_LIMIT.total_seconds()):
        try:
            found = await _ask(session, query)
        finally:
            await session.close()
    request.app[OUTAGES].used(POSTGRESQL)
    return found


async def _ask(session: AsyncSession, query: Callable[[AsyncSession], Awaitable[FoundT]]) -> FoundT:
    try:
        return await query(session)
    except DBAPIError as error:
        if not may_be_outage(error):
            raise
    await session.close()
    return await query(session)
