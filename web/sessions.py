"""A session for each request, by aiohttp-sqlalchemy, over our own sessionmaker. Owns what that library leaves undone.

Its middleware opens a session for a request and always closes it; it never commits. It never disposes an engine
either: ours is opened and disposed by the application's life cycle. Its keys are strings, which aiohttp warns of; a
key that is both of aiohttp's typed ones serves it as well.
"""

import warnings
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from aiohttp import web
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.faults import may_be_outage

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import uses what SQLAlchemy 2.1 deprecates, a dozen times
    import aiohttp_sqlalchemy

FoundT = TypeVar("FoundT")


class _Key(web.AppKey[async_sessionmaker[AsyncSession]], web.RequestKey[AsyncSession]):
    """The sessionmaker's key in the application, and the session's in a request."""


_KEY = cast("str", _Key("sessions"))  # as it is annotated there


def bind_sessions(app: web.Application, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Give each request a session; to be called before the application is frozen, at its start at the latest."""
    aiohttp_sqlalchemy.setup(app, [aiohttp_sqlalchemy.bind(sessions, _KEY)])


def session_of(request: web.Request) -> AsyncSession:
    """Return the request's session. What is to stay needs a ``session.begin()``: nobody else commits."""
    return aiohttp_sqlalchemy.get_session(request, _KEY)


async def read(request: web.Request, query: Callable[[AsyncSession], Awaitable[FoundT]]) -> FoundT:
    """Run a query that only reads, and give the connection back: the rest of the request may be long.

    Once more if the connection was lost: it may be older than the server, and all others of the pool with it. Or it
    leads to a server that was the primary.
    """
    session = session_of(request)
    try:
        return await query(session)
    except DBAPIError as error:
        if not may_be_outage(error):
            raise
        await session.close()
        return await query(session)
    finally:
        await session.close()
