"""Runs one attempt of a job: opens its session and transaction, and decides what a failure means.

The only place that opens transactions and the only one that turns failures into retries. Knows neither arq nor Redis.

A job takes effect once, however often it is delivered: its receipt commits with its effect, and of two owners of one
job only one can write it. There is no look before the first attempt, which is nearly always the only one; a delivery
that comes too late finds out at its last statement, is rolled back, and answers from the receipt. A refusal is recorded
in the same way, in a transaction of its own after the rollback: delivered again, the job is refused again.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.faults import constraint_of, cure_of, is_transient, is_unreachable, sqlstate_of
from db.receipts import Receipt, insert_receipts, receipt_by_job_id
from db.transactions import open_transaction
from jobs.arguments import read_payload
from jobs.codec import encode, tagged
from jobs.failures import (
    AttemptsExhaustedError,
    ConstraintViolatedError,
    DatabaseFailedError,
    DeadlineExceededError,
    InvalidPayloadError,
    JobAbortedError,
    JobFailedError,
    RequestConflictError,
    failure_from_wire,
    failure_to_wire,
)
from jobs.payloads import AnyPayload
from jobs.registry import JobSpec
from jobs.wire import QUEUE, payload_tag, request_hash, request_tag
from worker.backoff import backoff
from worker.dead_letters import bury, is_dead, write_letter
from worker.gate import DatabaseGate
from worker.promises import settle_promise

AnySpec = JobSpec[Any, Any]

_FAULTS = (DatabaseFailedError, DeadlineExceededError, AttemptsExhaustedError)
"""Failures that are ours, not the request's: worth an alarm and, but for the last, another attempt."""

_READ_ONLY = "25006"
"""SQLSTATE of what a transaction that reads only may not do."""

AFTER_OUTAGE = timedelta(milliseconds=200)
"""A job that an outage hit is due again so soon: no job is claimed before the server is back anyway."""

LOOK_LIMIT = timedelta(seconds=3)
"""Longest look for a receipt. It comes on top of the job's deadline, and arq ends the job 5 s after that."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("worker.dispatch")


@dataclass(frozen=True)
class Delivery:
    """A job as it came from the queue: ``attempt`` counts from 1, crashes of earlier workers included."""

    job_id: str
    attempt: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class WrongResultError(TypeError):
    """A handler has returned something else than its payload promises, as it will again: a fault of its code."""


class ReadOnlyJobError(TypeError):
    """A handler has written in a job that is declared to read only, as it will again: a fault of its code."""


_MISTAKES = (WrongResultError, ReadOnlyJobError)


class RetryLater(Exception):  # noqa: N818 - an outcome, not an error
    """The attempt failed and another one, after ``delay``, may succeed. In an outage the attempt does not count."""

    def __init__(self, delay: timedelta, *, counts: bool = True) -> None:
        super().__init__(f"try again in {delay}")
        self.delay = delay
        self.counts = counts


class Dispatcher:
    """Runs jobs, each in a session and a transaction of its own. ``gate`` is closed while the database is gone."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], *, queue: str = QUEUE) -> None:
        """Use the shared sessionmaker; dead letters name the queue, to which a retry puts them back."""
        self.sessions = sessions
        self.queue = queue
        self.gate = DatabaseGate(sessions)

    async def run(self, spec: AnySpec, delivery: Delivery) -> dict[str, Any]:
        """Run one attempt and return the result in JSON's types. Commits before it returns.

        Raises:
            RetryLater: the attempt failed and the job has attempts left.
            JobFailedError: the job failed for good, in a way that the producer can read.
            Exception: an unknown error of the last attempt, as it was raised.
        """
        told = {"job_id": delivery.job_id, "job_name": spec.name, "attempt": delivery.attempt}
        started = time.perf_counter()
        payload: AnyPayload | None = None
        try:
            payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
            result = await self._answer(spec, delivery, payload)
        except Exception as error:
            decided = await self._settle(spec, delivery, payload, error)
            _log_failure(_log.bind(**told, duration_ms=_milliseconds_since(started)), error, decided)
            if payload is not None:
                tagged(decided, payload_tag(payload))
            if decided is error:
                raise
            raise decided from error
        _log.info("job done", **told, duration_ms=_milliseconds_since(started))
        return result

    async def abort(self, spec: AnySpec, delivery: Delivery) -> dict[str, Any] | None:
        """Record that somebody has aborted the job, so that it stays so; return the result if it had ended before.

        Raises:
            RetryLater: it could not be recorded.
            JobFailedError: the job had failed before.
        """
        try:
            payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
        except InvalidPayloadError:
            return None
        try:
            receipt = await self._conclude(spec, delivery, payload, JobAbortedError("somebody has aborted the job"))
        except (SQLAlchemyError, OSError) as error:
            raise RetryLater(AFTER_OUTAGE, counts=False) from error
        return None if receipt is None else await self._replay(spec, payload, receipt)

    async def _settle(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None, error: Exception
    ) -> Exception:
        """Decide what the failure means; a dead job is recorded first, or else delivered again: it is never lost."""
        if isinstance(error, RetryLater):
            return error
        if is_unreachable(error) and not await self.gate.check():
            return RetryLater(AFTER_OUTAGE, counts=False)
        decided = _decide(spec, delivery.attempt, error)
        if isinstance(decided, RetryLater) or not is_dead(decided):
            return decided
        message = {"t": None, "f": spec.name, "a": delivery.args, "k": delivery.kwargs, "et": 0}
        letter = write_letter(
            decided,
            error,
            job_id=delivery.job_id,
            job_name=spec.name,
            message=encode(message),
            attempts=delivery.attempt,
            queue=self.queue,
            request_hash=None if payload is None else request_hash(payload),
        )
        try:
            await bury(self.sessions, letter)
        except (SQLAlchemyError, OSError):
            return RetryLater(backoff(delivery.attempt))
        return decided

    async def _answer(self, spec: AnySpec, delivery: Delivery, payload: AnyPayload) -> dict[str, Any]:
        """Run the job, or answer from the receipt of a run that has ended already."""
        if delivery.attempt > 1:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                earlier = await self._earlier(delivery)
            if earlier is not None:
                return await self._replay(spec, payload, earlier)
        try:
            return await self._attempt(spec, delivery, payload)
        except Exception as error:
            decided = _decide(spec, delivery.attempt, error)
            if isinstance(decided, RetryLater):
                raise
            # Final failures too: a second create_user finds the e-mail of the first taken.
            receipt = await self._conclude(spec, delivery, payload, decided)
            if receipt is None:
                raise
            return await self._replay(spec, payload, receipt)

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
            if is_unreachable(error):
                raise  # an outage, in which the attempt does not count
            raise RetryLater(backoff(delivery.attempt)) from error
        return None

    async def _earlier(self, delivery: Delivery) -> Receipt | None:
        async with self.sessions() as session:
            return await receipt_by_job_id(session, delivery.job_id)

    async def _replay(self, spec: AnySpec, payload: AnyPayload, receipt: Receipt) -> dict[str, Any]:
        """Answer from the receipt, and see to it that the job is owed no more."""
        async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
            settled = await settle_promise(self.sessions, receipt, spec)
        # The same in a promise that this receipt has settled: then only the version of the code is another.
        request = request_hash(payload)
        if receipt.job_name not in spec.all_names or request not in {receipt.request_hash, settled}:
            raise RequestConflictError("another request with this id has taken effect: give each request its own key")
        if receipt.result is None:
            raise failure_from_wire(receipt.failure)
        return tagged(receipt.result, request_tag(request))  # type: ignore[no-any-return] # a dict as before

    async def _attempt(self, spec: AnySpec, delivery: Delivery, payload: AnyPayload) -> dict[str, Any]:
        if delivery.attempt > spec.max_attempts:
            message = f"started {delivery.attempt - 1} times and never ended: its worker died or was killed each time"
            raise AttemptsExhaustedError(message)
        try:
            async with asyncio.timeout(spec.deadline.total_seconds()) as deadline:
                return await self._transact(spec, delivery, payload)
        except TimeoutError as error:
            if deadline.expired():
                message = f"took longer than {spec.deadline.total_seconds():g} s on each of its attempts"
                raise DeadlineExceededError(message) from error
            raise

    async def _transact(self, spec: AnySpec, delivery: Delivery, payload: AnyPayload) -> dict[str, Any]:
        on_leak = partial(_log.warning, job_id=delivery.job_id, job_name=spec.name, attempt=delivery.attempt)
        async with open_transaction(self.sessions, reads_only=spec.reads_only, on_leak=on_leak) as session:
            # Before the commit: a result that cannot be sent must not leave an effect behind.
            result = dump_result(spec, await _handle(spec, session, payload))
            receipt = build_receipt(spec, delivery, payload, result=result)
            await insert_receipts(session, spec.name, [receipt], reads_only=spec.reads_only)
        return tagged(result, request_tag(receipt.request_hash))  # type: ignore[no-any-return] # a dict as before


async def _handle(spec: AnySpec, session: AsyncSession, payload: AnyPayload) -> Any:  # noqa: ANN401 - what it returns
    try:
        return await spec.handler(session, payload)
    except DBAPIError as error:
        if spec.reads_only and sqlstate_of(error) == _READ_ONLY:
            message = f"the handler of {spec.name} writes, and its JobSpec says reads_only=True: remove one of the two"
            raise ReadOnlyJobError(message) from error
        raise


def build_receipt(
    spec: AnySpec,
    delivery: Delivery,
    payload: AnyPayload,
    *,
    result: dict[str, Any] | None = None,
    failure: dict[str, str] | None = None,
) -> Receipt:
    """Say how the job ended: with a result or with a failure."""
    return Receipt(
        job_id=delivery.job_id,
        job_name=spec.name,
        request_hash=request_hash(payload),
        result=result,
        failure=failure,
        attempt=delivery.attempt,
    )


def dump_result(spec: AnySpec, result: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever the handler returned
    """Return the result in JSON's types.

    Raises:
        WrongResultError: it is not what the payload promises.
    """
    expected = spec.payload.result_type()
    if not isinstance(result, expected):
        message = f"the handler of {spec.name} returned {type(result).__name__}, not {expected.__name__}"
        raise WrongResultError(f"{message}: let it return what its payload promises")
    dumped: dict[str, Any] = result.model_dump(mode="json")
    return dumped


def _decide(spec: AnySpec, attempt: int, error: Exception) -> Exception:
    """Return what to raise for the failure of an attempt: itself, a clearer failure, or a retry."""
    failure = _as_failure(spec, error)
    if isinstance(failure, JobFailedError) and not isinstance(failure, _FAULTS):
        return failure
    is_final = isinstance(error, WrongResultError | ReadOnlyJobError) or (
        isinstance(error, SQLAlchemyError) and not is_transient(error)
    )
    if attempt < spec.max_attempts and not is_final:
        return RetryLater(backoff(attempt))
    return failure


def _as_failure(spec: AnySpec, error: Exception) -> Exception:
    """Tell a failure of the database without its text, which repeats people's data."""
    if not isinstance(error, SQLAlchemyError | ConnectionError | TimeoutError):
        return error
    state, constraint = sqlstate_of(error), constraint_of(error)
    if refusal := spec.refusals.get(constraint or ""):
        return refusal.error(refusal.message)
    if constraint is not None:
        return ConstraintViolatedError(f"the database refuses the data: {constraint} (SQLSTATE {state})")
    if isinstance(error, DBAPIError) or is_transient(error):
        cause = f"SQLSTATE {state}" if state else type(getattr(error, "orig", None) or error).__name__
        cure = cure_of(state)
        return DatabaseFailedError(f"the database failed: {cause}" + (f": {cure}" if cure else ""))
    return error


def _log_failure(log: structlog.stdlib.BoundLogger, error: Exception, decided: Exception) -> None:
    if isinstance(decided, RetryLater):
        log.warning("job retried", delay_ms=round(decided.delay / timedelta(milliseconds=1)), exc_info=error)
    elif isinstance(decided, JobFailedError) and not isinstance(decided, _FAULTS):
        log.warning("job refused", reason=decided.type)
    else:
        log.error("job failed", exc_info=error)


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)
