"""Asks questions of which some may be forbidden. What could not be seen is said, and is no failure."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
        self._shared: AsyncSession | None = None

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Ask PostgreSQL all questions of the context in one transaction: three round trips less for each.

        One that fails ends the transaction, and the next question begins another.
        """
        if self.sessions is None:
            yield
            return
        async with self.sessions() as session:
            self._shared = session
            try:
                yield
            finally:
                self._shared = None

    async def in_ledger(self, what: str, question: Callable[[AsyncSession], Awaitable[T]], otherwise: T) -> T:
        """Return the answer of PostgreSQL, or ``otherwise`` if this role may not look or it takes longer than 2 s.

        Three round trips more than the question's, unless it is asked together with others.

        Raises:
            SQLAlchemyError: PostgreSQL cannot be asked.
        """
        if self.sessions is None:
            return otherwise
        try:
            if self._shared is not None:
                return await _ask(self._shared, question)
            async with self.sessions() as session:
                return await _ask(session, question)
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


async def _ask(session: AsyncSession, question: Callable[[AsyncSession], Awaitable[T]]) -> T:
    try:
        if not session.in_transaction():
            await session.execute(_LIMIT)
        return await question(session)
    except DBAPIError:
        session.expunge_all()  # earlier answers stay as they are; a rollback would have them read again
        await session.rollback()
        raise
