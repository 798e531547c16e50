"""Runs one attempt of a job: opens its session and transaction, calls the handler, and commits its receipt.

The only place that opens transactions for handlers. Knows neither arq nor Redis. What a failure means is decided in
``verdict``, and what is on record of a job's end in ``record``.

A job takes effect once, however often it is delivered: its receipt commits with its effect, and if two workers run the
same job, only one can insert the receipt. The first attempt does not look for a receipt, because it is nearly always
the only attempt. A duplicate delivery fails at its last statement, is rolled back, and returns the result from the
receipt.
"""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.faults import sqlstate_of
from arqonce.database.transactions import open_transaction
from arqonce.execution.abandoned import Abandoned
from arqonce.execution.answers import build_receipt, dump_result
from arqonce.execution.containment import CONTAINED, is_cancelled
from arqonce.execution.context import build_context
from arqonce.execution.deadline import within
from arqonce.execution.delivery import EXPIRED, AnySpec, Delivery
from arqonce.execution.excuses import Excuses
from arqonce.execution.gate import DatabaseGate
from arqonce.execution.history import History
from arqonce.execution.pace import Paces
from arqonce.execution.progress import Progress
from arqonce.execution.record import AFTER_OUTAGE, Record
from arqonce.execution.traces import traced_phase
from arqonce.execution.verdict import RetryLater, decide, log_failure, may_start, why_exhausted
from arqonce.failures import AttemptsExhaustedError, JobExpiredError
from arqonce.job import JobContext, RetryAfter
from arqonce.ledger.namespace import namespace_of
from arqonce.ledger.receipts import insert_receipts
from arqonce.payloads import AnyPayload
from arqonce.resources import Opened, Resources
from arqonce.running import ReadOnlyJobError, RunningJob
from arqonce.wire.arguments import read_payload
from arqonce.wire.keys import QUEUE
from arqonce.wire.request import request_tag

_READ_ONLY = "25006"
"""SQLSTATE ``read_only_sql_transaction``."""

_WRITES = "the handler of {} writes, and its JobSpec says reads_only=True: remove one of the two"

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
        self.history = History(sessions, self.gate, queue)
        """Keeps failed attempts on record, while somebody lets it write."""
        self.record = Record(sessions, self.gate, self.history, queue)
        self.paces = Paces()
        """How many jobs share a transaction, by kind."""
        self.abandoned = Abandoned()
        self._excuses = Excuses(self.gate)
        self.is_cancelled: Callable[[], bool] = is_cancelled
        """Whether the current task's cancellation was requested; the worker class replaces it by a better test."""
        self.aside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        """Returns what lets others use the connection of the current run while its block works; the worker class
        replaces it."""

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
            decided = await self.record.settle(spec, delivery, payload, error, progress)
            if not isinstance(decided, RetryLater):
                self._excuses.forget(delivery.job_id)
            if not isinstance(decided, Exception):  # another worker ran the job first, and succeeded
                return decided
            log_failure(_log.bind(**told, duration_ms=_milliseconds_since(progress.started)), error, decided)
            if decided is error:
                raise
            raise decided from error
        _log.info("job done", **told, duration_ms=_milliseconds_since(progress.started))
        return result

    async def require_open_gate(self) -> None:
        """Return if the database can be written to. No round trip while the gate is open.

        Raises:
            RetryLater: it cannot be written to.
        """
        if not self.gate.is_open and not await self.gate.check():
            raise RetryLater(AFTER_OUTAGE, counts=False)

    async def _answer(
        self, spec: AnySpec, delivery: Delivery, payload: AnyPayload, progress: Progress
    ) -> dict[str, Any]:
        """Run the job, or return the end that an earlier run's receipt records.

        The first attempt looks for a receipt only before the work of a job with phases, which is slow.
        """
        may_have_ended = delivery.attempt > 1 or spec.phases is not None
        if may_have_ended and (earlier := await self.record.look(delivery)) is not None:
            return await self.record.replay(spec, delivery, payload, earlier, progress)
        try:
            _require_start(spec, delivery, progress)
            if spec.phases is not None and not progress.has_worked:
                async with self.aside():
                    work = traced_phase(self._work(spec, delivery, payload), "work", spec)
                    progress.outcome = (await within(spec.phases.deadline, work, self.is_cancelled, self.abandoned),)
            store = traced_phase(self._transact(spec, delivery, payload, progress), "store", spec)
            return await within(spec.deadline, store, self.is_cancelled, self.abandoned)
        except Exception as error:
            if not isinstance(error, RetryAfter):
                await self._excuses.require_none(delivery.job_id, error, since=progress.started)
            decided = decide(spec, delivery, error)
            if isinstance(decided, RetryLater):
                raise
            # Even a final failure may come from a duplicate: a second create_user finds the first one's e-mail taken.
            receipt = await self.record.conclude(spec, delivery, payload, decided)
            if receipt is None:
                raise
            return await self.record.replay(spec, delivery, payload, receipt, progress)

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
            self.abandoned.note_session(session)
            # Before the commit: if the result cannot be sent, the effect must be rolled back.
            with CONTAINED, self.running(session, spec, delivery):
                dumped = dump_result(spec, await self._handle(spec, delivery, session, payload, *progress.outcome))
            receipt = build_receipt(spec, delivery, payload, dumped=dumped)
            await insert_receipts(session, spec.name, [receipt], reads_only=spec.reads_only)
        progress.tag = request_tag(receipt.request_hash)
        return dumped.result

    async def _handle(self, spec: AnySpec, delivery: Delivery, *arguments: Any) -> Any:  # noqa: ANN401 - what it returns
        try:
            job = [self.context(spec, delivery, lasts=spec.deadline)] if spec.takes_job else []
            result = await spec.stores(*arguments, *job)
            if spec.reads_only:  # what it has added to the session would be refused at the commit
                await arguments[0].flush()
        except DBAPIError as error:
            if spec.reads_only and sqlstate_of(error) == _READ_ONLY:
                raise ReadOnlyJobError(_WRITES.format(spec.name)) from error
            raise
        return result

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

    def context(self, spec: AnySpec, delivery: Delivery, *, lasts: timedelta) -> JobContext:
        """Return the context of an attempt that begins now."""
        return build_context(spec, delivery, queue=delivery.queue or self.queue, resources=self.resources, lasts=lasts)


def _require_start(spec: AnySpec, delivery: Delivery, progress: Progress) -> None:
    """Return if the attempt may begin."""
    if delivery.has_expired and not progress.has_worked:
        raise JobExpiredError(EXPIRED)
    if not may_start(spec, delivery):
        raise AttemptsExhaustedError(why_exhausted(delivery))


def _milliseconds_since(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
