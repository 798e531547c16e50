"""Runs many claimed jobs of one kind together, each with its own outcome. What one of them does wrong harms no other.

A batch forms of what is claimed together; none waits for company. Arq's hooks are called for each job.
"""

import asyncio
from collections.abc import Sequence
from math import isqrt
from typing import TYPE_CHECKING

import structlog

from arqonce.engine.calls import Answer, BatchCall, BatchFunction
from arqonce.engine.job_run import Ended, JobRun, Outcome
from arqonce.execution.again import Again
from arqonce.wire.keys import now_ms

if TYPE_CHECKING:
    from arqonce.engine.consumer import UsersWorker

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.batch_run")

_SMALL = 8
"""So few jobs that failed together are run one by one."""


class BatchRun:
    """One attempt of many jobs of one function."""

    def __init__(
        self, worker: "UsersWorker", function: BatchFunction, jobs: Sequence[JobRun], *, is_piece: bool = False
    ) -> None:
        """Take jobs that are ordinary: read, not aborted, with attempts left. A piece is what is left of a batch."""
        self._worker = worker
        self._function = function
        self._is_piece = is_piece
        self.jobs = jobs

    @property
    def longest_s(self) -> float:
        """How long it may take, in seconds."""
        own = self._function.timeout_s
        return float((self._worker.job_timeout_s if own is None else own) or 0)

    async def run(self) -> None:
        """Run the jobs, and leave their outcomes to be recorded; those without one run again."""
        begun = [job for job in self.jobs if await self._begin(job)]
        try:
            answers = await self._attempt(begun)
        except asyncio.CancelledError as error:
            await self._cancelled(begun, error)
            return
        except Exception:  # noqa: BLE001 - a fault of ours: none of the jobs is lost by it
            _log.exception("a batch broke off: its jobs run one by one")
            answers = [Again.ALONE] * len(begun)
        alone, apart = [], []
        for job, answer in zip(begun, answers, strict=True):
            if answer is Again.ALONE:
                alone.append(job)
            elif answer is Again.APART:
                apart.append(job)
            else:
                outcome = job.failed(answer) if isinstance(answer, Exception) else Ended(answer, succeeded=True)
                await self._end(job, outcome)
        self._worker.runs.again([*alone, *self.pieces(apart)])

    async def _begin(self, job: JobRun) -> bool:
        outcome = await job.begin()
        if outcome is not None:
            self._worker.runs.conclude(job, outcome)
        return outcome is None

    async def _end(self, job: JobRun, outcome: Outcome) -> None:
        if self._worker.on_job_end is not None:
            await job.hook(self._worker.on_job_end)
        self._worker.runs.conclude(job, outcome)

    async def _attempt(self, jobs: Sequence[JobRun]) -> list[Answer]:
        tasks, started_ms = self._worker.job_tasks, now_ms()
        for job in jobs:
            job.started_ms = started_ms
            tasks[job.job_id] = self._worker.tasks[job.job_id]
        try:
            async with asyncio.timeout(self._function.timeout_s):
                calls = [BatchCall(job.job_id, job.call) for job in jobs]
                return await self._function.together(self._worker.ctx, calls)
        except TimeoutError:
            return [Again.APART] * len(jobs)
        finally:
            for job in jobs:
                tasks.pop(job.job_id, None)

    async def _cancelled(self, jobs: Sequence[JobRun], error: asyncio.CancelledError) -> None:
        """Abort the jobs with a request to abort and run the others again; without one, return all to the queue."""
        aborting = self._worker.aborting_tasks
        wanted = [job for job in jobs if job.job_id in aborting]
        if not wanted:
            for job in jobs:
                await self._end(job, job.cancelled(error))
            return
        self._worker.runs.again(self.pieces([job for job in jobs if job.job_id not in aborting]))
        for job in wanted:
            aborting.discard(job.job_id)
            await self._end(job, await job.aborted())

    def pieces(self, jobs: Sequence[JobRun]) -> list["BatchRun | JobRun"]:
        """Cut jobs that failed together into pieces of the root of their number, and these into single jobs.

        So one guilty job in 500 costs 45 transactions more, and a blocked one delays 22 others, not 499, again.
        """
        if self._is_piece or len(jobs) <= _SMALL:
            return list(jobs)
        size = isqrt(len(jobs))
        parts = [jobs[at : at + size] for at in range(0, len(jobs), size)]
        return [BatchRun(self._worker, self._function, part, is_piece=True) for part in parts]
