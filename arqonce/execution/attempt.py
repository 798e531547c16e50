"""Runs one attempt of a job: opens its session and transaction, and decides what a failure means.

The only place that opens transactions and the only one that turns failures into retries. Knows neither arq nor Redis.

A job takes effect once, however often it is delivered: its receipt commits with its effect, and of two owners of one
job only one can write it. There is no look before the first attempt, which is nearly always the only one; a delivery
that comes too late finds out at its last statement, is rolled back, and answers from the receipt. A refusal is recorded
in the same way, in a transaction of its own after the rollback: delivered again, the job is refused again.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.backoff import backoff
from arqonce.database.faults import is_transient, may_be_outage, sqlstate_of
from arqonce.database.transactions import open_transaction
from arqonce.execution.answers import build_receipt, dump_result
from arqonce.execution.containment import CONTAINED, cancelled_itself, is_cancelled
from arqonce.execution.dead_letters import bury, is_dead, write_letter
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.gate import DatabaseGate
from arqonce.execution.patience import Patience
from arqonce.execution.same_request import settle_promise
from arqonce.execution.verdict import ReadOnlyJobError, RetryLater, decide, log_failure, why_exhausted
from arqonce.failures import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    JobAbortedError,
    JobFailedError,
    RequestConflictError,
    failure_from_wire,
    failure_to_wire,
)
from arqonce.ledger.dead_jobs import DeadLetter
from arqonce.ledger.receipts import Receipt, insert_receipts, receipt_by_job_id
from arqonce.ledger.tables import DeadJob
from arqonce.payloads import AnyPayload
from arqonce.wire.arguments import read_payload
from arqonce.wire.codec import encode, tagged
from arqonce.wire.keys import QUEUE, payload_tag, request_hash, request_tag

_READ_ONLY = "25006"
"""SQLSTATE of what a transaction that reads only may not do."""

AFTER_OUTAGE = timedelta(milliseconds=200)
"""A job that an outage hit is due again so soon: no job is claimed before the server is back anyway."""

_AFTER_FAULT = timedelta(milliseconds=500)
"""The same after a fault of a server that the gate does not see: other jobs may run meanwhile."""

_UNRECORDED = 6
"""A job whose end the database refuses to record waits as if it had been tried so often, whatever its attempt."""

LOOK_LIMIT = timedelta(seconds=3)
"""Longest look for a receipt. It comes on top of the job's deadline."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.attempt")


class Dispatcher:
    """Runs jobs, each in a session and a transaction of its own.

    ``gate`` is closed while the database cannot be written to. Then no attempt counts, whatever it was busy with: the
    handler, a look for a receipt, the record of a refusal, a dead letter. The attempt that a job is dead after is
    always a real one, and its error the true one.
    """

    def __init__(self, sessions: async_sessionmaker[AsyncSession], *, queue: str = QUEUE) -> None:
        """Use the shared sessionmaker; dead letters name the queue, to which a retry puts them back."""
        self.sessions = sessions
        self.queue = queue
        self.gate = DatabaseGate(sessions)
        self._patience = Patience()
        self.is_cancelled: Callable[[], bool] = is_cancelled
        """Whether somebody wants the end of the current task; our worker class knows it better than the task."""
        self._sessions_of: WeakKeyDictionary[asyncio.Task[Any], AsyncSession] = WeakKeyDictionary()
        self._abandoned: WeakSet[asyncio.Task[Any]] = WeakSet()

    async def run(self, spec: AnySpec, delivery: Delivery) -> dict[str, Any]:
        """Run one attempt and return the result in JSON's types. Commits before it returns.

        The job has ended only with what this returns or raises, and then there is a receipt or a dead letter: whatever
        prevents the record is another attempt.

        Raises:
            RetryLater: the attempt failed and the job has attempts left, or its end could not be recorded.
            JobFailedError: the job failed for good, in a way that the producer can read.
            Exception: an unknown error of the last attempt, as it was raised.
        """
        told = {"job_id": delivery.job_id, "job_name": spec.name, "attempt": delivery.attempt}
        started = time.monotonic()
        payload: AnyPayload | None = None
        try:
            await self.require_open_gate()
            with CONTAINED:  # validators are the application's code, too
                payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
            result = await self._answer(spec, delivery, payload, since=started)
        except Exception as error:
            decided = await self._settle(spec, delivery, payload, error)
            if not isinstance(decided, RetryLater):
                self._patience.forget(delivery.job_id)
            if not isinstance(decided, Exception):  # another owner was quicker, and has succeeded
                return decided
            log_failure(_log.bind(**told, duration_ms=_milliseconds_since(started)), error, decided)
            if decided is error:
                raise
            raise decided from error
        _log.info("job done", **told, duration_ms=_milliseconds_since(started))
        return result

    async def answer_on_record(self, job_id: str, attempt: int) -> dict[str, Any] | None:
        """Return the result with which a job has ended, whatever it asked; ``None`` if it has not. Up to 2 round trips.

        Raises:
            JobFailedError: it has failed.
            RetryLater: the database cannot be asked.
        """
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()), self.sessions() as session:
                receipt = await receipt_by_job_id(session, job_id)
                letter = None if receipt is not None else await session.get(DeadJob, job_id)
        except Exception as error:
            raise await self._again(error, attempt) from error
        if letter is not None:
            raise JobFailedError.from_code(letter.reason, letter.explanation)
        if receipt is not None and receipt.result is None:
            raise failure_from_wire(receipt.failure)
        return None if receipt is None else receipt.result

    def note_session(self, session: AsyncSession) -> None:
        """Take note of the session of the current task, for ``disconnect``."""
        if (task := asyncio.current_task()) is not None:
            self._sessions_of[task] = session

    async def disconnect(self, task: "asyncio.Task[Any]") -> None:
        """End the connection of a task that does not end: it cannot commit, and what it still does decides nothing."""
        self._abandoned.add(task)
        if (session := self._sessions_of.get(task)) is None:
            return
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                await session.invalidate()
        except Exception as error:  # noqa: BLE001 - it is in the middle of something: the receipt decides
            _log.warning("the transaction of an abandoned job could not be ended", exc_info=error)

    async def end_overdue(self, spec: AnySpec, delivery: Delivery) -> dict[str, Any]:
        """Decide on a job whose handler has not ended though it was cancelled at its deadline.

        Raises:
            RetryLater: it has attempts left.
            JobFailedError: it has not, and is dead.
        """
        payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
        message = f"went on after its deadline of {spec.deadline.total_seconds():g} s: it swallows its cancellation"
        error = DeadlineExceededError(f"{message}. Let CancelledError through in the handler")
        decided = await self._settle(spec, delivery, payload, error)
        if isinstance(decided, Exception):
            log_failure(_log.bind(job_id=delivery.job_id, job_name=spec.name), error, decided)
            raise decided
        return decided

    async def abort(self, spec: AnySpec, delivery: Delivery) -> dict[str, Any] | None:
        """Record that somebody has aborted the job, so that it stays so; return the result if it had ended before.

        Raises:
            RetryLater: it could not be recorded.
            JobFailedError: the job had failed before.
        """
        try:
            with CONTAINED:
                payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
        except Exception:  # noqa: BLE001 - a validator may raise anything
            return await self.run(spec, delivery)  # which records why it cannot be run
        await self.require_open_gate()
        try:
            receipt = await self._conclude(spec, delivery, payload, JobAbortedError("somebody has aborted the job"))
            return None if receipt is None else await self._replay(spec, delivery, payload, receipt)
        except (JobFailedError, RetryLater):
            raise
        except Exception as error:
            raise await self._again(error, delivery.attempt) from error

    async def require_open_gate(self) -> None:
        """Return if the database can be written to. No round trip if that is known.

        Raises:
            RetryLater: it cannot.
        """
        if not self.gate.is_open and not await self.gate.check():
            raise RetryLater(AFTER_OUTAGE, counts=False)

    async def bury(self, letter: DeadLetter, *, has_run: bool = False) -> bool:
        """Record a dead letter; return whether it was recorded (``dead_letters.bury``).

        Raises:
            RetryLater: it could not be recorded; the job must be delivered again, as if it had not been started.
        """
        try:
            return await bury(self.sessions, letter, has_run=has_run)
        except Exception as error:
            raise await self._again(error, letter.attempts) from error

    async def _again(self, error: Exception, attempt: int) -> RetryLater:
        """Return what to raise if the database could not record, or not say, how a job has ended: not the job's fault.

        Counted, such attempts would run out, and the job be dead without its true error.
        """
        if may_be_outage(error) and not await self.gate.check():
            return RetryLater(AFTER_OUTAGE, counts=False)
        if is_transient(error):
            return RetryLater(backoff(attempt), counts=False)
        _log.error("the end of a job cannot be recorded", exc_info=error)
        return RetryLater(backoff(_UNRECORDED), counts=False)

    async def _settle(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None, error: Exception
    ) -> Exception | dict[str, Any]:
        """Decide what the failure means; a dead job is recorded first, or else delivered again: it is never lost.

        Returns the result if the job has succeeded meanwhile, by another owner of it.
        """
        if isinstance(error, RetryLater):
            return error
        decided = decide(spec, delivery.counted, error)
        if isinstance(decided, RetryLater):
            return decided
        try:
            return await self._record(spec, delivery, payload, decided, error)
        except RetryLater as later:
            return later
        except Exception as trouble:  # noqa: BLE001 - whatever it is: a job that is not on record has not ended
            return await self._again(trouble, delivery.attempt)

    async def _record(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None, failure: Exception, cause: Exception
    ) -> Exception | dict[str, Any]:
        """Write the letter of a job that is dead, and return what to answer."""
        payload = _identified(payload)
        if is_dead(failure) and not await self._bury(spec, delivery, payload, failure, cause):
            return await self._ended(spec, delivery, payload)
        return failure if payload is None else tagged(failure, payload_tag(payload))

    async def _bury(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None, failure: Exception, cause: Exception
    ) -> bool:
        """Record the dead letter; return whether it was: not if the job has ended otherwise meanwhile."""
        message = {"t": None, "f": spec.name, "a": delivery.args, "k": delivery.kwargs, "et": 0}
        letter = write_letter(
            failure,
            cause,
            job_id=delivery.job_id,
            job_name=spec.name,
            message=encode(message, largest=None),  # it may have been written more briefly by its producer
            attempts=delivery.attempt,
            queue=self.queue,
            request_hash=None if payload is None else request_hash(payload),
        )
        return await self.bury(letter, has_run=payload is not None)

    async def _ended(self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None) -> Exception | dict[str, Any]:
        """Return what the job's receipt says: a job of which no letter was written has one."""
        receipt = await self._look(delivery)
        if receipt is None or payload is None:
            return RetryLater(backoff(delivery.attempt))
        try:
            return await self._replay(spec, delivery, payload, receipt)
        except JobFailedError as failure:
            return failure

    async def _answer(self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, *, since: float) -> dict[str, Any]:
        """Run the job, or answer from the receipt of a run that has ended already."""
        if delivery.attempt > 1 and (earlier := await self._look(delivery)) is not None:
            return await self._replay(spec, delivery, payload, earlier)
        try:
            return await self._attempt(spec, delivery, payload)
        except Exception as error:
            await self._excuse(delivery, error, since=since)
            decided = decide(spec, delivery.counted, error)
            if isinstance(decided, RetryLater):
                raise
            # Final failures too: a second create_user finds the e-mail of the first taken.
            receipt = await self._conclude(spec, delivery, payload, decided)
            if receipt is None:
                raise
            return await self._replay(spec, delivery, payload, receipt)

    async def _excuse(self, delivery: Delivery, error: Exception, *, since: float) -> None:
        """Return if the failure is the job's.

        Raises:
            RetryLater: it is not: the database could not be written to.
        """
        if await self.gate.explains(error, since=since):
            raise RetryLater(AFTER_OUTAGE, counts=False) from error
        if self._patience.lasts(delivery.job_id, error):
            raise RetryLater(_AFTER_FAULT, counts=False) from error

    async def _conclude(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, failure: Exception
    ) -> Receipt | None:
        """Return the receipt of an earlier end, or record the refusal; ``None`` for our own and for dead jobs."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                if (earlier := await self._earlier(delivery)) is not None or is_dead(failure):
                    return earlier
                refusal = build_receipt(spec, delivery, payload, failure=failure_to_wire(failure))
                try:
                    async with self.sessions.begin() as session:
                        await insert_receipts(session, spec.name, [refusal])
                except IntegrityError:  # another owner was quicker
                    return await self._earlier(delivery)
        except (SQLAlchemyError, OSError) as error:
            if not is_transient(error):
                raise
            raise await self._again(error, delivery.attempt) from error
        return None

    async def _look(self, delivery: Delivery) -> Receipt | None:
        """Return the receipt of an earlier end. A look that fails is no attempt of the job's."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                return await self._earlier(delivery)
        except (SQLAlchemyError, OSError) as error:
            if not is_transient(error):
                raise
            raise await self._again(error, delivery.attempt) from error

    async def _earlier(self, delivery: Delivery) -> Receipt | None:
        async with self.sessions() as session:
            return await receipt_by_job_id(session, delivery.job_id)

    async def _replay(self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, receipt: Receipt) -> dict[str, Any]:
        """Answer from the receipt, and see to it that the job is owed no more."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                settled = await settle_promise(self.sessions, receipt, spec)
        except (SQLAlchemyError, OSError) as error:  # the job has ended, whatever becomes of this
            raise await self._again(error, delivery.attempt) from error
        # The same in a promise that this receipt has settled: then only the version of the code is another.
        request = request_hash(payload)
        if receipt.job_name not in spec.all_names or request not in {receipt.request_hash, settled}:
            raise RequestConflictError("another request with this id has taken effect: give each request its own key")
        if receipt.result is None:
            raise failure_from_wire(receipt.failure)
        return tagged(receipt.result, request_tag(request))  # type: ignore[no-any-return] # a dict as before

    async def _attempt(self, spec: AnySpec, delivery: Delivery, payload: AnyPayload) -> dict[str, Any]:
        if delivery.counted > spec.max_attempts and delivery.was_left is not False:
            raise AttemptsExhaustedError(why_exhausted(delivery))
        deadline = asyncio.timeout(spec.deadline.total_seconds())
        try:
            async with deadline:
                return await self._transact(spec, delivery, payload)
        except TimeoutError as error:
            if deadline.expired():
                message = f"took longer than {spec.deadline.total_seconds():g} s on each of its attempts"
                raise DeadlineExceededError(message) from error
            raise
        except asyncio.CancelledError as error:
            if self.is_cancelled():
                raise
            raise cancelled_itself() from error
        finally:
            if self._abandoned and asyncio.current_task() in self._abandoned:
                # What it raises or returns now counts for nothing.
                raise RetryLater(AFTER_OUTAGE, counts=False)

    async def _transact(self, spec: AnySpec, delivery: Delivery, payload: AnyPayload) -> dict[str, Any]:
        on_leak = partial(_log.warning, job_id=delivery.job_id, job_name=spec.name, attempt=delivery.attempt)
        async with open_transaction(
            self.sessions, lasts=spec.deadline, reads_only=spec.reads_only, on_leak=on_leak
        ) as session:
            self.note_session(session)
            # Before the commit: a result that cannot be sent must not leave an effect behind.
            with CONTAINED:
                dumped = dump_result(spec, await _handle(spec, session, payload))
            receipt = build_receipt(spec, delivery, payload, dumped=dumped)
            await insert_receipts(session, spec.name, [receipt], reads_only=spec.reads_only)
        return tagged(dumped.result, request_tag(receipt.request_hash))  # type: ignore[no-any-return] # a dict as before


async def _handle(spec: AnySpec, session: AsyncSession, payload: AnyPayload) -> Any:  # noqa: ANN401 - what it returns
    try:
        return await spec.handler(session, payload)
    except DBAPIError as error:
        if spec.reads_only and sqlstate_of(error) == _READ_ONLY:
            message = f"the handler of {spec.name} writes, and its JobSpec says reads_only=True: remove one of the two"
            raise ReadOnlyJobError(message) from error
        raise


def _identified(payload: AnyPayload | None) -> AnyPayload | None:
    """Return the payload if its request can be identified: a serializer of its own may raise each time."""
    try:
        with CONTAINED:
            return payload if payload is None or request_hash(payload) else None
    except Exception:  # noqa: BLE001 - the application's code
        return None


def _milliseconds_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
