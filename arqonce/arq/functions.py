"""Functions ``(ctx, ...)`` as the engine's work: what arq 0.28 documents of them holds.

Where arq dies or loses a job (a hook that raises, keys of a wrong type, a lost Redis) the job ends or is tried again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, Protocol

import arq.worker
import structlog
from arq.cron import CronJob
from arq.jobs import deserialize_job_raw, serialize_result
from arq.utils import ms_to_datetime
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob

from arqonce.arq.records import PATIENCE, Failure, FunctionRecords, LedgerAwayError, Run
from arqonce.arq.traces import traced_function
from arqonce.backoff import backoff
from arqonce.execution.containment import CONTAINED, HandlerCancelledError, cancelled_itself
from arqonce.execution.diagnosis import diagnose
from arqonce.execution.record import AFTER_OUTAGE
from arqonce.failures import AttemptsExhaustedError, MalformedMessageError, UnknownJobError, code_of, storable
from arqonce.frames import without_frames
from arqonce.ledger.function_receipts import Success
from arqonce.wire.bounds import LONGEST_NAME
from arqonce.wire.codec import PICKLE, decode
from arqonce.wire.keys import LATEST_MS, now_ms, to_ms
from arqonce.wire.message import MOST_TRIES
from arqonce.work import UNKNOWN, Again, Claim, Ended, GivenBack, Outcome, Postponed

_FAR = timedelta(days=3650)
"""Limit of a function without a timeout."""

_MOST_SHOWN = 200
"""Most characters of an id in a log line."""

_UNTIL_READ = timedelta(minutes=1)
"""How long a pickle waits that this worker does not read: one that does may be started, and nothing is lost."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.arq.functions")

_log_of_service: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.arq.service")
"""For faults of the service that are not its functions'. Sentry passes ``_log`` over: it reports functions itself."""

_PICKLED = (
    "the message is a pickle, which this worker does not read. Give the producer's pool job_serializer and "
    "job_deserializer (arqonce.encode, arqonce.decode), or run with --pickle until it has them"
)


def decode_undecided(data: bytes) -> dict[str, Any]:
    """Read JSON, for a service that has no serializers of its own: its producers may send pickles, which can wait."""
    return decode(data)


class PickleError(Exception):
    """The message is a pickle, and this worker reads none."""


class Hook(Protocol):
    """One of arq's hooks around a job."""

    def __call__(self, ctx: dict[Any, Any], /) -> Awaitable[Any]:
        """Do something in the job's context."""


class Call(NamedTuple):
    """What a message asks for."""

    name: str = UNKNOWN
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012 - never changed
    tries: int | None = None
    enqueued_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class FunctionSettings:
    """The arguments of ``arq.Worker`` that are about functions, under arq's names."""

    queue_name: str
    max_tries: int
    job_timeout_s: float
    keep_result_s: float
    keep_result_forever: bool
    retry_jobs: bool
    allow_abort_jobs: bool
    on_job_start: Hook | None = None
    on_job_end: Hook | None = None
    after_job_end: Hook | None = None
    job_serializer: Callable[[dict[str, Any]], bytes] | None = None
    job_deserializer: Callable[[bytes], dict[str, Any]] | None = None
    ctx: dict[Any, Any] = field(default_factory=dict)

    records: FunctionRecords | None = None
    """Where their ends are recorded, if there is a ledger."""


class Functions:
    """Runs functions and cron jobs."""

    def __init__(self, functions: Mapping[str, Function | CronJob], settings: FunctionSettings) -> None:
        """Run these."""
        self.by_name = functions
        self.settings = settings

    def open(self, claim: Claim) -> "FunctionJob":
        """Read a claimed job."""
        return FunctionJob(self, claim)

    def max_batch(self, _kind: str) -> int:
        """Return 1: no function takes several jobs."""
        return 1

    def spread(self, _kind: str) -> float:
        """Return 0: no function runs together with another."""
        return 0

    async def run_together(self, jobs: Sequence[Any]) -> Sequence[Outcome | Again]:
        """Let each run by itself."""
        return [Again.ALONE] * len(jobs)

    async def disconnect(self, task: Any) -> None:  # noqa: ANN401 - asyncio.Task of anything
        """Do nothing: a function has what it has opened."""


class FunctionJob:
    """One attempt of one job."""

    kind = None
    permits = ()

    def __init__(self, work: Functions, claim: Claim) -> None:
        """Read the message; whatever is wrong with it is the job's outcome later."""
        self.claim = claim
        self._settings = work.settings
        self.is_aborted = claim.is_aborted and work.settings.allow_abort_jobs
        self.can_be_aborted = False
        self.context = copy_context()
        self._trouble: Exception | None = None
        self.call = Call()
        try:
            self.call = self._read()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the message: this job's trouble
            self._trouble = error
        self._function = work.by_name.get(self.call.name)
        # As in arq, the count in Redis goes on from the number that the producer has set, in workers of both kinds.
        self._attempt = max(claim.attempt, (self.call.tries or 0) + claim.was_left)
        self.claim = claim._replace(attempt=self._attempt)
        self._started_ms = now_ms()
        self._has_begun = False
        self._failure: Failure | None = None
        self._id = claim.id.decode("utf-8", "replace")
        self._opened_ms = self._started_ms
        self._bound_log: structlog.stdlib.BoundLogger | None = None
        self._ctx = {**work.settings.ctx, "job_id": self._id, "job_try": self._attempt}

    @property
    def _log(self) -> structlog.stdlib.BoundLogger:
        if self._bound_log is None:
            shown = self._id if self._id.isprintable() else self.claim.job_id
            self._bound_log = _log.bind(
                job_id=shown[:_MOST_SHOWN],
                job_name=self.name,
                attempt=self._attempt,
                waited_ms=self.claim.waited_ms(self._opened_ms),
            )
        return self._bound_log

    @property
    def name(self) -> str:
        """The function's name as it can be logged and stored: a message may have any."""
        return storable(self.call.name[:LONGEST_NAME])

    @property
    def label(self) -> str:
        """The function's name if there is one of that name."""
        return UNKNOWN if self._function is None else self.call.name

    @property
    def limit(self) -> timedelta:
        """The function's timeout, and the time to record its end."""
        seconds = self._timeout_s
        limit = _FAR if seconds is None else timedelta(seconds=seconds)
        return limit if self._settings.records is None else limit + PATIENCE

    @property
    def _timeout_s(self) -> float | None:
        own = None if self._function is None else self._function.timeout_s
        return self._settings.job_timeout_s if own is None else own

    @property
    def held(self) -> timedelta | None:
        """A cron job's id stays locked, so that no other worker runs the same one again."""
        seconds = arq.worker.keep_cronjob_progress  # type: ignore[attr-defined] # where arq reads it, too
        return timedelta(seconds=seconds) if isinstance(self._function, CronJob) else None

    @property
    def has_hook(self) -> bool:
        """Whether the last hook is to be called."""
        return self._has_begun and self._settings.after_job_end is not None

    @property
    def _limit(self) -> int:
        own = None if self._function is None else self._function.max_tries
        return self._settings.max_tries if own is None else own

    @property
    def _counted(self) -> int:
        return self._attempt - self.claim.excused

    def _read(self) -> Call:
        claim, deserializer = self.claim, self._settings.job_deserializer
        if claim.trouble is not None:
            raise JobExecutionFailed(f"the job's message in Redis is unusable: {claim.trouble}")
        if claim.message is None:
            raise JobExecutionFailed("job expired")
        try:
            name, args, kwargs, tries, enqueued_ms = deserialize_job_raw(claim.message, deserializer=deserializer)
        except Exception as error:
            if deserializer in {decode, decode_undecided} and claim.message.startswith(PICKLE):
                raise PickleError(_PICKLED) from error
            raise
        is_time = isinstance(enqueued_ms, int) and 0 <= enqueued_ms <= LATEST_MS
        if not isinstance(name, str) or not isinstance(kwargs, dict) or not is_time:
            expected = "f is to be a string, k an object, et a time in ms since 1970"
            raise JobExecutionFailed(f"the message is none of arq's: {expected}")
        tries = min(tries, MOST_TRIES) if isinstance(tries, int) else None
        return Call(name, tuple(args), kwargs, tries, enqueued_ms)

    @property
    def is_undecided(self) -> bool:
        """Whether the message is a pickle, and the service has not said that it reads none."""
        return isinstance(self._trouble, PickleError) and self._settings.job_deserializer is decode_undecided

    @property
    def is_foreign(self) -> bool:
        """Whether the message is no JSON, and the service's own deserializer is what reads it."""
        message = self.claim.message or b"{"
        if isinstance(self._trouble, PickleError) or message.lstrip().startswith(b"{"):
            return False
        return self._trouble is None or message.startswith(PICKLE)

    async def run(self) -> Outcome:
        """Run one attempt, with the hooks around it, unless its success is on record."""
        run = self._run_on_record()
        return await traced_function(run, self.claim, job_id=self._id, name=self.label, attempt=self._attempt)

    async def _run_on_record(self) -> Outcome:
        records = self._settings.records
        if records is not None and (answer := await self._answer_on_record(records)) is not None:
            return answer
        return await self._on_record(await self._run())

    async def _answer_on_record(self, records: FunctionRecords) -> Outcome | None:
        if self.claim.message is None:
            return None
        try:
            success = await records.success_of(self.claim)
        except LedgerAwayError:
            return Postponed(AFTER_OUTAGE, counts=False)
        if success is None:
            return None
        return self._answered(records, success)

    def _answered(self, records: FunctionRecords, success: Success) -> Ended:
        self._log.info("job has succeeded before: its receipt answers")
        records.answered += 1
        return Ended(succeeded=True, result=success.result, keep=self._keep(self._function), is_fenced=False)

    async def _on_record(self, outcome: Outcome) -> Outcome:
        """Record an end in the ledger, if there is one; return what becomes of the job.

        In an outage a success stands without a record: running again would be worse. A failure is tried again.
        """
        if not isinstance(outcome, Ended):
            return outcome
        duration_ms = now_ms() - self._started_ms
        if (records := self._settings.records) is not None:
            try:
                outcome = await self._record(records, outcome)
            except (LedgerAwayError, asyncio.CancelledError) as error:
                if not outcome.succeeded:
                    if isinstance(error, asyncio.CancelledError):
                        return GivenBack()
                    return Postponed(AFTER_OUTAGE, counts=False)
                self._log.error("a success is not on record: PostgreSQL is away")
        if outcome.succeeded:
            self._log.info("job done", duration_ms=duration_ms)
        if self._failure is not None:
            without_frames(self._failure.error)
            without_frames(self._failure.cause)
        return outcome

    async def _record(self, records: FunctionRecords, outcome: Ended) -> Ended:
        claim, attempt = self.claim, self._attempt
        if outcome.succeeded:
            told = Success(outcome.result)
            told = await records.succeeded(claim, job_name=self.name, attempt=attempt, success=told)
            return outcome._replace(result=told.result)
        if self._failure is not None and claim.message is not None:
            success = await records.failed(claim, self._failure, self._this_run, has_begun=self._has_begun)
            if success is not None:
                return self._answered(records, success)
        return outcome

    async def _run(self) -> Outcome:
        if (refused := self._refusal()) is not None:
            return refused
        self._has_begun = True
        self._ctx["enqueue_time"] = ms_to_datetime(self.call.enqueued_ms)
        self._ctx["score"] = int(max(float(self.claim.score), 0))
        settings = self._settings
        if settings.on_job_start is not None and not await self._hook(settings.on_job_start):
            if self._counted < self._limit:
                return Postponed(backoff(self._attempt), expires=True)
            return self._failed_for_good(JobExecutionFailed("the hook on_job_start failed"))
        try:
            return await self._attempt_once()
        finally:  # at the worker's end, too, as in arq: whatever the first hook has opened, this one closes
            if settings.on_job_end is not None:
                await self._hook(settings.on_job_end)

    def _refusal(self) -> Outcome | None:
        """Return the end of a job that cannot be run, ``None`` if it can be."""
        if isinstance(self._trouble, PickleError):
            self._log_of_service().error("a pickle is put back", reason=str(self._trouble))
            return Postponed(_UNTIL_READ, counts=False)
        if self._trouble is not None:
            reason = self._why_refused(self._trouble)
            self._log.warning("job refused", reason=reason)
            return self._refused(self._trouble, MalformedMessageError(reason))
        if self.is_aborted:
            return self._end_aborted()
        if self._function is None:
            self._log.warning("job refused", reason="function not found")
            missing = f"function {self.call.name!r} not found"
            return self._refused(JobExecutionFailed(missing), UnknownJobError(missing[:_MOST_SHOWN]))
        if self._counted > self._limit:
            self._log.warning("job refused", reason="attempts are used up", max_tries=self._limit)
            used_up = f"max {self._limit} retries exceeded"
            return self._refused(JobExecutionFailed(used_up), AttemptsExhaustedError(used_up))
        return None

    def _refused(self, error: Exception, told: Exception) -> Ended:
        self._failure = Failure(told, error)
        return self._end(error, succeeded=False)

    @staticmethod
    def _why_refused(trouble: Exception) -> str:
        if isinstance(trouble, JobExecutionFailed):
            return str(trouble)
        return f"the message cannot be read: {type(trouble).__name__}"

    async def _attempt_once(self) -> Outcome:
        function = self._function
        assert function is not None  # noqa: S101 - or the job would have been refused
        self._started_ms = now_ms()
        self._log.info("job started")
        self.can_be_aborted = self._settings.allow_abort_jobs
        try:
            async with asyncio.timeout(self._timeout_s):
                with CONTAINED:
                    result = await function.coroutine(self._ctx, *self.call.args, **self.call.kwargs)
        except asyncio.CancelledError:
            if not self.is_aborted:
                raise
            return await self.aborted()
        except Exception as error:  # noqa: BLE001 - every failure of the function is an outcome
            return self._failed(error)
        finally:
            self.can_be_aborted = False
        return self._end(result, succeeded=True)

    def _failed(self, error: Exception) -> Outcome:
        """Return what a failure means: another attempt if it is arq's ``Retry``, else the end."""
        if self._settings.retry_jobs and isinstance(error, Retry | RetryJob):
            delay = timedelta(milliseconds=(error.defer_score or 0) if isinstance(error, Retry) else 0)
            self._log.info("job retried", delay_ms=to_ms(delay))
            return self._retried(error, delay)
        # arq runs a function again that cancels itself, too, but at once.
        if self._settings.retry_jobs and isinstance(error, HandlerCancelledError) and self._counted < self._limit:
            self._log.warning("job retried", error=diagnose(error))
            return self._retried(error, backoff(self._attempt))
        return self._failed_for_good(error)

    def _retried(self, error: Exception, delay: timedelta) -> Postponed:
        if (records := self._settings.records) is not None:
            records.retried(self.claim, error, self._this_run, retry_in=delay)
        return Postponed(delay, expires=True)

    @property
    def _this_run(self) -> Run:
        return Run(self.name, self._attempt, self._started_ms)

    def _failed_for_good(self, error: Exception) -> Ended:
        self._log.error("job failed", error=diagnose(error), duration_ms=now_ms() - self._started_ms)
        return self._refused(error, error)

    async def aborted(self) -> Outcome:
        """End the job as aborted."""
        return self._end_aborted()

    def _end_aborted(self) -> Ended:
        self._log.info("job aborted", too_late=False)
        return self._end(asyncio.CancelledError(), succeeded=False)

    async def overdue(self) -> Outcome:
        """End the job as arq ends a late one."""
        return await self._on_record(self._failed(TimeoutError()))

    def interrupted(self, *, is_stopping: bool) -> Outcome:
        """Return the job to the queue at the worker's end: neither a deploy nor an outage is its failure."""
        if not self._settings.retry_jobs:
            return self._end(asyncio.CancelledError(), succeeded=False)
        if not is_stopping:
            return self._failed(cancelled_itself())
        # A function that may run once has run: as in arq, the next worker says so.
        is_used_up = self._has_begun and self._counted >= self._limit
        return Postponed(timedelta(0), expires=True) if is_used_up else GivenBack()

    def broken_off(self, error: Exception) -> Outcome:
        """End the job."""
        return self._failed_for_good(error)

    async def recorded(self) -> None:
        """Call the last hook."""
        if self._settings.after_job_end is not None:
            await self._hook(self._settings.after_job_end)

    async def _hook(self, hook: Hook) -> bool:
        """Call a hook; return whether it succeeded. One that raises ends arq's worker, and leaves its jobs locked."""
        try:
            with CONTAINED:
                await hook(self._ctx)
        except Exception as error:  # noqa: BLE001 - the application's code
            self._log_of_service().error("a hook failed", error=diagnose(error))
            return False
        return True

    def _log_of_service(self) -> structlog.stdlib.BoundLogger:
        return _log_of_service.bind(**structlog.get_context(self._log))

    def _end(self, result: Any, *, succeeded: bool) -> Ended:  # noqa: ANN401 - what a function returns, or an exception
        keep = self._keep(self._function if self._has_begun else None)  # as in arq
        message = None if keep == timedelta(0) else self._serialize(result, succeeded=succeeded)
        if succeeded:
            return Ended(succeeded=True, result=message, keep=keep, is_fenced=False)
        failure = result if self._failure is None else self._failure.error
        is_dead = not isinstance(failure, asyncio.CancelledError)
        return Ended(
            succeeded=False, result=message, keep=keep, is_fenced=False, code=code_of(failure), is_dead=is_dead
        )

    def _keep(self, function: Function | CronJob | None) -> timedelta | None:
        settings = self._settings
        for_ever = None if function is None else function.keep_result_forever
        if settings.keep_result_forever if for_ever is None else for_ever:
            return None
        seconds = None if function is None else function.keep_result_s
        return timedelta(seconds=settings.keep_result_s if seconds is None else seconds)

    def _serialize(self, result: Any, *, succeeded: bool) -> bytes | None:  # noqa: ANN401 - see _end
        call, job_id = self.call, self._id
        return serialize_result(
            call.name,
            call.args,
            call.kwargs,
            self._attempt,
            call.enqueued_ms,
            succeeded,
            result,
            self._started_ms,
            now_ms(),
            f"{job_id}:{call.name}",
            self.claim.queue,
            job_id=job_id,
            serializer=self._serializer(),
        )

    def _serializer(self) -> Callable[[dict[str, Any]], bytes] | None:
        serializer = self._settings.job_serializer
        if (of := getattr(serializer, "of", None)) is not None:  # of a serializer that writes as it was asked
            serializer = of(self.claim.message)
        return None if serializer is None else partial(_write_bytes, serializer)


def _write_bytes(serializer: Callable[[dict[str, Any]], Any], message: dict[str, Any]) -> bytes:
    """Serialize; text, as of ``json.dumps``, is encoded: arq's client does that, and our scripts want bytes."""
    written = serializer(message)
    return written.encode() if isinstance(written, str) else bytes(memoryview(written))
