"""Ends attempts that do not end: a handler that swallows its cancellation holds its slot for ever.

Python cannot end a coroutine. So its slot is freed and its connection is ended: it cannot commit any more, and whatever
it still does counts for nothing.
"""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog

from arqonce.engine.batch_run import BatchRun
from arqonce.engine.job_run import JobRun

if TYPE_CHECKING:
    from arqonce.engine.consumer import UsersWorker

_MARGIN = timedelta(seconds=5)
"""How long after its time limit a run may take to record how it has ended."""

_LOOK = timedelta(seconds=1)

_LOOKS = 5
"""So many looks find a run overdue before it is abandoned: a loop that stood still looks late, and only once."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.overdue")


async def end_overdue_runs(worker: "UsersWorker") -> None:
    """Look for overdue runs until cancelled."""
    seen: Counter[asyncio.Task[None]] = Counter()
    while True:
        await asyncio.sleep(_LOOK.total_seconds())
        late = worker.runs.late(_MARGIN)
        seen = Counter({task: seen[task] + 1 for task in late})
        for task in [task for task in late if seen[task] >= _LOOKS]:
            await _abandon(worker, task)


async def _abandon(worker: "UsersWorker", task: "asyncio.Task[Any]") -> None:
    run = worker.runs.abandon(task)
    if run is None:
        return
    _log.error(
        "a job swallows its cancellation: its attempt is over, and its transaction is ended",
        job_ids=[job.job_id for job in run.jobs][:20],
        job_name=run.jobs[0].call.name,
        cure="let CancelledError through: it is no Exception, and needs no except clause",
    )
    if (dispatcher := worker.dispatcher) is not None:
        await dispatcher.disconnect(task)
    if isinstance(run, BatchRun):
        worker.runs.start_apart(run)
        return
    assert isinstance(run, JobRun)  # noqa: S101 - the other kind
    worker.runs.conclude_abandoned(run, await run.overdue())
