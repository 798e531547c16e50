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
from arqonce.control.reasons import require_reason
from arqonce.database.engine import open_database
from arqonce.database.faults import sqlstate_of
from arqonce.database.settings import DatabaseSettings
from arqonce.failures import QueueUnavailableError
from arqonce.process.startup_errors import StartupError, explain_database
from arqonce.settings.worker import QueueSettings
from arqonce.usage import UsageError

T = TypeVar("T")
NamesT = TypeVar("NamesT", str, list[str], list[str] | None)

_DATA = "22"
"""Class of PostgreSQL's errors that a value causes; asyncpg uses it, too, for what it cannot send."""

_NO_SUCH_VALUE = (
    "PostgreSQL has no such value as one that was given: a text that is not UTF-8, or a number out of range"
)


def in_bounds(value: str | None) -> str | None:
    """Return what an operator writes for others to read.

    Raises:
        BadParameter: it is too long, or no plain text.
    """
    try:
        return None if value is None else require_reason(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def in_a_line(value: NamesT) -> NamesT:
    """Return names that somebody gives, one or several; the shell makes one of several that are in quotes together.

    Raises:
        BadParameter: one is empty, or has a line break or another control character.
    """
    for name in [value] if isinstance(value, str) else value or ():
        if not (name and name.isprintable()):
            raise typer.BadParameter("is empty, or has a line break or another control character: give one name each")
    return value


By = Annotated[
    str | None, typer.Option("--by", help="Who does it, for the audit; by default USER@HOST.", callback=in_bounds)
]
Why = Annotated[str | None, typer.Option("--why", help="The reason, for the audit.", callback=in_bounds)]
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
        UsageError: PostgreSQL has no form for a value of the command line.
    """
    settings = DatabaseSettings.load()
    async with open_database(settings, pool_size=1) as sessions:
        try:
            yield sessions
        except QueueUnavailableError:  # an OSError too, and no error of PostgreSQL
            raise
        except (SQLAlchemyError, OSError) as error:
            if (sqlstate_of(error) or "").startswith(_DATA):
                raise UsageError(_NO_SUCH_VALUE) from error
            raise StartupError(explain_database(error, settings)) from error


@asynccontextmanager
async def open_queue() -> AsyncIterator[Redis]:
    """Open Redis. Its errors name the cure."""
    settings = QueueSettings.load()
    url = settings.url.get_secret_value()
    with explained(url):
        async with build_redis(url, Redis, password=settings.plain_password) as redis:
            yield redis
