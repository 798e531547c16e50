"""The resources that all requests share, opened and closed with the application. Knows no route."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiohttp import web
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient, open_database
from arqonce.connection.redis import build_redis
from web.backlog import Backlog
from web.sessions import bind_sessions
from web.settings import Settings, WebSettings

_REDIS_RETRIES = 1
"""One retry, for a connection that is older than the server. More would delay the 503 that asks clients to retry."""


@dataclass(frozen=True)
class Resources:
    """The resources that all requests share."""

    settings: WebSettings
    sessions: async_sessionmaker[AsyncSession]
    client: JobClient
    redis: Redis
    backlog: Backlog
    stopping: asyncio.Event
    """Set when the service has to stop: requests that only wait for a result are answered at once."""


RESOURCES = web.AppKey("resources", Resources)


def opening(settings: Settings) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return aiohttp's cleanup context for the resources. It does not connect; the first request does.

    So the service starts, and returns 503, while PostgreSQL or Redis is unavailable.
    """

    async def open_resources(app: web.Application) -> AsyncIterator[None]:
        url = settings.queue.url.get_secret_value()
        async with AsyncExitStack() as stack:
            database = open_database(settings.database, pool_size=settings.web.pool_size)
            sessions = await stack.enter_async_context(database)
            bind_sessions(app, sessions)
            redis = await stack.enter_async_context(_build_redis(settings))
            client = _build_client(settings)
            stack.push_async_callback(client.aclose)
            backlog = Backlog(redis, url, settings.web.queue, most=settings.web.max_queued)
            app[RESOURCES] = Resources(settings.web, sessions, client, redis, backlog, asyncio.Event())
            yield

    return open_resources


async def answer_who_waits(app: web.Application) -> None:
    """End the waits of requests for results."""
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
