"""What arq's worker class and ours are made with: the connection to Redis and the constructor's arguments."""

from typing import Any, TypeVar

from arq.connections import ArqRedis

from arqonce.arq.registry_functions import MessageReader
from arqonce.connection.redis import build_redis
from arqonce.execution.work import MARGIN
from arqonce.settings.worker import Settings
from arqonce.spec import Registry
from arqonce.wire.codec import encode

ArqRedisT = TypeVar("ArqRedisT", bound=ArqRedis)

RETRIES = 6
"""How often redis-py repeats a command by itself: about two seconds, a restart of Redis."""


def build_arq_redis(settings: Settings, registry: Registry, client: type[ArqRedisT]) -> ArqRedisT:
    """Construct arq's client over our pool: with time limits, JSON, and retries after a lost connection."""
    redis = build_redis(
        settings.queue.url.get_secret_value(),
        client,
        password=settings.queue.plain_password,
        max_connections=settings.worker.max_jobs + 10,
        retries=RETRIES,
    )
    redis.job_serializer = encode
    redis.job_deserializer = MessageReader(registry)
    redis.default_queue_name = settings.worker.default_queue
    return redis


def worker_arguments(settings: Settings, redis: ArqRedis) -> dict[str, Any]:
    """Return the arguments for ``arq.Worker`` that our worker class and arq's own have in common."""
    return {
        "queue_name": settings.worker.default_queue,
        "redis_pool": redis,
        "job_serializer": encode,
        "job_deserializer": redis.job_deserializer,
        "max_jobs": settings.worker.max_jobs,
        "job_timeout": MARGIN,  # of refuse_message; every other function has its own
        "job_completion_wait": settings.worker.shutdown_grace.total_seconds(),
        "keep_result": settings.worker.keep_result,
        "poll_delay": settings.worker.poll_interval,
        "health_check_interval": 10,
        "allow_abort_jobs": True,
        "log_results": False,
    }
