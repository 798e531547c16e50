"""Records in the ledger how functions end: a receipt after success, a dead letter after a failure for good.

At least once, and not again once recorded: what a function does outside of our transaction cannot be undone. While the
ledger cannot be written to, no function is started.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.faults import may_be_outage
from arqonce.execution.dead_letters import write_letter
from arqonce.execution.diagnosis import diagnose
from arqonce.execution.gate import DatabaseGate
from arqonce.execution.history import History
from arqonce.execution.letters import Letters
from arqonce.ledger.attempts import FailedAttempt
from arqonce.ledger.function_receipts import Request, Success, delete_letter, insert_success, success_of
from arqonce.wire.bounds import MAX_BYTES
from arqonce.wire.keys import QUEUE, now_ms
from arqonce.work import Claim

T = TypeVar("T")

_ASK_LIMIT = timedelta(seconds=5)
"""How long one question or one write may take."""

_LONGEST_ID = 500
"""Most characters of an id that is stored as it is: PostgreSQL's indices take 2,700 bytes."""

_PAUSE = timedelta(milliseconds=500)
"""Between two attempts to write."""

PATIENCE = timedelta(seconds=25)
"""How long to go on trying to record an end, through a failover."""

_FAILURES = (SQLAlchemyError, OSError, TimeoutError)

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.arq.records")


class Failure(NamedTuple):
    """Why a function has failed for good."""

    error: Exception
    """What the dead letter tells."""

    cause: Exception
    """What was raised."""


class Run(NamedTuple):
    """One attempt of a function."""

    job_name: str
    attempt: int
    started_ms: int


class LedgerAwayError(Exception):
    """The ledger cannot be asked whether the job has ended before."""


class FunctionRecords:
    """The ledger, for functions."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], gate: DatabaseGate, history: History | None = None
    ) -> None:
        """Use an open sessionmaker; the ``gate`` is closed while the ledger cannot be written to."""
        self._sessions = sessions
        self._letters = Letters(sessions)
        self.gate = gate
        self.answered = 0
        """How many deliveries a receipt has answered."""
        self._history = history or History(sessions, gate, QUEUE)

    def retried(self, claim: Claim, error: Exception, run: Run, *, retry_in: timedelta) -> None:
        """Let it be recorded that a run failed which is to be repeated. No round trip."""
        self._history.add(self._failed(claim, error, run)._replace(retry_in=retry_in))

    def _failed(self, claim: Claim, error: Exception, run: Run) -> FailedAttempt:
        return self._history.describe(
            error,
            job_id=_stored_id(claim),
            job_name=run.job_name,
            queue=claim.queue,
            attempt=run.attempt,
            started=time.monotonic() - max(0, now_ms() - run.started_ms) / 1000,
        )

    async def success_of(self, claim: Claim) -> Success | None:
        """Return how the job has succeeded before; ``None`` if it has not. One round trip.

        Removes its dead letter, with two round trips more: a worker that had not seen the success may have written it.

        Raises:
            LedgerAwayError: the ledger does not answer.
        """
        try:
            async with asyncio.timeout(_ASK_LIMIT.total_seconds()):
                return await self._look(self._request(claim))
        except _FAILURES as error:
            await self.gate.check()
            raise LedgerAwayError from error

    async def _look(self, request: Request) -> Success | None:
        async with self._sessions() as session:
            success = await success_of(session, request)
        if success is not None:
            async with self._sessions.begin() as session:
                await delete_letter(session, request)
        return success

    async def succeeded(self, claim: Claim, *, job_name: str, attempt: int, success: Success) -> Success:
        """Write a receipt; return what is on record: another worker may have been first. Two round trips.

        Raises:
            LedgerAwayError: the ledger does not answer.
        """
        request = self._request(claim)

        async def write() -> Success:
            async with self._sessions.begin() as session:
                if await insert_success(session, request, job_name=job_name, attempt=attempt, success=success):
                    return success
                return await success_of(session, request) or success

        return await self._persist(write, claim, "receipt") or success

    async def failed(self, claim: Claim, failure: Failure, run: Run, *, has_begun: bool) -> Success | None:
        """Write a dead letter with the message as it is, and the attempt if it has begun. Three to seven round trips.

        If it has begun, and another worker has run the job meanwhile, return that success, and write nothing.

        Raises:
            LedgerAwayError: the ledger does not answer.
        """
        request = self._request(claim)
        letter = write_letter(
            failure.error,
            failure.cause,
            job_id=request.job_id,
            job_name=run.job_name,
            message=request.message[:MAX_BYTES],
            attempts=run.attempt,
            queue=claim.queue,
            request_hash=request.hash,
        )
        attempt = self._failed(claim, failure.cause, run) if has_begun else None

        async def write() -> Success | None:
            success = await self._look(request) if has_begun else None
            if success is None:
                await self._letters.bury(letter, attempt=attempt)
            return success

        return await self._persist(write, claim, "dead letter")

    async def _persist(self, write: Callable[[], Awaitable[T]], claim: Claim, what: str) -> T | None:
        """Write until it is done; return ``None`` if that is not possible, whenever.

        Raises:
            LedgerAwayError: ``PATIENCE`` is over.
        """
        until = time.monotonic() + PATIENCE.total_seconds()
        while True:
            try:
                async with asyncio.timeout(_ASK_LIMIT.total_seconds()):
                    return await write()
            except _FAILURES as error:
                if not may_be_outage(error):
                    _log.error("an end is not on record", record=what, job_id=claim.job_id, error=diagnose(error))
                    return None
                if time.monotonic() > until:
                    raise LedgerAwayError from error
            await self.gate.check()
            await asyncio.sleep(_PAUSE.total_seconds())

    def _request(self, claim: Claim) -> Request:
        return Request(_stored_id(claim), claim.queue, claim.message or b"")


def _stored_id(claim: Claim) -> str:
    """Return the id as people know it, if PostgreSQL can store it: a retry puts the job back under it."""
    try:
        text = claim.id.decode()
    except UnicodeDecodeError:
        return claim.job_id
    return claim.job_id if "\0" in text or len(text) > _LONGEST_ID else text
