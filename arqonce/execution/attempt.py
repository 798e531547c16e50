"""Runs one attempt of a job: opens its session and transaction, and decides what a failure means.

The only place that opens transactions and the only one that turns failures into retries. Knows neither arq nor Redis.

A job takes effect once, however often it is delivered: its receipt commits with its effect, and if two workers run the
same job, only one can insert the receipt. The first attempt does not look for a receipt, because it is nearly always
the only attempt. A duplicate delivery fails at its last statement, is rolled back, and returns the result from the
receipt. A refusal is recorded in the same way, in its own transaction after the rollback: a job that is delivered again
is refused again.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.backoff import backoff
from arqonce.database.faults import is_transient, may_be_outage, sqlstate_of
from arqonce.database.transactions import open_transaction
from arqonce.execution.answers import build_receipt, dump_result
from arqonce.execution.containment import CONTAINED, cancelled_itself, is_cancelled
from arqonce.execution.context import build_context
from arqonce.execution.dead_letters import bury, bury_together, is_dead, write_letter
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.gate import DatabaseGate
from arqonce.execution.history import History
from arqonce.execution.pace import Paces
from arqonce.execution.patience import Patience
from arqonce.execution.progress import Progress, identified, tag_of
from arqonce.execution.same_request import settle_promise
from arqonce.execution.traces import traced_phase
from arqonce.execution.verdict import RetryLater, decide, log_failure, why_exhausted
from arqonce.failures import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    JobAbortedError,
    JobExpiredError,
    JobFailedError,
    RequestConflictError,
    failure_from_wire,
    failure_to_wire,
)
from arqonce.job import JobContext, RetryAfter
from arqonce.ledger.attempts import FailedAttempt
from arqonce.ledger.dead_jobs import DeadLetter
from arqonce.ledger.namespace import namespace_of
from arqonce.ledger.receipts import Receipt, insert_receipts, receipt_by_job_id
from arqonce.ledger.tables import DeadJob
from arqonce.payloads import AnyPayload
from arqonce.resources import Opened, Resources
from arqonce.running import ReadOnlyJobError, RunningJob
from arqonce.wire.arguments import read_payload
from arqonce.wire.codec import encode
from arqonce.wire.keys import QUEUE
from arqonce.wire.request import payload_tag, request_hash, request_tag

T = TypeVar("T")

_READ_ONLY = "25006"
"""SQLSTATE ``read_only_sql_transaction``."""

AFTER_OUTAGE = timedelta(milliseconds=200)
"""Delay of a job that an outage interrupted. It can be short: workers claim nothing until the server is back."""

_AFTER_FAULT = timedelta(milliseconds=500)
"""Delay after a server fault that the gate does not detect, while other jobs may run."""

_UNRECORDED = 6
"""Attempt number whose backoff delays a job whose end the database refuses to record, whatever its real attempt."""

LOOK_LIMIT = timedelta(seconds=3)
"""Longest lookup of a receipt. It is added to the job's deadline."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.attempt")


class Dispatcher:
    """Runs jobs, each in its own session and transaction.

    ``gate`` is closed while the database cannot be written to. No attempt counts during that time, whether it was
    running the handler, looking for a receipt, or recording a refusal or a dead letter. So the attempt after which a
    job is dead has always really run, and its error is the real one.
    """

    def __init__(
        self, sessions: async_sessionmaker[AsyncSession], *, queue: str = QUEUE, resources: Resources | None = None
    ) -> None:
        """Use the shared sessionmaker. Dead letters store the queue that a retry enqueues to, by default ``queue``."""
        self.sessions = sessions
        self.queue = queue
        self.resources: Resources = Opened() if resources is None else resources
        """What handlers get that ask for resources."""
        self.gate = DatabaseGate(sessions)
        self.answered = 0
        """How many deliveries a receipt has answered."""
        self.history = History(sessions, self.gate, queue)
        """Keeps failed attempts on record, while somebody lets it write."""
        self.paces = Paces()
        """How many jobs share a transaction, by kind."""
        self._patience = Patience()
        self.is_cancelled: Callable[[], bool] = is_cancelled
        """Whether the current task's cancellation was requested; the worker class replaces it by a better test."""
        self.aside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        """Returns what lets others use the connection of the current run while its block works; the worker class
        replaces it."""
        self._sessions_of: WeakKeyDictionary[asyncio.Task[Any], AsyncSession] = WeakKeyDictionary()
        self._abandoned: WeakSet[asyncio.Task[Any]] = WeakSet()

    async def run(self, spec: AnySpec, delivery: Delivery, progress: Progress | None = None) -> dict[str, Any]:
        """Run one attempt and return the result as JSON types. Commits before it returns.

        ``progress`` gets the tag of the request, and the outcome of the job's work: an attempt that finds an outcome in
        it does not work again. Unless this raises RetryLater, the job has ended, and a receipt or a dead letter records
        it. If the record cannot be written, the job is tried again.

        Raises:
            RetryLater: the attempt failed and the job has attempts left, or its end could not be recorded.
            JobFailedError: the job failed for good, with a reason that the producer can read.
            Exception: an unknown error of the last attempt, as it was raised.
        """
        told = {"job_id": delivery.job_id, "job_name": spec.name, "attempt": delivery.attempt} | delivery.waited
        payload: AnyPayload | None = None
        progress = progress or Progress()
        progress.started = time.monotonic()
        try:
            await self.require_open_gate()
            with CONTAINED:  # validators are application code, too
                payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
            result = await self._answer(spec, delivery, payload, progress)
        except Exception as error:
            decided = await self._settle(spec, delivery, payload, error, progress)
            if not isinstance(decided, RetryLater):
                self._patience.forget(delivery.job_id)
            if not isinstance(decided, Exception):  # another worker ran the job first, and succeeded
                return decided
            log_failure(_log.bind(**told, duration_ms=_milliseconds_since(progress.started)), error, decided)
            if decided is error:
                raise
            raise decided from error
        _log.info("job done", **told, duration_ms=_milliseconds_since(progress.started))
        return result

    async def answer_on_record(self, job_id: str, attempt: int) -> dict[str, Any] | None:
        """Return the recorded result of a job, whatever its request; ``None`` if it has not ended. Up to 2 round trips.

        Raises:
            JobFailedError: it has failed.
            RetryLater: the database cannot be queried.
        """
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()), self.sessions() as session:
                receipt = await receipt_by_job_id(session, job_id)
                letter = None if receipt is not None else await session.get(DeadJob, job_id)
        except Exception as error:
            raise await self._again(error, attempt) from error
        if letter is not None:
            raise JobFailedError.from_code(letter.reason, letter.explanation)
        self.answered += receipt is not None
        if receipt is not None and receipt.result is None:
            raise failure_from_wire(receipt.failure)
        return None if receipt is None else receipt.result

    def note_session(self, session: AsyncSession) -> None:
        """Remember the session of the current task, for ``disconnect``."""
        if (task := asyncio.current_task()) is not None:
            self._sessions_of[task] = session

    def running(
        self, session: AsyncSession, spec: AnySpec, delivery: Delivery, *, is_batch: bool = False
    ) -> RunningJob:
        """Return what makes promises in the handler's transaction follow-ups of the job, or of the batch."""
        return RunningJob(
            session,
            name=spec.name,
            job_id=None if is_batch else delivery.job_id,
            queue=delivery.queue or self.queue,
            ledger=namespace_of(session),
            reads_only=spec.reads_only,
        )

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody wants to know the outcome of the current task."""
        return asyncio.current_task() in self._abandoned

    async def disconnect(self, task: "asyncio.Task[Any]") -> None:
        """Close the connection of a task that does not end, so that it cannot commit. Its outcome is ignored."""
        self._abandoned.add(task)
        if (session := self._sessions_of.get(task)) is None:
            return
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                await session.invalidate()
        except Exception as error:  # noqa: BLE001 - the connection may be in use: then the receipt decides
            _log.warning("the transaction of an abandoned job could not be ended", exc_info=error)

    async def end_overdue(self, spec: AnySpec, delivery: Delivery, progress: Progress) -> dict[str, Any]:
        """Decide what happens to a job whose handler still runs after it was cancelled at its deadline.

        Raises:
            RetryLater: the job has attempts left.
            JobFailedError: it has none left and is dead.
        """
        payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
        deadline = spec.deadline if spec.phases is None else spec.phases.deadline
        message = f"went on after its deadline of {deadline.total_seconds():g} s: it swallows its cancellation"
        error = DeadlineExceededError(f"{message}. Let CancelledError through in the handler")
        decided = await self._settle(spec, delivery, payload, error, progress)
        if isinstance(decided, Exception):
            log_failure(_log.bind(job_id=delivery.job_id, job_name=spec.name), error, decided)
            raise decided
        return decided

    async def abort(self, spec: AnySpec, delivery: Delivery, progress: Progress | None = None) -> dict[str, Any] | None:
        """Record that the job was aborted, so that it never runs again; return its result if it had already ended.

        Raises:
            RetryLater: the abort could not be recorded.
            JobFailedError: the job had already failed.
        """
        try:
            with CONTAINED:
                payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
        except Exception:  # noqa: BLE001 - a validator may raise anything
            return await self.run(spec, delivery, progress)  # records why the job cannot run
        progress = progress or Progress()
        progress.tag = tag_of(payload)
        await self.require_open_gate()
        try:
            receipt = await self._conclude(spec, delivery, payload, JobAbortedError("somebody has aborted the job"))
            return None if receipt is None else await self._replay(spec, delivery, payload, receipt, progress)
        except (JobFailedError, RetryLater):
            raise
        except Exception as error:
            raise await self._again(error, delivery.attempt) from error

    async def require_open_gate(self) -> None:
        """Return if the database can be written to. No round trip while the gate is open.

        Raises:
            RetryLater: it cannot be written to.
        """
        if not self.gate.is_open and not await self.gate.check():
            raise RetryLater(AFTER_OUTAGE, counts=False)

    async def bury(self, letter: DeadLetter, *, has_run: bool = False, attempt: FailedAttempt | None = None) -> bool:
        """Record a dead letter and its last ``attempt``; return whether it was recorded (``dead_letters.bury``).

        Raises:
            RetryLater: it could not be recorded; the job must be delivered again, and this attempt does not count.
        """
        try:
            return await bury(self.sessions, letter, has_run=has_run, attempt=attempt)
        except Exception as error:
            raise await self._again(error, letter.attempts) from error

    async def bury_together(self, letters: Sequence[DeadLetter]) -> set[str]:
        """Record letters at once; return the ids of those that were recorded: the others need ``bury`` each.

        Raises:
            RetryLater: none could be recorded; the jobs must be delivered again, and this attempt does not count.
        """
        try:
            return await bury_together(self.sessions, letters)
        except Exception as error:
            raise await self._again(error, 1) from error

    async def _again(self, error: Exception, attempt: int) -> RetryLater:
        """Return the retry to raise if the database could not record or return the end of a job.

        Such attempts are not counted: otherwise the job would use them up and be dead without its real error.
        """
        if may_be_outage(error) and not await self.gate.check():
            return RetryLater(AFTER_OUTAGE, counts=False)
        if is_transient(error):
            return RetryLater(backoff(attempt), counts=False)
        _log.error("the end of a job cannot be recorded", exc_info=error)
        return RetryLater(backoff(_UNRECORDED), counts=False)

    async def _settle(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None, error: Exception, progress: Progress
    ) -> Exception | dict[str, Any]:
        """Return what to raise for the failure, or the result if another worker has completed the job meanwhile.

        A dead letter is written before this returns. If that fails, the job is retried, so it is never lost.
        """
        if isinstance(error, RetryLater):
            if error.__cause__ is not None:  # else the attempt has not begun, or is not wanted any more
                self.history.note(spec, delivery, error.__cause__, error, started=progress.started)
            return error
        decided = decide(spec, delivery, error)
        if isinstance(decided, RetryLater):
            self.history.note(spec, delivery, error, decided, started=progress.started)
            return decided
        try:
            return await self._record(spec, delivery, payload, decided, cause=error, progress=progress)
        except RetryLater as later:
            return later
        except Exception as trouble:  # noqa: BLE001 - after any error: a job without a record has not ended
            return await self._again(trouble, delivery.attempt)

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
        attempt = self.history.last_attempt(spec, delivery, cause, started=started) if has_begun else None
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
            queue=delivery.queue or self.queue,
            request_hash=None if payload is None else request_hash(payload),
        )

    async def _ended(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload | None, progress: Progress
    ) -> Exception | dict[str, Any]:
        """Return the end that the job's receipt records. A job whose dead letter was not written has a receipt."""
        receipt = await self._look(delivery)
        if receipt is None or payload is None:
            return RetryLater(backoff(delivery.attempt))
        try:
            return await self._replay(spec, delivery, payload, receipt, progress)
        except JobFailedError as failure:
            return failure

    async def _answer(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, progress: Progress
    ) -> dict[str, Any]:
        """Run the job, or return the end that an earlier run's receipt records.

        The first attempt looks for a receipt only before the work of a job with phases, which is slow.
        """
        may_have_ended = delivery.attempt > 1 or spec.phases is not None
        if may_have_ended and (earlier := await self._look(delivery)) is not None:
            return await self._replay(spec, delivery, payload, earlier, progress)
        try:
            _require_start(spec, delivery, progress)
            if spec.phases is not None and not progress.has_worked:
                async with self.aside():
                    work = traced_phase(self._work(spec, delivery, payload), "work", spec)
                    progress.outcome = (await self._within(spec.phases.deadline, work),)
            store = traced_phase(self._transact(spec, delivery, payload, progress), "store", spec)
            return await self._within(spec.deadline, store)
        except Exception as error:
            if not isinstance(error, RetryAfter):
                await self._excuse(delivery, error, since=progress.started)
            decided = decide(spec, delivery, error)
            if isinstance(decided, RetryLater):
                raise
            # Even a final failure may come from a duplicate: a second create_user finds the first one's e-mail taken.
            receipt = await self._conclude(spec, delivery, payload, decided)
            if receipt is None:
                raise
            return await self._replay(spec, delivery, payload, receipt, progress)

    async def _excuse(self, delivery: Delivery, error: Exception, *, since: float) -> None:
        """Return if the job caused the failure.

        Raises:
            RetryLater: the database caused it: it could not be written to.
        """
        if await self.gate.explains(error, since=since):
            raise RetryLater(AFTER_OUTAGE, counts=False) from error
        if self._patience.lasts(delivery.job_id, error):
            raise RetryLater(_AFTER_FAULT, counts=False) from error

    async def _conclude(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, failure: Exception
    ) -> Receipt | None:
        """Return the receipt of an earlier end, or record the refusal. ``None``: recorded now, or the job is dead."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                if (earlier := await self._earlier(delivery)) is not None or is_dead(failure):
                    return earlier
                refusal = build_receipt(spec, delivery, payload, failure=failure_to_wire(failure))
                try:
                    async with self.sessions.begin() as session:
                        await insert_receipts(session, spec.name, [refusal])
                except IntegrityError:  # another worker recorded an end first
                    return await self._earlier(delivery)
        except (SQLAlchemyError, OSError) as error:
            if not is_transient(error):
                raise
            raise await self._again(error, delivery.attempt) from error
        return None

    async def _look(self, delivery: Delivery) -> Receipt | None:
        """Return the receipt of an earlier end. A failed lookup does not count as an attempt."""
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

    async def _replay(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, receipt: Receipt, progress: Progress
    ) -> dict[str, Any]:
        """Return or raise the end that the receipt records, and delete the job's outbox row."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                settled = await settle_promise(self.sessions, receipt, spec)
        except (SQLAlchemyError, OSError) as error:  # not a failed attempt: the job has ended
            raise await self._again(error, delivery.attempt) from error
        # The deleted outbox row may have another hash of the same request, made by another version of the code.
        request = request_hash(payload)
        if receipt.job_name not in spec.all_names or request not in {receipt.request_hash, settled}:
            raise RequestConflictError("another request with this id has taken effect: give each request its own key")
        self.answered += 1
        if receipt.result is None:
            raise failure_from_wire(receipt.failure)
        progress.tag = request_tag(request)
        return receipt.result

    async def _within(self, longest: timedelta, phase: Coroutine[Any, Any, T]) -> T:
        deadline = asyncio.timeout(longest.total_seconds())
        try:
            async with deadline:
                return await phase
        except TimeoutError as error:
            if deadline.expired():
                message = f"took longer than {longest.total_seconds():g} s on each of its attempts"
                raise DeadlineExceededError(message) from error
            raise
        except asyncio.CancelledError as error:
            if self.is_cancelled():
                raise
            raise cancelled_itself() from error
        finally:
            if self._abandoned and self.is_abandoned:
                # Ignore whatever the task raised or returned.
                raise RetryLater(AFTER_OUTAGE, counts=False)

    async def _work(self, spec: AnySpec, delivery: Delivery, payload: AnyPayload) -> Any:  # noqa: ANN401 - what it returns
        assert spec.phases is not None  # noqa: S101 - asked before
        work: Any = spec.phases.work
        job = [self.context(spec, delivery, lasts=spec.phases.deadline)] if spec.work_takes_job else []
        with CONTAINED:
            return await work(payload, *job)

    async def _transact(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, progress: Progress
    ) -> dict[str, Any]:
        on_leak = partial(_log.warning, job_id=delivery.job_id, job_name=spec.name, attempt=delivery.attempt)
        async with open_transaction(
            self.sessions, lasts=spec.deadline, reads_only=spec.reads_only, on_leak=on_leak
        ) as session:
            self.note_session(session)
            # Before the commit: if the result cannot be sent, the effect must be rolled back.
            with CONTAINED, self.running(session, spec, delivery):
                dumped = dump_result(spec, await self._handle(spec, delivery, session, payload, *progress.outcome))
            receipt = build_receipt(spec, delivery, payload, dumped=dumped)
            await insert_receipts(session, spec.name, [receipt], reads_only=spec.reads_only)
        progress.tag = request_tag(receipt.request_hash)
        return dumped.result

    async def _handle(self, spec: AnySpec, delivery: Delivery, *arguments: Any) -> Any:  # noqa: ANN401 - what it returns
        try:
            if spec.takes_job:
                return await spec.stores(*arguments, self.context(spec, delivery, lasts=spec.deadline))
            return await spec.stores(*arguments)
        except DBAPIError as error:
            if spec.reads_only and sqlstate_of(error) == _READ_ONLY:
                message = f"the handler of {spec.name} writes, and its JobSpec says reads_only=True"
                raise ReadOnlyJobError(f"{message}: remove one of the two") from error
            raise

    def context(self, spec: AnySpec, delivery: Delivery, *, lasts: timedelta) -> JobContext:
        """Return the context of an attempt that begins now."""
        return build_context(spec, delivery, queue=delivery.queue or self.queue, resources=self.resources, lasts=lasts)


def _require_start(spec: AnySpec, delivery: Delivery, progress: Progress) -> None:
    """Return if the attempt may begin."""
    if delivery.has_expired and not progress.has_worked:
        raise JobExpiredError("no worker had started the job when it expired: it has not run")
    if delivery.counted > spec.max_attempts and delivery.was_left is not False:
        raise AttemptsExhaustedError(why_exhausted(delivery))


def _milliseconds_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
