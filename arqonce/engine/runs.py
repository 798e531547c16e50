"""The runs of a worker: from claimed jobs, through slots, to outcomes that the recorder takes over."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from redis.exceptions import RedisError

from arqonce.engine.admission import admit
from arqonce.engine.idle import Bell
from arqonce.engine.queue import Claimed, Queue
from arqonce.engine.recorder import Recorder
from arqonce.engine.run import Conclusion, Run, group
from arqonce.engine.running import Running
from arqonce.engine.slots import Slots
from arqonce.work import Again, Claim, GivenBack, Job, Observer, Outcome, Work

_LOOK = timedelta(seconds=1)
"""How often it is checked whether all jobs have ended."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.runs")


class Runs:
    """Starts what was claimed, as slots become free, and hands over what becomes of it."""

    def __init__(self, work: Work, leases: Queue, slots: Slots[Run], *, bell: Bell, observer: Observer) -> None:
        """Begin with nothing."""
        self._work = work
        self._leases = leases
        self._bell = bell
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self.slots = slots
        self.recorder = Recorder(leases, observer)
        self.recorder.on_claimed_anew = self._start_anew
        self.recorder.on_idle = bell.ring
        self._unended: set[str] = set()
        self.running = Running()
        self._over: list[asyncio.Task[Conclusion]] = []
        self._starting: set[asyncio.Task[int]] = set()
        self.is_stopping = False
        """Whether nothing is to be started any more."""

    @property
    def claims(self) -> Collection[Claim]:
        """The claims of all jobs that are ours."""
        return self.recorder.claims

    def unended_claims(self) -> list[Claim]:
        """Return the claims of all jobs that have not come to an end; may be called in any thread."""
        found = [self.recorder.claim_of(job_id) for job_id in self._unended.copy()]
        return [claim for claim in found if claim is not None]

    async def start(self, claimed: Claimed) -> int:
        """Start the jobs that have a slot and return the rest to the queue; all of them if the worker is stopping.

        Return how many were started.
        """
        jobs = [self._work.open(claim) for claim in await self._keep_new(claimed.claims)]
        self._unended.update(job.claim.job_id for job in jobs)
        if jobs:
            self._observer.claimed(jobs)
        if self.is_stopping:
            self._give_back(jobs)
            return 0
        runs, surplus = self.slots.fit(group(self._work, jobs), is_full=claimed.is_full)
        return await self._start_admitted(runs, [job for run in surplus for job in run.jobs])

    async def _start_admitted(self, runs: Sequence[Run], others: Sequence[Job] = ()) -> int:
        """Start what has its permits, or needs none, and return ``others``, which have no slot, to the queue.

        Return how many were started.
        """
        if any(job.permits for job in (*others, *(job for run in runs for job in run.jobs))):
            runs, others, parked = await admit(self._leases, self._work, runs, others)
            self._forget_parked(parked, of=sum(run.size for run in runs) + len(others) + len(parked))
        self._give_back(others, have_begun=False)
        self._queue(runs)
        self._start_waiting()
        return sum(run.size for run in runs)

    def _forget_parked(self, parked: Sequence[Job], *, of: int) -> None:
        for job in parked:
            claim = self.recorder.claim_of(job.claim.job_id)
            self._unended.discard(job.claim.job_id)
            self.recorder.forget(job)
            if claim is not None and claim is not job.claim:  # due again and claimed before we heard that it was parked
                self._start_anew(claim)
        if parked:
            self._observer.parked(parked)
        self.slots.parked(len(parked), of=of)

    async def _keep_new(self, claims: Iterable[Claim]) -> list[Claim]:
        """Keep claims, and return the new ones. Of a job of ours whose lease had ended, the job runs on under it."""
        new: list[Claim] = []
        for claim in claims:
            if self.recorder.keep(claim) is None:
                new.append(claim)
            if claim.job_id in self._unended:
                with suppress(RedisError, OSError):  # the other claims of this call must not be lost by it
                    await self._leases.uncount(claim)
        return new

    def _start(self, run: Run) -> None:
        self.slots.started(run)
        attempt = self._observer.running(run.attempt(self._wants_stop))
        task = self._loop.create_task(attempt, context=run.jobs[0].context)
        self.running.add(task, run)
        task.add_done_callback(self._note_end)

    def _wants_stop(self) -> bool:
        return self.is_stopping

    def _note_end(self, task: "asyncio.Task[Conclusion]") -> None:
        """Let all runs that end in one turn of the loop be concluded together."""
        self._over.append(task)
        if len(self._over) == 1:
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        tasks, self._over = self._over, []
        ended: list[tuple[Job, Outcome]] = []
        for task in tasks:
            if task in self.running:  # else it is abandoned
                run = self._free(task)
                conclusion = self._conclusion(run, task)
                ended += [(job, answer) for job, answer in conclusion if not isinstance(answer, Again)]
                self._queue(run.again(conclusion))
        self._record(ended)
        self.use_free_slots()

    def _free(self, task: "asyncio.Task[Conclusion]") -> Run:
        run, seconds = self.running.remove(task)
        self.slots.ended(run, seconds=seconds)
        self._observer.ran(run.jobs, seconds)
        return run

    def _conclusion(self, run: Run, task: "asyncio.Task[Conclusion]") -> Conclusion:
        if task.cancelled():  # before its first step
            return [(job, job.interrupted(is_stopping=self.is_stopping)) for job in run.jobs]
        if (error := task.exception()) is not None:  # a fault of ours
            return [(job, job.broken_off(RuntimeError(f"{type(error).__name__} in a run"))) for job in run.jobs]
        return task.result()

    def _record(self, ended: Sequence[tuple[Job, Outcome]]) -> None:
        if not ended:
            return
        self._observer.concluded(ended)
        self._unended.difference_update(job.claim.job_id for job, _ in ended)
        self.recorder.add(ended)

    def _queue(self, runs: Iterable[Run]) -> None:
        """Start runs as soon as there are slots."""
        if self.is_stopping:
            for run in runs:
                self._give_back(run.jobs)
        else:
            self.slots.waiting.extend(runs)

    def use_free_slots(self) -> None:
        """Start what waits for a slot, and let the main loop claim more."""
        self._start_waiting()
        self._bell.ring()

    def _start_waiting(self) -> None:
        while self.slots.waiting and self.slots.free > 0:
            self._start(self.slots.waiting.popleft())

    def _start_anew(self, claim: Claim) -> None:
        """Start a job claimed again before we heard that our put-back had succeeded, or that it was parked."""
        self.recorder.keep(claim)
        self._unended.add(claim.job_id)
        task = self._loop.create_task(self._start_admitted([Run(self._work, [self._work.open(claim)])]), name="anew")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def wants_end(self, task: "asyncio.Task[Any] | None") -> bool:
        """Return whether a cancellation of this task comes from the worker: else a job has cancelled itself."""
        return self.is_stopping or self.running.is_aborted(task)

    def abandon(self, task: "asyncio.Task[Conclusion]") -> Run | None:
        """Free the slot of a run that does not end, and let nothing count that it still does. Return it."""
        return self._free(task) if task in self.running else None

    async def end_abandoned(self, run: Run) -> None:
        """Decide on the jobs of an abandoned run: those of a batch run again in smaller ones."""
        jobs = [job for job in run.jobs if job.claim.job_id in self._unended]
        if run.size > 1:
            anew = [self._work.open(self.recorder.claim_of(job.claim.job_id) or job.claim) for job in jobs]
            self._queue(run.pieces(anew))
        for job in jobs if run.size == 1 else ():
            outcome = await job.overdue()
            if job.claim.job_id in self._unended:
                self._record([(job, outcome)])
        self.use_free_slots()

    def give_back_held(self, tasks: Iterable["asyncio.Task[Any]"]) -> list[str]:
        """Give back the jobs of runs that do not end though they were cancelled; return their ids."""
        runs = [run for task in tasks if (run := self.abandon(task)) is not None]
        jobs = [job for run in runs for job in run.jobs if job.claim.job_id in self._unended]
        self._give_back(jobs)
        return [job.claim.job_id for job in jobs]

    def stop(self) -> None:
        """Start nothing any more, and give back what has no slot yet."""
        self.is_stopping = True
        while self.slots.waiting:
            self._give_back(self.slots.waiting.popleft().jobs)

    def _give_back(self, jobs: Iterable[Job], *, have_begun: bool = True) -> None:
        self._record([(job, GivenBack(have_begun)) for job in jobs])

    async def settle(self) -> None:
        """Wait until all jobs have ended and are recorded."""
        while self._unended:
            if self.running:
                # One may be abandoned meanwhile.
                await asyncio.wait(self.running.all_tasks(), timeout=_LOOK.total_seconds())
            await asyncio.sleep(0 if self.running else _LOOK.total_seconds() / 10)
        await self.recorder.settle()
