"""Puts attempts of arq's functions into spans, where the process makes spans. Decides nothing.

arq's own ``enqueue_job`` writes no trace context; producers in other languages may.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from arqonce.tracing import active_spans, carrying
from arqonce.tracing.names import ATTEMPT, JOB_NAME, MESSAGE_ID, OUTCOME
from arqonce.wire.codec import decode
from arqonce.wire.trace import NO_TRACE, Carrier, read_trace
from arqonce.work import Claim, Ended, Outcome, Postponed

if TYPE_CHECKING:
    from arqonce.tracing.spans import Spans


def traced_function(
    run: Coroutine[Any, Any, Outcome], claim: Claim, *, job_id: str, name: str, attempt: int
) -> Coroutine[Any, Any, Outcome]:
    """Return the attempt in a span of its own, as those of a registry's jobs are; as it is where none is made."""
    trace = _trace_of(claim.message)
    if (spans := active_spans()) is None:
        return _carried(run, trace) if trace else run
    return _in_span(spans, run, claim, trace, {MESSAGE_ID: job_id, JOB_NAME: name, ATTEMPT: attempt})


def _trace_of(message: bytes | None) -> Carrier:
    if message is None or b'"tc"' not in message:
        return NO_TRACE
    try:
        return read_trace(decode(message).get("tc"))
    except Exception:  # noqa: BLE001 - a message in another format has none, and the job itself says what is wrong
        return NO_TRACE


async def _carried(run: Coroutine[Any, Any, Outcome], trace: Carrier) -> Outcome:
    with carrying(trace):
        return await run


async def _in_span(
    spans: "Spans", run: Coroutine[Any, Any, Outcome], claim: Claim, trace: Carrier, facts: dict[str, str | int]
) -> Outcome:
    with spans.consuming(claim.queue, [trace], facts, is_child=claim.attempt == 1) as span:
        try:
            outcome = await run
        except BaseException:
            span.note(None, {OUTCOME: "interrupted"})
            raise
        how, error_type = _named(outcome)
        span.note(error_type, {OUTCOME: how})
    return outcome


def _named(outcome: Outcome) -> tuple[str, str | None]:
    """Return how an attempt has ended, and ``error.type`` if it was an error: arq's ``Retry`` is none."""
    if isinstance(outcome, Ended):
        if outcome.succeeded:
            return "succeeded", None
        return ("dead", outcome.code) if outcome.is_dead else ("interrupted", None)
    return "retried" if isinstance(outcome, Postponed) else "interrupted", None
