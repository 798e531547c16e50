"""Runs one claimed job as arq does: its function, with arq's context and hooks, and what becomes of it in the queue.

Does what ``arq.Worker.run_job`` documents. Where that dies or loses a job (a hook that raises, keys of a wrong type, a
lost Redis) the job ends or is tried again here.
"""

import asyncio
from collections.abc import Awaitable, Callable
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

from jobs.failures import JobFailedError, MalformedMessageError, MessageMissingError
from jobs.wire import ID_RULE, now_ms
from worker.arq_functions import ABORT, REFUSE, UncountedRetry, refusal_arguments
from worker.backoff import backoff
from worker.leases import Claim

if TYPE_CHECKING:
    from worker.consumer import UsersWorker

_GONE = "the job's message is gone from Redis: it had expired, or somebody has deleted it"

_log: structlog.stdlib.BoundLogger = structlog.get_logger("worker.job_run")


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


_GiveUp = Callable[[Claim], Awaitable[bool]]


class _Hook(Protocol):
    def __call__(self, ctx: dict[Any, Any], /) -> Awaitable[Any]: ...


@dataclass(frozen=True)
class _Call:
    """What the message asks for."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempt: int
    enqueued_ms: int


class JobRun:
    """One attempt of one job."""

    def __init__(self, worker: "UsersWorker", claim: Claim) -> None:
        """Prepare the run; nothing is read yet."""
        self._worker = worker
        self._claim = claim
        self._started_ms = now_ms()
        self._ctx = worker.ctx | {"job_id": claim.job_id}

    async def run(self) -> None:
        """Run the job and record its outcome. Cancelled, it gives the job back."""
        call = _Call("<unknown>", (), {}, self._claim.attempt, 0)
        try:
            call = self._read()
            outcome = await self._outcome(call)
        except asyncio.CancelledError as error:
            outcome = self._cancelled(error)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the message or a hook: this job's trouble
            outcome = Ended(error, succeeded=False)
        await asyncio.shield(self._finish(call, outcome))

    def _read(self) -> _Call:
        claim, worker = self._claim, self._worker
        if refusal := self._refusal():
            return _Call(REFUSE, refusal, {}, claim.attempt, 0)
        name, args, kwargs, tries, enqueued_ms = deserialize_job_raw(
            claim.message or b"", deserializer=worker.job_deserializer
        )
        return _Call(name, tuple(args), kwargs, max(claim.attempt, tries or 0), enqueued_ms)

    def _refusal(self) -> tuple[Any, ...] | None:
        """Return the arguments of the function that says why the job cannot be run, ``None`` if it can be."""
        claim = self._claim
        if claim.is_hostile:
            error: JobFailedError = MalformedMessageError(f"{ID_RULE}, and is {claim.id[:100]!a}")
        elif claim.trouble is not None:
            error = MalformedMessageError(f"the job's message in Redis is unusable: {claim.trouble}")
        elif claim.message is None:
            error = MessageMissingError(_GONE)
        else:
            return None
        if REFUSE not in self._worker.functions:
            raise JobExecutionFailed(error.message)
        return refusal_arguments(error, claim.message or b"")

    async def _outcome(self, call: _Call) -> Outcome:
        worker, claim = self._worker, self._claim
        self._ctx["job_try"] = call.attempt
        if claim.is_aborted:
            return await self._aborted(call)
        function = worker.functions.get(call.name)
        if function is None:
            return Ended(JobExecutionFailed(f"function {call.name!r} not found"), succeeded=False)
        limit = worker.max_tries if function.max_tries is None else function.max_tries
        if call.attempt > limit:
            return Ended(JobExecutionFailed(f"max {limit} retries exceeded"), succeeded=False)
        self._ctx |= {
            "enqueue_time": ms_to_datetime(call.enqueued_ms),
            "score": int(max(float(claim.score), 0)),
        }
        if not await self._hook(worker.on_job_start):
            if call.attempt < limit:
                return Postponed(backoff(call.attempt))
            return Ended(JobExecutionFailed("the hook on_job_start failed"), succeeded=False)
        outcome = await self._attempt(function, call)
        await self._hook(worker.on_job_end)
        return outcome

    async def _attempt(self, function: Function | CronJob, call: _Call) -> Outcome:
        worker, job_id = self._worker, self._claim.job_id
        timeout_s = worker.job_timeout_s if function.timeout_s is None else function.timeout_s
        self._started_ms = now_ms()
        worker.job_tasks[job_id] = _current_task()
        try:
            async with asyncio.timeout(timeout_s):
                result = await function.coroutine(self._ctx, *call.args, **call.kwargs)
        except asyncio.CancelledError as error:
            if job_id not in worker.aborting_tasks:
                return self._cancelled(error)
        except Exception as error:  # noqa: BLE001 - every failure of the function is an outcome
            return self._failed(error)
        else:
            return Ended(result, succeeded=True)
        finally:
            worker.job_tasks.pop(job_id, None)
        worker.aborting_tasks.discard(job_id)
        return await self._aborted(call)

    async def _aborted(self, call: _Call) -> Outcome:
        """End the job as aborted, on record; it may have ended otherwise before the abort reached it."""
        worker, claim = self._worker, self._claim
        recorder = worker.functions.get(ABORT)
        result = None
        try:
            if recorder is not None:
                result = await recorder.coroutine(self._ctx, call.name, call.args, call.kwargs)
        except Retry as later:
            await worker.leases.ask_abort(claim)
            return self._failed(later)
        except Exception as error:  # noqa: BLE001 - how it had ended
            return Ended(error, succeeded=False)
        _log.info("job aborted", job_id=claim.job_id, too_late=result is not None)
        return Ended(asyncio.CancelledError(), succeeded=False) if result is None else Ended(result, succeeded=True)

    def _failed(self, error: Exception) -> Outcome:
        if self._worker.retry_jobs and isinstance(error, Retry):
            delay = timedelta(milliseconds=error.defer_score or 0)
            return Postponed(delay, counts=not isinstance(error, UncountedRetry))
        if self._worker.retry_jobs and isinstance(error, RetryJob):
            return Postponed(timedelta(0))
        if REFUSE not in self._worker.functions:
            # Ours are logged by dispatch, without people's data.
            _log.error("job failed", job_id=self._claim.job_id, exc_info=error)
        return Ended(error, succeeded=False)

    def _cancelled(self, error: asyncio.CancelledError) -> Outcome:
        if not self._worker.retry_jobs:
            return Ended(error, succeeded=False)
        # Neither a deploy nor an outage is a failure of the job; a function that cancels itself is one.
        return GivenBack() if self._worker.is_stopping else Postponed(timedelta(0))

    async def _hook(self, hook: _Hook | None) -> bool:
        """Call a hook, and say whether it succeeded. One that raises ends arq's worker, and leaves its jobs locked."""
        if hook is None:
            return True
        try:
            await hook(self._ctx)
        except Exception as error:  # noqa: BLE001 - the application's code
            _log.error("a hook failed", job_id=self._claim.job_id, exc_info=error)
            return False
        return True

    async def _finish(self, call: _Call, outcome: Outcome) -> None:
        worker = self._worker
        function = worker.functions.get(call.name)
        self._count(outcome)
        if not await self._leave(self._give_up(function, call, outcome)):
            _log.warning("the job was no longer ours: another worker has it", job_id=self._claim.job_id)
        await self._hook(worker.after_job_end)

    async def _leave(self, give_up: _GiveUp) -> bool:
        """Give up the job under the claim that it has by now: a lease that ends in an outage of Redis gets a new one.

        With the old one the outcome would be lost, and the job, though it has taken effect, run again.
        """
        while True:
            claim = self._worker.claim_of(self._claim.job_id)
            if await self._worker.until_redis_answers(partial(give_up, claim)):
                return True
            if self._worker.claim_of(self._claim.job_id) is claim:
                return False

    def _give_up(self, function: Function | CronJob | None, call: _Call, outcome: Outcome) -> _GiveUp:
        leases = self._worker.leases
        held = timedelta(seconds=keep_cronjob_progress) if isinstance(function, CronJob) else None
        if isinstance(outcome, GivenBack):
            return leases.give_back
        if isinstance(outcome, Postponed):
            return lambda claim: leases.postpone(claim, outcome.delay, counts=outcome.counts, held=held)
        keep = self._keep(function)
        data = None if keep == timedelta(0) else self._serialize(call, outcome)
        return lambda claim: leases.end(claim, data, keep=keep, held=held)

    def _keep(self, function: Function | CronJob | None) -> timedelta | None:
        worker = self._worker
        for_ever = function.keep_result_forever if function is not None else None
        if worker.keep_result_forever if for_ever is None else for_ever:
            return None
        seconds = function.keep_result_s if function is not None else None
        return timedelta(seconds=worker.keep_result_s if seconds is None else seconds)

    def _serialize(self, call: _Call, outcome: Ended) -> bytes | None:
        return serialize_result(
            call.name,
            call.args,
            call.kwargs,
            call.attempt,
            call.enqueued_ms,
            outcome.succeeded,
            outcome.result,
            self._started_ms,
            now_ms(),
            f"{self._claim.job_id}:{call.name}",
            self._worker.queue_name,
            job_id=self._claim.job_id,
            serializer=self._worker.job_serializer,
        )

    def _count(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Ended):
            self._worker.jobs_retried += 1
        elif outcome.succeeded:
            self._worker.jobs_complete += 1
        else:
            self._worker.jobs_failed += 1


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a job runs in a task of its own")
    return task
