"""Runs one claimed job as arq does: its function, with arq's context and hooks, and what becomes of it in the queue.

Does what ``arq.Worker.run_job`` documents. Where that dies or loses a job (a hook that raises, keys of a wrong type, a
lost Redis) the job ends or is tried again here.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from arq.constants import keep_cronjob_progress
from arq.cron import CronJob
from arq.jobs import deserialize_job_raw, serialize_result
from arq.utils import ms_to_datetime
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob

from arqonce.arq.functions import ABORT, EXCUSED, OVERDUE, REFUSE, WAS_LEFT, UncountedRetry, refusal_arguments
from arqonce.backoff import backoff
from arqonce.engine.calls import Call, RecordingFunction
from arqonce.engine.leases import Claim, GiveUp, end, give_back, postpone
from arqonce.execution.containment import CONTAINED, HandlerCancelledError, cancelled_itself
from arqonce.failures import JobFailedError, MalformedMessageError, MessageMissingError
from arqonce.wire.keys import ID_RULE, now_ms

if TYPE_CHECKING:
    from arqonce.engine.consumer import UsersWorker

_GONE = (
    "there is no message at arq:job:<id> of this job: it was never written there, it had expired, or somebody has "
    "deleted it"
)

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.job_run")


@dataclass(frozen=True)
class Ended:
    """The job is over."""

    result: Any
    succeeded: bool


@dataclass(frozen=True)
class Postponed:
    """The job is to run again."""

    delay: timedelta
    counts: bool = True


class GivenBack:
    """The job is as if it had not been started."""


Outcome = Ended | Postponed | GivenBack


class Hook(Protocol):
    """One of arq's hooks around a job."""

    def __call__(self, ctx: dict[Any, Any], /) -> Awaitable[Any]:
        """Do something in the job's context."""


class JobRun:
    """One attempt of one job."""

    def __init__(self, worker: "UsersWorker", claim: Claim) -> None:
        """Read the message; whatever is wrong with it is the job's outcome later."""
        self.worker = worker
        self._claim = claim
        self.job_id = claim.job_id
        self._trouble: Exception | None = None
        self.call = Call("<unknown>", (), {}, claim.attempt, 0, claim.excused)
        try:
            self.call = self._read()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the message: this job's trouble
            self._set_trouble(error)
        self.function: Function | CronJob | None = worker.functions.get(self.call.name)
        self.started_ms = now_ms()
        self.has_begun = False
        self.is_abandoned = False
        self.ctx = worker.ctx | {
            "job_id": self.job_id,
            "job_try": self.call.attempt,
            WAS_LEFT: claim.was_left,
            EXCUSED: self.call.excused,
        }

    @property
    def jobs(self) -> Sequence["JobRun"]:
        """The jobs of this run: itself."""
        return (self,)

    @property
    def is_ordinary(self) -> bool:
        """Whether the job is to run its function, and may do so together with others."""
        return self._trouble is None and not self._claim.is_aborted and self.call.counted <= self._limit

    @property
    def _limit(self) -> int:
        own = None if self.function is None else self.function.max_tries
        return self.worker.max_tries if own is None else own

    @property
    def longest_s(self) -> float:
        """How long it may take, in seconds."""
        own = None if self.function is None else self.function.timeout_s
        return float((self.worker.job_timeout_s if own is None else own) or 0)

    async def run(self) -> None:
        """Run the job and hand its outcome to the recorder. When cancelled, return the job to the queue."""
        try:
            outcome = await self._outcome()
        except asyncio.CancelledError as error:
            outcome = self.cancelled(error)
        except Exception as error:  # noqa: BLE001 - this job's trouble
            outcome = self._broken_off(error)
        self.worker.runs.conclude(self, outcome)

    def _broken_off(self, error: Exception) -> Outcome:
        """Say what becomes of a job whose run broke off outside of its function."""
        if not self._keeps_records:
            return Ended(error, succeeded=False)
        _log.error("a run broke off: the job runs again", job_id=self.job_id, exc_info=error)
        return Postponed(backoff(self.call.attempt))

    @property
    def _keeps_records(self) -> bool:
        """Whether jobs of this worker end on record: then nothing but their function ends one."""
        return REFUSE in self.worker.functions

    def _set_trouble(self, error: Exception) -> None:
        """End a job that cannot be read: on record, if the worker keeps records."""
        if self._keeps_records:
            unreadable = MalformedMessageError(f"the message cannot be read: {type(error).__name__}")
            self.call = self._refused(unreadable)
        else:
            self._trouble = error

    def _refused(self, error: JobFailedError) -> Call:
        claim = self._claim
        return Call(REFUSE, refusal_arguments(error, claim.message or b""), {}, claim.attempt, 0, claim.excused)

    def _read(self) -> Call:
        claim, deserializer = self._claim, self.worker.job_deserializer
        if (refusal := self._refusal()) is not None:
            return self._refused(refusal)
        name, args, kwargs, tries, enqueued_ms = deserialize_job_raw(
            claim.message or b"", deserializer=getattr(deserializer, "read_job", deserializer)
        )
        return Call(name, tuple(args), kwargs, max(claim.attempt, tries or 0), enqueued_ms, claim.excused)

    def _refusal(self) -> JobFailedError | None:
        """Return why the job cannot be run, ``None`` if it can be."""
        claim = self._claim
        if claim.is_hostile:
            error: JobFailedError = MalformedMessageError(f"{ID_RULE}, and is {claim.id[:100]!a}")
        elif claim.trouble is not None:
            error = MalformedMessageError(f"the job's message in Redis is unusable: {claim.trouble}")
        elif claim.message is None:
            error = MessageMissingError(_GONE)
        else:
            return None
        if not self._keeps_records:
            raise JobExecutionFailed(error.message)
        return error

    async def _outcome(self) -> Outcome:
        call, worker = self.call, self.worker
        if self._trouble is not None:
            return Ended(self._trouble, succeeded=False)
        if self._claim.is_aborted and call.name != REFUSE:
            return await self.aborted()
        if self.function is None:
            return Ended(JobExecutionFailed(f"function {call.name!r} not found"), succeeded=False)
        if call.counted > self._limit:
            return Ended(JobExecutionFailed(f"max {self._limit} retries exceeded"), succeeded=False)
        if (not_begun := await self.begin()) is not None:
            return not_begun
        outcome = await self._attempt(self.function)
        await self.hook(worker.on_job_end)
        return outcome

    async def begin(self) -> Outcome | None:
        """Complete the context and call the hook, once; return the outcome if the job cannot begin."""
        if self.has_begun:
            return None
        self.has_begun = True
        self.ctx["enqueue_time"] = ms_to_datetime(self.call.enqueued_ms)
        self.ctx["score"] = int(max(float(self._claim.score), 0))
        if await self.hook(self.worker.on_job_start):
            return None
        if self.call.counted < self._limit:
            return Postponed(backoff(self.call.attempt))
        return Ended(JobExecutionFailed("the hook on_job_start failed"), succeeded=False)

    async def _attempt(self, function: Function | CronJob) -> Outcome:
        worker, job_id, call = self.worker, self.job_id, self.call
        timeout_s = self._timeout_of(function)
        self.started_ms = now_ms()
        worker.job_tasks[job_id] = worker.tasks[job_id]
        try:
            async with asyncio.timeout(timeout_s):
                with CONTAINED:
                    result = await function.coroutine(self.ctx, *call.args, **call.kwargs)
        except asyncio.CancelledError as error:
            if job_id not in worker.aborting_tasks or call.name == REFUSE:
                return self.cancelled(error)
        except Exception as error:  # noqa: BLE001 - every failure of the function is an outcome
            return self.failed(error)
        else:
            return Ended(result, succeeded=True)
        finally:
            if not self.is_abandoned:  # else it may be another run's
                worker.job_tasks.pop(job_id, None)
        worker.aborting_tasks.discard(job_id)
        return await self.aborted()

    def _timeout_of(self, function: Function | CronJob) -> float | None:
        """Return arq's time limit; none for a function that ends by itself, on record."""
        if isinstance(function, RecordingFunction):
            return None
        return self.worker.job_timeout_s if function.timeout_s is None else function.timeout_s

    async def overdue(self) -> Outcome:
        """Say what becomes of the job though its run does not end: as at any deadline, on record."""
        recorder = self.worker.functions.get(OVERDUE)
        if recorder is None:
            return self.failed(TimeoutError())  # as arq ends a late job
        try:
            result = await recorder.coroutine(self.ctx, self.call.name, self.call.args, self.call.kwargs)
        except Exception as error:  # noqa: BLE001 - another attempt, or the end
            return self.failed(error)
        return Ended(result, succeeded=True)

    async def aborted(self) -> Outcome:
        """End the job as aborted, on record; it may have ended otherwise before the abort reached it."""
        worker, call = self.worker, self.call
        recorder = worker.functions.get(ABORT)
        result = None
        try:
            if recorder is not None:
                result = await recorder.coroutine(self.ctx, call.name, call.args, call.kwargs)
        except Retry as later:
            await self._ask_abort()
            return self.failed(later)
        except asyncio.CancelledError:
            await self._ask_abort()
            raise
        except Exception as error:  # noqa: BLE001 - how it had ended
            return Ended(error, succeeded=False)
        _log.info("job aborted", job_id=self.job_id, too_late=result is not None)
        if result is None:
            return Ended(self.ctx.get("aborted", asyncio.CancelledError()), succeeded=False)
        return Ended(result, succeeded=True)

    async def _ask_abort(self) -> None:
        """Ask for the abort again, which could not be recorded: the job is to run once more, and must not."""
        await self.worker.until_redis_answers(partial(self.worker.leases.ask_abort, self._claim))

    def failed(self, error: Exception) -> Outcome:
        """Say what a failure means: another attempt if it is arq's ``Retry``, else the end."""
        if self.worker.retry_jobs and isinstance(error, Retry):
            delay = timedelta(milliseconds=error.defer_score or 0)
            return Postponed(delay, counts=not isinstance(error, UncountedRetry))
        if self.worker.retry_jobs and isinstance(error, RetryJob):
            return Postponed(timedelta(0))
        if not self._keeps_records:
            is_early = self.worker.retry_jobs and self.call.counted < self._limit
            if is_early and isinstance(error, HandlerCancelledError):
                return Postponed(backoff(self.call.attempt))  # arq tries it again, too, but at once
            # Ours are logged by dispatch, without people's data.
            _log.error("job failed", job_id=self.job_id, exc_info=error)
        return Ended(error, succeeded=False)

    def cancelled(self, error: asyncio.CancelledError) -> Outcome:
        """Say what it means that the run was cancelled."""
        if not self.worker.retry_jobs:
            return Ended(error, succeeded=False)
        # Neither a deploy nor an outage is a failure of the job; a function that cancels itself is one.
        return GivenBack() if self.worker.is_stopping else self.failed(cancelled_itself())

    async def hook(self, hook: Hook | None) -> bool:
        """Call a hook, and say whether it succeeded. One that raises ends arq's worker, and leaves its jobs locked."""
        if hook is None:
            return True
        try:
            with CONTAINED:
                await hook(self.ctx)
        except Exception as error:  # noqa: BLE001 - the application's code
            _log.error("a hook failed", job_id=self.job_id, exc_info=error)
            return False
        return True

    def give_up(self, outcome: Outcome, claim: Claim) -> GiveUp:
        """Say in the queue's terms what becomes of the job, under the claim that it has by now; it is one attempt."""
        claim = claim._replace(attempt=self._claim.attempt, score=self._claim.score, excused=self._claim.excused)
        held = timedelta(seconds=keep_cronjob_progress) if isinstance(self.function, CronJob) else None
        if isinstance(outcome, GivenBack):
            return give_back(claim)
        if isinstance(outcome, Postponed):
            return postpone(claim, outcome.delay, counts=outcome.counts, held=held)
        keep = self._keep(self.function)
        return end(claim, None if keep == timedelta(0) else self._serialize(outcome), keep=keep, held=held)

    def _keep(self, function: Function | CronJob | None) -> timedelta | None:
        worker = self.worker
        for_ever = function.keep_result_forever if function is not None else None
        if worker.keep_result_forever if for_ever is None else for_ever:
            return None
        seconds = function.keep_result_s if function is not None else None
        return timedelta(seconds=worker.keep_result_s if seconds is None else seconds)

    def _serialize(self, outcome: Ended) -> bytes | None:
        call = self.call
        return serialize_result(
            call.name,
            call.args,
            call.kwargs,
            call.attempt,
            call.enqueued_ms,
            outcome.succeeded,
            outcome.result,
            self.started_ms,
            now_ms(),
            f"{self.job_id}:{call.name}",
            self.worker.queue_name,
            job_id=self.job_id,
            serializer=self.worker.job_serializer,
        )
