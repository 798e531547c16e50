"""Settings for arq's own command line, ``arq worker.WorkerSettings``: the same jobs in arq's own worker class.

It lacks what needs our worker class: it ends when Redis stays away, and deploys and outages count as attempts.
"""

from typing import Any

import structlog
from arq.connections import ArqRedis, RedisSettings
from redis.exceptions import RedisError

from jobs.registry import REGISTRY
from jobs.wire import is_job_id
from worker.consumer import build_arq_redis, worker_arguments
from worker.logs import set_up_logging
from worker.settings import QueueSettings, Settings

_log: structlog.stdlib.BoundLogger = structlog.get_logger("worker.plain_arq")


class _GuardedRedis(ArqRedis):
    """Keeps from arq's worker what would kill it."""

    async def zrangebyscore(self, name: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Return the due job ids, without those that arq cannot decode; they are removed."""
        found = await super().zrangebyscore(name, *args, **kwargs)
        hostile = [job_id for job_id in found if not is_job_id(job_id.decode("utf-8", "replace"))]
        if hostile:
            _log.warning("jobs refused", count=len(hostile), reason="malformed_message")
            await self.zrem(name, *hostile)
        return [job_id for job_id in found if job_id not in hostile]

    async def delete(self, *names: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Delete, or give up: arq deletes its health key before it calls the shutdown hook, and stops if that fails."""
        try:
            return await super().delete(*names)
        except (RedisError, OSError):
            return 0


def build_worker_settings() -> type:
    """Build the class that arq reads. Attributes only: arq looks at ``__dict__`` and misses what is inherited.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    settings = Settings.load()
    arguments = worker_arguments(settings, REGISTRY, build_arq_redis(settings, REGISTRY, _GuardedRedis))
    start = arguments["on_startup"]

    async def on_startup(ctx: dict[str, Any]) -> None:
        # Not earlier: arq's command line sets up its own logging, which prints people's data.
        set_up_logging(settings.worker)
        await start(ctx)

    arguments |= {"on_startup": on_startup, "redis_settings": _redis_settings(settings.queue)}
    return type("WorkerSettings", (), arguments)


def _redis_settings(settings: QueueSettings) -> RedisSettings:
    """Return what ``arq --check`` connects with."""
    redis = RedisSettings.from_dsn(settings.url.get_secret_value())
    redis.ssl_check_hostname = True
    redis.password = settings.plain_password or redis.password
    return redis
