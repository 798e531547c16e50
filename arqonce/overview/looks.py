"""Asks questions of which some may be forbidden. What could not be seen is said, and is no failure."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import NoPermissionError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.faults import is_denied, sqlstate_of

T = TypeVar("T")

_CANCELLED = "57014"

_LIMIT = text("SET LOCAL statement_timeout = '2s'")
"""So that a look is no burden on a server in trouble."""

Sessions = async_sessionmaker[AsyncSession]


class Looks:
    """Collects what could not be seen."""

    def __init__(self, sessions: Sessions | None = None) -> None:
        """Ask this database, if there is one."""
        self.sessions = sessions
        self.not_seen: list[str] = []

    async def in_ledger(self, what: str, question: Callable[[AsyncSession], Awaitable[T]], otherwise: T) -> T:
        """Return the answer of PostgreSQL, or ``otherwise`` if this role may not look or it takes longer than 2 s.

        Two round trips more than the question's.

        Raises:
            SQLAlchemyError: PostgreSQL cannot be asked.
        """
        if self.sessions is None:
            return otherwise
        try:
            async with self.sessions() as session:
                await session.execute(_LIMIT)
                return await question(session)
        except DBAPIError as error:
            if not is_denied(error) and sqlstate_of(error) != _CANCELLED:
                raise
            self._miss(what, "this role may not look" if is_denied(error) else "it takes longer than 2 s")
            return otherwise

    async def in_redis(self, what: str, question: Awaitable[T], otherwise: T) -> T:
        """Return the answer of Redis, or ``otherwise`` if this user may not look.

        Raises:
            RedisError: Redis cannot be asked.
        """
        try:
            return await question
        except NoPermissionError:
            self._miss(what, "this user of Redis may not look")
            return otherwise

    def _miss(self, what: str, why: str) -> None:
        if (missed := f"{what}: {why}") not in self.not_seen:
            self.not_seen.append(missed)
