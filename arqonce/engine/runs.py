"""The jobs that are a worker's: from their claim, through slots and runs, until their outcome is recorded."""

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from arqonce.engine.batch_run import BatchRun
from arqonce.engine.job_run import Ended, GivenBack, JobRun, Outcome
from arqonce.engine.leases import Claim, Claimed
from arqonce.engine.recorder import Finisher
from arqonce.engine.slots import Run, Slots

if TYPE_CHECKING:
    from arqonce.engine.consumer import UsersWorker

_LOOK = timedelta(seconds=1)
"""How often it is looked whether all jobs have ended."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.runs")


class Runs:
    """Starts what was claimed, as slots become free, and keeps the claims of all that is not recorded yet."""

    def __init__(self, worker: "UsersWorker") -> None:
        """Begin with nothing."""
        self._worker = worker
        self.slots = Slots(worker.max_jobs)
        self.finisher = Finisher(worker)
        self._claims: dict[str, Claim] = {}
        """All jobs that are ours: waiting for a slot, running, or ended and not recorded yet."""
        self._unended: set[str] = set()
        self._running: dict[asyncio.Task[None], tuple[Run, float]] = {}

    @property
    def claims(self) -> Collection[Claim]:
        """The claims of all jobs that are ours."""
        return self._claims.values()

    def unended_claims(self) -> list[Claim]:
        """Return the claims of all jobs that have not come to an end; may be called in any thread."""
        return [claim for job_id, claim in self._claims.copy().items() if job_id in self._unended]

    @property
    def unended(self) -> int:
        """How many jobs have not come to an end."""
        return len(self._unended)

    def claim_of(self, job_id: str) -> Claim:
        """Return the claim under which the job is ours now."""
        return self._claims[job_id]

    async def start(self, claimed: Claimed) -> None:
        """Start the jobs that have a slot and return the rest to the queue; all of them if the worker is stopping."""
        fresh = [JobRun(self._worker, claim) for claim in claimed.claims if await self._is_new(claim)]
        self._unended.update(job.job_id for job in fresh)
        if self._worker.is_stopping:
            self._give_back(fresh)
            return
        runs, surplus = self.slots.plan(fresh, is_full=claimed.is_full)
        self._give_back(surplus)
        for run in runs:
            self._start(run)

    async def _is_new(self, claim: Claim) -> bool:
        """Keep the claim; one of our own job whose lease had ended starts nothing: the job runs on under it."""
        running = self._claims.get(claim.job_id)
        self._claims[claim.job_id] = claim
        if claim.job_id in self._unended:
            with suppress(RedisError, OSError):  # the other claims of this call must not be lost by it
                await self._worker.leases.uncount(claim)
        return running is None

    def _start(self, run: Run) -> None:
        self.slots.started(run)
        task = self._worker.loop.create_task(run.run())
        self._running[task] = run, self._worker.loop.time()
        for job in run.jobs:
            self._worker.tasks[job.job_id] = task
        task.add_done_callback(self._end)

    def again(self, runs: Iterable[Run]) -> None:
        """Run jobs of a batch again as soon as there is a slot."""
        runs = [run for run in runs if not any(job.is_abandoned for job in run.jobs)]
        if self._worker.is_stopping:
            self._give_back([job for run in runs for job in run.jobs])
        else:
            self.slots.waiting.extend(runs)

    def start_anew(self, claim: Claim) -> None:
        """Start a job claimed again before we heard that our put-back had succeeded."""
        self._claims[claim.job_id] = claim
        self._unended.add(claim.job_id)
        self.again([JobRun(self._worker, claim)])
        self._start_waiting()

    def _end(self, task: "asyncio.Task[None]") -> None:
        if task not in self._running:
            return  # abandoned
        run, started = self._running.pop(task)
        self.slots.ended(run, seconds=self._worker.loop.time() - started)
        tasks = self._worker.tasks
        jobs = [job for job in run.jobs if tasks.get(job.job_id) is task]  # others run again already
        for job in jobs:
            del tasks[job.job_id]
        if task.cancelled() or task.exception() is not None:
            self._leave(jobs, task)
        self._start_waiting()
        self._worker.bell.ring()

    def _start_waiting(self) -> None:
        while self.slots.waiting and self.slots.free > 0:
            self._start(self.slots.waiting.popleft())

    def _leave(self, jobs: Iterable[JobRun], task: "asyncio.Task[None]") -> None:
        """End what a broken run has not: leave it to its lease or, if the run was cancelled, return it to the queue."""
        waiting = {job.job_id for other in self.slots.waiting for job in other.jobs}
        for job in jobs:
            if job.job_id not in self._unended or job.job_id in waiting:
                continue
            if task.cancelled():  # before its first step, or in a hook
                self.conclude(job, job.cancelled(asyncio.CancelledError()))
            else:
                _log.error("a job was left to its lease", job_id=job.job_id, exc_info=task.exception())
                self._unended.discard(job.job_id)
                self.forget(job)

    def conclude(self, job: JobRun, outcome: Outcome) -> None:
        """Count a run that is over, as arq does, and have its outcome recorded; not if it was abandoned."""
        if job.is_abandoned:
            return
        self._count(outcome)
        self._record(job, outcome)

    def _count(self, outcome: Outcome) -> None:
        worker = self._worker
        if not isinstance(outcome, Ended):
            worker.jobs_retried += 1
        elif outcome.succeeded:
            worker.jobs_complete += 1
        else:
            worker.jobs_failed += 1

    def _record(self, job: JobRun, outcome: Outcome) -> None:
        self._unended.discard(job.job_id)
        self._worker.aborting_tasks.discard(job.job_id)  # or it would hit a later job of this id
        self.finisher.add(job, outcome)

    def forget(self, job: JobRun) -> None:
        """Renew the job's lease no more."""
        self._claims.pop(job.job_id, None)
        if self._worker.must_get_idle and not self._claims:
            self._worker.bell.ring()

    def abandon(self, task: "asyncio.Task[None]") -> Run | None:
        """Free the slot of a run that does not end, and let nothing count that it still does. Return it."""
        if task not in self._running:
            return None
        run, started = self._running.pop(task)
        self.slots.ended(run, seconds=self._worker.loop.time() - started)
        for job in run.jobs:
            job.is_abandoned = True
            self._worker.tasks.pop(job.job_id, None)
            self._worker.job_tasks.pop(job.job_id, None)
        return run

    def late(self, margin: timedelta) -> list["asyncio.Task[None]"]:
        """Return the tasks of runs that have taken longer than they may, and this margin."""
        now = self._worker.loop.time() - margin.total_seconds()
        return [task for task, (run, started) in self._running.items() if now - started > run.longest_s]

    def start_apart(self, batch: BatchRun) -> None:
        """Run the jobs of an abandoned batch again, in smaller ones."""
        jobs = [JobRun(self._worker, self.claim_of(job.job_id)) for job in batch.jobs if job.job_id in self._unended]
        self.again(batch.pieces(jobs))
        self._start_waiting()

    def conclude_abandoned(self, job: JobRun, outcome: Outcome) -> None:
        """Record what becomes of a job whose run was abandoned."""
        if job.job_id in self._unended:
            self._count(outcome)
            self._record(job, outcome)
        self._start_waiting()
        self._worker.bell.ring()

    def give_back_held(self, tasks: Iterable["asyncio.Task[None]"]) -> list[str]:
        """Give back the jobs of runs that do not end though they were cancelled; return their ids."""
        runs = [run for task in tasks if (run := self.abandon(task)) is not None]
        jobs = [job for run in runs for job in run.jobs if job.job_id in self._unended]
        for job in jobs:
            self._record(job, GivenBack())
        return [job.job_id for job in jobs]

    def give_back_waiting(self) -> None:
        """Give back what has no slot yet."""
        while self.slots.waiting:
            self._give_back(self.slots.waiting.popleft().jobs)

    def _give_back(self, jobs: Iterable[JobRun]) -> None:
        for job in jobs:
            self._record(job, GivenBack())

    async def settle(self) -> None:
        """Wait until all jobs have ended and are recorded."""
        while self._unended:
            if running := set(self._worker.tasks.values()):
                await asyncio.wait(running, timeout=_LOOK.total_seconds())  # a run may be abandoned meanwhile
            await asyncio.sleep(0 if running else _LOOK.total_seconds() / 10)
        await self.finisher.settle()
