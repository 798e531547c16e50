"""Runs an arq service, as it is, in our worker: its functions, cron jobs, hooks and limits. Needs no PostgreSQL."""

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.constants import health_check_key_suffix
from pydantic import SecretStr
from redis.exceptions import RedisError

from arqonce.arq.service import Service
from arqonce.arq.worker import Worker
from arqonce.connection.redis import build_redis, build_sync_redis, explain, location
from arqonce.process.arguments import RETRIES
from arqonce.process.ending import HELD, MARGIN, Ending, leave
from arqonce.process.event_loop import fastest_loop, run_to_the_end
from arqonce.process.health import report_health
from arqonce.process.lifecycle import StartupError, require_safe_redis, write_probe
from arqonce.process.logs import set_up_logging
from arqonce.process.loop_watch import warn_of_blocks
from arqonce.process.stop_orders import tell_ready
from arqonce.settings.worker import QueueSettings, WorkerSettings

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.service")


def run_service(
    service: Service, settings: WorkerSettings, *, burst: bool, accepts_pickle: bool, orders: int | None = None
) -> None:
    """Run the service's jobs until stopped or, with ``burst``, until its queue is empty.

    Of the settings WORKER_*, those about leases, logs and the end of the process apply; all else is the service's own.

    Raises:
        StartupError: Redis is unreachable, rejects us or is unsafe.
    """
    set_up_logging(settings)
    ending = Ending(grace_of(service, settings), pipe=orders)
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        work = _work(service, settings, ending, burst=burst, accepts_pickle=accepts_pickle, orders=orders)
        if run_to_the_end(runner, work, ending):
            leave(HELD)
    _log.info("worker stopped")


async def _work(  # noqa: PLR0913 - as above
    service: Service,
    settings: WorkerSettings,
    ending: Ending,
    *,
    burst: bool,
    accepts_pickle: bool,
    orders: int | None,
) -> list[str]:
    queue = queue_of(service)
    redis = build_redis(queue.url.get_secret_value(), ArqRedis, max_connections=service.connections, retries=RETRIES)
    redis.default_queue_name = service.queue
    redis.job_serializer, redis.job_deserializer = service.serializers(accepts_pickle=accepts_pickle)
    try:
        await require_safe_redis(redis, queue)
    except StartupError:
        await redis.aclose(close_connection_pool=True)
        raise
    stack = AsyncExitStack()
    worker = _build_worker(service, settings, redis, stack, burst=burst, orders=orders)
    ending.begin()
    ending.obey(worker.handle_sig_wait_for_completion)
    try:
        async with stack:
            stack.enter_context(warn_of_blocks(settings.lease))
            await worker.async_run()
    except asyncio.CancelledError:
        _log.info("worker told to stop")
    except (RedisError, OSError) as error:  # in burst mode the worker does not wait for a lost Redis
        raise StartupError(str(explain(error, queue.url.get_secret_value()))) from error
    finally:
        ending.limit(MARGIN)
        await worker.close()
    return [*worker.held, *worker.threads.stuck]


def _build_worker(  # noqa: PLR0913 - as above
    service: Service,
    settings: WorkerSettings,
    redis: ArqRedis,
    stack: AsyncExitStack,
    *,
    burst: bool,
    orders: int | None,
) -> Worker:
    arguments = service.arguments()
    arguments["job_completion_wait"] = grace_of(service, settings).total_seconds()
    started = arguments.pop("on_startup", None)

    async def on_startup(ctx: dict[Any, Any]) -> None:
        if started is not None:
            await started(ctx)
        if settings.health_file is not None:
            probes = {"Redis": lambda: write_probe(redis)}
            await stack.enter_async_context(report_health(settings.health_file, probes, worker.threads.problems))
        _log.info(
            "worker ready",
            settings=service.name,
            queue=service.queue,
            redis=location(queue_of(service).url.get_secret_value()),
            functions=len(worker.functions),
        )
        if orders is not None:
            tell_ready(orders)

    worker = Worker(
        **arguments,
        redis_pool=redis,
        on_startup=on_startup,
        burst=burst or bool(service.settings.get("burst")),
        handle_signals=False,
        job_serializer=redis.job_serializer,
        job_deserializer=redis.job_deserializer,
        lease=settings.lease,
    )
    return worker


def grace_of(service: Service, settings: WorkerSettings) -> timedelta:
    """Return how long running jobs may go on at the end: what the service says, or else WORKER_SHUTDOWN_GRACE."""
    own = service.settings.get("job_completion_wait")
    return timedelta(seconds=float(own)) if own else settings.shutdown_grace


def queue_of(service: Service) -> QueueSettings:
    """Return where the service's queue is: what its settings say, or else REDIS_URL."""
    own = service.settings.get("redis_settings")
    fallback = None if own is not None else os.environ.get("REDIS_URL")
    return QueueSettings(url=SecretStr(service.redis_url(fallback)))


def check_service(service: Service) -> bool:
    """Return whether a worker of the service has written its health key lately, as ``arq --check``. One round trip."""
    key = service.settings.get("health_check_key") or service.queue + health_check_key_suffix
    url = queue_of(service).url.get_secret_value()
    with build_sync_redis(url, max_connections=1) as redis:
        return bool(redis.exists(key))
