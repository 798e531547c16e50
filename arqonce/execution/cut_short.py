"""Ends jobs whose handler did not: what somebody has aborted, and what goes on after its deadline."""

from typing import Any

import structlog

from arqonce.execution.attempt import Dispatcher
from arqonce.execution.containment import CONTAINED
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.progress import Progress, tag_of
from arqonce.execution.verdict import RetryLater, log_failure
from arqonce.failures import DeadlineExceededError, JobAbortedError, JobFailedError
from arqonce.wire.arguments import read_payload

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.cut_short")


async def abort(
    dispatcher: Dispatcher, spec: AnySpec, delivery: Delivery, progress: Progress | None = None
) -> dict[str, Any] | None:
    """Record that the job was aborted, so that it never runs again; return its result if it had already ended.

    Raises:
        RetryLater: the abort could not be recorded.
        JobFailedError: the job had already failed.
    """
    try:
        with CONTAINED:
            payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
    except Exception:  # noqa: BLE001 - a validator may raise anything
        return await dispatcher.run(spec, delivery, progress)  # records why the job cannot run
    progress = progress or Progress()
    progress.tag = tag_of(payload)
    await dispatcher.require_open_gate()
    try:
        receipt = await dispatcher.record.conclude(spec, delivery, payload, was_aborted())
        return None if receipt is None else await dispatcher.record.replay(spec, delivery, payload, receipt, progress)
    except (JobFailedError, RetryLater):
        raise
    except Exception as error:
        raise await dispatcher.record.again(error, delivery.attempt) from error


def was_aborted() -> JobAbortedError:
    """Return the failure of a job that is aborted."""
    return JobAbortedError("somebody has aborted the job")


async def end_overdue(dispatcher: Dispatcher, spec: AnySpec, delivery: Delivery, progress: Progress) -> dict[str, Any]:
    """Decide what happens to a job whose handler still runs after it was cancelled at its deadline.

    Raises:
        RetryLater: the job has attempts left.
        JobFailedError: it has none left and is dead.
    """
    payload = read_payload(spec.payload, delivery.args, delivery.kwargs)
    deadline = spec.deadline if spec.phases is None else spec.phases.deadline
    message = f"went on after its deadline of {deadline.total_seconds():g} s: it swallows its cancellation"
    error = DeadlineExceededError(f"{message}. Let CancelledError through in the handler")
    decided = await dispatcher.record.settle(spec, delivery, payload, error, progress)
    if isinstance(decided, Exception):
        log_failure(_log.bind(job_id=delivery.job_id, job_name=spec.name), error, decided)
        raise decided
    return decided
