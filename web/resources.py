"""What every request may use, opened and closed by the application's life cycle. Knows no route."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiohttp import web
from redis.asyncio import Redis

from arqonce import JobClient, open_database
from arqonce.connection.redis import build_redis
from web.backlog import Backlog
from web.sessions import bind_sessions
from web.settings import Settings, WebSettings

_REDIS_RETRIES = 1
"""One, for a connection that is older than the server. Who calls us is told to try again, and waits meanwhile."""


@dataclass(frozen=True)
class Resources:
    """What every request may use."""

    settings: WebSettings
    client: JobClient
    redis: Redis
    backlog: Backlog
    stopping: asyncio.Event
    """Set when the service is told to stop: who only waits for a result is answered now."""


RESOURCES = web.AppKey("resources", Resources)


def opening(settings: Settings) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return the life cycle of what the application uses. It connects to nothing: that is left to requests.

    So the service starts, and answers 503, while PostgreSQL or Redis is gone.
    """

    async def open_resources(app: web.Application) -> AsyncIterator[None]:
        url = settings.queue.url.get_secret_value()
        async with AsyncExitStack() as stack:
            database = open_database(settings.database, pool_size=settings.web.pool_size)
            bind_sessions(app, await stack.enter_async_context(database))
            redis = await stack.enter_async_context(_build_redis(settings))
            client = _build_client(settings)
            stack.push_async_callback(client.aclose)
            backlog = Backlog(redis, url, settings.web.queue, most=settings.web.max_queued)
            app[RESOURCES] = Resources(settings.web, client, redis, backlog, asyncio.Event())
            yield

    return open_resources


async def answer_who_waits(app: web.Application) -> None:
    """Let requests that wait for a result go on without it."""
    app[RESOURCES].stopping.set()


def _build_redis(settings: Settings) -> Redis:
    return build_redis(
        settings.queue.url.get_secret_value(),
        Redis,
        password=settings.queue.plain_password,
        retries=_REDIS_RETRIES,
    )


def _build_client(settings: Settings) -> JobClient:
    return JobClient(
        settings.queue.url.get_secret_value(),
        password=settings.queue.plain_password,
        queue=settings.web.queue,
        retries=_REDIS_RETRIES,
    )
