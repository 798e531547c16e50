"""One process that relays and runs no job: from settings to exit code."""

import asyncio
import signal
from contextlib import AsyncExitStack

import structlog
from redis.asyncio import Redis

from db.engine import open_database
from jobs.connection import build_redis, location
from worker.health import report_health
from worker.lifecycle import require_ready_database, require_safe_redis, server_probes
from worker.logs import set_up_logging
from worker.relay import open_relay
from worker.settings import Settings

_CONNECTIONS = 3
"""To PostgreSQL: for listening, for looks, and for the health probe."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("worker.relay_process")


def run_relay(settings: Settings) -> None:
    """Relay until SIGTERM or SIGINT; what was taken from the outbox by then is given. Owns the event loop.

    Raises:
        StartupError: a server cannot be reached, refuses us or is unsafe, or the schema is behind.
    """
    set_up_logging(settings.worker)
    asyncio.run(_relay(settings))


async def _relay(settings: Settings) -> None:
    url = settings.queue.url.get_secret_value()
    async with AsyncExitStack() as stack:
        client = build_redis(url, Redis, password=settings.queue.plain_password, max_connections=2)
        redis = await stack.enter_async_context(client)
        await require_safe_redis(redis, settings.queue)
        sessions = await stack.enter_async_context(open_database(settings.database, pool_size=_CONNECTIONS))
        await require_ready_database(sessions, settings.database)
        await stack.enter_async_context(open_relay(sessions, settings))
        if file := settings.worker.health_file:
            await stack.enter_async_context(report_health(file, server_probes(redis, sessions)))
        _log.info(
            "relay ready",
            queue=settings.worker.queue,
            redis=location(url),
            database=settings.database.location,
        )
        await _told_to_stop()
    _log.info("relay stopped")


async def _told_to_stop() -> None:
    """Wait for the first signal; the second one ends the process at once."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        told.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    await told.wait()
