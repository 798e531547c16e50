"""Runs a process that relays and runs no jobs: from settings to exit code."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial

import structlog
from redis.asyncio import Redis

from arqonce.connection.redis import build_redis, location
from arqonce.database.engine import open_database
from arqonce.operations.process import open_operations
from arqonce.process.ending import Ending
from arqonce.process.event_loop import run_to_the_end
from arqonce.process.health import report_health
from arqonce.process.lifecycle import require_ready_database, require_safe_redis
from arqonce.process.logs import set_up_logging
from arqonce.process.probes import server_probes
from arqonce.process.shown import show_relay, write_slots
from arqonce.relay.relay import open_relay
from arqonce.schedules.scheduler import open_scheduler
from arqonce.settings.worker import Settings
from arqonce.spec import Registry

_CONNECTIONS = 3
"""Connections to PostgreSQL: for listening, for dispatching, and for the health probe."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.relay")


def run_relay(settings: Settings, registry: Registry) -> None:
    """Relay, and promise the slots of the registry's schedules, until stopped. Owns the event loop.

    Before it ends, it writes rows already marked as dispatched into Redis.

    Raises:
        StartupError: a server is unreachable, rejects us or is unsafe, or the schema is behind.
    """
    set_up_logging(settings.worker)
    ending = Ending(timedelta(0))
    with asyncio.Runner() as runner:
        run_to_the_end(runner, _relay(settings, registry, ending), ending)
    _log.info("relay stopped")


async def _relay(settings: Settings, registry: Registry, ending: Ending) -> None:
    url = settings.queue.url.get_secret_value()
    async with AsyncExitStack() as stack:
        operations = await stack.enter_async_context(open_operations(settings.operations, "relay"))
        client = build_redis(url, Redis, password=settings.queue.plain_password, max_connections=2)
        redis = await stack.enter_async_context(client)
        await require_safe_redis(redis, settings.queue)
        sessions = await stack.enter_async_context(open_database(settings.database, pool_size=_CONNECTIONS))
        await require_ready_database(sessions, settings.database)
        relay = await stack.enter_async_context(open_relay(sessions, settings))
        queue = settings.worker.default_queue
        scheduling = open_scheduler(sessions, registry, queue=queue, removes=False)
        scheduler = await stack.enter_async_context(scheduling)
        if operations is not None:
            operations.add(partial(write_slots, scheduler))
            show_relay(operations, relay, redis, sessions)
        ending.begin()  # before the health file reports that the relay is ready
        if file := settings.worker.health_file:
            await stack.enter_async_context(report_health(file, server_probes(redis, sessions)))
        _log.info(
            "relay ready",
            queue=str(settings.worker.queue),
            schedules=len(registry.schedules),
            redis=location(url),
            database=settings.database.location,
        )
        ending.ready(lambda: "relaying")
        await ending.told_to_stop().wait()
