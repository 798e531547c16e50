"""The worker class: arq's, with claims of its own, made to survive a lost Redis, hostile job ids and its own shutdown.

Overrides parts of arq 0.28, which is why the version is pinned; each override says what arq does instead.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from signal import SIGUSR1, Signals
from typing import Any, TypeVar, cast

import structlog
from arq.connections import ArqRedis, create_pool, log_redis_info
from arq.worker import Worker
from arq.worker import logger as arq_logger
from redis.exceptions import RedisError, ResponseError

from arqonce.connection.primary import StaleConnectionError
from arqonce.connection.redis import is_outage, is_refusal
from arqonce.engine.idle import Bell, Waking
from arqonce.engine.leases import Leases
from arqonce.engine.overdue import end_overdue_runs
from arqonce.engine.runs import Runs
from arqonce.engine.threads import JobThreads
from arqonce.execution.attempt import Dispatcher

AnswerT = TypeVar("AnswerT")

_RECONNECT_EVERY = timedelta(milliseconds=500)
"""How long to wait between looks at a server that is gone."""

_CHORES_LIMIT = timedelta(seconds=5)
"""How long a turn's chores may take. redis-py repeats them three times, in which a silent Redis is not noticed."""

_CLOSE_LIMIT = timedelta(seconds=8)
"""How long the end may take for jobs that were cancelled and for Redis to take the last results and keys, together."""

_STEP_LIMIT = timedelta(seconds=3)
"""How long each step of that may take."""

_HELD_LIMIT = timedelta(seconds=1)
"""How long a job may take to end after its second cancellation. After that it counts as held."""

_IDLE_LOOK_FOR_ABORTS = timedelta(seconds=10)
"""How often requests to abort are looked at while no job runs: old ones must go, or they would hit a later job."""

_LOOK_FOR_ROOM = timedelta(milliseconds=250)
"""How often a worker without room looks for it at least: a batch that is slow makes room without ending (``slots``)."""

_CRON = timedelta(milliseconds=500)
"""How often cron jobs are looked at: arq enqueues those of the next second."""

_GATHER = timedelta(milliseconds=2)
"""How long a backlog's next claim waits for more free slots: one claim for each would cost Redis more than the job."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.consumer")


def _trouble_of(error: Exception, *, is_first: bool) -> str:
    if is_first and isinstance(error, StaleConnectionError):
        return "Redis takes no writes any more: looking for the primary"
    if isinstance(error, ResponseError) or is_refusal(error):  # full, a replica, without its replicas
        return "Redis refuses a command: waiting until it takes it"
    return "Redis is gone: waiting for it"


class UsersWorker(Worker):
    """arq's worker, with claims of its own, and living on where arq's exits. Takes arq's arguments.

    A claim is a lease of seconds that is renewed while the job runs. arq's lasts as long as the longest timeout of all
    jobs, is never renewed, and so keeps the jobs of a killed worker locked for minutes. Two workers that believe to own
    one job, because one of them was stopped for longer than its lease, do no harm: in Redis none touches what is no
    longer its own, and in PostgreSQL the receipts are the fence (``dispatch``).

    Sets up no logging: by itself, structlog's default prints the local variables of a failed job. See ``logs``.
    """

    def __init__(self, *args: Any, lease: timedelta = timedelta(seconds=14), **kwargs: Any) -> None:  # noqa: ANN401 - arq's
        if kwargs.get("job_timeout", 0) is None:
            raise ValueError("job_timeout must be a time: a job without a limit can hold its slot for ever")
        super().__init__(*args, **kwargs)
        self.is_stopping = False
        self.must_get_idle = False
        """Whether nothing may be claimed until no job is ours: one that may kill its worker runs alone."""
        self._lease = lease
        self._is_ending = False
        self._trouble: str | None = None
        self._last_look_for_aborts = -math.inf
        self.runs = Runs(self)
        self.bell = Bell()
        self._is_behind = False
        self._claiming: asyncio.Task[bool] | None = None
        self._closed_by = math.inf
        self.held: list[str] = []
        """The jobs that hold on though they were cancelled; nobody waits for them."""
        self.threads = JobThreads(self.max_jobs, self._jobs_of)
        self._heartbeat: asyncio.Task[None] | None = None
        self._overdue: asyncio.Task[None] | None = None

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
                await self.runs.settle()
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
        poll = timedelta(seconds=self.poll_delay_s)
        self._waking = Waking(self.leases, self.bell, lease=self._lease, poll=poll, watches=not self.burst)
        await log_redis_info(self.pool, arq_logger.info)
        self.ctx["redis"] = self.pool
        self.ctx["threads"] = self.threads
        self.loop.set_default_executor(self.threads)
        if self.on_startup:
            await self.on_startup(self.ctx)
        if (dispatcher := self.dispatcher) is not None:
            dispatcher.is_cancelled = self._wants_end
        self._heartbeat = asyncio.create_task(self._renew_leases(), name="heartbeat")
        self._overdue = asyncio.create_task(end_overdue_runs(self), name="overdue")

    @property
    def dispatcher(self) -> Dispatcher | None:
        """What runs our jobs; ``None`` where only functions of arq's run."""
        return self.ctx.get("dispatcher")

    def _jobs_of(self, task: "asyncio.Task[Any] | None") -> list[str]:
        return [job_id for job_id, running in self.tasks.copy().items() if running is task]

    def _wants_end(self) -> bool:
        """Say whether the worker wants the end of the current task: else a job has cancelled itself."""
        task = asyncio.current_task()
        return self.is_stopping or any(self.tasks.get(job_id) is task for job_id in self.aborting_tasks)

    async def _is_burst_over(self) -> bool:
        if 0 <= self.max_burst_jobs <= self._jobs_started():
            return True
        queued: int = await self.pool.zcard(self.queue_name)
        return queued == 0

    async def _pause(self, *, has_more: bool) -> None:
        """Wait for the next turn; not at all if more jobs may be due and there is room for them."""
        if not (has_more and self._room() > 0):
            await self._waking.wait(self._until_next_chore())

    def _until_next_chore(self) -> float:
        """Return for how many seconds nothing but a claim can be due."""
        if self._waking.is_away:
            return min(self.poll_delay_s, _LOOK_FOR_ROOM.total_seconds())
        if self.runs.claims and self.allow_abort_jobs:
            return self.poll_delay_s
        health = self._last_health_check + float(self.health_check_interval) - time.time()
        cron = _CRON.total_seconds() if self.cron_jobs else math.inf
        return max(0.01, min(health, cron, _IDLE_LOOK_FOR_ABORTS.total_seconds()))

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            with suppress(RedisError, OSError):  # the main loop logs it
                await self.leases.renew(list(self.runs.claims))

    async def _poll_iteration(self) -> bool:  # type: ignore[override] # arq's returns nothing
        """Take one turn; return whether more jobs may be waiting. arq ends the process at the first error of Redis."""
        if self._is_ending:
            # On Python 3.11 a cancellation can be lost in redis-py, whose time limit uses wait_for.
            raise asyncio.CancelledError
        has_more = False
        try:
            has_more = await self._claim_or_rest()
            async with asyncio.timeout(_CHORES_LIMIT.total_seconds()):
                await self._cancel_aborted_jobs()
                await self.heart_beat()
        except (RedisError, OSError) as error:
            is_first = self._trouble is None
            self._tell_trouble(_trouble_of(error, is_first=is_first), error)
            # The next turn writes the health key: a Redis that can be read but not written to is not back.
            self._last_health_check = 0.0
            if not (is_first and isinstance(error, StaleConnectionError)):  # the next connection may reach another
                await asyncio.sleep(_RECONNECT_EVERY.total_seconds())
        else:
            self._tell_trouble(None)
        return has_more

    async def _claim_or_rest(self) -> bool:
        """Claim if it is time to; leave it to others if we cannot."""
        if self._room() <= 0:
            if self.is_stopping or self._waking.wants_claim:
                await self._waking.rest()
        elif await self._database_answers():
            if self._waking.wants_claim:
                return await self._claim_shielded()
            await self._waking.renew()
        return False

    async def _claim_shielded(self) -> bool:
        """Claim and start jobs, not cut short by the worker's end: arq leaves a job locked whose claim is cut off."""
        self._claiming = asyncio.create_task(self._claim_jobs(), name="claim")
        return await asyncio.shield(self._claiming)

    async def _claim_jobs(self) -> bool:
        if self._is_behind and self.runs.slots.are_few:
            await asyncio.sleep(_GATHER.total_seconds())
        room = self._room()
        if room <= 0:
            return False
        was_idle = not self.runs.claims
        claimed = await self._waking.claim(room, is_idle=was_idle)
        self.must_get_idle = claimed.must_get_idle
        if was_idle and claimed.claims:
            self._last_look_for_aborts = self.loop.time()  # the claim has looked itself
        await self.runs.start(claimed)
        self._is_behind = claimed.is_full
        return claimed.is_full

    def _room(self) -> int:
        """Return how many jobs may be claimed; none after the signal to stop."""
        if not self.allow_pick_jobs or self.is_stopping or (self.must_get_idle and self.runs.claims):
            return 0
        room = self.runs.slots.room()
        if self.burst and self.max_burst_jobs >= 0:
            room = min(room, self.max_burst_jobs - self._jobs_started())
        return room

    def _jobs_started(self) -> int:
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + self.runs.unended

    async def _cancel_aborted_jobs(self) -> None:
        """Cancel the jobs that somebody wants aborted; looks once in each poll delay, and seldom while none runs."""
        now, pause = self.loop.time(), self.poll_delay_s if self.runs.claims else _IDLE_LOOK_FOR_ABORTS.total_seconds()
        if not self.allow_abort_jobs or now < self._last_look_for_aborts + pause:
            return
        self._last_look_for_aborts = now
        wanted = await self.leases.aborted()
        found = {claim.job_id for claim in self.runs.claims if claim.id in wanted and claim.job_id in self.job_tasks}
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
        dispatcher = self.dispatcher
        if dispatcher is None or dispatcher.gate.is_open:
            return True
        await self._waking.rest()  # another worker may reach it
        if await dispatcher.gate.check():
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
        self.bell.ring()
        self.runs.give_back_waiting()
        super().handle_sig_wait_for_completion(signum)

    def handle_sig(self, signum: Signals) -> None:
        """End at once."""
        self.is_stopping = self._is_ending = True
        self.runs.give_back_waiting()
        super().handle_sig(signum)

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
        self._closed_by = self.loop.time() + _CLOSE_LIMIT.total_seconds()
        try:
            await self._end_claim()
            await self._end_jobs()
            for task in (self._heartbeat, self._overdue):
                if task is not None:
                    task.cancel()
            with suppress(RedisError, OSError):
                async with asyncio.timeout(self._step()):
                    await self.pool.delete(self.health_check_key)
        finally:
            if self.on_shutdown:
                await self.on_shutdown(self.ctx)
            await self.leases.aclose()
            await self.pool.aclose(close_connection_pool=True)
            self._pool = None

    def _step(self) -> float:
        """Return for how many seconds a step of the end may last."""
        return max(0.1, min(_STEP_LIMIT.total_seconds(), self._closed_by - self.loop.time()))

    async def _end_claim(self) -> None:
        """Let another worker watch the queue, at once."""
        if self._claiming is not None:
            await asyncio.wait([self._claiming], timeout=self._step())
        with suppress(RedisError, OSError):
            async with asyncio.timeout(self._step()):
                await self._waking.rest()

    async def _end_jobs(self) -> None:
        if self.tasks:
            _, running = await asyncio.wait(set(self.tasks.values()), timeout=self._step())
            for task in running:
                task.cancel()
            if running:
                _, running = await asyncio.wait(running, timeout=_HELD_LIMIT.total_seconds())
            self.held = self.runs.give_back_held(running)
            if self.held:
                _log.error("jobs hold on though they were cancelled: they are given back", job_ids=self.held)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._step()):
                await self.runs.finisher.settle()
        self.runs.finisher.cancel()
