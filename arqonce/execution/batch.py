"""Runs jobs of one kind in one transaction: set-based statements, a receipt and a result for each job.

Jobs whose handlers share a transaction run in the same way, but one after the other (``sharing``). A job that a batch
cannot complete runs again by itself (``Dispatcher.run``), in the same attempt. So a batch handler only makes jobs
faster and never changes their outcome.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.transactions import open_transaction
from arqonce.database.turns import UnshareableError
from arqonce.execution.answers import Answer, JointOutcome, build_receipt, dump_result
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.containment import CONTAINED, cancelled_itself
from arqonce.execution.dead_letters import is_dead
from arqonce.execution.delivery import EXPIRED, AnySpec, Delivery
from arqonce.execution.record import AFTER_OUTAGE
from arqonce.execution.sharing import TurnError, share, why_apart
from arqonce.execution.together import answer_ended, end_together, exhaust_together
from arqonce.execution.verdict import RetryLater, may_start
from arqonce.failures import InvalidPayloadError, JobExpiredError, JobFailedError, failure_to_wire
from arqonce.job import JobContext
from arqonce.ledger.receipts import Receipt, insert_receipts
from arqonce.payloads import AnyPayload
from arqonce.wire.arguments import read_payload
from arqonce.wire.request import request_tag
from arqonce.work import Again

_Job = tuple[Delivery, AnyPayload]
_Invalid = tuple[Delivery, InvalidPayloadError]

_LOCK_LIMIT = timedelta(milliseconds=250)
"""Longest wait of a batch for a lock. After that its jobs run in smaller batches and at last alone, where they wait as
long as any job. So a foreign open transaction delays only the job that needs the locked row."""

_PIECE = timedelta(milliseconds=50)
"""After so much reading of large messages others have a turn: leases are renewed, and probes answered."""

_TOLD = 10
"""Most job ids in the warning that a batch has left something open."""

_WAIT_SHORTLY = text(f"SET LOCAL lock_timeout = {round(_LOCK_LIMIT / timedelta(milliseconds=1))}")

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.batch")


async def run_batch(dispatcher: Dispatcher, spec: AnySpec, deliveries: Sequence[Delivery]) -> list[JointOutcome]:
    """Run one attempt of each job in one transaction, within one job's deadline; return outcomes in the same order.

    Jobs that have expired or used up their attempts, or have an invalid payload or a receipt, get their end. If the
    batch fails, those that have no receipt get ``Again.APART``. In an outage all are retried later and the attempt
    does not count. Three round trips; one more if any job is not in its first attempt, two if any payload is invalid,
    three if any has expired, nine if any has used up its attempts.
    """
    outcomes: dict[str, JointOutcome] = {}
    invalid: list[_Invalid] = []
    jobs = await _read(spec, deliveries, outcomes, invalid)
    expired = [job for job in jobs if job[0].has_expired]
    started = time.monotonic()
    try:
        await dispatcher.require_open_gate()
        outcomes |= await _refuse(dispatcher, spec, invalid)
        if expired:
            outcomes |= await _expire(dispatcher, spec, expired)
        outcomes |= await answer_ended(dispatcher, spec, [job for job in jobs if job[0].attempt > 1])
        used_up = [job for job in jobs if job[0].job_id not in outcomes and not may_start(spec, job[0])]
        outcomes |= await exhaust_together(dispatcher, spec, used_up)
        jobs = [job for job in jobs if job[0].job_id not in outcomes]
        if jobs:
            async with asyncio.timeout(spec.deadline.total_seconds()):
                outcomes |= await (share if spec.shares_transaction else _transact)(dispatcher, spec, jobs)
    except asyncio.CancelledError:
        if dispatcher.is_cancelled():
            raise
        outcomes |= await _failed(dispatcher, spec, jobs, cancelled_itself(), since=started)
    except Exception as error:  # noqa: BLE001 - any error: each job runs again and meets it by itself
        outcomes |= await _failed(dispatcher, spec, jobs, error, since=started)
    else:
        _tell(spec, jobs, outcomes, seconds=time.monotonic() - started)
    return [outcomes[delivery.job_id] for delivery in deliveries]


async def _read(
    spec: AnySpec, deliveries: Sequence[Delivery], outcomes: dict[str, JointOutcome], invalid: list[_Invalid]
) -> list[_Job]:
    jobs, since = [], time.monotonic()
    for delivery in deliveries:
        if time.monotonic() - since > _PIECE.total_seconds():
            await asyncio.sleep(0)
            since = time.monotonic()
        try:
            jobs.append((delivery, read_payload(spec.payload, delivery.args, delivery.kwargs)))
        except InvalidPayloadError as error:
            outcomes[delivery.job_id] = Again.ALONE
            if delivery.attempt == 1:
                invalid.append((delivery, error))
        except BaseException:  # noqa: BLE001 - any error: the job's own run raises it again and records it
            outcomes[delivery.job_id] = Again.ALONE
    return jobs


async def _refuse(dispatcher: Dispatcher, spec: AnySpec, invalid: Sequence[_Invalid]) -> dict[str, JointOutcome]:
    """Write the dead letters of jobs with invalid payloads; those whose ids are known already run alone."""
    if not invalid:
        return {}
    letters = [dispatcher.record.letter(spec, delivery, None, error, error) for delivery, error in invalid]
    recorded = await dispatcher.record.bury_together(letters)
    for delivery, error in invalid:
        if delivery.job_id in recorded:
            _log.warning("job refused", job_id=delivery.job_id, job_name=spec.name, reason=error.code)
    return {delivery.job_id: Answer(error) for delivery, error in invalid if delivery.job_id in recorded}


async def _expire(dispatcher: Dispatcher, spec: AnySpec, jobs: Sequence[_Job]) -> dict[str, JointOutcome]:
    failure = JobExpiredError(EXPIRED)
    outcomes = await end_together(dispatcher, spec, jobs, failure)
    for job_id, outcome in outcomes.items():
        if isinstance(outcome, Answer) and outcome.end is failure:
            _log.info("job refused", job_id=job_id, job_name=spec.name, reason=failure.code)
    return outcomes


async def _transact(dispatcher: Dispatcher, spec: AnySpec, jobs: Sequence[_Job]) -> dict[str, JointOutcome]:
    on_leak = partial(_log.warning, job_name=spec.name, job_ids=[delivery.job_id for delivery, _ in jobs[:_TOLD]])
    async with open_transaction(
        dispatcher.sessions, lasts=spec.deadline, reads_only=spec.reads_only, on_leak=on_leak
    ) as session:
        await session.execute(_WAIT_SHORTLY)
        dispatcher.abandoned.note_session(session)
        contexts = [dispatcher.context(spec, one, lasts=spec.deadline) for one, _ in jobs if spec.batch_takes_jobs]
        with CONTAINED, dispatcher.running(session, spec, jobs[0][0], is_batch=True):
            answers = await call_batch(spec, session, [payload for _, payload in jobs], contexts)
        outcomes: dict[str, JointOutcome] = {}
        receipts: list[Receipt] = []
        for (delivery, payload), answer in zip(jobs, answers, strict=True):
            if not isinstance(answer, JobFailedError):
                dumped = dump_result(spec, answer)
                receipt = build_receipt(spec, delivery, payload, dumped=dumped)
                outcomes[delivery.job_id] = Answer(dumped, request_tag(receipt.request_hash))
            elif is_dead(answer):
                outcomes[delivery.job_id] = Again.ALONE
                continue
            else:
                receipt = build_receipt(spec, delivery, payload, failure=failure_to_wire(answer))
                outcomes[delivery.job_id] = Answer(answer, request_tag(receipt.request_hash))
            receipts.append(receipt)
        await insert_receipts(session, spec.name, receipts, reads_only=spec.reads_only)
    return outcomes


async def call_batch(
    spec: AnySpec, session: AsyncSession, payloads: Sequence[AnyPayload], contexts: Sequence[JobContext] = ()
) -> Sequence[Any]:
    """Call the batch handler, with the contexts if it takes them; return a result or failure for each payload.

    Raises:
        TypeError: the job has no batch handler, or the number of results is not the number of payloads.
    """
    if spec.batch is None:
        raise TypeError(f"{spec.name} has no batch handler: it takes one payload at a time")
    batch: Any = spec.batch
    answers: Sequence[Any] = await (
        batch(session, payloads, contexts) if spec.batch_takes_jobs else batch(session, payloads)
    )
    if len(answers) != len(payloads):
        raise TypeError(f"the batch handler of {spec.name} gave {len(answers)} results for {len(payloads)} payloads")
    return answers


async def _failed(
    dispatcher: Dispatcher, spec: AnySpec, jobs: Sequence[_Job], error: Exception, *, since: float
) -> dict[str, JointOutcome]:
    outcome: JointOutcome = Again.APART
    guilty = error.job_id if isinstance(error, TurnError) else None
    if isinstance(error, TurnError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, RetryLater):
        outcome = error
    elif await dispatcher.gate.explains(error, since=since):
        outcome = RetryLater(AFTER_OUTAGE, counts=False)
        for delivery, _ in jobs:
            dispatcher.history.note(spec, delivery, error, outcome, started=since)
    ended = await _ended(dispatcher, spec, jobs) if outcome is Again.APART else {}
    if len(ended) == len(jobs):
        return ended
    log = _log.bind(job_name=spec.name, jobs=len(jobs))
    if isinstance(outcome, RetryLater):
        log.warning("batch retried: PostgreSQL cannot be used", reason=type(error).__name__)
    elif guilty is not None:
        level = logging.WARNING if isinstance(error, UnshareableError) else logging.INFO
        log.log(level, "jobs cannot share a transaction: they run again", job_id=guilty, reason=why_apart(error))
    else:
        log.warning("batch failed: its jobs run again in smaller ones", reason=type(error).__name__)
    log.debug("why the batch failed", exc_info=error if isinstance(error, SQLAlchemyError) else None)
    outcomes = {delivery.job_id: outcome for delivery, _ in jobs}
    if guilty is not None and outcome is Again.APART:
        outcomes[guilty] = Again.ALONE
    return outcomes | ended


async def _ended(dispatcher: Dispatcher, spec: AnySpec, jobs: Sequence[_Job]) -> dict[str, JointOutcome]:
    """Return the answers of jobs that had ended before, which may be why the batch has failed."""
    try:
        return await answer_ended(dispatcher, spec, jobs)
    except (RetryLater, SQLAlchemyError, OSError):
        return {}  # runs of their own find it out


def _tell(spec: AnySpec, jobs: Sequence[_Job], outcomes: dict[str, JointOutcome], *, seconds: float) -> None:
    """Log one line for the batch and one for each refusal. A line for each job would cost as much as the job."""
    for delivery, _ in jobs:
        outcome = outcomes[delivery.job_id]
        refusal = outcome.end if isinstance(outcome, Answer) else None
        if isinstance(refusal, JobFailedError):
            _log.info(
                "job refused",
                job_id=delivery.job_id,
                job_name=spec.name,
                attempt=delivery.attempt,
                **delivery.waited,
                reason=refusal.code,
            )
    jobs = [job for job in jobs if not isinstance(outcomes[job[0].job_id], Again)]
    if jobs:
        attempt = max(delivery.attempt for delivery, _ in jobs)
        waited = max((delivery.waited_ms or 0 for delivery, _ in jobs), default=0)
        _log.info(
            "batch done",
            job_name=spec.name,
            jobs=len(jobs),
            first_job_id=jobs[0][0].job_id,
            attempt=attempt,
            waited_ms=waited,
            duration_ms=round(seconds * 1000, 1),
        )
        _log.debug("jobs of the batch", job_name=spec.name, job_ids=[delivery.job_id for delivery, _ in jobs])
