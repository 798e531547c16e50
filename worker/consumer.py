"""The worker class: arq's, with claims of its own, made to survive a lost Redis, hostile job ids and its own shutdown.

Overrides parts of arq 0.28, which is why the version is pinned; each override says what arq does instead.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from signal import SIGUSR1, Signals
from typing import Any, TypeVar, cast

import structlog
from arq.connections import ArqRedis, create_pool, log_redis_info
from arq.worker import Worker
from arq.worker import logger as arq_logger
from redis.exceptions import RedisError, ResponseError

from jobs.connection import is_outage
from worker.dispatch import Dispatcher
from worker.finisher import Finisher
from worker.job_run import Ended, GivenBack, JobRun, Outcome
from worker.leases import Claim, Leases
from worker.slots import Run, Slots

AnswerT = TypeVar("AnswerT")

_RECONNECT_EVERY = timedelta(milliseconds=500)
"""How long to wait between looks at a server that is gone."""

_CLOSE_LIMIT = timedelta(seconds=5)
"""How long the end waits for Redis to take the last results and keys. Longer would outlast supervisors' patience."""

_IDLE_LOOK_FOR_ABORTS = timedelta(seconds=10)
"""How often requests to abort are looked at while no job runs: old ones must go, or they would hit a later job."""

_GATHER = timedelta(milliseconds=2)
"""How long a backlog's next claim waits for more free slots: one claim for each would cost Redis more than the job."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("worker.consumer")


class UsersWorker(Worker):
    """arq's worker, with claims of its own, and living on where arq's exits. Takes arq's arguments.

    A claim is a lease of seconds that is renewed while the job runs. arq's lasts as long as the longest timeout of all
    jobs, is never renewed, and so keeps the jobs of a killed worker locked for minutes. Two workers that believe to own
    one job, because one of them was stopped for longer than its lease, do no harm: in Redis none touches what is no
    longer its own, and in PostgreSQL the receipts are the fence (``dispatch``).
    """

    def __init__(self, *args: Any, lease: timedelta = timedelta(seconds=14), **kwargs: Any) -> None:  # noqa: ANN401 - arq's
        if kwargs.get("job_timeout", 0) is None:
            raise ValueError("job_timeout must be a time: a job without a limit can hold its slot for ever")
        super().__init__(*args, **kwargs)
        self.is_stopping = False
        self._lease = lease
        self._is_ending = False
        self._trouble: str | None = None
        self._last_look_for_aborts = -math.inf
        self.finisher = Finisher(self)
        self._slots = Slots(self.max_jobs)
        self._claims: dict[str, Claim] = {}
        """All jobs that are ours: waiting for a slot, running, or ended and not recorded yet."""
        self._unended: set[str] = set()
        self._is_behind = False
        self._claiming: asyncio.Task[bool] | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._has_room = asyncio.Event()

    @property
    def pool(self) -> ArqRedis:
        """Arq's client."""
        return cast("ArqRedis", self._pool)

    async def main(self) -> None:
        """Start, then work until cancelled or, in burst mode, until the queue is empty."""
        await self._start()
        while True:
            has_more = await self._poll_iteration()
            if self.burst and await self._is_burst_over():
                await self._settle()
                return
            await self._pause(has_more=has_more)

    async def _start(self) -> None:
        if self._pool is None:
            self._pool = await create_pool(
                self.redis_settings,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
        self.leases = Leases(self.pool, self.queue_name, self._lease)
        await log_redis_info(self.pool, arq_logger.info)
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        self._heartbeat = asyncio.create_task(self._renew_leases(), name="heartbeat")

    async def _is_burst_over(self) -> bool:
        if 0 <= self.max_burst_jobs <= self._jobs_started():
            return True
        queued: int = await self.pool.zcard(self.queue_name)
        return queued == 0

    async def _settle(self) -> None:
        while self._unended:
            await asyncio.gather(*self.tasks.values())
            await asyncio.sleep(0)
        await self.finisher.settle()

    async def _pause(self, *, has_more: bool) -> None:
        """Wait for the next turn: until there is room if more jobs may be waiting, else for the poll delay."""
        self._has_room.clear()
        if not has_more:
            await asyncio.sleep(self.poll_delay_s)
        elif self._room() <= 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.poll_delay_s):
                    await self._has_room.wait()

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            with suppress(RedisError, OSError):  # the main loop tells of it
                await self.leases.renew(list(self._claims.values()))

    async def _poll_iteration(self) -> bool:  # type: ignore[override] # arq's returns nothing
        """Take one turn; return whether more jobs may be waiting. arq ends the process at the first error of Redis."""
        if self._is_ending:
            # On Python 3.11 a cancellation can be lost in redis-py, whose time limit uses wait_for.
            raise asyncio.CancelledError
        has_more = False
        try:
            if await self._database_answers():
                has_more = await self._claim_shielded()
            await self._cancel_aborted_jobs()
            await self.heart_beat()
        except (RedisError, OSError) as error:
            is_refusal = isinstance(error, ResponseError)  # full, a replica, without its replicas
            self._tell_trouble(
                "Redis refuses a command: waiting until it takes it" if is_refusal else "Redis is gone: waiting for it",
                error,
            )
            # The next turn writes the health key: a Redis that can be read but not written to is not back.
            self._last_health_check = 0.0
            await asyncio.sleep(_RECONNECT_EVERY.total_seconds())
        else:
            self._tell_trouble(None)
        return has_more

    async def _claim_shielded(self) -> bool:
        """Claim and start jobs, not cut short by the worker's end: arq leaves a job locked whose claim is cut off."""
        self._claiming = asyncio.create_task(self._claim_jobs(), name="claim")
        return await asyncio.shield(self._claiming)

    async def _claim_jobs(self) -> bool:
        if self._is_behind and self._slots.are_few:
            await asyncio.sleep(_GATHER.total_seconds())
        room = self._room()
        if room <= 0:
            return not self.is_stopping
        claimed = await self.leases.claim(room)
        fresh = [JobRun(self, claim) for claim in claimed.claims if await self._is_new(claim)]
        self._unended.update(job.job_id for job in fresh)
        if self.is_stopping:
            self._give_back(fresh)
            return False
        runs, surplus = self._slots.plan(fresh, is_full=claimed.is_full)
        self._give_back(surplus)
        for run in runs:
            self._start_run(run)
        self._is_behind = claimed.is_full
        return claimed.is_full

    def _room(self) -> int:
        """Return how many jobs may be claimed; none after the signal to stop."""
        if not self.allow_pick_jobs or self.is_stopping:
            return 0
        room = self._slots.room()
        if self.burst and self.max_burst_jobs >= 0:
            room = min(room, self.max_burst_jobs - self._jobs_started())
        return room

    def _jobs_started(self) -> int:
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + len(self._unended)

    async def _is_new(self, claim: Claim) -> bool:
        """Keep the claim; one of our own job whose lease had ended starts nothing: the job runs on under it."""
        running = self._claims.get(claim.job_id)
        self._claims[claim.job_id] = claim
        if claim.job_id in self._unended:
            with suppress(RedisError, OSError):  # the other claims of this call must not be lost by it
                await self.leases.uncount(claim)
        return running is None

    def _start_run(self, run: Run) -> None:
        self._slots.started(run)
        task = self.loop.create_task(run.run())
        for job in run.jobs:
            self.tasks[job.job_id] = task
        task.add_done_callback(partial(self._end_run, run, self.loop.time()))

    def run_again(self, runs: Iterable[Run]) -> None:
        """Run jobs of a batch again as soon as there is a slot."""
        if self.is_stopping:
            self._give_back([job for run in runs for job in run.jobs])
        else:
            self._slots.waiting.extend(runs)

    def start_anew(self, claim: Claim) -> None:
        """Run a job that was claimed before we knew that it had been put back."""
        self._claims[claim.job_id] = claim
        self._unended.add(claim.job_id)
        self.run_again([JobRun(self, claim)])
        self._start_waiting()

    def _end_run(self, run: Run, started: float, task: "asyncio.Task[None]") -> None:
        self._slots.ended(run, seconds=self.loop.time() - started)
        jobs = [job for job in run.jobs if self.tasks.get(job.job_id) is task]  # others run again already
        for job in jobs:
            del self.tasks[job.job_id]
        if task.cancelled() or task.exception() is not None:
            self._leave(jobs, task)
        self._start_waiting()
        self._has_room.set()

    def _start_waiting(self) -> None:
        while self._slots.waiting and self._slots.free > 0:
            self._start_run(self._slots.waiting.popleft())

    def _leave(self, jobs: Iterable[JobRun], task: "asyncio.Task[None]") -> None:
        """End what a run that broke off has not: leave it to its lease, or, if it was cancelled, give it back."""
        waiting = {job.job_id for other in self._slots.waiting for job in other.jobs}
        for job in jobs:
            if job.job_id not in self._unended or job.job_id in waiting:
                continue
            if task.cancelled():  # before its first step, or in a hook
                self.conclude(job, job.cancelled(asyncio.CancelledError()))
            else:
                _log.error("a job was left to its lease", job_id=job.job_id, exc_info=task.exception())
                self._unended.discard(job.job_id)
                self.forget(job)

    def claim_of(self, job_id: str) -> Claim:
        """Return the claim under which the job is ours now."""
        return self._claims[job_id]

    def forget(self, job: JobRun) -> None:
        """Renew the job's lease no more."""
        self._claims.pop(job.job_id, None)

    def conclude(self, job: JobRun, outcome: Outcome) -> None:
        """Count a run that is over, as arq does, and have its outcome recorded."""
        if not isinstance(outcome, Ended):
            self.jobs_retried += 1
        elif outcome.succeeded:
            self.jobs_complete += 1
        else:
            self.jobs_failed += 1
        self._record(job, outcome)

    def _record(self, job: JobRun, outcome: Outcome) -> None:
        self._unended.discard(job.job_id)
        self.finisher.add(job, outcome)

    def _give_back(self, jobs: Iterable[JobRun]) -> None:
        for job in jobs:
            self._record(job, GivenBack())

    async def _cancel_aborted_jobs(self) -> None:
        """Cancel the jobs that somebody wants aborted; looks once in each poll delay, and seldom while none runs."""
        now, pause = self.loop.time(), self.poll_delay_s if self._claims else _IDLE_LOOK_FOR_ABORTS.total_seconds()
        if not self.allow_abort_jobs or now < self._last_look_for_aborts + pause:
            return
        self._last_look_for_aborts = now
        wanted = await self.leases.aborted()
        found = {job_id for job_id, claim in self._claims.items() if claim.id in wanted and job_id in self.job_tasks}
        self.aborting_tasks.update(found)
        for task in {self.job_tasks[job_id] for job_id in found}:
            task.cancel()

    def _tell_trouble(self, trouble: str | None, error: Exception | None = None) -> None:
        """Log a change, not each turn of an outage."""
        if trouble is not None and trouble != self._trouble:
            _log.error(trouble, exc_info=error, reason=str(error))
        if trouble is None and self._trouble is not None:
            _log.info("Redis is back")
        self._trouble = trouble

    async def _database_answers(self) -> bool:
        """While PostgreSQL is gone, take turns slowly and claim nothing: a claimed job could only fail."""
        dispatcher: Dispatcher | None = self.ctx.get("dispatcher")
        if dispatcher is None or dispatcher.gate.is_open or await dispatcher.gate.check():
            return True
        await asyncio.sleep(_RECONNECT_EVERY.total_seconds())
        return False

    async def until_redis_answers(self, command: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """Repeat the command however long Redis is gone: arq loses the outcome, and runs the job again."""
        while True:
            try:
                return await command()
            except (RedisError, OSError) as error:
                if not is_outage(error):
                    raise  # the job's lease ends, and its receipt answers
                await asyncio.sleep(_RECONNECT_EVERY.total_seconds())

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Stop claiming and let running jobs end within the grace; a second signal ends them at once."""
        if self.is_stopping:
            self.handle_sig(signum)
            return
        self.is_stopping = True
        self._give_back_waiting()
        super().handle_sig_wait_for_completion(signum)

    def handle_sig(self, signum: Signals) -> None:
        """End at once."""
        self.is_stopping = self._is_ending = True
        self._give_back_waiting()
        super().handle_sig(signum)

    def _give_back_waiting(self) -> None:
        while self._slots.waiting:
            self._give_back(self._slots.waiting.popleft().jobs)

    async def _wait_for_tasks_to_complete(self, signum: Signals) -> None:
        """Let running jobs end within the grace, then end the main loop."""
        await super()._wait_for_tasks_to_complete(signum)
        self._is_ending = True

    async def close(self) -> None:
        """End jobs, hooks and connections, each whatever became of the one before. arq stops at the first error."""
        if not self._handle_signals:
            self.handle_sig(SIGUSR1)
        self.is_stopping = True
        if self._pool is None:
            return
        try:
            await self._end_jobs()
            if self._heartbeat is not None:
                self._heartbeat.cancel()
            with suppress(RedisError, OSError):
                async with asyncio.timeout(_CLOSE_LIMIT.total_seconds()):
                    await self.pool.delete(self.health_check_key)
        finally:
            if self.on_shutdown:
                await self.on_shutdown(self.ctx)
            await self.leases.aclose()
            await self.pool.aclose(close_connection_pool=True)
            self._pool = None

    async def _end_jobs(self) -> None:
        if self._claiming is not None:
            await asyncio.wait([self._claiming], timeout=_CLOSE_LIMIT.total_seconds())
        if self.tasks:
            _, running = await asyncio.wait(self.tasks.values(), timeout=_CLOSE_LIMIT.total_seconds())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_LIMIT.total_seconds()):
                await self.finisher.settle()
        self.finisher.cancel()
