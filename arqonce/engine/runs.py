"""The runs of a worker: from claimed jobs, through slots, to outcomes that the recorder takes over."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any

import structlog
from redis.exceptions import RedisError

from arqonce.engine.idle import Bell
from arqonce.engine.leases import Claimed
from arqonce.engine.permits import Admission, Applicant
from arqonce.engine.queue import Queue
from arqonce.engine.recorder import Recorder
from arqonce.engine.run import Conclusion, Run, group
from arqonce.engine.slots import Slots
from arqonce.wire.bounds import LONGEST_NAME
from arqonce.work import Again, Claim, GivenBack, Job, Observer, Outcome, Work

_STARTS = Admission.STARTS

_LOOK = timedelta(seconds=1)
"""How often it is checked whether all jobs have ended."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.runs")


@dataclass(frozen=True)
class _Running:
    run: Run
    started: float


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
        self._running: dict[asyncio.Task[Conclusion], _Running] = {}
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        """The task of each running job, by id."""
        self._starting: set[asyncio.Task[int]] = set()
        self.is_stopping = False
        """Whether nothing is to be started any more."""

    @property
    def claims(self) -> Collection[Claim]:
        """The claims of all jobs that are ours."""
        return self.recorder.claims

    def all_claims(self) -> list[Claim]:
        """Return the same; may be called in any thread."""
        return self.recorder.all_claims()

    def longest_limit(self) -> timedelta:
        """Return the longest time that a running job may take; may be called in any thread."""
        return max((found.run.limit for found in self._running.copy().values()), default=timedelta(0))

    def unended_claims(self) -> list[Claim]:
        """Return the claims of all jobs that have not come to an end; may be called in any thread."""
        found = [self.recorder.claim_of(job_id) for job_id in self._unended.copy()]
        return [claim for claim in found if claim is not None]

    async def start(self, claimed: Claimed) -> int:
        """Start the jobs that have a slot and return the rest to the queue; all of them if the worker is stopping.

        Return how many were started.
        """
        jobs = [self._work.open(claim) for claim in claimed.claims if await self._is_new(claim)]
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
            runs, others = await self._admit(runs, others)
        self._give_back(others)
        self._queue(runs)
        self._start_waiting()
        return sum(run.size for run in runs)

    async def _admit(self, runs: Sequence[Run], others: Sequence[Job]) -> tuple[Sequence[Run], Sequence[Job]]:
        """Take permits for the jobs of runs; return what can start, and what is to be given back. The rest is parked.

        Of ``others``, which have no slot, those that could not start are parked as well. One round trip.
        """
        jobs = [job for run in runs for job in run.jobs]
        asked = [Applicant(job.claim, job.permits, has_slot=True) for job in jobs if job.permits]
        asked += [Applicant(job.claim, job.permits, has_slot=False) for job in others if job.permits]
        try:
            answers = await self._leases.take_permits(asked)
        except (RedisError, OSError):  # the main loop hears of it, too
            answers = [Admission.RETURNS] * len(asked)
        found = {one.claim.job_id: answer for one, answer in zip(asked, answers, strict=True)}
        parked = [job for job in (*jobs, *others) if found.get(job.claim.job_id) is Admission.PARKED]
        for job in parked:
            self._unended.discard(job.claim.job_id)
            self.recorder.forget(job)
        if parked:
            self._observer.parked(parked)
        self.slots.parked(len(parked), of=len(jobs) + len(others))
        admitted = [[job for job in run.jobs if found.get(job.claim.job_id, _STARTS) is _STARTS] for run in runs]
        returning = [job for job in jobs if found.get(job.claim.job_id) is Admission.RETURNS]
        returning += [job for job in others if found.get(job.claim.job_id) is not Admission.PARKED]
        return [Run(self._work, starting) for starting in admitted if starting], returning

    async def _is_new(self, claim: Claim) -> bool:
        """Keep the claim; one of our own job whose lease had ended starts nothing: the job runs on under it."""
        earlier = self.recorder.keep(claim)
        if claim.job_id in self._unended:
            with suppress(RedisError, OSError):  # the other claims of this call must not be lost by it
                await self._leases.uncount(claim)
        return earlier is None

    def _start(self, run: Run) -> None:
        self.slots.started(run)
        attempt = self._observer.running(run.attempt(lambda: self.is_stopping))
        task = self._loop.create_task(attempt, context=run.jobs[0].context)
        self._running[task] = _Running(run, self._loop.time())
        for job in run.jobs:
            self.tasks[job.claim.job_id] = task
        task.add_done_callback(self._end)

    def _end(self, task: "asyncio.Task[Conclusion]") -> None:
        found = self._running.get(task)
        if found is None:
            return  # abandoned
        self._free(task)
        if task.cancelled() or task.exception() is not None:  # before its first step, or a fault of ours
            self._conclude(found.run, self._unstarted(found.run, task))
        else:
            self._conclude(found.run, task.result())
        self._start_waiting()
        self._bell.ring()

    def _free(self, task: "asyncio.Task[Conclusion]") -> Run:
        found = self._running.pop(task)
        seconds = self._loop.time() - found.started
        self.slots.ended(found.run, seconds=seconds)
        self._observer.ran(found.run.jobs, seconds)
        for job in found.run.jobs:
            if self.tasks.get(job.claim.job_id) is task:
                del self.tasks[job.claim.job_id]
        return found.run

    def _unstarted(self, run: Run, task: "asyncio.Task[Conclusion]") -> Conclusion:
        if task.cancelled():
            return [(job, job.interrupted(is_stopping=self.is_stopping)) for job in run.jobs]
        error = task.exception()
        return [(job, job.broken_off(RuntimeError(f"{type(error).__name__} in a run"))) for job in run.jobs]

    def _conclude(self, run: Run, conclusion: Conclusion) -> None:
        self._record([(job, answer) for job, answer in conclusion if not isinstance(answer, Again)])
        self._queue(run.again(conclusion))

    def _record(self, ended: Sequence[tuple[Job, Outcome]]) -> None:
        if ended:
            self._observer.concluded(ended)
        for job, outcome in ended:
            self._unended.discard(job.claim.job_id)
            self.recorder.add(job, outcome)

    def _queue(self, runs: Iterable[Run]) -> None:
        """Start runs as soon as there are slots."""
        if self.is_stopping:
            for run in runs:
                self._give_back(run.jobs)
        else:
            self.slots.waiting.extend(runs)

    def _start_waiting(self) -> None:
        while self.slots.waiting and self.slots.free > 0:
            self._start(self.slots.waiting.popleft())

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """Let other runs have the slot of the current one during the block. A cancelled run does not wait for a slot.

        In the block it may only wait: what a slot stands for, such as a connection, is not its own.
        """
        task = asyncio.current_task()
        await self.slots.wait_for_place()
        found = None if task is None else self._running.get(task)
        if found is None:  # it has been abandoned
            self.slots.pass_place()
            yield
            return
        self.slots.step_aside(found.run)
        self._start_waiting()
        self._bell.ring()
        try:
            yield
        except asyncio.CancelledError:
            raise
        except BaseException:
            await self.slots.step_back(found.run)
            raise
        await self.slots.step_back(found.run)

    def _start_anew(self, claim: Claim) -> None:
        """Start a job claimed again before we heard that our put-back had succeeded."""
        self.recorder.keep(claim)
        self._unended.add(claim.job_id)
        task = self._loop.create_task(self._start_admitted([Run(self._work, [self._work.open(claim)])]), name="anew")
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def abort(self, ids: Collection[bytes]) -> None:
        """Cancel the runs of these jobs, as far as they may be cancelled now."""
        for task, found in list(self._running.items()):
            wanted = [
                job for job in found.run.jobs if job.claim.id in ids and job.can_be_aborted and not job.is_aborted
            ]
            for job in wanted:
                job.is_aborted = True
            if wanted:
                task.cancel()

    def wants_end(self, task: "asyncio.Task[Any] | None") -> bool:
        """Return whether a cancellation of this task comes from the worker: else a job has cancelled itself."""
        if self.is_stopping:
            return True
        found = self._running.get(task) if task is not None else None
        return found is not None and any(job.is_aborted for job in found.run.jobs)

    def ids_of(self, task: "asyncio.Task[Any] | None") -> list[str]:
        """Return the ids of the jobs that the task runs; may be called in any thread."""
        found = self._running.get(task) if task is not None else None
        return [] if found is None else [job.claim.job_id for job in found.run.jobs]

    def shown(self, most: int) -> list[tuple[str, str, float]]:
        """Return id, name and seconds since the start of running jobs, up to so many, the oldest first."""
        now = self._loop.time()
        jobs = ((job, found.started) for found in self._running.values() for job in found.run.jobs)
        return [(job.claim.job_id, job.name[:LONGEST_NAME], now - started) for job, started in islice(jobs, most)]

    def late(self, margin: timedelta) -> list["asyncio.Task[Conclusion]"]:
        """Return the tasks of runs that have taken longer than they may, and this margin."""
        now = self._loop.time()
        return [
            task
            for task, found in self._running.items()
            if timedelta(seconds=now - found.started) > found.run.limit + margin
        ]

    def abandon(self, task: "asyncio.Task[Conclusion]") -> Run | None:
        """Free the slot of a run that does not end, and let nothing count that it still does. Return it."""
        return self._free(task) if task in self._running else None

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
        self._start_waiting()
        self._bell.ring()

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

    def cancel(self) -> None:
        """Cancel all runs."""
        for task in self._running:
            task.cancel()

    def _give_back(self, jobs: Iterable[Job]) -> None:
        self._record([(job, GivenBack()) for job in jobs])

    async def settle(self) -> None:
        """Wait until all jobs have ended and are recorded."""
        while self._unended:
            if self._running:
                await asyncio.wait(set(self._running), timeout=_LOOK.total_seconds())  # one may be abandoned meanwhile
            await asyncio.sleep(0 if self._running else _LOOK.total_seconds() / 10)
        await self.recorder.settle()
