"""Startup and shutdown: opens what jobs need, in order, and closes it, even after a failed start.

Uses one exit stack, because arq runs the shutdown hook even if the startup hook raised, and in another task.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.application import Application
from arqonce.connection.primary import may_be_asked
from arqonce.connection.redis import explain, location
from arqonce.database.limits import shorter_limits
from arqonce.database.schema import Schema, SchemaError, require_current_schemas
from arqonce.database.settings import DatabaseSettings
from arqonce.database.writability import require_writable
from arqonce.execution.attempt import Dispatcher
from arqonce.ledger.schema import ledger_of
from arqonce.process.health import report_health
from arqonce.process.housekeeping import ages_of, keep_house
from arqonce.process.loop_watch import LastBlock, warn_of_blocks
from arqonce.process.probes import server_probes
from arqonce.process.startup_errors import StartupError, explain_database
from arqonce.relay.relay import Relay, open_relay
from arqonce.resources import open_resources
from arqonce.rest import Rest
from arqonce.schedules.scheduler import Scheduler, open_scheduler
from arqonce.settings.worker import QueueSettings, Settings

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.lifecycle")


class Lifecycle:
    """What a worker's startup and shutdown hooks do."""

    def __init__(self, settings: Settings, application: Application) -> None:
        """Open nothing yet."""
        self._settings = settings
        self._open_sessions = application.lifespan
        self._registry = application.registry
        self._longest = application.registry.longest_deadline
        self._stack = AsyncExitStack()
        self.rest = Rest()
        """For the worker, which says when it rests."""
        self.relay: Relay | None = None
        """What writes promised jobs into Redis, once it has started."""
        self.scheduler: Scheduler | None = None
        """What promises the slots of schedules, likewise."""
        self._last_block: LastBlock = lambda: None

    async def startup(self, redis: Redis, problems: Callable[[], list[str]] = list) -> Dispatcher:
        """Check both servers, open the database and return what runs its jobs. ``problems`` are for the health file.

        Raises:
            StartupError: a server is unreachable, rejects us or is unsafe, or the schema is behind.
            ResourceError: a resource of the registry cannot be opened.
        """
        async with AsyncExitStack() as stack:
            await require_safe_redis(redis, self._settings.queue)
            sessions = await stack.enter_async_context(self._open_sessions(self._settings))
            await require_ready_database(sessions, self._settings.database, self._registry.schemas)
            await _warn_of_limits(sessions, self._longest)
            opened = await stack.enter_async_context(open_resources(self._registry.resources, self._settings))
            dispatcher = Dispatcher(sessions, queue=self._settings.worker.default_queue, resources=opened)
            await stack.enter_async_context(dispatcher.history.writing())
            await stack.enter_async_context(keep_house(sessions, ages_of(self._settings.worker), self.rest))
            self.relay = await stack.enter_async_context(open_relay(sessions, self._settings, self.rest))
            queue = self._settings.worker.default_queue
            scheduling = open_scheduler(sessions, self._registry, queue=queue, removes=True, rest=self.rest)
            self.scheduler = await stack.enter_async_context(scheduling)
            self._last_block = stack.enter_context(warn_of_blocks(self._settings.worker.lease, self.rest))
            if file := self._settings.worker.health_file:
                probes = server_probes(redis, sessions, dispatcher.gate)
                await stack.enter_async_context(report_health(file, probes, problems))
            self._stack = stack.pop_all()
        _log.info(
            "worker ready",
            queue=str(self._settings.worker.queue),
            redis=location(self._settings.queue.url.get_secret_value()),
            database=self._settings.database.location,
            max_jobs=self._settings.worker.max_jobs,
        )
        return dispatcher

    def about(self) -> Mapping[str, object]:
        """Return what operators are told: what has blocked the event loop of late, and which database it is."""
        return {"block": self._last_block(), "database": None if self.relay is None else self.relay.database}

    async def shutdown(self) -> None:
        """Close what startup opened. A failed start has already closed everything."""
        await self._stack.aclose()


async def require_safe_redis(redis: Redis, settings: QueueSettings) -> None:
    """Return if Redis is reachable, writable, not a cluster, and does not evict keys. One round trip.

    Raises:
        StartupError: it is not; the text names the cure.
    """
    url = settings.url.get_secret_value()
    try:
        async with redis.pipeline(transaction=False) as pipe:
            pipe.info("memory")
            pipe.info("replication")
            pipe.info("cluster")
            memory, replication, cluster = await pipe.execute()
        may_be_asked({"role": replication.get("role"), "mode": cluster.get("cluster_enabled") and "cluster"})
    except (RedisError, OSError) as error:
        raise StartupError(str(explain(error, url))) from error
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy != "noeviction":
        message = f"Redis at {location(url)} may evict queued jobs ({policy}): set maxmemory-policy noeviction"
        raise StartupError(message)


async def require_ready_database(
    sessions: async_sessionmaker[AsyncSession], settings: DatabaseSettings, others: Sequence[Schema] = ()
) -> None:
    """Return if PostgreSQL can be written to and has every migration of the ledger and of ``others``.

    A few round trips, and two for each further schema.

    Raises:
        StartupError: otherwise; the text names the cure.
    """
    try:
        async with sessions() as session:
            await require_writable(session)
        await require_current_schemas(sessions, (ledger_of(settings), *others))
    except SchemaError as error:
        raise StartupError(str(error)) from error
    except (SQLAlchemyError, OSError) as error:
        raise StartupError(explain_database(error, settings)) from error


async def _warn_of_limits(sessions: async_sessionmaker[AsyncSession], longest: timedelta) -> None:
    """Log which of PostgreSQL's limits end a transaction before the longest deadline. One round trip."""
    try:
        async with sessions() as session:
            found = await shorter_limits(session, longest)
    except (SQLAlchemyError, OSError):
        return  # an outage: the worker waits until it is over
    for name, limit in found.items():
        _log.warning(
            "PostgreSQL ends transactions before a job's deadline does",
            setting=name,
            limit_s=limit.total_seconds(),
            longest_deadline_s=longest.total_seconds(),
            cure=f"raise {name} for the worker's role, or lower the job's deadline",
        )
