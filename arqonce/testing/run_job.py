"""Runs a job as a worker does, in the test's transaction and without Redis; codec, dispatcher and receipts are real."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy import text

from arqonce.execution.answers import Answer
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.batch import run_batch
from arqonce.execution.delivery import Delivery
from arqonce.execution.progress import Progress
from arqonce.execution.refusals import Refused, refuse, why_unknown
from arqonce.execution.verdict import RetryLater
from arqonce.failures import InvalidMessageError, JobFailedError, MalformedMessageError, UnknownJobError
from arqonce.job import RetryAfter
from arqonce.ledger.namespace import text_for
from arqonce.payloads import AnyPayload, Payload
from arqonce.process.loop_watch import BLOCKED, CURE, Standstill, watch_loop
from arqonce.resources import Opened, Resource
from arqonce.spec import Registry
from arqonce.testing.failures import shorten
from arqonce.testing.outcomes import Attempt, JobOutcome
from arqonce.testing.recorded import RecordedJob
from arqonce.testing.transaction import Transaction
from arqonce.wire.codec import decode, encode
from arqonce.wire.keys import new_job_id, new_job_ids, now_ms, type_of
from arqonce.wire.message import Message, read_message
from arqonce.wire.request import require_payload, write_job
from arqonce.work import Again

__all__ = ["Attempt", "BlockedLoopWarning", "JobOutcome", "RunJob"]

ResultT = TypeVar("ResultT", bound=BaseModel)
Given = Mapping[Resource[Any], object]
"""What jobs get in place of resources."""

_MOST_DRAINED = 10_000
"""Most jobs that ``drain`` runs: a job may promise itself again and again."""

_PROMISED = text("""
    SELECT job_id, job_name AS name, message, due_at AS due, queue, request_hash FROM arqonce.outbox
    WHERE created_at = now()
        AND (CAST(:mark AS text) IS NULL OR position(convert_to(CAST(:mark AS text), 'UTF8') IN message) > 0)
    ORDER BY due_at, job_id LIMIT :most
""")
"""What the test's transaction has promised: its rows, and no others, have the time at which it began."""

_MOST_ATTEMPTS = 100
"""So often a job may ask for another attempt that does not count: a fake may never stop refusing it."""


class BlockedLoopWarning(RuntimeWarning):
    """A handler has blocked the event loop. In a worker, all other jobs would have waited.

    A warning, so that a developer can use a debugger; ``filterwarnings = ["error"]`` makes it an error.
    """


class _Given(Opened):
    cure = "give run_job something in its place, resources={THE_RESOURCE: a fake}, or what you have opened yourself"


class RunJob:
    """Runs jobs. Created by the fixture ``run_job``."""

    def __init__(self, transaction: Transaction, registry: Registry) -> None:
        """Run the jobs of ``registry`` in this transaction."""
        self.transaction = transaction
        self.registry = registry
        self._dispatcher = Dispatcher(transaction.sessions)
        self._turn = asyncio.Lock()  # there is one connection

    async def __call__(
        self,
        payload: Payload[ResultT],
        *,
        key: str | None = None,
        attempt: int = 1,
        registry: Registry | None = None,
        resources: Given | None = None,
    ) -> ResultT:
        """Run a job with all its attempts, without the pauses between them; return its result.

        ``attempt`` is the number of the first attempt: 2 for a job whose worker has died once. A second call with the
        same ``key`` delivers the same job again, which returns the result from its receipt. ``resources`` are what the
        job gets for those of its registry, none of which is opened: a test must not reach a bank by mistake.

        Raises:
            JobFailedError: the job failed; its cause is the original error.
            TransactionLostError: the deadline passed while PostgreSQL executed a statement.
        """
        __tracebackhide__ = True
        return (await self.outcome(payload, key=key, attempt=attempt, registry=registry, resources=resources)).get()

    async def outcome(
        self,
        payload: Payload[ResultT],
        *,
        key: str | None = None,
        attempt: int = 1,
        registry: Registry | None = None,
        resources: Given | None = None,
    ) -> JobOutcome[ResultT]:
        """Run a job to its end; return its outcome, whether it succeeds or fails."""
        __tracebackhide__ = True
        require_payload(payload)
        message = write_job(payload, enqueued_ms=now_ms())
        outcome = await self.message(message, key=key, attempt=attempt, registry=registry, resources=resources)
        return _for_producer(payload, outcome)

    async def batch(
        self, payloads: Sequence[Payload[ResultT]], *, registry: Registry | None = None, resources: Given | None = None
    ) -> list[JobOutcome[ResultT]]:
        """Run jobs of one kind as one batch, as a worker that has claimed them at once; return each outcome.

        Jobs that cannot end with the batch then run alone, in order.

        Raises:
            TypeError: these are no jobs of one kind, or it has no ``batch``.
        """
        __tracebackhide__ = True
        registry = self._registry(registry)
        spec = registry[_kind(payloads, registry)]
        ids = new_job_ids([None] * len(payloads))
        calls = [decode(write_job(payload, enqueued_ms=now_ms())) for payload in payloads]
        deliveries = [
            Delivery(job_id, 1, (), call["k"], enqueued_ms=call["et"]) for job_id, call in zip(ids, calls, strict=True)
        ]
        if spec.batch is None:
            why = " (here jobs share no transaction)" if spec.shares_transaction else ""
            raise TypeError(f"{spec.name} has no batch: register it with JobSpec(..., batch=){why}")
        async with self._turn, self._shared(resources):
            answers = await run_batch(self._dispatcher, spec, deliveries)
        return [
            await self.outcome(payload, key=job_id, registry=registry, resources=resources)
            if isinstance(answer, Again | RetryLater)
            else _batch_outcome(payload, job_id, answer)
            for payload, job_id, answer in zip(payloads, ids, answers, strict=True)
        ]

    async def message(
        self,
        message: bytes,
        *,
        key: str | None = None,
        attempt: int = 1,
        registry: Registry | None = None,
        resources: Given | None = None,
    ) -> JobOutcome[Any]:
        """Run the job of a message, the value of ``arq:job:<id>`` in Redis, for example one of an older version.

        The result is what a producer would read from Redis, as JSON types.
        """
        __tracebackhide__ = True
        registry = self._registry(registry)
        job_id = new_job_id(key)
        attempts: list[Attempt] = []
        call = _read(message, registry)
        number = attempt if isinstance(call, JobFailedError) else max(attempt, call.tries or 1)
        progress = Progress()
        async with self._turn, self._shared(resources):
            while True:
                run = self._run(registry, job_id, call, number, message=message, progress=progress)
                if (answer := await self._attempt(run, number, attempts)) is not None:
                    break
                asked = attempts[-1].error
                number += not isinstance(asked, RetryAfter) or asked.counts
            mark = f'"p":{to_json(job_id).decode()}'  # as in the messages of its follow-ups, and perhaps elsewhere
            found = await self._promised(mark=mark)
            follow_ups = tuple(job for job in found if read_message(job.message).parent == job_id)
        return replace(_outcome(job_id, answer, attempts, progress.tag), follow_ups=follow_ups)

    def typed(self, outcome: JobOutcome[Any], name: str, *, registry: Registry | None = None) -> JobOutcome[Any]:
        """Return the outcome of a job of this name with its result as the class that the job's payload names."""
        if outcome.result is None:
            return outcome
        payload = self._registry(registry)[name].payload
        return replace(outcome, result=payload.result_type().model_validate(outcome.result))

    def _registry(self, given: Registry | None) -> Registry:
        __tracebackhide__ = True
        if not isinstance(given, Registry | None):
            raise TypeError(f"registry= takes a Registry, such as REGISTRY itself; this is {type_of(given)}")
        return given or self.registry

    async def promised(self) -> list[RecordedJob]:
        """Return the jobs that were promised in the test's transaction, by jobs or by the test, and have not ended.

        In the order of their due times. One round trip.
        """
        return await self._promised()

    async def drain(self, *, registry: Registry | None = None, resources: Given | None = None) -> list[JobOutcome[Any]]:
        """Run all promised jobs, and the jobs that they promise, in the order of due times; return the outcomes.

        Does not wait for due times. Runs all jobs before raising the first failure, if there is one.

        Raises:
            RuntimeError: 10,000 jobs have run, and there is another one.
        """
        __tracebackhide__ = True
        outcomes: list[JobOutcome[Any]] = []
        while waiting := await self._promised(most=1):
            if len(outcomes) >= _MOST_DRAINED:
                raise RuntimeError(f"{len(outcomes):,} jobs have run: does {waiting[0].name} promise itself for ever?")
            message, key = waiting[0].message, waiting[0].job_id
            ended = await self.message(message, key=key, registry=registry, resources=resources)
            outcomes.append(self.typed(ended, waiting[0].name, registry=registry))
        for outcome in outcomes:
            outcome.get()
        return outcomes

    async def _promised(self, *, mark: str | None = None, most: int | None = None) -> list[RecordedJob]:
        """Return the first ``most`` promised jobs whose messages contain ``mark``."""
        session = self.transaction.session
        rows = await session.execute(text_for(session, _PROMISED), {"mark": mark, "most": most})
        return [RecordedJob(**row, is_promised=True) for row in rows.mappings()]

    @asynccontextmanager
    async def _shared(self, resources: Given | None) -> AsyncIterator[None]:
        """Flush the test's session for the job, and refresh it after the job."""
        self._dispatcher.resources = _Given(resources or {})
        await self.transaction.session.flush()
        blocks: list[Standstill] = []
        with watch_loop(blocks.append, [BLOCKED]):
            yield
        for block in blocks:
            text = f"{block.job_name} blocks the event loop for more than {BLOCKED.total_seconds():g} s at {block.at}"
            warnings.warn(f"{text}: {CURE}", BlockedLoopWarning, stacklevel=2)
        self.transaction.require_life()
        await self.transaction.refresh()

    async def _attempt(
        self, run: Coroutine[Any, Any, dict[str, Any]], number: int, attempts: list[Attempt]
    ) -> dict[str, Any] | None:
        """Return the job's end as it is written into Redis; ``None`` if another attempt follows."""
        try:
            result = await run
        except RetryLater as later:
            self.transaction.require_life()
            raised = _raised(later)
            if not (later.counts or isinstance(raised, RetryAfter)):
                raise raised from None  # an outage: a worker would wait until it is over
            if len(attempts) >= _MOST_ATTEMPTS:
                raise RuntimeError(f"the job has asked for another attempt {len(attempts)} times") from raised
            attempts.append(Attempt(number, raised, later.delay))
            return None
        except Exception as error:  # noqa: BLE001 - the end of the job
            attempts.append(Attempt(number, error))
            return {"s": False, "r": error}
        attempts.append(Attempt(number))
        return {"s": True, "r": result}

    async def _run(  # noqa: PLR0913 - what a delivery consists of
        self,
        registry: Registry,
        job_id: str,
        call: Message | JobFailedError,
        number: int,
        *,
        message: bytes,
        progress: Progress,
    ) -> dict[str, Any]:
        if isinstance(call, JobFailedError):
            return await refuse(self._dispatcher, Refused(call, job_id, message, number))
        delivery = Delivery(
            job_id, number, call.args, call.kwargs, expires_ms=call.expires_ms, parent=call.parent,
            enqueued_ms=call.enqueued_ms, trace=call.trace,
        )  # fmt: skip
        return await self._dispatcher.run(registry[call.name], delivery, progress)


def _read(message: bytes, registry: Registry) -> Message | JobFailedError:
    """Read a message as a worker does; return why it cannot be run if it cannot."""
    try:
        call = read_message(message)
    except InvalidMessageError as error:
        return MalformedMessageError(str(error))
    return call if call.name in registry else UnknownJobError(why_unknown(call.name, registry))


def _kind(payloads: Sequence[AnyPayload], registry: Registry) -> str:
    """Return the job's name that all the payloads have."""
    __tracebackhide__ = True
    if not payloads or isinstance(cast("object", payloads), Payload):
        raise TypeError("run_job.batch takes a list of payloads of one kind; run_job takes one payload")
    for payload in payloads:
        require_payload(payload)
    names = dict.fromkeys(payload.job_name for payload in payloads)
    if len(names) > 1:
        raise TypeError(f"a batch has jobs of one kind; these are {', '.join(names)}")
    if (name := payloads[0].job_name) not in registry:
        raise TypeError(why_unknown(name, registry))
    return name


def _batch_outcome(payload: Payload[ResultT], job_id: str, answer: Answer) -> JobOutcome[ResultT]:
    end, tag = answer.value, answer.tag
    error = end if isinstance(end, JobFailedError) else None
    outcome = _outcome(job_id, {"s": error is None, "r": end}, [Attempt(1, error)], tag)
    return _for_producer(payload, outcome)


def _for_producer(payload: Payload[ResultT], outcome: JobOutcome[Any]) -> JobOutcome[ResultT]:
    """Return the outcome with result or failure of the classes that the payload's own module has."""
    result, failure = payload.result_type(), outcome.failure
    if isinstance(failure, JobFailedError):
        told = JobFailedError.from_code(failure.code, failure.message, asked_by=result)
        told.__cause__ = failure.__cause__
        return replace(outcome, failure=told)
    return replace(outcome, result=None if outcome.result is None else result.model_validate(outcome.result))


def _outcome(job_id: str, answer: dict[str, Any], attempts: list[Attempt], tag: str | None) -> JobOutcome[Any]:
    read = decode(encode(answer))["r"]
    if answer["s"]:
        return JobOutcome(job_id, read, None, tuple(attempts), tag)
    shorten(attempts[-1].error or read)
    read.__cause__ = attempts[-1].error
    return JobOutcome(job_id, None, read, tuple(attempts), tag)


def _raised(error: BaseException) -> BaseException:
    """Return the error that the dispatcher has turned into a retry."""
    while isinstance(error, RetryLater) and error.__cause__ is not None:
        error = error.__cause__
    return error
