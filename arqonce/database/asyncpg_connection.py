"""A subclass of asyncpg's connection that rejects every statement that would end a job's transaction."""

from typing import Any

import asyncpg
from sqlalchemy.exc import InvalidRequestError

from arqonce.database.array_types import Told, described
from arqonce.database.endings import ending_in
from arqonce.database.loans import Loan

ENDED = (
    "the handler committed or rolled back the transaction: only its owner may do that. If it was committed, what was "
    "written before STAYS STORED, without a receipt. Remove that from the handler; session.flush() sends what is "
    "pending, session.begin_nested() undoes a part"
)

REFUSED = (
    "{} was refused: only the owner of the transaction may end it. The effect must commit with the job's receipt, or a "
    "job that is delivered again takes effect twice. Nothing was committed. Remove it from the handler; "
    "session.flush() sends what is pending, session.begin_nested() undoes a part"
)


class TransactionEndedError(InvalidRequestError):
    """A handler has ended the transaction of its job, or has tried to."""


class LentConnection(asyncpg.Connection):  # type: ignore[misc] # asyncpg has no types
    """A connection of asyncpg that can be lent to a job."""

    loan: Loan | None = None
    _is_owners = False

    async def control(self, sql: str) -> None:
        """Execute a command that begins or ends a transaction, as its owner. One round trip."""
        await super().execute(sql)

    async def prepare_control(self, sql: str) -> Any:  # noqa: ANN401 - asyncpg's
        """Prepare a command that ends a transaction, as its owner. One round trip."""
        self._is_owners = True
        try:
            return await self.prepare(sql)
        finally:
            self._is_owners = False

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ANN401, ASYNC109 - asyncpg's
        """Execute statements, as asyncpg does.

        Raises:
            TransactionEndedError: one of them would end a job's transaction. None was sent.
        """
        self._refuse_ending(query)
        status: str = await super().execute(query, *args, timeout=timeout)
        return status

    async def _get_statement(self, query: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - asyncpg's
        self._refuse_ending(query)
        return await super()._get_statement(query, *args, **options)

    async def _introspect_types(self, typeoids: Any, timeout: float | None) -> Any:  # noqa: ANN401, ASYNC109 - asyncpg's
        if (rows := described(typeoids)) is not None:
            return rows, Told()
        return await super()._introspect_types(typeoids, timeout)

    def _refuse_ending(self, query: str) -> None:
        if self.loan is not None and not self._is_owners and (command := ending_in(query)):
            raise self.loan.refuse(TransactionEndedError(REFUSED.format(command)))
