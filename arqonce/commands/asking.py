"""How operators' commands reach the servers, and who is on record as having given them."""

import asyncio
import getpass
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import typer
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.redis import build_redis, explained
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.failures import QueueUnavailableError
from arqonce.process.startup_errors import StartupError, explain_database
from arqonce.settings.worker import QueueSettings

T = TypeVar("T")

By = Annotated[str | None, typer.Option("--by", help="Who does it, for the audit; by default USER@HOST.")]
Why = Annotated[str | None, typer.Option("--why", help="The reason, for the audit.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def acting(by: str | None) -> str:
    """Return who is on record: the one who was named, or the user of this machine."""
    if by is not None and by.strip():
        return by.strip()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def ask(question: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Answer a question in a transaction of its own, which commits."""

    async def answer() -> T:
        async with open_sessions() as sessions, sessions.begin() as session:
            return await question(session)

    return asyncio.run(answer())


@asynccontextmanager
async def open_sessions() -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Open PostgreSQL.

    Raises:
        StartupError: an error of PostgreSQL; the text names the cure.
    """
    settings = DatabaseSettings.load()
    async with open_database(settings, pool_size=1) as sessions:
        try:
            yield sessions
        except QueueUnavailableError:  # an OSError too, and no error of PostgreSQL
            raise
        except (SQLAlchemyError, OSError) as error:
            raise StartupError(explain_database(error, settings)) from error


@asynccontextmanager
async def open_queue() -> AsyncIterator[Redis]:
    """Open Redis. Its errors name the cure."""
    settings = QueueSettings.load()
    url = settings.url.get_secret_value()
    with explained(url):
        async with build_redis(url, Redis, password=settings.plain_password) as redis:
            yield redis
