"""Puts attempts, batches and phases into spans, where the process makes spans. Decides nothing.

Without them each of these functions returns the coroutine as it came.
"""

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from arqonce.database.faults import sqlstate_of
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import JobFailedError
from arqonce.job import RetryAfter
from arqonce.tracing import active_spans, carrying
from arqonce.tracing.names import ATTEMPT, BATCH, JOB_NAME, MESSAGE_ID, OUTCOME
from arqonce.wire.keys import QUEUE
from arqonce.wire.trace import Carrier
from arqonce.work import Again

if TYPE_CHECKING:
    from arqonce.tracing.spans import Spans

T = TypeVar("T")


def traced_attempt(
    attempt: Coroutine[Any, Any, T], spec: AnySpec, delivery: Delivery, queue: str
) -> Coroutine[Any, Any, T]:
    """Return the attempt in a span of its own: in the first one a child of its producer's, later the root of a trace.

    Where no span is made, the follow-ups of the job continue its trace.
    """
    if (spans := active_spans()) is None:
        return _carried(attempt, delivery.trace) if delivery.trace else attempt
    return _attempt(spans, attempt, spec, delivery, delivery.queue or queue)


async def _carried(attempt: Coroutine[Any, Any, T], trace: Carrier) -> T:
    with carrying(trace):
        return await attempt


async def _attempt(spans: "Spans", attempt: Coroutine[Any, Any, T], spec: AnySpec, delivery: Delivery, queue: str) -> T:
    facts: dict[str, str | int] = {MESSAGE_ID: delivery.job_id, JOB_NAME: spec.name, ATTEMPT: delivery.counted}
    with spans.consuming(queue, [delivery.trace], facts, is_child=delivery.attempt == 1) as span:
        try:
            result = await attempt
        except BaseException as error:
            outcome, error_type = _named(error)
            span.note(error_type, {OUTCOME: outcome}, is_fault=outcome != "refused")
            raise
        span.note(None, {OUTCOME: "succeeded"})
    return result


def _named(error: BaseException) -> tuple[str, str | None]:
    """Return how an attempt has ended, and ``error.type``: a code, a SQLSTATE or a class, never a text."""
    if isinstance(error, RetryLater):
        while isinstance(error, RetryLater) and error.__cause__ is not None:
            error = error.__cause__
        return "retried", None if isinstance(error, RetryAfter) else _type_of(error)
    if not isinstance(error, Exception):
        return "interrupted", None
    is_refusal = isinstance(error, JobFailedError) and not error.is_fault
    return "refused" if is_refusal else "dead", _type_of(error)


def _type_of(error: BaseException) -> str:
    if isinstance(error, RetryLater):
        return "database_unavailable"  # an outage, which no error has shown
    return error.code if isinstance(error, JobFailedError) else sqlstate_of(error) or type(error).__qualname__


def traced_batch(
    batch: Coroutine[Any, Any, Sequence[T]], spec: AnySpec, deliveries: Sequence[Delivery]
) -> Coroutine[Any, Any, Sequence[T]]:
    """Return the batch in one span, which is linked to the producers of all its jobs."""
    return batch if (spans := active_spans()) is None else _batch(spans, batch, spec, deliveries)


async def _batch(
    spans: "Spans", batch: Coroutine[Any, Any, Sequence[T]], spec: AnySpec, deliveries: Sequence[Delivery]
) -> Sequence[T]:
    queue = deliveries[0].queue or QUEUE
    facts: dict[str, str | int] = {BATCH: len(deliveries), JOB_NAME: spec.name}
    with spans.consuming(queue, [delivery.trace for delivery in deliveries], facts, is_child=False) as span:
        outcomes = await batch
        if Again.APART in outcomes:
            span.note("batch_failed")  # each of its jobs runs again, in a span that says why
        elif all(isinstance(outcome, RetryLater) for outcome in outcomes):
            span.note("database_unavailable")
    return outcomes


def traced_turn(turn: Coroutine[Any, Any, T], delivery: Delivery) -> Coroutine[Any, Any, T]:
    """Return the turn of one of the jobs that share a transaction: its follow-ups continue its trace.

    Where spans are made, all turns are in the span of their batch, which they continue.
    """
    return _carried(turn, delivery.trace) if delivery.trace and active_spans() is None else turn


def traced_phase(phase: Coroutine[Any, Any, T], name: str, spec: AnySpec) -> Coroutine[Any, Any, T]:
    """Return one of the two phases of a job in a span within its attempt; the attempt of another job as it is."""
    if spec.phases is None or (spans := active_spans()) is None:
        return phase
    return _phase(spans, phase, f"{name} {spec.name}")


async def _phase(spans: "Spans", phase: Coroutine[Any, Any, T], name: str) -> T:
    with spans.inner(name) as span:
        try:
            return await phase
        except Exception as error:
            span.note(None if isinstance(error, RetryAfter) else _type_of(error))
            raise
