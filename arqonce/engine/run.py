"""One attempt of one claimed job, or of several of one kind together, each with its own outcome.

A batch forms of what is claimed together; none waits for company. What one of its jobs does wrong harms no other.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from math import isqrt
from typing import TypeAlias

import structlog

from arqonce.work import Again, Job, Outcome, Work

_SMALL = 8
"""So few jobs that failed together are run one by one."""

Conclusion: TypeAlias = Sequence[tuple[Job, Outcome | Again]]
"""What becomes of each job of a run."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.run")


class Run:
    """One attempt of its jobs."""

    def __init__(self, work: Work, jobs: Sequence[Job], *, is_piece: bool = False) -> None:
        """Take jobs of one kind, or a single one. A piece is what is left of a batch that failed."""
        self._work = work
        self._is_piece = is_piece
        self.jobs = jobs
        kind = jobs[0].kind
        self.spread = 1 if kind is None else work.spread(kind)
        """How many such runs are worth having (``Work.spread``)."""

    @property
    def size(self) -> int:
        """How many jobs it has."""
        return len(self.jobs)

    @property
    def can_join(self) -> bool:
        """Whether its jobs may run together with others."""
        return self.jobs[0].kind is not None

    @property
    def most(self) -> int:
        """How many jobs of its kind may run together."""
        kind = self.jobs[0].kind
        return 1 if kind is None else self._work.max_batch(kind)

    @property
    def limit(self) -> timedelta:
        """How long it may take."""
        return self.jobs[0].limit

    async def attempt(self, is_stopping: Callable[[], bool]) -> Conclusion:
        """Run the jobs. Raises nothing, however often it is cancelled."""
        if self.size > 1:
            return await self._together(is_stopping)
        job = self.jobs[0]
        try:
            outcome = await job.run()
        except asyncio.CancelledError:
            outcome = job.interrupted(is_stopping=is_stopping())
        except Exception as error:  # noqa: BLE001 - this job's trouble
            outcome = job.broken_off(error)
        return [(job, outcome)]

    async def _together(self, is_stopping: Callable[[], bool]) -> Conclusion:
        jobs = self.jobs
        try:
            answers = await self._work.run_together(jobs)
        except TimeoutError:
            answers = [Again.APART] * len(jobs)
        except asyncio.CancelledError:
            return await self._cancelled(is_stopping=is_stopping())
        except Exception:  # noqa: BLE001 - a fault of ours: none of the jobs is lost by it
            _log.exception("a batch broke off: its jobs run one by one")
            answers = [Again.ALONE] * len(jobs)
        return list(zip(jobs, answers, strict=True))

    async def _cancelled(self, *, is_stopping: bool) -> Conclusion:
        """Abort the jobs with a request to abort and run the others again; without one, return all to the queue."""
        if not any(job.is_aborted for job in self.jobs):
            return [(job, job.interrupted(is_stopping=is_stopping)) for job in self.jobs]
        return [(job, await job.aborted() if job.is_aborted else Again.APART) for job in self.jobs]

    def again(self, conclusion: Conclusion) -> list["Run"]:
        """Return the runs of jobs that have to run once more."""
        if not any(isinstance(answer, Again) for _, answer in conclusion):
            return []
        alone = [Run(self._work, [job]) for job, answer in conclusion if answer is Again.ALONE]
        apart = self.pieces([job for job, answer in conclusion if answer is Again.APART])
        later = [job for job, answer in conclusion if answer is Again.LATER]
        return [*alone, *apart, *group(self._work, later)]

    def pieces(self, jobs: Sequence[Job]) -> list["Run"]:
        """Cut jobs that failed together into pieces of the root of their number, and these into single jobs.

        So one guilty job in 500 costs 45 transactions more, and a blocked one delays 22 others, not 499, again.
        """
        if self._is_piece or len(jobs) <= _SMALL:
            return [Run(self._work, [job]) for job in jobs]
        size = isqrt(len(jobs))
        return [Run(self._work, jobs[at : at + size], is_piece=True) for at in range(0, len(jobs), size)]


def group(work: Work, jobs: Iterable[Job]) -> list[Run]:
    """Make a run of each job, and one of all of a queue that can run together; an earlier queue's first."""
    groups: dict[tuple[str | None, str], list[Job]] = {}
    for job in jobs:
        kind = job.kind
        key = (kind, job.claim.job_id if kind is None else job.claim.queue)
        groups.setdefault(key, []).append(job)
    runs = []
    for (kind, _), together in groups.items():
        most = 1 if kind is None else work.max_batch(kind)
        runs += [Run(work, together[at : at + most]) for at in range(0, len(together), most)]
    return runs
