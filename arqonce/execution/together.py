"""Ends many jobs of one kind on record at once: ended before, expired, aborted, or without an attempt that is left.

What needs a closer look is left to a run of its own (``record``), which gives the same answer.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog
from pydantic_core import to_json
from sqlalchemy.exc import SQLAlchemyError

from arqonce.execution.answers import Answer, Dumped, JointOutcome, build_receipt
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.containment import CONTAINED
from arqonce.execution.cut_short import was_aborted
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.progress import identified
from arqonce.execution.record import LOOK_LIMIT, another_request
from arqonce.execution.verdict import RetryLater, why_exhausted
from arqonce.failures import AttemptsExhaustedError, JobFailedError, failure_from_wire, failure_to_wire
from arqonce.ledger.dead_jobs import DeadLetter
from arqonce.ledger.receipts import Receipt, insert_receipts
from arqonce.ledger.recorded import ended_jobs
from arqonce.payloads import AnyPayload
from arqonce.wire.arguments import read_payload
from arqonce.wire.request import payload_tag, request_hash, request_tag
from arqonce.work import Again

_Job = tuple[Delivery, AnyPayload]

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.together")


async def answer_ended(dispatcher: Dispatcher, spec: AnySpec, jobs: Sequence[_Job]) -> dict[str, JointOutcome]:
    """Return the answers of the jobs that have a receipt; ``Again.ALONE`` for those that are promised as well.

    One round trip if none has ended, else two; two more if some are other requests than those that have ended.

    Raises:
        SQLAlchemyError, OSError: the database cannot be queried.
        RetryLater: a conflict could not be recorded.
    """
    if not jobs:
        return {}
    async with asyncio.timeout(LOOK_LIMIT.total_seconds()), dispatcher.sessions() as session:
        ended = await ended_jobs(session, [delivery.job_id for delivery, _ in jobs])
    answers: dict[str, JointOutcome] = {}
    others: list[_Job] = []
    for delivery, payload in jobs:
        if (receipt := ended.receipts.get(delivery.job_id)) is None:
            continue
        request = request_hash(payload)
        if delivery.job_id in ended.promised:
            answers[delivery.job_id] = Again.ALONE
        elif receipt.job_name in spec.all_names and receipt.request_hash == request:
            answers[delivery.job_id] = Answer(_told(receipt), request_tag(request))
        else:
            others.append((delivery, payload))
    if number := sum(isinstance(answer, Answer) for answer in answers.values()):
        dispatcher.record.answered += number
        _log.info("jobs had ended before: their receipts answer", job_name=spec.name, jobs=number)
    return answers | await _refuse_others(dispatcher, spec, others)


def _told(receipt: Receipt) -> Dumped | JobFailedError:
    if receipt.result is None:
        return failure_from_wire(receipt.failure)
    return Dumped(to_json(receipt.result).decode(), receipt.result)


async def _refuse_others(dispatcher: Dispatcher, spec: AnySpec, jobs: Sequence[_Job]) -> dict[str, JointOutcome]:
    """Write the dead letters of requests whose ids others have used."""
    if not jobs:
        return {}
    error = another_request()
    letters = {one.job_id: dispatcher.record.letter(spec, one, payload, error, error) for one, payload in jobs}
    recorded = await dispatcher.record.bury_together(list(letters.values()))
    return {
        one.job_id: Answer(error, payload_tag(payload)) if one.job_id in recorded else Again.ALONE
        for one, payload in jobs
    }


async def end_together(
    dispatcher: Dispatcher, spec: AnySpec, jobs: Sequence[_Job], failure: JobFailedError
) -> dict[str, JointOutcome]:
    """Record that the jobs have ended with a failure that is no dead letter, unless they have ended before.

    Raises:
        SQLAlchemyError, OSError: it could not be recorded; or one of them has ended meanwhile.
    """
    outcomes = await answer_ended(dispatcher, spec, jobs)
    told = failure_to_wire(failure)
    left = [job for job in jobs if job[0].job_id not in outcomes]
    receipts = [build_receipt(spec, delivery, payload, failure=told) for delivery, payload in left]
    async with asyncio.timeout(LOOK_LIMIT.total_seconds()), dispatcher.sessions.begin() as session:
        await insert_receipts(session, spec.name, receipts)
    for receipt in receipts:
        outcomes[receipt.job_id] = Answer(failure, request_tag(receipt.request_hash))
    return outcomes


async def exhaust_together(dispatcher: Dispatcher, spec: AnySpec, jobs: Sequence[_Job]) -> dict[str, JointOutcome]:
    """Write the dead letters of jobs that have used up their attempts and have not ended; else ``Again.ALONE``."""
    outcomes: dict[str, JointOutcome] = {delivery.job_id: Again.ALONE for delivery, _ in jobs}
    letters: list[DeadLetter] = []
    ends: dict[str, JointOutcome] = {}
    for delivery, payload in jobs:
        if identified(payload) is None:
            continue
        error = AttemptsExhaustedError(why_exhausted(delivery))
        letters.append(dispatcher.record.letter(spec, delivery, payload, error, error))
        ends[delivery.job_id] = Answer(error, payload_tag(payload))
    with suppress(RetryLater):
        for job_id in await dispatcher.record.bury_together(letters, have_run=True):
            outcomes[job_id] = ends[job_id]
    return outcomes


async def abort_together(dispatcher: Dispatcher, spec: AnySpec, deliveries: Sequence[Delivery]) -> list[JointOutcome]:
    """Record that the jobs were aborted, or return how they have ended before; ``Again.ALONE``: it cannot be read.

    The answer of an aborted job is a ``CancelledError``, as with arq. What cannot be recorded together is left to runs
    of their own.
    """
    outcomes: dict[str, JointOutcome] = {}
    jobs: list[_Job] = []
    for delivery in deliveries:
        try:
            with CONTAINED:
                jobs.append((delivery, read_payload(spec.payload, delivery.args, delivery.kwargs)))
        except Exception:  # noqa: BLE001 - a validator may raise anything; its own run records that
            outcomes[delivery.job_id] = Again.ALONE
    failure = was_aborted()
    try:
        await dispatcher.require_open_gate()
        ended = await end_together(dispatcher, spec, jobs, failure)
    except (RetryLater, SQLAlchemyError, OSError):
        return [Again.ALONE] * len(deliveries)
    for job_id, outcome in ended.items():
        outcomes[job_id] = outcome
        if isinstance(outcome, Answer) and outcome.end is failure:
            outcomes[job_id] = outcome._replace(end=asyncio.CancelledError())
            _log.info("job aborted", job_id=job_id, too_late=False)
    return [outcomes[delivery.job_id] for delivery in deliveries]
