"""The handlers of a registry as the engine's work: each job ends on record, or is tried again.

Knows neither arq nor Redis; what an attempt does is decided in ``attempt`` and ``batch``.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog

from arqonce.backoff import backoff
from arqonce.execution import phases
from arqonce.execution.answers import Answer, Dumped
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.batch import run_batch
from arqonce.execution.containment import cancelled_itself
from arqonce.execution.cut_short import abort, end_overdue
from arqonce.execution.dead_letters import is_dead
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.permits import permits_of
from arqonce.execution.progress import Progress
from arqonce.execution.refusals import GONE, Refused, refuse, refuse_together, why_unknown
from arqonce.execution.together import abort_together
from arqonce.execution.traces import traced_batch
from arqonce.execution.verdict import RetryLater, may_start
from arqonce.failures import (
    InvalidMessageError,
    JobFailedError,
    MalformedMessageError,
    MessageMissingError,
    UnknownJobError,
    code_of,
)
from arqonce.frames import without_frames
from arqonce.spec import Registry
from arqonce.wire.ended import write_result, write_success
from arqonce.wire.keys import ID_RULE, now_ms
from arqonce.wire.message import Message, read_message
from arqonce.work import UNKNOWN, Again, Claim, Ended, GivenBack, Outcome, Permit, Postponed

MARGIN = timedelta(seconds=5)
"""How much longer than its deadline a run may take: for looks, receipts and dead letters."""

_REFUSED, _ABORTED, _OVER = "\0refused", "\0aborted ", "\0over "
"""Kinds of jobs that only end: unreadable; with their names, aborted; and expired or without an attempt left."""

_MOST_REFUSED = 500
"""So many of each are recorded together."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.work")


class RegistryWork:
    """Runs the jobs of a registry."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher, *, keep_result: timedelta) -> None:
        """Results are kept for ``keep_result``; zero keeps none."""
        self.registry = registry
        self.dispatcher = dispatcher
        self._keep = keep_result

    def open(self, claim: Claim, job_class: "type[RegistryJob] | None" = None) -> "RegistryJob":
        """Read a claimed job, as a ``RegistryJob`` or one of this subclass."""
        opened = job_class or RegistryJob
        try:
            message = self._read(claim)
        except JobFailedError as refusal:
            return opened(self, claim, None, refusal)
        return opened(self, claim, message, None)

    def _read(self, claim: Claim) -> Message:
        if claim.is_hostile:
            raise MalformedMessageError(f"{ID_RULE}, and is {claim.id[:100]!a}")
        if claim.trouble is not None:
            raise MalformedMessageError(f"the job's message in Redis is unusable: {claim.trouble}")
        if claim.message is None:
            raise MessageMissingError(GONE)
        try:
            message = read_message(claim.message)
        except InvalidMessageError as error:
            raise MalformedMessageError(str(error)) from error
        except Exception as error:
            raise MalformedMessageError(f"the message cannot be read: {type(error).__name__}") from error
        if message.name not in self.registry.by_name:
            raise UnknownJobError(why_unknown(message.name, self.registry))
        return message

    def max_batch(self, kind: str) -> int:
        """Return how many jobs of this kind may run in one transaction."""
        return _MOST_REFUSED if kind.startswith("\0") else self.most_together(self.registry[kind])

    def most_together(self, spec: AnySpec) -> int:
        """Return how many jobs may run in one transaction; 1 if each needs its own."""
        if spec.shares_transaction:
            return self.dispatcher.paces.of(spec).size
        return 1 if spec.batch is None else spec.max_batch

    def spread(self, kind: str) -> float:
        """Return how many transactions are worth having at once: more than two if handlers in them wait."""
        if kind.startswith("\0") or not (spec := self.registry[kind]).shares_transaction:
            return 0
        return self.dispatcher.paces.of(spec).spread

    async def run_together(self, jobs: Sequence["RegistryJob"]) -> Sequence[Outcome | Again]:
        """Run one attempt of several jobs in one transaction."""
        if jobs[0].kind == _REFUSED:
            return await self._refuse_together(jobs)
        spec = jobs[0].spec
        started_ms = now_ms()
        for job in jobs:
            job.started_ms = started_ms
        async with asyncio.timeout((spec.deadline + MARGIN).total_seconds()):
            deliveries = [job.delivery for job in jobs]
            run = abort_together if jobs[0].claim.is_aborted else run_batch
            answers = await traced_batch(run(self.dispatcher, spec, deliveries), spec, deliveries)
        return [self._outcome(job, answer) for job, answer in zip(jobs, answers, strict=True)]

    async def _refuse_together(self, jobs: Sequence["RegistryJob"]) -> Sequence[Outcome | Again]:
        """Record why these cannot be run; what has an id that is known already is looked at alone."""
        try:
            async with asyncio.timeout(MARGIN.total_seconds()):
                recorded = await refuse_together(self.dispatcher, [job.refused for job in jobs])
        except RetryLater as later:
            return [postponed(later)] * len(jobs)
        return [job.ended(job.refused.failure) if job.claim.job_id in recorded else Again.ALONE for job in jobs]

    def _outcome(self, job: "RegistryJob", answer: Answer | RetryLater | Again) -> Outcome | Again:
        if isinstance(answer, Answer):
            return job.ended(answer.end, answer.tag)
        return postponed(answer) if isinstance(answer, RetryLater) else answer

    async def disconnect(self, task: "asyncio.Task[Any]") -> None:
        """End the connection of a task that does not end: it cannot commit."""
        await self.dispatcher.abandoned.disconnect(task)

    def end(self, result: bytes, failure: BaseException | None) -> Ended:
        """Return the end of a job with the message of its result."""
        kept = result if self._keep else None
        if failure is None:
            return Ended(succeeded=True, result=kept, keep=self._keep)
        dead = isinstance(failure, Exception) and is_dead(failure)
        return Ended(succeeded=False, result=kept, keep=self._keep, code=code_of(failure), is_dead=dead)


class RegistryJob:
    """One attempt of one job."""

    held = None
    has_hook = False
    context = None
    spec: AnySpec
    """The job's spec; only of jobs that could be read."""
    permits: Sequence[Permit] = ()
    """What it needs of its kind's limits; nothing if it can only end: refused, aborted or expired."""

    def __init__(
        self, work: RegistryWork, claim: Claim, message: Message | None, refusal: JobFailedError | None
    ) -> None:
        """Take what was read, or why it could not be: exactly one of the two."""
        self.claim = claim
        self.is_aborted = claim.is_aborted
        self.started_ms = now_ms()
        self._work = work
        self._message = message
        self._refusal = refusal
        self.can_be_aborted = message is not None
        self.name = self.label = UNKNOWN if message is None else message.name
        """The job's name, one of the registry's, if the message could be read."""
        self._attempt = claim.attempt
        if message is not None:
            self.spec = work.registry.by_name[message.name]
            self._attempt = max(claim.attempt, message.tries or 0)
            if self.spec.limits and not (self.is_aborted or self.delivery.has_expired):
                self.permits = permits_of(self.spec, message.args, message.kwargs)

    @property
    def kind(self) -> str | None:
        """The name of jobs that may run together; other names for jobs that only end; ``None``: alone."""
        if self._message is None:
            return None if self.is_aborted else _REFUSED
        if self.is_aborted:
            return _ABORTED + self.spec.name if self.claim.is_aborted else None
        if self._work.most_together(self.spec) > 1:
            return self.spec.name
        is_used_up = self.claim.was_left and not may_start(self.spec, self.delivery)
        is_over = is_used_up or (self._message.expires_ms is not None and self.delivery.has_expired)
        return _OVER + self.spec.name if is_over else None

    @property
    def limit(self) -> timedelta:
        """How long it may take to end on record."""
        return MARGIN if self._message is None else phases.longest_run(self.spec) + MARGIN

    @property
    def delivery(self) -> Delivery:
        """The job as it came from the queue."""
        message, claim = self._message, self.claim
        assert message is not None  # noqa: S101 - asked for of jobs that could be read
        expires_ms = None if message.expires_ms is None else message.expires_ms - claim.offset_ms
        return Delivery(
            claim.job_id, self._attempt, message.args, message.kwargs, claim.was_left, claim.excused,
            claim.waited_ms(self.started_ms), claim.queue, expires_ms, message.parent, message.enqueued_ms,
            message.trace,
        )  # fmt: skip

    @property
    def refused(self) -> Refused:
        """The job as one that cannot be run."""
        assert self._refusal is not None  # noqa: S101 - asked for of jobs that could not be read
        claim = self.claim
        return Refused(self._refusal, claim.job_id, claim.message or b"", self._attempt, claim.queue)

    async def run(self) -> Outcome:
        """Run one attempt, which ends on record or is to be repeated."""
        self.started_ms = now_ms()
        if self._refusal is not None:
            return await self._refuse()
        if self.is_aborted:
            return await self.aborted()
        dispatcher, spec, progress = self._work.dispatcher, self.spec, Progress()
        try:
            answer = await phases.run(dispatcher, spec, self.delivery, progress)
            if spec.shares_transaction:
                dispatcher.paces.of(spec).alone(seconds=time.monotonic() - progress.started)
            return self.ended(answer, progress.tag)
        except asyncio.CancelledError:
            if not self.is_aborted:
                raise
            return await self.aborted()  # type: ignore[unreachable] # the engine sets it meanwhile
        except RetryLater as later:
            return postponed(later)
        except Exception as error:  # noqa: BLE001 - dispatch has recorded it: the job's end
            return self.ended(error, progress.tag)

    async def _refuse(self) -> Outcome:
        """Record why the job cannot be run, or answer as it has ended before."""
        try:
            answer = await refuse(self._work.dispatcher, self.refused)
        except RetryLater as later:
            return postponed(later)
        except JobFailedError as error:
            return self.ended(error)
        return self.ended(answer)

    async def aborted(self) -> Outcome:
        """End the job as aborted, on record; it may have ended otherwise before the abort reached it.

        What cannot be recorded is tried again: the claim of that attempt says that the job is aborted.
        """
        progress = Progress()
        try:
            answer = await abort(self._work.dispatcher, self.spec, self.delivery, progress)
        except RetryLater as later:
            return postponed(later)
        except Exception as earlier:  # noqa: BLE001 - how it had ended
            return self.ended(earlier, progress.tag)
        _log.info("job aborted", job_id=self.claim.job_id, too_late=answer is not None)
        return self.ended(asyncio.CancelledError() if answer is None else answer, progress.tag)

    async def overdue(self) -> Outcome:
        """Decide on the job although its handler goes on after its deadline."""
        progress = Progress(started=time.monotonic() - (now_ms() - self.started_ms) / 1000)
        try:
            answer = await end_overdue(self._work.dispatcher, self.spec, self.delivery, progress)
            return self.ended(answer, progress.tag)
        except RetryLater as later:
            return postponed(later)
        except Exception as error:  # noqa: BLE001 - it is dead, on record
            return self.ended(error, progress.tag)

    def interrupted(self, *, is_stopping: bool) -> Outcome:
        """Return the job to the queue at the worker's end; else it has cancelled itself, outside of its handler."""
        return GivenBack() if is_stopping else self.broken_off(cancelled_itself())

    def broken_off(self, error: Exception) -> Outcome:
        """Run the job again: nothing is recorded that could be its end."""
        _log.error("a run broke off: the job runs again", job_id=self.claim.job_id, exc_info=error)
        return Postponed(backoff(self._attempt))

    def ended(self, answer: dict[str, Any] | Dumped | BaseException, tag: str | None = None) -> Ended:
        """Return the job's end with its result, or its failure as producers can read it, and the request's tag."""
        claim, failure = self.claim, without_frames(answer) if isinstance(answer, BaseException) else None
        facts: dict[str, Any] = {
            "job_id": claim.job_id, "attempt": self._attempt, "started_ms": self.started_ms, "queue": claim.queue,
            "enqueued_ms": 0 if self._message is None else self._message.enqueued_ms, "tag": tag,
        }  # fmt: skip
        if isinstance(answer, Dumped):
            return self._work.end(write_success(self.name, answer.text, **facts), None)
        return self._work.end(write_result(self.name, answer, succeeded=failure is None, **facts), failure)

    async def recorded(self) -> None:
        """Do nothing."""


def postponed(later: RetryLater) -> Postponed:
    """Return the outcome of an attempt that is to be repeated."""
    return Postponed(without_frames(later).delay, counts=later.counts)
