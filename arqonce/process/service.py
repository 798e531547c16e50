"""Runs an arq service, as it is, in our worker: its functions, cron jobs, hooks and limits. Needs no PostgreSQL."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from arq.connections import ArqRedis, RedisSettings
from arq.constants import health_check_key_suffix
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError

from arqonce.application import Application
from arqonce.arq.records import FunctionRecords
from arqonce.arq.service import Service, url_of
from arqonce.arq.worker import Worker
from arqonce.connection.redis import build_redis, build_sync_redis, explained, location
from arqonce.database.engine import open_database
from arqonce.database.schema import has_schema
from arqonce.database.settings import DatabaseSettings, is_ours
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.work import RegistryWork
from arqonce.ledger.schema import ledger_of
from arqonce.operations.process import Operations, observer_of, open_operations
from arqonce.process.arguments import RETRIES
from arqonce.process.ending import Ending
from arqonce.process.health import Probe, report_health
from arqonce.process.lifecycle import Lifecycle, require_safe_redis
from arqonce.process.logs import set_up_logging
from arqonce.process.loop_watch import warn_of_blocks
from arqonce.process.probes import ask_redis
from arqonce.process.shown import show_worker
from arqonce.process.startup_errors import StartupError, explain_database
from arqonce.process.supervised import Supervised, tell_ready
from arqonce.process.worker import run_process, status_of, work_to_the_end
from arqonce.queues import ServedQueues
from arqonce.settings.operations import OperationsSettings
from arqonce.settings.worker import QueueSettings, Settings, WorkerSettings
from arqonce.usage import UsageError

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.service")


@dataclass(frozen=True, kw_only=True)
class ServiceRun:
    """How a service is to be run."""

    service: Service

    settings: WorkerSettings
    """Those about leases, logs and the end of the process apply; all else is the service's own."""

    application: Application | None = None
    """Whose registry's jobs run beside the functions. Needs PostgreSQL, ``DATABASE_URL``."""

    burst: bool = False
    accepts_pickle: bool = False

    supervised: Supervised | None = None
    """Given if a supervisor has started this process."""

    operations: OperationsSettings | None = None
    """Where metrics and probes are served, if anywhere."""

    @property
    def queue(self) -> QueueSettings:
        """Where the service's Redis is."""
        return queue_of(self.service)

    def database(self) -> DatabaseSettings | None:
        """Return where it is recorded how jobs end; ``None`` if that is in Redis alone. Starts an event loop."""
        return _database_of_records() if self.application is None else Settings.load_database(self.application.name)

    def lifecycle(self, database: DatabaseSettings) -> Lifecycle:
        """Return what opens the database."""
        changes = {"queue": ServedQueues((self.service.queue,)), "max_jobs": self.service.max_jobs}
        worker = self.settings.model_copy(update=changes)
        return Lifecycle(Settings(database, self.queue, worker), self.application or Application(name="arqonce"))


def run_service(run: ServiceRun) -> None:
    """Run the service's jobs until stopped or, in a burst, until its queue is empty.

    Raises:
        StartupError: a server is unreachable, rejects us or is unsafe.
    """
    set_up_logging(run.settings, run.supervised)
    ending = Ending(grace_of(run.service, run.settings), pipe=run.supervised.orders if run.supervised else None)
    database = run.database()
    run_process(_work(run, None if database is None else run.lifecycle(database), ending), ending)


async def _work(run: ServiceRun, lifecycle: Lifecycle | None, ending: Ending) -> Sequence[str]:
    queue = run.queue
    redis = build_redis(
        queue.url.get_secret_value(),
        ArqRedis,
        password=queue.plain_password,
        max_connections=run.service.connections,
        retries=RETRIES,
    )
    redis.default_queue_name = run.service.queue
    redis.job_serializer, redis.job_deserializer = run.service.serializers(accepts_pickle=run.accepts_pickle)
    try:
        await require_safe_redis(redis, queue)
    except StartupError:
        await redis.aclose(close_connection_pool=True)
        raise
    async with AsyncExitStack() as stack:
        opening = open_operations(run.operations, "service", is_supervised=run.supervised is not None)
        shown = await stack.enter_async_context(opening)
        return await work_to_the_end(_build_worker(run, redis, lifecycle, ending, stack, shown), queue, ending)


def _build_worker(  # noqa: PLR0913, PLR0917 - the parts that it connects
    run: ServiceRun,
    redis: ArqRedis,
    lifecycle: Lifecycle | None,
    ending: Ending,
    stack: AsyncExitStack,
    shown: Operations | None,
) -> Worker:
    arguments = run.service.arguments()
    started, ended = arguments.pop("on_startup", None), arguments.pop("on_shutdown", None)
    has_begun = False

    async def on_startup(ctx: dict[Any, Any]) -> None:
        nonlocal has_begun
        dispatcher: Dispatcher | None = None
        if lifecycle is not None:
            stack.push_async_callback(lifecycle.shutdown)
            dispatcher = await _open_ledger(run, lifecycle, redis, worker)
        has_begun = True
        if started is not None:
            await started(ctx)
        if lifecycle is None:
            await _watch(run.settings, redis, worker, stack)
        _log.info(
            "service ready",
            settings=run.service.name,
            queue=run.service.queue,
            redis=location(run.queue.url.get_secret_value()),
            functions=len(worker.functions),
            records="PostgreSQL" if worker.records else "none: DATABASE_URL names no ledger",
        )
        ending.ready(lambda: status_of(worker))
        if shown is not None:
            show_worker(shown, worker, redis, dispatcher=dispatcher, lifecycle=lifecycle)
        if run.supervised is not None:
            tell_ready(run.supervised.orders)

    async def on_shutdown(ctx: dict[Any, Any]) -> None:
        """Call the service's hook, unless the worker could not start, and the other hook was not called either."""
        if ended is not None and has_begun:
            await ended(ctx)

    try:
        worker = Worker(
            **arguments
            | {
                "redis_pool": redis,
                "on_startup": on_startup,
                "on_shutdown": on_shutdown,
                "burst": run.burst or bool(run.service.settings.get("burst")),
                "handle_signals": False,
                "job_completion_wait": grace_of(run.service, run.settings).total_seconds(),
                "job_serializer": redis.job_serializer,
                "job_deserializer": redis.job_deserializer,
            },
            lease=run.settings.lease,
            max_working=run.settings.max_working,
            observer=observer_of(shown, None),
            rest=None if lifecycle is None else lifecycle.rest,
        )
        redis.expires_extra_ms = worker.expires_extra_ms  # of what functions and cron jobs enqueue
    except (RuntimeError, TypeError, ValueError) as error:  # what arq says of its settings
        raise UsageError(f"{run.service.name}: {error}") from None
    return worker


async def _open_ledger(run: ServiceRun, lifecycle: Lifecycle, redis: ArqRedis, worker: Worker) -> Dispatcher:
    """Let the worker record how functions end, and run the jobs of a registry beside them."""
    dispatcher = await lifecycle.startup(redis, worker.threads.problems)
    worker.must_know_pauses, worker.about = True, lifecycle.about
    worker.records = FunctionRecords(dispatcher.sessions, dispatcher.gate, dispatcher.history)
    if run.application is not None:
        keep = run.settings.keep_result
        worker.registry_work = RegistryWork(run.application.registry, dispatcher, keep_result=keep)
    return dispatcher


async def _watch(settings: WorkerSettings, redis: ArqRedis, worker: Worker, stack: AsyncExitStack) -> None:
    """Watch the loop and report health, as the lifecycle does where there is a database."""
    last_block = stack.enter_context(warn_of_blocks(settings.lease, worker.rest))
    worker.about = lambda: {"block": last_block()}
    if settings.health_file is not None:
        probes: dict[str, Probe] = {"Redis": lambda: ask_redis(redis)}
        await stack.enter_async_context(report_health(settings.health_file, probes, worker.threads.problems))


def grace_of(service: Service, settings: WorkerSettings) -> timedelta:
    """Return how long running jobs may go on at the end: what the service says, or else WORKER_SHUTDOWN_GRACE."""
    own = service.settings.get("job_completion_wait")
    if isinstance(own, timedelta):
        return own
    return timedelta(seconds=float(own)) if own else settings.shutdown_grace


def queue_of(service: Service) -> QueueSettings:
    """Return where the service's queue is: what its settings say, or else REDIS_URL."""
    own = service.redis_url()
    if own is None and QueueSettings.given("url") is not None:
        return QueueSettings.load()
    # REDIS_PASSWORD belongs to REDIS_URL, and to no other server.
    return QueueSettings.model_construct(url=SecretStr(own or url_of(RedisSettings())))


_NO_LEDGER = (
    "DATABASE_URL names a database without a ledger: functions run as in arq, without receipts and dead letters. "
    "To have these, apply its migrations with the command migrate"
)

_OTHER_DATABASE = "DATABASE_URL is not PostgreSQL's: functions run as in arq, without receipts and dead letters"


def _database_of_records() -> DatabaseSettings | None:
    """Return the database with the ledger in which functions are recorded; ``None``, with a warning, if it has none.

    DATABASE_URL may well be the service's own. Starts an event loop of its own.

    Raises:
        SettingsError: it is PostgreSQL's, and wrong.
        StartupError: the server is unreachable or rejects us.
    """
    if not (url := DatabaseSettings.given("url")):
        return None
    if not is_ours(url):
        _log.warning(_OTHER_DATABASE)
        return None
    settings = Settings.load_database("arqonce")
    if not asyncio.run(_has_ledger(settings)):
        _log.warning(_NO_LEDGER, database=settings.location)
        return None
    return settings


async def _has_ledger(settings: DatabaseSettings) -> bool:
    try:
        async with open_database(settings, pool_size=1) as sessions:
            return await has_schema(sessions, ledger_of(settings))
    except (SQLAlchemyError, OSError) as error:
        raise StartupError(explain_database(error, settings)) from error


def check_service(service: Service) -> bool:
    """Return whether a worker of the service has written its health key lately, as ``arq --check``. One round trip."""
    key = service.settings.get("health_check_key") or service.queue + health_check_key_suffix
    queue = queue_of(service)
    url = queue.url.get_secret_value()
    with explained(url), build_sync_redis(url, password=queue.plain_password, max_connections=1) as redis:
        return bool(redis.exists(key))
