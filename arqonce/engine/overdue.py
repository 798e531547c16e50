"""Ends attempts that do not end: a handler that swallows its cancellation holds its slot for ever.

Python cannot end a coroutine. So its slot is freed and its connection is ended: it cannot commit any more, and whatever
it still does counts for nothing.
"""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import structlog

from arqonce.engine.runs import Runs
from arqonce.work import Work

_MARGIN = timedelta(seconds=5)
"""How long after its time limit a run may take to record how it has ended."""

_LOOK = timedelta(seconds=1)

_LOOKS = 5
"""So many looks find a run overdue before it is abandoned: a loop that stood still looks late, and only once."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.overdue")


async def end_overdue_runs(runs: Runs, work: Work) -> None:
    """Look for overdue runs until cancelled, while any run is under way."""
    seen: Counter[asyncio.Task[Any]] = Counter()
    while True:
        await runs.running.begun()
        await asyncio.sleep(_LOOK.total_seconds())
        late = runs.running.late(_MARGIN)
        seen = Counter({task: seen[task] + 1 for task in late})
        for task in [task for task in late if seen[task] >= _LOOKS]:
            await _abandon(runs, work, task)


async def _abandon(runs: Runs, work: Work, task: "asyncio.Task[Any]") -> None:
    run = runs.abandon(task)
    if run is None:
        return
    _log.error(
        "a job swallows its cancellation: its attempt is over, and its transaction is ended",
        job_ids=[job.claim.job_id for job in run.jobs][:20],
        job_name=run.jobs[0].name,
        cure="let CancelledError through: it is no Exception, and needs no except clause",
    )
    await work.disconnect(task)
    await runs.end_abandoned(run)
