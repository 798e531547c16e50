"""Records in the queue what became of jobs: all that have ended meanwhile, in one round trip.

A run only leaves its outcome here and frees its slot, so that the next job does not wait for Redis. The job stays ours,
and its lease is renewed, until its outcome is recorded: in an outage of Redis, for however long that takes.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TypeAlias

import structlog

from arqonce.engine.ends import give_up
from arqonce.engine.queue import Queue
from arqonce.engine.renewals import until_redis_answers
from arqonce.work import Claim, Ended, GivenBack, Job, Observer, Outcome

_Ended: TypeAlias = tuple[Job, Outcome]

_TOLD = 20
"""Most ids in one line."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.recorder")


class Recorder:
    """Keeps the claims of all jobs that are ours, and ends them. One call is under way at a time."""

    def __init__(self, leases: Queue, observer: Observer) -> None:
        """Do nothing until the first job has ended."""
        self._leases = leases
        self._observer = observer
        self._claims: dict[str, Claim] = {}
        self._ended: list[_Ended] = []
        self._task: asyncio.Task[None] | None = None
        self._claimed_anew: dict[str, Claim] = {}
        self._hooks: set[asyncio.Task[None]] = set()
        self.on_claimed_anew: Callable[[Claim], None] = lambda _claim: None
        """Called with the claim of a job that was put back, or sent anew, and claimed before the answer was here."""
        self.on_idle: Callable[[], None] = lambda: None
        """Called when no job is ours any more."""

    @property
    def claims(self) -> Collection[Claim]:
        """The claims of all jobs that are ours: waiting for a slot, running, or not recorded yet."""
        return self._claims.values()

    def all_claims(self) -> list[Claim]:
        """Return the same; may be called in any thread."""
        return list(self._claims.copy().values())

    def claim_of(self, job_id: str) -> Claim | None:
        """Return the claim under which the job is ours now."""
        return self._claims.get(job_id)

    def keep(self, claim: Claim) -> Claim | None:
        """Keep a claim, whose lease is to be renewed; return the one under which the job was ours before."""
        earlier = self._claims.get(claim.job_id)
        self._claims[claim.job_id] = claim
        return earlier

    def forget(self, job: Job) -> None:
        """Renew the job's lease no more."""
        self._claims.pop(job.claim.job_id, None)
        if not self._claims:
            self.on_idle()

    def add(self, ended: Sequence[_Ended]) -> None:
        """Take over jobs whose run is over, at least one."""
        self._ended += ended
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._observer.recording(self._run()), name="recorder")

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
                self.forget(job)
            while self._claimed_anew:
                self.on_claimed_anew(self._claimed_anew.popitem()[1])
            self._observer.recorded()
            self._call_hooks(job for job, _ in ended)

    def _call_hooks(self, jobs: Iterable[Job]) -> None:
        """Call the last hook of each job beside the next records: a slow one must not hold up other jobs' results."""
        for job in jobs:
            if job.has_hook:
                task = asyncio.create_task(job.recorded(), name="recorded", context=job.context)
                self._hooks.add(task)
                task.add_done_callback(self._hooks.discard)

    async def _record(self, ended: list[_Ended]) -> None:
        try:
            await self._give_up(ended)
        except Exception as error:  # noqa: BLE001 - whatever Redis says: the leases end, the receipts answer
            if len(ended) > 1:  # one of them may be the cause: its neighbours shall not suffer
                for one in ended:
                    await self._record([one])
                return
            _log.error("a job was left to its lease", job_id=ended[0][0].claim.job_id, exc_info=error)

    async def _give_up(self, ended: list[_Ended]) -> None:
        """Give up each under the claim that it has by now: a lease that ends in an outage of Redis gets a new one.

        With the old one the outcome would be lost, and the job, though it has taken effect, run again.
        """
        if back := [job.claim.job_id for job, outcome in ended if isinstance(outcome, GivenBack)]:
            _log.info("jobs are given back to the queue", count=len(back), job_ids=back[:_TOLD])
        while ended := [one for one in ended if not self._is_another(one[0].claim)]:
            claims = [self._claims[job.claim.job_id] for job, _ in ended]
            given = [give_up(job, outcome, claim) for (job, outcome), claim in zip(ended, claims, strict=True)]
            answers = await until_redis_answers(partial(self._leases.give_up, given))
            ended = self._reclaimed(ended, claims, answers)

    def _is_another(self, claim: Claim) -> bool:
        """Return whether the id has another job by now, enqueued when this one was over for Redis; let that start.

        The answer that it is over was lost; or Redis was emptied.
        """
        current = self._claims[claim.job_id]
        if current is claim or current.message in (None, claim.message, claim.raw):
            return False
        self._claimed_anew[claim.job_id] = current
        return True

    def _reclaimed(self, ended: list[_Ended], claims: list[Claim], answers: list[bool]) -> list[_Ended]:
        """Return the jobs that got another claim meanwhile; the other refused ones belong to another worker.

        A job that was put back can be claimed anew before the answer is here: nobody has started it yet. One that has
        ended is over, whatever we have claimed meanwhile, unless that is another job.
        """
        again: list[_Ended] = []
        for one, claim, was_ours in zip(ended, claims, answers, strict=True):
            current = self._claims[claim.job_id]
            if was_ours:
                if not (isinstance(one[1], Ended) or current is claim):
                    self._claimed_anew[claim.job_id] = current
                self._is_another(claim)
            elif current is claim:
                _log.warning("the job was no longer ours: another worker has it", job_id=claim.job_id)
                self._observer.lost(one[0])
            else:
                again.append(one)
        return again
