"""Settings for arq's own command line, ``arq worker.WorkerSettings``: the same jobs in arq's own worker class.

It lacks what needs our worker class: it ends when Redis stays away; deploys, outages and each ``RetryAfter`` count as
attempts; a job with phases takes one of its ``max_jobs`` places while it works.
"""

from typing import Any
from urllib.parse import unquote

import structlog
from arq.connections import RedisSettings

from arqonce.application import Application
from arqonce.arq.guarded_redis import GuardedRedis
from arqonce.arq.registry_functions import DISPATCHER, build_functions, write_message
from arqonce.connection.url import read_redis_url
from arqonce.environment import SettingsError
from arqonce.process.arguments import build_arq_redis, worker_arguments
from arqonce.process.lifecycle import Lifecycle
from arqonce.process.logs import set_up_logging
from arqonce.settings.worker import QueueSettings, Settings

_ONE_QUEUE = "WORKER_QUEUE: arq's own worker class serves one queue: name one, or start this project's own command run"

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.plain")


def build_worker_settings(application: Application) -> type:
    """Build the class that arq reads. Attributes only: arq looks at ``__dict__`` and misses what is inherited.

    Raises:
        SettingsError: a setting is missing or wrong, or names a registry that cannot be used, or several queues.
    """
    settings = Settings.load(application.name)
    if len(settings.worker.queue.names) > 1:
        raise SettingsError(_ONE_QUEUE)
    application = application.load()
    redis = build_arq_redis(settings, application.registry, GuardedRedis)
    lifecycle = Lifecycle(settings, application)

    async def on_startup(ctx: dict[str, Any]) -> None:
        # Not earlier: arq's command line sets up its own logging, which prints people's data.
        set_up_logging(settings.worker)
        await redis.remove_hostile_aborts()
        ctx[DISPATCHER] = dispatcher = await lifecycle.startup(redis)
        redis.sessions = dispatcher.sessions

    async def on_shutdown(_ctx: dict[str, Any]) -> None:
        await lifecycle.shutdown()
        _log.info("worker stopped")

    arguments = worker_arguments(settings, redis) | {
        "functions": build_functions(application.registry),
        "job_serializer": write_message,
        "on_startup": on_startup,
        "on_shutdown": on_shutdown,
        "redis_settings": redis_settings(settings.queue),
    }
    return type("WorkerSettings", (), arguments)


def redis_settings(settings: QueueSettings) -> RedisSettings:
    """Return what ``arq --check`` connects with; arq's settings know no user and password of Sentinels."""
    address = read_redis_url(settings.url.get_secret_value())
    redis = RedisSettings.from_dsn(address.plain)
    redis.ssl_check_hostname = True
    if address.primary is not None:
        redis.sentinel, redis.sentinel_master, redis.host = True, address.primary, list(address.sentinels)
    # arq takes both from the URL as they stand there, percent-encoded.
    redis.username = None if redis.username is None else unquote(redis.username)
    redis.password = settings.plain_password or (None if redis.password is None else unquote(redis.password))
    return redis
