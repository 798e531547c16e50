"""Runs one worker process: from settings to exit code."""

import asyncio
import gc
import threading
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from arqonce.application import Application
from arqonce.arq.worker import Worker
from arqonce.connection.redis import explain
from arqonce.execution.work import RegistryWork
from arqonce.operations.process import Operations, observer_of, open_operations
from arqonce.process.arguments import build_arq_redis, worker_arguments
from arqonce.process.ending import HELD, MARGIN, Ending, leave
from arqonce.process.event_loop import fastest_loop, run_to_the_end
from arqonce.process.last_measures import take_last_measures
from arqonce.process.lifecycle import Lifecycle, require_safe_redis
from arqonce.process.logs import set_up_logging
from arqonce.process.shown import show_worker
from arqonce.process.startup_errors import StartupError
from arqonce.process.supervised import Supervised, tell_ready
from arqonce.settings.worker import QueueSettings, Settings
from arqonce.work import Observer

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.worker")

_CANCELLED = (
    "the worker itself was cancelled, and nobody has told it to stop: a job cancels tasks of others, such as "
    "all of asyncio.all_tasks(). The worker ends in order; let the job cancel only what it has started"
)


def run_worker(
    settings: Settings,
    application: Application,
    *,
    burst: bool = False,
    supervised: Supervised | None = None,
    observer: Observer | None = None,
) -> None:
    """Run jobs until stopped or, with ``burst``, until the queue is empty. Owns the event loop, signals and shutdown.

    The process ends at most ``MARGIN`` after its grace period, with exit code ``HELD`` if something kept it running.

    ``observer`` hears what the engine does. ``supervised`` is given if a supervisor has started this process.

    Raises:
        StartupError: a server is unreachable, rejects us or is unsafe, or the schema is behind.
    """
    set_up_logging(settings.worker, supervised)
    ending = Ending(settings.worker.shutdown_grace, pipe=supervised.orders if supervised else None)
    run_process(_work(settings, application, ending, burst=burst, supervised=supervised, observer=observer), ending)


def run_process(work: Coroutine[Any, Any, Sequence[str]], ending: Ending) -> None:
    """Run what ``work_to_the_end`` ends with, in an event loop of its own. Call it when logging is set up."""
    calm_garbage_collector()
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        if run_to_the_end(runner, work, ending):
            leave(HELD)  # closing the loop would wait for what holds on
    _tell_end()


def _tell_end() -> None:
    others = [thread.name for thread in threading.enumerate() if not thread.daemon]
    if len(others) > 1:
        _log.warning("threads hold on to the process: they have until its bound", threads=others)
    else:
        _log.info("worker stopped")


async def _work(  # noqa: PLR0913 - as above
    settings: Settings,
    application: Application,
    ending: Ending,
    *,
    burst: bool,
    supervised: Supervised | None,
    observer: Observer | None,
) -> Sequence[str]:
    """Work until the end; return what still keeps the process from ending."""
    async with open_operations(settings.operations, "worker", is_supervised=supervised is not None) as operations:
        observer = observer_of(operations, observer)
        worker = await _build(
            settings, application, ending, supervised=supervised, burst=burst, observer=observer, shown=operations
        )
        return await work_to_the_end(worker, settings.queue, ending)


async def _build(  # noqa: PLR0913 - as above
    settings: Settings,
    application: Application,
    ending: Ending,
    *,
    burst: bool,
    supervised: Supervised | None,
    observer: Observer | None,
    shown: Operations | None,
) -> Worker:
    redis = build_arq_redis(settings, application.registry, ArqRedis)
    try:
        await require_safe_redis(redis, settings.queue)  # no PING, which a Redis refuses that cannot save its data
    except StartupError:
        await redis.aclose(close_connection_pool=True)
        raise
    lifecycle = Lifecycle(settings, application)

    async def startup(_ctx: dict[Any, Any]) -> None:
        dispatcher = await lifecycle.startup(redis, worker.threads.problems)
        worker.must_know_pauses, worker.about = True, lifecycle.about
        worker.registry_work = RegistryWork(application.registry, dispatcher, keep_result=settings.worker.keep_result)
        ending.ready(lambda: status_of(worker))
        if shown is not None:
            show_worker(shown, worker, redis, dispatcher=dispatcher, lifecycle=lifecycle)
        if supervised is not None:
            tell_ready(supervised.orders)

    async def shutdown(_ctx: dict[Any, Any]) -> None:
        await lifecycle.shutdown()

    worker = Worker(  # the hooks above use it
        **worker_arguments(settings, redis),
        on_startup=startup,
        on_shutdown=shutdown,
        lease=settings.worker.lease,
        queues=settings.worker.queue,
        burst=burst,
        has_registry=True,
        max_working=settings.worker.max_working,
        observer=observer,
        rest=lifecycle.rest,
    )
    return worker


def status_of(worker: Worker) -> str:
    """Return what the worker does, in a line for people."""
    done = f"{worker.jobs_complete} done, {worker.jobs_failed} failed"
    state = "ending" if worker.is_stopping else "drained" if worker.engine and worker.engine.is_quiet else "working"
    return f"{state}: {len(worker.tasks)} jobs in progress, {done}"


async def work_to_the_end(worker: Worker, queue: QueueSettings, ending: Ending) -> Sequence[str]:
    """Let the worker work until a signal or an order ends it; return what still keeps the process from ending.

    Raises:
        StartupError: in burst mode, which does not wait for a lost Redis.
        SystemExit: a job has cancelled the worker itself.
    """
    ending.begin()
    ending.obey(worker.handle_sig_wait_for_completion)
    ending.last_measures = partial(take_last_measures, queue, worker)
    await _run(worker, queue, ending)
    threads = worker.threads.stuck
    if threads:
        _log.error("threads hold on: the process ends without them", calls=threads)
    return [*worker.held, *threads]


async def _run(worker: Worker, queue: QueueSettings, ending: Ending) -> None:
    has_failed = True
    try:
        await _run_until_told(worker, queue)
        has_failed = False
    finally:
        await _close(worker, ending, has_failed=has_failed)


async def _run_until_told(worker: Worker, queue: QueueSettings) -> None:
    try:
        await worker.async_run()
    except asyncio.CancelledError:
        if not worker.is_stopping:
            _log.error(_CANCELLED)
            raise SystemExit(1) from None  # so that a supervisor restarts the process
    except (RedisError, OSError) as error:  # in burst mode the worker does not wait for a lost Redis
        raise StartupError(str(explain(error, queue.url.get_secret_value()))) from error


async def _close(worker: Worker, ending: Ending, *, has_failed: bool) -> None:
    """Close the worker. If it ``has_failed``, that is what is told, whatever the shutdown hook raises."""
    ending.limit(MARGIN)
    try:
        await worker.close()
    except Exception as error:
        if not has_failed:
            raise
        _log.error("the shutdown hook failed", exc_info=error)


def calm_garbage_collector() -> None:
    """Collect cycles less often, and never among the objects loaded at the start.

    A batch holds tens of thousands of objects until its end. Scanning them after every 700 new objects, the default,
    costs a tenth of the time. Source: Instagram Engineering, "Copy-on-write friendly Python garbage collection", 2017.
    There is next to no garbage yet, and to look for it first would cost as much as a tenth of all loading.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
