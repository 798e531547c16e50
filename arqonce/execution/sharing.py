"""Runs jobs one after the other in one transaction, each with a session of its own, its own answer and its receipt.

If one of them fails, all roll back: it runs again in a transaction of its own, where its failure is decided on, and the
others run again without it. So sharing only makes jobs faster and never changes their outcome.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.pipelining import Turn
from arqonce.database.transactions import open_transaction
from arqonce.database.turns import NeverSharedError, SharedTransaction, UnshareableError
from arqonce.execution.answers import Answer, JointOutcome, build_receipt, dump_result
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.containment import CONTAINED, cancelled_itself
from arqonce.execution.dead_letters import is_dead
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.pace import TOGETHER, Pace
from arqonce.execution.traces import traced_turn
from arqonce.failures import JobFailedError, failure_to_wire
from arqonce.ledger.receipts import Receipt, insert_receipts
from arqonce.payloads import AnyPayload
from arqonce.wire.request import request_tag
from arqonce.work import Again

_Job = tuple[Delivery, AnyPayload]

_PATIENCE = timedelta(milliseconds=500)
"""Longest turn of a job. One that takes longer has its own deadline in its own transaction."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.execution.sharing")


class TurnError(Exception):
    """A job has failed in its turn, or cannot share a transaction. Its cause is the job's error."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class TooSlowError(RuntimeError):
    """A job takes too long to share a transaction."""


async def share(dispatcher: Dispatcher, spec: AnySpec, jobs: Sequence[_Job]) -> dict[str, JointOutcome]:
    """Run the jobs in one transaction; those whose turn does not come in time get ``Again.LATER``.

    One round trip more than the handlers make, for all jobs together.

    Raises:
        TurnError: a job must run in a transaction of its own. Nothing was stored.
        Exception: the transaction could not be committed. Nothing was stored, or each job has its receipt.
    """
    pace, turns = dispatcher.paces.of(spec), list[float]()
    on_leak = partial(_log.warning, job_name=spec.name, job_ids=[delivery.job_id for delivery, _ in jobs])
    outcomes: dict[str, JointOutcome] = {}
    receipts: list[Receipt] = []
    shared: SharedTransaction | None = None
    async with open_transaction(
        dispatcher.sessions, lasts=spec.deadline, reads_only=spec.reads_only, on_leak=on_leak
    ) as owner:
        dispatcher.abandoned.note_session(owner)
        connection = await owner.connection()
        began, busy = time.monotonic(), time.thread_time()
        last = began
        for job in jobs:
            job_id = job[0].job_id
            if last - began > TOGETHER.total_seconds():
                outcomes[job_id] = Again.LATER
                continue
            try:
                shared = shared or SharedTransaction(dispatcher.sessions, connection, lasts=spec.deadline)
                turn = _take_turn(dispatcher, spec, shared, job)
                outcomes[job_id], receipt = await traced_turn(turn, job[0])
            except asyncio.CancelledError:
                if dispatcher.is_cancelled():
                    raise
                raise TurnError(job_id) from cancelled_itself()
            except Exception as error:
                _slow_down(pace, len(jobs), error)
                raise TurnError(job_id) from error
            receipts.append(receipt)
            before, last = last, time.monotonic()
            turns.append(last - before)
        await insert_receipts(owner, spec.name, receipts, reads_only=spec.reads_only)
    busy, took = time.thread_time() - busy, time.monotonic() - began
    pace.shared(turns, idle=1 - busy / took if took else 0.0)  # a coarse clock may not have moved
    return outcomes


def _slow_down(pace: Pace, jobs: int, error: Exception) -> None:
    pace.failed(jobs, is_slow=isinstance(error, TooSlowError))
    if isinstance(error, NeverSharedError):
        pace.end()


async def _take_turn(
    dispatcher: Dispatcher, spec: AnySpec, shared: SharedTransaction, job: _Job
) -> tuple[Answer, Receipt]:
    patience = asyncio.timeout(min(_PATIENCE, spec.deadline).total_seconds())
    try:
        async with patience, shared.turn() as (session, turn):
            answer, receipt = await _answer(dispatcher, spec, job, session, turn)
    except TimeoutError as error:
        if patience.expired():
            raise TooSlowError("it takes too long to share a transaction") from error
        raise
    return answer, receipt


async def _answer(
    dispatcher: Dispatcher, spec: AnySpec, job: _Job, session: AsyncSession, turn: Turn
) -> tuple[Answer, Receipt]:
    """Call the handler. A refusal before the job has written anything is an answer; after that the others run again."""
    delivery, payload = job
    context = [dispatcher.context(spec, delivery, lasts=spec.deadline)] if spec.takes_job else []
    with CONTAINED, dispatcher.running(session, spec, delivery):
        try:
            dumped = dump_result(spec, await spec.stores(session, payload, *context))
        except JobFailedError as refusal:
            if refusal.is_fault or is_dead(refusal) or _may_have_written(session, turn):
                raise
            receipt = build_receipt(spec, delivery, payload, failure=failure_to_wire(refusal))
            return Answer(refusal, request_tag(receipt.request_hash)), receipt
        receipt = build_receipt(spec, delivery, payload, dumped=dumped)
        return Answer(dumped, request_tag(receipt.request_hash)), receipt


def _may_have_written(session: AsyncSession, turn: Turn) -> bool:
    return bool(turn.has_written or turn.has_erred or session.new or session.dirty or session.deleted)


def why_apart(error: BaseException) -> str:
    """Say why jobs do not share their transaction, without data."""
    return str(error) if isinstance(error, UnshareableError | TooSlowError) else type(error).__name__
