"""One worker process: from settings to exit code."""

import asyncio
import gc
from contextlib import nullcontext

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from jobs.connection import explain
from jobs.event_loop import fastest_loop
from jobs.extensions import load_registry
from jobs.registry import Registry
from worker.arq_arguments import build_arq_redis, worker_arguments
from worker.consumer import UsersWorker
from worker.lifecycle import StartupError
from worker.logs import set_up_logging
from worker.orders import obeying
from worker.settings import Settings

_log: structlog.stdlib.BoundLogger = structlog.get_logger("worker.process")


def run_worker(
    settings: Settings, *, registry: Registry | None = None, burst: bool = False, orders: int | None = None
) -> None:
    """Work until SIGTERM or SIGINT or, with ``burst``, until the queue is empty. Owns the event loop.

    It runs the jobs of ``registry``, by default ours and those that WORKER_REGISTRY names.
    ``orders`` is the file descriptor of a supervisor's pipe (``worker/orders.py``), if there is one.

    Raises:
        RegistryError: a registry that WORKER_REGISTRY names cannot be used.
        StartupError: a server cannot be reached, refuses us or is unsafe, or the schema is behind.
    """
    registry = load_registry(settings.worker.registry) if registry is None else registry
    set_up_logging(settings.worker)
    calm_garbage_collector()
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(_work(settings, registry, burst=burst, orders=orders))


async def _work(settings: Settings, registry: Registry, *, burst: bool, orders: int | None) -> None:
    redis = build_arq_redis(settings, registry, ArqRedis)
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        await redis.aclose(close_connection_pool=True)
        raise StartupError(str(explain(error, settings.queue.url.get_secret_value()))) from error
    worker = UsersWorker(**worker_arguments(settings, registry, redis), lease=settings.worker.lease, burst=burst)
    with nullcontext() if orders is None else obeying(orders, worker.handle_sig_wait_for_completion):
        await _work_to_the_end(worker, settings)


async def _work_to_the_end(worker: UsersWorker, settings: Settings) -> None:
    try:
        await worker.async_run()
    except asyncio.CancelledError:
        _log.info("worker told to stop")
    except (RedisError, OSError) as error:  # in burst mode nobody waits for a lost Redis
        raise StartupError(str(explain(error, settings.queue.url.get_secret_value()))) from error
    finally:
        await worker.close()


def calm_garbage_collector() -> None:
    """Look for cycles more rarely, and never among what was loaded at the start.

    A batch holds tens of thousands of objects until its end; looked through every 700 new ones, as by default, they
    cost a tenth of the time. Source of the idea: Instagram Engineering, "Copy-on-write friendly Python garbage
    collection", 2017.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
