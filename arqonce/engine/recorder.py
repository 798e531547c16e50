"""Records in the queue what became of jobs: all that have ended meanwhile, in one round trip.

A run only leaves its outcome here and frees its slot, so that the next job does not wait for Redis. The job stays ours,
and its lease is renewed, until its outcome is recorded: in an outage of Redis, for however long that takes.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from arqonce.engine.job_run import Hook, JobRun, Outcome
from arqonce.engine.leases import Claim

if TYPE_CHECKING:
    from arqonce.engine.consumer import UsersWorker

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.recorder")


class Finisher:
    """Ends the jobs of one worker in Redis. One call is under way at a time: what ends meanwhile goes with the next."""

    def __init__(self, worker: "UsersWorker") -> None:
        """Do nothing until the first job has ended."""
        self._worker = worker
        self._ended: list[tuple[JobRun, Outcome]] = []
        self._task: asyncio.Task[None] | None = None
        self._claimed_anew: list[Claim] = []
        self._hooks: set[asyncio.Task[bool]] = set()

    def add(self, job: JobRun, outcome: Outcome) -> None:
        """Take over a job whose run is over."""
        self._ended.append((job, outcome))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="finish")

    async def settle(self) -> None:
        """Wait until all outcomes are recorded, and the last hooks have ended."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        if self._hooks:
            await asyncio.wait(self._hooks)

    def cancel(self) -> None:
        """Abandon unrecorded outcomes: leases expire, jobs run again, receipts answer."""
        if self._task is not None:
            self._task.cancel()
        for hook in self._hooks:
            hook.cancel()

    async def _run(self) -> None:
        while self._ended:
            ended, self._ended = self._ended, []
            await self._record(ended)
            for job, _ in ended:
                self._worker.runs.forget(job)
            while self._claimed_anew:
                self._worker.runs.start_anew(self._claimed_anew.pop())
            if self._worker.after_job_end is not None:
                self._call_hooks([job for job, _ in ended if job.has_begun], self._worker.after_job_end)

    def _call_hooks(self, jobs: list[JobRun], hook: Hook) -> None:
        """Call the last hook of each job beside the next records: a slow one must not hold up other jobs' results."""
        for job in jobs:
            task = asyncio.create_task(job.hook(hook), name="after_job_end")
            self._hooks.add(task)
            task.add_done_callback(self._hooks.discard)

    async def _record(self, ended: list[tuple[JobRun, Outcome]]) -> None:
        try:
            await self._give_up(ended)
        except Exception as error:  # noqa: BLE001 - whatever Redis says: the leases end, the receipts answer
            if len(ended) > 1:  # one of them may be the cause: its neighbours shall not suffer
                for one in ended:
                    await self._record([one])
                return
            _log.error("a job was left to its lease", job_id=ended[0][0].job_id, exc_info=error)

    async def _give_up(self, ended: list[tuple[JobRun, Outcome]]) -> None:
        """Give up each under the claim that it has by now: a lease that ends in an outage of Redis gets a new one.

        With the old one the outcome would be lost, and the job, though it has taken effect, run again.
        """
        worker = self._worker
        while ended:
            claims = [worker.runs.claim_of(job.job_id) for job, _ in ended]
            given = [job.give_up(outcome, claim) for (job, outcome), claim in zip(ended, claims, strict=True)]
            answers = await worker.until_redis_answers(partial(worker.leases.give_up, given))
            ended = self._reclaimed(ended, claims, answers)

    def _reclaimed(
        self, ended: list[tuple[JobRun, Outcome]], claims: list[Claim], answers: list[bool]
    ) -> list[tuple[JobRun, Outcome]]:
        """Return the jobs that got another claim meanwhile; the other refused ones belong to another worker.

        A job that was put back can be claimed anew before the answer is here: nobody has started it yet.
        """
        again: list[tuple[JobRun, Outcome]] = []
        for one, claim, was_ours in zip(ended, claims, answers, strict=True):
            job_id = one[0].job_id
            current = self._worker.runs.claim_of(job_id)
            if was_ours and current is not claim:
                self._claimed_anew.append(current)
            elif was_ours:
                continue
            elif current is claim:
                _log.warning("the job was no longer ours: another worker has it", job_id=job_id)
            else:
                again.append(one)
        return again
