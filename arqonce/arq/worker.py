"""The worker class: arq's, with our engine inside. It lives on where arq's exits, and its claims are short leases.

It overrides parts of arq 0.28, which is why the version is pinned. arq's constructor, hooks, cron jobs, counters and
health key are arq's own; what is claimed, run and recorded is the engine's.
"""

import asyncio
import inspect
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from signal import SIGUSR1, Signals
from typing import Any

import structlog
from arq.connections import create_pool, log_redis_info
from arq.constants import in_progress_key_prefix
from arq.cron import CronJob
from arq.utils import to_unix_ms
from arq.worker import Worker as ArqWorker
from arq.worker import func
from arq.worker import logger as arq_logger
from redis.exceptions import RedisError

from arqonce.arq.functions import Functions, FunctionSettings
from arqonce.arq.records import FunctionRecords
from arqonce.arq.setting_types import require_types
from arqonce.arq.side_by_side import SideBySide
from arqonce.connection.presence import ALARM_KEY, order_key
from arqonce.engine.aside import step_aside
from arqonce.engine.chores import ContainedChores
from arqonce.engine.engine import Engine
from arqonce.engine.in_force import LimitsInForce
from arqonce.engine.leases import Leases
from arqonce.engine.options import Chores, Options, Phase
from arqonce.engine.presence import Presence
from arqonce.engine.shown import Shown
from arqonce.engine.threads import JobThreads
from arqonce.engine.trend import Trend, TrendCounts
from arqonce.execution.work import RegistryWork
from arqonce.queues import ServedQueues
from arqonce.rest import Rest
from arqonce.work import AlwaysOpen, Claim, Ended, ForwardingObserver, Gate, Job, Observer, Outcome, Work

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.arq.worker")

_CRON = timedelta(milliseconds=500)
"""How often cron jobs are looked at: arq enqueues those of the next second."""


class Worker(ArqWorker):
    """arq's worker, with claims of its own, and living on where arq's exits. Takes arq's arguments.

    A claim is a lease of seconds that is renewed while the job runs. arq's lasts as long as the longest timeout of all
    jobs, is never renewed, and so keeps the jobs of a killed worker locked for minutes. Two workers that believe to own
    one job, because one of them was stopped for longer than its lease, do no harm: in Redis none touches what is no
    longer its own, and in PostgreSQL the receipts are the fence.

    It serves arq's ``queue_name`` or, if they are given, several ``queues``: then ``queue_name`` is the one to which
    functions and cron jobs enqueue if they name none, and in whose health key arq looks for workers.

    A registry's jobs run beside the functions, chosen by a job's name, if the startup hook sets ``registry_work``; with
    ``has_registry`` there need be no function. Sets up no logging: by itself, structlog prints to standard output.
    """

    def __init__(  # noqa: PLR0913 - what arq's worker does not have
        self,
        functions: Sequence[Any] = (),
        *,
        lease: timedelta = timedelta(seconds=14),
        queues: ServedQueues | None = None,
        has_registry: bool = False,
        max_working: int = 100,
        observer: Observer | None = None,
        rest: Rest | None = None,
        **kwargs: Any,  # noqa: ANN401 - arq's
    ) -> None:
        if kwargs.get("job_timeout", 0) is None:
            raise ValueError("job_timeout must be a time: a job without a limit can hold its slot for ever")
        require_types(kwargs | {"functions": functions})
        is_without = has_registry and not functions and not kwargs.get("cron_jobs")
        super().__init__([func(_nothing, name="nothing")] if is_without else functions, **kwargs)  # type: ignore[arg-type] # arq's protocol; it wants one function at least
        if is_without:
            self.functions.clear()
        self._lease = lease
        self.rest = rest or Rest()
        """Whether it leaves to others what one worker can do for all."""
        self.queues = queues or ServedQueues((self.queue_name,))
        self.engine: Engine | None = None
        """What claims and runs jobs, once the worker has started."""
        self._leases: Leases | None = None
        self._presence: Presence | None = None
        self._is_closed = False
        self._trend = TrendCounts(self.queues.names, observer or Observer())
        self._observer = _Counts(self, self._trend)
        self.registry_work: RegistryWork | None = None
        """Runs the jobs of a registry. The startup hook may set it."""
        self.records: FunctionRecords | None = None
        """Records how functions end. The startup hook may set it."""
        self.must_know_pauses = False
        """Whether to claim nothing while Redis does not know what is paused. The startup hook sets it with a relay."""
        self.about: Callable[[], Mapping[str, object]] = dict
        """Returns what else operators are told of the process. The startup hook may set it."""
        self._max_working = max_working
        self._has_failed_cron = False
        self.threads = JobThreads(self.max_jobs + (max_working if has_registry else 0), self._jobs_of)

    @property
    def is_stopping(self) -> bool:
        """Whether the worker has been told to stop."""
        return not self.allow_pick_jobs

    @property
    def _is_ending(self) -> bool:
        """Whether running jobs have been cancelled."""
        return self.engine is not None and self.engine.phase is Phase.ENDING

    @property
    def held(self) -> list[str]:
        """The jobs that go on though they were cancelled; nobody waits for them."""
        return [] if self.engine is None else self.engine.closing.held

    def unended_claims(self) -> list[Claim]:
        """Return the claims of jobs that have not come to an end; may be called in any thread."""
        return [] if self.engine is None else self.engine.runs.unended_claims()

    def _jobs_of(self, task: "asyncio.Task[Any] | None") -> list[str]:
        return [] if self.engine is None else self.engine.runs.running.ids_of(task)

    async def main(self) -> None:
        """Start, then work until cancelled or, in burst mode, until the queue is empty."""
        if self._leases is not None:  # it has run before
            await self._leases.aclose()
        if self._is_closed:
            self.allow_pick_jobs, self._is_closed = True, False
        if self._pool is None:
            self._pool = await create_pool(
                self.redis_settings,
                job_deserializer=self.job_deserializer,
                job_serializer=self.job_serializer,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
        arq_logger.info("Starting worker for %d functions: %s", len(self.functions), ", ".join(self.functions))
        await log_redis_info(self.pool, arq_logger.info)
        self.ctx["redis"] = self.pool
        self.loop.set_default_executor(self.threads)
        if self.on_startup:
            await self.on_startup(self.ctx)
        self._leases = Leases(self.pool, self.queues, self._lease, must_know_pauses=self.must_know_pauses)
        self._presence = None if self.burst else self._build_presence(self._leases)
        limits = LimitsInForce(self._leases, {} if self.registry_work is None else self.registry_work.registry.limits)
        with suppress(RedisError, OSError):  # before the first claim, if possible: parked jobs stay parked
            await limits.do()
        self.engine = engine = self._build_engine(self._leases, limits)
        await engine.run()

    def _build_engine(self, leases: Leases, limits: LimitsInForce) -> Engine:
        registry_work = self.registry_work
        gate: Gate = AlwaysOpen() if self.records is None else self.records.gate
        if registry_work is not None:
            gate = registry_work.dispatcher.gate
        chores: list[Chores] = [_ArqChores(self), limits, *self._shown_chores()]
        engine = Engine(
            leases,
            self._build_work(),
            self._options(),
            gate=gate,
            chores=list(map(ContainedChores, chores)),
            observer=self._observer,
        )
        self.tasks = engine.runs.running.tasks
        if registry_work is not None:
            registry_work.dispatcher.is_cancelled = lambda: engine.runs.wants_end(asyncio.current_task())
            registry_work.dispatcher.aside = partial(step_aside, engine.runs)
        if self.is_stopping:  # told so while it started: there is nothing to wait for
            engine.stop(at_once=True)
        return engine

    def _shown_chores(self) -> list[Chores]:
        """Return what operators see of a worker; nothing of a burst."""
        trend = Trend(self.pool, self._trend, lambda: self.rest.is_left_to_others)
        return [] if self._presence is None else [self._presence, trend]

    def _build_presence(self, leases: Leases) -> Presence:
        registry = () if self.registry_work is None else self.registry_work.registry.names
        shown = Shown([*registry, *self.functions], slots=self.max_jobs)

        def doing() -> Mapping[str, Any]:
            return {**shown.now(self.engine), **self.about()}

        def obey(quiet: bool) -> bool:  # noqa: FBT001 - an order's value
            return self.engine is not None and self.engine.be_quiet(quiet)

        def is_idle() -> bool:
            return leases.is_told and self.engine is not None and not self.engine.runs.claims

        presence = Presence(self.pool, leases.line, self.queues.names, doing=doing, obey=obey, is_idle=is_idle)

        def look_for_orders() -> None:
            presence.look_for_orders()
            if self.engine is not None:
                self.engine.bell.ring()

        def hear_alarm() -> None:
            look_for_orders()  # what was announced once must be read again
            self.rest.stir()

        leases.watched_keys.watch(order_key(presence.worker.id), look_for_orders)
        leases.watched_keys.watch(ALARM_KEY, hear_alarm)
        return presence

    def _build_work(self) -> Work:
        names = FunctionSettings.__dataclass_fields__.keys()
        settings = FunctionSettings(**{name: getattr(self, name) for name in names})
        functions = self._functions(settings)
        if self.registry_work is None:
            return functions
        return SideBySide(self.registry_work, functions) if self.functions else self.registry_work

    def _functions(self, settings: FunctionSettings) -> Functions:
        if "sentry_sdk" in sys.modules and self.functions:
            from arqonce.arq import sentry  # noqa: PLC0415 - imports what the service itself has loaded

            if sentry.is_active():
                return sentry.WatchedFunctions(self.functions, settings, self.timezone)
        return Functions(self.functions, settings)

    def _options(self) -> Options:
        return Options(
            slots=self.max_jobs,
            aside=self._max_working,
            lease=self._lease,
            poll=timedelta(seconds=self.poll_delay_s),
            burst=self.burst,
            most=math.inf if self.max_burst_jobs < 0 else self.max_burst_jobs,
            aborts=self.allow_abort_jobs,
            rest=self.rest,
        )

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Stop claiming and let running jobs end within the grace; a second signal ends them at once."""
        if self.is_stopping:
            self.handle_sig(signum)
            return
        _log.info("worker is stopping", signal=signum.name, jobs=len(self.tasks))
        super().handle_sig_wait_for_completion(signum)
        if self.engine is not None:
            self.engine.stop()

    def handle_sig(self, signum: Signals) -> None:
        """End at once."""
        self.allow_pick_jobs = False
        if self.engine is not None:
            self.engine.stop(at_once=True)
        super().handle_sig(signum)

    async def _wait_for_tasks_to_complete(self, signum: Signals) -> None:
        """Let running jobs end within the grace, then end the main loop."""
        await super()._wait_for_tasks_to_complete(signum)
        if self.engine is not None:
            self.engine.stop(at_once=True)

    async def close(self) -> None:
        """End jobs, hooks and connections, each whatever became of the one before. arq stops at the first error."""
        if not (self._handle_signals or self._is_ending):  # a second cancellation would cut cleanup short
            self.handle_sig(SIGUSR1)
        self.allow_pick_jobs, self._is_closed = False, True
        if self._pool is None:
            return
        try:
            if self.engine is not None:
                self.engine.stop()
                await self.engine.close()
                with suppress(RedisError, OSError):
                    async with asyncio.timeout(self.engine.closing.redis_step()):
                        await self.pool.delete(self.health_check_key)
                        if self._presence is not None:
                            await self._presence.end()
                            await Trend(self.pool, self._trend).write()
        finally:
            try:
                if self.on_shutdown:
                    await self.on_shutdown(self.ctx)
            finally:
                if self._leases is not None:
                    await self._leases.aclose()
                await self.pool.aclose(close_connection_pool=True)
                self._pool = None

    def next_chore(self) -> float:
        """Return in how many seconds arq's health key is to be written, or its cron jobs are to be looked at."""
        health = self._last_health_check + float(self.health_check_interval) - time.time()
        if self._leaves_health_key:
            health = math.inf
        return min(health, _CRON.total_seconds() if self.cron_jobs else math.inf)

    async def run_cron(self, n: datetime, delay: float, num_windows: int = 2) -> None:
        """Enqueue cron jobs that are due; if that fails, in an outage, again when Redis is back. arq's class ends then.

        Those with ``unique=False`` are not enqueued again: of them nobody knows whether they were.
        """
        jobs = [job for job in self.cron_jobs if job.unique or job.job_id]
        slots = [job.next_run or (n if job.run_at_startup else None) for job in jobs]
        try:
            if self._has_failed_cron:
                await self._pass_over_begun(jobs, n)
            await super().run_cron(n, delay, num_windows)
        except BaseException:
            self._has_failed_cron = True
            for job, slot in zip(jobs, slots, strict=True):
                job.next_run = slot or job.next_run
            raise
        self._has_failed_cron = False

    async def _pass_over_begun(self, jobs: Sequence[CronJob], now: datetime) -> None:
        """Leave out slots whose jobs were enqueued after all, and have begun: the answer alone was lost."""
        for job in jobs:
            if job.next_run is not None and job.next_run <= now:
                job_id = job.job_id or f"{job.name}:{to_unix_ms(job.next_run)}"
                if await self.pool.exists(in_progress_key_prefix + job_id):  # for a minute after its end, too
                    job.calculate_next(job.next_run)

    async def record_health(self) -> None:
        """Write the health key if that is due; also if the clock was set back since."""
        if self._last_health_check > time.time():
            self.write_health_soon()
        if not self._leaves_health_key:
            await super().record_health()

    @property
    def _leaves_health_key(self) -> bool:
        """Whether another worker writes it: all that have this one queue share the key."""
        return self.rest.is_on and len(self.queues.names) == 1

    def write_health_soon(self) -> None:
        """Write the health key in the next turn."""
        self._last_health_check = 0.0


def _signature() -> inspect.Signature:
    """Return arq's parameters and ours: arq reads them to know what it may take from a settings class."""
    arqs, own = (inspect.signature(kind.__init__) for kind in (ArqWorker, Worker))
    ours = [own.parameters[name] for name in ("lease", "queues", "has_registry", "max_working", "observer", "rest")]
    return arqs.replace(parameters=[*list(arqs.parameters.values())[1:], *ours])


Worker.__signature__ = _signature()  # type: ignore[attr-defined] # what inspect.signature returns


async def _nothing(_ctx: dict[Any, Any]) -> None:
    """Take the place of a function where there is none."""


class _ArqChores:
    """arq's own chores: its health key and cron jobs."""

    def __init__(self, worker: Worker) -> None:
        self.do = worker.heart_beat
        self.due_in = worker.next_chore
        self.hurry = worker.write_health_soon


class _Counts(ForwardingObserver):
    """Counts outcomes as arq does, for its health key and ``run_check``."""

    def __init__(self, worker: Worker, other: Observer) -> None:
        super().__init__(other)
        self._worker = worker

    def concluded(self, ended: Sequence[tuple[Job, Outcome]]) -> None:
        worker = self._worker
        for _, outcome in ended:
            if not isinstance(outcome, Ended):
                worker.jobs_retried += 1
            elif outcome.succeeded:
                worker.jobs_complete += 1
            else:
                worker.jobs_failed += 1
        super().concluded(ended)
