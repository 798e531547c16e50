"""What is on record of a job's end, and how its end gets there: receipts, refusals and dead letters.

A job takes effect once, however often it is delivered: a receipt commits with its effect. What has failed for good is
recorded here, in a transaction of its own after the rollback: a refusal as a receipt, so that a job that is delivered
again is refused again, everything else as a dead letter. A job whose end cannot be recorded has not ended.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.backoff import backoff
from arqonce.database.faults import is_transient, may_be_outage
from arqonce.execution.answers import build_receipt
from arqonce.execution.dead_letters import is_dead, write_letter
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.gate import DatabaseGate
from arqonce.execution.history import History
from arqonce.execution.letters import Letters
from arqonce.execution.progress import Progress, identified
from arqonce.execution.same_request import settle_promise
from arqonce.execution.verdict import RetryLater, decide
from arqonce.failures import (
    AttemptsExhaustedError,
    JobExpiredError,
    JobFailedError,
    RequestConflictError,
    failure_from_wire,
    failure_to_wire,
)
from arqonce.ledger.attempts import FailedAttempt
from arqonce.ledger.dead_jobs import DeadLetter
from arqonce.ledger.receipts import Receipt, insert_receipts
from arqonce.ledger.recorded import receipt_by_job_id
from arqonce.ledger.tables import DeadJob
from arqonce.payloads import AnyPayload
from arqonce.wire.codec import encode
from arqonce.wire.request import payload_tag, request_hash, request_tag

AFTER_OUTAGE = timedelta(milliseconds=200)
"""Delay of a job that an outage interrupted. It can be short: workers claim nothing until the server is back."""

LOOK_LIMIT = timedelta(seconds=3)
"""Longest lookup of a receipt. It is added to the job's deadline."""

_UNRECORDED = 6
"""Attempt number whose backoff delays a job whose end the database refuses to record, whatever its real attempt."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.record")


def another_request() -> RequestConflictError:
    """Return the failure of a request whose id another one has used."""
    return RequestConflictError("another request with this id has taken effect: give each request its own key")


class Record:
    """Reads and writes how jobs have ended. Every method is a few round trips, none of them on the ordinary way."""

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], gate: DatabaseGate, history: History, queue: str
    ) -> None:
        """Dead letters store the queue that a retry enqueues to, ``queue`` for jobs of unknown origin."""
        self._sessions = sessions
        self._gate = gate
        self._history = history
        self._queue = queue
        self._letters = Letters(sessions)
        self.answered = 0
        """How many deliveries a receipt has answered."""

    async def settle(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None, error: Exception, progress: Progress
    ) -> Exception | dict[str, Any]:
        """Return what to raise for the failure, or the result if another worker has completed the job meanwhile.

        A dead letter is written before this returns. If that fails, the job is retried, so it is never lost.
        """
        if isinstance(error, RetryLater):
            if error.__cause__ is not None:  # else the attempt has not begun, or is not wanted any more
                self._history.note(spec, delivery, error.__cause__, error, started=progress.started)
            return error
        decided = decide(spec, delivery, error)
        if isinstance(decided, RetryLater):
            self._history.note(spec, delivery, error, decided, started=progress.started)
            return decided
        try:
            return await self._record(spec, delivery, payload, decided, cause=error, progress=progress)
        except RetryLater as later:
            return later
        except Exception as trouble:  # noqa: BLE001 - after any error: a job without a record has not ended
            return await self.again(trouble, delivery.attempt)

    async def _record(  # noqa: PLR0913 - a failure and whose it is
        self,
        spec: AnySpec,
        delivery: Delivery,
        payload: AnyPayload | None,
        failure: Exception,
        *,
        cause: Exception,
        progress: Progress,
    ) -> Exception | dict[str, Any]:
        """Write the dead letter if the failure needs one; return the failure, or the recorded end of the job."""
        payload = identified(payload)
        if is_dead(failure) and not await self._bury(spec, delivery, payload, failure, cause, started=progress.started):
            return await self._ended(spec, delivery, payload, progress)
        progress.tag = None if payload is None else payload_tag(payload)
        return failure

    async def _bury(  # noqa: PLR0913 - a failure and whose it is
        self,
        spec: AnySpec,
        delivery: Delivery,
        payload: AnyPayload | None,
        failure: Exception,
        cause: Exception,
        *,
        started: float,
    ) -> bool:
        """Record the dead letter; return whether it was written, which it is not if the job has ended meanwhile."""
        letter, has_run = self.letter(spec, delivery, payload, failure, cause), payload is not None
        has_begun = has_run and not isinstance(cause, JobExpiredError | AttemptsExhaustedError)
        attempt = self._history.last_attempt(spec, delivery, cause, started=started) if has_begun else None
        return await self.bury(letter, has_run=has_run, attempt=attempt)

    def letter(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None, failure: Exception, cause: Exception
    ) -> DeadLetter:
        """Build the dead letter of a job of the registry."""
        message: dict[str, Any] = {"t": None, "f": spec.name, "a": delivery.args, "k": delivery.kwargs}
        message["et"] = delivery.enqueued_ms
        if delivery.parent is not None:
            message["p"] = delivery.parent
        if delivery.trace:
            message["tc"] = delivery.trace
        return write_letter(
            failure,
            cause,
            job_id=delivery.job_id,
            job_name=spec.name,
            message=encode(message, largest=None),  # no limit: the producer's encoding may have been shorter
            attempts=delivery.attempt,
            queue=delivery.queue or self._queue,
            request_hash=None if payload is None else request_hash(payload),
        )

    async def _ended(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None, progress: Progress
    ) -> Exception | dict[str, Any]:
        """Return the end that the job's receipt records. A job whose dead letter was not written has a receipt."""
        receipt = await self.look(delivery)
        if receipt is None or payload is None:
            return RetryLater(backoff(delivery.attempt))
        try:
            return await self.replay(spec, delivery, payload, receipt, progress)
        except JobFailedError as failure:
            return failure

    async def conclude(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, failure: Exception
    ) -> Receipt | None:
        """Return the receipt of an earlier end, or record the refusal. ``None``: recorded now, or the job is dead."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                if (earlier := await self._earlier(delivery)) is not None or is_dead(failure):
                    return earlier
                refusal = build_receipt(spec, delivery, payload, failure=failure_to_wire(failure))
                try:
                    async with self._sessions.begin() as session:
                        await insert_receipts(session, spec.name, [refusal])
                except IntegrityError:  # another worker recorded an end first
                    return await self._earlier(delivery)
        except (SQLAlchemyError, OSError) as error:
            if not is_transient(error) and not await self._is_outage(error):
                raise
            raise await self.again(error, delivery.attempt) from error
        return None

    async def look(self, delivery: Delivery) -> Receipt | None:
        """Return the receipt of an earlier end. A failed lookup does not count as an attempt."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                return await self._earlier(delivery)
        except (SQLAlchemyError, OSError) as error:
            if not is_transient(error) and not await self._is_outage(error):
                raise
            raise await self.again(error, delivery.attempt) from error

    async def _earlier(self, delivery: Delivery) -> Receipt | None:
        async with self._sessions() as session:
            return await receipt_by_job_id(session, delivery.job_id)

    async def replay(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, receipt: Receipt, progress: Progress
    ) -> dict[str, Any]:
        """Return or raise the end that the receipt records, and delete the job's outbox row."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                settled = await settle_promise(self._sessions, receipt, spec)
        except (SQLAlchemyError, OSError) as error:  # not a failed attempt: the job has ended
            raise await self.again(error, delivery.attempt) from error
        # The deleted outbox row may have another hash of the same request, made by another version of the code.
        request = request_hash(payload)
        if receipt.job_name not in spec.all_names or request not in {receipt.request_hash, settled}:
            raise another_request()
        self.answered += 1
        if receipt.result is None:
            raise failure_from_wire(receipt.failure)
        progress.tag = request_tag(request)
        return receipt.result

    async def answer_on_record(self, job_id: str, attempt: int) -> dict[str, Any] | None:
        """Return the recorded result of a job, whatever its request; ``None`` if it has not ended. Up to 2 round trips.

        Raises:
            JobFailedError: it has failed.
            RetryLater: the database cannot be queried.
        """
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()), self._sessions() as session:
                receipt = await receipt_by_job_id(session, job_id)
                letter = None if receipt is not None else await session.get(DeadJob, job_id)
        except Exception as error:
            raise await self.again(error, attempt) from error
        if letter is not None:
            raise JobFailedError.from_code(letter.reason, letter.explanation)
        self.answered += receipt is not None
        if receipt is not None and receipt.result is None:
            raise failure_from_wire(receipt.failure)
        return None if receipt is None else receipt.result

    async def bury(self, letter: DeadLetter, *, has_run: bool = False, attempt: FailedAttempt | None = None) -> bool:
        """Record a dead letter and its last ``attempt``; return whether it was recorded (``Letters.bury``).

        Raises:
            RetryLater: it could not be recorded; the job must be delivered again, and this attempt does not count.
        """
        try:
            return await self._letters.bury(letter, has_run=has_run, attempt=attempt)
        except Exception as error:
            raise await self.again(error, letter.attempts) from error

    async def bury_together(self, letters: Sequence[DeadLetter], *, have_run: bool = False) -> set[str]:
        """Record letters at once; return the ids of those that were recorded: the others need ``bury`` each.

        Raises:
            RetryLater: none could be recorded; the jobs must be delivered again, and this attempt does not count.
        """
        try:
            return await self._letters.bury_together(letters, have_run=have_run)
        except Exception as error:
            raise await self.again(error, 1) from error

    async def again(self, error: Exception, attempt: int) -> RetryLater:
        """Return the retry to raise if the database could not record or return the end of a job.

        Such attempts are not counted: otherwise the job would use them up and be dead without its real error.
        """
        if await self._is_outage(error):
            return RetryLater(AFTER_OUTAGE, counts=False)
        if is_transient(error):
            return RetryLater(backoff(attempt), counts=False)
        _log.error("the end of a job cannot be recorded", exc_info=error)
        return RetryLater(backoff(_UNRECORDED), counts=False)

    async def _is_outage(self, error: Exception) -> bool:
        return may_be_outage(error) and not await self._gate.check()
